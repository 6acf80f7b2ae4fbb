"""The journal of changes in the environment, and what is noted of each: pure packing of both.

A change stands in ``changes`` under its version, a refusal under the version that it met and an
ordinal; ``applied`` finds either by its exchange id. Both are kept as long as the writer says.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import lmdb
import msgspec

from ksz_router.directory.change import Change, Operation, Reason
from ksz_router.directory.packing import DamagedError

VERSION_BYTES = 8

_KEY = struct.Struct(">Q")
_REFUSED_KEY = struct.Struct(">QI")
_NOTE = struct.Struct(">QB")  # version, reason (0: applied)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of the journal."""

    now_us: int
    """When it was applied or refused, in Unix microseconds."""
    reason: int
    """0: applied; else the :class:`Reason` of the refusal."""
    change: Change
    came_from: int = 0
    """Of a restore: the version whose content it brought back. Of a load: the one before it."""

    def __repr__(self) -> str:
        return f"Entry({self.change.operation.name})"


class Note(NamedTuple):
    """What came of an exchange id."""

    version: int
    reason: Reason | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def key_of(version: int) -> bytes:
    """Return the key of the change that made a version."""
    return _KEY.pack(version)


def refused_key_of(version: int, ordinal: int) -> bytes:
    """Return the key of a refusal; it sorts behind the change that made ``version``."""
    return _REFUSED_KEY.pack(version, ordinal)


def parts_of(key: bytes | memoryview) -> tuple[int, int]:
    """Return the version of a key and the ordinal of a refusal, which is 0 for a change.

    Raises:
        DamagedError: it is no key of the journal.
    """
    if len(key) == VERSION_BYTES:
        return _KEY.unpack(key)[0], 0
    if len(key) != _REFUSED_KEY.size:
        raise DamagedError("a key of the journal is cut off")
    version, ordinal = _REFUSED_KEY.unpack(key)
    return version, ordinal


def pack_entry(now_us: int, reason: Reason | None, change: Change) -> bytes:
    """Return the value of a row."""
    return _encoder.encode((now_us, reason or 0, change))


def repack(entry: Entry) -> bytes:
    """Return the value of a row that was read."""
    return _encoder.encode(entry)


def unpack_entry(value: bytes | memoryview) -> Entry:
    """Return the row of a value.

    Raises:
        DamagedError: the value is none.
    """
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise DamagedError("a row of the journal cannot be read") from error


def pack_note(version: int, reason: Reason | None) -> bytes:
    """Return what ``applied`` holds of an exchange."""
    return _NOTE.pack(version, reason or 0)


def unpack_note(value: bytes | memoryview) -> Note:
    """Return what came of an exchange.

    Raises:
        DamagedError: the value is none.
    """
    try:
        version, reason = _NOTE.unpack(value)
        return Note(version, Reason(reason) if reason else None)
    except (struct.error, ValueError) as error:
        raise DamagedError("a note of an exchange cannot be read") from error


def boundary(operation: Operation, now_us: int, came_from: int) -> bytes:
    """Return the row of a version that a load or a restore made, not a change."""
    return _encoder.encode((now_us, 0, Change(b"", "", operation), came_from))


def last_ordinal(cursor: "lmdb.Cursor[bytes]", version: int) -> int:
    """Return how many refusals the journal holds since the change that made ``version``."""
    if not cursor.last():
        return 0
    found, ordinal = parts_of(cursor.key())
    return ordinal if found == version else 0


def rows(
    cursor: "lmdb.Cursor[bytes]", version: int, ordinal: int
) -> Iterator[tuple[int, int, Entry]]:
    """Every row behind the one of ``version`` and ``ordinal``: version, ordinal, content.

    Raises:
        DamagedError: a row cannot be read.
    """
    if cursor.set_range(refused_key_of(version, ordinal + 1)):
        for key, value in cursor:
            found, counted = parts_of(key)
            yield found, counted, unpack_entry(value)
