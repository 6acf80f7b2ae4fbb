"""What is still to be told of numbers: who knows a person hears what became of the person's number.

A notice is written in the very transaction of the change, and removed once it was told. So none is
lost, whatever ends a process, and none waits for a change that was not made. Pure.
"""

import struct
from collections.abc import Mapping, Sequence

import msgspec

from ksz_router.directory.change import Change, Operation
from ksz_router.directory.packing import DamagedError, Record, current_of
from ksz_router.model import Day

_KEY = struct.Struct(">QB")


class Notice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one number, for all who know one person."""

    now_us: int
    """When the change was made, in Unix microseconds."""
    exchange: bytes
    """Of the change."""
    operation: Operation
    number: str
    """What the register spoke of."""
    person: str
    """Whoever knows the person under this number is told: the number in use, where there is one."""
    current: str
    """The number in use after the change of the person who has ``number``; empty: none is."""
    deceased: Day = 0
    """The day of death that stands under ``current``."""

    def __repr__(self) -> str:
        return f"Notice({self.operation.name})"


def notices_of(change: Change, changed: Mapping[str, Record], now_us: int) -> Sequence[Notice]:
    """Return what a change of the register gives to tell, from the records that it made.

    Two notices where a person becomes two again; none of a number that nobody can know yet.
    """

    def notice(person: str, current: str) -> Notice:
        deceased = changed[current].deceased if current else 0
        return Notice(
            now_us, change.exchange, change.operation, change.number, person, current, deceased
        )

    number = change.number
    match change.operation:
        case Operation.REPLACE:
            current = current_of(changed[number], number)
            return (notice(current, current),)
        case Operation.DECEASE:
            (current,) = changed
            return (notice(current, current),)
        case Operation.CANCEL:
            return (notice(number, ""),)
        case Operation.REACTIVATE:
            own = notice(number, number)
            left = next((member for member in changed if member != number), None)
            if left is None:
                return (own,)
            return own, notice(current_of(changed[left], left), number)
    return ()


def key_of(version: int, part: int) -> bytes:
    """Return the key of a notice: keys sort as the changes were made."""
    return _KEY.pack(version, part)


def version_of(key: bytes | memoryview) -> int:
    """Return the version that the change made.

    Raises:
        DamagedError: it is no key of a notice.
    """
    try:
        version: int = _KEY.unpack(key)[0]
    except struct.error as error:
        raise DamagedError("a key of a notice is cut off") from error
    return version


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Notice)


def pack(notice: Notice) -> bytes:
    """Return the value of a notice."""
    return _encode(notice)


def unpack(value: bytes | memoryview) -> Notice:
    """Return the notice of a value.

    Raises:
        DamagedError: the value is none.
    """
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise DamagedError("a notice cannot be read") from error
