"""What holds of a verdict for every request and everything the tables may say."""

from collections import Counter
from random import Random
from typing import cast

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ksz_router.codes import Code, Stage
from ksz_router.decision import Forward, Refusal, decide, explain, stand, standing_key
from ksz_router.messages import Request
from ksz_router.model import OPEN
from ksz_router.persons import Person
from tests.control_table import World, broken
from tests.plain_case import (
    ASKED,
    CALLER,
    NEWER,
    PROGRAM,
    TODAY,
    USER,
    YESTERDAY,
    Case,
    code_of,
    plain_case,
)
from tests.strategies import CHANGES_OF_REQUEST, cases, persons

often = settings(max_examples=5 * settings.default.max_examples)  # type: ignore[union-attr]
CONTROL_CODES = [code for code in Code if 1 <= code.stage <= 8]
CROWDED = Code.TOO_MANY_RECIPIENTS
"""Needs more sources than a case draws; ``test_decision_settled.py`` has it."""
STAGES_OF_THE_REQUESTER = {Stage.IDENTITY, Stage.SYNTAX, Stage.RIGHT, Stage.GRANT}


# Properties of every case.


@often
@given(cases())
def test_the_verdict_is_the_first_rule_that_is_broken(case: Case) -> None:
    """The rules, restated as a table in another form than the code."""
    world = World(case)
    code = next(broken(world), None)
    assert code_of(case) == code


class Unseen:
    """What the directory says, where nobody may look at it."""

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"{name} of the person was looked at")


@often
@given(cases())
def test_who_is_not_entitled_is_refused_without_a_look_at_the_person(case: Case) -> None:
    """Neither the refusal nor the time it takes can depend on what the directory holds."""
    verdict = decide(*case)
    if isinstance(verdict, Refusal) and verdict.code.stage <= Stage.GRANT:
        assert decide(*case.knowing(person=Unseen())) == verdict


@often
@given(cases())
def test_a_forward_says_where_to_and_why(case: Case) -> None:
    """Destinations, acting institution, period, person and grant are what the table says."""
    verdict, world = decide(*case), World(case)
    if isinstance(verdict, Refusal):
        return
    assert world.acting is not None
    assert (verdict.acting, verdict.role) == (world.acting.kbo, world.role)
    assert verdict.service is case.facts.service
    assert (verdict.begin, verdict.end) == world.period
    assert verdict.grant is world.grant
    assert verdict.own_violation == world.own_violation
    assert verdict.sectoral_violation == world.sectoral_violation
    asked = {row.kbo: row for row in reversed(world.reachable)}  # each institution once
    assert [found.kbo for found in verdict.destinations] == [*reversed(asked)]
    assert all(world.is_fair(asked[found.kbo], found) for found in verdict.destinations)
    down = [row.kbo for row in world.destinations if row.kbo in world.down]
    assert list(verdict.in_outage) == [*dict.fromkeys(down)]
    if case.request.person is None:
        assert verdict.person is None
    elif verdict.service.any_number:
        assert verdict.person == case.request.person
    else:
        assert case.facts.person is not None
        assert verdict.person == case.facts.person.current


@often
@given(cases())
def test_a_refusal_carries_what_its_code_needs_and_no_more(case: Case) -> None:
    """New number, day of death and time to retry belong to one code each."""
    verdict, world = decide(*case), World(case)
    if isinstance(verdict, Forward):
        return
    person = case.facts.person
    is_of_number = verdict.code in (Code.PERSON_REPLACED, Code.PERSON_DECEASED)
    is_told = is_of_number and not (world.own_violation or world.sectoral_violation)
    is_replaced = verdict.code is Code.PERSON_REPLACED and is_told
    is_deceased = verdict.code is Code.PERSON_DECEASED and is_told
    is_down = verdict.code is Code.ANNOUNCED_OUTAGE
    assert verdict.replaced_by == (person.current if person and is_replaced else "")
    assert verdict.deceased == (person.deceased if person and is_deceased else 0)
    ends = [world.down[row.kbo] for row in world.destinations] if is_down else [0]
    assert verdict.retry_at_ms == min(ends)
    if verdict.code.stage > Stage.GRANT:
        assert verdict.grant == (world.grant.id if world.grant is not None else "")


@given(cases(), st.none() | persons(), st.sampled_from([ASKED, NEWER, USER]))
def test_who_may_not_ask_learns_nothing_about_the_person(
    case: Case, other: Person | None, number: str
) -> None:
    """A refusal of the requester is the same for every number and every directory."""
    verdict = decide(*case)
    if isinstance(verdict, Forward) or verdict.code.stage not in STAGES_OF_THE_REQUESTER:
        return
    assert decide(*case.knowing(person=other)) == verdict
    if verdict.code is not Code.PERSON_MALFORMED and case.request.person is not None:
        assert decide(*case.knowing(person=other).asking(person=number)) == verdict


class Watched:
    """A request that notes which of its fields are looked at."""

    def __init__(self, request: Request) -> None:
        self.seen: set[str] = set()
        self._request = request

    def __getattr__(self, name: str) -> object:
        self.seen.add(name)
        return getattr(self._request, name)


@often
@given(cases(), st.randoms())
def test_what_was_settled_for_a_requester_holds_for_its_next_request(
    case: Case, random: Random
) -> None:
    """Settled on another request with the same key, without person and outages: same verdict."""
    key, request = Watched(case.request), Watched(case.request)
    standing_key("", cast("Request", key))
    standing = stand(cast("Request", request), case.facts, TODAY)
    assert request.seen <= key.seen
    changes = [change for change in CHANGES_OF_REQUEST if random.random() < 0.3]
    other = case
    for change in changes:
        other = change(other)
    kept = {name: getattr(case.request, name) for name in key.seen}
    other = other.asking(**kept).knowing(person=None, outages=())
    settled = stand(other.request, other.facts, TODAY)
    assert settled.is_clear == standing.is_clear
    assert decide(*case.knowing(standing=settled)) == decide(*case)
    assert explain(*case.knowing(standing=settled)) == explain(*case)


def test_what_was_settled_yesterday_is_settled_anew() -> None:
    """A standing is of one day: on another, it counts for nothing."""
    case = plain_case().granting(end=YESTERDAY)
    yesterday = stand(case.request, case.facts, YESTERDAY)
    assert yesterday.is_clear
    assert code_of(case.knowing(standing=yesterday)) is Code.GRANT_NOT_IN_FORCE


@given(cases(), persons())
def test_a_stranger_and_an_unknown_person_look_the_same(case: Case, other: Person) -> None:
    """Who does not know the person cannot learn whether the number exists or was replaced."""
    hidden = case.knowing(person=msgspec.structs.replace(other, packed=b""))
    verdict = decide(*hidden)
    if isinstance(verdict, Refusal) and verdict.code is Code.PERSON_NOT_INTEGRATED:
        assert decide(*case.knowing(person=None)) == verdict


@given(cases(), st.randoms())
def test_the_order_of_lines_does_not_matter(case: Case, random: Random) -> None:
    """The same lines in another order give the same code and the same destinations."""
    if case.facts.person is None:
        return
    lines = case.facts.person.lines
    former, later = decide(*case), decide(*case.with_lines(*random.sample(lines, len(lines))))
    assert type(former) is type(later)
    if isinstance(former, Forward) and isinstance(later, Forward):
        assert [row.kbo for row in former.destinations] == [row.kbo for row in later.destinations]
    else:
        assert former == later


@given(cases())
def test_explain_and_decide_agree(case: Case) -> None:
    """Every step but the last holds, and the last is the verdict."""
    steps, verdict = explain(*case)
    assert verdict == decide(*case)
    assert [step.stage for step in steps] == [Stage(n) for n in range(1, len(steps) + 1)]
    assert all(step.refusal is None for step in steps[:-1])
    assert steps[-1].refusal == (verdict if isinstance(verdict, Refusal) else None)


integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, 17, 902, 999, TODAY, OPEN])
texts = st.text(max_size=40) | st.sampled_from([CALLER, ASKED, USER, PROGRAM, "Jobs/get"])
RUBBISH = {
    int: integers,
    str: texts,
    bytes: st.binary(max_size=16),
    bool: st.booleans(),
    int | None: st.none() | integers,
    str | None: st.none() | texts,
}
rubbish = st.builds(
    Request,
    **{
        field.name: RUBBISH.get(field.type, st.integers(0, 2**32 - 1))
        for field in msgspec.structs.fields(Request)
    },
)


@given(rubbish, cases())
def test_no_request_that_decodes_makes_it_raise(request: Request, case: Case) -> None:
    """Any text and any integer in any field gives a verdict."""
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=Request)
    assert isinstance(decide(decoded, case.facts, TODAY), Forward | Refusal)


@pytest.fixture(scope="module")
def drawn() -> Counter[Code | None]:
    """How often each verdict comes up among some thousand cases; None is a Forward."""
    counter: Counter[Code | None] = Counter()

    @settings(max_examples=3_500, phases=[Phase.generate], derandomize=True)
    @given(cases())
    def count(case: Case) -> None:
        counter[code_of(case)] += 1

    count()
    return counter


@pytest.mark.parametrize(
    "code", [*(code for code in CONTROL_CODES if code is not CROWDED), None], ids=str
)
def test_every_verdict_is_among_the_cases_drawn(
    drawn: Counter[Code | None], code: Code | None
) -> None:
    """The properties above are not vacuous."""
    assert drawn[code]
