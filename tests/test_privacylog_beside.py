"""Flushes that the kernel does beside their caller: the same log, and the same errors."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksz_router.limits import group_records_max
from ksz_router.privacylog import beside
from ksz_router.privacylog.beside import DiskBeside, disk_beside
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.taking import LogNotWritable
from ksz_router.privacylog.verify import verify
from tests.privacylog_world import FILE_BYTES, NOW_NS, World


class Clock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000
        self.step_ns = 0

    def __call__(self) -> int:
        self.now_ns += self.step_ns
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(clock: Clock, tmp_path: Path) -> Iterator[DiskBeside]:
    """One whose device stood a moment ago, so that nothing is waited for."""
    made = DiskBeside(clock)
    _stand(made, clock, tmp_path)
    yield made
    made.close()
    made.close()


def _stand(disk: DiskBeside, clock: Clock, folder: Path, milliseconds: int = 21) -> None:
    """Let one flush take so long."""
    descriptor = os.open(folder / "slow", os.O_RDWR | os.O_CREAT)
    clock.step_ns = milliseconds * 1_000_000
    disk.begin_flush(descriptor)
    _flushed(disk)
    clock.step_ns = 0
    os.close(descriptor)


def _flushed(disk: DiskBeside) -> None:
    for _ in range(100):
        if disk.is_flushed(0.2):
            return
    raise AssertionError("the flush never ends")


def test_it_tells_when_a_flush_is_done_and_only_once(disk: DiskBeside, tmp_path: Path) -> None:
    """One after the other, on one file or several; nothing is done that was not begun."""
    descriptors = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "ab"]
    for descriptor in (*descriptors, *descriptors):
        disk.write(descriptor, b"entry", 0)
        disk.begin_flush(descriptor)
        _flushed(disk)
        assert not disk.is_flushed(0.0)
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_device_that_answers_at_once_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    """Until a flush takes longer than twenty milliseconds; and from a minute after the last."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    disk = DiskBeside(clock)

    def waits() -> bool:
        disk.begin_flush(descriptor)
        found = disk._is_beside
        _flushed(disk)
        return not found

    assert waits()
    _stand(disk, clock, tmp_path, 19)
    assert waits()
    _stand(disk, clock, tmp_path)
    assert not waits()
    clock.now_ns += 59 * 10**9
    assert not waits()
    _stand(disk, clock, tmp_path)  # beside too: the minute begins anew
    clock.now_ns += 59 * 10**9
    assert not waits()
    clock.now_ns += 2 * 10**9
    assert waits()
    os.close(descriptor)
    disk.close()


def test_what_cannot_be_flushed_is_an_error(disk: DiskBeside) -> None:
    """Neither a file that is closed, nor a pipe: the kernel's own error, at once or when asked."""
    with tempfile.TemporaryFile() as file:
        closed = file.fileno()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        disk.begin_flush(closed)
    ends = os.pipe()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        disk.begin_flush(ends[1])
        _flushed(disk)
    for end in ends:
        os.close(end)


def test_a_writer_on_it_keeps_the_same_log(disk: DiskBeside, tmp_path: Path) -> None:
    """Groups of several frames, files that end, and an end while a flush is under way."""
    world = World(tmp_path)
    writer = world.open(file_bytes=FILE_BYTES, disk=disk)
    records = [world.request(number, code=4001) for number in range(2_000)]
    for begin in range(0, 2_000, 500):
        writer.begin(records[begin : begin + 500], NOW_NS)
        while begin < 1_500 and not writer.is_durable(0.1):
            pass
    writer.close()
    assert len(world.files()) > 1
    frames = [frame for file in world.files() for frame in world.frames(file)]
    assert [record for frame in frames for record in frame.records] == records
    assert verify(world.log, world.keys).faults == []


def test_a_flush_that_fails_beside_ends_the_writer_for_ever(
    disk: DiskBeside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may falsely succeed when it is tried again: nobody asks a second time."""
    world = World(tmp_path)
    writer = world.open(disk=disk)
    ends = os.pipe()
    begin_flush = disk.begin_flush
    monkeypatch.setattr(disk, "begin_flush", lambda _: begin_flush(ends[1]))
    with pytest.raises(LogNotWritable):
        writer.commit([world.request(1)], NOW_NS)
    monkeypatch.undo()
    for attempt in (lambda: writer.commit([b"x"], NOW_NS), lambda: writer.is_durable(0.0)):
        with pytest.raises(LogNotWritable):
            attempt()
    writer.close()
    for end in ends:
        os.close(end)


class LateDisk(Disk):
    """Finishes a flush when it is asked for the second time, and notes what it is called for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self.calls.append("write")
        super().write(descriptor, data, offset)

    def begin_flush(self, descriptor: int) -> None:
        self.calls.append("begin")
        self._descriptor, self._is_asked = descriptor, False

    def is_flushed(self, wait_s: float) -> bool:  # noqa: ARG002
        is_done, self._is_asked = self._is_asked, True
        if is_done:
            self.calls.append("done")
            if self.fails:
                self.fails = False  # a second try would succeed: nobody may make it
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.flush(self._descriptor)
        return is_done


def test_frames_and_the_end_of_a_file_wait_for_the_flush_before(tmp_path: Path) -> None:
    """One frame under way at a time: else a power cut leaves whole ones behind a torn one."""
    world, disk = World(tmp_path), LateDisk()
    writer = world.open(file_bytes=1 << 20, disk=disk)
    disk.calls.clear()
    writer.begin([world.request(1, code=4001)] * (group_records_max + 1), NOW_NS)
    assert disk.calls == ["write", "begin", "done", "write", "begin"]
    assert not writer.is_durable(0.0)
    writer.close()
    assert disk.calls[5:] == ["done", "write"]
    assert verify(world.log, world.keys).faults == []


def test_a_flush_that_failed_is_not_asked_for_again(tmp_path: Path) -> None:
    """It would be taken for one that succeeded."""
    world, disk = World(tmp_path), LateDisk()
    writer = world.open(disk=disk)
    writer.begin([world.request(1)], NOW_NS)
    assert not writer.is_durable(0.0)
    disk.fails = True
    for _ in range(3):
        with pytest.raises(LogNotWritable):
            writer.is_durable(0.0)
    writer.close()
    assert disk.calls[-1] == "done"


def test_where_the_kernel_has_no_such_calls_a_flush_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock
) -> None:
    """The log is written all the same."""
    monkeypatch.setattr(beside, "_NUMBERS", {})
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        DiskBeside(clock)
    assert disk_beside(clock) is DISK
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    DISK.begin_flush(descriptor)
    assert DISK.is_flushed(0.0)
    os.close(descriptor)
