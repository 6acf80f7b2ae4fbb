"""The rules about the person, and about who has the data: integrations, number, outage."""

import msgspec

from ksz_router.codes import Code
from ksz_router.days import covers
from ksz_router.decision import asked
from ksz_router.decision.case import Case, Destination, Refusal, Source
from ksz_router.decision.requester import broken_in_grant
from ksz_router.limits import recipients_max
from ksz_router.model import Day, Kind, Line, Mode, NumberStatus
from ksz_router.persons import Person, pack_lines

# For every request, and a member looked up in its enum costs as much as a call.
_CONSULTATION, _DISTRIBUTION, _TEST = Kind.CONSULTATION, Kind.DISTRIBUTION, Kind.TEST
_UNCHECKED, _ACTIVE, _DOWN = Mode.NONE, NumberStatus.ACTIVE, Code.SECTORAL_DIRECTORY_DOWN


def own_integration(case: Case) -> Refusal | None:
    """The requester's role knows this person: capacity, phase and period (7, 4° d, path A, 3).

    Lines of all the person's numbers count, and one without institution type fits every type of
    its sector. Adjacent lines are continuous; a provisional line counts only where the grant says
    so.
    """
    standing, person = case.standing, case.facts.person
    grant, own = standing.grant, standing.own
    if grant is None or own is None or case.person is None:
        return None
    known = person.fitting(own) if person is not None else []
    line = _covering(known, grant.phase, case.begin, case.end)
    if line is not None:
        case.line = line
        return None
    if not known:
        code = Code.PERSON_NOT_INTEGRATED
    elif all(line.phase < grant.phase for line in known):
        code = Code.PHASE_TOO_LOW
    else:
        code = Code.PERIOD_NOT_COVERED
    if grant.own_mode is Mode.LOG:
        case.own_violation = code
        case.is_spotted = True
        return None
    return Refusal(code, grant=grant.id)


def _covering(lines: list[Line], phase: int, begin: Day, end: Day) -> Line | None:
    """Of those far enough the first that holds the first day, if together they hold every day."""
    for line in lines:
        if line.begin <= begin <= line.end and line.phase >= phase:
            if end <= line.end:
                return line
            held = [(n.begin, n.end) for n in lines if n.phase >= phase]
            return line if covers(held, begin, end) else None
    return None


def person(case: Case) -> Refusal | None:
    """The number exists and is in use; a replaced one is followed or refused as the service says.

    Comes after the own integration: a new number, or that one exists, is disclosed only to who
    may know. A violation that is only logged lets the request go on, but neither the new number nor
    the day of death out.
    """
    known, service = case.facts.person, case.standing.service
    if case.person is None or service.any_number:
        return None
    if known is not None and known.status is known.current_status is _ACTIVE:
        return None
    grant = _grant_id(case)
    if known is None:
        return Refusal(Code.PERSON_UNKNOWN, "person", grant)
    if known.status is NumberStatus.REPLACED and not service.follow_replaced:
        new = "" if _is_stranger(case) else known.current
        return Refusal(Code.PERSON_REPLACED, "person", grant, replaced_by=new)
    if known.current_status is NumberStatus.CANCELLED:
        return Refusal(Code.PERSON_CANCELLED, "person", grant)
    if known.current_status is NumberStatus.DECEASED and service.refuse_deceased:
        day = 0 if _is_stranger(case) else known.deceased
        return Refusal(Code.PERSON_DECEASED, "person", grant, deceased=day)
    case.person = known.current
    return None


def _is_stranger(case: Case) -> bool:
    return case.own_violation is not None or case.sectoral_violation is not None


def source_integration(case: Case) -> Refusal | None:
    """The sources or recipients that know this person in a fitting capacity and period.

    For a submission or distribution they must also hold a grant to receive it. None is a
    functional answer of the network (MSG00021), not a refusal of the requester. Where the directory
    of a source's network cannot be read, that is said, and not that nobody knows the person.
    """
    standing, wished = case.standing, case.request.source
    kind, sources = standing.service.kind, standing.sources
    if kind is _TEST:
        return None
    if wished is not None:
        sources = tuple([source for source in sources if source.row.kbo == wished])
    if not sources:
        return Refusal(_none_fits(case, wished), grant=_grant_id(case))
    if not standing.is_plain:
        subscribed = _subscribed(sources, case)
        sources = _holding(subscribed, case)
        if not sources:
            lacking = Code.NO_SOURCE_HOLDS_THE_PERIOD
            return Refusal(
                lacking if subscribed else Code.NO_RECIPIENT_SUBSCRIBED, grant=_grant_id(case)
            )
    knowing = _knowing(sources, case)
    fault = case.sectoral_fault
    if fault is _DOWN and (kind is _DISTRIBUTION or not knowing):
        return Refusal(fault, grant=_grant_id(case))  # whom it would leave out cannot be said
    if not knowing:
        return Refusal(fault or Code.NO_SOURCE_KNOWS_THE_PERSON, grant=_grant_id(case))
    if kind is not _CONSULTATION:
        knowing = [found for found in knowing if found.receive]
        if not knowing:
            return Refusal(Code.NO_RECIPIENT_MAY_RECEIVE, grant=_grant_id(case))
    if len(knowing) > 1:
        # An institution that fits in several roles is put to once, as what it is asked first.
        knowing = list({found.kbo: found for found in reversed(knowing)}.values())[::-1]
    case.destinations = tuple(knowing)
    if kind is _DISTRIBUTION and len(knowing) > recipients_max:
        # Never a silent cut: who distributes names its recipients one by one instead.
        return Refusal(Code.TOO_MANY_RECIPIENTS, "source", _grant_id(case), limit=recipients_max)
    return None


def _knowing(sources: tuple[Source, ...], case: Case) -> list[Destination]:
    """Who knows the person; where keepers of networks are to be asked for some, in their turn."""
    turns = asked.Turns(case) if case.standing.asks else None
    knowing = []
    for source in sources:
        if turns is not None and turns.is_spared(source.row):
            continue
        found = _destination(source, case)
        if found is not None:
            knowing.append(found)
            if turns is not None:
                turns.tried(found)
    return knowing


def _subscribed(sources: tuple[Source, ...], case: Case) -> tuple[Source, ...]:
    """Who wants this: who subscribed to changes does not want to hear again what it was told."""
    if case.standing.service.kind is _CONSULTATION or not case.request.unchanged:
        return sources
    return tuple([source for source in sources if not source.row.changes_only])


def _holding(sources: tuple[Source, ...], case: Case) -> tuple[Source, ...]:
    """Who holds data of a day of the period asked.

    Of a consultation those that hold all of the days come first: one source is asked, and of two
    that hold adjoining periods neither has the whole of it.
    """
    begin, end = case.begin, case.end
    found = [n for n in sources if n.row.data_begin <= end and n.row.data_end >= begin]
    if case.standing.service.kind is _CONSULTATION:
        found.sort(key=lambda n: not (n.row.data_begin <= begin and end <= n.row.data_end))
    return tuple(found)


def _none_fits(case: Case, wished: str | None) -> Code:
    """Nobody has the data; or those that have it are out of reach of the grant."""
    standing = case.standing
    rows = [
        row
        for row in case.facts.sources
        if row.begin <= standing.today <= row.end and wished in (None, row.kbo)
    ]
    return Code.NO_SOURCE_KNOWS_THE_PERSON if rows else Code.NO_SOURCE_HAS_THE_DATA


def _destination(source: Source, case: Case) -> Destination | None:
    standing, row = case.standing, source.row
    kind = standing.service.kind
    if kind is _DISTRIBUTION and row.kbo == standing.acting.kbo:
        return None
    lines: list[Line] = []
    violation = False
    if case.person is not None and row.mode is not _UNCHECKED:
        lines = _known_by(source, case)
        if lines and row.is_sectoral:
            lines = _known_in_network(source, case, lines)
        if not lines:
            if row.mode is Mode.BLOCK:
                return None
            violation = case.is_spotted = True
    if kind is _CONSULTATION:
        line = lines[0] if lines else None
        return Destination(row.kbo, row.role, line, "", violation, row.data_begin, row.data_end)
    # Any line may be the one that a grant to receive covers.
    for line in lines or (None,):
        for grant in row.receive:
            capacity = line.capacity if line is not None and grant.capacities else None
            if broken_in_grant(grant, capacity, standing.today) is None:
                return Destination(row.kbo, row.role, line, grant.id, violation)
    return Destination(row.kbo, row.role, lines[0] if lines else None, "", violation)


def _known_by(source: Source, case: Case) -> list[Line]:
    """The lines under which this source knows the person on some day of the period."""
    person, phase = case.facts.person, source.row.phase
    if person is None:
        return []
    begin, end, known = case.begin, case.end, []
    for line in person.fitting(source.fitting):
        if line.phase >= phase and line.begin <= end and line.end >= begin:
            known.append(line)  # noqa: PERF401  most often one: not worth a function of its own
    return known


def _known_in_network(source: Source, case: Case, lines: list[Line]) -> list[Line]:
    """The lines of the primary directory, if that of the source's network has fitting ones too.

    The primary directory is asked first: who is not known there is not looked for elsewhere.
    """
    is_known = _is_known_in_network(source, case)
    if is_known:
        return lines
    if is_known is None:
        case.sectoral_fault = Code.SECTORAL_DIRECTORY_DOWN
        return []
    case.sectoral_fault = case.sectoral_fault or Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY
    return []


def _is_known_in_network(source: Source, case: Case) -> bool | None:
    row = source.row
    if row.keeper is not None:
        return asked.knows_for(row, case)
    sectoral = (case.facts.sectoral or {}).get(row.secondary_network)
    return None if sectoral is None else bool(_known_by(source, in_directory(case, sectoral)))


def in_directory(case: Case, lines: tuple[Line, ...]) -> Case:
    """The same case, as it would stand if the directory held these lines."""
    number = case.person or ""
    person = Person(NumberStatus.ACTIVE, number, NumberStatus.ACTIVE, pack_lines(lines))
    facts = msgspec.structs.replace(case.facts, person=person)
    return Case(case.request, facts, case.standing, case.begin, case.end, person=case.person)


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
        return Refusal(Code.ANNOUNCED_OUTAGE, grant=_grant_id(case), retry_at_ms=until)
    case.destinations = reachable
    return None


def _grant_id(case: Case) -> str:
    grant = case.standing.grant
    return grant.id if grant is not None else ""
