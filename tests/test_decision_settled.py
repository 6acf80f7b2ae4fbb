"""The settled points of the design, one by one, on a case that passes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.decision import SECONDARY_NETWORK, Refusal, decide
from ksz_router.identifiers import Kbo
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    Direction,
    Institution,
    Kind,
    Mode,
    NumberStatus,
    Outage,
    Role,
)
from ksz_router.persons import Person, pack_lines
from tests.plain_case import (
    ASKED,
    BEGIN,
    CALLER,
    FRAMEWORK,
    JOBS,
    MANAGING,
    MEMBER,
    NETWORK,
    NEWER,
    OTHER_SOURCE,
    SOURCE,
    STRANGER,
    TODAY,
    TOMORROW,
    WELFARE,
    YESTERDAY,
    Case,
    code_of,
    forward,
    grant,
    line,
    plain_case,
)


def test_the_plain_case_passes() -> None:
    """The tests below change one thing in a request that goes to the job office."""
    verdict = forward(plain_case())
    assert [row.kbo for row in verdict.destinations] == [SOURCE]
    assert verdict.line == line(WELFARE, 2)
    assert (verdict.begin, verdict.end) == (TODAY, TODAY)


def test_adjacent_days_are_continuous() -> None:
    """A line up to yesterday and one from today cover both days; one from tomorrow does not."""
    case = plain_case().asking(begin=YESTERDAY, end=TODAY)
    own = line(WELFARE, 2, BEGIN, YESTERDAY)
    assert code_of(case.with_lines(own, line(WELFARE, 2, TODAY), line(JOBS, 1))) is None
    gap = case.with_lines(own, line(WELFARE, 2, TOMORROW), line(JOBS, 1))
    assert code_of(gap) is Code.PERIOD_NOT_COVERED


def test_both_days_of_a_period_count() -> None:
    """A line of today alone covers today."""
    case = plain_case().with_lines(line(WELFARE, 2, TODAY, TODAY), line(JOBS, 1, TODAY, TODAY))
    assert code_of(case) is None


def member_case() -> Case:
    """The caller asks for a member that it manages."""
    member = Institution(kbo=MEMBER, name="member", roles=(WELFARE,))
    return plain_case().knowing(member=member).asking(member=MEMBER)


def of_caller(case: Case, **days: int) -> Case:
    assert case.facts.caller is not None
    return case.knowing(caller=msgspec.structs.replace(case.facts.caller, **days))


def of_member(case: Case, **changes: Any) -> Case:
    assert case.facts.member is not None
    return case.knowing(member=msgspec.structs.replace(case.facts.member, **changes))


def of_basis(case: Case, **days: int) -> Case:
    return case.granting(**{f"basis_{name}": day for name, day in days.items()})


def of_receiving(case: Case, **days: int) -> Case:
    case = case.serving(kind=Kind.DISTRIBUTION)
    return case.supplying(receive=(grant("r", Direction.RECEIVE, **days),))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (of_caller, Code.INSTITUTION_NOT_ACTIVE),
        (of_member, Code.INSTITUTION_NOT_ACTIVE),
        (Case.permitting, Code.ACCESS_RIGHT_NOT_IN_FORCE),
        (Case.granting, Code.GRANT_NOT_IN_FORCE),
        (of_basis, Code.DELIBERATION_NOT_IN_FORCE),
        (Case.supplying, Code.NO_SOURCE_HAS_THE_DATA),
        (of_receiving, Code.NO_RECIPIENT_MAY_RECEIVE),
    ],
)
def test_every_row_is_in_force_from_its_first_day_to_its_last(
    change: Callable[..., Case], code: Code
) -> None:
    """Both days count; the day before and the day after do not."""
    assert code_of(change(member_case(), begin=TODAY, end=TODAY)) is None
    assert code_of(change(member_case(), begin=TOMORROW)) is code
    assert code_of(change(member_case(), end=YESTERDAY)) is code


def test_the_row_of_another_institution_does_not_help_a_member() -> None:
    """The facts must be of who is named; without them nobody acts."""
    stranger = Institution(kbo=STRANGER, name="stranger", roles=(WELFARE,))
    assert code_of(member_case().knowing(member=stranger)) is Code.INSTITUTION_NOT_ACTIVE
    assert code_of(member_case().knowing(member=None)) is Code.INSTITUTION_NOT_ACTIVE


def test_without_a_role_the_roles_of_who_acts_count() -> None:
    """Those of the member, not those of the institution that asks for it."""
    case = member_case().asking(capacity=None, legal_framework=FRAMEWORK, sector=None, type=None)
    assert code_of(case) is None
    managing = case.with_lines(line(MANAGING, 2), line(JOBS, 1))
    assert code_of(managing) is Code.PERSON_NOT_INTEGRATED


def test_a_period_without_an_end_asks_for_an_open_line() -> None:
    """From a day on means: as far as the line goes, and it must not end."""
    case = plain_case().asking(begin=TODAY)
    assert forward(case).end == OPEN
    closed = case.with_lines(line(WELFARE, 2, BEGIN, TOMORROW), line(JOBS, 1))
    assert code_of(closed) is Code.PERIOD_NOT_COVERED


def test_the_period_asked_is_today_where_none_is_named() -> None:
    """A line that ended yesterday does not help."""
    case = plain_case().with_lines(line(WELFARE, 2, BEGIN, YESTERDAY), line(JOBS, 1))
    assert code_of(case) is Code.PERIOD_NOT_COVERED


def test_a_line_in_too_low_a_phase_does_not_help_to_cover() -> None:
    """The union is of lines in the capacity and phase asked."""
    case = plain_case().asking(begin=YESTERDAY, end=TODAY)
    high, low = line(WELFARE, 2, TODAY), line(WELFARE, 2, BEGIN, YESTERDAY, phase=0)
    assert code_of(case.with_lines(high, low, line(JOBS, 1))) is Code.PERIOD_NOT_COVERED
    assert code_of(case.with_lines(low, line(JOBS, 1))) is Code.PHASE_TOO_LOW


def test_a_provisional_line_counts_only_where_the_grant_says_so() -> None:
    """902, of the requester and of a source that is asked whatever the capacity."""
    own = plain_case().with_lines(line(WELFARE, PROVISIONAL), line(JOBS, 1))
    assert code_of(own) is Code.PERSON_NOT_INTEGRATED
    assert code_of(own.granting(provisional=True)) is None
    theirs = plain_case().with_lines(line(WELFARE, 2), line(JOBS, PROVISIONAL))
    assert code_of(theirs) is Code.NO_SOURCE_KNOWS_THE_PERSON
    assert code_of(theirs.granting(provisional=True)) is None


def test_999_is_never_a_capacity() -> None:
    """It is the status of a number, so it cannot be asked in, granted or not."""
    case = plain_case().granting(capacities=frozenset({2, 999})).asking(capacity=999)
    assert code_of(case) is Code.FIELD_MALFORMED


def test_a_line_without_type_fits_every_type_of_its_sector() -> None:
    """And of no other sector; a line with another type does not fit."""
    untyped = Role(WELFARE.sector, ANY_TYPE)
    assert code_of(plain_case().with_lines(line(untyped, 2), line(JOBS, 1))) is None
    foreign = Role(JOBS.sector, ANY_TYPE)
    for other in (foreign, MANAGING):
        case = plain_case().with_lines(line(other, 2), line(JOBS, 1))
        assert code_of(case) is Code.PERSON_NOT_INTEGRATED
    for theirs, code in (
        (foreign, None),
        (untyped, Code.NO_SOURCE_KNOWS_THE_PERSON),
        (Role(JOBS.sector, JOBS.type + 1), Code.NO_SOURCE_KNOWS_THE_PERSON),
    ):
        assert code_of(plain_case().with_lines(line(WELFARE, 2), line(theirs, 1))) is code


@pytest.mark.parametrize(
    ("capacity", "framework"), [(None, None), (2, FRAMEWORK)], ids=["neither", "both"]
)
def test_exactly_one_path_is_named(capacity: int | None, framework: str | None) -> None:
    """A capacity or a legal framework, not both and not none."""
    case = plain_case().asking(capacity=capacity, legal_framework=framework)
    assert code_of(case) is Code.PATH_NOT_EXACTLY_ONE


def test_path_a_needs_a_role() -> None:
    """A capacity means something in a sector only."""
    case = plain_case().asking(sector=None, type=None)
    assert code_of(case) is Code.PATH_NOT_EXACTLY_ONE


def test_path_b_checks_the_own_integration_only_where_the_grant_asks() -> None:
    """And then in the capacities of the grant, in any role of who acts."""
    case = plain_case().asking(capacity=None, legal_framework=FRAMEWORK)
    case = case.with_lines(line(JOBS, 1))
    assert code_of(case) is Code.PERSON_NOT_INTEGRATED
    assert code_of(case.granting(own_integration=False)) is None
    managing = case.with_lines(line(MANAGING, 1), line(JOBS, 1))
    assert code_of(managing.asking(sector=None, type=None)) is None
    assert code_of(managing) is Code.PERSON_NOT_INTEGRATED


def test_path_a_checks_the_own_integration_whatever_the_grant_says() -> None:
    """``own_integration`` is a choice on path B only."""
    case = plain_case().with_lines(line(JOBS, 1)).granting(own_integration=False)
    assert code_of(case) is Code.PERSON_NOT_INTEGRATED


def test_modes_of_the_own_integration() -> None:
    """Block refuses, log passes and notes it, none does not look."""
    case = plain_case().with_lines(line(JOBS, 1))
    assert code_of(case.granting(own_mode=Mode.BLOCK)) is Code.PERSON_NOT_INTEGRATED
    assert forward(case.granting(own_mode=Mode.LOG)).own_violation
    assert not forward(case.granting(own_mode=Mode.NONE)).own_violation


@pytest.mark.parametrize("kind", [Kind.CONSULTATION, Kind.DISTRIBUTION])
def test_modes_of_the_source_and_recipient_integration(kind: Kind) -> None:
    """Block leaves it out, log passes and notes it, none does not look."""
    case = plain_case().serving(kind=kind).with_lines(line(WELFARE, 2))
    assert code_of(case.supplying(mode=Mode.BLOCK)) is Code.NO_SOURCE_KNOWS_THE_PERSON
    assert forward(case.supplying(mode=Mode.LOG)).destinations[0].violation
    assert not forward(case.supplying(mode=Mode.NONE)).destinations[0].violation


def test_a_control_mode_does_not_switch_off_another_rule() -> None:
    """An expired grant refuses in every mode."""
    for mode in Mode:
        case = plain_case().granting(own_mode=mode, end=YESTERDAY).supplying(mode=mode)
        assert code_of(case) is Code.GRANT_NOT_IN_FORCE


def test_a_distribution_has_a_bounded_number_of_recipients_and_is_never_cut() -> None:
    """One more than fit is a refusal that names the bound; each can still be named by itself."""
    row = plain_case().facts.sources[0]
    numbers = [f"0{base}{97 - base % 97:02}" for base in range(2345678, 2345678 + 65)]
    rows = tuple(msgspec.structs.replace(row, kbo=Kbo(number)) for number in numbers)
    case = plain_case().serving(kind=Kind.DISTRIBUTION)
    assert len(forward(case.knowing(sources=rows[:64])).destinations) == 64
    verdict = decide(*case.knowing(sources=rows))
    assert isinstance(verdict, Refusal)
    assert (verdict.code, verdict.limit) == (Code.TOO_MANY_RECIPIENTS, 64)
    (found,) = forward(case.knowing(sources=rows).asking(source=numbers[-1])).destinations
    assert found.kbo == numbers[-1]
    assert len(forward(case.knowing(sources=rows).serving(kind=Kind.SUBMISSION)).put_to) == 1


def test_a_secondary_network_needs_no_deliberation_but_stays_within() -> None:
    """With that basis only sources of the very same network are asked, and only from inside."""
    case = plain_case().granting(basis=SECONDARY_NETWORK)
    assert code_of(case) is None
    assert code_of(case.supplying(secondary_network="")) is Code.NO_SOURCE_KNOWS_THE_PERSON
    assert case.facts.caller is not None
    outside = msgspec.structs.replace(case.facts.caller, secondary_network="")
    alone = case.knowing(caller=outside).supplying(secondary_network="")
    assert code_of(alone) is Code.NO_GRANT
    foreign_member = member_case().granting(basis=SECONDARY_NETWORK)
    assert code_of(foreign_member) is Code.NO_GRANT
    assert code_of(of_member(foreign_member, secondary_network=NETWORK)) is None


def test_identifiers_given_twice_must_agree() -> None:
    """A KBO number beside another member is refused; the same one twice is not."""
    case = member_case()
    assert forward(case).acting == MEMBER
    assert forward(case.asking(kbo=MEMBER)).acting == MEMBER
    assert code_of(case.asking(kbo=CALLER)) is Code.IDENTIFIERS_DISAGREE


def test_a_member_must_be_managed_active_and_hold_the_role() -> None:
    """Who manages an institution acts with that one's roles, not with its own."""
    member = Institution(kbo=MEMBER, name="member", roles=(WELFARE,), end=TODAY)
    case = plain_case().knowing(member=member).asking(member=MEMBER)
    assert code_of(case.asking(member=STRANGER)) is Code.MEMBER_NOT_MANAGED
    assert code_of(case._replace(today=TOMORROW)) is Code.INSTITUTION_NOT_ACTIVE
    assert code_of(case.asking(type=MANAGING.type)) is Code.ROLE_NOT_HELD
    assert code_of(plain_case().asking(kbo=STRANGER)) is Code.KBO_NOT_HELD


def replaced_case() -> Case:
    person = Person(
        NumberStatus.REPLACED,
        NEWER,
        NumberStatus.ACTIVE,
        pack_lines((line(WELFARE, 2), line(JOBS, 1))),
    )
    return plain_case().knowing(person=person)


def test_a_replaced_number_is_followed_or_refused_as_the_service_says() -> None:
    """Followed, the number in use is what goes to the source."""
    assert decide(*replaced_case()) == Refusal(
        Code.PERSON_REPLACED, "person", "g1", replaced_by=NEWER
    )
    assert forward(replaced_case().serving(follow_replaced=True)).person == NEWER


def test_a_new_number_is_disclosed_only_after_the_own_integration_passed() -> None:
    """Not to who does not know the person, even where that is only logged."""
    stranger = replaced_case().with_lines(line(JOBS, 1))
    assert code_of(stranger) is Code.PERSON_NOT_INTEGRATED
    logged = decide(*stranger.granting(own_mode=Mode.LOG))
    assert logged == Refusal(Code.PERSON_REPLACED, "person", "g1", replaced_by="")


def test_a_deceased_person_matters_only_where_the_service_says_so() -> None:
    """Then the day of death is told."""
    state = NumberStatus.DECEASED
    lines = pack_lines((line(WELFARE, 2), line(JOBS, 1)))
    case = plain_case().knowing(person=Person(state, ASKED, state, lines, 20260201))
    assert code_of(case) is None
    refusal = decide(*case.serving(refuse_deceased=True))
    assert refusal == Refusal(Code.PERSON_DECEASED, "person", "g1", deceased=20260201)


def test_a_cancelled_number_is_refused_even_at_the_end_of_a_chain() -> None:
    """What counts is the number in use."""
    lines = pack_lines((line(WELFARE, 2), line(JOBS, 1)))
    person = Person(NumberStatus.REPLACED, NEWER, NumberStatus.CANCELLED, lines)
    case = plain_case().knowing(person=person).serving(follow_replaced=True)
    assert code_of(case) is Code.PERSON_CANCELLED


def test_an_outage_leaves_a_source_out_or_refuses_with_the_time_to_retry() -> None:
    """The time is when the first of the sources has its last outage behind it."""
    good = plain_case().facts.sources[0]
    both = plain_case().knowing(sources=(good, msgspec.structs.replace(good, kbo=OTHER_SOURCE)))
    first = tuple(Outage(kbo=SOURCE, begin_ms=0, end_ms=end_ms) for end_ms in (9, 5))
    one = forward(both.knowing(outages=first))
    assert ([row.kbo for row in one.destinations], one.in_outage) == ([OTHER_SOURCE], (SOURCE,))
    second = Outage(kbo=OTHER_SOURCE, begin_ms=0, end_ms=12)
    refusal = decide(*both.knowing(outages=(*first, second)))
    assert refusal == Refusal(Code.ANNOUNCED_OUTAGE, grant="g1", retry_at_ms=9)


@pytest.mark.parametrize("kind", [Kind.SUBMISSION, Kind.DISTRIBUTION])
def test_a_recipient_needs_a_grant_to_receive(kind: Kind) -> None:
    """In force, on a deliberation in force, and for a capacity in which it knows the person."""
    case = plain_case().serving(kind=kind)
    assert forward(case).destinations[0].receive == "r1"
    both = case.with_lines(line(WELFARE, 2), line(JOBS, 1), line(JOBS, 4))
    for receive, holds in [
        ((), False),
        ((grant("r", Direction.RECEIVE, end=YESTERDAY),), False),
        ((grant("r", Direction.RECEIVE, basis_end=YESTERDAY),), False),
        ((grant("r", Direction.RECEIVE, capacities=frozenset({3})),), False),
        ((grant("r", Direction.RECEIVE, capacities=frozenset({4})),), True),
    ]:
        expected = None if holds else Code.NO_RECIPIENT_MAY_RECEIVE
        assert code_of(both.supplying(receive=receive)) is expected
    assert code_of(plain_case().supplying(receive=())) is None, "a consultation needs none"


def test_a_distribution_does_not_come_back_to_its_sender() -> None:
    """A submission may go to another role of the sender."""
    case = plain_case().supplying(kbo=CALLER)
    assert code_of(case.serving(kind=Kind.SUBMISSION)) is None
    assert code_of(case.serving(kind=Kind.DISTRIBUTION)) is Code.NO_SOURCE_KNOWS_THE_PERSON
    member = Institution(kbo=MEMBER, name="member", roles=(WELFARE,))
    sent_for = case.serving(kind=Kind.DISTRIBUTION).knowing(member=member).asking(member=MEMBER)
    assert code_of(sent_for) is None, "who sends is the member"
    assert code_of(sent_for.supplying(kbo=MEMBER)) is Code.NO_SOURCE_KNOWS_THE_PERSON


def test_a_named_source_is_the_only_one_asked() -> None:
    """And one that has not the data is no reason to ask another."""
    good = plain_case().facts.sources[0]
    both = plain_case().knowing(sources=(good, msgspec.structs.replace(good, kbo=OTHER_SOURCE)))
    asked = forward(both.asking(source=OTHER_SOURCE))
    assert [row.kbo for row in asked.destinations] == [OTHER_SOURCE]
    assert code_of(both.asking(source=STRANGER)) is Code.NO_SOURCE_HAS_THE_DATA


def test_the_deciding_line_is_one_that_holds_when_the_period_begins() -> None:
    """The entry keeps it: in the capacity and phase asked, and not one of another time."""
    past, now = line(WELFARE, 2, BEGIN, YESTERDAY), line(WELFARE, 2, TODAY)
    low = line(WELFARE, 2, phase=0)
    case = plain_case().with_lines(past, low, now, line(JOBS, 1))
    assert forward(case).line == now
    assert forward(case.asking(begin=YESTERDAY, end=TODAY)).line == past
