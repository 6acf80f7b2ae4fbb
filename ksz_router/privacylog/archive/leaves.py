"""Leaves in a row under the keys of one quarter: gathered, as rows, and compared with the tree."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.archive.ordered import Taken
from ksz_router.privacylog.archive.segment import SegmentRefused, rows_of
from ksz_router.privacylog.keys import QuarterKeys
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hashes, root_of
from ksz_router.privacylog.tree.salts import Salts


class Leaves(NamedTuple):
    """What becomes one ``t`` file."""

    keys: QuarterKeys
    first: int
    frames: list[Taken]

    @property
    def end(self) -> int:
        """The leaf behind the last one."""
        last = self.frames[-1]
        return last.first_leaf + len(last.records)

    def table(self, node: str) -> pa.Table:
        """Return them as rows of schema ``TRUTH``.

        Raises:
            EntryNotSealable: one is no entry of this version.
        """
        counts = [len(taken.records) for taken in self.frames]
        names = sorted({taken.slot for taken in self.frames})
        codes = np.repeat([names.index(taken.slot) for taken in self.frames], counts)
        numbers = [
            np.arange(n) + taken.first_record for taken, n in zip(self.frames, counts, strict=True)
        ]
        return to_table(
            [record for taken in self.frames for record in taken.records],
            first_seq=self.first,
            q=self.keys.quarter,
            node=node,
            slots=pa.array(names, pa.string()).take(pa.array(codes)),
            record_numbers=np.concatenate(numbers),
        )


class Gathered(NamedTuple):
    """Leaves of a step, and where each slot is behind them."""

    parts: list[Leaves]
    """A new one begins where the keys change."""
    cursors: dict[str, Cursor]
    """Of the slots that have frames in this step."""

    @property
    def end(self) -> int:
        """The leaf behind the last one."""
        return self.parts[-1].end


def gather(taken: Iterable[Taken], leaves_max: int) -> Gathered:
    """Take whole frames: one, and more while they have at most ``leaves_max`` records."""
    parts: list[Leaves] = []
    cursors: dict[str, Cursor] = {}
    count = 0
    for each in taken:
        if each.records:
            count += len(each.records)
            if count > leaves_max and parts:
                break
            if not parts or parts[-1].keys.id != each.keys.id:
                parts.append(Leaves(each.keys, each.first_leaf, []))
            parts[-1].frames.append(each)
        end = each.end
        cursors[each.slot] = Cursor(
            each.file, end.frame, end.next_record, end.offset, end.crc, end.is_last
        )
    return Gathered(parts, cursors)


def compare(data: bytes, leaves: Leaves, levels: Levels) -> bytes:
    """Compare a ``t`` file with the tree, leaf by leaf, from its bytes alone.

    Returns:
        The root of the tree over its leaves alone: 32 bytes.

    Raises:
        SegmentRefused: a leaf is not that of the tree.
    """
    salts = Salts(leaves.keys.commit)
    hashes: list[bytes] = []
    for rows in rows_of("t", data):
        first = leaves.first + len(hashes)
        records = to_records(rows)
        made = leaf_hashes(salts.run(first, len(records)), records)
        if made != levels.leaves(first, first + len(made)):
            raise SegmentRefused(f"leaves from {first} on are not those of the tree")
        hashes += made
    if leaves.first + len(hashes) != leaves.end:
        raise SegmentRefused(f"the file of leaves from {leaves.first} on has other rows")
    return root_of(hashes)
