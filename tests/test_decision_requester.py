"""What the control asks of the requester: fields, access rights, grants; on a case that passes."""

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.decision import Refusal, decide
from ksz_router.model import (
    AccessRight,
    Kind,
    Subject,
)
from tests.plain_case import (
    ASKED,
    CALLER,
    PROGRAM,
    SOURCE,
    STRANGER,
    TODAY,
    YESTERDAY,
    code_of,
    forward,
    grant,
    plain_case,
)


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


def test_the_means_of_authentication_are_asked_to_the_letter() -> None:
    """One of those that the right names; a right that names none takes any, and none at all."""
    case = plain_case().permitting(means=frozenset({"eID", "itsme"}))
    for means in ("", "eid", "eID ", "password"):
        assert code_of(case.asking(means=means)) is Code.AUTHENTICATION_TOO_WEAK
    for means in ("eID", "itsme"):
        assert code_of(case.asking(means=means)) is None
    assert code_of(plain_case().asking(means="password")) is None


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


def test_a_service_without_a_name_is_a_field_to_mend() -> None:
    """It is what is left of an item of an envelope that could not be read; not a service."""
    for case in (plain_case(), plain_case().knowing(service=None)):
        refused = Refusal(Code.FIELD_MALFORMED, "service")
        assert decide(*case.asking(service="")) == refused
        assert code_of(case.asking(service="").knowing(caller=None)) is (
            Code.CERTIFICATE_NOT_REGISTERED
        )
    assert code_of(plain_case().knowing(service=None)) is Code.SERVICE_UNKNOWN


@pytest.mark.parametrize(
    ("field", "last_good", "first_bad", "code"),
    [
        ("ticket", "t" * 36, "t" * 37, Code.FIELD_MALFORMED),
        ("ticket", "~", "é", Code.FIELD_MALFORMED),
        ("means", "m" * 32, "m" * 33, Code.FIELD_MALFORMED),
        ("level", 4, 5, Code.FIELD_MALFORMED),
        ("level", 0, -1, Code.FIELD_MALFORMED),
        ("final_client", STRANGER, STRANGER[:-1], Code.FIELD_MALFORMED),
        ("source", SOURCE, SOURCE + " ", Code.FIELD_MALFORMED),
        ("deadline_ms", 60_000, 60_001, Code.FIELD_MALFORMED),
        ("deadline_ms", 0, -1, Code.FIELD_MALFORMED),
        ("payload", b"x" * 10, b"x" * 11, Code.PAYLOAD_TOO_LARGE),
        ("person", ASKED, ASKED[:-1] + "8", Code.PERSON_MALFORMED),
        ("begin", TODAY, 20260230, Code.PERIOD_NOT_SANE),
        ("enterprise", None, STRANGER, Code.SUBJECT_NOT_AS_DECLARED),
    ],
)
def test_the_bounds_of_a_field_are_where_they_are(
    field: str, last_good: object, first_bad: object, code: Code
) -> None:
    """The last that is taken and the first that is not."""
    assert code_of(plain_case().asking(**{field: last_good})) is None
    assert code_of(plain_case().asking(**{field: first_bad})) is code


def test_whether_a_number_is_well_formed_is_found_out_without_a_look_at_the_directory() -> None:
    """Of who may not ask: of who may, a number that the directory knows is not looked at again."""
    request, facts, _ = plain_case().knowing(grants=())
    request = msgspec.structs.replace(request, person=ASKED[:-1] + "8")
    assert facts.person is not None
    refused = Refusal(Code.PERSON_MALFORMED, "person")
    assert decide(request, facts, TODAY) == refused


def test_a_period_may_be_one_day_and_not_less() -> None:
    """An end without a begin says nothing."""
    case = plain_case()
    assert code_of(case.asking(begin=TODAY, end=TODAY)) is None
    assert code_of(case.asking(begin=TODAY, end=YESTERDAY)) is Code.PERIOD_NOT_SANE
    assert code_of(case.asking(end=TODAY)) is Code.PERIOD_NOT_SANE


def test_a_grant_without_capacities_grants_none() -> None:
    """Path A names one of those that the grant lists; none listed is not all."""
    case = plain_case()
    assert code_of(case.asking(capacity=3)) is Code.CAPACITY_NOT_GRANTED
    assert code_of(case.granting(capacities=frozenset())) is Code.CAPACITY_NOT_GRANTED


def test_a_user_is_an_insz_and_an_application_is_not() -> None:
    """A program number has eleven digits and no check digits; one of the two must be named."""
    case = plain_case().asking(user=None, application=PROGRAM)
    assert code_of(case) is None
    assert code_of(case.asking(application=None)) is Code.FIELD_MALFORMED
    assert code_of(plain_case().asking(user=PROGRAM)) is Code.FIELD_MALFORMED
