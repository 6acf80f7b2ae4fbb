"""The files of hashes: hash i of a level stands in ``<level>/<i // 2**24>`` at ``i % 2**24 * 32``.

So each slice of 256 hashes is a tile of C2SP tlog-tiles; a file of 512 MiB holds 65,536 of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import Disk, sync_folder
from ksz_router.privacylog.tree.merkle import HASH_BYTES

SHARD: Final = 2**24
"""Hashes of one file."""
_OPEN_MAX: Final = 32


class TreeDamaged(PrivacyLogError):
    """Level files lack hashes that they must hold, or hold others. The message names the place."""


class Shards:
    """The files of hashes below a folder. One process writes them, at their ends."""

    def __init__(self, folder: Path, disk: Disk, *, writes: bool) -> None:
        self.folder = folder
        self._disk = disk
        self._flags = os.O_CLOEXEC | (os.O_RDWR if writes else os.O_RDONLY)
        self._open: dict[tuple[int, int], int] = {}
        self._dirty: set[tuple[int, int]] = set()
        self._new: set[Path] = set()

    def stored(self, level: int) -> int:
        """Return how many whole hashes a level has from its first on without a gap."""
        count = 0
        for number in self._numbers(level):
            if count != number * SHARD:
                break
            count += self._path(level, number).stat().st_size // HASH_BYTES
        return count

    def place(self, level: int, index: int) -> tuple[Path, int]:
        """Return the file of a hash, and its byte there."""
        return self._path(level, index // SHARD), index % SHARD * HASH_BYTES

    def read(self, level: int, first: int, count: int) -> bytes:
        """Return hashes in a row.

        Raises:
            TreeDamaged: they are not there.
        """
        parts = []
        for shard, begin, number in _pieces(first, count):
            try:
                descriptor = self._descriptor(level, shard)
            except FileNotFoundError:
                raise TreeDamaged(f"{self._path(level, shard)}: missing; restore it") from None
            offset, size = begin * HASH_BYTES, number * HASH_BYTES
            part = os.pread(descriptor, size, offset)
            if len(part) < size:
                raise TreeDamaged(
                    f"{self._path(level, shard)}: ends before byte {offset + size}; restore it"
                )
            parts.append(part)
        return b"".join(parts)

    def write(self, level: int, first: int, data: bytes) -> None:
        """Write hashes in a row.

        Raises:
            OSError: they could not be written.
        """
        done = 0
        for shard, begin, number in _pieces(first, len(data) // HASH_BYTES):
            folder = self._path(level, shard).parent
            if begin == 0:
                self._new |= {self.folder.parent, self.folder, folder}
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._descriptor(level, shard, os.O_CREAT)
            size = number * HASH_BYTES
            self._dirty.add((level, shard))
            self._disk.write(descriptor, data[done : done + size], begin * HASH_BYTES)
            done += size

    def flush(self) -> None:
        """Return when what was written will survive a power cut.

        Raises:
            OSError: it may not. This object is not to be used any more.
        """
        for key in sorted(self._dirty):
            self._disk.flush(self._open[key])
        self._dirty.clear()
        for folder in sorted(self._new, reverse=True):  # what is below first
            sync_folder(folder)
        self._new.clear()

    def cut(self, level: int, count: int) -> None:
        """Leave a level its first ``count`` hashes and nothing behind them, durably.

        Raises:
            OSError: it could not be done.
        """
        for number in reversed(self._numbers(level)):
            path = self._path(level, number)
            keep = max(0, count - number * SHARD) * HASH_BYTES
            if keep == 0:
                self._disk.remove(path)
            elif keep < path.stat().st_size:
                self._disk.cut(self._descriptor(level, number), keep)

    def close(self) -> None:
        """Close the files; what was not flushed may be lost."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._dirty.clear()

    def _numbers(self, level: int) -> list[int]:
        try:
            names = {path.name for path in (self.folder / str(level)).iterdir()}
        except FileNotFoundError:
            return []
        numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        return [number for number in numbers if f"{number:06d}" in names]

    def _path(self, level: int, shard: int) -> Path:
        return self.folder / str(level) / f"{shard:06d}"

    def _descriptor(self, level: int, shard: int, flags: int = 0) -> int:
        key = (level, shard)
        found = self._open.pop(key, None)
        if found is None:
            found = os.open(self._path(level, shard), self._flags | flags, 0o600)
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
