"""Find the entries of one exchange: their leaves, their salts, their canonical bytes.

Sealed ones by the key files, which give leaves, and the truth file that holds them; later ones by
the order of the leaves and the write-ahead files. What is read is checked against nothing here: who
makes a proof of it compares the leaf.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of as sealed_file_of
from ksz_router.privacylog.entry import parse_head
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.order import Line, Order
from ksz_router.privacylog.tree.places import read_line
from ksz_router.privacylog.tree.salts import Salts

_SLACK_US: Final = 24 * 3600 * 1_000_000
"""How far the clock of an exchange id may be ahead of that of its entries."""


class ArchiveUnreadable(PrivacyLogError):
    """A file that must be there is missing or damaged. The message names it."""


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
    key, seqs = exchange.hex(), set[tuple[str, int]]()
    for quarter in quarters(archive):
        for file in catalog(archive, quarter, "k").files:
            may_hold = not file.max_key or file.min_key <= key <= file.max_key
            if may_hold and file.end_us > _earliest_us(exchange):
                held = _seqs_in(sealed_file_of(archive, file.path), exchange)
                seqs.update((quarter, seq) for seq in held)
    return sorted(seqs)


def _earliest_us(exchange: bytes) -> int:
    """Return before when no entry of an exchange can be: its id has the time, if it is ours."""
    if exchange[6] >> 4 != 7:  # no UUIDv7
        return 0
    return int.from_bytes(exchange[:6], "big") * 1000 - _SLACK_US


def _seqs_in(path: Path, exchange: bytes) -> list[int]:
    seqs: list[int] = []
    with _parquet(path) as file:
        at = file.schema_arrow.get_field_index("key")
        for group in range(file.num_row_groups):
            held = file.metadata.row_group(group).column(at).statistics
            if held is not None and held.has_min_max and not held.min <= exchange <= held.max:
                continue
            table = file.read_row_group(group, columns=["key", "seq"])
            rows = pc.equal(table["key"], pa.scalar(exchange, table.schema.field("key").type))
            seqs += table["seq"].filter(rows).to_pylist()
    return seqs


def _truth_file(archive: Path, quarter: str, seq: int) -> SealedFile:
    for file in catalog(archive, quarter, "t").files:
        if file.first_leaf <= seq < file.end_leaf:
            return file
    raise ArchiveUnreadable(f"{archive}: no sealed file holds leaf {seq}")


def _sealed_record(archive: Path, sealed: SealedFile, seq: int) -> bytes:
    row = seq - sealed.first_leaf
    path = sealed_file_of(archive, sealed.path)
    with _parquet(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                table = file.read_row_group(group).slice(row, 1)
                if table["seq"].to_pylist() == [seq]:
                    return to_records(table)[0]
                break
            row -= rows
    raise ArchiveUnreadable(f"{path}: does not hold leaf {seq} at its place")


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveUnreadable(f"{path}: cannot be read; restore it") from error


def _ordered_records(log: Path, keys: KeyRing, line: Line) -> Iterator[tuple[int, bytes]]:
    """Yield leaf and record of what a line put in order."""
    if line.records:
        _, found = read_line(log, keys, line)
        records = (record for frame in found for record in frame.records)
        yield from enumerate(records, line.first_leaf)
