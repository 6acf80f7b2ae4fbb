"""A disk or a process without room, at the writer: what is not durable is not released, ever."""

import contextlib
import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksz_router.config import Config, PrivacyLog
from ksz_router.config import Ledger as LedgerSettings
from ksz_router.daemon import ledger_from_log
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.readiness import FREE_SHARE_MIN, room
from ksz_router.daemon.reasons import Reason
from ksz_router.daemon.recorder import Recorder
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.keys import make
from ksz_router.privacylog.taking import LogNotWritable
from ksz_router.privacylog.verify import verify
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import NEXT_QUARTER_NS, NOW_NS, World, crash

FILE_BYTES = 8 * 4096
EXCHANGES = 8


class FailingDisk(Disk):
    """Refuses one of its calls, as a disk does; everything before and after works."""

    def __init__(self, call: str, number: int, error: int, *, in_part: bool = False) -> None:
        self._call = call
        self._left = number
        self._error = error
        self._in_part = in_part
        self.has_failed = False

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        if self._is_due("write"):
            if self._in_part:
                os.pwrite(descriptor, data[: len(data) // 2 + 1], offset)
            raise OSError(self._error, os.strerror(self._error))
        super().write(descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        if self._is_due("flush"):
            if self._in_part:
                super().flush(descriptor)
            raise OSError(self._error, os.strerror(self._error))
        super().flush(descriptor)

    def _is_due(self, call: str) -> bool:
        self._left -= call == self._call
        due = call == self._call and self._left == 0
        self.has_failed |= due
        return due


FAULTS = {
    "no space": ("write", errno.ENOSPC, False),
    "no space in the middle of a write": ("write", errno.ENOSPC, True),
    "write error": ("write", errno.EIO, False),
    "read-only file system": ("write", errno.EROFS, False),
    "quota": ("write", errno.EDQUOT, True),
    "flush error, nothing on disk": ("flush", errno.EIO, False),
    "flush error, all on disk": ("flush", errno.EIO, True),
    "no space at the flush": ("flush", errno.ENOSPC, False),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """Where flushes cost nothing, if there is such a place: what fails here fails by the test."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def converse(world: World, disk: Disk) -> list[int]:
    """Record exchanges through some files; return those that might be forwarded."""
    forwarded: list[int] = []
    writer: Writer | None = None
    try:
        writer = world.open(file_bytes=FILE_BYTES, disk=disk)
        open_writer = writer
        recorder: Recorder[int, None] = Recorder(lambda r: open_writer.commit(r, NOW_NS), lambda: 0)
        for number in range(EXCHANGES):
            if number % 4 == 1:
                writer.prepare_next(lambda: None)
            recorder.forward_after(world.request(number), number)
            forwarded += recorder.commit()[0].value
            recorder.submit([world.outcome(number)])
            recorder.commit()
    except LogNotWritable:
        pass
    finally:
        if writer is not None:
            with contextlib.suppress(LogNotWritable):
                writer.close()
    return forwarded


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_call_of_the_disk_fails_nothing_unrecorded_goes_on(
    world: World, fault: str, quick_folder: Path
) -> None:
    """Every call in turn; afterwards the log is whole, opens again and lost nothing."""
    call, error, in_part = FAULTS[fault]
    number, failed, forwarded = 0, True, list[int]()
    while failed:
        number += 1
        world.log = quick_folder / str(number)
        disk = FailingDisk(call, number, error, in_part=in_part)
        forwarded = converse(world, disk)
        failed = disk.has_failed
        world.open(file_bytes=FILE_BYTES).close()
        recorded = {int.from_bytes(entry.exchange or b"") for entry in world.entries()}
        assert set(forwarded) <= recorded, number
        assert verify(world.log, world.keys).faults == [], number
    assert len(forwarded) == EXCHANGES
    assert number > 2 * EXCHANGES, "the last round met no fault: each call had its turn"


def test_a_disk_that_refuses_the_next_file_stops_nothing_yet(world: World, tmp_path: Path) -> None:
    """Commits go on where there is room; half of the file is kept for what is open."""
    world.log = tmp_path / "log"
    writer = world.open(file_bytes=FILE_BYTES)
    for fault, error in (("write", errno.ENOSPC), ("flush", errno.EIO), ("write", errno.EROFS)):
        writer._new_files._disk = FailingDisk(fault, 1, error)
        assert not writer.prepare_next(lambda: None)
        assert writer.next_file_error == os.strerror(error)
        assert sorted(path.name for path in (world.log / "w0").iterdir()) == ["000001.wal"]
    used = 0
    while room(writer) is None:
        used += 1
        writer.commit([world.request(used, code=4001)], NOW_NS)
        assert used < 8
    assert room(writer) is Reason.LOG_FILE_SHORT
    assert writer.used_share > 0.5
    writer.commit([world.request(99, code=4001)], NOW_NS)

    assert writer.prepare_next(lambda: None)
    assert room(writer) is None
    for number in range(20):
        writer.commit([world.request(number, code=4001)], NOW_NS)
    writer.close()
    assert verify(world.log, world.keys).faults == []


def test_below_a_tenth_nothing_new_is_taken(world: World, tmp_path: Path) -> None:
    """Whatever fills the disk; and a disk that does not say counts as full."""
    world.log = tmp_path / "log"

    class Filling(Writer):
        share: float | None = 1.0

        def free_share(self) -> float:
            if self.share is None:
                raise OSError(errno.EIO, "gone")
            return self.share

    writer = Filling.open(
        world.log, slot="w0", node="n", keys_folder=world.keys, now_ns=NOW_NS,
        file_bytes=FILE_BYTES,
    )  # fmt: skip
    for share, reason in (
        (FREE_SHARE_MIN, None),
        (FREE_SHARE_MIN - 0.001, Reason.LOG_DISK_SHORT),
        (None, Reason.LOG_DISK_SHORT),
        (FREE_SHARE_MIN, None),
    ):
        writer.share = share
        assert room(writer) is reason
    writer.close()


class FsyncGate(Disk):
    """After a failed flush the kernel shows what never reached the disk, until it is made to look.

    So do ext4, XFS and others on Linux: the page is marked clean, and the next flush succeeds.
    """

    def __init__(self) -> None:
        self.fails = False
        self._lost: tuple[int, int, bytes] | None = None
        self._last: tuple[int, int, bytes] = -1, 0, b""

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        before = os.pread(descriptor, len(data), offset)
        self._last = descriptor, offset, before
        super().write(descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        if self.fails:
            file, offset, before = self._last
            self.fails, self._lost = False, (os.dup(file), offset, before)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().flush(descriptor)

    def reread(self, descriptor: int) -> None:
        super().reread(descriptor)
        self.power_cut()

    def power_cut(self) -> None:
        """What is on the disk is all there is."""
        if self._lost is not None:
            (file, offset, before), self._lost = self._lost, None
            os.pwrite(file, before, offset)
            os.close(file)


def test_after_a_failed_flush_recovery_believes_the_disk_and_not_the_kernel(
    world: World, tmp_path: Path
) -> None:
    """A frame that only memory has is not named as good: it would look like damage later."""
    world.log = tmp_path / "log"
    gate = FsyncGate()
    writer = world.open(disk=gate)
    writer.commit([world.request(1, code=4001)], NOW_NS)
    gate.fails = True
    with pytest.raises(LogNotWritable):
        writer.commit([world.request(2, code=4001)], NOW_NS)
    writer.close()

    again = world.open(disk=gate)
    again.commit([world.request(3, code=4001)], NOW_NS)
    gate.power_cut()
    crash(again)
    world.open(disk=gate).close()
    assert verify(world.log, world.keys).faults == []
    assert [entry.exchange[-1] for entry in world.entries() if entry.exchange] == [1, 3]


def is_in_memory(descriptor: int) -> bool:
    """Whether the kernel can give the first page without asking the disk."""
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) == 4096
    except BlockingIOError:
        return False


def test_the_kernel_forgets_what_it_holds_of_a_file_that_is_read_again(tmp_path: Path) -> None:
    """The call behind the test before, on this file system."""
    probe = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(probe, bytes(8192), 0)
        os.fsync(probe)
        try:
            assert is_in_memory(probe)
            os.posix_fadvise(probe, 0, 0, os.POSIX_FADV_DONTNEED)
            if is_in_memory(probe):
                pytest.skip("this file system lives in memory")
        except OSError as error:
            pytest.skip(f"this file system cannot say what is in memory: {error.strerror}")
        os.pwrite(probe, b"x" * 8192, 0)
        DISK.reread(probe)
        assert not is_in_memory(probe)
        assert os.pread(probe, 8192, 0) == b"x" * 8192
    finally:
        os.close(probe)


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """The kernel gives this process no further descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_the_log_goes_on_into_the_file_that_was_prepared(
    world: World, tmp_path: Path
) -> None:
    """Going over to it opens nothing and closes the old one, which is what the next one needs."""
    world.log = tmp_path / "log"
    writer = world.open(file_bytes=FILE_BYTES)
    writer.keys.quarter("2027Q1")
    with no_descriptors():
        assert not writer.prepare_next(lambda: None)
    assert writer.next_file_error == os.strerror(errno.EMFILE)
    assert writer.prepare_next(lambda: None)
    with no_descriptors():
        for number in range(30):
            before = writer.file
            now_ns = NOW_NS if number < 27 else NEXT_QUARTER_NS
            writer.commit([world.request(number, code=4001)], now_ns)
            if writer.file != before:
                assert writer.prepare_next(lambda: None)
    assert len(world.files()) > 4
    writer.close()
    assert verify(world.log, world.keys).faults == []


def test_without_descriptors_the_log_and_a_quarter_wait_and_then_open_by_themselves(
    tmp_path: Path,
) -> None:
    """A start and a key file need one; for want of it nobody ends."""
    make(tmp_path / "keys", "2026Q4")
    make(tmp_path / "keys", "2027Q1")
    (tmp_path / "log").mkdir()
    log = PrivacyLog(str(tmp_path / "log"), str(tmp_path / "keys"), 1 << 20)
    now_ns = NEXT_QUARTER_NS - 1
    settings = Config(privacy_log=log, ledger=LedgerSettings(str(tmp_path / "ledger")))
    ledger_from_log.ready(settings, now_ns)
    journal = Journal(settings, 0, lambda: 0, lambda: now_ns)
    with no_descriptors():
        assert os.strerror(errno.EMFILE) in journal.try_open()
    assert not journal.is_open
    assert journal.try_open() == ""
    now_ns += 1
    with no_descriptors():
        assert not journal.turn_quarter()
        assert os.strerror(errno.EMFILE) in journal.keys_error
    assert journal.turn_quarter()
    assert not journal.keys_error
    journal.close()
