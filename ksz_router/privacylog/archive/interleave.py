"""The rows of sorted runs in the order of all, some ten thousand at a time.

Of each run a few rows are held. As far as they reach in all runs they are put in order and given
away, and more are taken: so what is under way does not grow with the runs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa

from ksz_router.privacylog.archive.coded import joined
from ksz_router.privacylog.archive.ordering import Numbers, halves, order, ranked, use_order, whole
from ksz_router.privacylog.archive.rollup import summed
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY

ROWS_AT_ONCE: Final = 65_536
"""Held of all runs together: about, and at most twice as many. A quarter as many take 60 MiB less
and a third more time."""
_ROWS_OF_RUN_MIN: Final = 256

Key: TypeAlias = tuple[tuple[bool, Any], ...]
"""What a row is sorted by; null before all else."""


class Keys(Sequence[Key]):
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


def rows_of_run(runs: int) -> int:
    """Return how many rows of each of so many runs to hold."""
    return max(ROWS_AT_ONCE // runs, _ROWS_OF_RUN_MIN)


def interleaved(kind: str, runs: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Yield the rows of all runs in their order; of rollups, equal combinations become one.

    Args:
        kind: Of file.
        runs: Each the tables of one run, one behind the other, sorted as a whole and not empty.
    """
    going = [_Run(kind, tables, rows_of_run(len(runs))) for tables in runs]
    while True:
        for run in going:
            run.fill()
        going = [run for run in going if len(run.rows)]
        if not going:
            return
        ends = [Keys(kind, run.rows)[len(run.rows) - 1] for run in going if not run.is_over]
        end = min(ends, default=None)
        yield _in_order(kind, [run.take(end) for run in going])


def grouped(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Yield the rows of tables ``size`` at a time; the last ones may be fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        rest = table
        while count + len(rest) >= size:
            yield _whole([*waiting, rest.slice(0, size - count)])
            waiting, rest, count = [], rest.slice(size - count), 0
        if len(rest):
            waiting.append(rest)
            count += len(rest)
    if waiting:
        yield _whole(waiting)


def _whole(tables: Sequence[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else joined(tables)


class _Run:
    """The rows of a run that come next."""

    def __init__(self, kind: str, tables: Iterator[pa.Table], count: int) -> None:
        self._kind, self._tables, self._count = kind, tables, count
        self.rows: pa.Table = SCHEMAS[kind].empty_table()
        self.is_over = False

    def fill(self) -> None:
        """Take rows until there are enough."""
        while len(self.rows) < self._count and not self.is_over:
            table = next(self._tables, None)
            if table is None:
                self.is_over = True
            else:
                self.rows = pa.concat_tables([self.rows, table]) if len(self.rows) else table

    def take(self, end: Key | None) -> pa.Table:
        """Return the rows up to a key and with it, all where it is None; they are gone then."""
        count = len(self.rows)
        if end is not None:
            count = bisect_right(Keys(self._kind, self.rows), end)
        taken, self.rows = self.rows.slice(0, count), self.rows.slice(count)
        return taken


def _in_order(kind: str, tables: Sequence[pa.Table]) -> pa.Table:
    if kind == "r":
        return summed(pa.concat_tables(tables).cast(SCHEMAS["r"]))
    table = pa.concat_tables(tables).unify_dictionaries()
    return table.take(pa.array(order(_numbers(kind, table))))


def _numbers(kind: str, table: pa.Table) -> list[Numbers]:
    """Return what rows are sorted by as numbers, what decides most first."""
    if kind == "k":
        return [*halves(whole(table["key"])), whole(table["seq"]).to_numpy()]
    times = [whole(table[name]).to_numpy() for name in ("at_us", "seq")]
    if kind == "p":
        return [*halves(whole(table["person"])), *times]
    institutions = whole(table["institution"])
    if not pa.types.is_dictionary(institutions.type):
        institutions = institutions.dictionary_encode()
    ranks, names = ranked(institutions)
    return [*use_order(ranks, len(names), *halves(whole(table["member"]))), *times]
