"""What holds of a verdict for every request and everything the tables may say."""

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ksz_router.codes import Code, Stage
from ksz_router.decision import SECONDARY_NETWORK, Forward, Refusal, decide, explain
from ksz_router.messages import Request
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    AccessRight,
    Direction,
    Institution,
    Kind,
    Line,
    Mode,
    NumberStatus,
    Outage,
    Person,
    Role,
    Subject,
)
from tests.control_table import World, broken
from tests.strategies import (
    ASKED,
    BEGIN,
    CALLER,
    FRAMEWORK,
    JOBS,
    MANAGING,
    MEMBER,
    NEWER,
    OTHER_SOURCE,
    PROGRAM,
    SOURCE,
    STRANGER,
    TODAY,
    TOMORROW,
    USER,
    WELFARE,
    YESTERDAY,
    Case,
    cases,
    grant,
    line,
    persons,
    plain_case,
)

often = settings(max_examples=5 * settings.default.max_examples)  # type: ignore[union-attr]
CONTROL_CODES = [code for code in Code if 1 <= code.stage <= 8]
STAGES_OF_THE_REQUESTER = {Stage.IDENTITY, Stage.SYNTAX, Stage.RIGHT, Stage.GRANT}


def code_of(case: Case) -> Code | None:
    """The code of the refusal, or None where the case passes."""
    verdict = decide(*case)
    return verdict.code if isinstance(verdict, Refusal) else None


def forward(case: Case) -> Forward:
    verdict = decide(*case)
    assert isinstance(verdict, Forward), verdict
    return verdict


# Properties of every case.


@often
@given(cases())
def test_the_verdict_is_the_first_rule_that_is_broken(case: Case) -> None:
    """The rules, restated as a table in another form than the code."""
    world = World(case)
    code = next(broken(world), None)
    assert code_of(case) == code


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
    assert len(verdict.destinations) == len(world.reachable)
    assert all(map(world.is_fair, world.reachable, verdict.destinations))
    assert list(verdict.in_outage) == [
        row.kbo for row in world.destinations if row.kbo in world.down
    ]
    if case.request.person is None:
        assert verdict.person is None
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
    is_replaced = verdict.code is Code.PERSON_REPLACED and not world.own_violation
    is_deceased = verdict.code is Code.PERSON_DECEASED
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


@given(cases(), persons())
def test_a_stranger_and_an_unknown_person_look_the_same(case: Case, other: Person) -> None:
    """Who does not know the person cannot learn whether the number exists or was replaced."""
    hidden = case.knowing(person=msgspec.structs.replace(other, lines=()))
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

    @settings(max_examples=2_500, phases=[Phase.generate], derandomize=True)
    @given(cases())
    def count(case: Case) -> None:
        counter[code_of(case)] += 1

    count()
    return counter


@pytest.mark.parametrize("code", [*CONTROL_CODES, None], ids=str)
def test_every_verdict_is_among_the_cases_drawn(
    drawn: Counter[Code | None], code: Code | None
) -> None:
    """The properties above are not vacuous."""
    assert drawn[code]


# The settled points of the design, one by one, on a case that passes.


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


def test_a_secondary_network_needs_no_deliberation_but_stays_within() -> None:
    """With that basis only sources of the very same network are asked."""
    case = plain_case().granting(basis=SECONDARY_NETWORK)
    assert code_of(case) is None
    assert code_of(case.supplying(secondary_network="")) is Code.NO_SOURCE_KNOWS_THE_PERSON
    assert case.facts.caller is not None
    outside = msgspec.structs.replace(case.facts.caller, secondary_network="")
    alone = case.knowing(caller=outside).supplying(secondary_network="")
    assert code_of(alone) is Code.NO_SOURCE_KNOWS_THE_PERSON


def test_identifiers_given_twice_must_agree() -> None:
    """A KBO number beside another member is refused; the same one twice is not."""
    member = Institution(kbo=MEMBER, name="member", roles=(WELFARE,))
    case = plain_case().knowing(member=member).asking(member=MEMBER)
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
        NumberStatus.REPLACED, NEWER, NumberStatus.ACTIVE, (line(WELFARE, 2), line(JOBS, 1))
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
    lines = (line(WELFARE, 2), line(JOBS, 1))
    case = plain_case().knowing(person=Person(state, ASKED, state, lines, 20260201))
    assert code_of(case) is None
    refusal = decide(*case.serving(refuse_deceased=True))
    assert refusal == Refusal(Code.PERSON_DECEASED, "person", "g1", deceased=20260201)


def test_a_cancelled_number_is_refused_even_at_the_end_of_a_chain() -> None:
    """What counts is the number in use."""
    lines = (line(WELFARE, 2), line(JOBS, 1))
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


def test_a_named_source_is_the_only_one_asked() -> None:
    """And one that has not the data is no reason to ask another."""
    good = plain_case().facts.sources[0]
    both = plain_case().knowing(sources=(good, msgspec.structs.replace(good, kbo=OTHER_SOURCE)))
    asked = forward(both.asking(source=OTHER_SOURCE))
    assert [row.kbo for row in asked.destinations] == [OTHER_SOURCE]
    assert code_of(both.asking(source=STRANGER)) is Code.NO_SOURCE_HAS_THE_DATA


def test_the_refusal_names_what_the_nearest_access_right_lacks() -> None:
    """Of several rows, the one that fails last; one that lacks nothing is enough."""
    expired = AccessRight(kbo=CALLER, end=YESTERDAY)
    foreign = AccessRight(kbo=CALLER, services=frozenset({"Jobs/set"}))
    for rows in ((expired, foreign), (foreign, expired)):
        case = plain_case().knowing(rights=rows)
        assert code_of(case) is Code.SERVICE_NOT_IN_ACCESS_RIGHT
    assert code_of(plain_case().knowing(rights=(expired, AccessRight(kbo=CALLER)))) is None
    assert code_of(plain_case().knowing(rights=())) is Code.NO_ACCESS_RIGHT


def test_the_authentication_level_asked_is_the_least() -> None:
    """As high is enough."""
    case = plain_case().permitting(level=2)
    assert code_of(case.asking(level=1)) is Code.AUTHENTICATION_TOO_WEAK
    assert code_of(case.asking(level=2)) is None


def test_the_grants_are_tried_in_their_order() -> None:
    """The first that applies is the one that is recorded; of none, the nearest is named."""
    good, expired = grant("a", capacities=frozenset({2})), grant("b", end=YESTERDAY)
    weak = grant("c", capacities=frozenset({2}), basis_end=YESTERDAY)
    verdict = forward(plain_case().knowing(grants=(expired, weak, good)))
    assert verdict.grant is good
    assert decide(*plain_case().knowing(grants=(weak, expired))) == Refusal(
        Code.DELIBERATION_NOT_IN_FORCE, grant="c"
    )


def test_a_test_connection_needs_no_right_and_goes_nowhere() -> None:
    """Identity and syntax are judged; no grant, no person, no source."""
    case = plain_case().serving(kind=Kind.TEST, subject=Subject.NONE)
    case = case.knowing(rights=(), grants=(), sources=(), person=None)
    case = case.asking(person=None, user=None, capacity=None, sector=None, type=None)
    assert forward(case).destinations == ()
    assert code_of(case.knowing(caller=None)) is Code.CERTIFICATE_NOT_REGISTERED
    assert code_of(case.asking(ticket="")) is Code.FIELD_MALFORMED


def test_a_user_is_an_insz_and_an_application_is_not() -> None:
    """A program number has eleven digits and no check digits; one of the two must be named."""
    case = plain_case().asking(user=None, application=PROGRAM)
    assert code_of(case) is None
    assert code_of(case.asking(application=None)) is Code.FIELD_MALFORMED
    assert code_of(plain_case().asking(user=PROGRAM)) is Code.FIELD_MALFORMED


def test_the_deciding_line_is_one_that_holds_when_the_period_begins() -> None:
    """The entry keeps it, so it is the earliest that has not ended by then."""
    past, now = line(WELFARE, 2, BEGIN, YESTERDAY), line(WELFARE, 2, TODAY)
    assert forward(plain_case().with_lines(past, now, line(JOBS, 1))).line == now
    longer: Line = line(WELFARE, 2, BEGIN, TODAY)
    assert forward(plain_case().with_lines(now, longer, line(JOBS, 1))).line == longer
