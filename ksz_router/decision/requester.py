"""The rules about the requester: identity, syntax, access right, grant.

They are tried before anything about the person is, so that their refusals say nothing about who
is in the directory.
"""

from ksz_router.codes import Code
from ksz_router.days import is_day
from ksz_router.decision.case import SECONDARY_NETWORK, Case, Refusal
from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.limits import (
    deadline_ms_max,
    framework_chars_max,
    means_chars_max,
    ticket_chars_max,
)
from ksz_router.messages import Request
from ksz_router.model import OPEN, AccessRight, Day, Grant, Kind, Role, Service, Subject


def identity(case: Case) -> Refusal | None:
    """The certificate names one active institution, and it acts as itself or for a member.

    A KBO number or role that is named must be its own, or that of the member it manages. Given
    twice, they must agree. Settles who acts, and in which role.
    """
    request, caller, member = case.request, case.facts.caller, case.facts.member
    if caller is None:
        return Refusal(Code.CERTIFICATE_NOT_REGISTERED)
    if not caller.begin <= case.today <= caller.end:
        return Refusal(Code.INSTITUTION_NOT_ACTIVE)
    case.caller = case.acting = caller
    named = request.member if request.member is not None else request.kbo
    if named is not None and named != caller.kbo:
        if named not in caller.members:
            is_member = request.member is not None
            return Refusal(Code.MEMBER_NOT_MANAGED if is_member else Code.KBO_NOT_HELD)
        if member is None or member.kbo != named or not member.begin <= case.today <= member.end:
            return Refusal(Code.INSTITUTION_NOT_ACTIVE)
        case.acting = member
    if request.kbo is not None and request.kbo != case.acting.kbo:
        return Refusal(Code.IDENTIFIERS_DISAGREE, "kbo")
    if request.sector is not None and request.type is not None:
        case.role = Role(request.sector, request.type)
        if case.role not in case.acting.roles:
            return Refusal(Code.ROLE_NOT_HELD)
    return None


def syntax(case: Case) -> Refusal | None:
    """The service exists, every field is well formed, exactly one path is named (7, 4° d).

    Settles the period asked: today where none is named, open where only a begin is.
    """
    request, service = case.request, case.facts.service
    if not request.service:  # of what could not be read in an envelope, this is what is left
        return Refusal(Code.FIELD_MALFORMED, "service")
    if service is None:
        return Refusal(Code.SERVICE_UNKNOWN, "service")
    case.service = service
    field = _malformed_field(request, service)
    if field:
        return Refusal(Code.FIELD_MALFORMED, field)
    if service.kind is not Kind.TEST:
        if (request.capacity is None) == (request.legal_framework is None):
            return Refusal(Code.PATH_NOT_EXACTLY_ONE)
        if request.capacity is not None and case.role is None:
            return Refusal(Code.PATH_NOT_EXACTLY_ONE, "sector")
    if (request.person is not None) != (service.subject is Subject.PERSON):
        return Refusal(Code.SUBJECT_NOT_AS_DECLARED, "person")
    if (request.enterprise is not None) != (service.subject is Subject.ENTERPRISE):
        return Refusal(Code.SUBJECT_NOT_AS_DECLARED, "enterprise")
    if request.person is not None:
        if not is_insz(request.person):
            return Refusal(Code.PERSON_MALFORMED, "person")
        case.person = request.person
    if not _take_period(case):
        return Refusal(Code.PERIOD_NOT_SANE, "begin")
    if len(request.payload) > service.payload_bytes_max:
        return Refusal(Code.PAYLOAD_TOO_LARGE, "payload")
    return None


def _malformed_field(request: Request, service: Service) -> str:
    if (request.sector is None) != (request.type is None):
        return "type"
    if not 0 < len(request.ticket) <= ticket_chars_max or not _is_plain(request.ticket):
        return "ticket"
    if request.user is None and request.application is None and service.kind is not Kind.TEST:
        return "user"
    if request.user is not None and not is_insz(request.user):
        return "user"
    if request.application is not None and not is_application(request.application):
        return "application"
    if len(request.means) > means_chars_max or not _is_plain(request.means):
        return "means"
    if not 0 <= request.level <= 4:
        return "level"
    if request.capacity is not None and not 0 <= request.capacity < 999:
        return "capacity"
    framework = request.legal_framework
    if framework is not None and (
        not 0 < len(framework) <= framework_chars_max or not framework.isprintable()
    ):
        return "legal_framework"
    for name in ("final_client", "enterprise", "source"):
        value = getattr(request, name)
        if value is not None and not is_kbo(value):
            return name
    return "" if 0 <= request.deadline_ms <= deadline_ms_max else "deadline_ms"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _take_period(case: Case) -> bool:
    begin, end = case.request.begin, case.request.end
    if begin is None:
        return end is None
    if not is_day(begin) or (end is not None and (end < begin or not is_day(end))):
        return False
    case.begin, case.end = begin, OPEN if end is None else end
    return True


def access_right(case: Case) -> Refusal | None:
    """The user, or the application where no user is named, may act here (7, 4° a and b).

    One row that allows everything is enough. Else the refusal names what the nearest row lacks.
    """
    if case.service.kind is Kind.TEST:
        return None
    nearest = Code.NO_ACCESS_RIGHT
    for right in case.facts.rights:
        code = _broken_in_right(right, case)
        if code is None:
            return None
        nearest = max(nearest, code)
    return Refusal(nearest)


def _broken_in_right(right: AccessRight, case: Case) -> Code | None:
    if right.kbo != case.caller.kbo:
        return Code.NO_ACCESS_RIGHT
    if not right.begin <= case.today <= right.end:
        return Code.ACCESS_RIGHT_NOT_IN_FORCE
    if right.roles and case.role not in right.roles:
        return Code.ROLE_NOT_IN_ACCESS_RIGHT
    if right.services and case.service.name not in right.services:
        return Code.SERVICE_NOT_IN_ACCESS_RIGHT
    is_weak = case.request.level < right.level
    if is_weak or (right.means and case.request.means not in right.means):
        return Code.AUTHENTICATION_TOO_WEAK
    return None


def grant(case: Case) -> Refusal | None:
    """A grant in force, on a deliberation in force, allows the service (7, 4° d; law art. 15).

    A grant that rests on a secondary network is nobody's outside of one, whoever holds the role.
    """
    if case.service.kind is Kind.TEST:
        return None
    nearest, grant_id = Code.NO_GRANT, ""
    for row in case.facts.grants:
        if row.basis == SECONDARY_NETWORK and not case.acting.secondary_network:
            continue
        code = broken_in_grant(row, case.request.capacity, case.today)
        if code is None:
            case.grant = row
            return None
        if code > nearest:
            nearest, grant_id = code, row.id
    return Refusal(nearest, grant=grant_id)


def broken_in_grant(grant: Grant, capacity: int | None, today: Day) -> Code | None:
    """What keeps this grant from applying; None where nothing does."""
    if capacity is not None and capacity not in grant.capacities:
        return Code.CAPACITY_NOT_GRANTED
    if not grant.begin <= today <= grant.end:
        return Code.GRANT_NOT_IN_FORCE
    if not grant.basis_begin <= today <= grant.basis_end:
        return Code.DELIBERATION_NOT_IN_FORCE
    return None
