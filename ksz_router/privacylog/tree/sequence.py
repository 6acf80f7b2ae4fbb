"""The sequencer: gives every durable record its leaf, grows the tree, signs checkpoints.

One cycle takes these steps, and none begins before the one before it is on disk:

1. read the whole frames that are new in every slot, *then* flush those files;
2. append lines to the order: they fix which leaf each record is;
3. compute the leaves and append them to the level files;
4. compute the root, sign it, and put it in the place of the last checkpoint (:mod:`anchor`);
5. show it: ``tree/checkpoint``, and the first of each hour beside it.

After a crash the level files are cut back to what was signed, and whatever the order fixed beyond
that is completed before anything new is read: the same leaves under the same indexes, so that no
size is ever signed with two roots. Pure of the clock: the caller passes the time.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ksz_router.limits import sequence_bytes_max, sequence_records_max
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.durable import DISK, Disk, sync_folder, write_over
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.anchor import Anchor, AnchorRefused, lock
from ksz_router.privacylog.tree.checkpoint import (
    Checkpoint,
    CheckpointRefused,
    Signer,
    parse_checkpoint,
)
from ksz_router.privacylog.tree.intake import Intake
from ksz_router.privacylog.tree.levels import Levels, TreeDamaged
from ksz_router.privacylog.tree.merkle import EMPTY_ROOT, leaf_hashes
from ksz_router.privacylog.tree.order import Line
from ksz_router.privacylog.tree.order_writer import OrderWriter
from ksz_router.privacylog.tree.places import read_line
from ksz_router.privacylog.tree.salts import Salts
from ksz_router.privacylog.tree.slot_tail import Batch

_LEAVES_AT_ONCE = 1_024
"""Added to the tree between two pauses: some milliseconds."""


class Cycle(NamedTuple):
    """What a cycle did."""

    records: int
    """That became leaves."""
    file_bytes: int
    """Of write-ahead files that were ordered."""
    has_more: bool
    """A bound was reached: there is more to be read at once."""
    stalled: dict[str, str]
    """Slots that could not be read, and why."""


class Sequencer:
    """The one process that orders and signs a log; nothing else writes order, levels, checkpoint.

    Args:
        log: Folder of the write-ahead files.
        archive: Folder of order and tree; made where it is missing.
        last_checkpoint: File of the anchor, outside of the archive.
        keys_folder: Of the quarter keys.
        signer: Signs the checkpoints.
        now_ns: Unix nanoseconds.
        pause: Called again and again while a cycle computes, so that it need not do so in one go.
        disk: For fault tests.

    Raises:
        SequencerRuns: another process signs this log.
        AnchorRefused: the archive does not continue what was signed last.
        OrderDamaged: the order lacks what was signed.
        LogOlder: the log lacks frames that were ordered.
        KeysError: keys of frames that were ordered and not signed are missing.
        OSError: something cannot be read or written.
    """

    def __init__(
        self,
        *,
        log: Path,
        archive: Path,
        last_checkpoint: Path,
        keys_folder: Path,
        signer: Signer,
        now_ns: int,
        pause: Callable[[], None] = lambda: None,
        disk: Disk = DISK,
    ) -> None:
        self._log = log
        self._archive = archive
        self._tree = archive / "tree"
        self._keys = KeyRing(keys_folder)
        self._signer = signer
        self._pause = pause
        self._disk = disk
        self._salts: dict[str, Salts] = {}
        self._hour = ""
        self._is_usable = False
        self._held: list[Anchor | Levels | OrderWriter | Intake] = []
        _make(self._tree)
        self._lock = lock(self._tree)
        try:
            self._open(last_checkpoint, now_ns)
        except BaseException:
            self.close()
            raise
        self._is_usable = True

    @property
    def signed(self) -> Checkpoint:
        """The last checkpoint."""
        assert self._anchor.last is not None
        return self._anchor.last

    def cycle(self, now_ns: int) -> Cycle:
        """Order, add to the tree and sign what is new.

        Raises:
            PrivacyLogError: the log or the archive is not what it was.
            OSError: the disk refused. In either case this object must not be used any more.
        """
        assert self._is_usable, "a cycle failed, or it was closed"
        self._is_usable = False
        batches, has_more = self._intake.read(sequence_records_max, sequence_bytes_max)
        self._intake.flush()
        lines, leaf = [], self._order.end_leaf
        for batch in batches:
            lines.append(_line_of(batch, leaf))
            leaf = lines[-1].end_leaf
        self._order.append(lines)
        for line in lines:
            self._intake.ordered(line)
        self._complete(zip(lines, batches, strict=True), now_ns)
        self._is_usable = True
        size = sum(line.end - line.begin for line in lines)
        records = sum(line.records for line in lines)
        return Cycle(records, size, has_more, dict(self._intake.stalled))

    def close(self) -> None:
        """Let another process sign."""
        self._is_usable = False
        for part in self._held[::-1]:
            part.close()
        self._held.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self, last_checkpoint: Path, now_ns: int) -> None:
        _make(last_checkpoint.parent)
        origin, vkeys = self._signer.origin, self._signer.vkeys
        self._anchor = Anchor(last_checkpoint, origin, vkeys, self._disk)
        self._held.append(self._anchor)
        if self._anchor.last is None:
            self._begin(last_checkpoint, now_ns)
        size = self.signed.size
        self._order = OrderWriter(self._archive / "order", size, self._disk)
        self._held.append(self._order)
        self._levels = Levels(self._tree, self._disk)
        self._held.append(self._levels)
        if self._levels.size < size:
            raise AnchorRefused(
                f"{self._tree}: has {self._levels.size} entries, and {size} were signed: put back "
                "the newest copy of the archive"
            )
        try:
            self._anchor.check(self._levels.root)
        except TreeDamaged as error:
            raise AnchorRefused(f"{error}: put back the newest copy of the archive") from error
        self._check_shown()
        self._levels.truncate(size)
        last = self._order.last_places()
        self._intake = Intake(
            self._log, self._keys, last, self._sealed, pause=self._pause, disk=self._disk
        )
        self._held.append(self._intake)
        self._complete(
            ((line, self._read_again(line)) for line in self._order.order.lines(size)), now_ns
        )
        self._show(now_ns)

    def _begin(self, last_checkpoint: Path, now_ns: int) -> None:
        """Sign the empty tree, where nothing says that there ever was another."""
        is_used = [name for name in ("order", "manifest", "sealed") if _has(self._archive / name)]
        if is_used or _has(self._tree):
            raise AnchorRefused(
                f"{last_checkpoint}: missing, while {self._archive} holds a tree: put back the "
                "newest copy of that file"
            )
        self._anchor.begin(self._signer.sign(0, EMPTY_ROOT, now_ns // 1_000_000_000))

    def _check_shown(self) -> None:
        """What is shown may be behind the anchor, after a crash, and never ahead of it."""
        file = self._tree / "checkpoint"
        if not file.exists():
            return
        try:
            shown = parse_checkpoint(file.read_bytes(), self._signer.vkeys)
        except CheckpointRefused as error:
            raise AnchorRefused(f"{file}: {error}: put back a copy of it, or remove it") from error
        if shown.size > self.signed.size:
            raise AnchorRefused(
                f"{file}: a tree of {shown.size} entries was signed, and the last checkpoint has "
                f"{self.signed.size}: put back the newest copy of the last checkpoint"
            )
        if self._levels.root(shown.size) != shown.root:
            raise AnchorRefused(
                f"{file}: was signed for another tree: put back the newest copy of the archive"
            )

    def _sealed(self) -> Mapping[str, Cursor]:
        sealed = newest(self._archive)
        return sealed.slots if sealed is not None else {}

    def _read_again(self, line: Line) -> Batch:
        header, found = read_line(self._log, self._keys, line)
        records = [record for frame in found for record in frame.records]
        return Batch(line.slot, header, line.place, line.end_place, records)

    def _complete(self, ordered: Iterable[tuple[Line, Batch]], now_ns: int) -> None:
        """Grow the tree by what the order fixed, and sign it."""
        added = 0
        for line, batch in ordered:
            assert len(batch.records) == line.records
            salts = self._salts_of(batch)
            for begin in range(0, line.records, _LEAVES_AT_ONCE):
                records = batch.records[begin : begin + _LEAVES_AT_ONCE]
                run = salts.run(line.first_leaf + begin, len(records))
                self._levels.append(leaf_hashes(run, records))
                self._pause()
            added += line.records
        if not added:
            return
        self._levels.flush()
        size = self._order.end_leaf
        assert self._levels.size == size
        note = self._signer.sign(size, self._levels.root(size), now_ns // 1_000_000_000)
        self._anchor.swap(note, self._levels.root)
        self._show(now_ns)

    def _salts_of(self, batch: Batch) -> Salts:
        key_id = batch.header.key_id
        if key_id not in self._salts:
            keys = self._keys.named(key_id, batch.header.commitment)
            self._salts = {key_id: Salts(keys.commit)} | self._salts
        return self._salts[key_id]

    def _show(self, now_ns: int) -> None:
        file, note = self._tree / "checkpoint", self._anchor.note
        if not file.exists() or file.read_bytes() != note:
            write_over(file, note, mode=0o640, disk=self._disk)
        hour = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H")
        if hour != self._hour:
            kept = self._tree / "checkpoints" / f"{hour}.note"
            _make(kept.parent)
            if not kept.exists():
                write_over(kept, note, mode=0o640, disk=self._disk)
            self._hour = hour


def _line_of(batch: Batch, first_leaf: int) -> Line:
    begin, end = batch.begin, batch.end
    return Line(
        slot=batch.slot,
        file=batch.header.number,
        key_id=batch.header.key_id,
        begin=begin.offset,
        end=end.offset,
        first_frame=begin.frame + 1,
        last_frame=end.frame,
        previous_crc=begin.crc,
        crc=end.crc,
        first_record=begin.next_record,
        records=len(batch.records),
        first_leaf=first_leaf,
        is_last=end.is_last,
    )


def _has(folder: Path) -> bool:
    """Say whether anything is in a folder."""
    return folder.is_dir() and any(folder.iterdir())


def _make(folder: Path) -> None:
    """Make a folder, and those above it, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_folder(each.parent)
