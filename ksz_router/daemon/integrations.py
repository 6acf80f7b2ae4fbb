"""Changes of the person directory that follow from forwarded messages, before these are answered.

    the outcome of the message is recorded as answered
    →  each change is a request of the router's own institution, decided on and recorded like any
    →  it is forwarded once both are durable, to the directory
    →  what came of all changes is recorded  →  the sender gets the answer to its message

So nobody is told that a message was answered while a change that follows from it is lost. Where the
router ends in between, the sender has no answer, and its retry makes the changes under the same
ids, by which the directory knows them. ``docs/decisions/0018`` has the reasons.
"""

from collections.abc import Callable, Sequence

import msgspec

from ksz_router.codes import MEANINGS, Action, Code
from ksz_router.daemon import answers
from ksz_router.daemon.on_behalf import OnBehalf
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.decision import Facts, Forward
from ksz_router.decision.integration import Change, changes
from ksz_router.messages import Answer, Request
from ksz_router.model import REMOVE_SERVICE

_LINE_UNKNOWN = "DIR-23"
"""What the directory says of a removal where there is nothing to remove."""


class Derivation(OnBehalf):
    """The changes of one message. Its sender waits no longer for them than for the message.

    Args:
        uri: Of the router's own institution.
        release: The message's answer, held until the changes are settled.
        count: How many changes there are.
    """

    def __init__(self, uri: str, release: Release, count: int) -> None:
        super().__init__(uri, release.exchange.deadline_ns)
        self._release = release
        self._left = count
        self._source_us = 0
        self._trouble: Answer | None = None
        self._said = ""

    def settled(self, exchange: Exchange, answer: Answer) -> Release | None:
        """Take in what came of a change; return the message's answer once it did of all."""
        self.inflight.pop(answer.id, None)
        self._left -= 1
        self._source_us = max(self._source_us, answer.source_us)
        said = answer.recipients[0].source_code if answer.recipients else ""
        is_void = said == _LINE_UNKNOWN and exchange.request.service == REMOVE_SERVICE
        is_made = answer.code >= Code.ANSWERED_WITH_DATA and (not said or is_void)
        if not is_made and (self._trouble is None or not _is_passing(answer)):
            self._trouble, self._said = answer, said or Code(answer.code).name
        return None if self._left else self._told()

    def _told(self) -> Release:
        release, answer, trouble = self._release, self._release.answer, self._trouble
        answer = msgspec.structs.replace(answer, source_us=answer.source_us + self._source_us)
        if trouble is not None:
            is_passing = _is_passing(trouble)
            code = Code.ANSWERED_NOT_INTEGRATED if is_passing else Code.ANSWERED_INTEGRATION_REFUSED
            if answer.code != Code.ANSWERED_IN_PART:  # which says already to send the ticket again
                answer = answers.under(answer, code)
            answer = msgspec.structs.replace(
                answer,
                detail=answer.detail | {"integration": self._said},
                retry_at_ms=answer.retry_at_ms or (trouble.retry_at_ms if is_passing else None),
            )
        return msgspec.structs.replace(release, answer=answer)


def _is_passing(answer: Answer) -> bool:
    """Whether a later attempt may come to more: nothing says that the change may not be made."""
    if answer.code >= Code.ANSWERED_WITH_DATA:
        return False
    return MEANINGS[Code(answer.code)].action in (Action.RETRY_AT, Action.SOURCE_DOWN)


class Following(msgspec.Struct, frozen=True, eq=False):
    """A change on its way to the control."""

    session: Derivation
    request: Request
    change: Change

    def informed(self, facts: Facts) -> Facts:
        """Return the facts: the tables say all of it."""
        return facts

    def settle(self, exchange: Exchange) -> int:
        """Give the exchange of this change the ids that follow from the message's, and its time."""
        exchange.id, exchange.first = self.change.exchange, self.change.first
        exchange.deadline_ns = min(exchange.deadline_ns, self.session.deadline_ns)
        return len(self.request.payload)


class Integrations:
    """The changes that follow from the messages of one worker.

    Args:
        recorder: Takes outcomes, and gives the answers back when these are durable.
        own_uri: Says under which URI the institution that has a service is known; empty: nobody.
        retry_at_ms: Says when a retry may come to more.
    """

    def __init__(
        self,
        recorder: Recorder[Exchange, Release],
        own_uri: Callable[[str], str],
        retry_at_ms: Callable[[], int],
    ) -> None:
        self._recorder = recorder
        self._own_uri = own_uri
        self._retry_at_ms = retry_at_ms
        self._waiting: list[Following] = []

    def end(self, records: Sequence[bytes], release: Release) -> None:
        """Have an outcome recorded; its answer is given when it, and what follows, is durable."""
        exchange = release.exchange
        if isinstance(exchange.session, Derivation):
            self._recorder.release_after(records, release)
            answer = release.answer
            if answer.retry_at_ms is None:
                answer = msgspec.structs.replace(answer, retry_at_ms=self._retry_at_ms())
            told = exchange.session.settled(exchange, answer)
            if told is not None:
                self._recorder.release_after((), told)  # in the group of these records
            return
        found = self._changes(release)
        if not found:
            self._recorder.release_after(records, release)
            return
        self._recorder.submit(records)
        uri = self._own_uri(found[0].request.service)
        derivation = Derivation(uri, release, len(found))
        for number, change in enumerate(found):
            request = msgspec.structs.replace(change.request, id=number)
            derivation.inflight[number] = None
            self._waiting.append(Following(derivation, request, change))

    @property
    def is_waiting(self) -> bool:
        """Some changes are to be decided on."""
        return bool(self._waiting)

    def take(self) -> list[Following]:
        """Return and forget the changes that are to be decided on."""
        taken, self._waiting = self._waiting, []
        return taken

    @staticmethod
    def _changes(release: Release) -> list[Change]:
        exchange, answer = release.exchange, release.answer
        verdict, submission = exchange.verdict, exchange.submission
        if not isinstance(verdict, Forward) or submission is None:
            return []
        held = submission.held
        if isinstance(held, Code):
            return []
        answered = {told.kbo for told in answer.recipients if told.code >= Code.ANSWERED_WITH_DATA}
        return changes(exchange.request, verdict, answered, exchange.id, held.first)
