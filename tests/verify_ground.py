"""An archive with all its parts, made once by the real programs, for those that verify it."""

import shutil
from pathlib import Path
from random import Random

from bench.log_entries import BEGIN_NS, Entries, Keys, Promises
from bench.log_judge import place_of
from bench.log_pipeline import SLOTS, Pipeline
from ksz_router.privacylog.archive.verify_fast import Place


class Ground:
    """A log that was written, sequenced and sealed over the end of a quarter, now at rest.

    Attributes:
        disk: Its folder.
        keys: Its keys.
        place: What verifiers are given of it.
        promises: What was recorded in it.
    """

    def __init__(self, folder: Path, seed: int = 11) -> None:
        self.keys = Keys.drawn(folder / "keys")
        self.disk = folder / "disk"
        (self.disk / "state").mkdir(parents=True)
        self.promises = Promises()
        self._entries = Entries(self.keys, Random(seed))
        self._now_ns = BEGIN_NS
        pipeline = self.pipeline(leaves_max=200)
        pipeline.start()
        for _ in range(3):
            for slot in SLOTS:
                pipeline.record(slot, 60)
            pipeline.sequence()
            pipeline.seal()
            pipeline.now_ns += 20_000_000_000
        pipeline.settle()
        pipeline.record(SLOTS[0], 3)
        pipeline.record(SLOTS[0], 0)
        pipeline.sequence()
        pipeline.close()

    @property
    def place(self) -> Place:
        return place_of(self.disk, self.keys)

    def pipeline(self, leaves_max: int = 10_000) -> Pipeline:
        """Return all programs, to be started on what is there."""
        self._now_ns += 200_000_000_000
        now_ns = BEGIN_NS if not (self.disk / "log").exists() else self._now_ns
        return Pipeline(
            self.disk,
            self.keys,
            self._entries,
            self.promises,
            now_ns=now_ns,
            leaves_max=leaves_max,
        )

    def copy(self, folder: Path) -> "Ground":
        """Return the same on a copy of the disk."""
        other = object.__new__(Ground)
        other.__dict__.update(self.__dict__)
        other.disk = folder / "disk"
        shutil.copytree(self.disk, other.disk)
        return other

    def sealed(self, kind: str) -> list[Path]:
        """Return the sealed files of a kind."""
        return sorted((self.disk / "archive" / "sealed").glob(f"q=*/{kind}/*.parquet"))
