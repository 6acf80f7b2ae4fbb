"""Sort more records than memory holds: sorted runs on disk, given back in ranges of numbers."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ksz_router.directory.bulk.records import (
    NUMBERS_END,
    RECORD,
    Integers,
    Records,
    numbers_of,
    row_of,
)
from ksz_router.directory.rows import RowError
from ksz_router.limits import person_lines_max

RUN_ROWS = 1 << 20
"""Rows in memory at once, 26 MB: some 270 runs of 275 million rows."""

RANGE_ROWS = 1 << 18
"""About so many are given back at once: fewer, since they are packed beside."""

SAMPLE_ROWS = 128
"""Of every so many rows of a run one number stays in memory, to cut the ranges by."""


class Range(NamedTuple):
    """All rows of the numbers from ``begin`` up to, not including, ``end``; in order."""

    begin: int
    end: int
    records: Records


class Sorter:
    """Takes records in any order and gives them back in that of their numbers, then of ``order``.

    What comes in order already stays one run, so that ranges of a sorted input lie together.
    """

    def __init__(
        self,
        scratch: Path,
        run_rows: int = RUN_ROWS,
        range_rows: int = RANGE_ROWS,
        sample_rows: int = SAMPLE_ROWS,
    ) -> None:
        self._scratch = scratch
        self._run_rows = run_rows
        self._range_rows = range_rows
        self._sample_rows = sample_rows
        self._waiting: list[Records] = []
        self._waiting_count = 0
        self._runs: list[_Run] = []
        self.count = 0

    def add(self, records: Records) -> None:
        """Take some records."""
        self._waiting.append(records)
        self._waiting_count += len(records)
        self.count += len(records)
        if self._waiting_count >= self._run_rows:
            self._write_run()

    def ranges(self) -> Iterator[Range]:
        """Give all records back; no more may be added. The ranges hold every possible number.

        Raises:
            RowError: there are too many rows of one number.
        """
        self._write_run()
        if not self._runs:
            return
        samples = np.sort(np.concatenate([run.samples() for run in self._runs]))
        step = max(1, self._range_rows // self._sample_rows)
        begins = [0, *map(int, np.unique(samples[step::step])), NUMBERS_END]
        # Where a number has no more rows than it may have, no range between two has more.
        rows_max = 2 * self._sample_rows * (step + len(self._runs)) + person_lines_max
        for begin, end in pairwise(begins):
            if sum(run.reach(end) for run in self._runs) > rows_max:
                raise self._too_many(begin, rows_max)
            pieces = [run.take(end) for run in self._runs]
            yield Range(begin, end, _sorted(np.concatenate(pieces)))

    def _write_run(self) -> None:
        if not self._waiting_count:
            return
        records = np.concatenate(self._waiting)
        self._waiting, self._waiting_count = [], 0
        numbers = numbers_of(records)
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers)
            records, numbers = records[order], numbers[order]
        if not self._runs or int(numbers[0]) < self._runs[-1].last:
            self._runs.append(_Run(self._scratch / f"run-{len(self._runs)}", self._sample_rows))
        self._runs[-1].add(records, numbers)

    def _too_many(self, number: int, rows_max: int) -> RowError:
        found = 0
        for run in self._runs:
            for record in run.take(number + 1, rows_max):
                found += 1
                if found > person_lines_max + 1:
                    why = f"insz: a number may have {person_lines_max} lines at most"
                    return RowError(why, row_of(record)[1])
        raise AssertionError("a range is too long, and no number is the cause")


class _Run:
    """One file of records in the order of their numbers, read from its start to its end."""

    def __init__(self, file: Path, sample_rows: int) -> None:
        self._file = file
        self._sample_rows = sample_rows
        self._samples: list[Integers] = []
        self._all_samples: Integers | None = None
        self._count = self._done = 0
        self.last = 0

    def add(self, records: Records, numbers: Integers) -> None:
        """Append records whose numbers come after all that are there."""
        self._samples.append(numbers[-self._count % self._sample_rows :: self._sample_rows].copy())
        self._count += len(records)
        self.last = int(numbers[-1])
        with self._file.open("ab") as file:
            records.tofile(file)

    def samples(self) -> Integers:
        """The numbers of the rows 0, ``sample_rows``, twice that, and so on."""
        if self._all_samples is None:
            self._all_samples = np.concatenate(self._samples)
        return self._all_samples

    def reach(self, end: int) -> int:
        """Return how many rows not yet taken may be of numbers before ``end``."""
        return self._row_after(end) - self._done

    def take(self, end: int, rows_max: int = 1 << 40) -> Records:
        """Return the rows not yet taken, of numbers before ``end``, but not more than so many."""
        records = np.fromfile(
            self._file,
            RECORD,
            count=min(rows_max, self.reach(end)),
            offset=self._done * RECORD.itemsize,
        )
        count = int(np.searchsorted(numbers_of(records), np.uint64(end)))
        self._done += count
        return records[:count]

    def _row_after(self, end: int) -> int:
        """Return a row before which all rows of numbers before ``end`` stand."""
        sample = int(np.searchsorted(self.samples(), np.uint64(end)))
        return min(self._count, sample * self._sample_rows)


def _sorted(records: Records) -> Records:
    return records[np.lexsort((records["period"], records["role"]))]
