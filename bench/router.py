"""``make bench-router``: exchanges per second, latency and processor time of one router.

Two kinds of run, never mixed. *Saturation*: every connection keeps its requests outstanding, as
fast as answers come; says how much there is, and nothing about latency. *Open loop*: requests are
sent at moments fixed beforehand, whatever the router does; says how long an exchange takes.
``docs/benchmarks.md`` explains the rules and keeps the figures.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import chart, machine
from bench.world import BenchError, World, finish
from ksz_router.limits import log_file_bytes

RESULTS = Path(__file__).with_name("results")
CONNECTIONS = 64
OFFERED_PER_S = 2_000
WARMUP_S = 1.0


class Run(NamedTuple):
    """One pattern of load."""

    name: str
    outstanding: int
    payload_bytes: int
    offered_per_s: int = 0
    """0: as fast as answers come."""


RUNS = (
    Run("saturation 64x16, 300 B", 16, 300),
    Run("saturation 64x16, 2 kB", 16, 2_000),
    Run("saturation 64x1, 300 B", 1, 300),
    Run("saturation 64x1, 2 kB", 1, 2_000),
    Run("open loop 2,000/s, 300 B", 64, 300, OFFERED_PER_S),
    Run("open loop 2,000/s, 2 kB", 64, 2_000, OFFERED_PER_S),
)
HEADLINE_SATURATION, HEADLINE_OPEN = RUNS[0].name, RUNS[4].name


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each run (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 2.0
    folder = Path(tempfile.mkdtemp(prefix="ksz-bench-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments)
    except BenchError as error:
        print(f"bench-router: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not arguments.quick and not arguments.only:
        _keep(result)
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}))
    return 1 if result["lost"] or result["doubled"] else 0


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    options = {"privacy_log": {"file_bytes": log_file_bytes}}  # the default; a stand has less
    runs = [run for run in RUNS if arguments.only in run.name]
    world = World(folder, options=options)
    try:
        world.stand.start()
        ports = [world.stand.metrics_port + index for index in range(2)]
        scraper = machine.Scraper(ports)
        flushes: list[float] = []
        rounds: dict[str, list[dict[str, Any]]] = {run.name: [] for run in runs}
        order = random.Random(1)
        for number in range(arguments.rounds):
            flushes += machine.flush_ms(world.stand.log)
            for run in order.sample(runs, len(runs)):
                measured = _measure(world, run, arguments.seconds, seed=number + 1)
                rounds[run.name].append(measured)
                _tell(number, run, measured)
        scraper.close()
        where = machine.describe(world.stand.log)
    finally:
        world.close()
    return _result(rounds, flushes, where, arguments)


def _measure(world: World, run: Run, seconds: float, *, seed: int) -> dict[str, Any]:
    """Put one load on the router; processor time is that between its two marks."""
    assert world.stand.process is not None
    router = machine.processes_under(world.stand.process.pid)
    generator = world.generate(
        payload_bytes=run.payload_bytes,
        connections=CONNECTIONS,
        outstanding=run.outstanding,
        rate=run.offered_per_s,
        seconds=seconds,
        warmup=WARMUP_S,
        seed=seed,
    )
    _await_line(generator, "begin")
    before = machine.cpu_us(router), machine.cpu_us([world.source.pid]), machine.busy_us()
    _await_line(generator, "end")
    after = machine.cpu_us(router), machine.cpu_us([world.source.pid]), machine.busy_us()
    sessions = [worker["report"]["sessions"] for worker in world.status()["workers"]]
    report = finish(generator, 60)
    world.check_source()
    answers = max(1, report["window_answers"])
    router_us, source_us, busy_us = (a - b for a, b in zip(after, before, strict=True))
    others_us = busy_us - router_us - source_us - report["cpu_us"]
    return {
        "per_s": answers / report["window_s"],
        "router_cpu_us": router_us / answers,
        "source_cpu_us": source_us / answers,
        "generator_cpu_us": report["cpu_us"] / answers,
        "others_cpu": max(0.0, others_us / 1e6 / report["window_s"]),
        "latency_ms": {
            name: value / 1e3 for name, value in report["latency_us"].items() if name != "count"
        },
        "late_p99_ms": report["late_us"].get("p99", 0.0) / 1e3,
        "sessions": sessions,
        **{name: report[name] for name in ("sent", "lost", "doubled", "wrong", "codes")},
    }


def _await_line(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != f"{line}\n":
        raise BenchError("the generator ended early; it said why above")


def _tell(number: int, run: Run, measured: dict[str, Any]) -> None:
    latency = measured["latency_ms"]
    print(
        f"round {number + 1}  {run.name:26} {measured['per_s']:9,.0f}/s  "
        f"{measured['router_cpu_us']:6.1f} µs CPU  p50 {latency['p50']:7.2f}  "
        f"p99 {latency['p99']:7.2f}  p99.9 {latency['p99_9']:7.2f} ms  "
        f"lost {measured['lost']}  other load {measured['others_cpu']:.2f} processors",
        flush=True,
    )


def _result(
    rounds: dict[str, list[dict[str, Any]]],
    flushes: list[float],
    where: dict[str, str | int],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    runs = {name: _summary(measured) for name, measured in rounds.items()}
    every = [measured for name in rounds for measured in rounds[name]]
    saturation, steady = runs.get(HEADLINE_SATURATION), runs.get(HEADLINE_OPEN)
    headline: dict[str, Any] = {"bench": "router"}
    if saturation is not None:
        headline["saturation_per_s"] = saturation["per_s"]["median"]
        headline["cpu_us_per_exchange"] = saturation["router_cpu_us"]["median"]
    if steady is not None:
        headline["offered_per_s"] = OFFERED_PER_S
        for name in ("p50", "p99", "p99_9"):
            headline[f"{name}_ms"] = steady["latency_ms"][name]["median"]
        headline["open_loop_cpu_us_per_exchange"] = steady["router_cpu_us"]["median"]
    return headline | {
        "lost": sum(measured["lost"] for measured in every),
        "doubled": sum(measured["doubled"] for measured in every),
        "not_answered_with_data": sum(measured["wrong"] for measured in every),
        "flush_p50_ms": round(statistics.median(flushes), 3),
        "flush_p99_ms": round(statistics.quantiles(flushes, n=100)[98], 3),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "workers": 2,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": machine.versions(),
        "runs": runs,
    }


def _summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread of all rounds of one run."""
    figures = ("per_s", "router_cpu_us", "source_cpu_us", "generator_cpu_us", "others_cpu")
    return {
        **{name: machine.spread((one[name] for one in measured), 2) for name in figures},
        "latency_ms": {
            name: machine.spread((one["latency_ms"][name] for one in measured), 2)
            for name in measured[0]["latency_ms"]
        },
        "late_p99_ms": machine.spread((one["late_p99_ms"] for one in measured), 2),
        "sessions": [one["sessions"] for one in measured],
        "sent": sum(one["sent"] for one in measured),
        "codes": dict(sum((Counter(one["codes"]) for one in measured), Counter[str]())),
    }


def _keep(result: dict[str, Any]) -> None:
    """Write the result, and the picture of it, among the results of the project."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{result['date']}-router.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    file.with_suffix(".svg").write_text(chart.draw(result), encoding="utf-8")
    print(f"kept in {file}")


if __name__ == "__main__":
    sys.exit(main())
