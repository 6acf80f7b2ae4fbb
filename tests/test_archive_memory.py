"""What the sealer holds at a time is bounded, and as much in every step."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from bench.log_archive import Bench
from ksz_router.privacylog.archive.interleave import ROWS_AT_ONCE, grouped, interleaved
from ksz_router.privacylog.archive.leaves import PIECE_LEAVES, Gathering
from ksz_router.privacylog.archive.ordered import Taken
from ksz_router.privacylog.archive.pieces import check
from ksz_router.privacylog.archive.seal import LEAVES_MAX
from ksz_router.privacylog.archive.segment import rows_of, write_groups
from ksz_router.privacylog.frame import Place
from ksz_router.privacylog.keys import load
from tests.privacylog_world import QUARTER, World

STEP_MIB_MAX = 100
"""Of two steps of full size, above what the program needs before the first: 75 were measured."""
_STEPS = """
import os, sys, threading, time
from pathlib import Path
from ksz_router.daemon.memory import keep_memory
keep_memory(0)
from ksz_router.daemon.niced import when_idle
from ksz_router.privacylog.archive.seal import Grounds, Sealer
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.checkpoint import Signer
from ksz_router.privacylog.writer import Writer

def own_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

folder, origin, now_ns = Path(sys.argv[1]), sys.argv[2], time.time_ns()
keys = folder / "keys"
writer = Writer.open(
    folder / "log", slot="s0", node="bench", keys_folder=keys, now_ns=now_ns, file_bytes=1 << 20
)
signer = Signer(folder / "tree-keys", origin)
grounds = Grounds(
    archive=folder / "archive", log=folder / "log", keys=KeyRing(keys), node="bench",
    origin=origin, vkeys=signer.vkeys,
)
most = [0.0]
sealer = Sealer(
    grounds, writer, now_us=now_ns // 1000, pause=lambda: most.append(max(most.pop(), own_mib()))
)
before, leaves = own_mib(), []
while when_idle(lambda: sealer.step(now_ns // 1000)):
    leaves.append([sealer.sealed_leaves, most[0] - before])
print(leaves)
"""


def test_a_step_of_full_size_needs_little_and_the_next_no_more(tmp_path: Path) -> None:
    """In a process of its own, as the sealer has one; read at each pause."""
    bench = Bench(tmp_path)
    bench.write(2 * LEAVES_MAX + 1000)
    bench.open_sequencer()
    bench.sequence()
    bench.sequencer.close()
    command = [sys.executable, "-c", _STEPS, str(tmp_path), bench.grounds().origin]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    steps = json.loads(done.stdout)
    assert 0.9 * LEAVES_MAX < steps[0][0] <= LEAVES_MAX
    assert 0 < steps[0][1] < STEP_MIB_MAX
    assert steps[1][1] - steps[0][1] < 10


def frames(world: World, count: int, records: int) -> Iterator[Taken]:
    keys = load(world.keys, QUARTER)
    for number in range(count):
        first = number * records
        yield Taken("w0", 1, keys, first, first, (b"",) * records, Place(0, number, 0, 0))


@pytest.mark.parametrize("records", [1, 64, 3000, 4096])
def test_records_of_one_piece_are_taken_at_a_time(tmp_path: Path, records: int) -> None:
    """Whole frames; the next one is looked at, and no more."""
    taken = [0]

    def watched() -> Iterator[Taken]:
        for each in frames(World(tmp_path), 3 * PIECE_LEAVES // records + 3, records):
            taken[0] += records
            yield each

    gathering = Gathering(watched(), 2 * PIECE_LEAVES)
    ends = []
    for piece in gathering:
        assert 0 < piece.end - piece.first <= PIECE_LEAVES
        assert taken[0] <= piece.end + records
        ends.append(piece.end)
    assert len(ends) >= 2
    assert gathering.end == ends[-1] == 2 * PIECE_LEAVES // records * records


@pytest.mark.parametrize("runs", [1, 3, 40])
def test_rows_of_runs_are_taken_some_thousand_at_a_time(runs: int) -> None:
    """However many runs there are, and wherever their rows lie."""
    count, under_way, most = 200_000 // runs, 0, 0

    def run(number: int) -> Iterator[pa.Table]:
        nonlocal under_way
        for begin in range(0, count, 300):
            seqs = range(number + begin * runs, number + min(begin + 300, count) * runs, runs)
            under_way += len(seqs)
            keys = [seq.to_bytes(16, "big") for seq in seqs]
            yield pa.table({"key": pa.array(keys, pa.binary(16)), "seq": pa.array(seqs)})

    found = 0
    for table in interleaved("k", [run(number) for number in range(runs)]):
        most = max(most, under_way)
        assert table["seq"].to_pylist() == [*range(found, found + len(table))]
        found, under_way = found + len(table), under_way - len(table)
    assert found == count * runs
    assert most <= 2 * ROWS_AT_ONCE


@pytest.mark.parametrize("size", [1, 7, 10, 1000])
def test_rows_come_in_groups_of_one_size(size: int) -> None:
    ends = [0, 3, 3, 10, 31, 60]
    tables = [
        pa.table({"n": pa.array(range(begin, end), pa.int64())}) for begin, end in pairwise(ends)
    ]
    groups = [table["n"].to_pylist() for table in grouped(iter(tables), size)]
    assert groups == [[*range(begin, min(begin + size, 60))] for begin in range(0, 60, size)]


def test_a_derived_file_is_on_the_disk_before_its_last_group_is_made(tmp_path: Path) -> None:
    """No more of it is in memory than a piece and a row group."""
    file = tmp_path / "x.parquet"
    on_disk, draw = list[int](), Random(1)

    def groups() -> Iterator[pa.Table]:
        for _ in range(3):
            on_disk.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
            keys = [draw.randbytes(16) for _ in range(30_000)]
            place = {"q": ["2026Q4"] * 30_000, "b": pa.array([0] * 30_000, pa.int16())}
            yield pa.table(
                {
                    **place,
                    "node": ["router-a"] * 30_000,
                    "key": pa.array(keys, pa.binary(16)),
                    "seq": pa.array(range(30_000)),
                }
            )

    written = write_groups(file, "k", groups(), pause=lambda: None)
    check(file, written)
    assert written.bytes == file.stat().st_size
    assert [len(rows) for rows in rows_of("k", file)] == [30_000] * 3
    assert on_disk[0] == 0 < on_disk[1] < on_disk[2]


def test_memory_that_was_needed_is_kept() -> None:
    """What a thread used the next one uses, and arrow has it from the same heap."""
    script = """
from pathlib import Path
from threading import Thread
from ksz_router.daemon.memory import keep_memory
keep_memory(0)
import numpy as np
import pyarrow as pa

def own_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

def work():
    numbers = [np.ones(1 << 18) for _ in range(20)]
    assert pa.array(numbers[0]).take(pa.array(np.arange(1 << 18))).sum()

most = []
for _ in range(4):
    thread = Thread(target=work)
    thread.start()
    thread.join()
    most.append(own_mib())
print(pa.default_memory_pool().backend_name, most[0] >= 40, most[3] - most[0] < 10)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["system", "True", "True"]


def test_memory_is_taken_at_the_start_and_used() -> None:
    """What is needed later is there, so that the process does not grow by it."""
    script = """
from pathlib import Path
from ksz_router.daemon.memory import keep_memory

def own_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

before = own_mib()
keep_memory(64)
taken = own_mib()
used = [bytearray(b"1") * (1 << 20) for _ in range(60)]
print(60 <= taken - before <= 68, own_mib() - taken < 5)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["True", "True"]
