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
    those that are stand in the right order already.
    """
    leading, others = keys[0], list(keys[1:])
    rows = np.argsort(leading, kind="stable")  # finds and merges sorted stretches
    if not others or len(rows) < 2:
        return rows
    sorted_leading = leading[rows]
    tied = sorted_leading[1:] == sorted_leading[:-1]
    wrong = np.flatnonzero(tied)
    if not len(wrong):
        return rows
    wrong = wrong[
        _falls([key[rows[wrong]] for key in others], [key[rows[wrong + 1]] for key in others])
    ]
    if not len(wrong):
        return rows
    group = np.concatenate([[0], np.cumsum(~tied)])
    faulty = np.zeros(group[-1] + 1, bool)
    faulty[group[wrong]] = True
    places = np.flatnonzero(faulty[group])
    among = rows[places]
    rows[places] = among[np.lexsort([key[among] for key in (*others[::-1], leading)])]
    return rows


def _falls(before: Sequence[Numbers], after: Sequence[Numbers]) -> Numbers:
    """Say of each pair of rows whether the first is greater than the second."""
    equal = np.ones(len(before[0]), bool)
    falls = np.zeros(len(before[0]), bool)
    for one, next_one in zip(before, after, strict=True):
        falls |= equal & (one > next_one)
        equal &= one == next_one
    return falls
