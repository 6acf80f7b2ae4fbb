"""What one record costs a worker, and how fast write-ahead files are read again.

Processor time of this process, the least of several rounds: on a shared machine the others only
ever add to it. What the calls that write and flush take of the processor is the kernel's and the
device's, another on each machine, and told beside. So is what reading the clock takes: that of a
process is a system call, and a group is too short for four of them not to count.
"""

import gc
import time
from pathlib import Path
from typing import Any

from bench.log_turns import Turns
from bench.traffic import Traffic
from ksz_router.limits import log_file_bytes
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.keys import KeyRing, Tokens, make, quarter_of
from ksz_router.privacylog.recovery import open_exchanges, scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.privacylog.writer import Writer

GROUP = 16
_LARGER_GROUP = 64
_NODE, _SLOT = "router-a", "w0"


class TimedDisk(Disk):
    """Counts the processor time of writing and flushing: that of the kernel and the device."""

    CALLS = 2
    """So many are timed in a group. Each reads the clock twice: once within what it counts."""

    def __init__(self) -> None:
        self.spent_ns = 0

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        began = time.process_time_ns()
        super().write(descriptor, data, offset)
        self.spent_ns += time.process_time_ns() - began

    def flush(self, descriptor: int) -> None:
        began = time.process_time_ns()
        super().flush(descriptor)
        self.spent_ns += time.process_time_ns() - began


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Both, in a folder of their own."""
    records, rounds = (20_000, 3) if quick else (100_000, 7)
    return worker_cost(folder, records=records, rounds=rounds) | replay(folder, rounds=rounds)


def worker_cost(folder: Path, *, records: int, rounds: int) -> dict[str, Any]:
    """Microseconds of processor time from an exchange to its durable entries, each record.

    Exchanges are drawn just before, as in a worker, and not counted.
    """
    quarter = quarter_of(time.time_ns())
    make(folder / "keys", quarter)
    keys = KeyRing(folder / "keys")
    traffic = Traffic(Tokens(keys.quarter(quarter)), seed=1)
    disk = TimedDisk()
    writer = Writer.open(
        folder / "log",
        slot=_SLOT,
        node=_NODE,
        keys_folder=keys.folder,
        now_ns=time.time_ns(),
        file_bytes=log_file_bytes,
        disk=disk,
    )
    best: dict[int, dict[str, float]] = {}
    collected = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in a worker
    try:
        for size in (GROUP, _LARGER_GROUP):
            measured = [_round(writer, traffic, disk, size, records) for _ in range(rounds)]
            best[size] = min(measured, key=lambda one: one["worker"])
            writer.prepare_next(lambda: None)
    finally:
        gc.unfreeze()
        gc.set_threshold(*collected)
        writer.close()
    _say("a record costs a worker", best[GROUP], GROUP)
    _say("a record costs a worker", best[_LARGER_GROUP], _LARGER_GROUP)
    return {
        "worker_cpu_us_per_record": round(best[GROUP]["worker"], 2),
        "worker_cpu_us": {
            str(size): {name: round(value, 2) for name, value in one.items()}
            for size, one in best.items()
        },
    }


def _round(
    writer: Writer, traffic: Traffic, disk: TimedDisk, size: int, records: int
) -> dict[str, float]:
    clock = time.process_time_ns
    entries_ns = commit_ns = clock_ns = count = 0
    disk.spent_ns = 0
    turns = Turns(traffic, size)
    while count < records:
        turns.draw()
        before = clock()
        began = clock()
        made = turns.entries()
        between = clock()
        writer.commit(made, time.time_ns())
        ended = clock()
        entries_ns, commit_ns = entries_ns + between - began, commit_ns + ended - between
        clock_ns += began - before
        count += len(made)
    spent_ns = disk.spent_ns
    writer.commit(turns.rest(), time.time_ns())
    entries_ns -= clock_ns
    frames_ns = commit_ns - spent_ns - clock_ns * (1 + TimedDisk.CALLS)
    return {
        "worker": (entries_ns + frames_ns) / count / 1e3,
        "entries": entries_ns / count / 1e3,
        "frames": frames_ns / count / 1e3,
        "disk": (spent_ns - clock_ns * TimedDisk.CALLS) / count / 1e3,
        "clock": clock_ns * (2 + 2 * TimedDisk.CALLS) / count / 1e3,
    }


def _say(what: str, cost: dict[str, float], size: int) -> None:
    print(
        f"{what}, in groups of {size}: {cost['worker']:.2f} µs (entries {cost['entries']:.2f}, "
        f"frames {cost['frames']:.2f}), and the disk's calls {cost['disk']:.2f}; "
        f"reading the clock took {cost['clock']:.2f} and is not counted",
        flush=True,
    )


def replay(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Read the files that :func:`worker_cost` wrote, as a recovery does; records per second."""
    keys = KeyRing(folder / "keys")
    files = [file_of(folder / "log" / _SLOT, n) for n in file_numbers(folder / "log" / _SLOT)]
    scanned, recovered = [], []
    for _ in range(rounds):
        records = 0
        began = time.process_time()
        for file in files:
            result = scan(file, keys)
            records += result.next_record - result.header.first_record
        scanned.append(records / (time.process_time() - began))
        began = time.process_time()
        open_exchanges(folder / "log" / _SLOT, keys)
        recovered.append(records / (time.process_time() - began))
    print(
        f"write-ahead files: {max(scanned):,.0f} records/s read, "
        f"{max(recovered):,.0f}/s with what is open",
        flush=True,
    )
    return {
        "replay_records_per_s": round(max(recovered)),
        "read_records_per_s": round(max(scanned)),
    }
