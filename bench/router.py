"""``make bench-router``: exchanges per second, latency and processor time of one router.

Two kinds of run, never mixed. *Saturation*: every connection keeps its requests outstanding, as
fast as answers come; says how much there is, and nothing about latency. *Open loop*: requests are
sent at moments fixed beforehand, whatever the router does; says how long an exchange takes. The
*sweep* is open loop, at shares of what the saturation of the same pattern came to.
``docs/benchmarks.md`` explains the rules and the names.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import kept, machine, scrapes
from bench.runs import Run, less_two_flushes, measure, metrics_ports, summary
from bench.world import BenchError, World
from ksz_router.limits import log_file_bytes

OFFERED_PER_S = (2_000, 10_000)
SHARES = (0.10, 0.25, 0.50, 0.75, 0.90)
CELLS = {
    "64x16, 300 B": (16, 300),
    "64x16, 2 kB": (16, 2_000),
    "64x1, 300 B": (1, 300),
    "64x1, 2 kB": (1, 2_000),
}
"""Of saturation and sweep: requests outstanding on each of the connections, payload."""

SATURATION = {cell: Run(f"saturation {cell}", *CELLS[cell]) for cell in CELLS}
OPEN_LOOP = {
    f"{rate}/s": Run(f"open loop {rate:,}/s, 300 B", 64, 300, rate) for rate in OFFERED_PER_S
}
HEADLINE = {"one_at_a_time": "64x1, 300 B", "pipelined": "64x16, 300 B"}


class Plan:
    """How long everything takes."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.only: str = arguments.only
        self.stages: bool = arguments.stages
        self.rounds: int = arguments.rounds
        self.seconds: float = arguments.seconds
        self.sweep_rounds: int = arguments.sweep_rounds
        self.sweep_seconds: float = arguments.sweep_seconds
        self.warmup_s = 1.0
        self.is_whole = not (arguments.quick or self.only)
        if arguments.quick:
            self.rounds, self.seconds, self.sweep_rounds, self.sweep_seconds = 1, 2.0, 1, 1.0
            self.warmup_s = 0.5

    def sweeps(self) -> list[str]:
        """The cells to sweep."""
        return [cell for cell in CELLS if self.only in f"sweep {cell}"]

    def runs(self) -> list[Run]:
        """Saturation and open loop; a sweep needs the saturation of its cell."""
        needed = [SATURATION[cell].name for cell in self.sweeps()]
        every = [*SATURATION.values(), *OPEN_LOOP.values()]
        return [run for run in every if self.only in run.name or run.name in needed]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each run (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="measured (default %(default)s)")
    parser.add_argument("--sweep-rounds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--sweep-seconds", type=float, default=4.0, help="(default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round; nothing is kept")
    parser.add_argument("--stages", action="store_true", help="print where the time of each run is")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    arguments = parser.parse_args()
    plan = Plan(arguments)
    if not plan.runs():
        parser.error(f"no run has {plan.only!r} in its name")
    folder = Path(tempfile.mkdtemp(prefix="ksz-bench-", dir=arguments.folder))
    try:
        result = _bench(folder, plan)
    except BenchError as error:
        print(f"bench-router: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for cell, found in result["sweep"].items():
        _tell_sweep(cell, found)
    if plan.is_whole:
        kept.keep(result)
    print(json.dumps({name: v for name, v in result.items() if name not in ("runs", "sweep")}))
    return 1 if result["lost"] or result["doubled"] else 0


def _bench(folder: Path, plan: Plan) -> dict[str, Any]:
    options = {"privacy_log": {"file_bytes": log_file_bytes}}  # the default; a stand has less
    world = World(folder, options=options)
    try:
        world.stand.start()
        scraper = machine.Scraper(metrics_ports(world))
        bench = _Rounds(world, plan)
        bench.go(plan.runs(), plan.rounds, plan.seconds)
        sweep = [run for cell in plan.sweeps() for run in _sweep_runs(cell, bench.measured)]
        bench.go(sweep, plan.sweep_rounds, plan.sweep_seconds)
        scraper.close()
        where = machine.describe(world.stand.log)
    finally:
        world.close()
    if plan.stages:
        for line in scrapes.table_of_stages(bench.counted()):
            print(line)
    return _result(bench.measured, bench.flushes_ms, where, plan)


class _Rounds:
    """Every run once a round, in an order drawn anew, the flush time measured before each."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.measured: dict[str, list[dict[str, Any]]] = {}
        self.flushes_ms: list[float] = []
        self._world, self._plan = world, plan
        self._order = random.Random(1)

    def go(self, runs: Sequence[Run], rounds: int, seconds: float) -> None:
        plan = self._plan
        for number in range(rounds if runs else 0):
            self.flushes_ms += machine.flush_ms(self._world.stand.log)
            for run in self._order.sample(runs, len(runs)):
                found = measure(
                    self._world,
                    run,
                    seconds=seconds,
                    warmup_s=plan.warmup_s,
                    seed=number + 1,
                    stages=plan.stages,
                )
                self.measured.setdefault(run.name, []).append(found)
                _tell(number, run, found)

    def counted(self) -> dict[str, scrapes.Figures]:
        """What the workers counted in each run, all rounds together."""
        return {
            name: scrapes.added(one["figures"] for one in self.measured[name])
            for name in sorted(self.measured)
        }


def _sweep_runs(cell: str, measured: dict[str, list[dict[str, Any]]]) -> list[Run]:
    most = _saturation_per_s(cell, measured)
    return [
        Run(_sweep_name(cell, share), *CELLS[cell], offered_per_s=round(share * most))
        for share in SHARES
    ]


def _sweep_name(cell: str, share: float) -> str:
    return f"sweep {cell}, {share:.0%}"


def _saturation_per_s(cell: str, measured: dict[str, list[dict[str, Any]]]) -> float:
    return float(statistics.median(one["per_s"] for one in measured[SATURATION[cell].name]))


def _tell(number: int, run: Run, measured: dict[str, Any]) -> None:
    latency = measured["latency_ms"]
    print(
        f"round {number + 1}  {run.name:26} {measured['per_s']:9,.0f}/s  "
        f"{measured['router_cpu_us']:6.1f} µs CPU  p50 {latency['p50']:7.2f}  "
        f"p99 {latency['p99']:7.2f}  p99.9 {latency['p99_9']:7.2f} ms  "
        f"lost {measured['lost']}  refused {measured['wrong']}  "
        f"other load {measured['others_cpu']:.2f} processors",
        flush=True,
    )


def _tell_sweep(cell: str, found: dict[str, Any]) -> None:
    print(f"sweep {cell}: medians of the rounds; 100 % are {found['saturation_per_s']:,}/s")
    for load in found["loads"]:
        p50, p99 = (load["latency_ms"][name] for name in ("p50", "p99"))
        print(
            f"{load['share']:6.0%} {load['offered_per_s']:9,}/s  p50 {p50['median']:8.2f}  "
            f"p99 {p99['median']:8.2f} ms ({p99['min']:.2f} to {p99['max']:.2f})  "
            f"{load['router_cpu_us']['median']:6.1f} µs CPU"
        )


def _result(
    measured: dict[str, list[dict[str, Any]]],
    flushes_ms: list[float],
    where: dict[str, str | int],
    plan: Plan,
) -> dict[str, Any]:
    runs = {run.name: summary(measured[run.name]) for run in plan.runs()}
    every = [one for name in measured for one in measured[name]]
    flush_ms = round(statistics.median(flushes_ms), 3)
    return {
        "bench": "router",
        **_headline(runs, flush_ms),
        "lost": sum(one["lost"] for one in every),
        "doubled": sum(one["doubled"] for one in every),
        "not_answered_with_data": sum(one["wrong"] for one in every),
        "flush_p50_ms": flush_ms,
        "flush_p99_ms": round(statistics.quantiles(flushes_ms, n=100)[98], 3),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "sweep_rounds": plan.sweep_rounds,
        "sweep_seconds": plan.sweep_seconds,
        "workers": 2,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": machine.versions(),
        "runs": runs,
        "sweep": {cell: _sweep(cell, measured) for cell in plan.sweeps()},
    }


def _headline(runs: dict[str, dict[str, Any]], flush_ms: float) -> dict[str, Any]:
    """Return the figures by their names; those that were not measured are left out."""
    headline: dict[str, Any] = {}
    saturation = {
        name: runs[SATURATION[cell].name]
        for name, cell in HEADLINE.items()
        if SATURATION[cell].name in runs
    }
    steady = {rate: runs[run.name] for rate, run in OPEN_LOOP.items() if run.name in runs}
    if saturation:
        if "pipelined" in saturation:
            headline["saturation_per_s"] = saturation["pipelined"]["per_s"]["median"]
        headline["cpu_us_per_exchange"] = {
            name: run["router_cpu_us"]["median"] for name, run in saturation.items()
        }
    for percentile in ("p50", "p99", "p99_9") if steady else ():
        headline[f"{percentile}_ms"] = {
            rate: run["latency_ms"][percentile]["median"] for rate, run in steady.items()
        }
    if steady:
        headline["p99_ms_less_two_flushes"] = {
            rate: less_two_flushes(p99_ms, flush_ms) for rate, p99_ms in headline["p99_ms"].items()
        }
        headline["open_loop_cpu_us_per_exchange"] = {
            rate: run["router_cpu_us"]["median"] for rate, run in steady.items()
        }
    return headline


def _sweep(cell: str, measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    most = _saturation_per_s(cell, measured)
    return {
        "saturation_per_s": round(most),
        "loads": [
            {
                "share": share,
                "offered_per_s": round(share * most),
                **summary(measured[_sweep_name(cell, share)]),
            }
            for share in SHARES
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
