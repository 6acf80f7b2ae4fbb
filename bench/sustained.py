"""The whole log at work: two writers, the sequencer and the sealer, each a process of its own.

First everything at once for ten minutes at the rate asked for. Then the sealer is stopped while a
backlog is written, commits are timed at 2,000 records a second without it, and once more while it
works the backlog off. Which checkpoint covered which record is told from the order afterwards.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.log_ground import Array, Ground, Loaded, Watch
from bench.world import BenchError
from ksz_router.privacylog.archive.seal import LEAVES_READY
from ksz_router.privacylog.tree.order import Order

RATE, PACED_RATE, BACKLOG_RATE = 22_000, 2_000, 40_000
GROUP_MIN = 16


class Times(NamedTuple):
    """Seconds of each step."""

    sustained: float = 600.0
    backlog: float = 60.0
    paced: float = 60.0


QUICK = Times(20.0, 10.0, 10.0)


def checkpoint_delays_s(order: Order, watch: Watch, loaded: Loaded) -> Array:
    """Seconds from the moment each group was durable until a checkpoint covered all of it.

    Raises:
        BenchError: one never came under a checkpoint.
    """
    seen_ns, sizes = np.array(watch.checkpoints, dtype=np.int64).T
    lines = list(order.lines(0))
    delays = []
    for slot, (ended_ns, last) in loaded.groups.items():
        own = [line for line in lines if line.slot == slot]
        first = np.array([line.first_record for line in own])
        leaf = np.array([line.first_leaf for line in own])
        at = np.searchsorted(first, last, side="right") - 1
        leaves = leaf[at] + last - first[at]
        covered = np.searchsorted(sizes, leaves, side="right")
        if len(leaves) and covered.max() == len(sizes):
            raise BenchError(f"entries of {slot} that were durable are under no checkpoint")
        delays.append((seen_ns[covered] - ended_ns) / 1e9)
    return np.concatenate(delays)


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Run all steps; see the module's docstring.

    Raises:
        BenchError: a program ended, or something that was durable never came under a checkpoint.
    """
    ground = Ground(folder)
    watch = Watch(ground.archive)
    try:
        return _steps(ground, watch, QUICK if quick else Times(), RATE)
    finally:
        ground.kill()
        watch.close()


def _steps(ground: Ground, watch: Watch, times: Times, rate: float) -> dict[str, Any]:
    print(f"{times.sustained:.0f} s at {rate:,.0f} records/s, all programs running", flush=True)
    ground.start("sequencer")
    ground.start("sealer")
    full = ground.load(rate, times.sustained, GROUP_MIN)
    total = full.records
    after_s = watch.await_signed(total)
    backlog, cpu_s = watch.backlog, ground.cpu_s()
    per_s = total / (full.seconds + after_s)
    print(f"{per_s:,.0f} records/s under checkpoints; {backlog:,} not sealed yet", flush=True)
    caught_up_s = watch.await_sealed(total)
    print(f"sealed {caught_up_s:.1f} s later, but for {watch.backlog:,} that wait", flush=True)
    ground.stop("sealer")
    print(f"{times.backlog:.0f} s of backlog, no sealer running", flush=True)
    total += ground.load(BACKLOG_RATE, times.backlog, GROUP_MIN).records
    quiet = ground.load(PACED_RATE, times.paced)
    total += quiet.records
    print(f"without sealing {_percentiles(quiet.commit_us)}", flush=True)
    before, begun_with = watch.backlog, total
    ground.start("sealer")
    sealing = ground.load(PACED_RATE, times.paced)
    total += sealing.records
    left = watch.backlog
    worked_off = (at for at, leaves in watch.sealed if leaves > begun_with - LEAVES_READY)
    until_ns = next(worked_off, time.time_ns())
    during = sealing.commit_us[sealing.ended_ns <= until_ns]
    print(f"while sealing   {_percentiles(during)}; {before:,} to seal, {left:,} left", flush=True)
    watch.await_signed(total)
    ground.stop("sealer")
    ground.stop("sequencer")
    delays = [
        checkpoint_delays_s(Order(ground.archive / "order"), watch, one) for one in (full, sealing)
    ]
    return {
        "sustained_records_per_s": round(per_s),
        "sustained_seconds": round(full.seconds),
        "offered_records_per_s": rate,
        "not_sealed_at_end": backlog,
        "sealed_after_s": round(caught_up_s, 1),
        "group_records": round(float(full.records / len(full.commit_us)), 1),
        "program_cpu_s": {name: round(value, 1) for name, value in cpu_s.items()},
        "writers_cpu_s": round(full.cpu_s, 1),
        **_named("commit", during),
        "commit_without_sealing_ms": _percentiles(quiet.commit_us),
        "commit_sustained_ms": _percentiles(full.commit_us),
        "commit_p99_ratio": round(_ms(during, 99) / _ms(quiet.commit_us, 99), 2),
        "waited_ms": _percentiles(sealing.waited_us),
        "backlog_before": before,
        "backlog_left": left,
        "checkpoint_delay_p99_s": round(max(float(np.percentile(d, 99)) for d in delays), 2),
        "checkpoint_delay_max_s": round(max(float(d.max()) for d in delays), 2),
    }


def _named(name: str, values_us: Array) -> dict[str, float]:
    return {f"{name}_{key}_ms": value for key, value in _percentiles(values_us).items()}


def _percentiles(values_us: Array) -> dict[str, float]:
    return {"p50": _ms(values_us, 50), "p99": _ms(values_us, 99), "p99_9": _ms(values_us, 99.9)}


def _ms(values_us: Array, share: float) -> float:
    return round(float(np.percentile(values_us, share)) / 1e3, 2)
