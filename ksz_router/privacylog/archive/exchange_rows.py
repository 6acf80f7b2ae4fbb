"""From sealed entries to the rows that questions are put to: by person, by use, keys, rollup.

What is derived is a function of the entries in the order of their leaves, and can be made anew.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.coded import coded, joined
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

_Place: TypeAlias = tuple[str, str]
"""Quarter and node."""


class Derived:
    """What one step of the sealer adds.

    The tables are of the columns of their kind and in its order, names as dictionaries; each is
    made when it is asked for, so that no two of them need be in memory.
    """

    def __init__(self, entries: pa.Table, carried: Sequence[Carried], place: _Place) -> None:
        self._entries, self._carried, self._place = entries, carried, place
        self._lines = lines_of(entries)
        self._rows = _rows(entries, self._lines)

    @property
    def p(self) -> pa.Table:
        return _placed(PERSON, self._place, _by_person(self._entries, self._lines, self._rows))

    @property
    def u(self) -> pa.Table:
        return _placed(USE, self._place, _by_use(self._entries, self._lines, self._rows))

    @property
    def k(self) -> pa.Table:
        return _placed(KEY, self._place, _keys(self._entries.slice(len(self._carried))))

    @property
    def r(self) -> pa.Table:
        return rollup_of(self._entries, self._lines, self._rows, self._place)

    @property
    def open(self) -> Numbers:
        """Rows of the segment whose exchanges are not over, rising."""
        opened = self._lines.open
        return opened[opened >= len(self._carried)] - len(self._carried)

    def carry(self, opened: pa.Table) -> list[Carried]:
        """Return the entries of exchanges that are not over: to be given to the next step.

        Args:
            opened: The rows of the segment that :attr:`open` names, with all columns of ``TRUTH``.
        """
        rows = self._lines.open
        kept = [self._carried[row] for row in rows[rows < len(self._carried)].tolist()]
        columns = (opened[name].to_pylist() for name in ("seq", "slot", "record"))
        fresh = zip(to_records(opened), *columns, strict=True)
        return kept + [Carried(seq, record, slot, number) for record, seq, slot, number in fresh]


def narrowed(truth: pa.Table) -> pa.Table:
    """Return of rows of schema ``TRUTH`` what :func:`derive` reads, names as dictionaries."""
    return coded(truth.select(_READ))


def derive(segment: Sequence[pa.Table], carried: Sequence[Carried]) -> Derived:
    """Return the rows of a segment.

    Args:
        segment: Narrowed rows, at least one, in the order of leaves.
        carried: What the step before left over.

    The rows of exchanges that end in the segment lie in its quarter, those of carried ones too.
    """
    assert any(map(len, segment)), "a segment holds entries"
    q, node = (segment[0][name][0].as_py() for name in ("q", "node"))
    before = [narrowed(_of_carried(carried, q, node))] if carried else []
    return Derived(joined([*before, *segment]), carried, (q, node))


def _of_carried(carried: Sequence[Carried], q: str, node: str) -> pa.Table:
    """Return the entries that were carried over as rows."""
    table = to_table(
        [one.record for one in carried],
        first_seq=0,
        q=q,
        node=node,
        slots=[one.slot for one in carried],
        record_numbers=[one.number for one in carried],
    )
    seqs = pa.array([one.seq for one in carried], pa.int64())
    return table.set_column(TRUTH.get_field_index("seq"), TRUTH.field("seq"), seqs)


_FIRST = [name for name in PERSON.names[4:] if name in TRUTH.names]
"""Columns of a row that are those of its first entry."""

_READ = list(
    dict.fromkeys(
        [
            "q",
            "node",
            *_FIRST,
            "slot",
            "record",
            "ticket",
            "person",
            "asked",
            "router_us",
            "source_us",
        ]
    )
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
            column[name] = column[name].take(pa.array(np.arange(len(kind)), mask=beside))
    column["replaced"] = column.pop("asked").is_valid()
    outcome = pa.array(lines.outcome, mask=lines.outcome == NONE)
    column["outcome"] = entries["code"].take(outcome)
    column["outcome_at_us"] = entries["at_us"].take(outcome)
    column["recipients"] = _recipients(entries, lines)
    counts = np.zeros(len(lines.first), np.int32)
    for line, rows in lines.further.items():
        counts[line] = len(rows)
    column["further_persons"] = pa.array(counts)
    return pa.table({name: column[name] for name in PERSON.names[4:]})


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


def _placed(schema: pa.Schema, place: _Place, table: pa.Table) -> pa.Table:
    """Return a table with the columns that every file begins with."""
    q, node = place
    count = len(table)
    begin: Iterable[pa.Array] = (
        _repeated(q, count),
        pa.repeat(pa.scalar(0, pa.int16()), count),
        _repeated(node, count),
    )
    return pa.Table.from_arrays([*begin, *table.columns], names=schema.names)


def _repeated(text: str, count: int) -> pa.Array:
    codes = pa.repeat(pa.scalar(0, pa.int8()), count)
    return pa.DictionaryArray.from_arrays(codes, pa.array([text]))
