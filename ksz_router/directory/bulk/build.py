"""One load on its way: read everything, then write everything."""

import csv
from pathlib import Path

import lmdb
import numpy as np

from ksz_router.directory import folder
from ksz_router.directory.bulk.assembly import assemble
from ksz_router.directory.bulk.glance import Glance, glance
from ksz_router.directory.bulk.records import (
    CODE_MASK,
    LINE_SHIFT,
    NUMBER_SHIFT,
    RECORD,
    ROWS_MAX,
    Records,
    record_of,
)
from ksz_router.directory.bulk.sorting import Sorter
from ksz_router.directory.bulk.text import Block, read
from ksz_router.directory.families import Families
from ksz_router.directory.packing import KEY_BYTES
from ksz_router.directory.refusals import Progress, Refusals
from ksz_router.directory.rows import COLUMNS, RowError, judge
from ksz_router.model import NumberStatus

_HEADING = f"the first row must be the heading: {','.join(COLUMNS)}"


class Build:
    """Builds an environment from a file, in a scratch folder."""

    def __init__(
        self, file: Path, scratch: Path, families: Families, refusals: Refusals, tell: Progress
    ) -> None:
        self._file = file
        self._families = families
        self._sorter = Sorter(scratch)
        self._refusals = refusals
        self._tell = tell
        self._has_heading = False

    def read(self) -> None:
        """Judge every row and sort the good ones.

        Raises:
            LoadRefusedError: some cannot be loaded.
        """
        total = 0
        try:
            for block in read(self._file):
                total = block.total
                self._tell("read", min(block.done, total - 1), total)
                self._take(block)
                if self._refusals.are_full():
                    break
        except RowError as error:
            self._refusals.add(error.row, str(error))
        if not self._has_heading:
            self._refusals.add(1, _HEADING)
        self._tell("read", total, total)
        self._refusals.raise_any()

    def _take(self, block: Block) -> None:
        text, row = block.text, block.first_row
        while text and not self._has_heading:
            line, _, text = text.partition(b"\n")
            row += 1
            if (cells := _cells(line)) is not None:
                if tuple(cells) != COLUMNS:
                    raise RowError(_HEADING, 1)
                self._has_heading = True
        if not text:
            return
        seen = glance(text, row)
        if row + len(seen.ends) > ROWS_MAX:
            raise RowError(f"a file may have {ROWS_MAX} rows at most", row)
        self._add(seen.records)
        self._add(self._judge(text, row, seen))

    def _judge(self, text: bytes, row: int, seen: Glance) -> Records:
        """Judge one by one what was left at a glance; return the records of what is good."""
        good = []
        for place in seen.left.tolist():
            begin = int(seen.ends[place - 1]) + 1 if place else 0
            try:
                cells = _cells(text[begin : int(seen.ends[place])])
                if cells is not None:
                    good.append(record_of(judge(cells), row + place))
            except RowError as error:
                self._refusals.add(row + place, str(error))
                if self._refusals.are_full():
                    break
        return np.array(good, RECORD)

    def _add(self, records: Records) -> None:
        self._sorter.add(records)
        is_number = records["role"] >> LINE_SHIFT & 1 == 0
        is_replaced = is_number & (records["role"] & CODE_MASK == NumberStatus.REPLACED)
        for replaced in records[is_replaced]:
            role, current, _, row, _ = replaced.tolist()
            self._families.add(_key(role >> NUMBER_SHIFT), _key(current), row)

    def write(self, environment: lmdb.Environment) -> tuple[int, int]:
        """Write all numbers, in order; return how many, and how many lines.

        Raises:
            LoadRefusedError: rows contradict each other.
        """
        persons = environment.open_db(folder.PERSONS)
        numbers = lines = 0
        try:
            for found in self._sorter.ranges():
                made = assemble(found, self._families, self._refusals.add)
                if self._refusals.are_full():
                    break
                with environment.begin(persons, write=True) as transaction:
                    cursor = transaction.cursor()
                    cursor.putmulti(made.items, dupdata=False, append=True)
                numbers += made.numbers
                lines += made.lines
                self._tell("write", numbers + lines, self._sorter.count)
        except RowError as error:
            self._refusals.add(error.row, str(error))
        self._tell("write", self._sorter.count, self._sorter.count)
        self._refusals.raise_any()
        return numbers, lines


def _cells(line: bytes) -> list[str] | None:
    """Return the cells of one line; None where it is empty or a remark.

    Raises:
        RowError: it is not CSV.
    """
    # What is no UTF-8 becomes a character that no column may contain.
    text = line.decode("utf-8", errors="replace")
    try:
        cells = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise RowError(f"is not CSV: {error}") from error
    return cells if cells and cells[0][:1] != "#" else None


def _key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")
