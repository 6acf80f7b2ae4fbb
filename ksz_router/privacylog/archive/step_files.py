"""The files of one step of the sealer: written, read again, and described for its manifest."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.chain import carried
from ksz_router.privacylog.archive.exchange_rows import derive
from ksz_router.privacylog.archive.leaves import Gathered, Leaves, compare
from ksz_router.privacylog.archive.manifest import Carried, SealedFile
from ksz_router.privacylog.archive.places import carry_path, file_of, sealed_path
from ksz_router.privacylog.archive.schema import SORTED_BY
from ksz_router.privacylog.archive.segment import (
    SegmentRefused,
    Written,
    encode,
    reread,
    write,
)
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import parse_head
from ksz_router.privacylog.tree.levels import Levels

_Times = tuple[int, int]
"""From the earliest ``at_us`` to beyond the latest."""

_decode = msgspec.msgpack.Decoder(list[Carried]).decode
_encode = msgspec.msgpack.Encoder().encode


class StepFiles:
    """Writes files of an archive.

    Args:
        archive: Its folder.
        node: Name of the router.
        pause: Called after each 256 KiB.
        disk: For fault tests.
    """

    def __init__(self, archive: Path, node: str, pause: Callable[[], None], disk: Disk) -> None:
        self._archive = archive
        self._node = node
        self._pause = pause
        self._disk = disk

    def write(self, gathered: Gathered, levels: Levels) -> tuple[list[SealedFile], list[str]]:
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
        for leaves in gathered.parts:
            truth = leaves.table(self._node)
            times = _times(truth)
            sealed, data = self._put("t", leaves, truth, times)
            root = compare(data, leaves, levels).hex()
            added.append(msgspec.structs.replace(sealed, range_root=root))
            derived = derive(truth, carry)
            carry = derived.carry
            for kind in "pukr":
                table = getattr(derived, kind)
                if len(table):
                    added.append(self._put(kind, leaves, table, times)[0])
        if carry:
            added.append(self._put_carried(carry, gathered.parts[-1]))
        return added, [] if before is None else [before.path]

    def _put(
        self, kind: str, leaves: Leaves, table: pa.Table, times: _Times
    ) -> tuple[SealedFile, bytes]:
        """Write a file; return what describes it, and what the disk holds of it."""
        path = sealed_path(kind, leaves.keys.quarter, leaves.first, leaves.end)
        data = encode(kind, table)
        if "at_us" in table.column_names:
            times = _times(table)
        sealed, held = self._write(kind, path, data, rows=len(table), leaves=leaves, times=times)
        column = table[SORTED_BY[kind][0]]
        keys = [bound(column[at].as_py()) for at in (0, -1)]
        return msgspec.structs.replace(sealed, min_key=keys[0], max_key=keys[1]), held

    def _put_carried(self, carry: list[Carried], leaves: Leaves) -> SealedFile:
        at_us = [parse_head(each.record).at_us for each in carry]
        times = min(at_us), max(at_us) + 1
        path = carry_path(leaves.end)
        data = _encode(carry)
        return self._write("c", path, data, rows=len(carry), leaves=leaves, times=times)[0]

    def _write(
        self,
        kind: str,
        path: str,
        data: pa.Buffer | bytes,
        *,
        rows: int,
        leaves: Leaves,
        times: _Times,
    ) -> tuple[SealedFile, bytes]:
        file = file_of(self._archive, path)
        written = write(file, data, pause=self._pause, disk=self._disk)
        held = reread(file, written, self._disk, data=data)
        sealed = SealedFile(
            kind=kind,
            path=path,
            sha256=written.sha256,
            bytes=written.bytes,
            rows=rows,
            quarter=leaves.keys.quarter,
            key_id=leaves.keys.id,
            first_leaf=leaves.first,
            end_leaf=leaves.end,
            first_us=times[0],
            end_us=times[1],
        )
        return sealed, held

    def _read_carried(self, sealed: SealedFile) -> list[Carried]:
        file = file_of(self._archive, sealed.path)
        data = reread(file, Written(sealed.sha256, sealed.bytes), self._disk)
        try:
            return _decode(data)
        except msgspec.MsgspecError:
            raise SegmentRefused(f"{file}: does not hold entries; put it back") from None


def _times(table: pa.Table) -> _Times:
    ends = pc.min_max(table["at_us"]).as_py()
    return ends["min"], ends["max"] + 1


def bound(value: object) -> str:
    """Return a bound of the first column of a sort; none where that is a number."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str) else ""
