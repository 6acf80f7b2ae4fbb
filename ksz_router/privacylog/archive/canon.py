"""From the columns of a ``t`` file back to the canonical bytes of its entries.

Verifiers stand on this: of the forward way (:mod:`columns`, :mod:`ksz_router.privacylog.entry`) it
shares nothing but the schema. It says by itself how MessagePack is written: every value in its
shortest form, and a record is an array of its fields.

All of it is done by column. What repeats (names, codes, days) is encoded once for each value and
taken by index; what does not (times, tokens) is encoded by arithmetic over the whole column; then
one call joins the columns, row by row.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.schema import TRUTH

ROWS_AT_ONCE: Final = 65_536
"""Bounds the memory: with entries of at most 4096 bytes, what is joined stays below 2**31."""

_NIL = b"\xc0"
_ENTRY_FIELDS = 44
_HEAD = b"\xdc" + _ENTRY_FIELDS.to_bytes(2, "big")
_LINE_HEAD = b"\x97"
_PAIR_HEAD = b"\x92"

Pieces: TypeAlias = list[bytes | pa.Array]
"""What stands one after the other in every row: the same bytes in all of them, or a column."""

_encode = msgspec.msgpack.Encoder().encode


class ColumnsRefused(PrivacyLogError):
    """A table is not what a ``t`` file holds."""


def to_records(table: pa.Table) -> list[bytes]:
    """Return the canonical bytes of each row, in the order of the rows.

    Raises:
        ColumnsRefused: the table has other columns, or a list is null.
    """
    records: list[bytes] = []
    for joined in joined_records(table):
        data = joined.buffers()[2]
        content = b"" if data is None else data.to_pybytes()
        ends = np.frombuffer(joined.buffers()[1], np.int32, len(joined) + 1).tolist()
        records += [content[begin:end] for begin, end in pairwise(ends)]
    return records


def joined_records(table: pa.Table) -> Iterator[pa.BinaryArray]:
    """Yield the canonical bytes as arrays of at most ``ROWS_AT_ONCE`` rows.

    Raises:
        ColumnsRefused: as :func:`to_records`.
    """
    if table.schema.names != TRUTH.names:
        raise ColumnsRefused("the columns of a table are not those of sealed entries")
    for begin in range(0, len(table), ROWS_AT_ONCE):
        rows = table.slice(begin, ROWS_AT_ONCE).combine_chunks()
        yield _join(rows)


def _join(rows: pa.Table) -> pa.BinaryArray:
    pieces: Pieces = [_HEAD]
    for name, encode in _ENCODED_BY.items():
        pieces += encode(_column(rows, name))
    merged: Pieces = []
    for piece in pieces:
        if merged and isinstance(piece, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += piece
        else:
            merged.append(piece)
    columns = [
        pa.scalar(piece, pa.binary()) if isinstance(piece, bytes) else piece for piece in merged
    ]
    if len(columns) == 1:
        return pa.repeat(columns[0], len(rows))
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", pa.binary()))


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _low(column: pa.Array) -> Pieces:
    """Encode names and small numbers: each value that occurs once, then by index."""
    return _by_value(column, _encode)


def _rest_of_line(column: pa.Array) -> Pieces:
    """Encode a further field of the deciding line: nothing where there is no line."""
    return _by_value(column, lambda value: b"" if value is None else _encode(value))


def _first_of_line(column: pa.Array) -> Pieces:
    return _by_value(column, lambda value: _NIL if value is None else _LINE_HEAD + _encode(value))


def _by_value(column: pa.Array, encode: Callable[[object], bytes]) -> Pieces:
    if column.null_count == len(column):
        return [encode(None)]
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = coded.dictionary.to_pylist()
    if len(values) == 1 and not column.null_count:
        return [encode(values[0])]
    indices = coded.indices
    if indices.null_count:
        indices = indices.fill_null(len(values))
        values.append(None)
    return [pa.array(map(encode, values), pa.binary()).take(indices)]


def _token(column: pa.Array) -> Pieces:
    """Encode digests and tokens: two bytes of type and length, then the bytes; or nil."""
    if column.null_count == len(column):
        return [_NIL]
    head = b"\xc4" + bytes([column.type.byte_width])
    values = column.cast(pa.binary())
    if not column.null_count:
        return [head, values]
    heads = pc.if_else(
        column.is_valid(), pa.scalar(head, pa.binary()), pa.scalar(_NIL, pa.binary())
    )
    return [heads, values.fill_null(b"")]


# The forms of an integer: where it begins, its first byte and how many bytes follow.
_UNSIGNED = [(1 << 7, 0xCC, 1), (1 << 8, 0xCD, 2), (1 << 16, 0xCE, 4), (1 << 32, 0xCF, 8)]
_SIGNED = [(-32, 0xD0, 1), (-(1 << 7), 0xD1, 2), (-(1 << 15), 0xD2, 4), (-(1 << 31), 0xD3, 8)]


def _number(column: pa.Array) -> Pieces:
    """Encode integers that hardly repeat: by arithmetic, in the shortest of their forms."""
    if column.null_count:
        return _low(column)
    values = column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    least, most = int(values.min()), int(values.max())
    if least == most:
        return [_encode(least)]
    # By first byte: the number itself up to seven bits, else the form that is long enough.
    first = values.astype(np.uint8)
    following = np.zeros(len(values), np.int8)
    for begin, form, size in _UNSIGNED if most >= 0 else ():
        if most >= begin:
            first[values >= begin], following[values >= begin] = form, size
    for end, form, size in _SIGNED if least < 0 else ():
        if least < end:
            first[values < end], following[values < end] = form, size
    width = int(following.max())
    cells = np.empty((len(values), 1 + width), np.uint8)
    cells[:, 0] = first
    if width:
        cells[:, 1:] = values.astype(">i8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(following, out=offsets[1:])
    offsets += np.arange(len(offsets), dtype=np.int32)
    if int(following.min()) < width:
        # The value stands at the end of its cells: what is between is left out.
        kept = np.arange(width)[None, :] >= (width - following)[:, None]
        cells = cells[np.concatenate([np.ones((len(values), 1), bool), kept], axis=1)]
    data = pa.py_buffer(np.ascontiguousarray(cells))
    return [
        pa.BinaryArray.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), data])
    ]


def _texts(column: pa.ListArray) -> Pieces:
    """Encode lists of names: the number of them, then each."""
    return _list(column, _low)


def _pairs(column: pa.ListArray) -> Pieces:
    """Encode lists of two numbers."""
    return _list(column, lambda pairs: [_PAIR_HEAD, *_low(pairs.field(0)), *_low(pairs.field(1))])


def _list(column: pa.ListArray, encode: Callable[[pa.Array], Pieces]) -> Pieces:
    if column.null_count:
        raise ColumnsRefused("a list of a sealed entry is null")
    lengths = column.value_lengths()
    heads = _by_value(lengths, _array_head)
    items = column.flatten()
    if not len(items):
        return heads
    pieces = encode(items)
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(lengths.to_numpy(), out=offsets[1:])
    whole = [
        pa.repeat(pa.scalar(piece, pa.binary()), len(items)) if isinstance(piece, bytes) else piece
        for piece in pieces
    ]
    nothing = pa.scalar(b"", pa.binary())
    encoded = pc.binary_join_element_wise(*whole, nothing) if len(whole) > 1 else whole[0]
    lists = pa.ListArray.from_arrays(pa.array(offsets), encoded)
    return [*heads, pc.binary_join(lists, nothing)]


def _array_head(length: object) -> bytes:
    assert isinstance(length, int)
    if length < 16:
        return bytes([0x90 | length])
    return b"\xdc" + length.to_bytes(2, "big")


_ENCODED_BY: Final[dict[str, Callable[[pa.Array], Pieces]]] = {
    **dict.fromkeys(TRUTH.names[TRUTH.names.index("version") :], _low),
    **dict.fromkeys(
        ("exchange", "user", "ticket", "person", "asked", "digest", "first", "content"), _token
    ),
    **dict.fromkeys(("at_us", "request_bytes", "answer_bytes", "router_us", "source_us"), _number),
    **dict.fromkeys(("destinations", "violations"), _texts),
    "counts": _pairs,
    **dict.fromkeys([name for name in TRUTH.names if name.startswith("line_")], _rest_of_line),
    "line_sector": _first_of_line,
}
"""How each column becomes bytes, in the order of the fields of an entry."""
