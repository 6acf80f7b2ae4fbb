"""One row of the file of a directory, judged: the rules, and the reasons.

A reason never contains what stood in the row: it may be the number of a person.
``ksz_router.directory.bulk`` judges many rows at once, and asks here about each that it does not
take at first sight.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from ksz_router.days import is_day
from ksz_router.identifiers import is_insz
from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, Day, Line, NumberStatus

COLUMNS = (
    "insz", "status", "current", "deceased",
    "sector", "type", "capacity", "phase", "begin", "end", "changed",
)  # fmt: skip

CAPACITY_MAX = 900
"""Form I605: 000 a definitive inscription, up to 900 a significant capacity, 902 provisional."""

PHASE_MAX = 999

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_STATUSES = {status.name.lower(): status for status in NumberStatus}


class RowError(Exception):
    """A row cannot be loaded. The message says why, without what stood in it."""

    def __init__(self, why: str, row: int = 0) -> None:
        super().__init__(why)
        self.row = row
        """Where the caller does not know it."""


class NumberRow(NamedTuple):
    """What a file says of a number itself."""

    number: str
    status: NumberStatus
    current: str
    """The number that replaced it; empty where none did."""
    deceased: Day


class LineRow(NamedTuple):
    """One line, and the number under which it was inscribed."""

    number: str
    line: Line


def judge(cells: list[str]) -> NumberRow | LineRow:
    """Return what one row says.

    Raises:
        RowError: the row cannot be loaded.
    """
    if len(cells) != len(COLUMNS):
        raise RowError(f"has {len(cells)} columns, {len(COLUMNS)} are expected")
    if not is_insz(cells[0]):
        raise RowError("insz: is not a well-formed INSZ")
    if not cells[1]:
        return _line(cells)
    if any(cells[4:]):
        raise RowError("sector to changed: must be empty where status is not (a number row)")
    return _number(*cells[:4])


def _number(number: str, status: str, current: str, deceased: str) -> NumberRow:
    known = _STATUSES.get(status)
    if known is None:
        raise RowError(f"status: must be one of {', '.join(_STATUSES)}")
    if (known is NumberStatus.REPLACED) != bool(current):
        raise RowError("current: must be given for a replaced number, and for no other")
    if current and not is_insz(current):
        raise RowError("current: is not a well-formed INSZ")
    if current == number:
        raise RowError("current: is the number itself")
    if (known is NumberStatus.DECEASED) != bool(deceased):
        raise RowError("deceased: must be given for a deceased person, and for no other")
    return NumberRow(number, known, current, _day(deceased, "deceased") if deceased else 0)


def _line(cells: list[str]) -> LineRow:
    number, _, current, deceased, sector, kind, capacity, phase, begin, end, changed = cells
    if current or deceased:
        raise RowError("current, deceased: must be empty where status is (a line row)")
    codes = _codes(sector, kind, capacity, phase)
    first = _day(begin, "begin")
    last = _day(end, "end") if end else OPEN
    if last < first:
        raise RowError("end: is before begin")
    return LineRow(number, Line(*codes, first, last, _day(changed, "changed") if changed else 0))


@lru_cache(maxsize=65_536)
def _codes(sector: str, kind: str, capacity: str, phase: str) -> tuple[int, int, int, int]:
    """Sector, type, capacity and phase."""
    code = _code(capacity, "capacity", 999)
    if code == 999:
        raise RowError("capacity: 999 is the status of a replaced number, give it a number row")
    if code > CAPACITY_MAX and code != PROVISIONAL:
        raise RowError(f"capacity: must be from 0 to {CAPACITY_MAX}, or {PROVISIONAL}")
    type_ = _code(kind, "type", 999) if kind else ANY_TYPE
    return _code(sector, "sector", 999), type_, code, _code(phase, "phase", PHASE_MAX)


@lru_cache(maxsize=65_536)
def _day(text: str, column: str) -> Day:
    day = int(text.replace("-", "")) if _DAY.fullmatch(text) else 0
    if not is_day(day):
        raise RowError(f"{column}: must be a calendar day as yyyy-mm-dd")
    return day


def _code(text: str, column: str, most: int) -> int:
    if not (0 < len(text) <= 3 and text.isascii() and text.isdigit()) or int(text) > most:
        raise RowError(f"{column}: must be a number from 0 to {most}")
    return int(text)
