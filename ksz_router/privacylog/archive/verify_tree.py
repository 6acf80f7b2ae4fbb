"""Check the checkpoints, the anchor and the level files of an archive against each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.tree.checkpoint import Checkpoint, CheckpointRefused, parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import (
    HASH_BYTES,
    TILE,
    TILE_BYTES,
    full_roots,
    node_hash,
    root_of,
)
from ksz_router.privacylog.tree.note import VerifierKey
from ksz_router.privacylog.tree.shards import SHARD, TreeDamaged

_TILE_HEIGHT = 8
_LEVELS_MAX = 8
_NOTE_BYTES_MAX = 64 * 1024


class Tree:
    """The level files of an archive and the newest checkpoint that can be trusted.

    Attributes:
        signed: That checkpoint; None where there is none.
    """

    def __init__(
        self,
        archive: Path,
        vkeys: Sequence[VerifierKey],
        anchor: Path | None,
        findings: Findings,
    ) -> None:
        self.folder = archive / "tree"
        self.levels = Levels.reading(self.folder)
        self._vkeys = vkeys
        self._findings = findings
        newest = self._checkpoint(self.folder / "checkpoint", "the newest checkpoint is missing")
        held = None
        if anchor is not None:
            held = self._checkpoint(anchor, "the file of the last checkpoint is missing")
        self._compare(newest, held, anchor)
        known = [each for each in (newest, held) if each is not None]
        self.signed = max(known, key=lambda each: each.size, default=None)
        findings.tree_size = self.signed.size if self.signed else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.levels.close()

    @property
    def size(self) -> int:
        """Number of leaves that are signed."""
        return self.signed.size if self.signed else 0

    def check(self, *, whole: bool) -> None:
        """Check root and upper levels, and every checkpoint that was kept.

        Level 1 is computed from level 0 only where the ``whole`` tree is asked for.
        """
        if self.signed is not None:
            is_right = self._check_root(self.signed)
            try:
                if whole or not is_right:  # then where it goes wrong is to be found
                    self._check_levels()
                else:
                    self._check_upper_levels()
            except TreeDamaged as error:
                self._damaged(error)
        self._check_kept()
        for path in sorted(self.folder.glob("[0-9]/*")):
            self._findings.files += path.is_file()

    def _check_levels(self) -> None:
        for damage in self.levels.check(self.size):
            what = (
                f"the hash of leaves {damage.first_leaf} to {damage.end_leaf} is not that of the "
                f"tile at byte {damage.tile_offset} of {damage.tile}"
            )
            self._findings.fault(
                damage.above, what, offset=damage.above_offset, leaf=damage.first_leaf
            )

    def _check_upper_levels(self) -> None:
        for level in range(1, _LEVELS_MAX):
            for tile in range(self.size >> _TILE_HEIGHT * (level + 1)):
                below = range(tile * TILE, (tile + 1) * TILE)
                hashes = b"".join(self.levels.hash(level, index) for index in below)
                if full_roots(hashes, _TILE_HEIGHT) != self.levels.hash(level + 1, tile):
                    first = tile * TILE ** (level + 1)
                    path = self.folder / str(level + 1) / f"{tile // SHARD:06d}"
                    offset = tile % SHARD * HASH_BYTES
                    what = f"a hash is not that of its tile in level {level}"
                    self._findings.fault(path, what, offset=offset, leaf=first)

    def read_leaves(self, first: int, end: int) -> bytes | None:
        """Return hashes of level 0 in a row; None where they are missing, which is reported."""
        try:
            return b"".join(self.levels.leaves(first, end))
        except TreeDamaged as error:
            self._damaged(error)
            return None

    def is_right(self, index: int, leaf: bytes) -> bool:
        """Say whether the tree above level 0 has this leaf at this place, whatever level 0 says."""
        tile = index // TILE
        try:
            if (tile + 1) * TILE <= self.size:
                hashes = bytearray(b"".join(self.levels.leaves(tile * TILE, (tile + 1) * TILE)))
                assert len(hashes) == TILE_BYTES
                at = index % TILE * HASH_BYTES
                hashes[at : at + HASH_BYTES] = leaf
                return full_roots(bytes(hashes), _TILE_HEIGHT) == self.levels.hash(1, tile)
            if self.signed is None:
                return False
            leaves = self.levels.leaves(tile * TILE, self.size)
            leaves[index % TILE] = leaf
            return self._joined(tile * TILE, root_of(leaves)) == self.signed.root
        except TreeDamaged as error:
            self._damaged(error)
            return False

    def _joined(self, end: int, found: bytes) -> bytes:
        """Return the root of a tree whose last tile, which is not full, has this root."""
        while end:
            begin = end & (end - 1)
            found = node_hash(self.levels.subtree(begin, end), found)
            end = begin
        return found

    def _root(self, checkpoint: Checkpoint) -> bytes | None:
        root = self.levels.root(checkpoint.size)
        return root if root == checkpoint.root else None

    def place(self, index: int) -> tuple[Path, int]:
        """Return the level file and the byte in it at which a leaf stands."""
        shard, within = divmod(index, SHARD)
        return self.folder / "0" / f"{shard:06d}", within * HASH_BYTES

    def _check_root(self, checkpoint: Checkpoint) -> bool:
        try:
            if self._root(checkpoint) is not None:
                return True
        except TreeDamaged as error:
            self._damaged(error)
            return False
        path, _ = self.place(max(checkpoint.size - 1, 0))
        self._findings.fault(
            path,
            "its last hashes, or those of the levels above, do not give the root that was signed "
            f"for {checkpoint.size} leaves",
            leaf=checkpoint.size,
        )
        return False

    def _check_kept(self) -> None:
        before = Checkpoint("", 0, b"")
        folder = self.folder / "checkpoints"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.name.endswith(".note"):
                continue
            self._findings.files += 1
            kept = self._checkpoint(path, "is missing")
            if kept is None:
                continue
            if kept.size < before.size:
                self._findings.fault(path, "is of a smaller tree than the one of an earlier hour")
            before = kept
            if kept.size > self.size:
                what = f"is of {kept.size} leaves; the newest checkpoint is of {self.size}"
                self._findings.fault(path, what)
                continue
            if self.signed is not None and kept.origin != self.signed.origin:
                self._findings.fault(path, "is of another log")
            try:
                if self._root(kept) is None and not self._is_tile_wrong(kept.size):
                    self._findings.fault(path, "its root is not that of the tree", leaf=kept.size)
            except TreeDamaged as error:
                self._damaged(error)

    def _is_tile_wrong(self, size: int) -> bool:
        """Say whether level 0 is wrong where a tree of this size ends within a tile; report it."""
        begin = size - size % TILE
        if begin == size or begin + TILE > self.size:
            return False
        hashes = b"".join(self.levels.leaves(begin, begin + TILE))
        if full_roots(hashes, _TILE_HEIGHT) == self.levels.hash(1, begin // TILE):
            return False
        path, offset = self.place(begin)
        what = "its tile is not the one that the levels above it have"
        self._findings.fault(path, what, leaf=begin, offset=offset)
        return True

    def _compare(
        self, newest: Checkpoint | None, held: Checkpoint | None, anchor: Path | None
    ) -> None:
        if newest is None or held is None or anchor is None:
            return
        path = self.folder / "checkpoint"
        if newest.origin != held.origin:
            self._findings.fault(path, f"is of another log than {anchor}")
        elif newest.size > held.size:
            self._findings.fault(anchor, f"is older than {path}: an older copy was put back")
        elif newest.size < held.size:
            self._findings.note(
                f"{path}: is of {newest.size} leaves, the last one signed of {held.size}: the "
                "sequencer writes it at its next start"
            )
        elif newest.root != held.root:
            self._findings.fault(path, f"has another root than {anchor} for the same size")

    def _checkpoint(self, path: Path, missing: str) -> Checkpoint | None:
        self._findings.files += 1
        try:
            with path.open("rb") as stream:
                return parse_checkpoint(stream.read(_NOTE_BYTES_MAX), self._vkeys)
        except FileNotFoundError:
            self._findings.fault(path, missing)
        except OSError as error:
            self._findings.fault(path, f"cannot be read: {error.strerror}")
        except CheckpointRefused as error:
            self._findings.fault(path, str(error))
        return None

    def _damaged(self, error: TreeDamaged) -> None:
        # The message names the file first, when it is one.
        name, _, what = str(error).partition(": ")
        self._findings.fault(Path(name), what)
