"""Make persons who do not exist, for tests, benches and the demo; the same for the same seed.

Sectors, institution types and capacities are real ones. The numbers are computed. The first
73 050 use the counters 998 and 997, which are practically never given out; beyond that a number
may by chance be one that a living person has, and nothing said about it is true.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import chain, pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple, TextIO

from ksz_router.directory.rows import COLUMNS

_FIRST_DAY = date(1925, 1, 1)
_LAST_DAY = date(2025, 12, 31)
_DAYS_COUNT = 36_525  # a century: no two days share their six digits
_STRIDE = 9_973  # prime to the count of days, so that numbers of neighbours lie apart
PERSONS_MAX = 30_000_000

_BIS, _BIS_SEX_KNOWN = 20, 40


class _File(NamedTuple):
    """A reason for which an institution knows persons; ``type`` empty: it fits every type."""

    sector: int
    type: str
    capacity: int
    share: int
    """How many of a hundred persons of that age it ever knows."""
    first_age: int = 0
    last_age: int = 120


_FILES = (
    _File(0, "0", 0, 100), _File(11, "", 1, 98), _File(11, "1", 2, 20),
    _File(7, "1", 104, 95, 0, 25), _File(7, "1", 101, 45, 20, 55), _File(14, "0", 10, 50, 18, 66),
    _File(12, "0", 10, 75, 18, 66), _File(12, "0", 30, 55, 18, 66), _File(10, "0", 10, 50, 18, 66),
    _File(13, "0", 10, 20, 18, 66), _File(15, "1", 2, 16, 18, 70), _File(15, "1", 3, 8, 20, 60),
    _File(18, "0", 1, 30, 18, 64), _File(18, "0", 2, 10, 25, 64), _File(18, "0", 4, 25, 16, 66),
    _File(18, "0", 902, 2, 16, 66), _File(17, "1", 1, 5, 18), _File(17, "1", 2, 7, 18),
    _File(17, "1", 4, 6, 18), _File(17, "", 40, 5, 18), _File(17, "1", 902, 2, 18),
    _File(16, "0", 1, 6, 18), _File(16, "0", 3, 8), _File(19, "1", 41, 3, 21, 67),
    _File(5, "0", 20, 92, 60), _File(5, "0", 100, 88, 62), _File(1, "0", 10, 5, 18, 80),
    _File(6, "0", 10, 2, 18),
)  # fmt: skip
"""Sectors, institution types and capacities are on the official lists."""

_LIVES_COUNT = 48
"""Of each year of birth so many lives are made, living and dead, and shared by many persons."""

_OPEN = "1,2015-01-01,,2015-01-01"
_WELFARE = f"17,1,2,{_OPEN}"
_SOURCES = (
    f"18,0,1,{_OPEN}", f"12,0,10,{_OPEN}", f"11,0,1,{_OPEN}", f"16,0,1,{_OPEN}",
    f"5,0,20,{_OPEN}", f"6,0,10,{_OPEN}", f"15,0,2,{_OPEN}",
)  # fmt: skip


class _Landmark(NamedTuple):
    lines: tuple[str, ...] = ()
    status: str = "active"
    current: str = ""
    """The landmark that replaced it."""
    deceased: str = ""
    month_raise: int = 0


_LANDMARKS = {
    "answered": _Landmark((_WELFARE, *_SOURCES)),
    "not_integrated": _Landmark(_SOURCES),
    "phase_too_low": _Landmark(("17,1,2,0,2015-01-01,,2015-01-01", *_SOURCES)),
    "period_not_covered": _Landmark(("17,1,2,1,2015-01-01,2019-12-31,2020-01-02", *_SOURCES)),
    "replaced": _Landmark(
        (_WELFARE,), "replaced", "replacement", month_raise=_BIS_SEX_KNOWN
    ),
    "replacement": _Landmark(_SOURCES),
    "chain_first": _Landmark((_WELFARE,), "replaced", "chain_second", month_raise=_BIS),
    "chain_second": _Landmark(
        (_SOURCES[0],), "replaced", "chain_last", month_raise=_BIS_SEX_KNOWN
    ),
    "chain_last": _Landmark(_SOURCES[1:]),
    "cancelled": _Landmark((_WELFARE, *_SOURCES), "cancelled"),
    "deceased": _Landmark((_WELFARE, *_SOURCES), "deceased", deceased="2024-05-17"),
    "no_source": _Landmark((_WELFARE,)),
    "adjacent": _Landmark(
        ("17,1,2,1,2015-01-01,2019-12-31,2020-01-02", "17,1,2,2,2020-01-01,,2020-01-02", *_SOURCES)
    ),
    "provisional": _Landmark((f"17,1,902,{_OPEN}", *_SOURCES)),
    "any_type": _Landmark((f"17,,2,{_OPEN}", *_SOURCES)),
    "bis": _Landmark((_WELFARE, *_SOURCES), month_raise=_BIS),
}  # fmt: skip

PERSONS_MIN = len(_LANDMARKS)
_UNKNOWN = "unknown"


def landmarks(seed: int) -> dict[str, str]:
    """Return the numbers of the persons with fixed properties, whatever the count of persons.

    ``answered`` is known to sector 17 type 1 in capacity 2, phase 1, open since 2015-01-01, and
    so to 18/0 in 1, 12/0 in 10, 11/0 in 1, 16/0 in 1, 5/0 in 20, 6/0 in 10 and 15/0 in 2. Each of
    the others differs from it in what its name says; ``unknown`` is well formed and in no
    directory of this seed.
    """
    names = (*_LANDMARKS, _UNKNOWN)
    raises = (*(row.month_raise for row in _LANDMARKS.values()), 0)
    numbers = _Numbers(seed)
    return {name: numbers.take(raised) for name, raised in zip(names, raises, strict=True)}


def write_csv(stream: TextIO, *, persons: int, seed: int) -> None:
    """Write the file for ``directory load``: a heading, then ``persons`` persons.

    Raises:
        ValueError: ``persons`` is out of bounds.
    """
    texts = _texts(persons, seed)
    stream.write(f"# SYNTHETIC: {persons} persons who do not exist; seed {seed}\n")
    stream.write(",".join(COLUMNS) + "\n")
    stream.writelines(texts)


def write_parquet(file: Path, *, persons: int, seed: int) -> None:
    """Write the same rows as a Parquet file, which needs the extra ``audit``.

    Raises:
        ValueError: ``persons`` is out of bounds.
        ImportError: pyarrow is missing.
        OSError: the file cannot be written.
    """
    from ksz_router.directory.bulk import text  # noqa: PLC0415  pyarrow is an extra

    remark = f"SYNTHETIC: {persons} persons who do not exist; seed {seed}"
    text.write_parquet(file, _texts(persons, seed), remark)


def _texts(persons: int, seed: int) -> Iterator[str]:
    """Rows as text, one or more persons each."""
    if not PERSONS_MIN <= persons <= PERSONS_MAX:
        raise ValueError(f"persons: must be from {PERSONS_MIN} to {PERSONS_MAX}")
    numbers = _Numbers(seed)
    return chain(_landmark_rows(numbers), _other_rows(numbers, persons - PERSONS_MIN, seed))


class _Numbers:
    """Gives out numbers, none of them twice."""

    def __init__(self, seed: int) -> None:
        days = [_FIRST_DAY + timedelta(days=n) for n in range(_DAYS_COUNT)]
        self._days = [(day.year >= 2000, int(day.strftime("%y%m%d"))) for day in days]
        self._years = [day.year for day in days]
        self._offset = Random(seed).randrange(_DAYS_COUNT)  # noqa: S311  synthetic
        self._index = -1

    def take(self, month_raise: int = 0) -> str:
        """Return the number of a further person; ``month_raise`` makes a BIS number of it."""
        self._index += 1
        return self.again(month_raise)

    def again(self, month_raise: int) -> str:
        """Return another number of the person whose number was taken last."""
        is_late, day = self._days[self._day()]
        body = (day + month_raise * 100) * 1000 + 998 - self._index // _DAYS_COUNT
        check = 97 - (body + (2_000_000_000 if is_late else 0)) % 97
        return f"{body:09}{check:02}"

    def year(self) -> int:
        """Return the year of birth of the person whose number was taken last."""
        return self._years[self._day()]

    def _day(self) -> int:
        return (self._index * _STRIDE + self._offset) % _DAYS_COUNT


def _landmark_rows(numbers: _Numbers) -> Iterator[str]:
    taken = {name: numbers.take(row.month_raise) for name, row in _LANDMARKS.items()}
    numbers.take()  # ``unknown``: nobody gets it
    for name, row in _LANDMARKS.items():
        current = taken.get(row.current, "")
        yield f"{taken[name]},{row.status},{current},{row.deceased},,,,,,,\n"
        for line in row.lines:
            yield f"{taken[name]},,,,{line}\n"


def _other_rows(numbers: _Numbers, count: int, seed: int) -> Iterator[str]:
    """One text a person. Lives are drawn from a stock, which is what makes this quick."""
    random = Random(seed)  # noqa: S311  synthetic
    draw = random.random
    stock: dict[int, list[_Life]] = {}
    for _ in range(count):
        insz = numbers.take()
        year = numbers.year()
        lives = stock.get(year)
        if lives is None:
            # Of a generator of its own, so that it does not matter who comes first.
            lives = stock[year] = _lives(year, Random(seed * 10_000 + year))  # noqa: S311
        life = lives[int(draw() * _LIVES_COUNT)]
        kind = draw()
        if kind < 0.14:
            insz = numbers.again(_BIS if kind < 0.04 else _BIS_SEX_KNOWN)
        elif kind > 0.96:
            yield _replaced(numbers, insz, life, random, links=1 if kind < 0.995 else 2)
            continue
        elif kind > 0.95:
            yield f"{insz},cancelled,,,,,,,,,\n" + life.lines.replace("@", insz)
            continue
        yield (life.number + life.lines).replace("@", insz)


def _replaced(numbers: _Numbers, insz: str, life: "_Life", random: Random, links: int) -> str:
    """A person with ``links`` former numbers: lines under any of them, some under two at once."""
    formers = [numbers.again(_BIS), numbers.again(_BIS_SEX_KNOWN)][-links:]
    known = [*formers, insz]
    rows = [f"{old},replaced,{new},,,,,,,,\n" for old, new in pairwise(known)]
    rows.append(life.number.replace("@", insz))
    for line in life.lines.splitlines(keepends=True):
        under = random.sample(known, 2 if random.random() < 0.1 else 1)
        rows += [line.replace("@", one) for one in under]
    return "".join(rows)


class _Life(NamedTuple):
    """Rows of one person, with ``@`` for the number."""

    number: str
    lines: str


def _lives(year: int, random: Random) -> list[_Life]:
    """Lives of persons who were born in a year; of the old more have ended than of the young."""
    ended = max(0.005, min(0.95, (2015 - year) / 90)) ** 2
    return [_life(year, random, has_ended=random.random() < ended) for _ in range(_LIVES_COUNT)]


def _life(year: int, random: Random, *, has_ended: bool) -> _Life:
    """Lines over a handful of sectors: closed, open, with gaps, adjacent, some at once."""
    last = _LAST_DAY
    if has_ended:
        earliest = date(max(2001, year + 1), 1, 1)
        last = earliest + timedelta(days=random.randrange((_LAST_DAY - earliest).days))
    lines: list[str] = []
    for file in _FILES:
        # The registers of the network go back to about 1990, and need some weeks.
        first = date(max(1990, year + file.first_age), 12, 31)
        until = min(last, date(min(2100, year + file.last_age), 12, 31))
        if (until - first).days >= 100 and random.random() * 100 < file.share:
            lines += _periods(file, first, until, random, is_closed=until < _LAST_DAY)
    number = f"@,deceased,,{last},,,,,,,\n" if has_ended else "@,active,,,,,,,,,\n"
    return _Life(number, "".join(lines))


def _periods(
    file: _File, first: date, until: date, random: Random, *, is_closed: bool
) -> Iterator[str]:
    """The lines of one file. What should be closed is at times left open: somebody forgot."""
    begin = first + timedelta(days=random.randrange((until - first).days - 60))
    for rest in range(random.choice((0, 0, 0, 1, 2)), -1, -1):
        end = begin + timedelta(days=random.randrange(30, 1_200))
        is_open = end >= until or (rest == 0 and random.random() < 0.6)
        if is_open and (not is_closed or random.random() < 0.03):
            written, changed = "", begin
        else:
            end = min(end, until)
            written, changed = end.isoformat(), end
        phase = random.choice((1, 1, 1, 2, 3))
        yield (
            f"@,,,,{file.sector},{file.type},{file.capacity},{phase},{begin},{written},{changed}\n"
        )
        begin = end + timedelta(days=1 if random.random() < 0.5 else random.randrange(2, 400))
        if is_open or (until - begin).days < 30:
            return
