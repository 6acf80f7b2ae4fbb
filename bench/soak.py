"""``make bench-soak``: a quarter of an hour at a steady load: what grows, and what stalls.

Requests are sent at moments fixed beforehand, whatever the router does. Memory of all processes of
the router is read every five seconds, and the metrics with it. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import kept, machine, scrapes
from bench.runs import CONNECTIONS, await_line, metrics_ports
from bench.world import BenchError, World, finish
from ksz_router.limits import log_file_bytes

MINUTES, OFFERED_PER_S, OUTSTANDING, PAYLOAD_BYTES = 15.0, 5_000, 64, 300
SETTLE_S = 60.0
"""What a router takes until it has what it works with; and the window of a median of memory."""
_FINISH_SECONDS_MAX = 120.0


class Sample(NamedTuple):
    """Memory at one moment."""

    second: float
    own_mib: float
    """Of the processes themselves, that no file stands behind."""
    resident_mib: float
    """With the pages of mapped files, which the kernel may take back whenever it likes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="(default %(default)s)")
    parser.add_argument("--rate", type=int, default=OFFERED_PER_S, help="(default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one minute; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    arguments = parser.parse_args()
    minutes = 1.0 if arguments.quick else arguments.minutes
    folder = Path(tempfile.mkdtemp(prefix="ksz-soak-", dir=arguments.folder))
    try:
        result = _bench(folder, 60 * minutes, arguments.rate)
    except BenchError as error:
        print(f"bench-soak: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if minutes >= MINUTES and arguments.rate == OFFERED_PER_S:
        kept.keep(result)
    print(json.dumps({name: value for name, value in result.items() if name != "memory"}))
    return 1 if result["lost"] or result["doubled"] or result["worker_restarts"] else 0


def _bench(folder: Path, seconds: float, rate: int) -> dict[str, Any]:
    options = {"privacy_log": {"file_bytes": log_file_bytes}}  # the default; a stand has less
    world = World(folder, options=options)
    try:
        world.stand.start()
        assert world.stand.process is not None
        flushes_ms = machine.flush_ms(world.stand.log)
        router = machine.processes_under(world.stand.process.pid)
        generator = world.generate(
            payload_bytes=PAYLOAD_BYTES, connections=CONNECTIONS, outstanding=OUTSTANDING,
            rate=rate, seconds=seconds, warmup=1.0,
        )  # fmt: skip
        await_line(generator, "begin")
        before = scrapes.summed(scrapes.read(metrics_ports(world)))
        cpu_us = machine.cpu_us(router)
        samples = _watch(world, generator, seconds)
        await_line(generator, "end")
        cpu_us = machine.cpu_us(router) - cpu_us
        shown = scrapes.read(metrics_ports(world))
        restarts = sum(worker["restarts"] for worker in world.status()["workers"])
        report = finish(generator, _FINISH_SECONDS_MAX)
        world.check_source()
        flushes_ms += machine.flush_ms(world.stand.log)
        where = machine.describe(world.stand.log)
    finally:
        world.close()
    counted = scrapes.since(before, scrapes.summed(shown))
    latency = {name: round(us / 1e3, 2) for name, us in report["latency_us"].items()}
    return {
        "bench": "soak",
        **growth(samples, min(SETTLE_S, seconds / 5)),
        **{name: report[name] for name in ("lost", "doubled", "unsent")},
        "not_answered_with_data": report["wrong"],
        "worker_restarts": restarts,
        **_stalls(counted, shown),
        **{f"{name}_ms": latency[name] for name in ("p50", "p99", "p99_9", "max")},
        "offered_per_s": rate,
        "exchanges_per_s": round(report["window_answers"] / report["window_s"]),
        "exchanges": report["window_answers"],
        "cpu_us_per_exchange": round(cpu_us / max(1, report["window_answers"]), 2),
        "minutes": round(seconds / 60, 2),
        "flush_p50_ms": round(statistics.median(flushes_ms), 3),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": machine.versions(),
        "memory": [[round(figure, 2) for figure in sample] for sample in samples],
    }


def _watch(world: World, generator: "subprocess.Popen[str]", seconds: float) -> list[Sample]:
    """Read memory and metrics every five seconds until the load ends; say each minute how it is."""
    assert world.stand.process is not None
    began_s = time.monotonic()
    samples: list[Sample] = []
    while (left_s := began_s + seconds - time.monotonic()) > 0:
        if generator.poll() is not None:
            raise BenchError("the generator ended early; it said why above")
        own, resident = _memory_mib(machine.processes_under(world.stand.process.pid))
        samples.append(Sample(time.monotonic() - began_s, own, resident))
        shown = scrapes.read(metrics_ports(world))
        if len(samples) % round(60 / machine.SCRAPE_SECONDS) == 0:
            longest_ms = scrapes.largest(shown, "gc_pause_max_seconds") * 1e3
            print(
                f"{samples[-1].second / 60:5.1f} min  own memory {own:7.2f} MiB  resident "
                f"{resident:7.2f} MiB  longest collector pause {longest_ms:.2f} ms",
                flush=True,
            )
        time.sleep(max(0.0, min(machine.SCRAPE_SECONDS, left_s)))
    return samples


def _memory_mib(pids: Sequence[int]) -> tuple[float, float]:
    """Return what processes hold of their own, and what is resident with mapped files.

    Their own is ``RssAnon``: what they allocated. No two of them share it, since each is a program
    started anew. Left out are pages of mapped files, of libraries and of LMDB: those grow with the
    persons that were asked about up to the size of the tables, and are the kernel's to take back.
    """
    own_kib = resident_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
        except OSError:
            continue  # it ended meanwhile
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        own_kib += int(fields.get("RssAnon", "0 kB").split()[0])
        resident_kib += int(fields.get("VmRSS", "0 kB").split()[0])
    return own_kib / 1024, resident_kib / 1024


def growth(samples: Sequence[Sample], window_s: float) -> dict[str, float]:
    """Return how much memory grew from the window after warming up to the last one."""
    if len(samples) < 2:
        raise BenchError("too short to say anything of memory")
    first = [one for one in samples if window_s <= one.second < 2 * window_s] or samples[:1]
    last = [one for one in samples if one.second >= samples[-1].second - window_s]
    own, resident = (
        [statistics.median(getattr(one, name) for one in window) for window in (first, last)]
        for name in ("own_mib", "resident_mib")
    )
    return {
        "rss_growth_mib": round(own[1] - own[0], 2),
        "rss_mib": round(own[1], 2),
        "resident_growth_mib": round(resident[1] - resident[0], 2),
        "resident_mib": round(resident[1], 2),
    }


def _stalls(counted: scrapes.Figures, shown: Sequence[str]) -> dict[str, float]:
    """Return how late timers were, as the bound of a bucket, and how long the collector paused."""
    lag = scrapes.histograms(counted, "event_loop_lag_seconds")[""]
    pauses = scrapes.histograms(counted, "gc_pause_seconds")[""]
    return {
        "loop_lag_p99_ms": round(lag.bound_of(0.99) * 1e3, 2),
        "gc_pause_max_ms": round(scrapes.largest(shown, "gc_pause_max_seconds") * 1e3, 2),
        "gc_pauses": round(pauses.counted),
        "gc_pauses_ms": round(pauses.total * 1e3, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
