"""Which files an archive has, kept from one question to the next.

Forty quarters have two hundred thousand files. Catalogs are read once, and brought up to the newest
manifest by the manifests that came since. Of truth only the quarters that are asked are read.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from ksz_router.privacylog.archive import chain
from ksz_router.privacylog.archive.chain import Chained, Held, Key
from ksz_router.privacylog.archive.manifest import SealedFile

TRUTH: Final = "t"

Window: TypeAlias = tuple[int, int]
"""Unix microseconds of the first moment, and beyond the last."""


class _Run(NamedTuple):
    """Parts of one run, in the order of what they are sorted by."""

    parts: Sequence[SealedFile]
    least: Sequence[str]
    greatest: Sequence[str]


class Files:
    """The files of a quarter and kind, in the order of their leaves."""

    def __init__(self, quarter: str, files: Sequence[SealedFile]) -> None:
        self.quarter = quarter
        self.all = files
        self.key_ids = frozenset(file.key_id for file in files)
        self.first_us = min((file.first_us for file in files), default=0)
        self.end_us = max((file.end_us for file in files), default=0)

    @cached_property
    def _runs(self) -> list[_Run]:
        return [
            _Run(parts, [part.min_key for part in parts], [part.max_key for part in parts])
            for parts in _runs(self.all)
        ]

    def of_key(self, key: str) -> Iterator[SealedFile]:
        """Yield the files that may hold rows whose first sort column is this, as text."""
        for parts, least, greatest in self._runs:
            if len(parts) == 1:
                if least[0] <= key <= (greatest[0] or key):
                    yield parts[0]
            else:
                yield from parts[bisect_left(greatest, key) : bisect_right(least, key)]

    def of_leaf(self, leaf: int) -> SealedFile | None:
        """Return the file that holds a leaf; of kind ``t``."""
        at = bisect_right(self.all, leaf, key=_first_leaf) - 1
        return self.all[at] if at >= 0 and leaf < self.all[at].end_leaf else None


class Listing:
    """The catalogs of an archive, as of the newest manifest that was there when it was asked.

    Args:
        archive: Folder.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._newest: Chained | None = None
        self._held: Held = {}
        self._whole = set[str]()
        self._made: dict[Key, Files] = {}

    def update(self, kinds: str) -> None:
        """Take in what was sealed since, and all catalogs of these kinds.

        Raises:
            ChainBroken: the chain of manifests is damaged.
        """
        self._follow()
        missing = set(kinds) - self._whole
        if missing:
            self._read(lambda key: key[1] in missing)
            self._whole |= missing

    def of(self, kind: str) -> list[Files]:
        """Return the files of a kind that was taken in, by quarter."""
        keys = sorted(key for key in self._held if key[1] == kind)
        return [self._files(key) for key in keys]

    def truth(self, quarter: str) -> Files:
        """Return the ``t`` files of a quarter.

        Raises:
            ChainBroken: the chain of manifests is damaged.
        """
        key = quarter, TRUTH
        if key not in self._held:
            self._read(lambda each: each == key)
        return self._files(key)

    def of_keys(
        self,
        kind: str,
        keys_of: Callable[[Files], Collection[bytes]],
        windows: Sequence[Window],
    ) -> Iterator[tuple[str, SealedFile, list[bytes]]]:
        """Yield the files that may hold keys, with their quarter, and with those keys.

        Args:
            kind: That is sorted by a token first.
            keys_of: Gives the keys with which a quarter is asked.
            windows: Of which a file must meet one.
        """
        for files in self.of_time(kind, windows):
            held: dict[str, tuple[str, SealedFile, list[bytes]]] = {}
            for key in sorted(keys_of(files)):
                for file in files.of_key(key.hex()):
                    if meets(file, windows):
                        held.setdefault(file.path, (files.quarter, file, []))[2].append(key)
            yield from held.values()

    def of_time(self, kind: str, windows: Sequence[Window]) -> list[Files]:
        """Return the files of the quarters that meet one of the windows."""
        return [files for files in self.of(kind) if meets(files, windows)]

    def _files(self, key: Key) -> Files:
        found = self._made.get(key)
        if found is None:
            files = chain.in_order(self._held.get(key, {}))
            found = self._made[key] = Files(key[0], files)
        return found

    def _follow(self) -> None:
        if self._newest is None:
            self._newest = chain.newest_recorded(self._archive)
            return
        for each in chain.followers(self._archive, self._newest):
            for file in each.manifest.added:
                if file.kind in self._whole:
                    self._held.setdefault((file.quarter, file.kind), {})
            for key in chain.fold_in(self._held, each.manifest):
                self._made.pop(key, None)
            self._newest = each

    def _read(self, wanted: chain.Wanted) -> None:
        # May be ahead of the newest that is known: what is taken in twice does no harm.
        _, held = chain.added_up(self._archive, wanted)
        self._held |= held


def meets(held: SealedFile | Files, windows: Sequence[Window]) -> bool:
    """Say whether files have rows of one of the windows."""
    return any(held.first_us < to_us and held.end_us > from_us for from_us, to_us in windows)


def _runs(files: Sequence[SealedFile]) -> Iterator[list[SealedFile]]:
    """Yield what is in order by its first sort column; a file without known keys is alone."""
    for (_, _, _, is_known), parts in groupby(files, _run_of):
        if is_known:
            yield list(parts)
        else:
            yield from ([part] for part in parts)


def _run_of(file: SealedFile) -> tuple[int, int, int, bool]:
    return file.first_leaf, file.level, file.end_leaf, bool(file.max_key)


def _first_leaf(file: SealedFile) -> int:
    return file.first_leaf
