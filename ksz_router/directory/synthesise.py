"""Make persons who do not exist, for tests, benches and the demo; the same for the same seed.

Sectors, institution types and capacities are real ones. The numbers are computed. The first
73 050 use the counters 998 and 997, which are practically never given out; beyond that a number
may by chance be one that a living person has, and nothing said about it is true.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from random import Random
from typing import NamedTuple, TextIO

from ksz_router.directory.rows import COLUMNS

_FIRST_DAY = date(1925, 1, 1)
_DAYS_COUNT = 36_525  # a century: no two days share their six digits
_STRIDE = 9_973  # prime to the count of days, so that numbers of neighbours lie apart
PERSONS_MAX = 30_000_000
LIVES_COUNT = 4_096

_BIS, _BIS_SEX_KNOWN = 20, 40

# Sector, institution type, capacity and how common; type empty: the line fits every type.
_FILES = (
    ("0", "0", "0", 100), ("5", "0", "20", 25), ("5", "0", "100", 22), ("7", "1", "101", 25),
    ("7", "1", "104", 30), ("10", "0", "10", 40), ("11", "", "1", 98), ("11", "1", "2", 15),
    ("12", "0", "10", 60), ("12", "0", "30", 40), ("13", "0", "10", 12), ("14", "0", "10", 50),
    ("15", "1", "2", 12), ("15", "1", "3", 6), ("16", "0", "1", 4), ("16", "0", "3", 7),
    ("17", "1", "1", 3), ("17", "1", "2", 5), ("17", "1", "4", 4), ("17", "", "40", 3),
    ("17", "1", "902", 1), ("18", "0", "1", 18), ("18", "0", "2", 6), ("18", "0", "4", 14),
    ("18", "0", "902", 1), ("19", "1", "41", 3), ("1", "0", "10", 4), ("6", "0", "10", 2),
)  # fmt: skip

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
    if not PERSONS_MIN <= persons <= PERSONS_MAX:
        raise ValueError(f"persons: must be from {PERSONS_MIN} to {PERSONS_MAX}")
    stream.write(f"# SYNTHETIC: {persons} persons who do not exist; seed {seed}\n")
    stream.write(",".join(COLUMNS) + "\n")
    numbers = _Numbers(seed)
    stream.writelines(_landmark_rows(numbers))
    stream.writelines(_other_rows(numbers, persons - PERSONS_MIN, Random(seed)))  # noqa: S311  synthetic


class _Numbers:
    """Gives out numbers, none of them twice."""

    def __init__(self, seed: int) -> None:
        days = (_FIRST_DAY + timedelta(days=n) for n in range(_DAYS_COUNT))
        self._days = [(day.year >= 2000, int(day.strftime("%y%m%d"))) for day in days]
        self._offset = Random(seed).randrange(_DAYS_COUNT)  # noqa: S311  synthetic
        self._index = 0

    def take(self, month_raise: int = 0) -> str:
        """Return the next number; ``month_raise`` makes a BIS number of it."""
        index = self._index
        self._index += 1
        is_late, day = self._days[(index * _STRIDE + self._offset) % _DAYS_COUNT]
        body = (day + month_raise * 100) * 1000 + 998 - index // _DAYS_COUNT
        check = 97 - (body + (2_000_000_000 if is_late else 0)) % 97
        return f"{body:09}{check:02}"


def _landmark_rows(numbers: _Numbers) -> Iterator[str]:
    taken = {name: numbers.take(row.month_raise) for name, row in _LANDMARKS.items()}
    numbers.take()  # ``unknown``: nobody gets it
    for name, row in _LANDMARKS.items():
        current = taken.get(row.current, "")
        yield f"{taken[name]},{row.status},{current},{row.deceased},,,,,,,\n"
        for line in row.lines:
            yield f"{taken[name]},,,,{line}\n"


def _other_rows(numbers: _Numbers, count: int, random: Random) -> Iterator[str]:
    """One text a person. Lives are drawn from a stock, which is what makes this quick."""
    lives = [_life(random) for _ in range(LIVES_COUNT)]
    draw = random.random
    for _ in range(count):
        life = lives[int(draw() * LIVES_COUNT)]
        kind = draw()
        if kind < 0.85:
            insz = numbers.take()
            yield f"{insz},active,,,,,,,,,\n" + life.replace("@", insz)
        elif kind < 0.90:
            insz = numbers.take(_BIS if draw() < 0.3 else _BIS_SEX_KNOWN)
            yield f"{insz},active,,,,,,,,,\n" + life.replace("@", insz)
        elif kind < 0.97:
            insz = numbers.take()
            day = f"20{10 + int(draw() * 15)}-{1 + int(draw() * 12):02}-11"
            yield f"{insz},deceased,,{day},,,,,,,\n" + life.replace("@", insz)
        elif kind < 0.975:
            insz = numbers.take()
            yield f"{insz},cancelled,,,,,,,,,\n" + life.replace("@", insz)
        else:
            yield _replaced(numbers, life, random, links=1 if kind < 0.997 else 2)


def _replaced(numbers: _Numbers, life: str, random: Random, links: int) -> str:
    """A person with ``links`` former numbers, the lines spread over all of them."""
    formers = [numbers.take(_BIS if n == 0 else _BIS_SEX_KNOWN) for n in range(links)]
    chain = [*formers, numbers.take()]
    rows = [f"{old},replaced,{new},,,,,,,,\n" for old, new in pairwise(chain)]
    rows.append(f"{chain[-1]},active,,,,,,,,,\n")
    rows += [line.replace("@", random.choice(chain)) for line in life.splitlines(keepends=True)]
    return "".join(rows)


def _life(random: Random) -> str:
    """Lines of one person over a handful of sectors: closed and open ones, some adjacent."""
    lines = []
    for sector, kind, capacity, share in _FILES:
        if random.random() * 100 >= share:
            continue
        begin = date(2000, 1, 1) + timedelta(days=random.randrange(6_000))
        for is_last in _periods(random):
            phase = random.choice((1, 1, 1, 2, 3))
            end = begin + timedelta(days=random.randrange(30, 1_200))
            is_open = is_last and random.random() < 0.6
            until = "" if is_open else end.isoformat()
            changed = begin if is_open else end
            lines.append(f"@,,,,{sector},{kind},{capacity},{phase},{begin},{until},{changed}\n")
            gap_days = 1 if random.random() < 0.5 else random.randrange(2, 400)
            begin = end + timedelta(days=gap_days)
    return "".join(lines)


def _periods(random: Random) -> tuple[bool, ...]:
    """One entry a period of a file, True for the last."""
    return random.choice(((True,), (False, True), (True,), (False, True), (False, False, True)))
