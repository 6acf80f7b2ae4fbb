"""Exchanges that a crash left open: each gets one outcome, at the next start, whatever happens."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from ksz_router.codes import Code
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US, Kind, parse
from ksz_router.privacylog.frame import SETTLED
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import open_exchanges
from ksz_router.privacylog.taking import LogNotWritable
from ksz_router.privacylog.verify import verify
from tests.privacylog_world import NEXT_QUARTER_NS, NOW_NS, World, crash


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_exchanges_left_open_get_an_unknown_outcome_once_over_many_crashes(world: World) -> None:
    """However often the next run is killed, and wherever: one outcome for each, no more."""
    writer = world.open()
    writer.commit([world.request(n) for n in range(1, 40)], NOW_NS)
    writer.commit([world.outcome(n) for n in range(1, 10)], NOW_NS)
    writer.commit([world.request(n, code=4001) for n in range(50, 60)], NOW_NS)
    crash(writer)
    for _ in range(5):
        world.now_ns += 3_600_000_000_000
        crash(world.open())
    world.open().close()

    unknown = [entry for entry in world.entries() if entry.code == Code.OUTCOME_UNKNOWN]
    assert sorted(int.from_bytes(entry.exchange or b"") for entry in unknown) == [*range(10, 40)]
    assert {entry.at_us for entry in unknown} == {(NOW_NS + 3_600_000_000_000) // 1000}
    assert all(entry.kind is Kind.OUTCOME and entry.stage == 9 for entry in unknown)
    assert verify(world.log, world.keys).faults == []


class DyingDisk(Disk):
    """Lets so many calls through, and not one more; the last one is done or not."""

    def __init__(self, calls: int, *, done: bool) -> None:
        self.left = calls
        self.done = done

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._count(lambda: Disk.write(self, descriptor, data, offset))

    def flush(self, descriptor: int) -> None:
        self._count(lambda: Disk.flush(self, descriptor))

    def _count(self, work: Callable[[], None]) -> None:
        self.left -= 1
        if self.left > 0 or (self.left == 0 and self.done):
            work()
        if self.left <= 0:
            raise OSError(errno.EIO, "died")


@pytest.mark.parametrize("done", [False, True])
def test_a_run_that_dies_anywhere_while_settling_is_settled_by_the_next(
    world: World, *, done: bool
) -> None:
    """Runs die after each call to the disk in turn; no exchange is settled twice or forgotten."""
    many = range(1, 60)
    writer = world.open(file_bytes=128 * 4096)
    writer.commit([world.request(n) for n in many], NOW_NS)
    crash(writer)
    calls, settled_in_part = 1, 0
    while True:
        try:  # four pages a file: settling takes several files
            writer = world.open(file_bytes=4 * 4096, disk=DyingDisk(calls, done=done))
        except LogNotWritable:
            calls += 1
            left = open_exchanges(world.slot, KeyRing(world.keys)).open
            settled_in_part += 0 < len(left) < len(many)
        else:
            break
    crash(writer)
    assert settled_in_part
    unknown = [e.exchange for e in world.entries() if e.code == Code.OUTCOME_UNKNOWN]
    assert len(unknown) == len(set(unknown)) == len(many)
    assert verify(world.log, world.keys).faults == []


def test_the_search_for_open_exchanges_goes_back_over_files_as_far_as_needed(world: World) -> None:
    """An open exchange may be some files back; but not further than an outcome may take."""
    writer = world.open()
    writer.commit([world.request(1)], NOW_NS)
    old = NOW_NS // 1000
    for number in range(100, 160):
        at_us = old + (number - 100) * 100_000
        writer.commit([world.request(number, code=4001, at_us=at_us)], NOW_NS)
    crash(writer)
    assert len(world.files()) > 3
    recovered = open_exchanges(world.slot, KeyRing(world.keys))
    assert [entry.exchange for entry in recovered.open] == [(1).to_bytes(16, "big")]


def test_the_search_goes_back_no_further_than_an_outcome_may_take(world: World) -> None:
    """One long run: behind a request that is too old no file is even looked at."""
    writer = world.open()
    for number in range(60):
        at_us = NOW_NS // 1000 + number * OUTCOME_WITHIN_US // 12
        writer.commit([world.request(number, at_us=at_us)], NOW_NS)
    crash(writer)
    assert len(world.files()) == 5
    for file in world.files()[:3]:
        file.unlink()
    found = open_exchanges(world.slot, KeyRing(world.keys)).open
    assert [int.from_bytes(entry.exchange or b"") for entry in found] == [*range(42, 60)]


def test_a_new_run_says_that_earlier_exchanges_are_settled(world: World) -> None:
    """The first frame of each run but the first; on it the search may stop."""
    crash(world.open())
    crash(world.open())
    first, second = world.files()
    assert world.frames(first) == []
    assert [frame.flags for frame in world.frames(second)] == [SETTLED]


def test_a_crash_over_the_end_of_a_quarter_is_settled_under_the_new_keys(world: World) -> None:
    """The outcome needs no token of the old quarter."""
    writer = world.open()
    writer.commit([world.request(1)], NOW_NS)
    crash(writer)
    world.now_ns = NEXT_QUARTER_NS
    world.open().close()
    (unknown,) = [e for e in world.entries() if e.kind is Kind.OUTCOME]
    assert unknown.person is None
    assert unknown.user is None
    assert unknown.requester == parse(world.request(1)).requester
