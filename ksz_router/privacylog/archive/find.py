"""Find the entries of one exchange: their leaves, their salts, their canonical bytes.

Sealed ones by the key files, which give leaves, and the truth file that holds them; later ones by
the order of the leaves and the write-ahead files. What is read is checked against nothing here: who
makes a proof of it compares the leaf.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.keyed import (
    ArchiveUnreadable,
    earliest_us,
    entries_in,
    may_hold,
    seqs_in,
)
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of as sealed_file_of
from ksz_router.privacylog.entry import parse_head
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.order import Line, Order
from ksz_router.privacylog.tree.places import read_line
from ksz_router.privacylog.tree.salts import Salts


class Leaf(NamedTuple):
    """An entry, and where it stands in the tree."""

    seq: int
    """Index of the leaf."""
    salt: bytes
    record: bytes
    """Canonical form."""


def entries_of(exchange: bytes, *, archive: Path, log: Path, keys: KeyRing) -> list[Leaf]:
    """Return the entries of an exchange (16 bytes) that have a leaf, in the order of leaves.

    Raises:
        ArchiveUnreadable: a sealed file that is needed is missing or damaged.
        ChainBroken, OrderDamaged: manifests, or lines of the order, are.
        LogOlder, FrameDamaged: write-ahead files are, which hold what is not sealed.
        KeysError: the keys of a quarter that holds entries of it are missing.
        OSError: the log cannot be read.
    """
    manifest = newest(archive)
    salts = _Salts(keys)
    found: dict[int, Leaf] = {}
    if manifest is not None:
        for quarter, seq in _sealed_seqs(archive, exchange):
            file = _truth_file(archive, quarter, seq)
            found[seq] = Leaf(seq, salts.of(file.key_id, seq), _sealed_record(archive, file, seq))
    sealed = manifest.sealed_leaves if manifest is not None else 0
    for line in Order(archive / "order").lines(sealed):
        for seq, record in _ordered_records(log, keys, line):
            if exchange in record and parse_head(record).exchange == exchange:
                found[seq] = Leaf(seq, salts.of(line.key_id, seq), record)
    return [found[seq] for seq in sorted(found)]


class _Salts:
    """The salts of leaves, by the key id that they are under."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._made: dict[str, Salts] = {}

    def of(self, key_id: str, seq: int) -> bytes:
        salts = self._made.get(key_id)
        if salts is None:
            keys = self._keys.quarter(key_id.partition("-")[0])
            if keys.id != key_id:
                raise ArchiveUnreadable(f"leaf {seq} is under the key {key_id}: restore its file")
            salts = self._made[key_id] = Salts(keys.commit)
        return salts.run(seq, 1)


def _sealed_seqs(archive: Path, exchange: bytes) -> list[tuple[str, int]]:
    """Return quarter and leaf of each sealed entry."""
    seqs = set[tuple[str, int]]()
    for quarter in quarters(archive):
        for file in catalog(archive, quarter, "k").files:
            if may_hold(file, exchange) and file.end_us > earliest_us(exchange):
                held = seqs_in(sealed_file_of(archive, file.path), (exchange,))
                seqs.update((quarter, seq) for seq in held)
    return sorted(seqs)


def _truth_file(archive: Path, quarter: str, seq: int) -> SealedFile:
    for file in catalog(archive, quarter, "t").files:
        if file.first_leaf <= seq < file.end_leaf:
            return file
    raise ArchiveUnreadable(f"{archive}: no sealed file holds leaf {seq}")


def _sealed_record(archive: Path, sealed: SealedFile, seq: int) -> bytes:
    path = sealed_file_of(archive, sealed.path)
    return entries_in(path, sealed.first_leaf, (seq,))[0].record


def _ordered_records(log: Path, keys: KeyRing, line: Line) -> Iterator[tuple[int, bytes]]:
    """Yield leaf and record of what a line put in order."""
    if line.records:
        _, found = read_line(log, keys, line)
        records = (record for frame in found for record in frame.records)
        yield from enumerate(records, line.first_leaf)
