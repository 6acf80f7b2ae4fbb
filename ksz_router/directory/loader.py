"""Build a new version of the directory from a CSV file, beside the one that serves, and swap.

Memory stays flat: rows are judged one by one, sorted on disk and written in the order of the
keys. One bad row, and nothing changes. ``docs/directory-format.md`` describes the file.
"""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import lmdb

from ksz_router.directory import folder
from ksz_router.directory.carrying import carry_over
from ksz_router.directory.families import Families
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DirectoryError, Record, pack
from ksz_router.directory.rows import (
    COLUMNS,
    ROW_BYTES,
    LineRow,
    NumberRow,
    RowError,
    decode,
    encode,
    key_of,
)
from ksz_router.directory.sorting import Sorter
from ksz_router.limits import person_lines_max
from ksz_router.model import Line

Progress = Callable[[str, int, int], None]
"""Told now and then: what is being done, how much of it is done, how much there is."""

REASONS_MAX = 20
_PROGRESS_ROWS = 1 << 14
_COMMIT_NUMBERS = 20_000
_FULL = "too many bad rows, the rest of the file was not read"


class LoadRefusedError(DirectoryError):
    """The file cannot be loaded; nothing was changed. Each reason reads ``file:line: why``."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


class Loaded(NamedTuple):
    """What a load made."""

    version: int
    numbers: int
    lines: int


def load(
    csv_file: Path, target: Path, *, now_us: int = 0, progress: Progress | None = None
) -> Loaded:
    """Build the next version from ``csv_file`` and make it the one that serves, durably.

    Readers keep the version they have until they refresh; the version before stays on disk,
    older ones are removed. The journal goes on: ``now_us``, Unix time in microseconds, is when.

    Raises:
        LoadRefusedError: rows cannot be loaded.
        DirectoryError: a writer, a load or a restore is at work, or the disk does not take what is
            written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        with Lock(target), _scratch(target) as scratch:
            version = 1 + folder.newest_version(target)
            with Families(scratch / "families") as families:
                build = _Build(csv_file, scratch, families, progress)
                build.read()
                loaded = build.write(
                    scratch / "building",
                    version,
                    lambda environment: carry_over(target, environment, version, now_us),
                )
            build.tell("seal", 0, 1)
            folder.swap_in(scratch / "building", target, version)
            build.tell("seal", 1, 1)
            return loaded
    except (OSError, lmdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DirectoryError(f"{target}: load failed, nothing was changed: {reason}") from error


class _Reasons:
    """Why the file is refused, up to a bound."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[str] = []

    def add(self, row: int, why: str) -> None:
        if len(self._found) < REASONS_MAX:
            self._found.append(f"{self._file}:{row}: {why}")
        elif len(self._found) == REASONS_MAX:
            self._found.append(f"{self._file}: {_FULL}")

    def are_full(self) -> bool:
        return len(self._found) > REASONS_MAX

    def raise_any(self) -> None:
        if self._found:
            raise LoadRefusedError(self._found)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder on the same file system; what a killed load left behind is removed first."""
    for stale in target.glob("loading-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="loading-", dir=target) as name:
        yield Path(name)


class _Build:
    """One load on its way: read everything, then write everything."""

    def __init__(
        self, csv_file: Path, scratch: Path, families: Families, progress: Progress | None
    ) -> None:
        self._file = csv_file
        self._families = families
        self._sorter = Sorter(scratch, ROW_BYTES)
        self._reasons = _Reasons(csv_file)
        self.tell = progress or (lambda _what, _done, _total: None)

    def read(self) -> None:
        """Judge every row and sort the good ones.

        Raises:
            LoadRefusedError: some cannot be loaded.
        """
        with self._file.open("rb") as binary:
            size = os.fstat(binary.fileno()).st_size
            # What is no UTF-8 becomes a character that no column may contain.
            text = TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            reader = csv.reader(text, strict=True)
            try:
                for count, cells in enumerate(self._rows(reader)):
                    if not count % _PROGRESS_ROWS:
                        self.tell("read", binary.tell(), size)
                    try:
                        self._take(cells, reader.line_num)
                    except RowError as error:
                        self._reasons.add(reader.line_num, str(error))
                        if self._reasons.are_full():
                            break
            except csv.Error as error:
                self._reasons.add(reader.line_num, f"is not CSV: {error}")
        self.tell("read", size, size)
        self._reasons.raise_any()

    def _rows(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """Rows after the heading; rows that begin with ``#`` and empty ones are left out."""
        has_heading = False
        for cells in reader:
            if not cells or cells[0][:1] == "#":
                continue
            if has_heading:
                yield cells
            elif tuple(cells) == COLUMNS:
                has_heading = True
            else:
                break
        if not has_heading:
            self._reasons.add(1, f"the first row must be the heading: {','.join(COLUMNS)}")

    def _take(self, cells: list[str], row: int) -> None:
        record = encode(cells, row)
        self._sorter.add(record)
        if current := cells[2]:
            self._families.add(key_of(record), current, row)

    def write(
        self, building: Path, version: int, carry: Callable[[lmdb.Environment], None]
    ) -> Loaded:
        """Write the environment, in the order of its keys; its description comes last.

        ``carry`` is called to put into it what goes on from the version before.

        Raises:
            LoadRefusedError: rows contradict each other.
        """
        environment = lmdb.open(
            str(building),
            map_size=folder.MAP_BYTES,
            max_dbs=folder.DATABASES_MAX,
            sync=False,  # one flush at the end: a torn building folder is thrown away
            lib_version=0,  # the format of LMDB 0.9
        )
        try:
            numbers, lines = self._write_numbers(environment)
            self._check_targets(environment)
            self._reasons.raise_any()
            meta = folder.Meta(format=folder.FORMAT, version=version, numbers=numbers, lines=lines)
            carry(environment)
            folder.write_meta(environment, meta)
            environment.sync(True)
        finally:
            environment.close()
        return Loaded(version, numbers, lines)

    def _write_numbers(self, environment: lmdb.Environment) -> tuple[int, int]:
        """Write all numbers; return how many, and how many lines."""
        persons = environment.open_db(folder.PERSONS)
        numbers = lines = 0
        transaction = environment.begin(persons, write=True)
        for key, rows in groupby(self._sorter.sorted(), key_of):
            try:
                record = self._assemble(key, rows)
            except RowError as error:
                self._reasons.add(error.row, str(error))
                if self._reasons.are_full():
                    break
                continue
            transaction.put(key, pack(record), append=True)
            numbers += 1
            lines += len(record.lines)
            if not numbers % _COMMIT_NUMBERS:
                transaction.commit()
                transaction = environment.begin(persons, write=True)
                self.tell("write", numbers + lines, self._sorter.count)
        transaction.commit()
        self.tell("write", self._sorter.count, self._sorter.count)
        return numbers, lines

    def _assemble(self, key: bytes, rows: Iterable[bytes]) -> Record:
        """Put together what the rows of one number say.

        Raises:
            RowError: they contradict each other.
        """
        decoded = [decode(row) for row in rows]
        found = [row for row in decoded if isinstance(row, NumberRow)]
        lines = [row for row in decoded if isinstance(row, LineRow)]
        if not found:
            raise RowError("insz: the number has no number row", lines[0].row)
        number = found[0]
        if len(found) > 1:
            raise RowError(f"insz: row {number.row} is about the same number", found[1].row)
        if len(lines) > person_lines_max:
            why = f"insz: a number may have {person_lines_max} lines at most"
            raise RowError(why, lines[-1].row)
        for former, later in pairwise(lines):
            if _overlap(former.line, later.line):
                why = f"begin: the period overlaps that of row {former.row}"
                raise RowError(why, later.row)
        return Record(
            status=number.status,
            deceased=number.deceased,
            others=self._families.others(key, number.row),
            lines=tuple(row.line for row in lines),
        )

    def _check_targets(self, environment: lmdb.Environment) -> None:
        with environment.begin(environment.open_db(folder.PERSONS)) as transaction:
            for key, row in self._families.targets():
                if transaction.get(key) is None:
                    self._reasons.add(row, "current: has no sound number row of its own")


def _overlap(former: Line, later: Line) -> bool:
    """Say whether two neighbours in order are of one capacity of one role and share a day."""
    return later.begin <= former.end and (former.sector, former.type, former.capacity) == (
        later.sector,
        later.type,
        later.capacity,
    )
