"""The figures of a directory told by plain Python: what columns must agree with.

Nothing of ``report`` is used but the names of findings.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

from ksz_router.directory.packing import Record, order
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus
from ksz_router.official import capacities, sectors
from ksz_router.report.directory_findings import Finding

LAST = 20260930
QUARTERS = ("2024Q4", "2025Q1", "2025Q2", "2025Q3", "2025Q4", "2026Q1", "2026Q2", "2026Q3")
DAYS = {
    "2024Q4": (20241001, 20241231), "2025Q1": (20250101, 20250331),
    "2025Q2": (20250401, 20250630), "2025Q3": (20250701, 20250930),
    "2025Q4": (20251001, 20251231), "2026Q1": (20260101, 20260331),
    "2026Q2": (20260401, 20260630), "2026Q3": (20260701, 20260930),
}  # fmt: skip
OPPOSITES = [(14, {10, 21}), (17, {2, 3}), (17, {20, 21}), (19, {1, 2})]

_DAYS = sorted(
    {day for pair in DAYS.values() for day in pair}
    | {19900101, 20150930, 20160929, 20160930, 20161001, 20240930, 20260701, 20260702, 20260703}
    | {20260803, 20261001, 20270101}
)
_EARLY = [19900101, 20140101, 20150930, 20160929]
_FILES = [
    *((17, type_, capacity) for type_ in (ANY_TYPE, 0, 1) for capacity in (2, 3, 902, 0)),
    (19, 1, 1), (19, 1, 2), (19, ANY_TYPE, 902), (5, 0, 20), (5, ANY_TYPE, 20), (11, 1, 1),
    (11, 1, 77), (98, 7, 1), (999, ANY_TYPE, 0), (18, 0, 902),
]  # fmt: skip


class One(NamedTuple):
    """A person: the numbers, the one in use first, each with its lines."""

    status: NumberStatus
    deceased: int
    numbers: tuple[str, ...]
    lines: tuple[tuple[Line, ...], ...]

    def records(self) -> Iterator[tuple[str, Record]]:
        """What the directory keeps under each number."""
        for number, lines in zip(self.numbers, self.lines, strict=True):
            others = tuple(each for each in self.numbers if each != number)
            if number == self.numbers[0]:
                yield (
                    number,
                    Record(status=self.status, deceased=self.deceased, others=others, lines=lines),
                )
            else:
                yield number, Record(status=NumberStatus.REPLACED, others=others, lines=lines)


def number(index: int) -> str:
    """A number: born in 1905, 1911, 1985 or 2005, every third one BIS of either kind."""
    year, late = ((5, False), (11, False), (85, False), (5, True))[index % 4]
    month = 7 + (0, 20, 40)[index % 3]
    body = (year * 10_000 + month * 100 + 15) * 1_000 + 100 + index
    return f"{body:09}{97 - (body + 2_000_000_000 * late) % 97:02}"


def _stock() -> Iterator[Line]:
    """Lines of every file, made once: what is drawn are whole lines, which is quick."""
    random = Random(2026)
    for sector, type_, capacity in _FILES:
        for _ in range(12):
            begin, end = sorted(random.choices(_DAYS + 3 * _EARLY, k=2))
            last, changed = random.choice((end, OPEN, OPEN)), random.choice((0, begin, end))
            yield Line(sector, type_, capacity, random.randrange(4), begin, last, changed)


_LINES = st.lists(
    st.sampled_from(list(_stock())),
    max_size=5,
    unique_by=lambda line: (line.sector, line.type, line.capacity),
).map(lambda lines: tuple(sorted(lines, key=order)))


@st.composite
def populations(draw: st.DrawFn) -> list[One]:
    """A few persons, some with several numbers, in every state."""
    given = 0
    found = []
    for _ in range(draw(st.integers(0, 6))):
        count = draw(st.sampled_from([1, 1, 1, 2, 3]))
        status = draw(st.sampled_from([each for each in NumberStatus if each != 1]))
        died = draw(st.sampled_from([20200101, 20260930, 20261001]))
        numbers = tuple(number(given + at) for at in range(count))
        given += count
        lines = tuple(draw(_LINES) for _ in range(count))
        deceased = died if status is NumberStatus.DECEASED else 0
        found.append(One(status, deceased, numbers, lines))
    return found


def is_in_force(line: Line, last: int) -> bool:
    """Whether a line goes on after a day."""
    return line.begin <= last < line.end


def findings(one: One) -> list[tuple[str, Line, set[Finding]]]:
    """Every line of a person, with the number it lies under and what may be wrong with it."""
    found = []
    every = [(n, line) for n, lines in zip(one.numbers, one.lines, strict=True) for line in lines]
    for under, line in every:
        wrong = set(_wrong_alone(one, under, line)) if is_in_force(line, LAST) else set()
        if is_in_force(line, LAST):
            rest = list(every)
            rest.remove((under, line))
            wrong |= set(_wrong_beside(line, [other for _, other in rest]))
        if line.end < 20160930:
            wrong.add(Finding.EXPIRED)
        found.append((under, line, wrong))
    return found


def _wrong_alone(one: One, under: str, line: Line) -> Iterator[Finding]:
    if 0 < one.deceased <= LAST:
        yield Finding.AFTER_DEATH
    if one.status is NumberStatus.CANCELLED:
        yield Finding.CANCELLED_NUMBER
    if under != one.numbers[0]:
        yield Finding.REPLACED_NUMBER
    waited = date(2026, 9, 30) - date.fromisoformat(str(line.begin))
    if line.capacity == 902 and waited > timedelta(days=90):
        yield Finding.PROVISIONAL_TOO_LONG
    types = {type_ for sector, type_ in sectors() if sector == line.sector}
    if line.type == -1 and len(types) > 1:
        yield Finding.WITHOUT_TYPE
    known_codes = {0, 902} | {code for sector, code in capacities() if sector == line.sector}
    fits = bool(types) if line.type == -1 else line.type in types
    if not fits or line.capacity not in known_codes:
        yield Finding.UNKNOWN_CODE
    born = 2000 if _is_late(one.numbers[0]) else 1900
    if not one.deceased and born + int(one.numbers[0][:2]) < 2026 - 115:
        yield Finding.IMPROBABLE_AGE
    if (line.changed or line.begin) < 20160930:
        yield Finding.UNCHANGED


def _is_late(number_: str) -> bool:
    return 97 - int("2" + number_[:9]) % 97 == int(number_[9:])


def _wrong_beside(line: Line, others: Sequence[Line]) -> Iterator[Finding]:
    for other in others:
        same = other.sector == line.sector and is_in_force(other, LAST)
        if not same or (other.type != line.type and -1 not in (other.type, line.type)):
            continue
        if other.capacity == line.capacity:
            yield Finding.SAME_TWICE
        elif line.capacity == 902:
            yield Finding.PROVISIONAL_BESIDE
        elif (line.sector, {line.capacity, other.capacity}) in OPPOSITES:
            yield Finding.EXCLUDING_EACH_OTHER


def sectors_of(one: One, last: int) -> set[int]:
    """In which sectors a person has a line in force after a day."""
    return {line.sector for lines in one.lines for line in lines if is_in_force(line, last)}


def flows(population: Sequence[One]) -> Counter[tuple[str, str, int, int, int]]:
    """Lines by quarter, what happened to them in it, sector, type and capacity."""
    found: Counter[tuple[str, str, int, int, int]] = Counter()
    for line in (line for one in population for lines in one.lines for line in lines):
        for quarter, (first, last) in DAYS.items():
            happened = {
                "in_force_at_begin": line.begin < first <= line.end,
                "inscribed": first <= line.begin <= last,
                "ended": first <= line.end <= last,
                "in_force_at_end": line.begin <= last < line.end,
                "changed": first <= line.changed <= last,
            }
            for what, is_so in happened.items():
                if is_so:
                    found[quarter, what, line.sector, line.type, line.capacity] += 1
    return found
