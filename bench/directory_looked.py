"""Look persons up at random in a large directory and in a small one, in turn; open a large one."""

import gc
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import machine
from bench.directory_built import Ground, prepare, warm
from bench.world import BenchError
from ksz_router.directory import folder as layout
from ksz_router.directory.packing import unpack_key
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.writer import Writer

BATCH, BATCHES, ROUNDS, OPENED = 64, 2_048, 7, 9

_OPEN = """
import sys, time
from pathlib import Path
from ksz_router.directory.snapshot import Directory
began = time.perf_counter()
directory = Directory.open(Path(sys.argv[1]))
found = directory.look_up([sys.argv[2]])
print((time.perf_counter() - began) * 1e3)
assert found != [None]
"""

Batches = list[list[str]]


def measure_look_up(ground: Ground) -> dict[str, Any]:
    """Time batches of 64 random persons, each by itself, on the clock of the wall."""
    prepare(ground.directory, ground.persons)
    prepare(ground.directory_small, ground.persons_small)
    places = {"large": ground.directory, "small": ground.directory_small}
    asked = {name: _drawn(place) for name, place in places.items()}
    means: dict[str, list[float]] = {name: [] for name in places}
    p99s: dict[str, list[float]] = {name: [] for name in places}
    cpu: dict[str, list[float]] = {name: [] for name in places}
    lines: dict[str, float] = {}
    gc.collect()
    gc.disable()  # as in a worker
    for place in places.values():
        warm(place)
    for name, place in places.items():  # the first pass maps the pages
        with closing(Directory.open(place)) as directory:
            lines[name] = _timed(directory, asked[name])[1]
    for number in range(ROUNDS):
        for name, place in places.items():
            with closing(Directory.open(place)) as directory:
                _timed(directory, asked[name])  # its pages are mapped anew
                began = time.process_time()
                taken, _ = _timed(directory, asked[name])
                cpu[name].append((time.process_time() - began) * 1e6 / (BATCH * BATCHES))
            means[name].append(statistics.fmean(taken) / BATCH)
            p99s[name].append(statistics.quantiles(taken, n=100)[-1])
        print(
            f"round {number + 1}  "
            + "  ".join(f"{name} {means[name][-1]:.2f} µs" for name in places),
            flush=True,
        )
    gc.enable()
    return {
        "lookup_warm_us": round(statistics.median(means["large"]), 2),
        "lookup_batch_p99_us": round(statistics.median(p99s["large"]), 1),
        "growth_ratio": round(
            statistics.median(a / b for a, b in zip(means["large"], means["small"], strict=True)), 2
        ),
        "lookup_us": {name: machine.spread(values, 2) for name, values in means.items()},
        "lookup_cpu_us": {name: machine.spread(values, 2) for name, values in cpu.items()},
        "lookup_p99_us": {name: machine.spread(values, 1) for name, values in p99s.items()},
        "lookup_lines": {name: round(count, 2) for name, count in lines.items()},
        "rounds": ROUNDS,
    }


def measure_open(ground: Ground) -> dict[str, Any]:
    """Open after a clean stop of a writer, in a process of its own, until the first look-up."""
    prepare(ground.directory, ground.persons)
    known = _drawn(ground.directory)[0][0]
    Writer.open(ground.directory).close()
    taken = []
    for _ in range(OPENED):
        line = [sys.executable, "-c", _OPEN, str(ground.directory), known]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"the directory does not open:\n{done.stderr}")
        taken.append(float(done.stdout))
    return {
        "open_ms": round(statistics.median(taken), 2),
        "open_spread_ms": machine.spread(taken, 2),
    }


def _drawn(place: Path) -> Batches:
    """Numbers from all over the directory, the same each time."""
    dice = random.Random(1)
    found: list[str] = []
    environment = layout.open_environment(layout.current(place))
    with (
        closing(environment),
        environment.begin(environment.open_db(layout.PERSONS, create=False)) as view,
        view.cursor() as cursor,
    ):
        while len(found) < BATCH * BATCHES:
            day = dice.randrange(100) * 10_000 + dice.randrange(1, 13) * 100 + dice.randrange(1, 29)
            near = day * 100_000 + dice.randrange(100_000)
            if cursor.set_range(near.to_bytes(5, "big")):
                found.append(unpack_key(cursor.key()))
    return [found[at : at + BATCH] for at in range(0, len(found), BATCH)]


def _timed(directory: Directory, batches: Sequence[list[str]]) -> tuple[list[float], float]:
    """Microseconds of each batch, and how many lines a person has."""
    look_up, clock = directory.look_up, time.perf_counter_ns
    taken, lines = [], 0
    for batch in batches:
        began = clock()
        found = look_up(batch)
        taken.append((clock() - began) / 1e3)
        lines += sum(len(person.lines) for person in found if person is not None)
    return taken, lines / (len(batches) * BATCH)
