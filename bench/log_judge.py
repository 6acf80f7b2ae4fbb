"""Whether a log that was broken and taken up again is whole, and keeps every promise.

Reads with the verifiers, which share no code with what writes.
"""

import functools
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bench.log_entries import Keys, Promises
from ksz_router.codes import Code
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.verify_chain import Chain
from ksz_router.privacylog.archive.verify_derived import verify_derived
from ksz_router.privacylog.archive.verify_fast import Place, verify_fast
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.archive.verify_order import checked_lines, records_of
from ksz_router.privacylog.entry import Kind, parse
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.note import read_vkeys


class Verdict(NamedTuple):
    """What does not hold; all empty where everything does."""

    lost: int
    """Records that were acknowledged, and are no leaf."""
    false: int
    """Leaves that nobody recorded, or a second time."""
    resigned: int
    """Sizes of the tree that were shown with another root than it has now."""
    faults: tuple[str, ...]
    """What the verifiers said."""

    @property
    def holds(self) -> bool:
        """Say whether nothing is amiss."""
        return not any(self)


def place_of(folder: Path, keys: Keys) -> Place:
    """Return what the verifiers are given of a pipeline's folder."""
    return Place(
        archive=folder / "archive",
        vkeys=read_vkeys(keys.checkpoint / "vkeys"),
        anchor=folder / "state" / "last-checkpoint",
        commit_keys=keys.quarters,
        log=folder / "log",
    )


def judge(folder: Path, keys: Keys, promises: Promises, *, fast_too: bool = True) -> Verdict:
    """Verify a log at rest, and set it against what was promised.

    Args:
        folder: Of the log.
        keys: Of the log.
        promises: What must be there, and what may be.
        fast_too: Run the other verifiers behind ``verify full``, which looks at as much alone.
    """
    place = place_of(folder, keys)
    faults = list(verify_full(place).faults)
    if fast_too:
        faults += verify_fast(place).faults
        if (place.archive / "manifest").is_dir():
            faults += verify_derived(place.archive).faults
    said = tuple(f"{fault.file.relative_to(folder)}: {fault.what}" for fault in faults)
    found = Counter(_leaves(place))
    lost = sum(1 for record in promises.acknowledged if not found[record])
    false = sum(
        count - 1 if _may_be(record, promises) else count
        for record, count in found.items()
        if count > 1 or not _may_be(record, promises)
    )
    levels = Levels.reading(place.archive / "tree")
    roots = {size: root for size, (root, _) in promises.shown.items()}
    other = [s for s, root in roots.items() if s > levels.size or levels.root(s) != root]
    levels.close()
    return Verdict(lost, false, len(set(other) | set(promises.doubled)), said)


def _may_be(record: bytes, promises: Promises) -> bool:
    """Say whether a record was given, or is one that the log writes by itself."""
    if record in promises.given:
        return True
    entry = parse(record)
    unknown = entry.kind is Kind.OUTCOME and entry.code == Code.OUTCOME_UNKNOWN
    return unknown or entry.kind is Kind.SEALED


@functools.lru_cache(maxsize=256)
def _records(parquet: bytes) -> tuple[bytes, ...]:
    """Return the records of a ``t`` file; most are the same in many trials."""
    return tuple(to_records(pq.read_table(pa.BufferReader(parquet), use_threads=False)))


def _leaves(place: Place) -> list[bytes]:
    """Return the record of every leaf: of the ``t`` files, then of the write-ahead files."""
    chain = Chain(place.archive, Findings())
    records: list[bytes] = []
    for file in chain.truth:
        records += _records(chain.path(file).read_bytes())
    assert place.log is not None
    assert place.commit_keys is not None
    keys = KeyRing(place.commit_keys)
    sealed = len(records)
    levels = Levels.reading(place.archive / "tree")
    for line in checked_lines(place.archive, levels.size, Findings()):
        if line.end_leaf > sealed:
            ordered, _ = records_of(place.log, keys, line)
            records += ordered[max(sealed - line.first_leaf, 0) :]
    levels.close()
    return records
