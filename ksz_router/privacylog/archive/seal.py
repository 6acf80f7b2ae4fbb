"""Seal what is ordered and signed, one step after the other.

A step takes leaves from where the newest manifest ends, writes their files, reads those again and
compares them with the tree leaf by leaf. Only then does it write its manifest, and record that in
the log. Whatever a step left that did not come so far is not part of the archive: the next one does
the same again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.chain import (
    Chained,
    append,
    catalog,
    fold,
    newest_recorded,
    quarters,
)
from ksz_router.privacylog.archive.leaves import Gathering
from ksz_router.privacylog.archive.manifest import Cursor, Manifest, SealedFile
from ksz_router.privacylog.archive.merge import forget, merge
from ksz_router.privacylog.archive.ordered import Ordered, Taken
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.archive.step_files import StepFiles
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse_head
from ksz_router.privacylog.keys import KeyRing, quarter_after, quarter_begin_ns, quarter_of
from ksz_router.privacylog.tree.checkpoint import Checkpoint, parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.note import VerifierKey
from ksz_router.privacylog.writer import Writer

SLOT: Final = "s0"
"""Of the entries that say what was sealed."""
LEAVES_READY: Final = 65_536
"""So many are sealed at once; fewer wait for the others."""
LEAVES_MAX: Final = LEAVES_READY
"""Of one step: bounds its memory. No more than are waited for, so that all steps need as much."""
WAIT_US: Final = 600_000_000
"""A leaf waits for others so long."""


_LATE_US: Final = 3_600_000_000
"""What comes so long after its quarter still finds its runs as they are."""


class SealRefused(PrivacyLogError):
    """What is to be sealed, or was, is not what the log and its tree say. Nothing is recorded."""


class Grounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a sealer works on."""

    archive: Path
    log: Path
    keys: KeyRing
    node: str
    origin: str
    """Name of the log in its checkpoints."""
    vkeys: Sequence[VerifierKey]
    """That its checkpoints are signed with."""


class Sealer:
    """Writes an archive. One at a time: whoever has the slot of the writer.

    Args:
        grounds: What it works on.
        writer: Of the slot ``s0``; stays the caller's to close.
        now_us: Unix microseconds of its opening.
        pause: Called after each piece of leaves, and each 256 KiB that are written. What it raises
            ends a step, or a merge, as if it had not been begun.
        leaves_max: Of one step.
        disk: For fault tests.

    Raises:
        ChainBroken: the manifests or catalogs cannot be used.
        LogNotWritable: the disk refuses.
    """

    def __init__(
        self,
        grounds: Grounds,
        writer: Writer,
        *,
        now_us: int,
        pause: Callable[[], None] = lambda: None,
        leaves_max: int = LEAVES_MAX,
        disk: Disk = DISK,
    ) -> None:
        self._grounds = grounds
        self._writer = writer
        self._pause = pause
        self.leaves_max = leaves_max
        self._disk = disk
        self._latest_us = writer.latest_us
        self._oldest: tuple[int, int] | None = None
        self._merged_upto = 0
        self.newest = newest_recorded(grounds.archive)
        if self.newest is not None:
            # The run before may have died between a manifest and its entry; two do no harm.
            self._tell(self.newest, now_us)
            fold(grounds.archive, disk)

    @property
    def sealed_leaves(self) -> int:
        """How many leaves are sealed."""
        return self.newest.manifest.sealed_leaves if self.newest else 0

    def signed(self) -> Checkpoint | None:
        """Return the newest checkpoint; None where nothing was signed yet.

        Raises:
            CheckpointRefused: the log did not sign it.
            SealRefused: it is of another log, or older than what was sealed.
        """
        try:
            data = (self._grounds.archive / "tree" / "checkpoint").read_bytes()
        except FileNotFoundError:
            if self.newest is not None:
                raise SealRefused("the checkpoint is missing, but leaves were sealed") from None
            return None
        checkpoint = parse_checkpoint(data, self._grounds.vkeys)
        if checkpoint.origin != self._grounds.origin:
            raise SealRefused(f"the checkpoint is of the log {checkpoint.origin}")
        if checkpoint.size < self.sealed_leaves:
            raise SealRefused(
                f"{self.sealed_leaves} leaves are sealed, but the checkpoint signs "
                f"{checkpoint.size}: part of the archive was set back to an older copy"
            )
        return checkpoint

    def is_due(self, now_us: int) -> bool:
        """Say whether leaves are to be sealed now.

        That is when enough are there, when one that does not only say what was sealed waits for
        ten minutes, or when the quarter of one is over.

        Raises:
            PrivacyLogError: as :meth:`step`.
        """
        checkpoint, begin = self.signed(), self.sealed_leaves
        if checkpoint is None or checkpoint.size == begin:
            return False
        if checkpoint.size - begin >= LEAVES_READY:
            return True
        with self._ordered() as ordered:
            lines = ordered.lines(begin, checkpoint.size)
            quarter = quarter_of(now_us * 1000)
            if any(line.key_id.partition("-")[0] < quarter for line in lines):
                return True
            waiting = next((line for line in lines if line.slot != SLOT), None)
            if waiting is None:
                return False
            if self._oldest is None or self._oldest[0] != waiting.first_leaf:
                taken = next(each for each in ordered.of_line(waiting) if each.records)
                self._oldest = waiting.first_leaf, parse_head(taken.records[0]).at_us
        return now_us - self._oldest[1] >= WAIT_US

    def step(self, now_us: int) -> Manifest | None:
        """Seal what is ready, at most ``leaves_max`` leaves; None where nothing is.

        Raises:
            SealRefused, SegmentRefused, EntryNotSealable: what is there contradicts itself.
            LogCorrupt, OrderDamaged, TreeDamaged, CheckpointRefused, ChainBroken, KeysError: what
                it stands on cannot be used.
            LogNotWritable, OSError: the disk refused. This object must not be used any more.
        """
        checkpoint = self.signed()
        if checkpoint is None or checkpoint.size == self.sealed_leaves:
            return None
        grounds = self._grounds
        levels = Levels.reading(grounds.archive / "tree")
        try:
            if levels.root(checkpoint.size) != checkpoint.root:
                raise SealRefused("the tree has another root than the checkpoint signs")
            with self._ordered() as ordered:
                taken = ordered.take(self.sealed_leaves, checkpoint.size)
                gathering = Gathering(_signed(taken, checkpoint.size), self.leaves_max)
                files = StepFiles(grounds.archive, grounds.node, self._pause, self._disk)
                added, removed = files.write(gathering, levels)
        finally:
            levels.close()
        self.record(now_us, added, removed, sealed_leaves=gathering.end, cursors=gathering.cursors)
        assert self.newest is not None
        return self.newest.manifest

    def merge(self, now_us: int) -> Manifest | None:
        """Make one run of several, where that is due; None where it is not.

        Raises:
            SegmentRefused: a file is damaged or missing.
            ChainBroken, LogNotWritable, OSError: as :meth:`step`.
        """
        archive, newest = self._grounds.archive, self.newest
        if newest is None or newest.manifest.number == self._merged_upto:
            return None
        files = [
            file
            for quarter in quarters(archive)
            for kind in "pukr"
            for file in catalog(archive, quarter, kind).files
        ]
        due = plan(files, lambda quarter: _is_over(quarter, now_us))
        if not due:
            self._merged_upto = newest.manifest.number
            return None
        added = merge(archive, due[0], pause=self._pause, disk=self._disk)
        self.record(now_us, added, due[0].removed)
        forget(archive, due[0], self._disk)
        return self.newest.manifest if self.newest else None

    def record(
        self,
        now_us: int,
        added: Sequence[SealedFile],
        removed: Sequence[str],
        *,
        sealed_leaves: int | None = None,
        cursors: dict[str, Cursor] | None = None,
    ) -> None:
        """Make files part of the archive, or others no longer: by a manifest and its entry.

        Raises:
            ChainBroken, LogNotWritable, OSError: as :meth:`step`.
        """
        before = self.newest.manifest if self.newest else None
        slots = (before.slots if before else {}) | (cursors or {})
        manifest = Manifest(
            number=before.number + 1 if before else 1,
            previous=self.newest.sha256 if self.newest else "",
            origin=self._grounds.origin,
            node=self._grounds.node,
            made_at_us=now_us,
            sealed_leaves=self.sealed_leaves if sealed_leaves is None else sealed_leaves,
            slots=dict(sorted(slots.items())),
            added=tuple(added),
            removed=tuple(removed),
        )
        self.newest = append(self._grounds.archive, manifest, self._disk)
        self._tell(self.newest, now_us)
        fold(self._grounds.archive, self._disk)

    def _tell(self, recorded: Chained, now_us: int) -> None:
        """Record in the log that a manifest was written."""
        self._latest_us = max(now_us, self._latest_us)
        digest = bytes.fromhex(recorded.sha256)
        entry = Entry(kind=Kind.SEALED, at_us=self._latest_us, digest=digest)
        self._writer.commit([canonical(entry)], now_us * 1000)

    def _ordered(self) -> Ordered:
        grounds = self._grounds
        return Ordered(grounds.log, grounds.archive / "order", grounds.keys)


def _signed(taken: Iterable[Taken], size: int) -> Iterator[Taken]:
    """Yield frames while all their leaves are under the checkpoint.

    Raises:
        SealRefused: those of one are in part.
    """
    for each in taken:
        if each.first_leaf + len(each.records) > size:
            raise SealRefused(f"the checkpoint signs part of a frame: {size} leaves")
        yield each


def _is_over(quarter: str, now_us: int) -> bool:
    return quarter_begin_ns(quarter_after(quarter)) // 1000 + _LATE_US <= now_us
