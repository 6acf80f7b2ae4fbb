"""The bounds of what is asked for one request: how much at a time, how often, and how long."""

import pytest
from msgspec.structs import replace

from ksz_router.codes import Code
from ksz_router.daemon.inquiries import Inquiries, Resumed
from ksz_router.daemon.on_behalf import OnBehalf
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.sectoral_metrics import SectoralMetrics
from ksz_router.daemon.tables import Asker
from ksz_router.decision import Forward, Question, Refusal, decide, stand
from ksz_router.identifiers import Kbo
from ksz_router.limits import sectoral_questions_max, sectoral_rounds_max
from ksz_router.messages import Answer
from ksz_router.model import Kind
from tests.plain_case import Case, plain_case
from tests.strategies import KEEPER

ASKER = Asker("urn:kbo:0999020618", "KSZ:SECTORAL")
SECOND_NS = 1_000_000_000


class Desk:
    """One request that waits, and somebody who answers what is asked for it."""

    def __init__(self, case: Case, asker: Asker | None = ASKER) -> None:
        self.case = case
        self.now_ns = 0
        self.recorder: Recorder[Exchange, Release] = Recorder(lambda _: None, lambda: 0)
        self.metrics = SectoralMetrics()
        self.inquiries = Inquiries(self.recorder, lambda: asker, self.metrics, lambda: self.now_ns)
        self.exchange = self._judged({})
        self.rounds: list[int] = []

    def _judged(self, answers: dict[Question, bool | None]) -> Exchange:
        request, facts, today = self.case.knowing(answers=answers)
        facts = replace(facts, standing=stand(request, facts, today))
        verdict = decide(request, facts, today)
        session = OnBehalf("urn:kbo:0999016460", 60 * SECOND_NS)
        return Exchange(bytes(16), session, request, 0, 0, facts, verdict, "", ())

    def run(self, code: Code) -> Forward | Refusal:
        """Answer everything with a code, until there is nothing more to wait for."""
        following: list[Resumed] = []
        while not (going := self._hold(following)):
            asked = self.inquiries.take_questions()
            self.rounds.append(len(asked))
            for question in asked:
                inner = Exchange(
                    question.exchange, question.session, question.request, 0, 0,
                    self.exchange.facts, self.exchange.verdict, "", (),
                )  # fmt: skip
                answer = Answer(
                    id=question.request.id, exchange=question.exchange, code=code, stage=0,
                    official="", status="", action=0, generation="",
                )  # fmt: skip
                self.inquiries.end(question.session, [b"outcome"], Release(inner, answer, 0))
            following = self.inquiries.take_answered()
            (resumed,) = following
            self.exchange = self._judged(resumed.held.answers)
            assert resumed.settle(self.exchange) == 0
        return going[0].verdict

    def _hold(self, following: list[Resumed]) -> list[Exchange]:
        return self.inquiries.hold_back([self.exchange], following, self.case.today)


def to_many(count: int, kind: Kind) -> Case:
    """A request that may go to so many, all in a network whose directory is kept elsewhere."""
    case = plain_case()
    (row, *_) = case.facts.sources
    rows = [
        replace(row, kbo=Kbo(f"{number:010}"), order=number, is_sectoral=True, keeper=KEEPER)
        for number in range(count)
    ]
    return case.serving(kind=kind).knowing(sources=tuple(rows))


def test_what_is_asked_at_a_time_is_bounded_and_the_rest_follows() -> None:
    """A distribution to seventy, of whom nobody is known: all were asked about, in two rounds."""
    desk = Desk(to_many(70, Kind.DISTRIBUTION))
    verdict = desk.run(Code.ANSWERED_WITHOUT_DATA)
    assert desk.rounds == [sectoral_questions_max, 70 - sectoral_questions_max]
    assert isinstance(verdict, Refusal)
    assert verdict.code is Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY
    assert desk.metrics.results["unknown"] == desk.metrics.asked_count == 70
    assert sum(desk.metrics.wait.counts) == 1


def test_the_rounds_are_bounded_and_what_was_not_asked_is_not_unknown() -> None:
    """Of twenty sources one after the other."""
    desk = Desk(to_many(20, Kind.CONSULTATION))
    verdict = desk.run(Code.ANSWERED_WITHOUT_DATA)
    assert desk.rounds == [1] * sectoral_rounds_max
    assert isinstance(verdict, Refusal)
    assert verdict.code is Code.SECTORAL_DIRECTORY_DOWN


@pytest.mark.parametrize("passed_s", [5, 9.5])
def test_each_round_may_take_half_of_the_time_that_is_left(passed_s: float) -> None:
    """Ten seconds, of which some have passed; the service's own deadline comes on top."""
    desk = Desk(to_many(1, Kind.CONSULTATION))
    desk.now_ns = int(passed_s * SECOND_NS)
    assert desk.inquiries.hold_back([desk.exchange], (), desk.case.today) == []
    (question,) = desk.inquiries.take_questions()
    left_ns = 10 * SECOND_NS - desk.now_ns
    assert question.session.deadline_ns == desk.now_ns + left_ns // 2


def test_without_time_or_without_leave_nobody_is_asked() -> None:
    """It goes on at once, as one to which nobody answered."""
    late = Desk(to_many(1, Kind.CONSULTATION))
    late.now_ns = 10 * SECOND_NS
    for desk in (late, Desk(to_many(1, Kind.CONSULTATION), asker=None)):
        verdict = desk.run(Code.ANSWERED_WITH_DATA)
        assert desk.rounds == []
        assert isinstance(verdict, Refusal)
        assert verdict.code is Code.SECTORAL_DIRECTORY_DOWN


def test_a_yes_ends_it() -> None:
    """The first of twenty is asked about, and goes."""
    desk = Desk(to_many(20, Kind.CONSULTATION))
    assert isinstance(desk.run(Code.ANSWERED_WITH_DATA), Forward)
    assert desk.rounds == [1]
