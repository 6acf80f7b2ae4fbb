"""The rows of a load as fixed-width records: what is sorted, and what stands in scratch files.

Two integers order a row: ``role`` holds number, whether it is a line, sector and type + 1;
``period`` holds capacity, first and last day. Of a row about a number itself ``role`` holds the
status in place of sector and type, and ``period`` the number that replaced it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ksz_router.directory.rows import LineRow, NumberRow
from ksz_router.model import ANY_TYPE, Line, NumberStatus

Records = npt.NDArray[np.void]
"""Of the type ``RECORD``."""

Integers = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

RECORD = np.dtype(
    [("role", "<u8"), ("period", "<u8"), ("changed", "<u4"), ("row", "<u4"), ("phase", "<u2")]
)
ROWS_MAX = 2**32 - 1
"""A row is named by four bytes."""

NUMBER_SHIFT, LINE_SHIFT, SECTOR_SHIFT = 21, 20, 10
CAPACITY_SHIFT, BEGIN_SHIFT = 54, 27
CODE_MASK, DAY_MASK = (1 << 10) - 1, (1 << 27) - 1
NUMBERS_END = 10**11


def numbers_of(records: Records) -> Integers:
    """The number of each row, as an integer."""
    return records["role"] >> np.uint64(NUMBER_SHIFT)


def record_of(judged: NumberRow | LineRow, row: int) -> tuple[int, int, int, int, int]:
    """Return the fields of the record of one row."""
    role = int(judged.number) << NUMBER_SHIFT
    if isinstance(judged, NumberRow):
        return role | judged.status, int(judged.current or 0), judged.deceased, row, 0
    line = judged.line
    role |= 1 << LINE_SHIFT | line.sector << SECTOR_SHIFT | line.type - ANY_TYPE
    period = line.capacity << CAPACITY_SHIFT | line.begin << BEGIN_SHIFT | line.end
    return role, period, line.changed, row, line.phase


def row_of(record: Any) -> tuple[NumberRow | LineRow, int]:
    """Return what :func:`record_of` made a record of, and its row."""
    role, period, changed, row, phase = map(int, record)
    number = f"{role >> NUMBER_SHIFT:011}"
    if not role >> LINE_SHIFT & 1:
        status = NumberStatus(role & CODE_MASK)
        current = f"{period:011}" if status is NumberStatus.REPLACED else ""
        return NumberRow(number, status, current, changed), row
    line = Line(
        role >> SECTOR_SHIFT & CODE_MASK,
        (role & CODE_MASK) + ANY_TYPE,
        period >> CAPACITY_SHIFT,
        phase,
        period >> BEGIN_SHIFT & DAY_MASK,
        period & DAY_MASK,
        changed,
    )
    return LineRow(number, line), row
