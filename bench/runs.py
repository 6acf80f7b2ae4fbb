"""One load on a router for some seconds, and what is counted meanwhile."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import machine, scrapes
from bench.world import BenchError, World, finish

CONNECTIONS = 64
_DRAIN_SECONDS_MAX = 60.0


class Run(NamedTuple):
    """One pattern of load."""

    name: str
    outstanding: int
    """How many requests of a connection may be open."""
    payload_bytes: int
    offered_per_s: float = 0
    """0: as fast as answers come."""


def metrics_ports(world: World) -> list[int]:
    """Where the workers show their metrics."""
    return [world.stand.metrics_port + index for index in range(2)]


def measure(
    world: World, run: Run, *, seconds: float, warmup_s: float, seed: int, stages: bool = False
) -> dict[str, Any]:
    """Put one load on the router; processor time is that between its two marks.

    With ``stages`` the metrics are read at both too: ``figures`` is what was counted between.

    Raises:
        BenchError: the generator or a source ended.
    """
    assert world.stand.process is not None
    router = machine.processes_under(world.stand.process.pid)
    ports = metrics_ports(world) if stages else []
    generator = world.generate(
        payload_bytes=run.payload_bytes,
        connections=CONNECTIONS,
        outstanding=run.outstanding,
        rate=run.offered_per_s,
        seconds=seconds,
        warmup=warmup_s,
        seed=seed,
    )
    await_line(generator, "begin")
    shown_before = scrapes.read(ports)
    before = machine.cpu_us(router), machine.cpu_us([world.source.pid]), machine.busy_us()
    await_line(generator, "end")
    after = machine.cpu_us(router), machine.cpu_us([world.source.pid]), machine.busy_us()
    shown_after = scrapes.read(ports)
    sessions = [worker["report"]["sessions"] for worker in world.status()["workers"]]
    report = finish(generator, _DRAIN_SECONDS_MAX)
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
        "figures": scrapes.since(scrapes.summed(shown_before), scrapes.summed(shown_after)),
        **{name: report[name] for name in ("sent", "lost", "doubled", "wrong", "codes")},
        "unsent": report["unsent"],
    }


def await_line(process: "subprocess.Popen[str]", line: str) -> None:
    """Wait until a generator prints this line.

    Raises:
        BenchError: it printed something else, or ended.
    """
    assert process.stdout is not None
    if process.stdout.readline() != f"{line}\n":
        raise BenchError("the generator ended early; it said why above")


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
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
        **{name: sum(one[name] for one in measured) for name in ("sent", "unsent")},
        "codes": dict(sum((Counter(one["codes"]) for one in measured), Counter[str]())),
    }


def less_two_flushes(milliseconds: float, flush_ms: float) -> float:
    """Return the part of a latency that is not two flushes of the device.

    An exchange cannot be answered before its request and its outcome are durable: two flushes, one
    after the other. What is left is the router's own, and the waiting for other groups' flushes.
    """
    return round(milliseconds - 2 * flush_ms, 2)
