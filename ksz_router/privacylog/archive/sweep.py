"""Delete what the archive made superfluous: write-ahead files, and derived files that were merged.

A write-ahead file goes when all of this holds:

- each of its frames is ordered, and all its leaves are sealed;
- the entry that records the manifest of that is itself a sealed leaf, so a checkpoint covers it;
- the ``t`` files with those leaves are still what the manifest says, read again for this;
- the file after it was begun so long ago that nobody wants it for questions of today, nor the
  ledger of submissions for an attempt of a ticket that lives;
- neither is it the newest of its slot, nor would a new run of the slot read it.

A slot loses its files from the oldest on, so there is never a gap but at its beginning.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog.archive.chain import catalog, newest_recorded, quarters, read_manifest
from ksz_router.privacylog.archive.manifest import Manifest, SealedFile
from ksz_router.privacylog.archive.pieces import SegmentRefused, Written, reread
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.header import PAGE, FileHeader, FrameDamaged, parse_file_header
from ksz_router.privacylog.keys import KeyRing, KeysError
from ksz_router.privacylog.recovery import LogCorrupt, open_exchanges
from ksz_router.privacylog.slots import file_numbers, opened, slot_folders
from ksz_router.privacylog.slots import file_of as write_ahead_of
from ksz_router.privacylog.tree.order import Order

_BACK_MAX: Final = 1000
"""Manifests among which the newest that is itself sealed must be found."""
_STAY_US: Final = 60_000_000
"""A file that is no longer named stays so long."""
_FOREVER_US: Final = 2**63


class Limits(NamedTuple):
    """How long what is kept is kept, in microseconds."""

    keep_us: int
    """Every write-ahead file."""
    window_us: int
    """A ticket lives on so long after each attempt."""


class _Candidate(NamedTuple):
    folder: Path
    number: int
    after: FileHeader
    """Of the file after it."""


def sweep_log(
    archive: Path, log: Path, keys: KeyRing, limits: Limits, now_us: int, *, disk: Disk = DISK
) -> list[Path]:
    """Delete the write-ahead files that may go; return them.

    Raises:
        SegmentRefused: a sealed file is not what its manifest says. Nothing was deleted.
        ChainBroken, OrderDamaged: manifests, or lines of the order, cannot be used.
        OSError: a file cannot be read or deleted.
    """
    candidates = _candidates(archive, log, keys, limits, now_us)
    if not candidates:
        return []
    begin, end = _leaves(archive, candidates)
    ends = {
        (line.slot, line.file, line.last_frame, line.crc)
        for line in Order(archive / "order").lines(begin, end)
    }
    gone: list[Path] = []
    kept: set[Path] = set()
    for folder, number, after in candidates:  # of each slot the oldest first
        previous = after.previous
        if folder in kept or previous is None:
            continue
        # The file after it names its last frame: that one, of this very file, must be ordered.
        is_end = previous.frame == 0 or (folder.name, *previous) in ends
        if previous.number != number or not is_end:
            kept.add(folder)
            continue
        if not gone:
            _verify(archive, begin, end)
        file = write_ahead_of(folder, number)
        disk.remove(file)
        gone.append(file)
    return gone


def _candidates(
    archive: Path, log: Path, keys: KeyRing, limits: Limits, now_us: int
) -> list[_Candidate]:
    """Return the files that are old enough, sealed as the cursors say, and not to be read again."""
    before_us = now_us - max(limits.keep_us, limits.window_us)
    found = [each for folder in slot_folders(log) for each in _old(folder, before_us)]
    sealed = _confirmed(archive) if found else None
    if sealed is None:
        return []
    cursors = {slot: cursor.file for slot, cursor in sealed.slots.items()}
    found = [each for each in found if each.number < cursors.get(each.folder.name, 0)]
    if found:
        before_us = min(before_us, _first_attempt_us(archive, now_us - 2 * limits.window_us))
        found = [each for each in found if each.after.created_us <= before_us]
    oldest = {folder: _read_back_to(folder, keys) for folder in {each.folder for each in found}}
    return [each for each in found if each.number < oldest[each.folder]]


def _old(folder: Path, before_us: int) -> Iterator[_Candidate]:
    """Yield the files of a slot, from the oldest, that were followed by another before a time."""
    numbers = file_numbers(folder)
    for number, following in pairwise(numbers):
        try:
            with opened(write_ahead_of(folder, following)) as read:
                header = parse_file_header(read(0, PAGE))
        except FrameDamaged:
            return
        if header.created_us > before_us:
            return
        yield _Candidate(folder, number, header)


def _read_back_to(folder: Path, keys: KeyRing) -> int:
    """Return the number of the oldest file that a new run of the slot would read."""
    try:
        return open_exchanges(folder, keys).oldest
    except (LogCorrupt, KeysError):
        return 0  # somebody has to look at it: all of it stays


def _confirmed(archive: Path) -> Manifest | None:
    """Return the newest manifest whose entry is itself a sealed leaf."""
    found = newest_recorded(archive)
    told: set[bytes] = set()
    for _ in range(_BACK_MAX):
        if found is None or bytes.fromhex(found.sha256) in told:
            break
        for file in found.manifest.added:
            if file.kind == "t":
                is_told = pc.field("kind") == int(Kind.SEALED)
                told |= set(_read(archive, file, ["digest"], is_told)["digest"].to_pylist())
        number = found.manifest.number - 1
        found = read_manifest(archive, number) if number else None
    else:
        return None
    return None if found is None else found.manifest


def _first_attempt_us(archive: Path, since_us: int) -> int:
    """Return when the oldest ticket began that had another attempt since then.

    The ledger of submissions, made anew from the write-ahead files, goes back to the first attempt
    of every ticket that lives.
    """
    oldest_us = _FOREVER_US
    is_retry = pc.field("first").is_valid() & (pc.field("at_us") >= since_us)
    for quarter in quarters(archive):
        for file in catalog(archive, quarter, "t").files:
            if file.end_us > since_us:
                for first in _read(archive, file, ["first"], is_retry)["first"].to_pylist():
                    # An exchange id is a UUIDv7, which begins with its time (RFC 9562 5.7).
                    oldest_us = min(oldest_us, int.from_bytes(first[:6], "big") * 1000)
    return oldest_us


def _read(archive: Path, file: SealedFile, columns: list[str], which: pc.Expression) -> pa.Table:
    path = file_of(archive, file.path)
    try:
        return pq.read_table(
            path, columns=columns, filters=which, partitioning=None, use_threads=False
        )
    except (pa.ArrowException, OSError) as error:
        raise SegmentRefused(f"{path}: cannot be read: put it back") from error


def _leaves(archive: Path, candidates: list[_Candidate]) -> tuple[int, int]:
    """Return from which leaf to which the lines of some files lie, going by the cursors."""
    found = newest_recorded(archive)
    assert found is not None
    manifest = found.manifest
    end, is_past = manifest.sealed_leaves, False
    while True:
        cursors = {slot: cursor.file for slot, cursor in manifest.slots.items()}
        behind = [cursors.get(each.folder.name, 0) - each.number for each in candidates]
        is_past = is_past or min(behind) <= 0
        if not is_past:
            end = manifest.sealed_leaves
        if max(behind) < 0:
            return manifest.sealed_leaves, end
        if manifest.number == 1:
            return 0, end
        manifest = read_manifest(archive, manifest.number - 1).manifest


def _verify(archive: Path, begin: int, end: int) -> None:
    """Read the ``t`` files of some leaves again, and compare them with their manifest."""
    covered = begin
    files = [f for quarter in quarters(archive) for f in catalog(archive, quarter, "t").files]
    for file in sorted(files, key=lambda file: file.first_leaf):
        if file.end_leaf <= begin or file.first_leaf >= end:
            continue
        if file.first_leaf > covered:
            break
        reread(file_of(archive, file.path), Written(file.sha256, file.bytes))
        covered = file.end_leaf
    if covered < end:
        raise SegmentRefused(f"leaf {covered} is in no sealed file: put back the manifests")


class Leftovers:
    """Files below ``sealed/`` that no catalog names: merged ones, and what a killed run left.

    They stay for a while, for questions that are being answered from them.
    """

    def __init__(self, archive: Path, disk: Disk = DISK) -> None:
        self._archive = archive
        self._disk = disk
        self._seen_us: dict[str, int] | None = None
        self._number = 0

    def sweep(self, now_us: int) -> list[Path]:
        """Delete those that were first seen a minute ago; return them.

        Raises:
            ChainBroken: the manifests cannot be used.
            OSError: a file cannot be deleted.
        """
        found = newest_recorded(self._archive)
        if self._seen_us is None:
            self._seen_us = dict.fromkeys(self._unnamed(), now_us)
        elif found is not None:
            for number in range(self._number + 1, found.manifest.number + 1):
                removed = read_manifest(self._archive, number).manifest.removed
                self._seen_us |= dict.fromkeys(removed, now_us)
        self._number = found.manifest.number if found is not None else 0
        due = {path for path, seen_us in self._seen_us.items() if now_us - seen_us >= _STAY_US}
        gone = []
        for path in sorted(due - self._named() if due else ()):
            file = self._archive / "sealed" / path
            if file.exists():
                self._disk.remove(file)
                gone.append(file)
        for path in due:
            del self._seen_us[path]
        return gone

    def _named(self) -> set[str]:
        return {
            file.path
            for quarter in quarters(self._archive)
            for kind in "tpukrc"
            for file in catalog(self._archive, quarter, kind).files
        }

    def _unnamed(self) -> set[str]:
        sealed = self._archive / "sealed"
        there = {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()}
        return there - self._named()
