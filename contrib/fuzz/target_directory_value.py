"""A value of the person directory: damaged, or a record that packs into a value again."""

from collections.abc import Iterator
from contextlib import suppress

from contrib.fuzz import targets
from ksz_router.directory.packing import (
    KEY_BYTES,
    DamagedError,
    Record,
    pack,
    pack_key,
    unpack,
    unpack_key,
)
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus


def one_input(data: bytes) -> None:
    """As a value, and its beginning as a key."""
    with suppress(DamagedError):
        assert pack_key(unpack_key(data[:KEY_BYTES])) == data[:KEY_BYTES]
    try:
        record = unpack(data)
    except DamagedError:
        return
    assert unpack(pack(record)).lines == tuple(sorted(record.lines, key=_order))
    assert len(pack(record)) == len(data)


def _order(line: Line) -> tuple[int, ...]:
    return line.sector, line.type, line.capacity, line.begin, line.end


def seeds() -> Iterator[bytes]:
    """No line and two, other numbers and none, a death."""
    lines = (Line(17, 1, 2, 1, 20200101, OPEN), Line(5, ANY_TYPE, 20, 0, 20200101, 20211231))
    yield pack(Record(status=NumberStatus.ACTIVE, lines=lines))
    yield pack(Record(status=NumberStatus.DECEASED, deceased=20240517))
    yield pack(Record(status=NumberStatus.REPLACED, others=("85073099734", "00010199776")))


if __name__ == "__main__":
    targets.run(__file__)
