"""What a change makes of the records of a person. Pure: records in, records or a refusal out.

A person may have several numbers, with lines under each. A rule looks at the lines of all of them,
as a look-up does; a change touches the record that holds the line.
"""

from bisect import insort
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from ksz_router.days import day_before, next_day
from ksz_router.directory.change import ANY, LINE_OPERATIONS, Change, Operation, Reason, Refused
from ksz_router.directory.packing import Record, current_of, order
from ksz_router.directory.registering import registered
from ksz_router.limits import person_lines_max, person_role_lines_max
from ksz_router.model import PROVISIONAL, Day, Line, NumberStatus

Records = Mapping[str, Record]
"""Records by number."""


def applied(records: Records, change: Change, today: Day) -> dict[str, Record] | Refused:
    """Return the records that the change makes new or different, or the rule that it breaks.

    ``records`` holds every number of the person, and of the one who has ``change.other``; a number
    that is missing does not exist. Lines of other roles than that of the change may be left packed:
    no rule looks at them. The change is well formed (:func:`change.malformed`).
    """
    if change.operation not in LINE_OPERATIONS:
        return registered(records, change)
    assert change.line is not None, "a malformed change"
    result = _lines_changed(records, change, change.line, today)
    if isinstance(result, Refused):
        return result
    if any(_outgrows(records[number], record, change.line) for number, record in result.items()):
        return Refused(Reason.TOO_MANY_LINES)
    return result


def _lines_changed(
    records: Records, change: Change, line: Line, today: Day
) -> dict[str, Record] | Refused:
    record = records.get(change.number)
    if change.operation is Operation.INSCRIBE:
        if record is None:
            return Refused(Reason.NUMBER_UNKNOWN)
        return _inscribed(records, change.number, line, today)
    if record is None:  # who has no line there does not learn whether the number exists
        return Refused(Reason.LINE_UNKNOWN)
    if change.operation is Operation.ADJUST:
        return _adjusted(records, change, line, today)
    return _removed(records, change, line, today)


def _outgrows(former: Record, grown: Record, role: Line) -> bool:
    """Say whether a number has too many lines, or too many of the role where these became more.

    No role can take the room of all others, and what a load brought can always be mended.
    """
    if grown.lines_count > person_lines_max:
        return True
    if len(grown.lines) <= person_role_lines_max:
        return False
    count, before = (
        sum(line.sector == role.sector and line.type == role.type for line in record.lines)
        for record in (grown, former)
    )
    return count > max(before, person_role_lines_max)


def _inscribed(
    records: Records, number: str, wanted: Line, today: Day
) -> dict[str, Record] | Refused:
    current = current_of(records[number], number)
    if records[current].status is NumberStatus.CANCELLED:
        return Refused(Reason.NUMBER_CANCELLED)
    line = _dated(wanted, today)
    changed = _made_room(records, line, today)
    if isinstance(changed, Refused):
        return changed
    return _kept(records, changed, current, line)


def _adjusted(
    records: Records, change: Change, wanted: Line, today: Day
) -> dict[str, Record] | Refused:
    found = _holder(records, change.number, wanted, change.line_begin or wanted.begin)
    if found is None:
        return Refused(Reason.LINE_UNKNOWN)
    current = current_of(records[change.number], change.number)
    if records[current].status is NumberStatus.CANCELLED:
        return Refused(Reason.NUMBER_CANCELLED)
    holder, former = found
    without = replace(
        records[holder],
        lines=tuple(line for line in records[holder].lines if line is not former),
    )
    others = {**records, holder: without}
    line = _dated(wanted, today)
    changed = _made_room(others, line, today)
    if isinstance(changed, Refused):
        return changed
    return _kept(others, changed, holder, line)


def _removed(
    records: Records, change: Change, meant: Line, today: Day
) -> dict[str, Record] | Refused:
    operation = change.operation
    if operation is Operation.REMOVE_LINE:
        found = _holder(records, change.number, meant, meant.begin)
        if found is None:
            return Refused(Reason.LINE_UNKNOWN)
        holder, former = found
        kept = tuple(line for line in records[holder].lines if line is not former)
        return {holder: replace(records[holder], lines=kept)}
    changed = {}
    for number, record in records.items():
        lines: list[Line] = []
        for line in record.lines:
            if not _is_meant(line, change, meant):
                lines.append(line)
            elif operation is Operation.REMOVE_PERIOD:
                lines += _without(line, meant.begin, meant.end, today)
        if tuple(lines) != record.lines:
            changed[number] = replace(record, lines=tuple(lines))
    return changed or Refused(Reason.LINE_UNKNOWN)


def _is_meant(line: Line, change: Change, meant: Line) -> bool:
    """Say whether a change that removes more than one line concerns this one."""
    if line.sector != meant.sector or line.type != meant.type:
        return False
    if change.operation is Operation.REMOVE_ALL:
        return True
    if change.operation is Operation.REMOVE_CAPACITY:
        return line.capacity == meant.capacity and meant.phase in (ANY, line.phase)
    return (
        meant.capacity in (ANY, line.capacity)
        and change.line_begin in (0, line.begin)
        and line.begin <= meant.end
        and meant.begin <= line.end
    )


def _holder(records: Records, number: str, meant: Line, begin: Day) -> tuple[str, Line] | None:
    """Find a line by role, capacity and begin: under the number itself, the one in use, others."""
    current = current_of(records[number], number)
    for candidate in dict.fromkeys((number, current, *sorted(records))):
        for line in records[candidate].lines:
            if line.begin == begin and _same_file(line, meant):
                return candidate, line
    return None


def _same_file(line: Line, other: Line) -> bool:
    return (
        line.capacity == other.capacity and line.sector == other.sector and line.type == other.type
    )


def _made_room(records: Records, wanted: Line, today: Day) -> dict[str, Record] | Refused:
    """See that nothing is in the way of a line; return records whose provisional lines give way."""
    sector, kind, begin, end = wanted.sector, wanted.type, wanted.begin, wanted.end
    provisional: list[str] = []
    for number, record in records.items():
        for line in record.lines:
            if line.sector != sector or line.type != kind or line.begin > end or begin > line.end:
                continue
            if line.capacity == wanted.capacity:
                return Refused(Reason.OVERLAPS)
            if wanted.capacity == PROVISIONAL:
                return Refused(Reason.DEFINITIVE_ALREADY)
            if line.capacity == PROVISIONAL and number not in provisional:
                provisional.append(number)
    return {number: _given_way(records[number], wanted, today) for number in provisional}


def _given_way(record: Record, wanted: Line, today: Day) -> Record:
    lines: list[Line] = []
    for line in record.lines:
        if (line.sector, line.type, line.capacity) == (wanted.sector, wanted.type, PROVISIONAL):
            lines += _without(line, wanted.begin, wanted.end, today)
        else:
            lines.append(line)
    return replace(record, lines=tuple(lines))


def _without(line: Line, begin: Day, end: Day, today: Day) -> Iterable[Line]:
    """What is left of a line without the days from ``begin`` to ``end``."""
    if line.begin > end or begin > line.end:
        return (line,)
    dated = _dated(line, today)
    before = (replace(dated, end=day_before(begin)),) if line.begin < begin else ()
    after = (replace(dated, begin=next_day(end)),) if end < line.end else ()
    return (*before, *after)


def _kept(
    records: Records, changed: dict[str, Record], holder: str, line: Line
) -> dict[str, Record]:
    """Put a line under a number."""
    record = changed.get(holder) or records[holder]
    lines = list(record.lines)
    insort(lines, line, key=order)
    changed[holder] = replace(record, lines=tuple(lines))
    return changed


def _dated(line: Line, today: Day) -> Line:
    return Line(
        line.sector, line.type, line.capacity, line.phase, line.begin, line.end, changed=today
    )
