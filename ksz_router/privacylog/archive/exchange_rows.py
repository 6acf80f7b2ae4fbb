"""From sealed entries to the rows that questions are put to: by person, by use, keys, rollup.

What is derived is a function of the entries in the order of their leaves, and can be made anew.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.exchange_lines import NONE, Lines, lines_of
from ksz_router.privacylog.archive.institutions import uses_of
from ksz_router.privacylog.archive.manifest import Carried
from ksz_router.privacylog.archive.ordering import (
    Numbers,
    halves,
    is_null,
    order,
    tokens_of,
    use_order,
    whole,
)
from ksz_router.privacylog.archive.rollup import rollup_of
from ksz_router.privacylog.archive.schema import KEY, PERSON, TRUTH, USE
from ksz_router.privacylog.entry import Kind


class Derived(msgspec.Struct, frozen=True):
    """What one step of the sealer adds. Tables have the schema and the order of their kind."""

    p: pa.Table
    u: pa.Table
    k: pa.Table
    r: pa.Table
    carry: list[Carried]
    """Entries of exchanges that are not over: to be given to the next step."""


def derive(truth: pa.Table, carried: Sequence[Carried]) -> Derived:
    """Return the rows of a segment.

    Args:
        truth: At least one row of schema ``TRUTH``, in the order of leaves.
        carried: What the step before left over.

    The rows of exchanges that end in the segment lie in its quarter, those of carried ones too.
    """
    assert len(truth), "a segment holds entries"
    place = tuple(truth[name][0].as_py() for name in ("q", "node"))
    entries = _with_carried(truth, carried, *place)
    lines = lines_of(entries)
    rows = _rows(entries, lines)
    opened = lines.open
    fresh = opened[opened >= len(carried)] - len(carried)
    kept = [carried[row] for row in opened[opened < len(carried)].tolist()]
    return Derived(
        p=_placed(PERSON, place, _by_person(entries, lines, rows)),
        u=_placed(USE, place, _by_use(entries, lines, rows)),
        k=_placed(KEY, place, _keys(truth)),
        r=rollup_of(entries, lines, rows, place),
        carry=kept + _carry(truth, fresh),
    )


def _with_carried(truth: pa.Table, carried: Sequence[Carried], q: str, node: str) -> pa.Table:
    """Return the entries that were carried over and those of the segment behind them."""
    if carried:
        table = to_table(
            [one.record for one in carried],
            first_seq=0,
            q=q,
            node=node,
            slots=[one.slot for one in carried],
            record_numbers=[one.number for one in carried],
        )
        seqs = pa.array([one.seq for one in carried], pa.int64())
        table = table.set_column(TRUTH.get_field_index("seq"), TRUTH.field("seq"), seqs)
        truth = pa.concat_tables([table, truth])
    return truth.select(_READ).combine_chunks()


def _carry(truth: pa.Table, rows: Numbers) -> list[Carried]:
    chosen = truth.take(pa.array(rows))
    columns = (chosen[name].to_pylist() for name in ("seq", "slot", "record"))
    records = to_records(chosen)
    return [
        Carried(seq, record, slot, number)
        for record, seq, slot, number in zip(records, *columns, strict=True)
    ]


_FIRST = [name for name in PERSON.names[4:] if name in TRUTH.names]
"""Columns of a row that are those of its first entry."""

_READ = list(
    dict.fromkeys([*_FIRST, "slot", "record", "person", "asked", "router_us", "source_us"])
)


def _rows(entries: pa.Table, lines: Lines) -> pa.Table:
    """Return the columns of ``p`` and ``u`` behind the first ones, a row a line."""
    taken = entries.select([*_FIRST, "asked"]).take(pa.array(lines.first)).combine_chunks()
    column = {name: whole(taken[name]) for name in taken.column_names}
    kind = column["kind"].to_numpy()
    beside = ~np.isin(kind, (Kind.REQUEST, Kind.READING))
    if beside.any():
        column["code"] = pc.if_else(pa.array(beside), pa.scalar(0, pa.int32()), column["code"])
        for name in ("user", "application"):  # who supplied, not who asked
            nothing = pa.scalar(None, column[name].type)
            column[name] = pc.if_else(pa.array(beside), nothing, column[name])
    column["replaced"] = column.pop("asked").is_valid()
    outcome = pa.array(lines.outcome, mask=lines.outcome == NONE)
    column["outcome"] = entries["code"].take(outcome)
    column["outcome_at_us"] = entries["at_us"].take(outcome)
    column["recipients"] = _recipients(entries, lines)
    counts = np.zeros(len(lines.first), np.int32)
    for line, rows in lines.further.items():
        counts[line] = len(rows)
    column["further_persons"] = pa.array(counts)
    schema = pa.schema([PERSON.field(name) for name in PERSON.names[4:]])
    return pa.table([column[field.name] for field in schema], schema=schema)


def _recipients(entries: pa.Table, lines: Lines) -> pa.Array:
    """Return the recipients of each line; null where it has none, as most have."""
    kind = PERSON.field("recipients").type
    counts = np.zeros(len(lines.first), np.int64)
    pairs = []
    for line in sorted(lines.recipients):
        rows = pa.array(lines.recipients[line])
        codes, lists = entries["code"].take(rows), entries["destinations"].take(rows)
        some = [
            {"kbo": kbo, "code": code.as_py()}
            for code, kbos in zip(codes, lists, strict=True)
            for kbo in kbos.as_py()
        ]
        counts[line] = len(some)
        pairs += some
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    bits = pa.py_buffer(np.packbits(counts > 0, bitorder="little").tobytes())
    values = pa.array(pairs, kind.value_type)
    return pa.Array.from_buffers(
        kind, len(counts), [bits, pa.py_buffer(offsets)], children=[values]
    )


def _by_person(entries: pa.Table, lines: Lines, rows: pa.Table) -> pa.Table:
    person, asked = whole(entries["person"]), whole(entries["asked"])
    is_named = ~is_null(person)
    named, replaced = is_named[lines.first], ~is_null(asked)[lines.first]
    numbers, old = halves(person), halves(asked)
    further = [(line, row) for line, some in lines.further.items() for row in some if is_named[row]]
    line_of_further = np.array([line for line, _ in further], np.int64)
    row_of_further = np.array([row for _, row in further], np.int64)
    line = np.concatenate([np.flatnonzero(named), np.flatnonzero(replaced), line_of_further])
    tokens = [
        np.concatenate([now[lines.first[named]], was[lines.first[replaced]], now[row_of_further]])
        for now, was in zip(numbers, old, strict=True)
    ]
    seq, at_us = rows["seq"].to_numpy()[line], rows["at_us"].to_numpy()[line]
    chosen = order([*tokens, at_us, seq])
    chosen = chosen[_distinct([key[chosen] for key in (*tokens, seq)])]
    table = rows.take(pa.array(line[chosen]))
    return table.add_column(
        0, PERSON.field("person"), tokens_of(tokens[0][chosen], tokens[1][chosen])
    )


def _by_use(entries: pa.Table, lines: Lines, rows: pa.Table) -> pa.Table:
    uses = uses_of(entries, lines)
    seq, at_us = rows["seq"].to_numpy()[uses.line], rows["at_us"].to_numpy()[uses.line]
    first, last = uses.member
    by_use = use_order(uses.institution, len(uses.names), first, last)
    chosen = order([*by_use, at_us, seq])
    institutions = uses.names.take(pa.array(uses.institution[chosen]))
    members = tokens_of(first[chosen], last[chosen], uses.has_member[chosen])
    table = rows.take(pa.array(uses.line[chosen]))
    table = table.add_column(0, USE.field("member"), members)
    return table.add_column(0, USE.field("institution"), institutions)


def _distinct(keys: Sequence[Numbers]) -> Numbers:
    """Say of each row whether it differs from the one before in any of the keys."""
    differs = np.zeros(len(keys[0]), bool)
    differs[:1] = True
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    return differs


def _keys(truth: pa.Table) -> pa.Table:
    """Return the rows by exchange id and ticket: of the segment alone, nothing waits."""
    exchange, ticket = (whole(truth[name]) for name in ("exchange", "ticket"))
    is_request = whole(truth["kind"]).to_numpy() == Kind.REQUEST
    by_exchange = np.flatnonzero(~is_null(exchange))
    by_ticket = np.flatnonzero(~is_null(ticket) & is_request)
    seqs = whole(truth["seq"]).to_numpy()
    keys = [
        np.concatenate([one[by_exchange], other[by_ticket]])
        for one, other in zip(halves(exchange), halves(ticket), strict=True)
    ]
    seq = np.concatenate([seqs[by_exchange], seqs[by_ticket]])
    chosen = order([*keys, seq])
    return pa.table({"key": tokens_of(keys[0][chosen], keys[1][chosen]), "seq": seq[chosen]})


def _placed(schema: pa.Schema, place: tuple[str, str], table: pa.Table) -> pa.Table:
    """Return a table with the columns that every file begins with."""
    q, node = place
    count = len(table)
    begin: Iterable[pa.Array] = (
        pa.repeat(pa.scalar(q), count),
        pa.repeat(pa.scalar(0, pa.int16()), count),
        pa.repeat(pa.scalar(node), count),
    )
    return pa.Table.from_arrays([*begin, *table.columns], schema=schema)
