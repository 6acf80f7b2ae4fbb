"""The rules about the requester: identity, syntax, access right, grant.

They are tried before anything about the person is, so that their refusals say nothing about who
is in the directory. Nearly all they look at is the same for every request of one user in one role
for one service, so :func:`stand` settles that once, and the rules say what it settled.
"""

from ksz_router.codes import Code
from ksz_router.days import is_day
from ksz_router.decision.case import (
    SECONDARY_NETWORK,
    Case,
    Facts,
    Refusal,
    Source,
    Standing,
)
from ksz_router.decision.fields import malformed, malformed_of_requester
from ksz_router.decision.seldom import settle
from ksz_router.identifiers import is_insz
from ksz_router.messages import Request
from ksz_router.model import (
    OPEN,
    PROVISIONAL,
    AccessRight,
    Availability,
    Day,
    Grant,
    Kind,
    Mode,
    Role,
    Subject,
)
from ksz_router.persons import Fitting, fitting

# For every request, and a member looked up in its enum costs as much as a call.
_PERSON, _ENTERPRISE = Subject.PERSON, Subject.ENTERPRISE


def standing_key(uri: str, request: Request) -> tuple[str | int | None, ...]:
    """Return who asks, by certificate, and all of a request that :func:`stand` looks at."""
    return (
        uri, request.service, request.version, request.user, request.application, request.means,
        request.level, request.kbo, request.sector, request.type, request.capacity,
        request.legal_framework, request.member,
    )  # fmt: skip


def stand(request: Request, facts: Facts, today: Day) -> Standing:
    """Settle what does not depend on the person, the period, the ticket and the payload.

    Args:
        request: Of which only what :func:`standing_key` returns is looked at.
        facts: Of which neither person nor outages are looked at.
        today: As for :func:`ksz_router.decision.decide`.
    """
    standing = Standing(today)
    standing.identity = _identity(request, facts, standing)
    if standing.identity is not None:
        return standing
    standing.syntax = _syntax_of_requester(request, facts, standing)
    if standing.syntax is not None:
        return standing
    if standing.service.kind is not Kind.TEST:
        standing.path = _path(request, standing)
        standing.no_right = _access_right(request, facts, standing)
        standing.no_grant = _grant(request, facts, standing)
    if standing.grant is not None:
        standing.own = _own_integration(request, standing.grant, standing)
    refusals = (standing.path, standing.no_right, standing.no_grant)
    standing.is_clear = refusals == (None, None, None)
    if standing.is_clear:
        standing.sources = tuple(
            Source(row, _source_integration(row, standing.grant))
            for row in facts.sources
            if row.begin <= today <= row.end and _is_in_reach(row.secondary_network, standing)
        )
    settle(standing)
    return standing


def identity(case: Case) -> Refusal | None:
    """The certificate names one active institution, and it acts as itself or for a member.

    A KBO number or role that is named must be its own, or that of the member it manages. Given
    twice, they must agree. Settles who acts, and in which role.
    """
    return case.standing.identity


def _identity(request: Request, facts: Facts, standing: Standing) -> Refusal | None:
    caller, member, today = facts.caller, facts.member, standing.today
    if caller is None:
        return Refusal(Code.CERTIFICATE_NOT_REGISTERED)
    if not caller.begin <= today <= caller.end:
        return Refusal(Code.INSTITUTION_NOT_ACTIVE)
    standing.caller = standing.acting = caller
    named = request.member if request.member is not None else request.kbo
    if named is not None and named != caller.kbo:
        if named not in caller.members:
            is_member = request.member is not None
            return Refusal(Code.MEMBER_NOT_MANAGED if is_member else Code.KBO_NOT_HELD)
        if member is None or member.kbo != named or not member.begin <= today <= member.end:
            return Refusal(Code.INSTITUTION_NOT_ACTIVE)
        standing.acting = member
    if request.kbo is not None and request.kbo != standing.acting.kbo:
        return Refusal(Code.IDENTIFIERS_DISAGREE, "kbo")
    if request.sector is not None and request.type is not None:
        standing.role = Role(request.sector, request.type)
        if standing.role not in standing.acting.roles:
            return Refusal(Code.ROLE_NOT_HELD)
    return None


def syntax(case: Case) -> Refusal | None:
    """The service exists, every field is well formed, exactly one path is named (7, 4° d).

    Settles the period asked: today where none is named, open where only a begin is.
    """
    request, standing = case.request, case.standing
    if standing.syntax is not None:
        return standing.syntax
    field = malformed(request)
    if field:
        return Refusal(Code.FIELD_MALFORMED, field)
    if standing.path is not None:
        return standing.path
    service, person = standing.service, request.person
    if (person is not None) != (service.subject is _PERSON):
        return Refusal(Code.SUBJECT_NOT_AS_DECLARED, "person")
    if (request.enterprise is not None) != (service.subject is _ENTERPRISE):
        return Refusal(Code.SUBJECT_NOT_AS_DECLARED, "enterprise")
    if person is not None:
        # What the directory knows is well formed: it takes in nothing else. But for who may not
        # ask it is found out all the same, so that not even the time tells whom it knows.
        is_known = standing.is_clear and case.facts.person is not None
        if not is_known and not is_insz(person):
            return Refusal(Code.PERSON_MALFORMED, "person")
        case.person = person
    if (request.begin is not None or request.end is not None) and not _take_period(case):
        return Refusal(Code.PERIOD_NOT_SANE, "begin")
    if len(request.payload) > service.payload_bytes_max:
        return Refusal(Code.PAYLOAD_TOO_LARGE, "payload")
    return None


def _syntax_of_requester(request: Request, facts: Facts, standing: Standing) -> Refusal | None:
    if not request.service:  # of what could not be read in an envelope, this is what is left
        return Refusal(Code.FIELD_MALFORMED, "service")
    if facts.service is None:
        return Refusal(Code.SERVICE_UNKNOWN, "service")
    standing.service = facts.service
    field = malformed_of_requester(request, is_test=facts.service.kind is Kind.TEST)
    return Refusal(Code.FIELD_MALFORMED, field) if field else None


def _path(request: Request, standing: Standing) -> Refusal | None:
    if (request.capacity is None) == (request.legal_framework is None):
        return Refusal(Code.PATH_NOT_EXACTLY_ONE)
    if request.capacity is not None and standing.role is None:
        return Refusal(Code.PATH_NOT_EXACTLY_ONE, "sector")
    return None


def _take_period(case: Case) -> bool:
    begin, end = case.request.begin, case.request.end
    if begin is None:
        return False
    if not is_day(begin) or (end is not None and (end < begin or not is_day(end))):
        return False
    case.begin, case.end = begin, OPEN if end is None else end
    return True


def access_right(case: Case) -> Refusal | None:
    """The user, or the application where no user is named, may act here (7, 4° a and b).

    One row that allows everything is enough. Else the refusal names what the nearest row lacks.
    """
    return case.standing.no_right


def _access_right(request: Request, facts: Facts, standing: Standing) -> Refusal | None:
    nearest = Code.NO_ACCESS_RIGHT
    for right in facts.rights:
        code = _broken_in_right(right, request, standing)
        if code is None:
            return None
        nearest = max(nearest, code)
    return Refusal(nearest)


def _broken_in_right(right: AccessRight, request: Request, standing: Standing) -> Code | None:
    if right.kbo != standing.caller.kbo:
        return Code.NO_ACCESS_RIGHT
    if not right.begin <= standing.today <= right.end:
        return Code.ACCESS_RIGHT_NOT_IN_FORCE
    if right.roles and standing.role not in right.roles:
        return Code.ROLE_NOT_IN_ACCESS_RIGHT
    if right.services and standing.service.name not in right.services:
        return Code.SERVICE_NOT_IN_ACCESS_RIGHT
    is_weak = request.level < right.level
    if is_weak or (right.means and request.means not in right.means):
        return Code.AUTHENTICATION_TOO_WEAK
    return None


def grant(case: Case) -> Refusal | None:
    """A grant in force, on a deliberation in force, allows the service (7, 4° d; law art. 15).

    A grant that rests on a secondary network is nobody's outside of one, whoever holds the role.
    """
    return case.standing.no_grant


def _grant(request: Request, facts: Facts, standing: Standing) -> Refusal | None:
    nearest, grant_id = Code.NO_GRANT, ""
    for row in facts.grants:
        if row.basis == SECONDARY_NETWORK and not standing.acting.secondary_network:
            continue
        code = broken_in_grant(row, request.capacity, standing.today)
        if code is None:
            standing.grant = row
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


def _own_integration(request: Request, grant: Grant, standing: Standing) -> Fitting | None:
    """Which lines are asked for: of the capacity named, else those of the grant."""
    if grant.own_mode is Mode.NONE:
        return None
    if request.capacity is not None:
        capacities = frozenset({request.capacity})
    elif grant.own_integration:
        capacities = grant.capacities
    else:
        return None
    if grant.provisional:
        capacities |= {PROVISIONAL}
    roles = (standing.role,) if standing.role is not None else standing.acting.roles
    return fitting(roles, capacities)


def _source_integration(row: Availability, grant: Grant | None) -> Fitting:
    """A row that takes any capacity takes a provisional one only where the grant says so."""
    provisional = grant is not None and grant.provisional
    return fitting((row.role,), row.capacities or None, provisional=provisional)


def _is_in_reach(secondary_network: str, standing: Standing) -> bool:
    """A grant inside a secondary network reaches the institutions of that network alone."""
    if standing.grant is None or standing.grant.basis != SECONDARY_NETWORK:
        return True
    network = standing.acting.secondary_network
    return bool(network) and secondary_network == network
