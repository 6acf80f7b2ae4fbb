"""The level files: all hashes of the tree that are kept, and from them any root or subtree.

Level 0 holds the leaves, level L + 1 the root of each full tile of 256 hashes of level L. What lies
between two levels, and the right edge of the tree, is computed when it is asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.tree.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE,
    TILE_BYTES,
    full_roots,
    node_hash,
)
from ksz_router.privacylog.tree.shards import Shards, TreeDamaged

__all__ = ["Damage", "Levels", "TreeDamaged"]

HEIGHT: Final = 8
"""Of a tile: from one level to the next."""
_LEVELS: Final = range(8)
_CHECK_TILES: Final = 256
_DAMAGES_MAX: Final = 100


class Damage(NamedTuple):
    """A full tile and its hash in the level above that do not agree."""

    tile: Path
    tile_offset: int
    above: Path
    above_offset: int
    first_leaf: int
    """Of the leaves below the tile."""
    end_leaf: int

    def __str__(self) -> str:
        return (
            f"{self.tile}: the tile at byte {self.tile_offset} and its hash in {self.above} at "
            f"byte {self.above_offset} do not agree (leaves {self.first_leaf} to {self.end_leaf})"
        )


class Levels:
    """The level files in a folder, written by one process at a time.

    Opening changes nothing. What a crash left behind the last whole size is removed by
    :meth:`truncate`, and only then can leaves be appended.
    """

    def __init__(self, folder: Path, disk: Disk = DISK, *, writes: bool = True) -> None:
        self._files = Shards(folder, disk, writes=writes)
        self._writes = writes
        self._size = self._whole_size()
        self._clean = all(
            self._files.stored(level) == self._size >> HEIGHT * level for level in _LEVELS
        )
        self._tails: list[bytes] = []
        if self._clean and writes:
            self._read_tails()

    @classmethod
    def reading(cls, folder: Path) -> "Levels":
        """Open for reading only, beside the process that writes."""
        return cls(folder, writes=False)

    @property
    def size(self) -> int:
        """The most leaves for which every level has its hashes."""
        return self._size if self._writes else self._whole_size()

    def append(self, leaf_hashes: Sequence[bytes]) -> None:
        """Write leaves behind the last, and what follows from them in the levels above.

        Raises:
            TreeDamaged: there is more than whole hashes; :meth:`truncate` first.
            OSError: it could not be written. This object is not to be used any more.
        """
        assert self._writes, "opened for reading"
        if not self._clean:
            raise TreeDamaged(f"{self._files.folder}: what a crash left must be cut off first")
        self._clean = False  # until all of it is written
        data = b"".join(leaf_hashes)
        assert len(data) == HASH_BYTES * len(leaf_hashes), "hashes of 32 bytes"
        level = 0
        while data:
            if level == len(self._tails):
                self._tails.append(b"")
            self._files.write(level, self._size >> HEIGHT * level, data)
            data = self._tails[level] + data
            whole = len(data) - len(data) % TILE_BYTES
            self._tails[level] = data[whole:]
            data = full_roots(data[:whole], HEIGHT)
            level += 1
        self._size += len(leaf_hashes)
        self._clean = True

    def flush(self) -> None:
        """Return when what was appended will survive a power cut.

        Raises:
            OSError: it may not. This object is not to be used any more.
        """
        self._files.flush()

    def truncate(self, size: int) -> None:
        """Cut off all that a tree of ``size`` leaves does not have, durably.

        Raises:
            TreeDamaged: a level holds less than that tree has. Nothing was changed.
            OSError: it could not be done. This object is not to be used any more.
        """
        assert self._writes, "opened for reading"
        if size > (whole := self._whole_size()):
            raise TreeDamaged(
                f"{self._files.folder}: holds {whole} leaves whole, and {size} are signed: restore "
                "the level files, or make them anew from the records"
            )
        self._clean = False
        self._files.flush()
        for level in _LEVELS:
            self._files.cut(level, size >> HEIGHT * level)
        self._files.close()
        self._size = size
        self._read_tails()
        self._clean = True

    def root(self, size: int) -> bytes:
        """Return the root of the tree of the first ``size`` leaves.

        Raises:
            TreeDamaged: a file does not hold what it must.
        """
        return self.subtree(0, size) if size else EMPTY_ROOT

    def subtree(self, first: int, end: int) -> bytes:
        """Return the hash of leaves from ``first`` to before ``end``, as RFC 6962 joins them.

        ``first`` is a multiple of the least power of two that is not below their number, as it is
        for each subtree that a tree has.

        Raises:
            TreeDamaged: a file does not hold what it must.
        """
        assert 0 <= first < end
        found = b""
        while first < end:
            # From the right: the largest full subtree that ends here joins all that is behind it.
            count = end - first
            height = (count & -count).bit_length() - 1
            level, within = divmod(height, HEIGHT)
            index = (end - 1 >> height) << within
            full = full_roots(self._files.read(level, index, 1 << within), within)
            found = node_hash(full, found) if found else full
            end -= 1 << height
        return found

    def hash(self, level: int, index: int) -> bytes:
        """Return hash ``index`` of level ``level``: the root over 256**level leaves.

        Raises:
            TreeDamaged: it is not there.
        """
        return self._files.read(level, index, 1)

    def leaf(self, index: int) -> bytes:
        """Return a leaf.

        Raises:
            TreeDamaged: it is not there.
        """
        return self._files.read(0, index, 1)

    def leaves(self, first: int, end: int) -> list[bytes]:
        """Return the leaves from ``first`` to before ``end``.

        Raises:
            TreeDamaged: they are not there.
        """
        data = self._files.read(0, first, end - first)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def check(self, size: int) -> list[Damage]:
        """Compute every level above 0 anew from the one below; return what does not agree.

        Hashes in the last tile of a level, which is not full, are held by the root alone. At most a
        hundred places are returned.

        Raises:
            TreeDamaged: a file holds less than a tree of ``size`` leaves has.
        """
        damages: list[Damage] = []
        for level in _LEVELS:
            tiles = size >> HEIGHT * (level + 1)
            for first in range(0, tiles, _CHECK_TILES):
                count = min(_CHECK_TILES, tiles - first)
                made = full_roots(self._files.read(level, first * TILE, count * TILE), HEIGHT)
                held = self._files.read(level + 1, first, count)
                if made != held:
                    damages += self._compare(level, first, made, held)
                if len(damages) >= _DAMAGES_MAX:
                    return damages[:_DAMAGES_MAX]
        return damages

    def close(self) -> None:
        """Close the files; what was not flushed may be lost."""
        self._files.close()

    def _compare(self, level: int, first: int, made: bytes, held: bytes) -> list[Damage]:
        damages = []
        for tile, at in enumerate(range(0, len(made), HASH_BYTES), first):
            if made[at : at + HASH_BYTES] != held[at : at + HASH_BYTES]:
                below = self._files.place(level, tile * TILE)
                above = self._files.place(level + 1, tile)
                leaves = TILE ** (level + 1)
                damages.append(Damage(*below, *above, tile * leaves, (tile + 1) * leaves))
        return damages

    def _whole_size(self) -> int:
        size = self._files.stored(0)
        for level in _LEVELS[1:]:
            # A level with n hashes serves up to the leaf before its next one is due.
            size = min(size, (self._files.stored(level) + 1 << HEIGHT * level) - 1)
        return size

    def _read_tails(self) -> None:
        self._tails = []
        for level in _LEVELS:
            count = self._size >> HEIGHT * level
            if count == 0:
                break
            self._tails.append(self._files.read(level, count - count % TILE, count % TILE))
