"""The level files: all hashes of the tree that are kept, and from them any root or subtree.

Level 0 holds the leaves, level L + 1 the root of each full tile of 256 hashes of level L. Hash i of
a level stands in ``<folder>/<level>/<i // 2**24>`` at byte ``i % 2**24 * 32``; so each slice of 256
hashes is a tile of C2SP tlog-tiles. What lies between two levels, and the right edge, is computed.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import DISK, Disk, sync_folder
from ksz_router.privacylog.tree.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE,
    TILE_BYTES,
    full_roots,
    node_hash,
)

SHARD: Final = 2**24
"""Hashes of one file: 512 MiB."""
_HEIGHT: Final = 8
_LEVELS_MAX: Final = 8
_OPEN_MAX: Final = 32
_CHECK_TILES: Final = 256
_DAMAGES_MAX: Final = 100


class TreeDamaged(PrivacyLogError):
    """Level files lack hashes that they must hold, or hold others. The message names the place."""


class Damage(NamedTuple):
    """A full tile and its hash in the level above that do not agree."""

    tile: Path
    tile_offset: int
    above: Path
    above_offset: int

    def __str__(self) -> str:
        return (
            f"{self.tile}: the tile at byte {self.tile_offset} and its hash at byte "
            f"{self.above_offset} of {self.above} do not agree"
        )


class Levels:
    """The level files in a folder, written by one process at a time.

    Opening changes nothing. What a crash left behind the last whole size is removed by
    :meth:`truncate`, and only then can leaves be appended.
    """

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self._folder = folder
        self._disk = disk
        self._writes = True
        self._open: dict[tuple[int, int], int] = {}
        self._dirty: set[tuple[int, int]] = set()
        self._new: set[Path] = set()
        self._size = self._whole_size()
        self._clean = all(
            self._stored(level) == self._size >> _HEIGHT * level for level in range(_LEVELS_MAX)
        )
        self._tails: list[bytes] = []
        if self._clean:
            self._read_tails()

    @classmethod
    def reading(cls, folder: Path) -> "Levels":
        """Open for reading only, beside the process that writes."""
        levels = cls(folder)
        levels._writes = False
        return levels

    @property
    def size(self) -> int:
        """The most leaves for which every level has its hashes."""
        if not self._writes:
            self._size = self._whole_size()
        return self._size

    def append(self, leaf_hashes: Sequence[bytes]) -> None:
        """Write leaves behind the last, and what follows from them in the levels above.

        Raises:
            TreeDamaged: there is more than whole hashes; :meth:`truncate` first.
            OSError: it could not be written. This object is not to be used any more.
        """
        assert self._writes, "opened for reading"
        if not self._clean:
            raise TreeDamaged(f"{self._folder}: what a crash left must be cut off first")
        self._clean = False  # until all of it is written
        data = b"".join(leaf_hashes)
        assert len(data) == HASH_BYTES * len(leaf_hashes), "hashes of 32 bytes"
        level = 0
        while data:
            if level == len(self._tails):
                self._tails.append(b"")
            self._write(level, self._size >> _HEIGHT * level, data)
            data = self._tails[level] + data
            whole = len(data) - len(data) % TILE_BYTES
            self._tails[level] = data[whole:]
            data = full_roots(data[:whole], _HEIGHT)
            level += 1
        self._size += len(leaf_hashes)
        self._clean = True

    def flush(self) -> None:
        """Return when what was appended will survive a power cut.

        Raises:
            OSError: it may not. This object is not to be used any more.
        """
        for key in sorted(self._dirty):
            self._disk.flush(self._open[key])
        self._dirty.clear()
        for folder in sorted(self._new, reverse=True):  # what is below first
            sync_folder(folder)
        self._new.clear()

    def truncate(self, size: int) -> None:
        """Cut off all that a tree of ``size`` leaves does not have, durably.

        Raises:
            TreeDamaged: a level holds less than that tree has. Nothing was changed.
            OSError: it could not be done. This object is not to be used any more.
        """
        assert self._writes, "opened for reading"
        if size > self._whole_size():
            raise TreeDamaged(
                f"{self._folder}: holds {self._whole_size()} leaves whole, not {size}: hashes of a "
                "signed tree are missing"
            )
        self._clean = False
        self.close()
        for level in range(_LEVELS_MAX):
            self._cut(level, size >> _HEIGHT * level)
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
            full = self._full(height, (end - 1) >> height)
            found = node_hash(full, found) if found else full
            end -= 1 << height
        return found

    def hash(self, level: int, index: int) -> bytes:
        """Return hash ``index`` of level ``level``: the root over 256**level leaves."""
        return self._read(level, index, 1)

    def leaf(self, index: int) -> bytes:
        """Return a leaf."""
        return self._read(0, index, 1)

    def leaves(self, first: int, end: int) -> list[bytes]:
        """Return the leaves from ``first`` to before ``end``."""
        data = self._read(0, first, end - first)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def check(self, size: int) -> list[Damage]:
        """Compute every level above 0 anew from the one below; return what does not agree.

        A leaf in the last tile, which is not full, is checked by the root alone. At most a hundred
        places are returned.

        Raises:
            TreeDamaged: a file holds less than a tree of ``size`` leaves has.
        """
        damages: list[Damage] = []
        for level in range(_LEVELS_MAX):
            tiles = size >> _HEIGHT * (level + 1)
            for first in range(0, tiles, _CHECK_TILES):
                count = min(_CHECK_TILES, tiles - first)
                made = full_roots(self._read(level, first * TILE, count * TILE), _HEIGHT)
                held = self._read(level + 1, first, count)
                if made == held:
                    continue
                for at in range(0, len(made), HASH_BYTES):
                    if made[at : at + HASH_BYTES] != held[at : at + HASH_BYTES]:
                        tile = first + at // HASH_BYTES
                        below, above = self._place(level, tile * TILE), self._place(level + 1, tile)
                        damages.append(Damage(*below, *above))
                        if len(damages) == _DAMAGES_MAX:
                            return damages
        return damages

    def close(self) -> None:
        """Close the files; what was not flushed may be lost."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._dirty.clear()

    def _full(self, height: int, index: int) -> bytes:
        """Return the root of full subtree ``index`` of this height."""
        level, within = divmod(height, _HEIGHT)
        return full_roots(self._read(level, index << within, 1 << within), within)

    def _whole_size(self) -> int:
        size = self._stored(0)
        for level in range(1, _LEVELS_MAX):
            # A level with n hashes serves up to the leaf before its next one is due.
            size = min(size, (self._stored(level) + 1 << _HEIGHT * level) - 1)
        return size

    def _stored(self, level: int) -> int:
        """Return how many whole hashes a level has in a row; bytes behind them count as one."""
        shards = sorted(self._shards(level))
        count = 0
        for number in shards:
            if count != number * SHARD:
                break
            count += self._path(level, number).stat().st_size // HASH_BYTES
        return count

    def _shards(self, level: int) -> list[int]:
        try:
            names = [path.name for path in (self._folder / str(level)).iterdir()]
        except FileNotFoundError:
            return []
        numbers = [int(name) for name in names if name.isascii() and name.isdigit()]
        return [number for number in numbers if f"{number:06d}" in names]

    def _cut(self, level: int, count: int) -> None:
        for number in sorted(self._shards(level), reverse=True):
            path = self._path(level, number)
            keep = max(0, count - number * SHARD) * HASH_BYTES
            size = path.stat().st_size
            if keep == 0:
                path.unlink()
                sync_folder(path.parent)
            elif keep < size:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    os.ftruncate(descriptor, keep)
                    self._disk.flush(descriptor)
                finally:
                    os.close(descriptor)

    def _read_tails(self) -> None:
        self._tails = []
        for level in range(_LEVELS_MAX):
            count = self._size >> _HEIGHT * level
            if count == 0:
                break
            self._tails.append(self._read(level, count - count % TILE, count % TILE))

    def _path(self, level: int, shard: int) -> Path:
        return self._folder / str(level) / f"{shard:06d}"

    def _place(self, level: int, index: int) -> tuple[Path, int]:
        return self._path(level, index // SHARD), index % SHARD * HASH_BYTES

    def _read(self, level: int, first: int, count: int) -> bytes:
        parts = []
        for shard, begin, number in _pieces(first, count):
            try:
                descriptor = self._descriptor(level, shard, os.O_RDONLY)
            except FileNotFoundError:
                raise TreeDamaged(f"{self._path(level, shard)}: missing") from None
            offset, size = begin * HASH_BYTES, number * HASH_BYTES
            part = os.pread(descriptor, size, offset)
            if len(part) < size:
                raise TreeDamaged(f"{self._path(level, shard)}: ends within byte {offset + size}")
            parts.append(part)
        return b"".join(parts)

    def _write(self, level: int, first: int, data: bytes) -> None:
        done = 0
        for shard, begin, number in _pieces(first, len(data) // HASH_BYTES):
            path = self._path(level, shard)
            if begin == 0:
                self._new |= {path.parent, self._folder}
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._descriptor(level, shard, os.O_RDWR | os.O_CREAT)
            size = number * HASH_BYTES
            self._dirty.add((level, shard))
            self._disk.write(descriptor, data[done : done + size], begin * HASH_BYTES)
            done += size

    def _descriptor(self, level: int, shard: int, flags: int) -> int:
        key = (level, shard)
        found = self._open.pop(key, None)
        if found is None:
            if self._writes and flags == os.O_RDONLY:
                flags = os.O_RDWR
            found = os.open(self._path(level, shard), flags | os.O_CLOEXEC, 0o600)
        self._open[key] = found  # at the end: the first is the one not used for longest
        if len(self._open) > _OPEN_MAX:
            idle = next((each for each in self._open if each not in self._dirty), None)
            if idle is not None:
                os.close(self._open.pop(idle))
        return found


def _pieces(first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield shard, first hash within it, and number of hashes."""
    while count:
        shard, begin = divmod(first, SHARD)
        number = min(count, SHARD - begin)
        yield shard, begin, number
        first, count = first + number, count - number
