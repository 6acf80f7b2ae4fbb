"""In which order rows stand, exactly and fast. Pure.

Tokens and exchange ids are compared as bytes without a sign, as Parquet's statistics do: here as
two whole numbers of eight bytes. Most of an order is decided by the first of them; only where that
is equal are the others looked at.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

Numbers: TypeAlias = np.ndarray
"""Of one dimension."""


def halves(tokens: pa.Array) -> tuple[Numbers, Numbers]:
    """Return the first and the last eight bytes of 16-byte values as ``uint64``; 0 where null."""
    data = tokens.buffers()[1]
    if data is None or not len(tokens):
        nothing = np.zeros(len(tokens), np.uint64)
        return nothing, nothing.copy()
    cells = np.frombuffer(data, ">u8", 2 * len(tokens), 16 * tokens.offset).reshape(-1, 2)
    first, last = cells[:, 0].astype(np.uint64), cells[:, 1].astype(np.uint64)
    if tokens.null_count:
        missing = is_null(tokens)
        first[missing] = last[missing] = 0
    return first, last


def tokens_of(first: Numbers, last: Numbers, valid: Numbers | None = None) -> pa.Array:
    """Return 16-byte values of their halves; null where not valid."""
    cells = np.empty((len(first), 2), ">u8")
    cells[:, 0], cells[:, 1] = first, last
    bits = None
    if valid is not None and not valid.all():
        bits = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    data = pa.py_buffer(cells)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(first), [bits, data])


def is_null(column: pa.Array) -> Numbers:
    """Return where a column is null."""
    missing: Numbers = column.is_null().to_numpy(zero_copy_only=False)
    return missing


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def ranked(coded: pa.DictionaryArray) -> tuple[Numbers, pa.Array]:
    """Return of each text its place among all, -1 where null; and all, in the order of bytes."""
    values = coded.dictionary.to_pylist()
    rows = sorted(range(len(values)), key=lambda at: values[at].encode())
    rank = np.empty(len(values) + 1, np.int64)
    rank[rows], rank[len(values)] = np.arange(len(values)), -1
    places: Numbers = rank[coded.indices.fill_null(len(values)).to_numpy()]
    return places, coded.dictionary.take(pa.array(rows, pa.int64()))


def use_order(ranks: Numbers, names: int, first: Numbers, last: Numbers) -> list[Numbers]:
    """Return what orders rows by institution and member, the rest of the order left out.

    Args:
        ranks: Of the institution, from 0.
        names: How many institutions there are.
        first: Half of the member, 0 where null.
        last: The other half.
    """
    # The institution and the first bits of its member in one number, for they decide most.
    bits = max(1, names.bit_length())
    leading = ranks.astype(np.uint64) << np.uint64(64 - bits)
    return [leading | (first >> np.uint64(bits)), first, last]


def order(keys: Sequence[Numbers]) -> Numbers:
    """Return the rows in the order of ``keys``, the one that decides most first.

    Fast where rows come in sorted stretches, and where few rows are equal in the first key or
    those that are stand nearly in the right order already.
    """
    rows = np.argsort(keys[0], kind="stable")  # finds and merges sorted stretches
    cells = keys[0][rows]
    begins = cells[1:] != cells[:-1]
    for key in keys[1:]:
        if begins.all():
            break
        cells = key[rows]
        falls = np.flatnonzero((cells[1:] < cells[:-1]) & ~begins)
        if len(falls):
            group = np.concatenate([[0], np.cumsum(begins)])
            faulty = np.zeros(group[-1] + 1, bool)
            faulty[group[falls]] = True
            places = np.flatnonzero(faulty[group])
            among = _within(group[places], cells[places])
            rows[places], cells[places] = rows[places[among]], cells[places[among]]
        begins |= cells[1:] != cells[:-1]
    return rows


def _within(group: Numbers, cells: Numbers) -> Numbers:
    """Return the rows in the order of ``cells`` within each group; the groups stand in order."""
    least = cells.min()
    bits = (int(cells.max()) - int(least)).bit_length()
    if int(group[-1]).bit_length() + bits >= 64:
        return np.lexsort((cells, group))
    # As one number: what stands nearly in order is then found to be, and is sorted at once.
    return np.argsort((group << bits) | (cells - least).astype(np.int64), kind="stable")
