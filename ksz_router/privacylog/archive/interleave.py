"""The rows of sorted tables in the order of all: found from the keys, then made group by group.

A group is cut out of the tables, put in order and given away before the next is made: what is under
way is small enough for the cache, and no second copy of all rows is ever held.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ksz_router.privacylog.archive.ordering import Numbers, halves, order, ranked, use_order, whole
from ksz_router.privacylog.archive.rollup import summed
from ksz_router.privacylog.archive.schema import SCHEMAS


class Interleaved:
    """Rows of one kind of derived file, in its order.

    Args:
        kind: Of file.
        tables: Of that kind, each sorted; not empty. Of rollups, equal combinations become one.
    """

    def __init__(self, kind: str, tables: Sequence[pa.Table]) -> None:
        table = pa.concat_tables(tables)
        if kind == "r":
            self.table = summed(table.cast(SCHEMAS["r"]))
            self._rows: Numbers = np.arange(len(self.table))
        else:
            self.table = table.unify_dictionaries()
            self._rows = order(_numbers(kind, self.table))
        # The table has the rows as they came.

    def __len__(self) -> int:
        return len(self._rows)

    def ends(self, name: str) -> tuple[object, object]:
        """Return what the first row and the last have in a column."""
        column = self.table[name]
        return column[self._rows[0]].as_py(), column[self._rows[-1]].as_py()

    def groups(self, size: int) -> Iterator[pa.Table]:
        """Yield the rows in their order, ``size`` at a time."""
        for begin in range(0, len(self._rows), size):
            rows = self._rows[begin : begin + size]
            rising = np.argsort(rows, kind="stable")
            place = np.empty(len(rows), np.int64)
            place[rising] = np.arange(len(rows))
            yield self._cut(rows[rising]).take(pa.array(place))

    def _cut(self, rows: Numbers) -> pa.Table:
        """Return rows in the order of the tables: a stretch of each, for each is sorted."""
        ends = np.flatnonzero(np.diff(rows, append=rows[-1] + 2) != 1) + 1
        begins = np.concatenate([[0], ends[:-1]])
        stretches = [
            self.table.slice(rows[begin], end - begin)
            for begin, end in zip(begins, ends, strict=True)
        ]
        return pa.concat_tables(stretches).combine_chunks()


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
