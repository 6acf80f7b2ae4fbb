"""Leaves in a row under the keys of one quarter: taken in pieces, as rows, and compared.

A step takes tens of thousands of leaves and holds the records of one piece of them at a time.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.archive.ordered import Taken
from ksz_router.privacylog.archive.pieces import SegmentRefused
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.keys import QuarterKeys
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hashes, root_of
from ksz_router.privacylog.tree.salts import Salts

PIECE_LEAVES: Final = 8_192
"""At most so many are in memory as records: a frame has half as many at most."""


class Stretch(NamedTuple):
    """Which leaves are in one ``t`` file."""

    keys: QuarterKeys
    first: int
    end: int
    """The leaf behind the last one."""


class Leaves(NamedTuple):
    """A piece of what becomes one ``t`` file."""

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


class Gathering:
    """The leaves of a step, taken piece by piece; and where each slot is behind them.

    Args:
        taken: Frames, in the order of their leaves.
        leaves_max: Whole frames are taken: one, and more while they have at most so many records.
    """

    def __init__(self, taken: Iterable[Taken], leaves_max: int) -> None:
        self._taken = taken
        self._leaves_max = leaves_max
        self.cursors: dict[str, Cursor] = {}
        """Of the slots that have frames among those taken so far."""
        self.end = 0
        """The leaf behind the last one taken so far."""

    def __iter__(self) -> Iterator[Leaves]:
        """Yield pieces of at most ``PIECE_LEAVES``, or one frame; each under one key. Once."""
        piece: Leaves | None = None
        count = 0
        for each in self._taken:
            if each.records:
                count += len(each.records)
                if count > self._leaves_max and self.end:
                    break
                end = each.first_leaf + len(each.records)
                if piece is not None and not _fits(piece, each, end):
                    yield piece
                    piece = None
                if piece is None:
                    piece = Leaves(each.keys, each.first_leaf, [])
                piece.frames.append(each)
                self.end = end
            behind = each.end
            self.cursors[each.slot] = Cursor(
                each.file, behind.frame, behind.next_record, behind.offset, behind.crc,
                behind.is_last,
            )  # fmt: skip
        if piece is not None:
            yield piece


def _fits(piece: Leaves, taken: Taken, end: int) -> bool:
    return piece.keys.id == taken.keys.id and end - piece.first <= PIECE_LEAVES


def compare(data: bytes, stretch: Stretch, levels: Levels) -> bytes:
    """Compare a ``t`` file with the tree, leaf by leaf, from its bytes alone.

    Returns:
        The root of the tree over its leaves alone: 32 bytes.

    Raises:
        SegmentRefused: a leaf is not that of the tree.
    """
    salts = Salts(stretch.keys.commit)
    hashes: list[bytes] = []
    at = stretch.first
    for rows in rows_of("t", data, PIECE_LEAVES):
        records = to_records(rows)
        made = leaf_hashes(salts.run(at, len(records)), records)
        if made != levels.leaves(at, at + len(made)):
            raise SegmentRefused(f"leaves from {at} on are not those of the tree")
        hashes.append(b"".join(made))
        at += len(made)
    if at != stretch.end:
        raise SegmentRefused(f"the file of leaves from {stretch.first} on has other rows")
    return root_of(hashes)
