"""Requests that wait for the keeper of a sectoral directory, and the questions that it is asked.

    the control comes upon a directory that is kept elsewhere  →  the request waits, unrecorded
    →  each question is a request of the router's own institution, decided on, recorded and
       forwarded like any other, and bounded by a share of the time that is left
    →  when all are settled the request is decided on anew, with the answers as facts

So nothing of the request has left for its source before, and who was asked about the person stands
in the privacy log before it was asked. ``docs/decisions/0020`` has the reasons.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ksz_router.codes import Code
from ksz_router.daemon.on_behalf import Follows, OnBehalf
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.sectoral_metrics import SectoralMetrics
from ksz_router.daemon.tables import Asker
from ksz_router.decision import Facts, Question, unasked
from ksz_router.decision.integration import derived
from ksz_router.keepers import KNOWN_SERVICE
from ksz_router.limits import (
    sectoral_questions_max,
    sectoral_rounds_max,
    sectoral_time_share,
)
from ksz_router.messages import Answer, Request
from ksz_router.model import OPEN, Day
from ksz_router.sdk.sectoral import Sought, encode

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session

_SAID = {Code.ANSWERED_WITH_DATA: True, Code.ANSWERED_WITHOUT_DATA: False}
"""What a keeper said, by the code of its answer; all others say nothing."""


class Held(msgspec.Struct, eq=False):
    """A request that waits."""

    exchange: Exchange
    since_ns: int
    answers: dict[Question, bool | None]
    rounds: int = 0
    source_us: int = 0
    """What the slowest keeper took in the last round: its time, and not the router's."""


class Inquiry(OnBehalf):
    """The questions that a request waits for at the same time.

    Args:
        uri: Of the router's own institution.
        deadline_ns: Until when they are waited for.
        held: The request.
        questions: At least one.
    """

    def __init__(
        self, uri: str, deadline_ns: int, held: Held, questions: Sequence[Question]
    ) -> None:
        super().__init__(uri, deadline_ns)
        self.held = held
        self._questions = questions
        self._left = len(questions)

    def settled(self, answer: Answer) -> bool:
        """Take in what came of a question; say whether it was the last."""
        self.inflight.pop(answer.id, None)
        held = self.held
        held.answers[self._questions[answer.id]] = _SAID.get(Code(answer.code))
        held.source_us = max(held.source_us, answer.source_us)
        self._left -= 1
        return not self._left


class Asked(NamedTuple):
    """A question on its way to the control."""

    session: Inquiry
    request: Request
    exchange: bytes

    def informed(self, facts: Facts) -> Facts:
        """Return the facts: the tables say all of it."""
        return facts

    def settle(self, exchange: Exchange) -> int:
        """Give it the id that follows from the request that waits, its time, and its share."""
        caller = self.session.held.exchange.facts.caller
        exchange.counted_for = caller.kbo if caller is not None else None
        exchange.id = self.exchange
        exchange.deadline_ns = min(exchange.deadline_ns, self.session.deadline_ns)
        return len(self.request.payload)


class Resumed(NamedTuple):
    """A request that waited, on its way to the control again."""

    held: Held

    @property
    def session(self) -> "Session | OnBehalf":
        """Who asked."""
        return self.held.exchange.session

    @property
    def request(self) -> Request:
        """As it came in."""
        return self.held.exchange.request

    def informed(self, facts: Facts) -> Facts:
        """Add what the keepers said."""
        return msgspec.structs.replace(facts, answers=self.held.answers)

    def settle(self, exchange: Exchange) -> int:
        """It is the exchange that it was; its bytes are held since it came in.

        The router's own time counts on, as if it had come in later by what the keepers took.
        """
        before, source_ns = self.held.exchange, self.held.source_us * 1000
        self.held.source_us = 0
        exchange.id, exchange.first = before.id, before.first
        exchange.received_ns = before.received_ns + source_ns
        exchange.deadline_ns = before.deadline_ns
        return 0


class Inquiries:
    """The requests of one worker that wait, and the questions they wait for.

    Args:
        recorder: Takes outcomes.
        asker: Says as whom questions are asked; None where nobody may.
        metrics: Counts questions.
        clock_ns: Monotonic.
    """

    def __init__(
        self,
        recorder: Recorder[Exchange, Release],
        asker: Callable[[], Asker | None],
        metrics: SectoralMetrics,
        clock_ns: Callable[[], int],
    ) -> None:
        self._recorder = recorder
        self._asker = asker
        self._metrics = metrics
        self._clock_ns = clock_ns
        self.questions: list[Asked] = []
        """Those that are to be decided on, before anything else is done."""
        self.answered: list[Resumed] = []
        """Requests that wait for nothing more, with the outcomes in the recorder's next group."""

    def hold_back(
        self, exchanges: Sequence[Exchange], following: Sequence[Follows], today: Day
    ) -> list[Exchange]:
        """Return those that need not wait; of the others, put what is to be asked into questions.

        Args:
            exchanges: Of one batch, decided on as if nobody had answered.
            following: What they are, where they came by no connection.
            today: On which they were decided.
        """
        again = {f.held.exchange.id: f.held for f in following if isinstance(f, Resumed)}
        going = []
        for exchange in exchanges:
            standing, held = exchange.facts.standing, again.get(exchange.id)
            questions: Sequence[Question] = ()
            if standing is not None and standing.asks:
                questions = unasked(exchange.request, exchange.facts, today)
            if not questions or not self._hold(exchange, held, questions):
                going.append(exchange)
                if held is not None:
                    self._metrics.wait.observe(self._clock_ns() - held.since_ns)
        return going

    def _hold(self, exchange: Exchange, held: Held | None, questions: Sequence[Question]) -> bool:
        """Let a request wait for answers; not where nobody may ask, or there is no time to."""
        asker, now_ns = self._asker(), self._clock_ns()
        service, standing, session = (
            exchange.facts.service,
            exchange.facts.standing,
            exchange.session,
        )
        if asker is None or service is None or standing is None:
            return False
        if held is None:
            held = Held(exchange, now_ns, {})
            allowed_ms = min(
                exchange.request.deadline_ms or service.deadline_ms, service.deadline_ms
            )
            exchange.deadline_ns = exchange.received_ns + allowed_ms * 1_000_000
            if isinstance(session, OnBehalf):
                exchange.deadline_ns = min(exchange.deadline_ns, session.deadline_ns)
        held.exchange = exchange
        left_ns = exchange.deadline_ns - now_ns
        if left_ns <= 0 or held.rounds >= sectoral_rounds_max:
            return False
        held.rounds += 1
        # What the directory says of the person was for the control, and is looked up again.
        exchange.facts = msgspec.structs.replace(exchange.facts, person=None)
        deadline_ns = now_ns + int(left_ns * sectoral_time_share)
        questions = questions[:sectoral_questions_max]  # the rest in another round
        inquiry = Inquiry(asker.uri, deadline_ns, held, questions)
        for number, question in enumerate(questions):
            made = derived(exchange.id, encode(question))
            inquiry.inflight[number] = None
            request = msgspec.structs.replace(
                _request(question),
                id=number,
                ticket=exchange.id.hex(),  # so that what was asked for a message is found by it
                legal_framework=asker.framework,
                final_client=standing.acting.kbo,
            )
            self.questions.append(Asked(inquiry, request, made))
        self._metrics.asked(len(questions))
        return True

    def take_questions(self) -> list[Asked]:
        """Return and forget the questions that are to be decided on."""
        taken, self.questions = self.questions, []
        return taken

    def take_answered(self) -> list[Resumed]:
        """Return and forget the requests that are to be decided on with their answers."""
        taken, self.answered = self.answered, []
        return taken

    def end(self, inquiry: Inquiry, records: Sequence[bytes], release: Release) -> None:
        """Have the outcome of a question recorded, and go on with the request after the last."""
        self._recorder.release_after(records, release)
        answer = release.answer
        self._metrics.answered(_SAID.get(Code(answer.code)))
        if inquiry.settled(answer):
            self.answered.append(Resumed(inquiry.held))


def _request(question: Question) -> Request:
    sought = Sought(
        institution=question.institution,
        roles=question.roles,
        capacities=question.capacities,
        provisional=question.provisional,
        phase=question.phase,
        whole=question.is_whole,
    )
    return Request(
        id=0,
        service=KNOWN_SERVICE,
        version=1,
        ticket="",
        application=question.keeper.application,
        person=question.person,
        begin=question.begin,
        end=None if question.end == OPEN else question.end,
        source=question.keeper.kbo,
        payload=encode(sought),
    )
