"""Judge the rows of a block of text at a glance: take those that are surely good, leave the rest.

What is not taken here is judged by :mod:`ksz_router.directory.rows`, row by row; so a rule may be
stricter here than there, for rows that are rare, and never looser.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ksz_router.directory.bulk.records import (
    BEGIN_SHIFT,
    CAPACITY_SHIFT,
    LINE_SHIFT,
    NUMBER_SHIFT,
    RECORD,
    SECTOR_SHIFT,
    Flags,
    Records,
)
from ksz_router.directory.rows import CAPACITY_MAX, COLUMNS
from ksz_router.model import OPEN, PROVISIONAL, NumberStatus

MARGIN = 16
"""Bytes before and after a block, so that a window may reach beyond a short cell."""

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int32]
Days = npt.NDArray[np.int64]

_LINE_FEED, _COMMA, _ZERO = 10, 44, 48
_STATUSES = {status: status.name.lower().encode() for status in NumberStatus}
_STATUS_WIDTH = max(map(len, _STATUSES.values()))

_FIRST_DAY, _DAY_AFTER = 18_000_101, 22_000_101
_CALENDAR = np.zeros(_DAY_AFTER - _FIRST_DAY, np.bool_)
"""Whether ``yyyymmdd`` less the first day is a day that a period may begin or end with."""
_dates = np.arange("1800-01-01", "2200-01-01", dtype="datetime64[D]")
_months = _dates.astype("datetime64[M]")
_CALENDAR[
    (_months.astype("datetime64[Y]").astype(np.int64) + 1970) * 10_000
    + (_months.astype(np.int64) % 12 + 1) * 100
    + (_dates - _months).astype(np.int64)
    + 1
    - _FIRST_DAY
] = True

_DAY_LEAST = np.frombuffer(b"0000-00-00", np.uint8)
_DAY_SPAN = np.array([9, 9, 9, 9, 0, 9, 9, 0, 9, 9], np.uint8)
_DAY_WEIGHTS = np.array([1e7, 1e6, 1e5, 1e4, 0, 1e3, 1e2, 0, 10, 1])
_INSZ_WEIGHTS = 10.0 ** np.arange(10, -1, -1)
"""Floating point is exact here: no number has more than eleven digits."""

_DAYS_IN_MONTH = np.full(100, -1, np.int64)
"""Indexed by the month as written: raised by 20 or 40 in a BIS number."""
for _raised in (0, 20, 40):
    _DAYS_IN_MONTH[_raised : _raised + 13] = (31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Glance(NamedTuple):
    """What was found in a block."""

    records: Records
    left: npt.NDArray[np.int64]
    """Which lines of the text were not taken, counted from 0."""
    ends: Places
    """Where each line of the text ends, counted from the first byte of the block."""


def glance(block: bytes, first_row: int) -> Glance:
    """Judge a block of whole lines, the first of which is row ``first_row`` of its file."""
    assert block.endswith(b"\n")
    text = np.frombuffer(b"".join((b" " * MARGIN, block, b" " * MARGIN)), np.uint8)
    ends = np.flatnonzero(text == _LINE_FEED).astype(np.int32)
    commas = np.flatnonzero(text == _COMMA).astype(np.int32)
    counts = np.diff(np.searchsorted(commas, ends), prepend=0)
    whole = counts == len(COLUMNS) - 1
    starts = np.concatenate((np.array([MARGIN], np.int32), ends[:-1] + 1))
    edges = np.empty((np.count_nonzero(whole), len(COLUMNS) + 1), np.int32)
    edges[:, 0] = starts[whole] - 1
    edges[:, 1:-1] = commas[np.repeat(whole, counts)].reshape(-1, len(COLUMNS) - 1)
    edges[:, -1] = ends[whole]
    rows = np.flatnonzero(whole)
    lengths = np.diff(edges) - 1
    is_line = ~lengths[:, 1:4].any(axis=1)
    is_number = ~lengths[:, 4:].any(axis=1) & (lengths[:, 1] > 0)
    records = np.empty(len(rows), RECORD)
    records["row"] = rows + first_row
    sound = np.zeros(len(rows), np.bool_)
    for kind, take in ((is_line, _take_lines), (is_number, _take_numbers)):
        at = np.flatnonzero(kind)
        taken = records[at]
        sound[at] = take(text, edges[at], lengths[at], taken)
        records[at] = taken
    left = ~whole
    left[rows[~sound]] = True
    return Glance(records[sound], np.flatnonzero(left), ends - MARGIN)


def _take_lines(text: Bytes, edges: Places, lengths: Places, into: Records) -> Flags:
    """Fill the records of line rows; say which are sound."""
    number, sound = _insz(text, edges[:, 0] + 1, lengths[:, 0])
    codes = _windows(text, edges[:, 5:9] - 3, 3) - np.uint8(_ZERO)
    width = lengths[:, 4:8]
    codes[..., 0][width < 3] = 0
    codes[..., 1][width < 2] = 0
    codes[..., 2][width < 1] = 0
    sound &= (codes <= 9).all(axis=(1, 2)) & (width <= 3).all(axis=1)
    sector, kind, capacity, phase = (codes @ np.array([100, 10, 1], np.int64)).T
    kind[width[:, 1] > 0] += 1  # an empty type fits every type
    sound &= (width[:, [0, 2, 3]] > 0).all(axis=1)
    sound &= (capacity <= CAPACITY_MAX) | (capacity == PROVISIONAL)
    begin, is_begin = _days(text, edges[:, 8] + 1, lengths[:, 8])
    end, is_end = _days(text, edges[:, 9] + 1, lengths[:, 9])
    changed, is_changed = _days(text, edges[:, 10] + 1, lengths[:, 10])
    end[lengths[:, 9] == 0] = OPEN
    sound &= is_begin & (is_end | (lengths[:, 9] == 0)) & (is_changed | (lengths[:, 10] == 0))
    sound &= begin <= end
    role = number << NUMBER_SHIFT | 1 << LINE_SHIFT | sector << SECTOR_SHIFT | kind
    into["role"] = role
    into["period"] = capacity << CAPACITY_SHIFT | begin << BEGIN_SHIFT | end
    into["changed"] = changed
    into["phase"] = phase
    return sound


def _take_numbers(text: Bytes, edges: Places, lengths: Places, into: Records) -> Flags:
    """Fill the records of number rows; say which are sound."""
    number, sound = _insz(text, edges[:, 0] + 1, lengths[:, 0])
    current, is_current = _insz(text, edges[:, 2] + 1, lengths[:, 2])
    deceased, is_deceased = _days(text, edges[:, 3] + 1, lengths[:, 3])
    given = _windows(text, edges[:, 1] + 1, _STATUS_WIDTH)
    known = np.full(len(number), -1)
    for status, name in _STATUSES.items():
        fits = lengths[:, 1] == len(name)
        known[fits & (given[:, : len(name)] == np.frombuffer(name, np.uint8)).all(axis=1)] = status
    replaced, dead = known == NumberStatus.REPLACED, known == NumberStatus.DECEASED
    sound &= (known >= 0) & (current != number)
    sound &= np.where(replaced, is_current, lengths[:, 2] == 0)
    sound &= np.where(dead, is_deceased, lengths[:, 3] == 0)
    into["role"] = number << NUMBER_SHIFT | known
    into["period"] = np.where(replaced, current, 0)
    into["changed"] = np.where(dead, deceased, 0)
    into["phase"] = 0
    return sound


def _windows(text: Bytes, at: Places, width: int) -> Bytes:
    """Return the ``width`` bytes from each place; ``at`` may have any shape."""
    window = np.ndarray((len(text) - width + 1,), f"S{width}", text.data, strides=(1,))
    return window[at].view(np.uint8).reshape(*at.shape, width)


def _insz(text: Bytes, at: Places, lengths: Places) -> tuple[Days, Flags]:
    """The number in each cell, and whether it is a well-formed one, as ``is_insz`` says it."""
    digits = _windows(text, at, 11) - np.uint8(_ZERO)
    sound = (digits <= 9).all(axis=1) & (lengths == 11)
    number = (digits @ _INSZ_WEIGHTS).astype(np.int64)
    body, check = np.divmod(number, 100)
    remainder = body % 97
    is_early = check == 97 - remainder
    is_late = check == 97 - (remainder + 68) % 97
    date, counter = np.divmod(body, 1_000)
    year, month = np.divmod(date // 100, 100)
    day = date % 100
    # Where a byte is no digit, month may be anything; that row is not taken anyway.
    month[~sound] = 0
    sound &= (is_early | is_late) & (day <= _DAYS_IN_MONTH[month])
    sound &= (month >= 20) | (counter > 0)
    is_leap_day = (day == 29) & (month % 20 == 2)
    sound &= ~is_leap_day | ((year % 4 == 0) & ((year > 0) | ~is_early))
    return number, sound


def _days(text: Bytes, at: Places, lengths: Places) -> tuple[Days, Flags]:
    """The day in each cell as ``yyyymmdd``, 0 where it is none; and whether it is one."""
    cells = _windows(text, at, 10) - _DAY_LEAST
    sound = (cells <= _DAY_SPAN).all(axis=1) & (lengths == 10)
    day = (cells @ _DAY_WEIGHTS).astype(np.int64)
    sound &= (day >= _FIRST_DAY) & (day < _DAY_AFTER)
    day[~sound] = _FIRST_DAY
    sound &= _CALENDAR[day - _FIRST_DAY]
    day[~sound] = 0
    return day, sound
