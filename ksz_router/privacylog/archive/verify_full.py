"""Check every record of an archive: from the columns of ``t`` to the root that was signed.

Each row gives its canonical bytes, with its salt its leaf, and that must be the leaf of the tree;
slot and number of each record must be those that the order fixed. With all that
:mod:`verify_fast` checks this leaves no byte of what counts as the log unchecked. Of the keys it
takes the commit key of each quarter; the write-ahead files, if they are checked, need ``frames``.

Shares with what writes the archive its format and nothing else.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.commit_keys import CommitKeys
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.archive.verify_chain import Chain
from ksz_router.privacylog.archive.verify_fast import (
    UNREADABLE,
    Place,
    check_files,
    check_recorded,
    note_strangers,
)
from ksz_router.privacylog.archive.verify_order import Tail, checked_lines
from ksz_router.privacylog.archive.verify_tree import Tree
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.tree.merkle import HASH_BYTES, leaf_hashes, root_of
from ksz_router.privacylog.tree.order import Line
from ksz_router.privacylog.tree.salts import Salts
from ksz_router.privacylog.verify import verify


class Range(msgspec.Struct, frozen=True):
    """Which leaves are checked; the end is not included. The rest is checked as verify fast."""

    first: int = 0
    end: int | None = None
    quarter: str | None = None
    """Leaves under the keys of this quarter only."""

    @property
    def is_all(self) -> bool:
        """Say whether nothing is left out."""
        return self == Range()

    def has(self, file: SealedFile) -> bool:
        """Say whether a file of truth is to be checked."""
        behind = self.end is not None and file.first_leaf >= self.end
        other = self.quarter is not None and file.quarter != self.quarter
        return file.end_leaf > self.first and not behind and not other


def verify_full(
    place: Place, wanted: Range | None = None, progress: Callable[[int], object] = lambda _: None
) -> Findings:
    """Check it all; never stops at a fault. ``progress`` is called with leaves that were checked.

    Raises:
        PrivacyLogError: there is no archive, or no key to check its records with.
    """
    if not (place.archive / "tree").is_dir():
        raise PrivacyLogError(f"{place.archive}: no archive here: it has no folder tree")
    if place.commit_keys is None:
        raise PrivacyLogError("to check records takes the commit keys of their quarters")
    wanted = wanted or Range()
    findings = Findings()
    chain = Chain(place.archive, findings)
    if place.log is not None:
        check_log(place.log, place.commit_keys, chain, findings)
    chain.check_catalogs()
    check_files(chain, findings)
    note_strangers(chain, findings)
    with Tree(place.archive, place.vkeys, place.anchor, findings) as tree:
        tree.check(whole=wanted.is_all)
        rows = Rows(chain, tree, place, findings, progress)
        rows.check(wanted)
    if wanted.is_all:
        known = place.log is not None
        check_recorded(chain, rows.sealed, findings, tail_known=known)
    return findings


def leaves_of(archive: Path, wanted: Range) -> int:
    """Return how many leaves :func:`verify_full` will check in ``t`` files, for a progress bar."""
    files = filter(wanted.has, Chain(archive, Findings()).truth)
    return sum(file.end_leaf - file.first_leaf for file in files)


def check_log(log: Path, keys: Path, chain: Chain, findings: Findings) -> None:
    """Check the write-ahead files against their format; those that are sealed may be gone.

    Raises:
        PrivacyLogError: there is no log.
    """
    report = verify(log, keys, chain.newest.slots if chain.newest else None)
    findings.files += report.files
    for fault in report.faults:
        what = f"frame {fault.frame}: {fault.what}"
        findings.fault(fault.file, what, offset=fault.offset)


class Rows:
    """The rows of the ``t`` files beside the lines of the order and the leaves of the tree.

    Attributes:
        sealed: Leaf of each entry of kind SEALED that is the one of its leaf, by its digest.
    """

    def __init__(
        self,
        chain: Chain,
        tree: Tree,
        place: Place,
        findings: Findings,
        progress: Callable[[int], object],
    ) -> None:
        self.sealed: dict[str, int] = {}
        self._chain = chain
        self._tree = tree
        self._place = place
        self._findings = findings
        self._progress = progress
        self._keys = CommitKeys(place.commit_keys or Path())
        self._ordered: _Ordered

    def check(self, wanted: Range) -> None:
        """Check the leaves of a range: of ``t`` files, and behind them of write-ahead files."""
        newest = self._chain.newest
        sealed_leaves = self._findings.sealed_leaves = newest.sealed_leaves if newest else 0
        files = [file for file in self._chain.truth if wanted.has(file)]
        from_leaf = files[0].first_leaf if files else max(wanted.first, sealed_leaves)
        from_leaf = 0 if wanted.is_all else from_leaf
        lines = checked_lines(self._chain.archive, self._tree.size, self._findings, from_leaf)
        self._ordered = _Ordered(lines)
        for file in files:
            self._check_file(file)
        if sealed_leaves > self._tree.size:
            what = f"seals leaves beyond the {self._tree.size} of the newest checkpoint"
            self._findings.fault(self._chain.links[-1].path, what)
        log, keys = self._place.log, self._place.commit_keys
        if log is not None and keys is not None and wanted.is_all:
            tail = Tail(log, keys, self._tree, self._findings)
            for line in self._ordered.rest(sealed_leaves):
                tail.check(line, sealed_leaves)
            self.sealed |= tail.sealed
        elif wanted.is_all:
            for _ in self._ordered.rest(self._tree.size):
                pass  # reports what is wrong with the lines

    def _check_file(self, file: SealedFile) -> None:
        path = self._chain.path(file)
        leaves: list[bytes] = []
        try:
            salts = Salts(self._keys.named(file.key_id))
            with pq.ParquetFile(path) as parquet:
                if not parquet.schema_arrow.equals(TRUTH):
                    self._findings.fault(path, "its columns are not those of the format")
                    return
                if parquet.metadata.num_rows != file.end_leaf - file.first_leaf:
                    what = f"has {parquet.metadata.num_rows} rows for its leaves"
                    self._findings.fault(path, what, leaf=file.first_leaf)
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    first = file.first_leaf + len(leaves)
                    made = self._check_group(parquet, file, group, first, salts)
                    # What cannot be read stands in the list all the same, so that the rest fits.
                    leaves += made if len(made) == count else [b"\0" * HASH_BYTES] * count
                    self._progress(count)
        except PrivacyLogError as error:
            self._findings.fault(path, str(error))
            return
        except UNREADABLE as error:
            self._findings.fault(path, f"cannot be read as Parquet: {type(error).__name__}")
            return
        if root_of(leaves).hex() != file.range_root:
            what = "its records do not give the range_root of its manifest"
            self._findings.fault(path, what, leaf=file.first_leaf)

    def _check_group(
        self, parquet: pq.ParquetFile, file: SealedFile, group: int, first: int, salts: Salts
    ) -> list[bytes]:
        """Check a row group whose rows are the leaves from ``first`` on; return their hashes."""
        findings, path = self._findings, self._chain.path(file)
        try:
            table = parquet.read_row_group(group)
            table.validate(full=True)
            records = to_records(table)
        except UNREADABLE as error:
            what = f"a row group cannot be read: {type(error).__name__}"
            findings.fault(path, what, row_group=group, leaf=first)
            return []
        for at, what in self._place_faults(table, file, first):
            findings.fault(path, what, row_group=group, leaf=first + at)
        made = leaf_hashes(salts.run(first, len(records)), records)
        known = min(first + len(made), self._tree.size)
        held = (self._tree.read_leaves(first, known) or b"") if first < known else b""
        if b"".join(made) != held:
            self._differ(path, group, first, made, held)
        findings.leaves += len(made)
        for at in pc.indices_nonzero(pc.equal(table.column("kind"), Kind.SEALED)).to_pylist():
            digest = table.column("digest")[at].as_py()
            if digest is not None and held[at * HASH_BYTES :][:HASH_BYTES] == made[at]:
                self.sealed[digest.hex()] = first + at
        return made

    def _differ(self, path: Path, group: int, first: int, made: list[bytes], held: bytes) -> None:
        for at, leaf in enumerate(made):
            if leaf == held[at * HASH_BYTES : (at + 1) * HASH_BYTES]:
                continue
            if first + at >= self._tree.size:
                what = "a row is of a leaf beyond the newest checkpoint"
                self._findings.fault(path, what, row_group=group, leaf=first + at)
                return
            if self._tree.is_right(first + at, leaf):
                where, offset = self._tree.place(first + at)
                what = "a leaf is not the one that the levels above it and its record agree on"
                self._findings.fault(where, what, leaf=first + at, offset=offset)
            else:
                what = "a row is not the record of its leaf"
                self._findings.fault(path, what, row_group=group, leaf=first + at)

    def _place_faults(
        self, table: pa.Table, file: SealedFile, first: int
    ) -> Iterator[tuple[int, str]]:
        """Yield row and fault of the columns that are no part of a record."""
        count = len(table)
        newest = self._chain.newest
        node = newest.node if newest else ""
        for name, value in (("q", file.quarter), ("b", 0), ("node", node)):
            others = pc.fill_null(pc.not_equal(table.column(name), value), True)
            if len(rows := pc.indices_nonzero(others)):
                yield rows[0].as_py(), f"column {name} is not {value!r}"
        lines = self._ordered.take(first, first + count)
        wanted = {"seq": np.arange(first, first + count)}
        if sum(records for _, _, records in lines) == count:
            numbers = [np.arange(begin, begin + records) for _, begin, records in lines]
            wanted["record"] = np.concatenate(numbers) if numbers else np.arange(0)
            slots = np.repeat([slot for slot, _, _ in lines], [records for *_, records in lines])
            wanted["slot"] = slots
        else:
            yield 0, "the order does not have all of these leaves"
        for name, values in wanted.items():
            column = table.column(name)
            others = pc.fill_null(pc.not_equal(column, pa.array(values, column.type)), True)
            if len(rows := pc.indices_nonzero(others)):
                yield rows[0].as_py(), f"column {name} is not what the order fixed"
        at_us = table.column("at_us")
        outside = pc.or_(pc.less(at_us, file.first_us), pc.greater_equal(at_us, file.end_us))
        if len(rows := pc.indices_nonzero(outside)):
            yield rows[0].as_py(), "a row is of a time that its manifest does not give"


class _Ordered:
    """The lines of the order, taken leaf after leaf."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._line: Line | None = None

    def take(self, first: int, end: int) -> list[tuple[str, int, int]]:
        """Return slot, first record and number of records of a stretch of leaves, in order."""
        found = []
        while (line := self._line or next(self._lines, None)) is not None:
            self._line = line
            if line.first_leaf >= end:
                break
            begin, to = max(line.first_leaf, first), min(line.end_leaf, end)
            if begin < to:
                found.append((line.slot, line.first_record + begin - line.first_leaf, to - begin))
            if line.end_leaf > end:
                break
            self._line = None
        return found

    def rest(self, from_leaf: int) -> Iterator[Line]:
        """Yield the lines that end behind a leaf."""
        if self._line is not None and self._line.end_leaf > from_leaf:
            yield self._line
        self._line = None
        for line in self._lines:
            if line.end_leaf > from_leaf:
                yield line
