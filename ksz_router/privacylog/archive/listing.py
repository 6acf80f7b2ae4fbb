"""Which files an archive has, kept from one question to the next.

Forty quarters have two hundred thousand files. Catalogs are read once, and brought up to the newest
manifest by the manifests that came since. Of truth only the quarters that are asked are read.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from ksz_router.privacylog.archive import chain
from ksz_router.privacylog.archive.chain import Chained, Key, Wanted
from ksz_router.privacylog.archive.listed import Listed, Lists, fold_in, listed
from ksz_router.privacylog.archive.manifest import SealedFile

TRUTH: Final = "t"

Window: TypeAlias = tuple[int, int]
"""Unix microseconds of the first moment, and beyond the last."""


class _Run(NamedTuple):
    """Which files of a list are the parts of one run, in the order of what they are sorted by."""

    begin: int
    end: int


class Files:
    """The files of a quarter and kind, in the order of their leaves."""

    def __init__(self, quarter: str, files: Sequence[SealedFile]) -> None:
        self.quarter = quarter
        self.all = files

    @cached_property
    def key_ids(self) -> frozenset[str]:
        return frozenset(self.all[run.begin].key_id for run in self._runs)

    @cached_property
    def first_us(self) -> int:
        if isinstance(self.all, Listed):
            return self.all.first_us
        return min((file.first_us for file in self.all), default=0)

    @cached_property
    def end_us(self) -> int:
        if isinstance(self.all, Listed):
            return self.all.end_us
        return max((file.end_us for file in self.all), default=0)

    @cached_property
    def _runs(self) -> list[_Run]:
        return list(_runs(self.all))

    def of_key(self, key: str) -> Iterator[SealedFile]:
        """Yield the files that may hold rows whose first sort column is this, as text."""
        for begin, end in self._runs:
            if end - begin == 1:
                only = self.all[begin]
                if only.min_key <= key <= (only.max_key or key):
                    yield only
            else:
                parts = range(begin, end)
                first = bisect_left(parts, key, key=lambda at: self.all[at].max_key)
                behind = bisect_right(parts, key, key=lambda at: self.all[at].min_key)
                yield from self.all[begin + first : begin + behind]

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
        self._held: Lists = {}
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
            found = self._made[key] = Files(key[0], self._held.get(key, ()))
        return found

    def _follow(self) -> None:
        if self._newest is None:
            self._newest = chain.newest_recorded(self._archive)
            return
        for each in chain.followers(self._archive, self._newest):
            for file in each.manifest.added:
                if file.kind in self._whole:
                    self._held.setdefault((file.quarter, file.kind), ())
            for key in fold_in(self._held, each.manifest):
                self._made.pop(key, None)
            self._newest = each

    def _read(self, wanted: Wanted) -> None:
        # May be ahead of the newest that is known: what is taken in twice does no harm.
        self._held |= listed(self._archive, wanted)


def meets(held: SealedFile | Files, windows: Sequence[Window]) -> bool:
    """Say whether files have rows of one of the windows."""
    return any(held.first_us < to_us and held.end_us > from_us for from_us, to_us in windows)


def _runs(files: Sequence[SealedFile]) -> Iterator[_Run]:
    """Yield what is in order by its first sort column; a file without known keys is alone.

    Only the first and the last part of a run are looked at.
    """
    at = 0
    while at < len(files):
        first, end = files[at], at + 1
        if first.max_key and first.part == 0 and at + first.parts <= len(files):
            last = files[at + first.parts - 1]
            if last.part == first.parts - 1 and _run_of(first) == _run_of(last):
                end = at + first.parts
        yield _Run(at, end)
        at = end


def _run_of(file: SealedFile) -> tuple[int, int, int]:
    return file.first_leaf, file.level, file.end_leaf


def _first_leaf(file: SealedFile) -> int:
    return file.first_leaf
