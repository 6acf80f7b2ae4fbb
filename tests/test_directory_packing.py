"""The bytes of one person: what was packed comes back, and what was not is refused."""

from functools import partial
from random import Random

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksz_router.directory.packing import (
    HEADER_BYTES,
    KEY_BYTES,
    DamagedError,
    Record,
    order,
    pack,
    pack_key,
    unpack,
    unpack_key,
    unpack_role,
)
from ksz_router.limits import person_numbers_max
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus
from ksz_router.persons import LINE_BYTES

NUMBER = "85073099734"

numbers = st.integers(0, 10**11 - 1).map("{:011}".format)
days = st.sampled_from([18000101, 20260315, OPEN])
lines = st.builds(
    Line,
    sector=st.integers(0, 999),
    type=st.integers(ANY_TYPE, 999),
    capacity=st.integers(0, 999),
    phase=st.integers(0, 999),
    begin=days,
    end=days,
    changed=days | st.just(0),
)
records = st.builds(
    Record,
    status=st.sampled_from(NumberStatus),
    deceased=days | st.just(0),
    others=st.lists(numbers, min_size=1, max_size=person_numbers_max - 1).map(tuple),
    lines=st.lists(lines, max_size=12).map(tuple),
)


@given(records)
def test_what_is_packed_comes_back(record: Record) -> None:
    """With its lines in order, and in the size that the format states."""
    value = pack(record)
    found = unpack(memoryview(value))
    assert found.lines == tuple(sorted(record.lines, key=order))
    assert (found.status, found.deceased, found.others) == (
        record.status,
        record.deceased,
        record.others,
    )
    assert len(value) == (
        HEADER_BYTES + KEY_BYTES * len(record.others) + LINE_BYTES * len(record.lines)
    )


@given(records, st.randoms())
def test_the_same_lines_in_any_order_are_the_same_bytes(record: Record, random: Random) -> None:
    """Lines that differ in nothing but their order are one value, so a copy can be compared."""
    keyed = {order(line): line for line in record.lines}
    first = Record(status=NumberStatus.ACTIVE, lines=tuple(keyed.values()))
    second = Record(
        status=NumberStatus.ACTIVE, lines=tuple(random.sample(first.lines, len(first.lines)))
    )
    assert pack(first) == pack(second)


@given(numbers, numbers)
def test_keys_come_back_and_sort_as_the_numbers_do(one: str, two: str) -> None:
    """So that a sorted load appends."""
    assert unpack_key(pack_key(one)) == one
    assert (pack_key(one) < pack_key(two)) == (one < two)


def test_the_value_is_the_one_of_the_specification() -> None:
    """The worked example of ``docs/directory-format.md``."""
    record = Record(
        status=NumberStatus.REPLACED,
        others=("85073099734",),
        lines=(Line(17, 1, 2, 1, 20150101, OPEN, 20150102),),
    )
    assert pack_key("85493099737").hex() == "13e7c92cd9"
    assert pack(record).hex(" ") == (
        "01 01 00 00 00 00 "
        "13 ce c0 7b d6 "
        "11 00 01 00 02 00 01 00 55 77 33 01 bf be f5 05 56 77 33 01"
    )


@given(records, st.integers(1, 30))
def test_a_value_that_lost_its_end_is_refused_or_has_fewer_lines(record: Record, lost: int) -> None:
    """It never gives a line that was not written."""
    value = pack(record)
    try:
        found = unpack(value[:-lost])
    except DamagedError:
        return
    assert lost % LINE_BYTES == 0
    assert found.lines == tuple(sorted(record.lines, key=order))[: len(found.lines)]


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x04\0\0\0\0\0")
@example(b"\x01\0\0\0\0\0")
@example(b"\0\x10\0\0\0\0")
def test_no_bytes_make_it_raise_anything_else(value: bytes) -> None:
    """Whatever lies on the disk, the error is a typed one, without what lies there."""
    for read in (unpack, partial(unpack_role, sector=17, kind=1)):
        try:
            read(value)
        except DamagedError as error:
            assert "directory" in str(error)


@pytest.mark.parametrize(
    "value",
    [
        b"\x01\0\0\0\0\0",  # replaced, by no number
        b"\0\x10\0\0\0\0" + pack_key(NUMBER) * 16,  # one number too many
        b"\x04\0\0\0\0\0",  # a status that is none
        b"\0\0\0\0\0",
    ],
)
def test_a_header_that_cannot_be_is_refused(value: bytes) -> None:
    """Before anything that follows it is believed."""
    for read in (unpack, partial(unpack_role, sector=17, kind=1)):
        with pytest.raises(DamagedError):
            read(value)


@pytest.mark.parametrize("key", [b"", b"\xff" * 5, b"\0" * 4, b"\0" * 6])
def test_a_key_that_is_no_number_is_refused(key: bytes) -> None:
    """Five bytes hold more than eleven digits."""
    with pytest.raises(DamagedError):
        unpack_key(key)


def test_a_person_does_not_print() -> None:
    """Neither the numbers nor the lines are in the ``repr``."""
    assert repr(Record(status=NumberStatus.REPLACED, others=(NUMBER,))) == (
        "Record(REPLACED, lines=0)"
    )


@given(records, lines)
def test_one_role_comes_unpacked_and_the_rest_stays_as_it_lies(record: Record, of: Line) -> None:
    """Whatever becomes of the role's lines, the bytes are those of a record unpacked in full."""
    full = unpack(pack(record))
    role = full.lines[len(full.lines) // 2] if full.lines else of
    held = unpack_role(pack(record), role.sector, role.type)
    mine = [line for line in full.lines if (line.sector, line.type) == (role.sector, role.type)]
    assert held.lines == tuple(mine)
    assert held.lines_count == full.lines_count == len(full.lines)
    assert pack(held) == pack(full)
    changed = (*mine[1:], msgspec.structs.replace(of, sector=role.sector, type=role.type))
    rest = tuple(line for line in full.lines if line not in mine)
    assert pack(msgspec.structs.replace(held, lines=changed)) == pack(
        msgspec.structs.replace(full, lines=(*rest, *changed))
    )
