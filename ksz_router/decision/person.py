"""The rules about the person, and about who has the data: integrations, number, outage."""

from ksz_router.codes import Code
from ksz_router.days import covers
from ksz_router.decision.case import SECONDARY_NETWORK, Case, Destination, Refusal
from ksz_router.decision.requester import broken_in_grant
from ksz_router.limits import recipients_max
from ksz_router.model import (
    ANY_TYPE,
    PROVISIONAL,
    Availability,
    Kind,
    Line,
    Mode,
    NumberStatus,
)


def own_integration(case: Case) -> Refusal | None:
    """The requester's role knows this person: capacity, phase and period (7, 4° d, path A, 3).

    Lines of all the person's numbers count, and one without institution type fits every type of
    its sector. Adjacent lines are continuous; a provisional line counts only where the grant says
    so.
    """
    grant, request = case.grant, case.request
    if grant is None or case.person is None or grant.own_mode is Mode.NONE:
        return None
    if request.capacity is not None:
        capacities = {request.capacity}
    elif grant.own_integration:
        capacities = set(grant.capacities)
    else:
        return None
    if grant.provisional:
        capacities.add(PROVISIONAL)
    roles = (case.role,) if case.role is not None else case.acting.roles
    lines = case.facts.person.lines if case.facts.person is not None else ()
    files = {(role.sector, kind) for role in roles for kind in (role.type, ANY_TYPE)}
    known = [n for n in lines if n.capacity in capacities and (n.sector, n.type) in files]
    far_enough = [line for line in known if line.phase >= grant.phase]
    if not known:
        code = Code.PERSON_NOT_INTEGRATED
    elif not far_enough:
        code = Code.PHASE_TOO_LOW
    elif not covers([(line.begin, line.end) for line in far_enough], case.begin, case.end):
        code = Code.PERIOD_NOT_COVERED
    else:
        begin = case.begin
        case.line = next(line for line in far_enough if line.begin <= begin <= line.end)
        return None
    if grant.own_mode is Mode.LOG:
        case.own_violation = code
        return None
    return Refusal(code, grant=grant.id)


def person(case: Case) -> Refusal | None:
    """The number exists and is in use; a replaced one is followed or refused as the service says.

    Comes after the own integration: a new number, or that one exists, is disclosed only to who
    may know. A violation that is only logged lets the request go on, but neither the new number nor
    the day of death out.
    """
    if case.person is None:
        return None
    known = case.facts.person
    grant = case.grant.id if case.grant is not None else ""
    if known is None:
        return Refusal(Code.PERSON_UNKNOWN, "person", grant)
    if known.status is NumberStatus.REPLACED and not case.service.follow_replaced:
        new = "" if case.own_violation is not None else known.current
        return Refusal(Code.PERSON_REPLACED, "person", grant, replaced_by=new)
    if known.current_status is NumberStatus.CANCELLED:
        return Refusal(Code.PERSON_CANCELLED, "person", grant)
    if known.current_status is NumberStatus.DECEASED and case.service.refuse_deceased:
        day = 0 if case.own_violation is not None else known.deceased
        return Refusal(Code.PERSON_DECEASED, "person", grant, deceased=day)
    case.person = known.current
    return None


def source_integration(case: Case) -> Refusal | None:
    """The sources or recipients that know this person in a fitting capacity and period.

    For a submission or distribution they must also hold a grant to receive it. None is a
    functional answer of the network (MSG00021), not a refusal of the requester.
    """
    if case.service.kind is Kind.TEST:
        return None
    wished = case.request.source
    rows = [
        row
        for row in case.facts.sources
        if row.begin <= case.today <= row.end and wished in (None, row.kbo)
    ]
    grant = case.grant.id if case.grant is not None else ""
    if not rows:
        return Refusal(Code.NO_SOURCE_HAS_THE_DATA, grant=grant)
    knowing = [found for row in rows if (found := _destination(row, case)) is not None]
    if not knowing:
        return Refusal(Code.NO_SOURCE_KNOWS_THE_PERSON, grant=grant)
    if case.service.kind is not Kind.CONSULTATION:
        knowing = [found for found in knowing if found.receive]
        if not knowing:
            return Refusal(Code.NO_RECIPIENT_MAY_RECEIVE, grant=grant)
    # An institution that fits in several roles is put to once, as what it is asked first.
    case.destinations = tuple({found.kbo: found for found in reversed(knowing)}.values())[::-1]
    if case.service.kind is Kind.DISTRIBUTION and len(case.destinations) > recipients_max:
        # Never a silent cut: who distributes names its recipients one by one instead.
        return Refusal(Code.TOO_MANY_RECIPIENTS, "source", grant, limit=recipients_max)
    return None


def _destination(row: Availability, case: Case) -> Destination | None:
    grant = case.grant
    if grant is not None and grant.basis == SECONDARY_NETWORK:
        network = case.acting.secondary_network
        if not network or row.secondary_network != network:
            return None
    if case.service.kind is Kind.DISTRIBUTION and row.kbo == case.acting.kbo:
        return None
    lines: list[Line] = []
    violation = False
    if case.person is not None and row.mode is not Mode.NONE:
        lines = _known_by(row, case)
        violation = not lines
        if violation and row.mode is Mode.BLOCK:
            return None
    if case.service.kind is Kind.CONSULTATION:
        return Destination(row.kbo, row.role, lines[0] if lines else None, "", violation)
    # Any line may be the one that a grant to receive covers.
    for line in lines or (None,):
        for grant in row.receive:
            capacity = line.capacity if line is not None and grant.capacities else None
            if broken_in_grant(grant, capacity, case.today) is None:
                return Destination(row.kbo, row.role, line, grant.id, violation)
    return Destination(row.kbo, row.role, lines[0] if lines else None, "", violation)


def _known_by(row: Availability, case: Case) -> list[Line]:
    """The lines under which this source knows the person on some day of the period.

    A row that takes any capacity takes a provisional one only where the grant says so.
    """
    person = case.facts.person
    takes_provisional = case.grant is not None and case.grant.provisional
    sector, types = row.role.sector, (row.role.type, ANY_TYPE)
    return [
        line
        for line in (person.lines if person is not None else ())
        if line.sector == sector
        and line.type in types
        and (
            line.capacity in row.capacities
            if row.capacities
            else takes_provisional or line.capacity != PROVISIONAL
        )
        and line.phase >= row.phase
        and line.begin <= case.end
        and line.end >= case.begin
    ]


def outage(case: Case) -> Refusal | None:
    """Destinations in an announced outage are left out; if none is left, say until when."""
    outages = case.facts.outages
    if not outages or not case.destinations:
        return None
    down: dict[str, int] = {}
    for row in outages:
        down[row.kbo] = max(row.end_ms, down.get(row.kbo, 0))
    reachable = tuple(found for found in case.destinations if found.kbo not in down)
    case.in_outage = tuple(found.kbo for found in case.destinations if found.kbo in down)
    if not reachable:
        until = min(down[kbo] for kbo in case.in_outage)
        grant = case.grant.id if case.grant is not None else ""
        return Refusal(Code.ANNOUNCED_OUTAGE, grant=grant, retry_at_ms=until)
    case.destinations = reachable
    return None
