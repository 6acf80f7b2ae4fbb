"""``make bench-peers``: the router beside HAProxy and nats-server, on the same work.

Ways from the same generator to the same source, in alternation in one run: the router, HAProxy as a
TLS relay, nats-server as a broker of requests and replies, a relay of the router's own parts that
decides nothing (``bare.py``), and nothing at all between the two.
All runs are saturations: they say how much there is, and what it costs, not how long it takes.
``docs/benchmarks.md`` explains the rules and keeps the figures.
"""

import argparse
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from bench import kept, machine
from bench.relays import THREADS, Relays, release
from bench.world import SOURCE, BenchError, World, finish
from ksz_router.limits import log_file_bytes

CONNECTIONS = 64
WARMUP_S = 1.0
RELAYS = ("haproxy", "nats", "nats_one_inbox", "bare")
_DRAIN_S = 60.0


class Pattern(NamedTuple):
    """How much is outstanding on each connection, and how large a payload is, both ways."""

    outstanding: int
    payload_bytes: int


PATTERNS = {
    "one_at_a_time": Pattern(1, 300),
    "pipelined_300": Pattern(16, 300),
    "pipelined_2k": Pattern(16, 2_000),
}


Measured: TypeAlias = dict[str, Any]
"""What one run came to: exchanges a second, processor time of each part, and what went wrong."""
TALLIES = {"lost": "lost", "doubled": "doubled", "not_answered_with_data": "wrong"}


class Way(NamedTuple):
    """One way from the generator to a source."""

    name: str
    relay_pid: int | None
    """With all that it started; None: nothing is between."""
    source_pid: int
    words: Callable[[int], dict[str, Any]]
    """What the generator is to be told besides, for a payload of so many bytes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each run (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 1.0
    folder = Path(tempfile.mkdtemp(prefix="ksz-bench-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments)
    except BenchError as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not arguments.quick:
        kept.keep(result)
    print(json.dumps({name: value for name, value in result.items() if name != "cells"}))
    return 1 if result["lost"] or result["doubled"] or result["not_answered_with_data"] else 0


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    releases = {name: release(name) for name in ("haproxy", "nats-server")}  # both are there
    world = World(folder, options={"privacy_log": {"file_bytes": log_file_bytes}})  # the default
    tls = world.stand.folder / "tls"
    relays = Relays(
        folder / "relays", tls=tls, source_port=world.source_port, keys=world.stand.keys
    )
    try:
        ways = _start(world, relays)
        ports = [world.stand.metrics_port + n for n in range(THREADS)]
        with contextlib.closing(machine.Scraper(ports)):
            rounds, flushes = _rounds(world, ways, arguments)
        where = machine.describe(world.stand.log)
    finally:
        world.close()  # and with it the source on the NATS server, before that server
        relays.close()
    return compare(rounds) | {
        "flush_p50_ms": round(statistics.median(flushes), 3),
        "flush_p99_ms": round(statistics.quantiles(flushes, n=100)[98], 3),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "threads": THREADS,
        "connections": CONNECTIONS,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": machine.versions() | releases,
    }


def _start(world: World, relays: Relays) -> list[Way]:
    """Start the router and what stands beside it; all that is idle costs next to nothing."""
    world.stand.start()
    started = relays.start()
    nats_source = world.provide(SOURCE, relays.nats_port, **relays.nats_source_words())
    assert world.stand.process is not None
    router, source = world.stand.process.pid, world.source.pid
    return [
        Way("router", router, source, lambda _: {}),
        Way("haproxy", started.haproxy, source, lambda _: {"port": relays.haproxy_port}),
        Way("nats", started.nats, nats_source.pid, relays.nats_words),
        Way("nats_one_inbox", started.nats, nats_source.pid, relays.nats_one_inbox_words),
        Way("bare", started.bare, source, lambda _: {"port": relays.bare_port}),
        Way("none", None, source, lambda _: {"port": world.source_port}),
    ]


def _rounds(
    world: World, ways: Sequence[Way], arguments: argparse.Namespace
) -> tuple[dict[tuple[str, str], list[Measured]], list[float]]:
    """Measure every pattern on every way in each round, in an order drawn anew."""
    rounds: dict[tuple[str, str], list[Measured]] = {
        (way.name, pattern): [] for pattern in PATTERNS for way in ways
    }
    flushes: list[float] = []
    order = random.Random(1)
    for number in range(arguments.rounds):
        flushes += machine.flush_ms(world.stand.log)
        for pattern in order.sample(list(PATTERNS), len(PATTERNS)):
            for way in order.sample(ways, len(ways)):
                measured = measure(world, way, PATTERNS[pattern], arguments.seconds, number + 1)
                rounds[way.name, pattern].append(measured)
                costs = "  ".join(f"{part} {us:5.1f}" for part, us in measured["cpu_us"].items())
                print(
                    f"round {number + 1}  {pattern:13} {way.name:14} {measured['per_s']:9,.0f}/s  "
                    f"µs CPU: {costs}  other load {measured['others_cpu']:.2f} processors",
                    flush=True,
                )
    return rounds, flushes


def measure(world: World, way: Way, pattern: Pattern, seconds: float, seed: int) -> Measured:
    """Put one load on one way; processor time is that between the generator's two marks.

    Raises:
        BenchError: the generator or a source ended.
    """
    relay = machine.processes_under(way.relay_pid) if way.relay_pid is not None else []
    generator = world.generate(
        payload_bytes=pattern.payload_bytes,
        connections=CONNECTIONS,
        outstanding=pattern.outstanding,
        seconds=seconds,
        warmup=WARMUP_S,
        seed=seed,
        **way.words(pattern.payload_bytes),
    )
    marks = []
    for mark in ("begin\n", "end\n"):
        assert generator.stdout is not None
        if generator.stdout.readline() != mark:
            raise BenchError("the generator ended early; it said why above")
        marks.append((machine.cpu_us(relay), machine.cpu_us([way.source_pid]), machine.busy_us()))
    report = finish(generator, _DRAIN_S)
    world.check_source()
    answers = max(1, report["window_answers"])
    relay_us, source_us, busy_us = (after - before for before, after in zip(*marks, strict=True))
    others_us = busy_us - relay_us - source_us - report["cpu_us"]
    return {
        "per_s": answers / report["window_s"],
        "cpu_us": {
            "relay": relay_us / answers,
            "generator": report["cpu_us"] / answers,
            "source": source_us / answers,
        },
        "others_cpu": max(0.0, others_us / 1e6 / report["window_s"]),
        **{name: report[name] for name in ("sent", "lost", "doubled", "wrong")},
    }


def compare(rounds: Mapping[tuple[str, str], Sequence[Measured]]) -> dict[str, Any]:
    """Set the ways side by side: medians, and the spread of all rounds.

    Args:
        rounds: By way and pattern, what :func:`measure` found in each round.
    """
    cells: dict[str, dict[str, Any]] = {}
    for (way, pattern), measured in rounds.items():
        cells.setdefault(way, {})[pattern] = {
            "per_s": machine.spread((one["per_s"] for one in measured), 0),
            "others_cpu": machine.spread((one["others_cpu"] for one in measured), 2),
            "cpu_us": {
                part: machine.spread((one["cpu_us"][part] for one in measured), 2)
                for part in measured[0]["cpu_us"]
            },
        }
    per_s = {way: {p: cells[way][p]["per_s"]["median"] for p in PATTERNS} for way in cells}
    ratios = {way: _ratios(rounds, way) for way in RELAYS}
    for way, of_patterns in ratios.items():
        for pattern, ratio in of_patterns.items():
            print(
                f"router to {way:14} {pattern:13} {ratio['median']:.2f} "
                f"({ratio['min']:.2f} to {ratio['max']:.2f} by round)"
            )
    cpu = {
        **{way: _cpu(cells[way], "relay") for way in ("router", *RELAYS)},
        **{part: _cpu(cells["router"], part) for part in ("generator", "source")},
    }
    for part in ("generator", "source"):
        shares = ", ".join(f"{cpu[part][p] / cpu['router'][p]:.2f} {p}" for p in PATTERNS)
        print(f"{part} by router, processor time, which must be below 0.5: {shares}")
    return {
        "bench": "peers",
        **{
            f"vs_{way}": {p: round(per_s["router"][p] / per_s[way][p], 2) for p in PATTERNS}
            for way in ratios
        },
        "cpu_us_per_exchange": cpu,
        "per_s": per_s,
        "ratio_by_round": ratios,
        **{
            name: sum(one[key] for measured in rounds.values() for one in measured)
            for name, key in TALLIES.items()
        },
        "cells": cells,
    }


def _ratios(
    rounds: Mapping[tuple[str, str], Sequence[Measured]], way: str
) -> dict[str, dict[str, float]]:
    """Our throughput by theirs, round by round."""
    spreads = {}
    for pattern in PATTERNS:
        pairs = zip(rounds["router", pattern], rounds[way, pattern], strict=True)
        spreads[pattern] = machine.spread((a["per_s"] / b["per_s"] for a, b in pairs), 2)
    return spreads


def _cpu(cells: Mapping[str, Any], part: str) -> dict[str, float]:
    return {pattern: cells[pattern]["cpu_us"][part]["median"] for pattern in PATTERNS}


if __name__ == "__main__":
    sys.exit(main())
