"""What is asked at the keepers of sectoral directories before a request is decided on."""

from collections import Counter
from random import Random

import pytest
from hypothesis import Phase, given, settings
from msgspec.structs import replace

from ksz_router.codes import Code, Stage
from ksz_router.decision import Forward, Question, Refusal, decide, unasked
from ksz_router.limits import sectoral_rounds_max
from ksz_router.model import Kind, Mode, Outage, Role
from tests.control_table import World, broken
from tests.plain_case import (
    CALLER,
    JOBS,
    NETWORK,
    OTHER_SOURCE,
    SOURCE,
    Case,
    code_of,
    plain_case,
)
from tests.strategies import KEEPER, Said, asking_cases

often = settings(max_examples=5 * settings.default.max_examples)  # type: ignore[union-attr]


def asked_for(case: Case) -> tuple[Case, list[tuple[Question, ...]]]:
    """Ask round by round what is to be asked, and keep the answers that were given."""
    said, answers = case.facts.answers, dict[Question, bool | None]()
    rounds: list[tuple[Question, ...]] = []
    while questions := unasked(*case.knowing(answers=answers)):
        assert said is not None
        rounds.append(questions)
        answers = answers | {question: said[question] for question in questions}
        assert len(rounds) <= sectoral_rounds_max
    return case.knowing(answers=answers), rounds


@often
@given(asking_cases())
def test_what_is_asked_is_enough_to_decide_and_none_of_it_twice(case: Case) -> None:
    """With the answers that were asked for the verdict is that of all answers there could be."""
    told, rounds = asked_for(case)
    assert decide(*told) == decide(*case)
    questions = [question for asked in rounds for question in asked]
    assert len(questions) == len(set(questions))
    for question in questions:
        assert case.facts.person is not None
        assert question.person == case.facts.person.current
        assert question.keeper == KEEPER


@often
@given(asking_cases())
def test_the_verdict_is_the_one_of_the_table(case: Case) -> None:
    """And a forward goes to whom the table names."""
    verdict, world = decide(*case), World(case)
    assert code_of(case) == next(broken(world), None)
    if isinstance(verdict, Forward):
        asked = {row.kbo: row for row in reversed(world.reachable)}
        assert [found.kbo for found in verdict.destinations] == [*reversed(asked)]
        assert verdict.sectoral_violation == world.sectoral_violation


@often
@given(asking_cases())
def test_of_a_request_that_may_not_be_made_nobody_hears(case: Case) -> None:
    """Nor of a person whom the primary directory does not know well enough."""
    verdict, (_, rounds) = decide(*case), asked_for(case)
    if isinstance(verdict, Refusal) and verdict.code.stage <= Stage.GRANT:
        assert not rounds
    if code_is_primary(verdict):
        assert not rounds


def code_is_primary(verdict: Forward | Refusal) -> bool:
    """Say whether it was refused by what the primary directory says of the requester."""
    return isinstance(verdict, Refusal) and verdict.code in (
        Code.PERSON_NOT_INTEGRATED, Code.PHASE_TOO_LOW, Code.PERIOD_NOT_COVERED,
    )  # fmt: skip


def test_the_cases_drawn_ask() -> None:
    """The properties above are not vacuous: of the requester, of sources, in several rounds."""
    drawn: Counter[str] = Counter()

    @settings(max_examples=400, database=None, phases=[Phase.generate], derandomize=True)
    @given(asking_cases())
    def draw(case: Case) -> None:
        _, rounds = asked_for(case)
        drawn[f"{len(rounds)} rounds"] += 1
        drawn.update("own" if q.is_whole else "source" for asked in rounds for q in asked)

    draw()
    assert min(drawn["1 rounds"], drawn["2 rounds"], drawn["own"], drawn["source"]) > 10


def in_network(case: Case, *, own: bool | None, **sources: bool | None) -> Case:
    """Both the requester and its sources are in a network that is asked for at its keeper."""
    caller = case.facts.caller
    assert caller is not None
    rows = [replace(row, is_sectoral=True, keeper=KEEPER) for row in case.facts.sources]
    names = {"first": SOURCE, "second": OTHER_SOURCE}
    said: dict[str, bool | None] = {names[name]: known for name, known in sources.items()}
    return case.knowing(
        caller=replace(caller, secondary_network=NETWORK, is_sectoral=True, keeper=KEEPER),
        sources=tuple(rows),
        answers=Said(own=own, sources=said),
    )


def test_the_requester_comes_first_and_a_refusal_ends_it() -> None:
    """The source's keeper hears of the person only where the requester may ask at all."""
    told, rounds = asked_for(in_network(plain_case(), own=True))
    assert [[(q.institution, q.is_whole) for q in asked] for asked in rounds] == [
        [(CALLER, True)], [(SOURCE, False)],
    ]  # fmt: skip
    assert isinstance(decide(*told), Forward)
    told, rounds = asked_for(in_network(plain_case(), own=False))
    assert [len(asked) for asked in rounds] == [1]
    verdict = decide(*told)
    assert isinstance(verdict, Refusal)
    assert verdict.code is Code.SECTORAL_NOT_INTEGRATED


def two_sources(case: Case) -> Case:
    (row, *_) = case.facts.sources
    return case.knowing(sources=(row, replace(row, kbo=OTHER_SOURCE, order=1)))


@pytest.mark.parametrize(
    ("first", "asked", "put_to"),
    [
        (True, [[CALLER], [SOURCE]], SOURCE),
        (False, [[CALLER], [SOURCE], [OTHER_SOURCE]], OTHER_SOURCE),
        (None, [[CALLER], [SOURCE], [OTHER_SOURCE]], OTHER_SOURCE),
    ],
)
def test_of_two_sources_the_second_is_asked_about_where_the_first_will_not_do(
    *, first: bool | None, asked: list[list[str]], put_to: str
) -> None:
    """One at a time: a person is asked about no more than is needed."""
    case = in_network(two_sources(plain_case()), own=True, first=first, second=True)
    told, rounds = asked_for(case)
    assert [[q.institution for q in questions] for questions in rounds] == asked
    verdict = decide(*told)
    assert isinstance(verdict, Forward)
    assert verdict.put_to[0].kbo == put_to


def test_a_source_in_an_outage_does_not_spare_the_next() -> None:
    """It cannot be put to, whatever its network knows."""
    case = in_network(two_sources(plain_case()), own=True, first=True, second=True)
    case = case.knowing(outages=(Outage(kbo=SOURCE, begin_ms=0, end_ms=1),))
    told, rounds = asked_for(case)
    assert [[q.institution for q in questions] for questions in rounds] == [
        [CALLER], [SOURCE], [OTHER_SOURCE],
    ]  # fmt: skip
    verdict = decide(*told)
    assert isinstance(verdict, Forward)
    assert verdict.put_to[0].kbo == OTHER_SOURCE


@pytest.mark.parametrize(
    ("second", "code"), [(True, None), (False, None), (None, Code.SECTORAL_DIRECTORY_DOWN)]
)
def test_a_distribution_asks_about_all_at_once_and_leaves_nobody_out_unsaid(
    *, second: bool | None, code: Code | None
) -> None:
    """Whom the keeper does not know is left out; where it says nothing, nobody is sent anything."""
    case = two_sources(plain_case()).serving(kind=Kind.DISTRIBUTION)
    told, rounds = asked_for(in_network(case, own=True, first=True, second=second))
    assert [len(questions) for questions in rounds] == [1, 2]
    verdict = decide(*told)
    if code is None:
        assert isinstance(verdict, Forward)
        assert [found.kbo for found in verdict.put_to] == [SOURCE, OTHER_SOURCE][: 1 + bool(second)]
    else:
        assert isinstance(verdict, Refusal)
        assert verdict.code is code


def test_a_control_that_only_logs_asks_and_notes_what_was_said() -> None:
    """Nobody is refused for it; a source whose control is off is not asked about."""
    for own, code in ((False, Code.SECTORAL_NOT_INTEGRATED), (None, Code.SECTORAL_DIRECTORY_DOWN)):
        case = in_network(plain_case().granting(own_mode=Mode.LOG), own=own)
        told, rounds = asked_for(case.supplying(mode=Mode.NONE))
        assert [len(questions) for questions in rounds] == [1]
        verdict = decide(*told)
        assert isinstance(verdict, Forward)
        assert verdict.violations == (f"sectoral:log:{code.name}",)


def test_a_question_says_what_is_to_be_known_and_no_more() -> None:
    """Of the requester every day, of a source one; roles, capacities, phase as the rules say."""
    case = in_network(plain_case(), own=True).asking(begin=20260101, end=20260301)
    _, ((own,), (source,)) = asked_for(case.granting(phase=1, provisional=True).supplying(phase=1))
    assert (own.roles, own.capacities, own.phase) == ((Role(17, 1),), (2, 902), 1)
    assert (own.begin, own.end, own.is_whole) == (20260101, 20260301, True)
    assert (source.roles, source.capacities, source.is_whole) == ((JOBS,), (), False)


def test_an_answer_is_found_by_its_question_in_whatever_order_they_came() -> None:
    """And of what has no keeper nothing is asked."""
    case = in_network(two_sources(plain_case()), own=True)
    case = case.serving(kind=Kind.DISTRIBUTION)
    _, rounds = asked_for(case)
    questions = [question for asked in rounds for question in asked]
    shuffled = Random(1).sample(questions, len(questions))
    answers = dict.fromkeys(shuffled, True)
    assert unasked(*case.knowing(answers=answers)) == ()
    assert unasked(*plain_case()) == ()
