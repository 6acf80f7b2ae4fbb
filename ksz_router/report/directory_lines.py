"""The bytes of many numbers at once, as columns: the one place that knows how a line is packed.

``directory.packing`` owns the layout and unpacks one person at a time, which is right for a
look-up; two hundred million lines are read as arrays. A change of the layout changes this module
and none of those that count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ksz_router.directory.packing import HEADER_BYTES, KEY_BYTES, DamagedError
from ksz_router.directory.scan import Item
from ksz_router.model import ANY_TYPE, Line, NumberStatus
from ksz_router.persons import LINE_BYTES

Ints = npt.NDArray[np.int64]
"""Whole numbers, one for each row."""

Flags = npt.NDArray[np.bool_]
"""Yes or no, one for each row."""

SECTOR_MAX = TYPE_MAX = CAPACITY_MAX = 999

_HEADER = np.dtype([("status", "<u1"), ("others", "<u1"), ("deceased", "<u4")])
_LINE = np.dtype(
    list(
        zip(
            Line.__struct_fields__,
            ("<u2", "<i2", "<u2", "<u2", "<u4", "<u4", "<u4"),
            strict=True,
        )
    )
)

assert _HEADER.itemsize == HEADER_BYTES
assert _LINE.itemsize == LINE_BYTES


class Heads(NamedTuple):
    """What stands before the lines, one row for each number of a batch."""

    number: Ints
    """The eleven digits as one integer."""
    status: Ints
    """See :class:`ksz_router.model.NumberStatus`."""
    others: Ints
    """How many other numbers the person has."""
    deceased: Ints
    """Day of death, ``yyyymmdd``; 0: none."""


class Lines(NamedTuple):
    """One row for each line, in the order of the values they came from."""

    sector: Ints
    type: Ints
    capacity: Ints
    phase: Ints
    begin: Ints
    end: Ints
    changed: Ints

    def taken(self, order: Ints) -> "Lines":
        """Return these rows, in this order."""
        return Lines(*(column[order] for column in self))


def read_heads(items: Sequence[Item]) -> Heads:
    """Return the heads of a batch.

    Raises:
        DamagedError: a key or value is not one that the directory writes.
    """
    keys = np.frombuffer(b"".join([key for key, _ in items]), np.uint8)
    headers = b"".join([value[:HEADER_BYTES] for _, value in items])
    if keys.size != KEY_BYTES * len(items) or len(headers) != HEADER_BYTES * len(items):
        raise DamagedError("a key or value of the directory is cut off")
    number = np.zeros(len(items), np.int64)
    for column in keys.reshape(-1, KEY_BYTES).T:
        number = (number << 8) | column
    fields = np.frombuffer(headers, _HEADER)
    status, others, deceased = (fields[name].astype(np.int64) for name in fields.dtype.names or ())
    is_replaced = status == NumberStatus.REPLACED
    if np.any(status > max(NumberStatus)) or np.any(is_replaced & (others == 0)):
        raise DamagedError("a value of the directory is out of range")
    return Heads(number, status, others, deceased)


def other_keys(value: memoryview) -> list[memoryview]:
    """Return the keys of the person's other numbers, of a value with a sound head."""
    ends = range(HEADER_BYTES, HEADER_BYTES + KEY_BYTES * value[1], KEY_BYTES)
    return [value[at : at + KEY_BYTES] for at in ends]


def read_lines(values: Sequence[memoryview]) -> tuple[Ints, Lines]:
    """Return how many lines each value holds, and all of them.

    Raises:
        DamagedError: a value is not one that the directory writes.
    """
    packed = [value[HEADER_BYTES + KEY_BYTES * value[1] :] for value in values]
    sizes = np.fromiter(map(len, packed), np.int64, len(packed))
    if np.any(sizes % LINE_BYTES):
        raise DamagedError("a value of the directory is cut off")
    fields = np.frombuffer(b"".join(packed), _LINE)
    lines = Lines(*(fields[name].astype(np.int64) for name in Line.__struct_fields__))
    for column, least, most in (
        (lines.sector, 0, SECTOR_MAX),
        (lines.type, ANY_TYPE, TYPE_MAX),
        (lines.capacity, 0, CAPACITY_MAX),
    ):
        if column.size and not (least <= int(column.min()) and int(column.max()) <= most):
            raise DamagedError("a line of the directory is out of range")
    return sizes // LINE_BYTES, lines
