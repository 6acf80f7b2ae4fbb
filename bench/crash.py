"""``make bench-crash``: kill a router under load, cut its power, and count what is missing.

Two generators, one of consultations and one of submissions, keep every exchange id and code that
they were answered, two sources every one that was delivered to them; none is ever killed.
Afterwards the privacy log must hold both entries of each answer and the request of each delivery;
and every submission, sent again until it is answered, must have reached its recipient, none twice.
``docs/benchmarks.md`` says more.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.account import settle, submissions
from bench.powercut import CannotMountError, Disk
from bench.world import BenchError, World, compile_shim, finish
from contrib.stand import StandError

SUPERVISOR_EVERY = 10
OFFERED_PER_S, SUBMITTED_PER_S = 800, 200
CONNECTIONS, OUTSTANDING = 32, 32
SUBMITTING_CONNECTIONS = 8
_FLOWING_ANSWERS = 100
_POLL_SECONDS = 0.02
_SECONDS_MAX = 60.0
_ROW_BYTES = 26


class Crash:
    """A router under load, and the ways to break it."""

    def __init__(
        self, world: World, disk: Disk | None, answers: Path, chance: random.Random
    ) -> None:
        self.world = world
        self._disk = disk
        self._answers = answers
        self._chance = chance

    def wait_for_load(self) -> None:
        """Return at a random moment at which answers flow; a worker may still be missing."""
        self._await("a worker is ready", lambda: bool(self._worker_pids()))
        some = self._answered() + _FLOWING_ANSWERS
        self._await("answers flow", lambda: self._answered() > some)
        time.sleep(self._chance.uniform(0.0, 0.8))

    def kill_worker(self) -> None:
        """Kill one that serves; the supervisor starts another."""
        pids: list[int] = []

        def found() -> bool:
            pids[:] = filter(_is_alive, self._worker_pids())
            return bool(pids)

        self._await("a worker is ready", found)
        os.kill(self._chance.choice(pids), signal.SIGKILL)

    def kill_supervisor(self, *, workers_too: bool) -> None:
        """Kill the supervisor and start the router anew.

        systemd kills what is left of the unit first. Without that, the workers notice that they
        are alone and end by themselves, while the new ones already wait for their slots.
        """
        pids = self._processes()
        self.world.stand.kill()
        if workers_too:
            self._kill(pids)
        self.world.stand.start()

    def cut_power(self) -> None:
        """Cut the power of the disk under the log, then of everything, and start anew."""
        assert self._disk is not None
        self._disk.cut()
        time.sleep(self._chance.choice((0.0, 0.01, 0.1)))  # it may notice, or not
        pids = self._processes()
        self.world.stand.kill()
        self._kill(pids)
        self._disk.restore()
        shutil.rmtree(self.world.stand.folder / "ledger")  # it lies in memory
        self.world.stand.start()

    def _processes(self) -> list[int]:
        assert self.world.stand.process is not None
        return machine.processes_under(self.world.stand.process.pid)

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._await("what was killed is gone", lambda: not any(map(_is_alive, pids)))

    def _worker_pids(self) -> list[int]:
        workers = self.world.status().get("workers", ())
        return [worker["pid"] for worker in workers if worker["is_ready"] and worker["pid"]]

    def _answered(self) -> int:
        return self._answers.stat().st_size // _ROW_BYTES if self._answers.exists() else 0

    def _await(self, what: str, holds: Callable[[], bool]) -> None:
        ends_at = time.monotonic() + _SECONDS_MAX
        while not holds():
            if time.monotonic() > ends_at:
                tail = self.world.stand.output.read_text(encoding="utf-8")[-3000:]
                raise BenchError(f"waited {_SECONDS_MAX:.0f} s in vain: {what}\n{tail}")
            time.sleep(_POLL_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="default %(default)s")
    parser.add_argument("--power-cuts", type=int, default=20, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    parser.add_argument(
        "--without-flush",
        action="store_true",
        help="check the bench itself: one power cut on a router whose flushes do nothing must lose",
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ksz-crash-", dir=arguments.folder))
    try:
        disk = _disk(folder) if arguments.power_cuts else None
        try:
            result = _bench(folder, disk, arguments)
        finally:
            if disk is not None:
                disk.close()
    except (BenchError, StandError) as error:
        print(f"bench-crash: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    if arguments.without_flush:
        return 0 if result["lost"] else 1
    nothing = ("lost", "unlogged", "unanswered", "doubled", "undelivered", "unsettled")
    return 1 if any(result[name] for name in nothing) or not result["verified"] else 0


def _disk(folder: Path) -> Disk | None:
    try:
        return Disk(folder)
    except CannotMountError as error:
        print(f"no power cuts: this machine does not mount an image ({error})", file=sys.stderr)
        return None


def _bench(folder: Path, disk: Disk | None, arguments: argparse.Namespace) -> dict[str, Any]:
    answers, deliveries = folder / "answers", folder / "deliveries"
    receipts, received = folder / "receipts", folder / "received"
    log = disk.folder / "privacylog" if disk is not None else folder / "stand" / "privacylog"
    options = {"privacy_log": {"path": str(log)}}
    world = World(folder, options=options, seen=deliveries, received=received)
    generators: list[subprocess.Popen[str]] = []
    try:
        if arguments.without_flush:
            os.environ["LD_PRELOAD"] = str(compile_shim(folder))
        world.stand.start()
        words: dict[str, Any] = {
            "payload_bytes": 300, "outstanding": OUTSTANDING, "seconds": 0, "reconnect": 1
        }  # fmt: skip
        generators = [
            world.generate(
                **words, connections=CONNECTIONS, rate=OFFERED_PER_S, seen=answers
            ),
            world.generate(
                **words, connections=SUBMITTING_CONNECTIONS, rate=SUBMITTED_PER_S, seen=receipts,
                submits=True,
            ),
        ]  # fmt: skip
        began = time.monotonic()
        crash = Crash(world, disk, answers, random.Random(arguments.seed))
        power_cuts = arguments.power_cuts if disk is not None else 0
        if arguments.without_flush:
            done = _cut_once(crash)
        else:
            done = _break_it(crash, arguments.kills, power_cuts)
            crash.wait_for_load()
        seconds = time.monotonic() - began
        for generator in generators:
            generator.send_signal(signal.SIGTERM)
        report, submitted = (finish(generator, 120) for generator in generators)
        world.check_source()
        exit_code = world.stand.stop()
    finally:
        for generator in generators:
            generator.kill()
        world.close()
        os.environ.pop("LD_PRELOAD", None)
    result = done | {
        "submitted": submitted["submitted"],
        "unsettled": submitted["unsettled"],
        **submissions(receipts, received)._asdict(),
        "sent": report["sent"] + submitted["sent"],
        "broken_off": report["broken"] + submitted["broken"],
        "unanswered": report["unanswered"] + submitted["unanswered"],
        "answers_doubled": report["doubled"] + submitted["doubled"],
        "codes": report["codes"],
        "codes_of_submissions": submitted["codes"],
        "exchanges_per_s": round((report["answered"] + submitted["answered"]) / seconds),
        "seconds": round(seconds),
        "stop_exit_code": exit_code,
        "without_flush": arguments.without_flush,
        "seed": arguments.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(folder),
        "versions": machine.versions(),
    }
    return _judged(world, log, (answers, receipts), (deliveries, received)) | result


def _judged(
    world: World, log: Path, answers: Sequence[Path], deliveries: Sequence[Path]
) -> dict[str, Any]:
    """Read the log, at rest, and set it against what was promised."""
    print("reading the log", flush=True)
    account = settle(log, world.stand.keys, answers, deliveries)
    is_whole, verified = _verify(world, log)
    return {
        "bench": "crash",
        "kills": 0,
        "power_cuts": 0,  # their place in the line; the counts follow
        **account._asdict(),
        "verified": is_whole,
        "records": verified.get("records", 0),
    }


def _break_it(crash: Crash, kills: int, power_cuts: int) -> dict[str, int]:
    """Do all of it, the power cuts spread evenly between the kills."""
    moments = ["kill"] * kills
    for number in range(power_cuts):
        moments.insert(round((number + 1) * (kills + power_cuts) / power_cuts) - 1, "cut")
    done = {"kills": 0, "power_cuts": 0, "supervisor_kills": 0}
    for moment in moments:
        crash.wait_for_load()
        if moment == "cut":
            crash.cut_power()
            done["power_cuts"] += 1
        else:
            done["kills"] += 1
            if done["kills"] % SUPERVISOR_EVERY == 0:
                done["supervisor_kills"] += 1
                crash.kill_supervisor(workers_too=done["supervisor_kills"] % 2 == 1)
            else:
                crash.kill_worker()
        if sum((done["kills"], done["power_cuts"])) % 20 == 0:
            print(f"{done['kills']} kills, {done['power_cuts']} power cuts", flush=True)
    return done


def _cut_once(crash: Crash) -> dict[str, int]:
    """Cut the power once; a router that never flushed may not start on what it then finds."""
    crash.wait_for_load()
    with contextlib.suppress(StandError):
        crash.cut_power()
    return {"kills": 0, "power_cuts": 1, "supervisor_kills": 0}


def _verify(world: World, log: Path) -> tuple[bool, dict[str, Any]]:
    """Run ``ksz-router log verify``; return whether all is whole, and what it said last."""
    words = ("log", "verify", "--log", log, "--keys", world.stand.keys, "--json")
    lines = world.stand.command(*words, accept=(0, 1)).splitlines()
    said = [json.loads(line) for line in lines]
    for fault in said[:-1][:20]:
        print(f"verify: {fault}", flush=True)
    last = said[-1] if said else {}
    return len(said) == 1 and not last.get("faults"), last


def _is_alive(pid: int) -> bool:
    """Say whether a process still holds anything; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


if __name__ == "__main__":
    sys.exit(main())
