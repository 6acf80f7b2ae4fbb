"""Crashes: torn tails, lost sectors, killed processes, and what the next run makes of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.slots import file_of
from ksz_router.privacylog.verify import verify
from tests.privacylog_world import NOW_NS, World, crash

SECTOR = 512


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def crashed(world: World, *, commits: int = 3, records: int = 60) -> tuple[Path, list[bytes]]:
    """A file of large frames whose writer was killed; the file and all it was given."""
    writer = world.open(file_bytes=64 * 4096)
    given = []
    for commit in range(commits):
        group = [world.request(commit * records + n, code=4001) for n in range(records)]
        writer.commit(group, NOW_NS)
        given += group
    crash(writer)
    return writer.file, given


def read(world: World, file: Path) -> list[bytes]:
    return [record for frame in world.frames(file) for record in frame.records]


def test_a_file_cut_anywhere_in_its_last_frame_keeps_all_frames_before(world: World) -> None:
    """At every 512 bytes, as if the rest had never reached the disk; the length kept or not."""
    file, given = crashed(world)
    keys, data = KeyRing(world.keys), file.read_bytes()
    last = world.frames(file)[-1]
    durable = given[: last.first_record]
    for cut in range(last.offset, last.offset + last.size, SECTOR):
        for rest in (b"", bytes(len(data) - cut)):
            file.write_bytes(data[:cut] + rest)
            found = scan(file, keys)
            whole = read(world, file) == given
            assert whole or read(world, file) == durable
            if not whole:
                assert found.end is (End.OPEN if cut == last.offset and rest else End.TORN)
                assert found.frames == last.number - 1


def test_lost_sectors_of_the_frame_under_way_lose_that_frame_only(world: World) -> None:
    """After the last flush any sector may be missing, or hold what stood there before."""
    file, given = crashed(world)
    keys, data, random = KeyRing(world.keys), file.read_bytes(), Random(7)
    last = world.frames(file)[-1]
    sectors = range(last.offset, last.offset + last.size - 4096, SECTOR)
    for trial in range(100):
        torn = bytearray(data)
        for at in random.sample(sectors, random.randint(1, len(sectors))):
            torn[at : at + SECTOR] = bytes(SECTOR) if trial % 2 else random.randbytes(SECTOR)
        file.write_bytes(torn)
        found = scan(file, keys)
        assert found.end in (End.TORN, End.OPEN)
        assert read(world, file) == given[: last.first_record]


def test_damage_before_the_last_frame_is_corruption_and_stops_a_new_run(world: World) -> None:
    """What was durable and is damaged is no torn tail: nobody goes on over it in silence."""
    file, given = crashed(world)
    keys, data, random = KeyRing(world.keys), file.read_bytes(), Random(7)
    frames = world.frames(file)
    found = scan(file, keys)
    for _ in range(100):
        bad = bytearray(data)
        at = random.randrange(4096, frames[-1].offset)
        bad[at] ^= 1 << random.randrange(8)
        file.write_bytes(bad)
        hit = next(frame for frame in reversed(frames) if frame.offset <= at)
        found = scan(file, keys)
        assert (found.end, found.frames) == (End.CORRUPT, hit.number - 1)
        assert hit.offset <= found.offset <= at
        assert read(world, file) == given[: hit.first_record]
    with pytest.raises(LogCorrupt, match=f"behind frame {found.frames}"):
        world.open()
    assert world.files() == [file], "the doubtful file is left alone, and no other begun"


@pytest.mark.parametrize("place", [4, 4096 + 4095, -1])
def test_a_changed_header_and_nonzero_padding_are_corruption(world: World, place: int) -> None:
    """No torn write puts a byte there; the end of a closed file counts too."""
    writer = world.open()
    writer.commit([world.request(1, code=4001)], NOW_NS)
    writer.close()
    data = bytearray(writer.file.read_bytes())
    data[place] ^= 1
    writer.file.write_bytes(data)
    with pytest.raises(LogCorrupt):
        world.open()


def test_a_missing_or_exchanged_file_stops_a_new_run(world: World) -> None:
    """The header of each file names the one before."""
    for number in range(2):
        writer = world.open()
        writer.commit([world.request(number)], NOW_NS)
        crash(writer)
    first, second = world.files()
    kept = first.read_bytes()
    first.unlink()
    # The second file settled the first; so take its settling away to make the first needed.
    unsettled = second.read_bytes()
    second.write_bytes(unsettled[:4096] + bytes(len(unsettled) - 4096))
    with pytest.raises(LogCorrupt, match="missing"):
        world.open()
    first.write_bytes(kept[: len(kept) - 15 * 4096] + bytes(15 * 4096))
    with pytest.raises(LogCorrupt, match="the next file names frame"):
        world.open()


KILLED = """
import sys
from pathlib import Path
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import NOW_NS, World
class Old(World):
    def __init__(self, folder):
        self.log, self.keys, self.now_ns = folder / "log", folder / "keys", NOW_NS
        from ksz_router.privacylog.keys import Tokens, load
        self.tokens = Tokens(load(self.keys, "2026Q4"))
world = Old(Path(sys.argv[1]))
writer = world.open(file_bytes=64 * 4096)
number = int(sys.argv[2])
while True:
    writer.commit([world.request(number + n) for n in range(7)], NOW_NS)
    print(number, flush=True)
    number += 7
"""


def test_killed_processes_lose_nothing_that_they_acknowledged(world: World) -> None:
    """kill -9 in the midst of commits, several times over one slot."""
    acknowledged: set[int] = set()
    for run in range(4):
        begin = 1_000_000 * run
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(world.log.parent), str(begin)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert child.stdout is not None
        for line, _ in zip(child.stdout, range(40 + run), strict=False):
            first = int(line)
            acknowledged.update(range(first, first + 7))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    world.open().close()
    entries = world.entries()
    requests = [int.from_bytes(e.exchange or b"") for e in entries if e.kind is Kind.REQUEST]
    outcomes = [int.from_bytes(e.exchange or b"") for e in entries if e.kind is Kind.OUTCOME]
    assert acknowledged <= set(requests)
    assert sorted(outcomes) == sorted(requests), "each was open, and is settled once"
    assert verify(world.log, world.keys).faults == []


def test_a_slot_says_where_its_files_are(world: World) -> None:
    """The layout of the specification."""
    world.open().close()
    assert world.files() == [world.log / "w0" / "000001.wal"]
    assert file_of(world.slot, 1_234_567).name == "1234567.wal"


def test_nonzero_padding_of_the_last_frame_is_corruption(world: World) -> None:
    """The frame arrived whole, so the byte behind it came later: no crash does that."""
    file, _ = crashed(world)
    last = world.frames(file)[-1]
    with file.open("r+b") as stream:
        os.pwrite(stream.fileno(), b"\1", last.offset + last.size - 1)
    found = scan(file, KeyRing(world.keys))
    assert (found.end, found.offset) == (End.CORRUPT, last.offset + last.size - 1)


@pytest.mark.parametrize("seen", [0, 1024])
def test_a_frame_that_arrives_while_a_live_file_is_read_is_read_too(
    world: World, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    """Its first look sees none or a part of it: neither damage nor the end of the log."""
    file, given = crashed(world)
    last = world.frames(file)[-1]
    true_pread = os.pread
    looks: list[int] = []

    def early(descriptor: int, size: int, offset: int) -> bytes:
        data = true_pread(descriptor, size, offset)
        if offset == last.offset and not looks:
            looks.append(offset)
            return data[:seen].ljust(size, b"\0")
        return data

    monkeypatch.setattr(os, "pread", early)
    assert read(world, file) == given
    looks.clear()
    assert scan(file, KeyRing(world.keys)).end is End.OPEN
    looks.clear()
    assert verify(world.log, world.keys).faults == []
    assert looks
