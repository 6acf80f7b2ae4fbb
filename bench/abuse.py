"""``make bench-abuse``: hurt a router, each way in turn, and see how a good client fares meanwhile.

The cases are in ``attacks.py``, each run in a process of its own. The good client asks 200 times a
second over connections that stay, open loop, and opens a new one five times a second. A case holds
if the router did to the attacker what it says it does, and the good client lost nothing and was
answered in time. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import kept, machine
from bench.attackers import Words
from bench.bad_source import BAD_SOURCE, LINE
from bench.watch import Watch, rss_mib
from bench.world import BenchError, World, finish
from contrib.stand import StandError, free_ports
from ksz_router.limits import log_file_bytes

GOOD_PER_S, GOOD_CONNECTIONS = 200, 4
GOOD_P99_MS_MAX, GOOD_HANDSHAKE_P99_MS_MAX, GROWTH_MIB_MAX = 50.0, 500.0, 40.0
DESCRIPTORS, DESCRIPTORS_LEFT_MIN = 256, 64
FLOOD_SECONDS = 30.0
_ATTACK_SECONDS_MAX = 240.0


class Case(NamedTuple):
    """One of the abuse cases."""

    number: int
    name: str
    seconds: float
    """How long the good client is measured, from before the attack on."""


CASES = (
    Case(1, "silent", 10),
    Case(2, "slow handshake", 16),
    Case(3, "handshake flood", 0),
    Case(7, "slow sender", 16),
    Case(8, "slow reader", 18),
    Case(9, "giant length", 8),
    Case(13, "pipelining flood", 15),
    Case(27, "misbehaving source", 30),
    Case(26, "descriptors", 14),
)
"""The last one restarts the router with few descriptors."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seconds", type=float, default=FLOOD_SECONDS, help="of the flood (default %(default)s)"
    )
    parser.add_argument(
        "--only", default="", help="cases whose name contains this; nothing is kept"
    )
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="ksz-bench-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments)
    except (BenchError, StandError) as error:
        print(f"bench-abuse: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not arguments.only and arguments.seconds >= FLOOD_SECONDS:
        kept.keep(result)
    print(json.dumps({name: value for name, value in result.items() if name != "runs"}))
    return 0 if result["held"] == result["cases"] else 1


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    source_port = free_ports(1)[0]
    world = World(
        folder,
        options={"privacy_log": {"file_bytes": log_file_bytes}},  # the default; a stand has less
        others={BAD_SOURCE: source_port},
        lines=(LINE,),
    )
    stand = world.stand
    words = Words(stand.port, stand.folder / "tls", folder / "numbers", 0.0, source_port)
    runs: dict[str, dict[str, Any]] = {}
    try:
        stand.start()
        runs["nobody"] = _run(world, words, Case(0, "nobody", 8))
        for case in CASES:
            if arguments.only not in case.name:
                continue
            if case.name == "descriptors":
                stand.stop()
                stand.start(before=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
                _run(world, words, Case(0, "nobody", 4))
            seconds = case.seconds or arguments.seconds + 4
            runs[case.name] = _run(world, words, case._replace(seconds=seconds))
        where = machine.describe(stand.log)
        stand.stop()
        is_whole = _verify(world)
    finally:
        world.close()
    quiet = runs.pop("nobody")
    held = sum(run["held"] for run in runs.values()) if is_whole else 0
    return {
        "bench": "abuse",
        "cases": len(runs),
        "held": held,
        "good_p99_ms": max((run["good_p99_ms"] for run in runs.values()), default=0.0),
        "rss_growth_mib": max((run["rss_growth_mib"] for run in runs.values()), default=0.0),
        "good_handshake_p99_ms": max(
            (r["good_handshake_p99_ms"] for r in runs.values()), default=0
        ),
        "quiet_p99_ms": quiet["good_p99_ms"],
        "log_verified": is_whole,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": where,
        "versions": machine.versions(),
        "runs": runs,
    }


def _run(world: World, words: Words, case: Case) -> dict[str, Any]:
    """Run one case with the good client beside it, and judge both."""
    assert world.stand.process is not None
    before_mib = rss_mib(world.stand.process.pid)
    good = world.generate(
        payload_bytes=300,
        connections=GOOD_CONNECTIONS,
        outstanding=64,
        rate=GOOD_PER_S,
        seconds=case.seconds,
        warmup=1.0,
        seed=case.number + 1,
    )
    assert good.stdout is not None
    good.stdout.readline()  # it has begun
    watch = Watch(world, words)
    seen: dict[str, Any] = {"held": True, "why": ""}
    if case.number:
        seen = _attack(case, words._replace(seconds=case.seconds - 4))
    report = finish(good, case.seconds + 60)
    watch.close()
    world.check_source()
    run = {
        "number": case.number,
        "good_p99_ms": round(report["latency_us"].get("p99", 0.0) / 1e3, 2),
        "good_handshake_p99_ms": round(_p99(watch.handshakes_ms), 1),
        "rss_growth_mib": round(max(watch.rss_mib) - before_mib, 1),
        "good_answers": report["window_answers"],
        "attack": seen,
    }
    run["why"] = "; ".join(_faults(run, report, watch))
    run["held"] = not run["why"]
    _tell(case, run)
    return run


def _faults(run: dict[str, Any], report: dict[str, Any], watch: Watch) -> list[str]:
    faults = [run["attack"]["why"] or "the attack did not end as it should"]
    if run["attack"]["held"]:
        faults = []
    for name, most in (
        ("good_p99_ms", GOOD_P99_MS_MAX),
        ("good_handshake_p99_ms", GOOD_HANDSHAKE_P99_MS_MAX),
        ("rss_growth_mib", GROWTH_MIB_MAX),
    ):
        if run[name] > most:
            faults.append(f"{name} {run[name]} > {most}")
    if watch.descriptors_left < DESCRIPTORS_LEFT_MIN:
        faults.append(f"only {watch.descriptors_left} descriptors were left")
    if report["lost"] or report["doubled"] or report["wrong"]:
        codes = json.dumps(report["codes"])
        faults.append(f"lost {report['lost']}, doubled {report['doubled']}, codes {codes}")
    return faults + list(dict.fromkeys(watch.faults))[:3]


def _attack(case: Case, words: Words) -> dict[str, Any]:
    told = {name: str(v) if isinstance(v, Path) else v for name, v in words._asdict().items()}
    line = [sys.executable, "-m", "bench.attacks", json.dumps({"case": case.name, **told})]
    try:
        done = subprocess.run(
            line, stdout=subprocess.PIPE, text=True, check=False, timeout=_ATTACK_SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        return {"held": False, "why": "the attack did not end"}
    if done.returncode or not done.stdout:
        return {"held": False, "why": f"the attack ended with {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _verify(world: World) -> bool:
    """The log holds what it should, whatever was done to the router."""
    stand = world.stand
    line = ("log", "verify", "--log", stand.log, "--keys", stand.keys, "--json")
    said = stand.command(*line, accept=(0, 1)).splitlines()
    return len(said) == 1 and not json.loads(said[0]).get("faults")


def _tell(case: Case, run: dict[str, Any]) -> None:
    figures = {name: v for name, v in run["attack"].items() if name not in ("held", "why")}
    print(
        f"case {case.number:2}  {case.name:18} {'held' if run['held'] else 'NOT HELD':8} "
        f"good p99 {run['good_p99_ms']:6.2f} ms, handshake {run['good_handshake_p99_ms']:6.1f} ms, "
        f"memory {run['rss_growth_mib']:+5.1f} MiB  {json.dumps(figures)}  {run['why']}",
        file=sys.stderr,
        flush=True,
    )


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


if __name__ == "__main__":
    sys.exit(main())
