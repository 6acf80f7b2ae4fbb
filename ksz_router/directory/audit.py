"""Judge the values of a directory one by one: every field, the order, overlaps, the families."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from itertools import pairwise

import lmdb

from ksz_router.days import is_day, to_day
from ksz_router.directory import packing
from ksz_router.directory.change import is_line
from ksz_router.directory.packing import DamagedError, Record
from ksz_router.limits import person_lines_max
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus
from ksz_router.official import is_capacity, is_role
from ksz_router.persons import unpack_lines

_REMARKS_MAX = 20

_Key = tuple[int, int, int, int, int]


class Audit:
    """What was seen of a directory so far. ``transaction`` reads the persons."""

    def __init__(self, transaction: "lmdb.Transaction[memoryview]") -> None:
        self._get = transaction.get
        self._days = _days()
        self.numbers = 0
        self.lines = 0
        self._files: Counter[tuple[int, int, int]] = Counter()
        """Lines by sector, type and capacity."""
        self._doubled = 0
        """Persons with a line under two numbers that share a day."""

    def judge(self, key: memoryview, value: memoryview) -> list[str]:
        """Return what is wrong with one number; the message does not name it."""
        self.numbers += 1
        try:
            number = packing.unpack_key(key)
            status, others_count, deceased, packed = packing.unpack_parts(value)
            lines = unpack_lines(packed)
            problems = self._lines_wrong(lines)
            if status is NumberStatus.DECEASED:
                if not is_day(deceased):
                    problems.append("its day of death does not fit its status")
            elif deceased:
                problems.append("its day of death does not fit its status")
            if others_count:
                others = packing.unpack_others(value, others_count)
                record = Record(status=status, others=others, lines=lines)
                problems += self._family_wrong(number, record)
        except DamagedError as error:
            return [str(error)]
        return problems

    def _lines_wrong(self, lines: tuple[Line, ...]) -> list[str]:
        self.lines += len(lines)
        problems = []
        days, files = self._days, self._files
        former: _Key = (-1, 0, 0, 0, 0)
        for line in lines:
            sector, kind, capacity, begin, end = key = packing.order(line)
            file = (sector, kind, capacity)
            if file not in files and not is_line(line):
                problems.append("a line is out of range")
            files[file] += 1
            is_sound = (
                begin in days
                and (end == OPEN or end in days)
                and begin <= end
                and (line.changed in days or not line.changed)
                and line.phase <= 999
            )
            if not is_sound:
                problems.append("a line is out of range")
            if key < former:
                problems.append("its lines are not in order")
            elif begin <= former[4] and file == former[:3]:
                problems.append("two lines of one role and capacity share a day")
            former = key
        if len(lines) > person_lines_max:
            problems.append("it has too many lines")
        return problems

    def _family_wrong(self, number: str, record: Record) -> Iterator[str]:
        """Judge how the numbers of one person name each other."""
        if number in record.others or len(set(record.others)) < len(record.others):
            yield "it names a number of the person twice"
        family = {number, *record.others}
        current = packing.current_of(record, number)
        lines = list(record.lines)
        for other in record.others:
            theirs = self._get(packing.pack_key(other))
            if theirs is None:
                yield "it names a number that is missing"
                continue
            found = packing.unpack(theirs)
            if {other, *found.others} != family:
                yield "the person's numbers do not name each other"
            if packing.current_of(found, other) != current:
                yield "the person's numbers do not agree which one is in use"
            lines += found.lines
        if number == current:
            self._doubled += _has_overlap(lines)

    def remarks(self) -> list[str]:
        """Return what is sound but worth a look: codes on no official list, doubled lines."""
        found = [
            f"{count} lines of sector {sector}, type {'any' if kind == ANY_TYPE else kind} in "
            f"capacity {capacity}, which is on no official list"
            for (sector, kind, capacity), count in sorted(self._files.items())
            if not (is_capacity(sector, capacity) and (kind == ANY_TYPE or is_role(sector, kind)))
        ]
        if len(found) > _REMARKS_MAX:
            found[_REMARKS_MAX:] = [f"{len(found) - _REMARKS_MAX} more such capacities"]
        if self._doubled:
            found.append(
                f"{self._doubled} persons with lines of one role and capacity under two numbers "
                "that share a day, from before a replacement"
            )
        return found


def _has_overlap(lines: list[Line]) -> bool:
    ordered = sorted(map(packing.order, lines))
    return any(
        former[:3] == later[:3] and later[3] <= former[4] for former, later in pairwise(ordered)
    )


@cache
def _days() -> frozenset[int]:
    """Every day that a period may begin or end with: to look one up is faster than to judge it."""
    first, last = date(1800, 1, 1), date(2199, 12, 31)
    return frozenset(
        to_day(first + timedelta(days=index)) for index in range((last - first).days + 1)
    )
