"""The write path: durable before it returns, one writer a slot, and never on after an error."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksz_router.limits import group_records_max, record_bytes_max
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.frame import FILE_BYTES_MIN, LAST, SETTLED
from ksz_router.privacylog.header import PAGE
from ksz_router.privacylog.keys import KeyRing, load
from ksz_router.privacylog.recovery import End, scan
from ksz_router.privacylog.taking import LogNotWritable, SlotTaken
from ksz_router.privacylog.verify import verify
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import (
    FILE_BYTES,
    NEXT_QUARTER,
    NEXT_QUARTER_NS,
    NOW_NS,
    World,
    crash,
)


class RecordingDisk(Disk):
    """Does what the disk does and keeps what was called; fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.fail: tuple[str, bool] | None = None
        """Which call fails next, and whether it does its work all the same."""

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._call("write", descriptor, lambda: Disk.write(self, descriptor, data, offset))

    def flush(self, descriptor: int) -> None:
        self._call("flush", descriptor, lambda: Disk.flush(self, descriptor))

    def _call(self, name: str, descriptor: int, work: object) -> None:
        assert callable(work)
        self.calls.append((name, descriptor))
        if self.fail is not None and self.fail[0] == name:
            if self.fail[1]:
                work()
            self.fail = None  # a second try would succeed: nobody may make it
            raise OSError(errno.EIO, "no such luck")
        work()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_commit_is_one_write_then_one_flush_of_the_same_file(world: World) -> None:
    """Group commit: however many entries, one of each, and in this order, before it returns."""
    disk = RecordingDisk()
    writer = world.open(disk=disk)
    disk.calls.clear()
    writer.commit([world.request(n) for n in range(100)], NOW_NS)

    assert [name for name, _ in disk.calls] == ["write", "flush"]
    assert len({descriptor for _, descriptor in disk.calls}) == 1
    held = world.frames(writer.file)
    assert [len(frame.records) for frame in held] == [100]
    writer.close()


def test_what_was_committed_is_there_for_another_process_at_once(world: World) -> None:
    """Nothing waits in the memory of the writer."""
    writer = world.open()
    records = [world.request(1), world.outcome(1)]
    writer.commit(records, NOW_NS)
    assert [record for frame in world.frames(writer.file) for record in frame.records] == records
    writer.close()


@pytest.mark.parametrize("written_anyway", [False, True])
@pytest.mark.parametrize("call", ["write", "flush"])
def test_an_error_of_the_disk_ends_the_writer_for_ever(
    world: World, *, call: str, written_anyway: bool
) -> None:
    """After a failed flush the next may falsely succeed: there is no next."""
    disk = RecordingDisk()
    writer = world.open(disk=disk)
    writer.commit([world.request(1, code=4001)], NOW_NS)
    disk.fail = (call, written_anyway)
    with pytest.raises(LogNotWritable):
        writer.commit([world.request(2, code=4001)], NOW_NS)
    calls = len(disk.calls)

    with pytest.raises(LogNotWritable):
        writer.commit([world.request(3, code=4001)], NOW_NS)
    with pytest.raises(LogNotWritable):
        writer.prepare_next(lambda: None)
    writer.close()
    assert len(disk.calls) == calls, "nothing touches the disk again, not even the end of the file"

    again = world.open()
    again.commit([world.request(4, code=4001)], NOW_NS)
    again.close()
    found = {entry.exchange[-1] for entry in world.entries() if entry.exchange}
    assert {1, 4} <= found <= {1, 2, 4}
    assert verify(world.log, world.keys).faults == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel itself cuts writes short at this offset, and refuses those beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_kernel_cuts_short_is_fatal_where_it_cannot_be_completed(
    world: World,
) -> None:
    """A real short write, then a real error: EFBIG."""
    writer = world.open()
    with largest_file(4096 + 2000), pytest.raises(LogNotWritable):
        writer.commit([world.request(n, code=4001) for n in range(40)], NOW_NS)
    with pytest.raises(LogNotWritable):
        writer.commit([world.request(1, code=4001)], NOW_NS)
    writer.close()
    assert scan(writer.file, KeyRing(world.keys)).end is End.TORN
    world.open().close()
    assert verify(world.log, world.keys).faults == []


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system call may write less than it was given without an error."""
    true_pwrite = os.pwrite

    def at_most_seven(descriptor: int, data: bytes, offset: int) -> int:
        return true_pwrite(descriptor, data[:7], offset)

    monkeypatch.setattr(os, "pwrite", at_most_seven)
    file = tmp_path / "file"
    with file.open("wb") as stream:
        Disk().write(stream.fileno(), b"0123456789" * 10, 0)
    assert file.read_bytes() == b"0123456789" * 10


def test_a_second_writer_of_a_slot_is_refused(world: World) -> None:
    """In this process and in another; the slot is free again when the first has gone."""
    writer = world.open()
    with pytest.raises(SlotTaken):
        world.open()
    code = (
        "import sys; from pathlib import Path; "
        "from ksz_router.privacylog.writer import *; from ksz_router.privacylog.taking import *\n"
        "try: Writer.open(Path(sys.argv[1]), slot='w0', node='n', keys_folder=Path(sys.argv[2]),"
        f" now_ns={NOW_NS}, file_bytes={FILE_BYTES_MIN})\n"
        "except SlotTaken: sys.exit(7)"
    )
    child = subprocess.run([sys.executable, "-c", code, world.log, world.keys], check=False)
    assert child.returncode == 7
    writer.close()
    world.open().close()


def test_each_run_begins_a_file_that_names_the_last_frame_of_the_one_before(world: World) -> None:
    """No run writes into what another wrote; the record numbers go on."""
    for run in range(3):
        writer = world.open()
        writer.commit([world.request(run, code=4001)], NOW_NS)
        writer.close()
    keys = KeyRing(world.keys)
    scans = [scan(file, keys) for file in world.files()]
    assert [found.header.number for found in scans] == [1, 2, 3]
    assert [found.header.previous for found in scans] == [None, scans[0].link, scans[1].link]
    assert [found.header.first_record for found in scans] == [0, 1, 2]
    assert {found.end for found in scans} == {End.CLOSED}


def test_a_full_file_ends_with_a_last_frame_and_the_next_goes_on(world: World) -> None:
    """Rotation loses nothing and does not look like a restart."""
    writer = world.open()
    for number in range(60):
        writer.commit([world.request(number, code=4001)], NOW_NS)
    writer.close()
    files = world.files()
    assert len(files) > 3
    for file in files:
        assert file.stat().st_size == FILE_BYTES
        flags = [frame.flags for frame in world.frames(file)]
        assert flags[-1] == LAST
        assert not any(flag & SETTLED for flag in flags)
    exchanges = [int.from_bytes(entry.exchange or b"") for entry in world.entries()]
    assert exchanges == list(range(60))
    assert verify(world.log, world.keys).faults == []


def test_many_large_entries_are_cut_into_frames_that_fit(world: World) -> None:
    """Neither the number nor the size of what is committed at once has a bound for the caller."""
    writer = world.open(file_bytes=FILE_BYTES_MIN)
    large = world.request(1, code=4001, purpose="x" * (record_bytes_max - 200))
    assert len(large) > record_bytes_max - 200
    writer.commit([large] * 3, NOW_NS)
    writer.close()
    wide = world.open(slot="w1", file_bytes=1024 * 1024)
    wide.commit([world.request(1, code=4001)] * (group_records_max + 1), NOW_NS)
    wide.close()
    assert [len(frame.records) for frame in world.frames(world.files("w1")[0])] == [
        group_records_max, 1, 0,
    ]  # fmt: skip
    report = verify(world.log, world.keys)
    assert (report.records, report.faults) == (3 + group_records_max + 1, [])


def test_a_new_quarter_begins_a_file_under_its_own_keys(world: World) -> None:
    """What the keys of a quarter can read ends with the quarter."""
    writer = world.open()
    writer.commit([world.request(1, code=4001)], NOW_NS)
    writer.commit([world.request(2, code=4001)], NEXT_QUARTER_NS - 1)
    first = writer.file
    writer.commit([world.request(3, code=4001)], NEXT_QUARTER_NS)
    second = writer.file
    writer.close()
    keys = KeyRing(world.keys)
    assert first != second
    assert scan(first, keys).header.key_id.startswith("2026Q4")
    assert scan(second, keys).header.key_id == load(world.keys, NEXT_QUARTER).id


def test_a_new_quarter_without_keys_stops_the_log(world: World) -> None:
    """Better no traffic than entries under the keys of an old quarter."""
    writer = world.open()
    (world.keys / f"{NEXT_QUARTER}.json").unlink()
    with pytest.raises(LogNotWritable, match="ksz-router keys quarter"):
        writer.commit([world.request(3, code=4001)], NEXT_QUARTER_NS)
    writer.close()
    with pytest.raises(PrivacyLogError, match="ksz-router keys quarter"):
        Writer.open(
            world.log,
            slot="w1",
            node="n",
            keys_folder=world.keys,
            now_ns=NEXT_QUARTER_NS,
            file_bytes=FILE_BYTES,
        )


def test_rotation_uses_the_file_that_was_prepared(world: World) -> None:
    """The zeros are written ahead, paced, while commits go on; rotation then writes one page."""
    disk = RecordingDisk()
    writer = world.open(file_bytes=3 * 1024 * 1024, disk=disk)
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        writer.commit([world.request(pauses, code=4001)], NOW_NS)

    writer.prepare_next(pause)
    writer.prepare_next(pause)
    assert pauses == 3 * 4  # one after each 256 KiB
    assert 0 < writer.used_share < 1
    disk.calls.clear()
    writer.commit([world.request(9, code=4001)], NEXT_QUARTER_NS)
    assert [name for name, _ in disk.calls] == ["write", "flush"] * 3  # last, header, frame
    writer.close()
    assert sorted(entry.name for entry in world.slot.iterdir()) == ["000001.wal", "000002.wal"]
    assert verify(world.log, world.keys).faults == []


@pytest.mark.parametrize("leave", [Writer.close, crash])
def test_the_next_run_begins_with_the_file_that_was_prepared(
    world: World, leave: Callable[[Writer], None]
) -> None:
    """So a start writes one page and not a whole file, after a stop as after a kill."""
    writer = world.open()
    writer.prepare_next(lambda: None)
    leave(writer)
    inode = (world.slot / "prepared").stat().st_ino

    disk = RecordingDisk()
    world.open(disk=disk).close()
    assert sum(name == "write" for name, _ in disk.calls) == 3  # header, settled, last
    assert (world.slot / "000002.wal").stat().st_ino == inode
    assert sorted(entry.name for entry in world.slot.iterdir()) == ["000001.wal", "000002.wal"]
    assert verify(world.log, world.keys).faults == []


def _lengthen(prepared: Path, _world: World) -> None:
    """As it is after a larger size was configured, and a smaller one again."""
    with prepared.open("ab") as file:
        file.write(bytes(PAGE))


def _make_sparse(prepared: Path, _world: World) -> None:
    prepared.unlink()
    prepared.touch()
    os.truncate(prepared, FILE_BYTES)


def _spoil(prepared: Path, _world: World) -> None:
    with prepared.open("r+b") as file:
        file.seek(FILE_BYTES - 1)
        file.write(b"!")


def _use_up(prepared: Path, world: World) -> None:
    """As a crash leaves it between the two names of a new file."""
    prepared.unlink()
    os.link(world.slot / "000001.wal", prepared)


@pytest.mark.parametrize("harm", [_lengthen, _make_sparse, _spoil, _use_up])
def test_a_file_that_is_not_as_it_was_prepared_is_made_anew(
    world: World, harm: Callable[[Path, World], None]
) -> None:
    """What is behind the last frame must be zeros on disk, or it would be taken for damage."""
    writer = world.open()
    writer.prepare_next(lambda: None)
    writer.close()
    prepared = world.slot / "prepared"
    harm(prepared, world)
    with prepared.open("rb") as harmed:
        inode = os.fstat(harmed.fileno()).st_ino  # held open, so that it is not given out again
        world.open().close()
    assert (world.slot / "000002.wal").stat().st_ino != inode
    assert not prepared.exists()
    assert verify(world.log, world.keys).faults == []


def test_what_a_kill_left_half_filled_is_removed(world: World) -> None:
    """It never gets the name of a file that is ready."""

    class KilledError(BaseException):
        pass

    def kill() -> None:
        assert (world.slot / "filling").exists()
        assert not (world.slot / "prepared").exists()
        raise KilledError

    writer = world.open()
    with pytest.raises(KilledError):
        writer.prepare_next(kill)
    crash(writer)
    (world.slot / "filling").write_bytes(b"half")
    world.open().close()
    assert sorted(entry.name for entry in world.slot.iterdir()) == ["000001.wal", "000002.wal"]


def test_the_free_share_of_the_disk_is_between_none_and_all(world: World) -> None:
    """The daemon drains below a tenth."""
    writer = world.open()
    assert 0 < writer.free_share() < 1
    writer.close()
    writer.close()
    with pytest.raises(LogNotWritable):
        writer.commit([world.request(1)], NOW_NS)
