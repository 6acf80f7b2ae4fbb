"""Many sorted runs into one, part after part, in bounded memory.

Where the parts begin is found first, from one row of each row group of the inputs: so the same
inputs give the same parts, and a merge that was cut short goes on behind the last part it finished.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.limits import KIB, MIB
from ksz_router.privacylog.archive.interleave import Key, Keys, grouped, interleaved, rows_of_run
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.pieces import SegmentRefused, Written, check, write
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.runs import Merge
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.archive.segment import ROWS_OF_GROUP, write_groups
from ksz_router.privacylog.archive.step_files import bound
from ksz_router.privacylog.durable import DISK, Disk

PART_ROWS_MAX: Final = {"p": 131_072, "u": 2_000_000, "k": 2_000_000, "r": 2_000_000}
"""About: parts are cut at row groups of the inputs. The end of a ``p`` file says where its many
columns begin in each row group, and is read for every question: so the files are short."""


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
    ends: list[Key | None] = [*bounds, None]
    made = _Made(archive, due, part_rows_max, disk)
    for part, (begin, end) in enumerate(zip([None, *bounds], ends, strict=True)):
        if part < len(made.parts):
            continue
        count = rows_of_run(len(sources))
        rows = _Part(due.kind, part, [source.rows(begin, end, count) for source in sources])
        first, behind = due.first_leaf, due.end_leaf
        path = sealed_path(due.kind, due.quarter, first, behind, level=due.level, part=part)
        file = file_of(archive, path)
        written = write_groups(file, due.kind, rows.groups(), pause=pause, disk=disk)
        check(file, written, disk)
        made.add(_described(due, rows, path, written, parts=len(ends)), pause)
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
                    check(file, Written(sealed.sha256, sealed.bytes), self._disk)
                except SegmentRefused:
                    break
                whole.append(sealed)
        return whole


class _Part:
    """The rows of a part, given away group by group; what they are is noted meanwhile."""

    def __init__(self, kind: str, number: int, runs: Sequence[Iterator[pa.Table]]) -> None:
        self._kind, self._runs = kind, runs
        self.number = number
        self.rows = 0
        self.first: object = None
        """What the first row has in the first column of the sort."""
        self.last: object = None
        self.times: list[int] = []
        """The earliest and the latest ``at_us``, where there is that column."""

    def groups(self) -> Iterator[pa.Table]:
        """Yield the row groups."""
        at = SCHEMAS[self._kind].get_field_index("b")
        rows = interleaved(self._kind, self._runs)
        for table in grouped(rows, ROWS_OF_GROUP[self._kind]):
            self._note(table)
            number = pa.repeat(pa.scalar(self.number, pa.int16()), len(table))
            yield table.set_column(at, "b", number)

    def _note(self, table: pa.Table) -> None:
        leading = table[SORTED_BY[self._kind][0]]
        self.first = self.first if self.rows else leading[0].as_py()
        self.last = leading[-1].as_py()
        self.rows += len(table)
        if "at_us" in table.column_names:
            times = pc.min_max(table["at_us"]).as_py()
            times = [*self.times, times["min"], times["max"]]
            self.times = [min(times), max(times)]


def _described(due: Merge, rows: _Part, path: str, written: Written, *, parts: int) -> SealedFile:
    """Return what describes a part."""
    inputs = [file for run in due.runs for file in run]
    first_us, end_us = min(file.first_us for file in inputs), max(file.end_us for file in inputs)
    if rows.times:
        first_us, end_us = rows.times[0], rows.times[1] + 1
    return SealedFile(
        kind=due.kind,
        path=path,
        sha256=written.sha256,
        bytes=written.bytes,
        rows=rows.rows,
        level=due.level,
        part=rows.number,
        parts=parts,
        quarter=due.quarter,
        key_id=due.key_id,
        first_leaf=due.first_leaf,
        end_leaf=due.end_leaf,
        first_us=first_us,
        end_us=end_us,
        min_key=bound(rows.first),
        max_key=bound(rows.last),
    )


class _Group(msgspec.Struct, frozen=True):
    """A row group of a source."""

    file: int
    at: int
    rows: int
    first: Key


_WHOLE_BYTES_MAX: Final = 1 * MIB
"""A row group up to this size (plain) is read whole; in pieces it takes twice as long."""
_BUFFER_BYTES: Final = 64 * KIB
"""Of each column that is being read in pieces. Without, all of it would be in memory."""


class _Source:
    """One run, read from its begin to its end."""

    def __init__(self, archive: Path, run: Sequence[SealedFile]) -> None:
        self._kind = run[0].kind
        self._files = [file_of(archive, file.path) for file in run]
        self._open: tuple[int, pq.ParquetFile] | None = None
        self.groups = [group for at in range(len(run)) for group in self._groups(at)]

    def rows(self, begin: Key | None, end: Key | None, count: int) -> Iterator[pa.Table]:
        """Yield the rows from ``begin`` up to before ``end``, at most ``count`` at a time."""
        firsts = [group.first for group in self.groups]
        at = 0 if begin is None else max(bisect_left(firsts, begin) - 1, 0)
        for group in self.groups[at:]:
            for table in self._tables(group, count):
                keys = Keys(self._kind, table)
                low = 0 if begin is None else bisect_left(keys, begin)
                high = len(table) if end is None else bisect_left(keys, end)
                if low < high:
                    yield table.slice(low, high - low)
                if high < len(table):
                    return

    def _tables(self, group: _Group, count: int) -> Iterator[pa.Table]:
        try:
            parquet = self._parquet(group.file)
            if parquet.metadata.row_group(group.at).total_byte_size <= _WHOLE_BYTES_MAX:
                table = parquet.read_row_group(group.at, use_threads=False)
                yield from (table.slice(begin, count) for begin in range(0, len(table), count))
            else:
                batches = parquet.iter_batches(count, [group.at], use_threads=False)
                yield from (pa.table(batch) for batch in batches)
        except (pa.ArrowException, OSError) as error:
            raise self._refused(group.file) from error

    def _groups(self, file: int) -> Iterator[_Group]:
        try:
            parquet = self._parquet(file)
            for at in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(at).num_rows
                columns = list(SORTED_BY[self._kind])
                batch = next(parquet.iter_batches(1, [at], columns, use_threads=False))
                yield _Group(file, at, rows, Keys(self._kind, pa.table(batch))[0])
        except (pa.ArrowException, OSError) as error:
            raise self._refused(file) from error

    def _parquet(self, file: int) -> pq.ParquetFile:
        """Return a file of the run, opened; the one opened before is closed."""
        if self._open is None or self._open[0] != file:
            if self._open is not None:
                self._open[1].close()
            names = [leaf for leaf in _TEXTS if leaf.partition(".")[0] in SCHEMAS[self._kind].names]
            parquet = pq.ParquetFile(
                self._files[file],
                read_dictionary=names,
                pre_buffer=False,
                buffer_size=_BUFFER_BYTES,
            )
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


def _bounds(sources: Sequence[_Source], part_rows_max: int) -> list[Key]:
    """Return where the parts but the first begin, so that all have about as many rows."""
    groups = sorted((group for source in sources for group in source.groups), key=lambda g: g.first)
    total = sum(group.rows for group in groups)
    parts = max(1, -(-total // part_rows_max))
    bounds: list[Key] = []
    before = 0
    for group in groups:
        due = total * (len(bounds) + 1) / parts
        if len(bounds) + 1 < parts and before >= due and (not bounds or group.first > bounds[-1]):
            bounds.append(group.first)
        before += group.rows
    return bounds
