"""The bytes of one person in the directory: a key of five, a value of 6 + 5 a number + 20 a line.

Pure: bytes in, nouns out. ``docs/directory-format.md`` draws the layout. Lines have a fixed width
and whole-byte fields, so that all of them are unpacked by one call that stays in C: two bytes more
a line than with ten-bit fields, and a third less time.
"""

import struct
from bisect import bisect_left, bisect_right
from typing import TypeVar

import msgspec

from ksz_router.limits import person_lines_max, person_numbers_max
from ksz_router.model import Day, Line, NumberStatus
from ksz_router.persons import LINE_BYTES, pack_lines, unpack_lines

_Value = TypeVar("_Value", bytes, memoryview)

KEY_BYTES = 5
"""2**40 is more than eleven digits."""

_HEADER = struct.Struct("<BBI")  # status, count of other numbers, day of death
_ROLE_OF_LINE = struct.Struct("<Hh16x")
_STATUSES = tuple(NumberStatus)
_REPLACED = NumberStatus.REPLACED

_pack_header, _unpack_header = _HEADER.pack, _HEADER.unpack_from
_iter_roles = _ROLE_OF_LINE.iter_unpack

HEADER_BYTES = _HEADER.size
PLAIN_HEADER = bytes(HEADER_BYTES)
"""Of most numbers: in use, the only one of its person, who lives."""

assert person_numbers_max <= 256
assert LINE_BYTES == _ROLE_OF_LINE.size == 20


class DirectoryError(Exception):
    """The directory cannot be used. The message names the file and the mend, never a person."""


class DamagedError(DirectoryError):
    """What lies in the directory is not what was written there."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept under one number."""

    status: NumberStatus
    deceased: Day = 0
    others: tuple[str, ...] = ()
    """The person's other numbers. Of a replaced number the first is the one in use."""
    lines: tuple[Line, ...] = ()
    """Lines inscribed under this very number, sorted."""
    before: bytes = b""
    after: bytes = b""
    """Packed lines of other roles, which sort before ``lines`` and behind them; see
    :func:`unpack_role`."""

    @property
    def lines_count(self) -> int:
        """How many lines the number has, of all roles."""
        return len(self.lines) + (len(self.before) + len(self.after)) // LINE_BYTES

    def __repr__(self) -> str:
        return f"Record({self.status.name}, lines={self.lines_count})"


def pack_key(number: str) -> bytes:
    """Return the key of a number of eleven ASCII digits."""
    return int(number).to_bytes(KEY_BYTES, "big")


def unpack_key(key: bytes | memoryview) -> str:
    """Return the number of eleven digits that a key stands for.

    Raises:
        DamagedError: it stands for none.
    """
    number = int.from_bytes(key, "big")
    if len(key) != KEY_BYTES or number >= 10**11:
        raise DamagedError("a key of the directory is no number")
    return f"{number:011}"


def order(line: Line) -> tuple[int, int, int, int, int]:
    """Sort key of lines under one number: one capacity of one role together, then by period."""
    return line.sector, line.type, line.capacity, line.begin, line.end


def current_of(record: Record, number: str) -> str:
    """Return the number in use of the person whose number has this record."""
    return record.others[0] if record.status is NumberStatus.REPLACED else number


def pack(record: Record) -> bytes:
    """Return the value of a record; its lines are sorted on the way."""
    status, others, lines = record.status, record.others, record.lines
    assert others or status is not _REPLACED, "replaced by no number"
    assert len(others) < person_numbers_max, "too many numbers of one person"
    if len(lines) > 1:
        lines = tuple(sorted(lines, key=order))
    held = b"".join((record.before, pack_lines(lines), record.after))
    assert len(held) <= person_lines_max * LINE_BYTES, "too many lines under one number"
    keys = b"".join(map(pack_key, others)) if others else b""
    return _pack_header(status, len(others), record.deceased) + keys + held


def unpack_parts(value: _Value) -> tuple[NumberStatus, int, Day, _Value]:
    """Return status, count of other numbers, day of death (0: none), and the lines, still packed.

    This is the hot path of a look-up, hence one function and a plain tuple.

    Raises:
        DamagedError: the value is not one that :func:`pack` made.
    """
    try:
        status, others_count, deceased = _unpack_header(value)
        known = _STATUSES[status]
    except (struct.error, IndexError) as error:
        raise DamagedError("a value of the directory is cut off or out of range") from error
    packed = value[HEADER_BYTES + KEY_BYTES * others_count :]
    if len(packed) % LINE_BYTES:
        raise DamagedError("a value of the directory is cut off or out of range")
    if (others_count or known is _REPLACED) and not 0 < others_count < person_numbers_max:
        raise DamagedError("a value of the directory has a wrong count of numbers")
    return known, others_count, deceased, packed


def unpack_others(value: bytes | memoryview, others_count: int) -> tuple[str, ...]:
    """Return the other numbers of the person.

    Raises:
        DamagedError: one is no number.
    """
    ends = range(HEADER_BYTES, HEADER_BYTES + KEY_BYTES * others_count, KEY_BYTES)
    return tuple(unpack_key(value[at : at + KEY_BYTES]) for at in ends)


def unpack(value: _Value) -> Record:
    """Return the record of a value.

    Raises:
        DamagedError: the value is not one that :func:`pack` made.
    """
    status, others_count, deceased, packed = unpack_parts(value)
    lines = unpack_lines(packed)
    if len(lines) > person_lines_max:
        raise DamagedError("a value of the directory has too many lines")
    others = unpack_others(value, others_count)
    return Record(status=status, deceased=deceased, others=others, lines=lines)


def unpack_role(value: bytes, sector: int, kind: int) -> Record:
    """Return the record of a value with the lines of one role; those of others stay packed.

    Lines are sorted by role first, so those of one lie together. A change concerns one role, and
    most persons are known in several: what it does not concern is neither unpacked nor packed.

    Raises:
        DamagedError: the value is not one that :func:`pack` made.
    """
    try:
        status, others_count, deceased = _unpack_header(value)
        known = _STATUSES[status]
        packed = value[HEADER_BYTES + KEY_BYTES * others_count :]
        roles = [*_iter_roles(packed)]
    except (struct.error, IndexError) as error:
        raise DamagedError("a value of the directory is cut off or out of range") from error
    if (others_count or known is _REPLACED) and not 0 < others_count < person_numbers_max:
        raise DamagedError("a value of the directory has a wrong count of numbers")
    if len(roles) > person_lines_max:
        raise DamagedError("a value of the directory has too many lines")
    begin = LINE_BYTES * bisect_left(roles, (sector, kind))
    end = LINE_BYTES * bisect_right(roles, (sector, kind))
    return Record(
        status=known,
        deceased=deceased,
        others=unpack_others(value, others_count) if others_count else (),
        lines=unpack_lines(packed[begin:end]),
        before=packed[:begin],
        after=packed[end:],
    )
