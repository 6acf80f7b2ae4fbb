"""The verifier finds every changed bit, and names its place; and it does not cry wolf."""

import os
import threading
from pathlib import Path

import pytest

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.frame import LAST, FrameCipher, encode_frame
from ksz_router.privacylog.header import chain_value, parse_file_header
from ksz_router.privacylog.keys import load
from ksz_router.privacylog.verify import Fault, verify
from tests.privacylog_world import NOW_NS, QUARTER, World, crash

SMALL = 8 * 4096


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def filled(world: World) -> tuple[Path, Path, Path]:
    """Three files of one slot: rotated, killed between two frames, closed."""
    writer = world.open(file_bytes=SMALL)
    for number in range(7):
        writer.commit([world.request(number), world.outcome(number)], NOW_NS)
    crash(writer)
    writer = world.open(file_bytes=SMALL)
    writer.commit([world.request(100 + n, code=4001) for n in range(3)], NOW_NS)
    writer.close()
    one, two, three = world.files()
    return one, two, three


def faults(world: World) -> list[Fault]:
    return verify(world.log, world.keys).faults


def test_every_flipped_bit_of_what_was_written_is_found_and_located(world: World) -> None:
    """Every byte that is not zero, and samples of the padding and of the space behind.

    Where the killed file ends its zeros are out of bounds only from its next page on: there a
    torn frame may have stood.
    """
    for file in filled(world):
        data = file.read_bytes()
        frames = world.frames(file)
        closed = frames[-1].flags & LAST
        places = [at for at, byte in enumerate(data) if byte or at % 97 == 0]
        end = frames[-1].offset + frames[-1].size
        for at in places:
            if at >= end and not closed and at >= end + 512:
                continue
            bad = bytearray(data)
            bad[at] ^= 1 << at % 8
            file.write_bytes(bad)
            found = [fault for fault in faults(world) if fault.file == file]
            assert found, f"{file.name}: byte {at}"
            page = at // 4096 * 4096
            hit = next((frame for frame in reversed(frames) if frame.offset <= at < end), None)
            if at < 4096:
                assert found[0].offset == 0
                assert found[0].frame == 0
            elif hit is not None:
                assert found[0].frame == hit.number
                assert hit.offset <= found[0].offset <= at
            else:
                assert page <= found[0].offset <= at
        file.write_bytes(data)
    assert faults(world) == []


def test_the_counts_are_those_of_the_log(world: World) -> None:
    """What was checked is said: an empty check would find nothing either."""
    filled(world)
    report = verify(world.log, world.keys)
    assert (report.files, report.records) == (3, 7 * 2 + 3)
    assert report.frames == sum(len(world.frames(file)) for file in world.files())


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_is_found(world: World, missing: int) -> None:
    """The numbers have no gap and begin at 1."""
    file = filled(world)[missing]
    file.unlink()
    assert any("missing" in fault.what for fault in faults(world))


def test_a_whole_file_put_in_the_place_of_another_is_found(world: World) -> None:
    """Also one that is right in itself."""
    one, two, _ = filled(world)
    two.write_bytes(one.read_bytes())
    assert [fault.what for fault in faults(world) if fault.file == two]


def test_frames_cut_off_the_end_are_found_by_the_next_file(world: World) -> None:
    """The next file names the last good frame of the one before."""
    _, two, three = filled(world)
    last = world.frames(two)[-1]
    data = two.read_bytes()
    two.write_bytes(data[: last.offset] + bytes(len(data) - last.offset))
    assert [fault.file for fault in faults(world)] == [three]


def test_frames_added_behind_the_last_named_one_are_found(world: World) -> None:
    """Also by who has the keys: the next file said where the file ended."""
    _, two, _ = filled(world)
    data, last = bytearray(two.read_bytes()), world.frames(two)[-1]
    header = parse_file_header(bytes(data[:4096]))
    added, _ = encode_frame(
        FrameCipher(load(world.keys, QUARTER).frames, header.salt),
        [world.request(9, code=4001)],
        number=last.number + 1,
        first_record=last.first_record + len(last.records),
        previous_crc=last.crc,
    )
    at = last.offset + last.size
    data[at : at + len(added)] = added
    two.write_bytes(data)
    assert any("names frame" in fault.what and fault.file == two for fault in faults(world))


def forged(world: World, *groups: list[bytes]) -> None:
    """Rewrite the only file of the slot with these frames, chained and encrypted as they must."""
    writer = world.open()
    writer.close()
    data = writer.file.read_bytes()
    header = parse_file_header(data[:4096])
    cipher = FrameCipher(load(world.keys, QUARTER).frames, header.salt)
    made, crc, record = data[:4096], chain_value(data[:4096]), 0
    for number, group in enumerate((*groups, []), 1):
        flags = LAST if not group else 0
        frame, crc = encode_frame(
            cipher, group, number=number, first_record=record, previous_crc=crc, flags=flags
        )
        made, record = made + frame, record + len(group)
    writer.file.write_bytes(made.ljust(header.file_bytes, b"\0"))


def test_a_frame_rewritten_by_who_has_the_keys_breaks_the_chain(world: World) -> None:
    """Right in itself, in its place and under its key: the frame behind it names another."""
    writer = world.open()
    for number in range(3):
        writer.commit([world.request(number, code=4001)], NOW_NS)
    writer.close()
    data = bytearray(writer.file.read_bytes())
    header, frame = parse_file_header(bytes(data[:4096])), world.frames(writer.file)[1]
    made, _ = encode_frame(
        FrameCipher(load(world.keys, QUARTER).frames, header.salt),
        [world.request(9, code=4001)],
        number=frame.number,
        first_record=frame.first_record,
        previous_crc=frame.previous_crc,
    )
    data[frame.offset : frame.offset + len(made)] = made
    writer.file.write_bytes(data)
    (fault,) = faults(world)
    assert (fault.frame, fault.offset) == (3, frame.offset + frame.size)
    assert "chain" in fault.what


def test_an_outcome_without_its_request_is_found(world: World) -> None:
    """A request left out by a writer with all the keys."""
    forged(world, [world.request(1)], [world.outcome(1), world.outcome(2)])
    assert [(fault.frame, fault.what) for fault in faults(world)] == [
        (2, "the entry has no request")
    ]


def test_a_record_that_is_not_canonical_is_found(world: World) -> None:
    """The digest of an entry must not depend on who wrote it."""
    good = world.request(1, code=4001)
    forged(world, [good, good[:3] + b"\xcc\x01" + good[4:], b"\xc1"])
    assert [fault.what for fault in faults(world)] == [
        "an entry that is not in canonical form", "not an entry",
    ]  # fmt: skip


def test_a_run_that_did_not_settle_the_one_before_is_found(world: World) -> None:
    """Every exchange that was passed has an outcome once a new run began."""
    writer = world.open()
    writer.commit([world.request(1)], NOW_NS)
    crash(writer)
    assert faults(world) == [], "not yet: the next run will"
    crash(world.open())
    second = world.files()[1]
    header = parse_file_header(second.read_bytes()[:4096])
    frame, _ = encode_frame(
        FrameCipher(load(world.keys, QUARTER).frames, header.salt),
        [],
        number=1,
        first_record=1,
        previous_crc=chain_value(second.read_bytes()[:4096]),
        flags=2,
    )
    second.write_bytes((second.read_bytes()[:4096] + frame).ljust(header.file_bytes, b"\0"))
    assert [fault.what for fault in faults(world)] == ["an earlier exchange has no outcome"]


def test_a_torn_tail_of_a_killed_writer_is_no_fault(world: World) -> None:
    """Sectors that never arrived are what a crash leaves; before a new run and after it."""
    writer = world.open()
    writer.commit([world.request(1, code=4001)], NOW_NS)
    writer.commit([world.request(n, code=4001) for n in range(2, 30)], NOW_NS)
    crash(writer)
    last = world.frames(writer.file)[-1]
    with writer.file.open("r+b") as stream:
        os.pwrite(stream.fileno(), bytes(512), last.offset + 1024)
    assert faults(world) == []
    world.open().close()
    assert faults(world) == []


def test_a_log_that_is_written_meanwhile_has_no_faults(world: World) -> None:
    """The tail of a live file is a frame on its way, not damage."""
    stop = threading.Event()
    writer = world.open(file_bytes=256 * 4096)

    def write() -> None:
        number = 0
        while not stop.is_set():
            writer.commit([world.request(number + n, code=4001) for n in range(50)], NOW_NS)
            number += 50

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(15):
            assert faults(world) == []
    finally:
        stop.set()
        thread.join()
    writer.close()
    assert faults(world) == []


def test_without_its_keys_a_file_counts_as_unchecked(world: World) -> None:
    """A verifier that cannot look does not say that all is well."""
    filled(world)
    (world.keys / f"{QUARTER}.json").unlink()
    assert len(faults(world)) == 3


def test_no_log_is_not_a_log_without_faults(world: World) -> None:
    """A wrong path must not look like a good log."""
    with pytest.raises(PrivacyLogError, match="no privacy log here"):
        verify(world.log / "elsewhere", world.keys)
