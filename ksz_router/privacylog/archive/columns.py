"""From canonical records to the columns of a ``t`` file, by the thousand.

The way back is in :mod:`canon`, and shares nothing with this one but the schema: what the sealer
writes is read again by it and compared with the tree before anything is recorded as sealed.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import msgspec
import numpy as np
import pyarrow as pa

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.entry import VERSION, Entry

_FIELDS = Entry.__struct_fields__
_WIDTH = len(_FIELDS)
_ENTRY = pa.schema(list(TRUTH)[TRUTH.get_field_index("version") :])
"""The columns that are fields of an entry; those before them say where it is."""
_LINE = [field.name for field in TRUTH if field.name.startswith("line_")]
_SLICE = 512
"""Records decoded at once: what they are made of stays in the cache until it is in columns."""

_decode = msgspec.msgpack.Decoder(list).decode


class EntryNotSealable(PrivacyLogError):
    """An entry does not fit into the columns: it is of another version, or damaged."""


def to_table(
    records: Sequence[bytes],
    *,
    first_seq: int,
    q: str,
    node: str,
    slots: Sequence[str] | pa.Array,
    record_numbers: Sequence[int] | np.ndarray,
) -> pa.Table:
    """Return entries as rows, in the order given.

    Args:
        records: Canonical form of consecutive leaves.
        first_seq: Index of the leaf of the first one.
        q: Quarter of the keys they are under, such as ``2026Q4``.
        node: Name of the router.
        slots: Of each record, the slot that it was written in.
        record_numbers: And its number there.

    Returns:
        A table of schema ``TRUTH`` with as many rows.

    Raises:
        EntryNotSealable: one is no entry of this version. That the bytes are in their canonical
            form is not looked at here: who seals compares what the columns give back.
    """
    with _uncollected():
        begins = range(0, len(records), _SLICE)
        batches = [_batch(records[begin : begin + _SLICE]) for begin in begins]
    table = pa.Table.from_batches(batches, _ENTRY).combine_chunks()
    count = len(records)
    place = {
        "q": pa.repeat(pa.scalar(q), count),
        "b": pa.repeat(pa.scalar(0, pa.int16()), count),
        "node": pa.repeat(pa.scalar(node), count),
        "seq": pa.array(np.arange(first_seq, first_seq + count, dtype=np.int64)),
        "slot": slots if isinstance(slots, pa.Array) else pa.array(slots, pa.string()),
        "record": pa.array(record_numbers, pa.int64()),
    }
    return pa.Table.from_arrays([*place.values(), *table.columns], schema=TRUTH)


def _batch(records: Sequence[bytes]) -> pa.RecordBatch:
    try:
        rows = list(map(_decode, records))
        if set(map(len, rows)) != {_WIDTH}:
            raise EntryNotSealable(f"an entry has another number of fields than {_WIDTH}")
        fields = dict(zip(_FIELDS, zip(*rows, strict=True), strict=True))
        if set(fields["version"]) != {VERSION}:
            raise EntryNotSealable(f"an entry is of another version than {VERSION}")
        columns: list[pa.Array] = []
        for name, column in fields.items():
            if name == "line":
                columns += _lines(column)
            elif name == "counts":
                columns.append(_counts(column))
            else:
                columns.append(pa.array(column, TRUTH.field(name).type))
    # No text of a decoder: it may repeat what it read.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EntryNotSealable("a record is not an entry") from None
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise EntryNotSealable("an entry does not fit into the columns") from None
    return pa.RecordBatch.from_arrays(columns, schema=_ENTRY)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave the collector of cycles off: lists by the million, and no cycle, cost it most."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _lines(lines: Sequence[list[int] | None]) -> list[pa.Array]:
    """Return the seven columns of the deciding lines."""
    width = len(_LINE)
    if not any(lines):
        return [pa.nulls(len(lines), pa.int32())] * width
    nothing = (None,) * width
    cells = [nothing if line is None else line for line in lines]
    if set(map(len, cells)) != {width}:
        raise EntryNotSealable(f"a deciding line has another number of fields than {width}")
    return [pa.array(column, pa.int32()) for column in zip(*cells, strict=True)]


def _counts(counts: Sequence[list[list[int]]]) -> pa.Array:
    """Return the column of the counts; all but those of SUMMARY entries are empty."""
    kind = TRUTH.field("counts").type
    if not any(counts):
        return pa.repeat(pa.scalar([], kind), len(counts))
    pairs = list(chain.from_iterable(counts))
    if set(map(len, pairs)) - {2}:
        raise EntryNotSealable("a count is not of a code and a number")
    codes, numbers = ([pair[at] for pair in pairs] for at in range(2))
    struct = pa.StructArray.from_arrays(
        [pa.array(codes, pa.int32()), pa.array(numbers, pa.int64())], fields=list(kind.value_type)
    )
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum([*map(len, counts)], out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=kind)
