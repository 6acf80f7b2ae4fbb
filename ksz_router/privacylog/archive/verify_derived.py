"""Check that the derived files say what the sealed entries say: no row more, less or other.

The entries of a stretch of leaves are walked one by one (:mod:`derived_model`), and the rows that
must come of them compared with those that the files in force hold. Shares with what makes the files
their schema, and nothing else. That the entries are those of the log is checked by
:mod:`verify_full`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.derived_model import (
    Line,
    Row,
    Walk,
    keys_of,
    rollup_of,
    rows_of,
    sums_in,
)
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.archive.verify_chain import Chain

STRETCH_LEAVES: Final = 65_536
"""Walked at once: bounds the memory, at some 8 KiB a leaf."""
AROUND_LEAVES: Final = 65_536
"""Read before and behind a stretch, for exchanges that lie across its ends."""

_Sums: TypeAlias = Counter[tuple[Any, ...]]


class Leaves(msgspec.Struct, frozen=True):
    """Which are checked; the end is not included. All sealed ones where nothing is said."""

    first: int = 0
    end: int | None = None


def verify_derived(
    archive: Path, wanted: Leaves | None = None, progress: Callable[[int], object] = lambda _: None
) -> Findings:
    """Check the rows of these leaves; the rollup, which has no leaves, where all are checked.

    Args:
        archive: Its folder.
        wanted: Which leaves.
        progress: Called with leaves that were checked.

    Raises:
        PrivacyLogError: there is no archive.
    """
    if not (archive / "manifest").is_dir():
        raise PrivacyLogError(f"{archive}: no archive here: it has no folder manifest")
    wanted = wanted or Leaves()
    findings = Findings()
    chain = Chain(archive, findings)
    sealed = chain.newest.sealed_leaves if chain.newest is not None else 0
    end = sealed if wanted.end is None else min(wanted.end, sealed)
    findings.sealed_leaves = sealed
    check = _Check(chain, findings)
    for file in check.derived:
        check.check_file(file)
    sums: _Sums = Counter()
    for first in range(wanted.first, end, STRETCH_LEAVES):
        stretch = Leaves(first, min(end, first + STRETCH_LEAVES))
        sums += check.check_stretch(stretch)
        findings.leaves += (stretch.end or first) - first
        progress((stretch.end or first) - first)
    if wanted.first == 0 and end == sealed:
        check.check_sums(sums)
    return findings


def leaves_of(archive: Path, wanted: Leaves) -> int:
    """Return how many leaves :func:`verify_derived` will check, for a progress bar."""
    newest = Chain(archive, Findings()).newest
    sealed = newest.sealed_leaves if newest is not None else 0
    return max(0, min(sealed, sealed if wanted.end is None else wanted.end) - wanted.first)


class _Judged(msgspec.Struct):
    """What must be found for a stretch of leaves."""

    rows: dict[str, dict[tuple[Any, ...], Row]]
    """By kind and identity; taken out when found."""
    left_alone: set[int]
    """Leaves of which too little was read to say what must be there."""
    sums: _Sums


class _Check:
    def __init__(self, chain: Chain, findings: Findings) -> None:
        self._chain = chain
        self._findings = findings
        self.derived = sorted(
            (file for file in chain.files.values() if file.kind in ("p", "u", "k", "r")),
            key=lambda file: (file.kind, file.first_leaf, file.part),
        )

    def check_file(self, file: SealedFile) -> None:
        """Check order, ranges and number of the rows of one file."""
        self._findings.files += 1
        leading = SORTED_BY[file.kind][0]
        count, least, before = 0, None, None
        for group, table in self._groups(file, [leading]):
            values = [
                value.encode() if isinstance(value, str) else value
                for value in table[leading].to_pylist()
                if value is not None
            ]
            stretch = values if before is None else [before, *values]
            if any(one > following for one, following in pairwise(stretch)):
                self._fault(file, "rows are not in their order", group)
            least = values[0] if least is None and values else least
            before = values[-1] if values else before
            count += len(table)
        if count != file.rows:
            self._fault(file, f"has {count} rows and its manifest says {file.rows}")
        ends = (_text(file.kind, least), _text(file.kind, before))
        if ends != (file.min_key, file.max_key):
            self._fault(file, "its first or last row is not what its manifest says")

    def check_stretch(self, stretch: Leaves) -> _Sums:
        """Check the rows whose first entry lies in a stretch; return what they add up to."""
        assert stretch.end is not None
        until = stretch.end + AROUND_LEAVES
        judged = self._judge(stretch)
        for file in self.derived:
            if file.kind != "r" and file.end_leaf > stretch.first and file.first_leaf < until:
                self._compare(file, stretch, judged)
        for kind, rows in judged.rows.items():
            for identity in rows:
                seq = identity[-1]
                truth = next(f for f in self._chain.truth if f.first_leaf <= seq < f.end_leaf)
                self._findings.fault(
                    self._chain.path(truth), f"no {kind} file has a row that it must have", leaf=seq
                )
        return judged.sums

    def check_sums(self, sums: _Sums) -> None:
        """Check what the rollup adds up to."""
        found: _Sums = Counter()
        files = [file for file in self.derived if file.kind == "r"]
        for file in files:
            for _, table in self._groups(file, None):
                found += sums_in(table.to_pylist())
        for by in sorted(map(str, (found - sums).keys() | (sums - found).keys()))[:1]:
            folder = self._chain.path(files[0]).parent if files else self._chain.archive
            self._findings.fault(folder, f"the rollup does not add up, first at {by}")

    def _judge(self, stretch: Leaves) -> _Judged:
        """Walk the entries of a stretch, and of what lies around it."""
        assert stretch.end is not None
        begin = max(0, stretch.first - AROUND_LEAVES)
        walk = Walk()
        judged = _Judged({"p": {}, "u": {}, "k": {}}, set(), Counter())
        for entry in self._entries(begin, stretch.end + AROUND_LEAVES):
            walk.take(entry)
            if stretch.first <= entry["seq"] < stretch.end:
                judged.rows["k"] |= {key: {} for key in keys_of(entry)}
            for line in walk.over:
                self._expect(line, stretch, judged, whole=begin == 0)
            walk.over.clear()
        judged.left_alone |= {line.first["seq"] for line in walk.open.values()}
        return judged

    @staticmethod
    def _expect(line: Line, stretch: Leaves, judged: _Judged, *, whole: bool) -> None:
        seq = line.first["seq"]
        assert stretch.end is not None
        if not stretch.first <= seq < stretch.end:
            return
        if not whole and not line.begins:
            judged.left_alone.add(seq)  # its request may lie before what was read
            return
        for kind, rows in rows_of(line).items():
            for row in rows:
                judged.rows[kind][_identity(kind, row)] = row
        judged.sums += rollup_of([line])

    def _entries(self, first: int, end: int) -> Iterator[Row]:
        for file in self._chain.truth:
            if file.end_leaf <= first or file.first_leaf >= end:
                continue
            at = file.first_leaf
            for _, table in self._groups(file, None):
                low, high = max(first - at, 0), min(end - at, len(table))
                if low < high:
                    yield from table.slice(low, high - low).to_pylist()
                at += len(table)

    def _compare(self, file: SealedFile, stretch: Leaves, judged: _Judged) -> None:
        rows = judged.rows[file.kind]
        for group, table in self._groups(file, None):
            seqs = table["seq"].to_numpy()
            chosen = np.flatnonzero((seqs >= stretch.first) & (seqs < (stretch.end or 0)))
            for row in table.take(pa.array(chosen)).to_pylist():
                if file.kind != "k" and row["seq"] in judged.left_alone:
                    continue
                expected = rows.pop(_identity(file.kind, row), None)
                if expected is None:
                    what = "a row that no entry gives, or one twice"
                    self._fault(file, what, group, leaf=row["seq"])
                    continue
                wrong = [name for name in expected if row[name] != expected[name]]
                if wrong:
                    what = f"{wrong[0]} is not what the entries say"
                    self._fault(file, what, group, leaf=row["seq"])
                place = (file.quarter, file.part)
                if (row["q"], row["b"]) != place:
                    self._fault(file, "a row of another quarter or part", group, leaf=row["seq"])

    def _groups(
        self, file: SealedFile, columns: Sequence[str] | None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield the row groups that can be read; one that cannot is a fault."""
        try:
            with pq.ParquetFile(self._chain.path(file)) as parquet:
                names = SCHEMAS[file.kind].names
                if parquet.schema_arrow.names != names:
                    self._fault(file, f"its columns are not those of kind {file.kind}")
                    return
                for group in range(parquet.num_row_groups):
                    yield group, parquet.read_row_group(group, columns, use_threads=False)
        except (pa.ArrowException, OSError):
            self._fault(file, "cannot be read")

    def _fault(
        self, file: SealedFile, what: str, group: int | None = None, *, leaf: int | None = None
    ) -> None:
        self._findings.fault(self._chain.path(file), what, row_group=group, leaf=leaf)


def _identity(kind: str, row: Row) -> tuple[Any, ...]:
    """Return what tells a row from all others of its kind; its leaf is the last."""
    names = {"p": ("person",), "u": ("institution", "member"), "k": ("key",)}[kind]
    return (*(row[name] for name in names), row["seq"])


def _text(kind: str, value: Any) -> str:
    """Return a bound as manifests say it."""
    if not isinstance(value, bytes):
        return ""
    return value.decode() if kind == "u" else value.hex()
