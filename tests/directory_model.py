"""A plain model of the directory: a line is a set of days, a person a set of numbers.

It shares nothing with the code under test but the nouns. Days are the first thirteen of January
2024 and one that stands for all that follow, so that splits, gaps and adjacency occur all the time.
"""

from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import strategies as st

from ksz_router.directory.change import (
    ANY,
    LINE_OPERATIONS,
    REGISTER_OPERATIONS,
    Change,
    Operation,
    Reason,
)
from ksz_router.directory.packing import Record
from ksz_router.model import OPEN, PROVISIONAL, Line, NumberStatus
from tests.directory_files import number

NUMBERS = [number(counter) for counter in range(994, 999)]
TODAY = 20240201
NOW_US = 1_706_788_800_000_000
"""Noon of that day."""

_FIRST, _LATER = 20240100, 14
_R = Reason

File = tuple[int, int, int]
Told = tuple[Operation, str, str, str, int]
"""A notice: the operation, its number, whose person is told, the number in use, the death."""


def day_of(index: int) -> int:
    return OPEN if index == _LATER else _FIRST + index


def index_of(day: int) -> int:
    return _LATER if day == OPEN else day - _FIRST


@dataclass
class Kept:
    """A line: its days, in no order."""

    file: File
    days: set[int]
    phase: int
    changed: int = TODAY

    def pieces(self) -> list["Kept"]:
        """One line for each run of days."""
        found: list[Kept] = []
        for day in sorted(self.days):
            if found and day - 1 in found[-1].days:
                found[-1].days.add(day)
            else:
                found.append(Kept(self.file, {day}, self.phase, self.changed))
        return found


@dataclass
class Number:
    """One number and the lines under it."""

    status: NumberStatus = NumberStatus.ACTIVE
    deceased: int = 0
    lines: list[Kept] = field(default_factory=list)


@dataclass
class Family:
    """The numbers of one person."""

    current: str
    members: set[str]


class Model:
    """What the directory ought to hold."""

    def __init__(self) -> None:
        self.numbers: dict[str, Number] = {}
        self.families: dict[str, Family] = {}

    @staticmethod
    def of_one(insz: str) -> tuple[Number, Family]:
        """A person with one number that is active."""
        return Number(), Family(insz, {insz})

    def lines(self) -> list[tuple[str, tuple[int, ...]]]:
        """Every line and the number that it stands under."""
        return [(n, _fields(line)) for n, held in self.numbers.items() for line in held.lines]

    def copy(self) -> "Model":
        return deepcopy(self)

    # What a change breaks.

    def broken(self, change: Change) -> set[Reason]:
        """Every rule that the change breaks; none: it must be applied."""
        insz, operation = change.number, change.operation
        if operation is Operation.NEW_NUMBER:
            return {_R.NUMBER_KNOWN} if insz in self.numbers else set()
        looks_first = operation in LINE_OPERATIONS - {Operation.INSCRIBE}
        if insz not in self.numbers:
            return {_R.LINE_UNKNOWN if looks_first else _R.NUMBER_UNKNOWN}
        if looks_first and not self._meant(change):
            return {_R.LINE_UNKNOWN}
        status = self.numbers[insz].status
        current = self.numbers[self.families[insz].current].status
        if operation is Operation.REPLACE:
            return self._broken_by_replacing(insz, change.other)
        if operation is Operation.CANCEL:
            refused = {
                NumberStatus.REPLACED: {_R.NUMBER_REPLACED},
                NumberStatus.CANCELLED: {_R.NUMBER_CANCELLED},
            }
            return refused.get(status, set())
        if operation is Operation.REACTIVATE:
            return {_R.NUMBER_ACTIVE} if status is NumberStatus.ACTIVE else set()
        found = set()
        if current is NumberStatus.CANCELLED and not operation.name.startswith("REMOVE"):
            found.add(_R.NUMBER_CANCELLED)
        if operation is not Operation.DECEASE:
            found |= self._broken_lines(change)
        return found

    def _broken_by_replacing(self, insz: str, other: str) -> set[Reason]:
        found = set()
        if self.numbers[insz].status is NumberStatus.REPLACED:
            found.add(_R.NUMBER_REPLACED)
        if other in self.families[insz].members:
            found.add(_R.CIRCLE)
        elif other not in self.numbers:
            found.add(_R.OTHER_UNKNOWN)
        elif self.numbers[self.families[other].current].status is NumberStatus.CANCELLED:
            found.add(_R.OTHER_CANCELLED)
        return found

    def _broken_lines(self, change: Change) -> set[Reason]:
        assert change.line is not None
        wanted = _kept(change.line)
        if change.operation not in (Operation.INSCRIBE, Operation.ADJUST):
            return set()
        lines = self._lines(change.number)
        if change.operation is Operation.ADJUST:
            (meant,) = self._meant(change)
            lines = [line for line in lines if line is not meant]
        found = set()
        for line in lines:
            if line.file[:2] == wanted.file[:2] and line.days & wanted.days:
                if line.file == wanted.file:
                    found.add(_R.OVERLAPS)
                elif wanted.file[2] == PROVISIONAL:
                    found.add(_R.DEFINITIVE_ALREADY)
        return found

    def _ordered(self, insz: str) -> list[str]:
        family = self.families[insz]
        return list(dict.fromkeys([insz, family.current, *sorted(family.members)]))

    def _lines(self, insz: str) -> list[Kept]:
        return [line for member in self._ordered(insz) for line in self.numbers[member].lines]

    def _meant(self, change: Change) -> list[Kept]:
        """The lines that a change names: the first only where it names one."""
        assert change.line is not None
        wanted, lines = _kept(change.line), self._lines(change.number)
        lines = [line for line in lines if line.file[:2] == wanted.file[:2]]
        begin = index_of(change.line_begin or change.line.begin)
        if change.operation in (Operation.ADJUST, Operation.REMOVE_LINE):
            fits = [row for row in lines if row.file == wanted.file and min(row.days) == begin]
            return fits[:1]
        if change.operation is Operation.REMOVE_ALL:
            return lines
        lines = [row for row in lines if wanted.file[2] in (ANY, row.file[2])]
        if change.operation is Operation.REMOVE_CAPACITY:
            return [row for row in lines if wanted.phase in (ANY, row.phase)]
        lines = [row for row in lines if row.days & wanted.days]
        return [row for row in lines if not change.line_begin or min(row.days) == begin]

    # What a change makes.

    def apply(self, change: Change, today: int = TODAY) -> None:
        """Apply a change that breaks no rule."""
        insz, operation = change.number, change.operation
        if operation is Operation.NEW_NUMBER:
            self.numbers[insz], self.families[insz] = self.of_one(insz)
        elif operation is Operation.REPLACE:
            self._replace(insz, change.other)
        elif operation is Operation.CANCEL:
            self.numbers[insz].status, self.numbers[insz].deceased = NumberStatus.CANCELLED, 0
        elif operation is Operation.DECEASE:
            held = self.numbers[self.families[insz].current]
            held.status, held.deceased = NumberStatus.DECEASED, change.day
        elif operation is Operation.REACTIVATE:
            self._reactivate(insz)
        else:
            self._change_lines(change, today)

    def _replace(self, insz: str, other: str) -> None:
        former, later = self.families[insz], self.families[other]
        held, target = self.numbers[insz], self.numbers[later.current]
        if held.status is NumberStatus.DECEASED and target.status is NumberStatus.ACTIVE:
            target.status, target.deceased = NumberStatus.DECEASED, held.deceased
        held.status, held.deceased = NumberStatus.REPLACED, 0
        joined = Family(later.current, former.members | later.members)
        self.families.update(dict.fromkeys(joined.members, joined))

    def _reactivate(self, insz: str) -> None:
        held = self.numbers[insz]
        if held.status is NumberStatus.REPLACED:
            self.families[insz].members.remove(insz)
            self.families[insz] = Family(insz, {insz})
        held.status, held.deceased = NumberStatus.ACTIVE, 0

    def _change_lines(self, change: Change, today: int) -> None:
        assert change.line is not None
        wanted, operation = _kept(change.line), change.operation
        if operation in (Operation.INSCRIBE, Operation.ADJUST):
            holder = self.families[change.number].current
            if operation is Operation.ADJUST:
                meant = self._meant(change)[0]
                holder = self._take(meant)
            if wanted.file[2] != PROVISIONAL:
                for line in self._lines(change.number):
                    if line.file == (*wanted.file[:2], PROVISIONAL):
                        self._cut(line, wanted.days, today)
            self.numbers[holder].lines.append(Kept(wanted.file, wanted.days, wanted.phase, today))
            return
        days = wanted.days if operation is Operation.REMOVE_PERIOD else set(range(_LATER + 1))
        for line in self._meant(change):
            self._cut(line, days, today)

    def _take(self, line: Kept) -> str:
        holder = next(insz for insz, held in self.numbers.items() if _has(held, line))
        held = self.numbers[holder]
        held.lines = [other for other in held.lines if other is not line]
        return holder

    def _cut(self, line: Kept, days: set[int], today: int) -> None:
        if not line.days & days:
            return
        holder = self._take(line)
        left = Kept(line.file, line.days - days, line.phase, today)
        self.numbers[holder].lines += left.pieces()

    def told(self, change: Change, former: str) -> list[Told]:
        """What there is to tell of a change that was applied; ``former`` was in use before it."""
        insz, operation = change.number, change.operation
        if operation in LINE_OPERATIONS or operation is Operation.NEW_NUMBER:
            return []
        if operation is Operation.CANCEL:
            return [(operation, insz, insz, "", 0)]
        current = self.families[insz].current
        persons = (
            dict.fromkeys([current, former]) if operation is Operation.REACTIVATE else [current]
        )
        dead = self.numbers[current].deceased
        return [(operation, insz, person, current, dead) for person in persons]

    # What it holds, to compare.

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Each number: status, death, number in use, the other numbers, the lines in order."""
        return {
            insz: (
                held.status,
                held.deceased,
                self.families[insz].current,
                frozenset(self.families[insz].members - {insz}),
                sorted(map(_fields, held.lines)),
            )
            for insz, held in self.numbers.items()
        }


def _has(held: Number, line: Kept) -> bool:
    return any(other is line for other in held.lines)


def _fields(line: Kept) -> tuple[int, ...]:
    begin, end = day_of(min(line.days)), day_of(max(line.days))
    return (*line.file, line.phase, begin, end, line.changed)


def _kept(line: Line) -> Kept:
    days = set(range(index_of(line.begin), index_of(line.end) + 1))
    return Kept((line.sector, line.type, line.capacity), days, line.phase)


def seen_in(records: dict[str, Record]) -> dict[str, tuple[object, ...]]:
    """The same of records."""
    return {
        insz: (
            record.status,
            record.deceased,
            record.others[0] if record.status is NumberStatus.REPLACED else insz,
            frozenset(record.others),
            sorted(
                (
                    line.sector,
                    line.type,
                    line.capacity,
                    line.phase,
                    line.begin,
                    line.end,
                    line.changed,
                )
                for line in record.lines
            ),
        )
        for insz, record in records.items()
    }


_ASKED = [*LINE_OPERATIONS, *REGISTER_OPERATIONS]
_OPERATIONS = sorted(_ASKED + 2 * [*LINE_OPERATIONS] + 6 * [Operation.INSCRIBE])


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """A change that is well formed; of few numbers and files, so that they meet often."""
    operation = draw(st.sampled_from(_OPERATIONS))
    insz = draw(st.sampled_from(NUMBERS[:3]))
    exchange = draw(st.binary(min_size=16, max_size=16))
    if operation not in LINE_OPERATIONS:
        other = draw(st.sampled_from(NUMBERS[:3])) if operation is Operation.REPLACE else ""
        day = 20240105 if operation is Operation.DECEASE else 0
        return Change(exchange, insz, operation, other=other, day=day)
    first = draw(st.integers(1, 6))
    last = draw(st.integers(first, 6) | st.just(_LATER))
    removes_all = operation is Operation.REMOVE_PERIOD
    capacity = draw(st.sampled_from([1, 1, 2, PROVISIONAL, *([ANY] if removes_all else [])]))
    phase = draw(st.integers(0, 2))
    if operation is Operation.REMOVE_CAPACITY:
        phase = draw(st.just(ANY) | st.just(phase))
    named = operation in (Operation.ADJUST, Operation.REMOVE_PERIOD)
    begin = draw(st.just(0) | st.integers(1, 7).map(day_of)) if named else 0
    sector = draw(st.sampled_from([17, 17, 18]))
    line = Line(sector, 1, capacity, phase, day_of(first), day_of(last))
    return Change(exchange, insz, operation, line, line_begin=begin)
