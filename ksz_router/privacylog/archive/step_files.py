"""The files of one step of the sealer: written, read again, and described for its manifest."""

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.chain import carried
from ksz_router.privacylog.archive.coded import coded, plain
from ksz_router.privacylog.archive.exchange_rows import Derived, derive, narrowed
from ksz_router.privacylog.archive.leaves import Gathering, Leaves, Stretch, compare
from ksz_router.privacylog.archive.manifest import Carried, SealedFile
from ksz_router.privacylog.archive.ordering import Numbers
from ksz_router.privacylog.archive.pieces import SegmentRefused, Written, check, reread, write
from ksz_router.privacylog.archive.places import carry_path, file_of, sealed_path
from ksz_router.privacylog.archive.schema import SORTED_BY
from ksz_router.privacylog.archive.segment import encode, groups_of, write_groups
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import parse_head
from ksz_router.privacylog.tree.levels import Levels

_Times = tuple[int, int]
"""From the earliest ``at_us`` to beyond the latest."""

_decode = msgspec.msgpack.Decoder(list[Carried]).decode
_encode = msgspec.msgpack.Encoder().encode


class Truth:
    """The rows of one ``t`` file, made piece by piece and then at hand, names as dictionaries.

    Args:
        pieces: Leaves under one key; at least one piece.
        node: Name of the router.
        pause: Called after each piece.

    Raises:
        EntryNotSealable: see :meth:`Leaves.table`.
    """

    def __init__(
        self, pieces: Iterable[Leaves], node: str, pause: Callable[[], None] = lambda: None
    ) -> None:
        self.stretch: Stretch
        self.rows: list[pa.Table] = []
        for piece in pieces:
            self.rows.append(coded(piece.table(node)))
            first = self.stretch.first if len(self.rows) > 1 else piece.first
            self.stretch = Stretch(piece.keys, first, piece.end)
            pause()
        times = [_times(rows) for rows in self.rows]
        self.times = min(time[0] for time in times), max(time[1] for time in times)

    def encoded(self) -> pa.Buffer:
        """Return the Parquet file."""
        return encode("t", pa.concat_tables(self.rows))

    def taken(self, rows: Numbers) -> pa.Table:
        """Return some rows, named by their places, rising; of schema ``TRUTH``."""
        table = pa.concat_tables(self.rows).unify_dictionaries()
        return plain(table.take(pa.array(rows)))


class StepFiles:
    """Writes files of an archive.

    Args:
        archive: Its folder.
        node: Name of the router.
        pause: Called after each piece of leaves, and each 256 KiB that are written.
        disk: For fault tests.
    """

    def __init__(self, archive: Path, node: str, pause: Callable[[], None], disk: Disk) -> None:
        self._archive = archive
        self._node = node
        self._pause = pause
        self._disk = disk

    def write(self, gathering: Gathering, levels: Levels) -> tuple[list[SealedFile], list[str]]:
        """Write the files of leaves, and compare what the disk then holds with the tree.

        Returns:
            The files, and the paths of those that they stand in for.

        Raises:
            SegmentRefused, EntryNotSealable: they are not what the tree says.
            ChainBroken: what was carried over is damaged.
            OSError: the disk refused. What was written is no part of the archive.
        """
        before = carried(self._archive)
        carry = [] if before is None else self._read_carried(before)
        added: list[SealedFile] = []
        stretch: Stretch | None = None
        for _, pieces in groupby(gathering, key=lambda piece: piece.keys.id):
            truth = Truth(pieces, self._node, self._pause)
            stretch = truth.stretch
            sealed, held = self._put_truth(truth)
            root = compare(held, stretch, levels).hex()
            added.append(msgspec.structs.replace(sealed, range_root=root))
            derived = derive([narrowed(rows) for rows in truth.rows], carry)
            carry = derived.carry(truth.taken(derived.open))
            truth.rows.clear()
            for kind in "pukr":
                one = self._put(kind, stretch, derived, truth.times)
                added += [] if one is None else [one]
        if carry and stretch is not None:
            added.append(self._put_carried(carry, stretch))
        return added, [] if before is None else [before.path]

    def _put_truth(self, truth: Truth) -> tuple[SealedFile, bytes]:
        """Write a ``t`` file; return what describes it, and what the disk holds of it."""
        stretch = truth.stretch
        path = sealed_path("t", stretch.keys.quarter, stretch.first, stretch.end)
        file = file_of(self._archive, path)
        written = write(file, truth.encoded(), pause=self._pause, disk=self._disk)
        held = reread(file, written, self._disk)
        rows = stretch.end - stretch.first
        return _described("t", path, written, stretch, rows=rows, times=truth.times), held

    def _put(
        self, kind: str, stretch: Stretch, derived: Derived, times: _Times
    ) -> SealedFile | None:
        """Write a derived file; return what describes it, None where it would have no rows."""
        table = getattr(derived, kind)
        if not len(table):
            return None
        path = sealed_path(kind, stretch.keys.quarter, stretch.first, stretch.end)
        file = file_of(self._archive, path)
        groups = groups_of(kind, table)
        written = write_groups(file, kind, groups, pause=self._pause, disk=self._disk)
        check(file, written, self._disk)
        if "at_us" in table.column_names:
            times = _times(table)
        column = table[SORTED_BY[kind][0]]
        keys = [bound(column[at].as_py()) for at in (0, -1)]
        sealed = _described(kind, path, written, stretch, rows=len(table), times=times)
        return msgspec.structs.replace(sealed, min_key=keys[0], max_key=keys[1])

    def _put_carried(self, carry: list[Carried], stretch: Stretch) -> SealedFile:
        at_us = [parse_head(each.record).at_us for each in carry]
        path = carry_path(stretch.end)
        file = file_of(self._archive, path)
        written = write(file, _encode(carry), pause=self._pause, disk=self._disk)
        check(file, written, self._disk)
        times = min(at_us), max(at_us) + 1
        return _described("c", path, written, stretch, rows=len(carry), times=times)

    def _read_carried(self, sealed: SealedFile) -> list[Carried]:
        file = file_of(self._archive, sealed.path)
        data = reread(file, Written(sealed.sha256, sealed.bytes), self._disk)
        try:
            return _decode(data)
        except msgspec.MsgspecError:
            raise SegmentRefused(f"{file}: does not hold entries; put it back") from None


def _described(
    kind: str, path: str, written: Written, stretch: Stretch, *, rows: int, times: _Times
) -> SealedFile:
    return SealedFile(
        kind=kind,
        path=path,
        sha256=written.sha256,
        bytes=written.bytes,
        rows=rows,
        quarter=stretch.keys.quarter,
        key_id=stretch.keys.id,
        first_leaf=stretch.first,
        end_leaf=stretch.end,
        first_us=times[0],
        end_us=times[1],
    )


def _times(table: pa.Table) -> _Times:
    ends = pc.min_max(table["at_us"]).as_py()
    return ends["min"], ends["max"] + 1


def bound(value: object) -> str:
    """Return a bound of the first column of a sort; none where that is a number."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str) else ""
