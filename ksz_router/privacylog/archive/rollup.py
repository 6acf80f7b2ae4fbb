"""How many exchanges there were, by month, institutions, service and verdict. Pure."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.days import brussels_day, brussels_midnight_ns
from ksz_router.privacylog.archive.coded import plain
from ksz_router.privacylog.archive.exchange_lines import NONE, Lines
from ksz_router.privacylog.archive.ordering import Numbers, whole
from ksz_router.privacylog.archive.schema import ROLLUP, SORTED_BY
from ksz_router.privacylog.entry import Kind

_BY = list(SORTED_BY["r"])
_SUMS = ROLLUP.names[-5:]
_SECOND_US = 1_000_000


def rollup_of(entries: pa.Table, lines: Lines, rows: pa.Table, place: tuple[str, str]) -> pa.Table:
    """Return the counts of the exchanges among lines: of those that have their REQUEST.

    Args:
        entries: Columns of ``TRUTH``, of which ``router_us`` and ``source_us`` are read.
        lines: Of these.
        rows: The columns of ``PERSON`` behind the first four, a row a line; names as
            dictionaries.
        place: Quarter and node.
    """
    counted = np.flatnonzero(whole(rows["kind"]).to_numpy() == Kind.REQUEST)
    chosen = plain(rows.select([name for name in _BY if name in rows.column_names]))
    columns = dict(zip(chosen.column_names, chosen.take(pa.array(counted)).columns, strict=True))
    at_us = whole(rows["at_us"]).to_numpy()[counted]
    columns["month"] = pa.array(_months(at_us), pa.int32())
    destinations = whole(rows["destinations"].take(pa.array(counted)))
    columns["destination"] = _heads(destinations)
    violations = whole(rows["violations"].take(pa.array(counted)))
    columns["violation"] = pc.greater(violations.value_lengths(), 0)
    outcome = lines.outcome[counted]
    for name in ("router_us", "source_us"):
        spent = whole(entries[name]).to_numpy()[outcome]
        columns[name] = pa.array(np.where(outcome == NONE, 0, spent))
    router_us = columns["router_us"].to_numpy()
    columns["exchanges"] = pa.array(np.ones(len(counted), np.int64))
    for seconds in (1, 2):
        over = router_us > seconds * _SECOND_US
        columns[f"over_{seconds}s"] = pa.array(over.astype(np.int64))
    q, node = place
    columns |= {"q": pa.repeat(pa.scalar(q), len(counted))}
    columns |= {"b": pa.repeat(pa.scalar(0, pa.int16()), len(counted))}
    columns |= {"node": pa.repeat(pa.scalar(node), len(counted))}
    table = pa.Table.from_arrays([columns[name] for name in ROLLUP.names], schema=ROLLUP)
    return summed(table)


def summed(table: pa.Table) -> pa.Table:
    """Return one row for each combination, in order; counts and times are added up.

    Args:
        table: Of schema ``ROLLUP``, rows of one quarter.
    """
    by = ["q", "b", "node", *_BY]
    sums = table.group_by(by, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    sums = sums.rename_columns([*by, *_SUMS]).select(ROLLUP.names).cast(ROLLUP)
    keys = [(name, "ascending", "at_start") for name in _BY]
    return sums.take(pc.sort_indices(sums, sort_keys=keys))


def _heads(lists: pa.ListArray) -> pa.Array:
    """Return the first of each list, null where it is empty."""
    lengths = lists.value_lengths().to_numpy()
    starts = np.cumsum(lengths) - lengths
    return lists.flatten().take(pa.array(starts, mask=lengths == 0))


def _months(at_us: Numbers) -> Numbers:
    """Return the month in Brussels of each moment, as ``yyyymm``."""
    if not len(at_us):
        return np.zeros(0, np.int32)
    month = brussels_day(int(at_us.min()) * 1000) // 100
    last = brussels_day(int(at_us.max()) * 1000) // 100
    months, ends_us = [month], []
    while month < last:
        month = month + 1 if month % 100 < 12 else month + 89
        months.append(month)
        ends_us.append(brussels_midnight_ns(month * 100 + 1) // 1000)
    return np.array(months, np.int32)[np.searchsorted(np.array(ends_us, np.int64), at_us, "right")]
