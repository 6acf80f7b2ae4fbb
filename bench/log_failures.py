"""One call of the disk fails, before or after it took effect; then everything starts anew.

A short scenario takes every step of writers, sequencer and sealer. A step is named by what is done
(``write``, ``flush``, ``link``, ...) and by what it is done to. Whichever fails, the programs then
start again on what is there, come to the end of their work, and the log is judged.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import pyarrow as pa

from bench.log_disk import Change, Watch
from bench.log_entries import BEGIN_NS, Entries, Keys, Promises
from bench.log_judge import Verdict, judge
from bench.log_pipeline import SLOTS, Pipeline

_AFTERWARDS_NS: Final = 400_000_000_000

ROLES: Final = (
    ("next write-ahead file", r"log/[^/]+/(making|filling|prepared)"),
    ("write-ahead file", r"log/[^/]+/[0-9]+\.wal"),
    ("order", r"archive/order/\.?[0-9]+.*"),
    ("leaves", r"archive/tree/0/[0-9]+"),
    ("upper level", r"archive/tree/[1-9]/[0-9]+"),
    ("last checkpoint", r"state/\.?last-checkpoint(\..*partial)?"),
    ("lock", r"state/last-checkpoint\.lock"),
    ("checkpoint", r"archive/tree/\.?checkpoint(\..*)?"),
    ("kept checkpoint", r"archive/tree/checkpoints/.*"),
    ("truth", r"archive/sealed/q=[^/]+/t/.*"),
    ("derived file", r"archive/sealed/q=[^/]+/[pukr]/.*"),
    ("carry", r"archive/sealed/carry/.*"),
    ("manifest", r"archive/manifest/.*"),
    ("index of catalogs", r"archive/catalog/\.?index.*"),
    ("catalog", r"archive/catalog/.*"),
    ("folder of the log", r"log|log/[^/]+|"),
    ("folder of the archive", r"archive(/.*)?"),
    ("folder of the last checkpoint", r"state"),
)
"""What a path is, the first that fits."""


class Step(NamedTuple):
    """A step of the scenario: what is done to what, and the how-manieth time."""

    call: str
    role: str
    occurrence: int = 1


def role_of(path: str) -> str:
    """Return what a path below the watched folder is.

    Raises:
        LookupError: nobody said; give it a role.
    """
    for role, pattern in ROLES:
        if re.fullmatch(pattern, path):
            return role
    raise LookupError(path)


def scenario(pipeline: Pipeline) -> None:
    """Take every step that the programs have, over the end of a quarter."""
    pipeline.start()
    for slot in SLOTS:
        pipeline.record(slot, 3)
    pipeline.prepare(SLOTS[0])
    pipeline.sequence()
    pipeline.seal()
    pipeline.record(SLOTS[0], 8, closing=False)
    pipeline.sequence()
    pipeline.now_ns += 45_000_000_000  # another quarter
    pipeline.record(SLOTS[0], 130)
    pipeline.settle()
    pipeline.now_ns += 130_000_000_000  # a new run would read no further back
    pipeline.record(SLOTS[0], 130)
    pipeline.settle()
    pipeline.merge()
    pipeline.settle()
    pipeline.sweep()
    pipeline.close()


class Failures:
    """Runs the scenario again and again, with another failure each time.

    Args:
        folder: Where to work; best in memory.
    """

    def __init__(self, folder: Path) -> None:
        pa.set_cpu_count(1)  # the files are small: threads cost more than they bring
        self._folder = folder
        self._keys = Keys.drawn(folder / "keys")
        self._count = 0

    def steps(self) -> list[Step]:
        """Return the steps of the scenario, in their order."""
        seen: list[Change] = []
        disk = self._disk()
        with Watch(disk, lambda change, done: None if done else seen.append(change)) as watch:
            scenario(self._pipeline(disk, Promises()))
        assert not watch.unseen()
        return list(_named(seen))

    def every(self, tell: Callable[[str], None] = print) -> dict[str, int]:
        """Let every step fail, before and after; return how many failed, and did not hold."""
        failures = broken = 0
        for step in self.steps():
            for after in (False, True):
                try:
                    _, verdict = self.fail(step, after=after)
                except Exception as error:  # noqa: BLE001  whatever it is, it is counted and told
                    said, holds = f"{type(error).__name__}: {error}", False
                else:
                    said, holds = str(verdict), verdict.holds
                failures += 1
                if not holds:
                    broken += 1
                    tell(f"{'after' if after else 'before'} {step}: {said}")
        return {"failures": failures, "failures_that_broke": broken}

    def fail(self, step: Step, *, after: bool) -> tuple[str, Verdict]:
        """Let a step fail, start anew, and judge; return also what failed, if anybody noticed."""
        disk, promises = self._disk(), Promises()
        breaker = _Breaker(step, after=after)
        pipeline = self._pipeline(disk, promises)
        noticed = ""
        with Watch(disk, breaker.step):
            try:
                scenario(pipeline)
            except Exception as error:  # noqa: BLE001  every program may say it its own way
                noticed = type(error).__name__
            pipeline.close()
        assert breaker.has_failed, f"the scenario has no such step: {step}"
        again = self._pipeline(disk, promises, now_ns=BEGIN_NS + _AFTERWARDS_NS)
        again.start()
        again.record(SLOTS[1], 1)
        again.settle()
        again.close()
        verdict = judge(disk, self._keys, promises)
        shutil.rmtree(disk)
        return noticed, verdict

    def _disk(self) -> Path:
        self._count += 1
        disk = self._folder / f"disk-{self._count}"
        (disk / "state").mkdir(parents=True)
        return disk

    def _pipeline(self, disk: Path, promises: Promises, now_ns: int = BEGIN_NS) -> Pipeline:
        entries = Entries(self._keys, Random(now_ns))
        return Pipeline(disk, self._keys, entries, promises, now_ns=now_ns, leaves_max=10_000)


class _Breaker:
    def __init__(self, step: Step, *, after: bool) -> None:
        self._wanted = step
        self._after = after
        self._left = step.occurrence
        self.has_failed = False

    def step(self, change: Change, done: bool) -> None:  # noqa: FBT001  as the watch calls it
        if self.has_failed or done != self._after:
            return
        if (change.call, role_of(change.path)) != self._wanted[:2]:
            return
        self._left -= 1
        if self._left == 0:
            self.has_failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _named(changes: list[Change]) -> Iterator[Step]:
    count: dict[tuple[str, str], int] = {}
    for change in changes:
        key = (change.call, role_of(change.path))
        count[key] = count.get(key, 0) + 1
        yield Step(*key, count[key])
