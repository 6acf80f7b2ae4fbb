"""Power cuts by the thousand, on what a disk may hold after each: torn writes and lost sectors.

One pipeline runs while every change to its disk is taken down. Then the power goes off at random
moments of it, on copies: of what was not flushed any subset reached the disk. Each copy is taken up
again by fresh programs, verified in every way and set against what was promised. One of the copies
is the disk of the next run, so that cuts during a recovery are among them.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pyarrow as pa

from bench.log_disk import Watch
from bench.log_entries import BEGIN_NS, Entries, Keys, Promises
from bench.log_judge import Verdict, judge
from bench.log_left import left_by_a_cut, left_by_a_kill
from bench.log_pipeline import Pipeline, run

RUN_STEPS: Final = 30
TRIALS_OF_A_RUN: Final = 50
RUNS_OF_A_LOG: Final = 3
SEALED_EVERY: Final = 5
"""So many trials are taken up by writers and sequencer for one by the sealer too, which then seals
to the end, and is judged by every verifier: that takes most of the time."""
_PAUSE_NS: Final = 20_000_000_000
_OF_THE_SEALER = tuple(f"archive/{name}" for name in ("sealed", "manifest", "catalog"))
_TORN = "a torn write does not explain it"


class Counts(msgspec.Struct):
    """What all trials came to."""

    trials: int = 0
    torn: int = 0
    """Of sectors that are there or not."""
    garbage: int = 0
    """Of those besides that hold anything at all."""
    killed: int = 0
    """Without a power cut: everything is there up to a moment."""
    cuts_in_recovery: int = 0
    sealed_on: int = 0
    """Of all: those after which the sealer went on to the end."""
    steps_sealed: int = 0
    """By them."""
    steps_sealed_before: int = 0
    """In the runs that were cut."""
    cuts_in_sealing: int = 0
    """Right behind a change to what the sealer writes."""
    lost_acknowledged: int = 0
    false_records: int = 0
    signed_twice: int = 0
    refused: int = 0
    """Logs that could not be taken up again."""
    faults: int = 0
    """Trials after which a verifier found something."""
    garbage_reported: int = 0
    """Frames under way that were left as garbage, and are reported as such."""

    @property
    def is_clean(self) -> bool:
        """Say whether nothing went wrong."""
        wrong = (self.lost_acknowledged, self.false_records, self.signed_twice, self.refused)
        return not any(wrong) and not self.faults


class Trials:
    """Runs, and the cuts in them.

    Args:
        folder: Where to work; best in memory, for nothing here depends on a real flush.
        seed: Of everything that is drawn, but for the keys.
        tell: Told of each trial that does not hold, with what is needed to look at it.
    """

    def __init__(self, folder: Path, seed: int, tell: Callable[[str], None] = print) -> None:
        pa.set_cpu_count(1)  # the files are small: threads cost more than they bring
        self._folder = folder
        self._chance = Random(seed)
        self._tell = tell
        self._keys = Keys.drawn(folder / "keys")
        self._entries = Entries(self._keys, self._chance)
        self.counts = Counts()

    def run(self, trials: int) -> Counts:
        """Do so many trials."""
        while self.counts.trials < trials:
            disk = self._folder / "disk"
            disk.mkdir()
            (disk / "state").mkdir()
            self._chain(disk, trials)
            shutil.rmtree(disk)
        return self.counts

    def _chain(self, disk: Path, trials: int) -> None:
        promises = Promises()
        now_ns = BEGIN_NS
        for number in range(RUNS_OF_A_LOG):
            watch = Watch(disk)
            started_at, now_ns = self._run(watch, promises, now_ns)
            now_ns += _PAUSE_NS
            for _ in range(TRIALS_OF_A_RUN):
                if self.counts.trials >= trials:
                    return
                behind = self._chance.randint(0, len(watch.changes))
                self.counts.cuts_in_recovery += bool(number) and behind < started_at
                self._trial(watch, behind, promises.until(behind), now_ns)
            behind = self._chance.randint(0, len(watch.changes))
            later = self._folder / "later"
            left_by_a_cut(watch, behind, later, self._chance)
            shutil.rmtree(disk)
            later.rename(disk)
            promises = promises.until(behind)

    def _run(self, watch: Watch, promises: Promises, now_ns: int) -> tuple[int, int]:
        """Return after how many changes all was taken up, and at what time it ended."""
        with watch:
            pipeline = Pipeline(
                watch.folder,
                self._keys,
                self._entries,
                promises,
                changes=lambda: len(watch.changes),
                now_ns=now_ns,
            )
            pipeline.start()
            started_at = len(watch.changes)
            run(pipeline, self._chance, RUN_STEPS)
            pipeline.close()
        unseen = watch.unseen()
        assert not unseen, f"written beside the calls that are watched: {unseen}"
        self.counts.steps_sealed_before += pipeline.steps_sealed
        return started_at, pipeline.now_ns

    def _trial(self, watch: Watch, behind: int, promises: Promises, now_ns: int) -> None:
        counts, folder = self.counts, self._folder / "trial"
        kind = ("torn", "torn", "killed", "garbage")[counts.trials % 4]
        garbage = kind == "garbage"
        sealing = counts.trials % SEALED_EVERY == 0
        counts.trials += 1
        setattr(counts, kind, getattr(counts, kind) + 1)
        if kind == "killed":
            left_by_a_kill(watch, behind, folder)
        else:
            left_by_a_cut(watch, behind, folder, self._chance, garbage=garbage)
        last = watch.changes[behind - 1] if behind else None
        counts.cuts_in_sealing += last is not None and last.path.startswith(_OF_THE_SEALER)
        where = f"trial {counts.trials} ({kind}), behind {last.call if last else 'nothing'} of " + (
            last.path if last else "anything"
        )
        try:
            pipeline = Pipeline(
                folder, self._keys, self._entries, promises, now_ns=now_ns, leaves_max=10_000
            )
            pipeline.start()
            pipeline.record("w0", 2)
            pipeline.settle(sealing=sealing)
            pipeline.close()
        except Exception as error:  # noqa: BLE001  whatever it is, it is counted and told
            counts.refused += 1
            self._tell(f"{where}: refused: {type(error).__name__}: {error}")
        else:
            counts.sealed_on += sealing
            counts.steps_sealed += pipeline.steps_sealed
            verdict = judge(folder, self._keys, promises, fast_too=sealing)
            self._count(verdict, where, garbage=garbage)
        shutil.rmtree(folder)

    def _count(self, verdict: Verdict, where: str, *, garbage: bool) -> None:
        counts = self.counts
        counts.lost_acknowledged += verdict.lost
        counts.false_records += verdict.false
        counts.signed_twice += verdict.resigned
        faults = verdict.faults
        if garbage:
            faults = tuple(fault for fault in faults if not fault.endswith(_TORN))
            counts.garbage_reported += len(faults) < len(verdict.faults)
        counts.faults += bool(faults)
        if not verdict._replace(faults=faults).holds:
            self._tell(f"{where}: {verdict}")


def torn(folder: Path, trials: int, seed: int) -> dict[str, Any]:
    """Do so many trials and return what they came to."""
    counts: dict[str, Any] = msgspec.to_builtins(Trials(folder, seed).run(trials))
    return counts
