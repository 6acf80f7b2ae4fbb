"""The rules about the person, and about who has the data: integrations, number, outage."""

import msgspec

from ksz_router.codes import Code
from ksz_router.days import covers
from ksz_router.decision import asked
from ksz_router.decision.case import Case, Destination, Refusal, Source
from ksz_router.decision.requester import broken_in_grant
from ksz_router.limits import recipients_max
from ksz_router.model import OPEN, Kind, Line, Mode, NumberStatus
from ksz_router.persons import Fitting, Person, pack_lines

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
    begin, end = case.begin, case.end
    if person is not None:
        lines = person.fitting(own, grant.phase, begin, end)
        for line in lines:
            if line.begin <= begin <= line.end:
                if end <= line.end or covers([(n.begin, n.end) for n in lines], begin, end):
                    case.line = line
                    return None
                break
    code = _lacking(person, own, grant.phase)
    if grant.own_mode is Mode.LOG:
        case.own_violation = code
        case.is_spotted = True
        return None
    return Refusal(code, grant=grant.id)


def _lacking(person: Person | None, own: Fitting, phase: int) -> Code:
    """Which of the requester's lines there are not."""
    if person is None or not person.fitting(own, 0, 0, OPEN):
        return Code.PERSON_NOT_INTEGRATED
    is_far_enough = person.fitting(own, phase, 0, OPEN)
    return Code.PERIOD_NOT_COVERED if is_far_enough else Code.PHASE_TOO_LOW


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
    knowing: list[Destination] = []
    if standing.asks:
        knowing = _in_turn(sources, case)
    else:
        for source in sources:
            found = _destination(source, case)
            if found is not None:
                knowing.append(found)
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
        if kind is _DISTRIBUTION and len(knowing) > recipients_max:
            # Never a silent cut: who distributes names its recipients one by one instead.
            code = Code.TOO_MANY_RECIPIENTS
            return Refusal(code, "source", _grant_id(case), limit=recipients_max)
    case.destinations = tuple(knowing)
    return None


def _in_turn(sources: tuple[Source, ...], case: Case) -> list[Destination]:
    """Who knows the person, where some of them are in networks whose keepers must be asked."""
    turns, knowing = asked.Turns(case), []
    for source in sources:
        found = None if turns.is_spared(source.row) else _destination(source, case)
        if found is not None:
            turns.tried(found)
            knowing.append(found)
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
        person = case.facts.person
        if person is not None:
            lines = person.fitting(source.fitting, row.phase, case.begin, case.end)
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
    if sectoral is None:
        return None
    there = _as_held(case, sectoral)
    return bool(there.fitting(source.fitting, row.phase, case.begin, case.end))


def in_directory(case: Case, lines: tuple[Line, ...]) -> Case:
    """The same case, as it would stand if the directory held these lines."""
    facts = msgspec.structs.replace(case.facts, person=_as_held(case, lines))
    return Case(case.request, facts, case.standing, case.begin, case.end, person=case.person)


def _as_held(case: Case, lines: tuple[Line, ...]) -> Person:
    number = case.person or ""
    return Person(NumberStatus.ACTIVE, number, NumberStatus.ACTIVE, pack_lines(lines))


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
