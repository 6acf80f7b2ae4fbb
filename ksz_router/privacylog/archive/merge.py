"""Many sorted runs into one, part after part, in bounded memory.

Where the parts begin is found first, from one row of each row group of the inputs: so the same
inputs give the same parts, and a merge that was cut short goes on behind the last part it finished.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog.archive.interleave import Interleaved
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.runs import Merge
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.archive.segment import (
    ROWS_OF_GROUP,
    SegmentRefused,
    Written,
    encode_groups,
    reread,
    write,
)
from ksz_router.privacylog.archive.step_files import bound
from ksz_router.privacylog.durable import DISK, Disk

PART_ROWS_MAX: Final = {"p": 131_072, "u": 2_000_000, "k": 2_000_000, "r": 2_000_000}
"""About: parts are cut at row groups of the inputs. The end of a ``p`` file says where its many
columns begin in each row group, and is read for every question: so the files are short."""

_Key: TypeAlias = tuple[tuple[bool, Any], ...]
"""What a row is sorted by; null before all else."""


def merge(
    archive: Path,
    due: Merge,
    *,
    pause: Callable[[], None] = lambda: None,
    part_rows_max: int | None = None,
    disk: Disk = DISK,
) -> list[SealedFile]:
    """Make one run of several; return its files, for a manifest.

    Args:
        archive: Its folder.
        due: What to merge. Its files stay where they are. Give it to :func:`forget` once a
            manifest names what was made.
        pause: Called after each 256 KiB that are written.
        part_rows_max: About so many rows are in one file; as is usual for the kind if None.
        disk: For fault tests.

    Raises:
        SegmentRefused: an input is damaged or missing.
        OSError: the disk refused. What was written is no part of the archive.
    """
    part_rows_max = part_rows_max or PART_ROWS_MAX[due.kind]
    sources = [_Source(archive, run) for run in due.runs]
    bounds = _bounds(sources, part_rows_max)
    ends: list[_Key | None] = [*bounds, None]
    made = _Made(archive, due, part_rows_max, disk)
    for part, (begin, end) in enumerate(zip([None, *bounds], ends, strict=True)):
        if part < len(made.parts):
            continue
        rows = Interleaved(
            due.kind, [table for source in sources for table in source.rows(begin, end)]
        )
        sealed = _described(due, rows, part, len(ends))
        file = file_of(archive, sealed.path)
        data = encode_groups(due.kind, _of_part(rows, due.kind, part))
        written = write(file, data, pause=pause, disk=disk)
        reread(file, written, disk, data=data)
        made.add(msgspec.structs.replace(sealed, sha256=written.sha256, bytes=written.bytes), pause)
    count = sum(file.rows for run in due.runs for file in run)
    if due.kind != "r" and sum(file.rows for file in made.parts) != count:
        raise SegmentRefused(f"{made.parts[0].path}: a merge lost rows: an input is damaged")
    return made.parts


def forget(archive: Path, due: Merge, disk: Disk = DISK) -> None:
    """Take away what a merge noted down, once a manifest names the files that it made."""
    file = _Made.file_of(archive, due)
    if file.exists():
        disk.remove(file)


class _Note(msgspec.Struct, frozen=True):
    """What lies beside the parts until a manifest names them."""

    made_of: str
    parts: list[SealedFile]


class _Made:
    """The parts that are finished, in their order; the note survives whoever makes them."""

    def __init__(self, archive: Path, due: Merge, part_rows_max: int, disk: Disk) -> None:
        self._archive, self._disk, self._note_file = archive, disk, self.file_of(archive, due)
        inputs = [file.sha256 for run in due.runs for file in run]
        self._made_of = sha256(" ".join([str(part_rows_max), *inputs]).encode()).hexdigest()
        self.parts = self._whole()

    @staticmethod
    def file_of(archive: Path, due: Merge) -> Path:
        path = sealed_path(due.kind, due.quarter, due.first_leaf, due.end_leaf, level=due.level)
        return file_of(archive, path).with_suffix(".parts")

    def add(self, sealed: SealedFile, pause: Callable[[], None]) -> None:
        self.parts.append(sealed)
        note = msgspec.msgpack.encode(_Note(self._made_of, self.parts))
        write(self._note_file, note, pause=pause, disk=self._disk)

    def _whole(self) -> list[SealedFile]:
        """Return the first parts that are noted down, made of the same, and as they were made."""
        try:
            note = msgspec.msgpack.decode(self._note_file.read_bytes(), type=_Note)
        except (FileNotFoundError, msgspec.MsgspecError):
            return []
        whole: list[SealedFile] = []
        if note.made_of == self._made_of:
            for sealed in note.parts:
                file = file_of(self._archive, sealed.path)
                try:
                    reread(file, Written(sealed.sha256, sealed.bytes), self._disk)
                except SegmentRefused:
                    break
                whole.append(sealed)
        return whole


def _of_part(rows: Interleaved, kind: str, part: int) -> Iterator[pa.Table]:
    """Yield the row groups of a part."""
    at = SCHEMAS[kind].get_field_index("b")
    for table in rows.groups(ROWS_OF_GROUP[kind]):
        yield table.set_column(at, "b", pa.repeat(pa.scalar(part, pa.int16()), len(table)))


def _described(due: Merge, rows: Interleaved, part: int, parts: int) -> SealedFile:
    """Return what describes a part, but for its bytes."""
    inputs = [file for run in due.runs for file in run]
    first_us = min(file.first_us for file in inputs)
    end_us = max(file.end_us for file in inputs)
    if "at_us" in rows.table.column_names:
        times = pc.min_max(rows.table["at_us"]).as_py()
        first_us, end_us = times["min"], times["max"] + 1
    keys = rows.ends(SORTED_BY[due.kind][0])
    first_leaf, end_leaf, level = due.first_leaf, due.end_leaf, due.level
    return SealedFile(
        kind=due.kind,
        path=sealed_path(due.kind, due.quarter, first_leaf, end_leaf, level=level, part=part),
        sha256="",
        bytes=0,
        rows=len(rows),
        level=level,
        part=part,
        parts=parts,
        quarter=due.quarter,
        key_id=due.key_id,
        first_leaf=first_leaf,
        end_leaf=end_leaf,
        first_us=first_us,
        end_us=end_us,
        min_key=bound(keys[0]),
        max_key=bound(keys[1]),
    )


class _Group(msgspec.Struct, frozen=True):
    """A row group of a source."""

    file: int
    at: int
    rows: int
    first: _Key


class _Source:
    """One run, read from its begin to its end."""

    def __init__(self, archive: Path, run: Sequence[SealedFile]) -> None:
        self._kind = run[0].kind
        self._files = [file_of(archive, file.path) for file in run]
        self._read: tuple[int, pa.Table] | None = None
        self._open: tuple[int, pq.ParquetFile] | None = None
        self.groups = [group for at in range(len(run)) for group in self._groups(at)]

    def rows(self, begin: _Key | None, end: _Key | None) -> Iterator[pa.Table]:
        """Yield the rows from ``begin`` up to before ``end``. The row group read last is kept."""
        firsts = [group.first for group in self.groups]
        at = 0 if begin is None else max(bisect_left(firsts, begin) - 1, 0)
        while at < len(firsts) and (end is None or firsts[at] < end):
            table = self._group(at)
            keys = _Keys(self._kind, table)
            low = 0 if begin is None else bisect_left(keys, begin)
            high = len(table) if end is None else bisect_left(keys, end)
            if low < high:
                yield table.slice(low, high - low)
            at += 1

    def _group(self, at: int) -> pa.Table:
        if self._read is None or self._read[0] != at:
            group = self.groups[at]
            try:
                table = self._parquet(group.file).read_row_group(group.at, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise self._refused(group.file) from error
            self._read = at, table
        return self._read[1]

    def _groups(self, file: int) -> Iterator[_Group]:
        try:
            parquet = self._parquet(file)
            for at in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(at).num_rows
                columns = list(SORTED_BY[self._kind])
                batch = next(parquet.iter_batches(1, [at], columns, use_threads=False))
                yield _Group(file, at, rows, _Keys(self._kind, pa.table(batch))[0])
        except (pa.ArrowException, OSError) as error:
            raise self._refused(file) from error

    def _parquet(self, file: int) -> pq.ParquetFile:
        """Return a file of the run, opened; the one opened before is closed."""
        if self._open is None or self._open[0] != file:
            if self._open is not None:
                self._open[1].close()
            names = [leaf for leaf in _TEXTS if leaf.partition(".")[0] in SCHEMAS[self._kind].names]
            parquet = pq.ParquetFile(self._files[file], read_dictionary=names, pre_buffer=False)
            self._open = file, parquet
        return self._open[1]

    def _refused(self, file: int) -> SegmentRefused:
        return SegmentRefused(f"{self._files[file]}: missing or damaged; put it back")


_TEXTS = {
    path
    for schema in SCHEMAS.values()
    for field in schema
    for path, kind in (
        (field.name, field.type),
        (f"{field.name}.list.element", getattr(field.type, "value_type", None)),
    )
    if kind == pa.string()
}


class _Keys(Sequence[_Key]):
    """What the rows of a table are sorted by."""

    def __init__(self, kind: str, table: pa.Table) -> None:
        self._columns = [table[name] for name in SORTED_BY[kind]]
        self._rows = len(table)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: Any) -> Any:
        values = (column[row].as_py() for column in self._columns)
        return tuple(
            (value is not None, value.encode() if isinstance(value, str) else value)
            for value in values
        )


def _bounds(sources: Sequence[_Source], part_rows_max: int) -> list[_Key]:
    """Return where the parts but the first begin, so that all have about as many rows."""
    groups = sorted((group for source in sources for group in source.groups), key=lambda g: g.first)
    total = sum(group.rows for group in groups)
    parts = max(1, -(-total // part_rows_max))
    bounds: list[_Key] = []
    before = 0
    for group in groups:
        due = total * (len(bounds) + 1) / parts
        if len(bounds) + 1 < parts and before >= due and (not bounds or group.first > bounds[-1]):
            bounds.append(group.first)
        before += group.rows
    return bounds
