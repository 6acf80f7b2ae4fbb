"""The order of entries: any line found fast, torn ends cut off, damage told."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.privacylog.durable import DISK
from ksz_router.privacylog.tree.order import (
    LINE_BYTES,
    Line,
    Order,
    OrderDamaged,
    encode_line,
    standing,
)
from ksz_router.privacylog.tree.order_writer import OrderWriter
from tests.sequence_ground import Faulty, Killed

KEY_ID = "2026Q4-1f2e3d4c"


def line(slot: str, leaf: int, records: int, *, file: int = 1, frame: int = 1) -> Line:
    return Line(
        slot, file, KEY_ID, 4096 * frame, 4096 * (frame + 1), frame, frame,
        7 * frame, 7 * frame + 7, leaf, records, leaf,
    )  # fmt: skip


def lines_of(counts: list[int]) -> list[Line]:
    """Lines of two slots, with so many records."""
    found, leaf = [], 0
    for number, count in enumerate(counts):
        found.append(line(f"w{number % 2}", leaf, count, frame=number + 1))
        leaf += count
    return found


def written(folder: Path, lines: list[Line], file_lines: int = 8) -> Order:
    writer = OrderWriter(folder, 0, file_lines=file_lines)
    for each in lines:
        writer.append([each])
    writer.close()
    return Order(folder)


def test_the_bytes_of_a_line() -> None:
    """As docs/privacylog-format.md has them: computed by hand from the table there."""
    made, crc = encode_line(line("w0", 5, 3)._replace(is_last=True), 0xABCDEF)
    assert len(made) == LINE_BYTES
    assert made[:8] == b"KLOL\x01\0\0\0"
    assert made[8:40] == b"w0".ljust(32, b"\0")
    assert made[40:64] == KEY_ID.encode().ljust(24, b"\0")
    numbers = [int.from_bytes(made[at : at + 4], "little") for at in range(64, 92, 4)]
    assert numbers == [1, 4096, 8192, 1, 1, 7, 14]
    assert int.from_bytes(made[92:100], "little") == 5
    assert int.from_bytes(made[100:108], "little") == 5
    rest = [int.from_bytes(made[at : at + 4], "little") for at in range(108, 128, 4)]
    assert rest == [3, 2, 0xABCDEF, 0, crc]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    file_lines=st.integers(3, 12),
    data=st.data(),
)
def test_lines_of_any_leaves_are_found(
    counts: list[int], file_lines: int, data: st.DataObject
) -> None:
    """Across files, from and up to any leaf, and the last line of each slot from the last file."""
    lines = lines_of(counts)
    end = lines[-1].end_leaf
    first = data.draw(st.integers(0, end))
    last = data.draw(st.integers(first, end))
    with TemporaryDirectory() as folder:
        order = written(Path(folder) / "order", lines, file_lines)
        assert list(order.lines()) == lines
        found = [each for each in order.lines(first, last) if each.records]
        assert found == [
            each
            for each in lines
            if each.records and each.end_leaf > first and each.first_leaf < last
        ]
        assert max(each.end_leaf for each in order.last_places().values()) == end
        newest = {each.slot: each.end_place for each in lines}
        assert {s: each.end_place for s, each in order.last_places().items()} == newest
        assert {s: each.file for s, each in order.last_places().items()} == dict.fromkeys(newest, 1)
        again = OrderWriter(Path(folder) / "order", end, file_lines=file_lines)
        assert again.end_leaf == end
        again.append([line("w9", end, 2)])
        again.close()
        assert list(order.lines())[-1] == line("w9", end, 2)


def test_files_end_and_begin_with_where_each_slot_is(tmp_path: Path) -> None:
    order = written(tmp_path / "order", lines_of([1] * 20), file_lines=8)
    starts = order.starts()
    assert starts[:2] == [0, 8]
    assert len(starts) == 3
    assert [entry.name for entry in sorted((tmp_path / "order").iterdir())][1] == "000000000008"
    data = order.file_of(8).read_bytes()
    stands = standing(line("w0", 6, 1, frame=7), 8)
    previous = order.file_of(0).read_bytes()[-4:]
    assert (
        data[:LINE_BYTES]
        == (encode_line(stands, int.from_bytes(previous, "little"), standing_after=1)[0])
    )


@pytest.mark.parametrize("cut", [1, 64, LINE_BYTES - 1, LINE_BYTES, LINE_BYTES + 1])
def test_a_torn_end_is_cut_off_and_written_anew(tmp_path: Path, cut: int) -> None:
    """What was not signed may be ordered anew; readers stop before it meanwhile."""
    lines = lines_of([2] * 5)
    order = written(tmp_path / "order", lines)
    file = order.file_of(0)
    os.truncate(file, 5 * LINE_BYTES - cut)
    whole = (5 * LINE_BYTES - cut) // LINE_BYTES
    assert list(order.lines()) == lines[:whole]
    writer = OrderWriter(tmp_path / "order", 2 * whole)
    assert file.stat().st_size == whole * LINE_BYTES
    assert writer.end_leaf == 2 * whole
    writer.append(lines[whole:])
    writer.close()
    assert list(order.lines()) == lines


def test_a_line_behind_a_torn_one_is_none(tmp_path: Path) -> None:
    """Sectors reach the disk in any order: the last line may be whole and one before it not."""
    lines = lines_of([2] * 5)
    order = written(tmp_path / "order", lines)
    with order.file_of(0).open("r+b") as file:
        file.seek(3 * LINE_BYTES + 9)
        file.write(b"?")
    assert list(order.lines()) == lines[:3]
    writer = OrderWriter(tmp_path / "order", 6)
    assert (writer.end_leaf, set(writer.last_places())) == (6, {"w0", "w1"})
    writer.close()


@pytest.mark.parametrize("at", [0, 3, 9, 12])
def test_a_flipped_bit_in_what_was_signed_is_refused(tmp_path: Path, at: int) -> None:
    """In any line: at the start of a run where it is in the newest file, and by who reads it."""
    lines = lines_of([2] * 14)
    order = written(tmp_path / "order", lines, file_lines=8)
    starts = order.starts()
    file = order.file_of(starts[0] if at < 8 else starts[1])
    with file.open("r+b") as stream:
        stream.seek(at % 8 * LINE_BYTES + 70)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes((byte ^ 1,)))
    with pytest.raises(OrderDamaged):
        list(order.lines(0, 28))
    if at >= 8:
        with pytest.raises(OrderDamaged):
            OrderWriter(tmp_path / "order", 28)


def test_a_damaged_begin_of_the_newest_file_is_refused(tmp_path: Path) -> None:
    """Without it a slot would be taken for a new one, and ordered from its begin."""
    order = written(tmp_path / "order", lines_of([2] * 9), file_lines=8)
    with order.file_of(order.starts()[-1]).open("r+b") as stream:
        stream.seek(LINE_BYTES + 70)
        stream.write(b"????")
    for signed in (0, 16):
        with pytest.raises(OrderDamaged, match="begins"):
            OrderWriter(tmp_path / "order", signed)


@pytest.mark.parametrize("how", ["before", "after", "torn", "power"])
def test_killed_while_a_file_is_begun(tmp_path: Path, how: str) -> None:
    """There is a whole file or none: each slot is where it was."""
    lines = lines_of([1] * 9)
    for at in range(1, 12):
        folder = tmp_path / f"{how}{at}"
        written(folder, lines[:8], file_lines=8)
        disk = Faulty(at, how)
        with pytest.raises(Killed):
            writer = OrderWriter(folder, 8, disk, file_lines=8)
            writer.append(lines[8:])
            writer.close()
            assert at > 6
            raise Killed
        again = OrderWriter(folder, 8, DISK, file_lines=8)
        if again.end_leaf == 8:
            again.append(lines[8:])
        again.close()
        assert list(Order(folder).lines(0, 9)) == lines
