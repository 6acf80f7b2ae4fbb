"""Every byte of an archive at rest changed in turn: each must be found, and its file named.

Of a small file every byte is flipped, of a large one a sample. A file that a manifest names is
judged by the check of its hash; everything else by that part of ``verify fast`` that reads no
sealed file, and by the whole where that finds nothing. A few bytes of each file are flipped under
the whole of ``verify fast``; where that finds nothing, ``verify full`` or ``verify derived`` must.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.verify_chain import Chain
from ksz_router.privacylog.archive.verify_derived import verify_derived
from ksz_router.privacylog.archive.verify_fast import (
    Place,
    check_files,
    check_recorded,
    verify_fast,
)
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.archive.verify_tree import Tree

SMALL_BYTES: Final = 2048
WHOLE_SAMPLE: Final = 3
"""Flips of a file under all verifiers."""


class Flipped(msgspec.Struct):
    """What the flips came to."""

    flips: int = 0
    files: int = 0
    by_fast: int = 0
    by_full: int = 0
    undetected_alterations: int = 0
    not_located: int = 0


class Flips:
    """Flips in one archive.

    Args:
        place: Of the archive, whole.
        chance: Draws the samples and the bit of each byte.
        sample: Of a large file.
        tell: Told of each flip that was not found, or at another file.
    """

    def __init__(
        self, place: Place, chance: Random, sample: int, tell: Callable[[str], None] = print
    ) -> None:
        self._place = place
        self._chance = chance
        self._sample = sample
        self._tell = tell
        self.counts = Flipped()

    def run(self, *, every: bool = True) -> Flipped:
        """Flip all of it; without ``every`` a sample of the files that manifests name too."""
        place = self._place
        assert verify_full(place).is_whole, "flips are made in what is whole"
        assert verify_derived(place.archive).is_whole, "flips are made in what is whole"
        chain = Chain(self._place.archive, Findings())
        named = {chain.path(file): file for file in chain.files.values()}
        sealed = {link.sha256: 0 for link in chain.links}
        for path, file in named.items():
            self.counts.files += 1
            chain.files = {file.path: file}
            for at in self._places(path, every=every):
                with self._flipped(path, at):
                    findings = Findings()
                    check_files(chain, findings)
                    self.counts.by_fast += 1
                    self._judge(path, at, findings)
            for at in self._drawn(path, WHOLE_SAMPLE):
                self._whole(path, at)
        gone = {chain.path(name) for name in chain.removed}  # deleted by a later step
        for path in self._others(set(named) | gone):
            self.counts.files += 1
            for at in self._drawn(path, WHOLE_SAMPLE):
                self._whole(path, at)
            for at in self._places(path, every=every):
                self._part(path, at, sealed)
        return self.counts

    def _part(self, path: Path, at: int, sealed: dict[str, int]) -> None:
        """Run what of verify fast reads no sealed file; the rest where that finds nothing."""
        place = self._place
        with self._flipped(path, at):
            findings = Findings()
            if path == place.anchor or path.is_relative_to(place.archive / "tree"):
                with Tree(place.archive, place.vkeys, place.anchor, findings) as tree:
                    tree.check(whole=False)
            else:
                chain = Chain(place.archive, findings)
                chain.check_catalogs()
                check_recorded(chain, sealed, findings, tail_known=True)
            if not findings.is_whole:
                self.counts.by_fast += 1
                self._judge(path, at, findings)
                return
        self._whole(path, at)

    def _whole(self, path: Path, at: int) -> None:
        with self._flipped(path, at):
            findings = verify_fast(self._place)
            if findings.is_whole:
                findings = verify_full(self._place)
                if findings.is_whole:
                    findings = verify_derived(self._place.archive)
                self.counts.by_full += 1
            else:
                self.counts.by_fast += 1
            self._judge(path, at, findings)

    def _judge(self, path: Path, at: int, findings: Findings) -> None:
        self.counts.flips += 1
        if findings.is_whole:
            self.counts.undetected_alterations += 1
            self._tell(f"{path}: byte {at}: not found")
        elif path not in {fault.file for fault in findings.faults}:
            self.counts.not_located += 1
            said = [f"{fault.file.name}: {fault.what}" for fault in findings.faults[:3]]
            self._tell(f"{path}: byte {at}: found elsewhere: {said}")

    def _places(self, path: Path, *, every: bool) -> Sequence[int]:
        """Return every place of a small file, and some of a large one."""
        size = path.stat().st_size
        return range(size) if every and size <= SMALL_BYTES else self._drawn(path)

    def _drawn(self, path: Path, count: int | None = None) -> list[int]:
        size = path.stat().st_size
        wanted = self._sample if count is None else min(count, self._sample)
        return sorted(self._chance.sample(range(size), min(size, wanted)))

    def _others(self, named: set[Path]) -> Iterator[Path]:
        """Yield the files of the log and the archive that no manifest names."""
        place = self._place
        folders = [folder for folder in (place.archive, place.log) if folder is not None]
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path not in named and _counts(path):
                    yield path
        if place.anchor is not None:
            yield place.anchor

    def _flipped(self, path: Path, at: int) -> "_Flip":
        return _Flip(path, at, 1 << self._chance.randrange(8))


class _Flip:
    """A flipped bit, as long as the context lasts."""

    def __init__(self, path: Path, at: int, bit: int) -> None:
        self._path, self._at, self._bit = path, at, bit

    def __enter__(self) -> None:
        self._turn()

    def __exit__(self, *_: object) -> None:
        self._turn()

    def _turn(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            byte = os.pread(descriptor, 1, self._at)[0] ^ self._bit
            os.pwrite(descriptor, bytes((byte,)), self._at)
        finally:
            os.close(descriptor)


def _counts(path: Path) -> bool:
    """Say whether a file is part of the log: not a lock, not one that waits for its use."""
    return path.suffix != ".lock" and path.name != "prepared" and not path.name.startswith(".")
