"""One row of the CSV file: judged, and turned into bytes that sort as the directory needs them.

A reason never contains what stood in the row: it may be the number of a person.
"""

import re
import struct
from functools import lru_cache
from typing import NamedTuple

from ksz_router.days import is_day
from ksz_router.directory.packing import KEY_BYTES, pack_key, unpack_key
from ksz_router.identifiers import is_insz
from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, Day, Line, NumberStatus

COLUMNS = (
    "insz", "status", "current", "deceased",
    "sector", "type", "capacity", "phase", "begin", "end", "changed",
)  # fmt: skip

CAPACITY_MAX = 900
"""Form I605: 000 a definitive inscription, up to 900 a significant capacity, 902 provisional."""

PHASE_MAX = 999

_NUMBER, _LINE = 0, 1
_NUMBER_ROW = struct.Struct(">5sBB5sI10xQ")  # key, kind, status, current, deceased, row
_LINE_ROW = struct.Struct(">5sBHHHIIHIQ")  # key, kind, sector, type + 1, ..., row
ROW_BYTES = _LINE_ROW.size
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_STATUSES = {status.name.lower(): status for status in NumberStatus}

assert _NUMBER_ROW.size == ROW_BYTES


class RowError(Exception):
    """A row cannot be loaded. The message says why, without what stood in it."""

    def __init__(self, why: str, row: int = 0) -> None:
        super().__init__(why)
        self.row = row
        """Where the caller does not know it."""


class NumberRow(NamedTuple):
    """What a file says of a number itself."""

    status: NumberStatus
    current: str
    """The number that replaced it; empty where none did."""
    deceased: Day
    row: int


class LineRow(NamedTuple):
    """One line under a number, and the row of the file it stands in."""

    line: Line
    row: int


def encode(cells: list[str], row: int) -> bytes:
    """Return the sortable bytes of one row: by number, then the number itself, then its lines.

    Raises:
        RowError: the row cannot be loaded.
    """
    if len(cells) != len(COLUMNS):
        raise RowError(f"has {len(cells)} columns, {len(COLUMNS)} are expected")
    key = _key(cells[0])
    if not cells[1]:
        return _encode_line(key, cells, row)
    if any(cells[4:]):
        raise RowError("sector to changed: must be empty where status is not (a number row)")
    return _encode_number(key, cells, row)


@lru_cache(maxsize=1_024)  # rows of one number mostly follow each other
def _key(insz: str) -> bytes:
    if not is_insz(insz):
        raise RowError("insz: is not a well-formed INSZ")
    return pack_key(insz)


def _encode_number(key: bytes, cells: list[str], row: int) -> bytes:
    insz, status, current, deceased = cells[:4]
    known = _STATUSES.get(status)
    if known is None:
        raise RowError(f"status: must be one of {', '.join(_STATUSES)}")
    if (known is NumberStatus.REPLACED) != bool(current):
        raise RowError("current: must be given for a replaced number, and for no other")
    if current and not is_insz(current):
        raise RowError("current: is not a well-formed INSZ")
    if current == insz:
        raise RowError("current: is the number itself")
    if (known is NumberStatus.DECEASED) != bool(deceased):
        raise RowError("deceased: must be given for a deceased person, and for no other")
    target = pack_key(current) if current else bytes(KEY_BYTES)
    day = _day(deceased, "deceased") if deceased else 0
    return _NUMBER_ROW.pack(key, _NUMBER, known, target, day, row)


def _encode_line(key: bytes, cells: list[str], row: int) -> bytes:
    _, _, current, deceased, sector, kind, capacity, phase, begin, end, changed = cells
    if current or deceased:
        raise RowError("current, deceased: must be empty where status is (a line row)")
    numbers = _numbers(sector, kind, capacity, phase)
    first = _day(begin, "begin")
    last = _day(end, "end") if end else OPEN
    if last < first:
        raise RowError("end: is before begin")
    return _LINE_ROW.pack(
        key,
        _LINE,
        *numbers[:3],
        first,
        last,
        numbers[3],
        _day(changed, "changed") if changed else 0,
        row,
    )


@lru_cache(maxsize=65_536)
def _numbers(sector: str, kind: str, capacity: str, phase: str) -> tuple[int, int, int, int]:
    """Sector, type + 1, capacity and phase, as they are packed."""
    code = _number(capacity, "capacity", 999)
    if code == 999:
        raise RowError("capacity: 999 is the status of a replaced number, give it a number row")
    if code > CAPACITY_MAX and code != PROVISIONAL:
        raise RowError(f"capacity: must be from 0 to {CAPACITY_MAX}, or {PROVISIONAL}")
    type_ = _number(kind, "type", 999) if kind else ANY_TYPE
    numbers = _number(sector, "sector", 999), type_ - ANY_TYPE, code
    return *numbers, _number(phase, "phase", PHASE_MAX)


@lru_cache(maxsize=65_536)
def _day(text: str, column: str) -> Day:
    day = int(text.replace("-", "")) if _DAY.fullmatch(text) else 0
    if not is_day(day):
        raise RowError(f"{column}: must be a calendar day as yyyy-mm-dd")
    return day


def _number(text: str, column: str, most: int) -> int:
    if not (0 < len(text) <= 3 and text.isascii() and text.isdigit()) or int(text) > most:
        raise RowError(f"{column}: must be a number from 0 to {most}")
    return int(text)


def key_of(record: bytes) -> bytes:
    """Return the key under which a row will be kept."""
    return record[:KEY_BYTES]


def decode(record: bytes) -> NumberRow | LineRow:
    """Return what :func:`encode` made bytes of."""
    if record[KEY_BYTES] == _NUMBER:
        _, _, status, current, deceased, row = _NUMBER_ROW.unpack(record)
        known = NumberStatus(status)
        replaced = known is NumberStatus.REPLACED
        return NumberRow(known, unpack_key(current) if replaced else "", deceased, row)
    _, _, sector, kind, capacity, begin, end, phase, changed, row = _LINE_ROW.unpack(record)
    return LineRow(
        Line(sector, kind + ANY_TYPE, capacity, phase, begin, end, changed),
        row,
    )
