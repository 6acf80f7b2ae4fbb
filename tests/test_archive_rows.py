"""Rows derived from sealed entries: the same as the plain model's, wherever segments are cut."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given, settings

from ksz_router.privacylog.archive.coded import plain
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.derived_model import (
    Row,
    Walk,
    keys_of,
    rollup_of,
    rows_of,
    sums_in,
)
from ksz_router.privacylog.archive.exchange_rows import Derived, derive, narrowed
from ksz_router.privacylog.archive.manifest import Carried
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.entry import Entry, Kind, canonical


class Placed(NamedTuple):
    """An entry, its leaf, and its place in its slot."""

    seq: int
    slot: str
    number: int
    entry: Entry


NOW_US = 1_793_487_600_000_000 - 20
"""Just before a month begins in Brussels: 1 November 2026."""
TOKENS = [bytes([n]) * 16 for n in range(4)]
USERS = [None, bytes([7]) * 16, bytes([8]) * 15 + b"\0"]
KBOS = ["0206731645", "0206737484", "0200881951"]

entries = st.builds(
    Entry,
    kind=st.sampled_from([*Kind, Kind.REQUEST, Kind.OUTCOME, Kind.OUTCOME, Kind.FURTHER]),
    at_us=st.integers(NOW_US, NOW_US + 40),
    exchange=st.sampled_from([(n << 64 | 5).to_bytes(16, "big") for n in range(4)]),
    code=st.sampled_from([0, 0, 0, 3003]),
    service=st.sampled_from(["pension.consult", "family.consult"]),
    requester=st.sampled_from([*KBOS, None]),
    acting=st.sampled_from([*KBOS, None]),
    final_client=st.sampled_from([*KBOS, None, None]),
    capacity=st.sampled_from([1, None]),
    user=st.sampled_from(USERS),
    application=st.sampled_from([None, None, "90000000001"]),
    ticket=st.sampled_from([None, b"t" * 16]),
    person=st.sampled_from([*TOKENS, None]),
    asked=st.sampled_from([*TOKENS, None, None]),
    destinations=st.lists(st.sampled_from(KBOS), max_size=3).map(tuple),
    violations=st.sampled_from([(), ("own:log",)]),
    router_us=st.sampled_from([0, 900, 1_000_001, 2_000_001]),
    source_us=st.sampled_from([0, 500]),
    reader=st.sampled_from(["", "jan"]),
)


def kept(entry: Entry) -> Entry:
    """What an entry of its kind may hold."""
    lone = entry.kind in (Kind.READING, Kind.SUMMARY, Kind.SEALED)
    is_request = entry.kind == Kind.REQUEST
    return Entry(
        **{name: getattr(entry, name) for name in Entry.__struct_fields__ if name not in _CHANGED},
        exchange=None if lone else entry.exchange,
        ticket=entry.ticket if is_request else None,
        asked=entry.asked if entry.kind in (Kind.REQUEST, Kind.READING) else None,
    )


_CHANGED = ("exchange", "ticket", "asked")
logs = st.lists(st.tuples(st.sampled_from("ab"), entries.map(kept)), min_size=1, max_size=14)
cuts = st.lists(st.integers(1, 13), max_size=5)


def placed(log: Sequence[tuple[str, Entry]]) -> list[Placed]:
    numbers: Counter[str] = Counter()
    found = []
    for seq, (slot, entry) in enumerate(log):
        found.append(Placed(seq, slot, numbers[slot], entry))
        numbers[slot] += 1
    return found


def segment(log: Sequence[Placed], quarter: str = "2026Q4") -> pa.Table:
    return to_table(
        [canonical(one.entry) for one in log],
        first_seq=log[0].seq,
        q=quarter,
        node="router-a",
        slots=[one.slot for one in log],
        record_numbers=[one.number for one in log],
    )


def derived(
    log: Sequence[Placed], cut_at: Sequence[int] = ()
) -> tuple[list[Derived], list[Carried]]:
    """What the steps of the sealer give for a log in such segments, and what they leave over."""
    ends = [*sorted({at for at in cut_at if at < len(log)}), len(log)]
    steps, carried, begin = [], list[Carried](), 0
    for end in ends:
        truth = segment(log[begin:end])
        pieces = [narrowed(truth.slice(at, 3)) for at in range(0, len(truth), 3)]
        steps.append(derive(pieces, carried))
        carried, begin = steps[-1].carry(truth.take(pa.array(steps[-1].open))), end
    return steps, carried


def rows(steps: Sequence[Derived], kind: str) -> list[Row]:
    return [row for step in steps for row in getattr(step, kind).to_pylist()]


def frozen(found: Sequence[Row]) -> Counter[str]:
    left_out = ("q", "b", "node")
    return Counter(
        repr(sorted((n, v) for n, v in row.items() if n not in left_out)) for row in found
    )


@settings(max_examples=150)
@given(logs, cuts)
def test_rows_are_those_of_the_model_wherever_the_log_is_cut(
    log: list[tuple[str, Entry]], cut_at: list[int]
) -> None:
    """By person, by use, keys, rollup and what stays open, for logs that no writer would write."""
    whole_log = placed(log)
    steps, carried = derived(whole_log, cut_at)
    walk = Walk()
    for entry in segment(whole_log).to_pylist():
        walk.take(entry)
    expected = [rows_of(line) for line in walk.over]
    for kind in "pu":
        assert frozen(rows(steps, kind)) == frozen([row for one in expected for row in one[kind]])
    keys = [key for entry in segment(whole_log).to_pylist() for key in keys_of(entry)]
    assert sorted((row["key"], row["seq"]) for row in rows(steps, "k")) == sorted(keys)
    assert sums_in(rows(steps, "r")) == rollup_of(walk.over)
    waiting = sorted(entry["seq"] for line in walk.open.values() for entry in line.entries)
    assert carried == [
        Carried(one.seq, canonical(one.entry), one.slot, one.number)
        for one in whole_log
        if one.seq in waiting
    ]


@settings(max_examples=60)
@given(logs)
def test_tables_have_their_schema_and_order(log: list[tuple[str, Entry]]) -> None:
    """As the format says: null before all else, bytes without a sign, text by its bytes."""
    (step,), _ = derived(placed(log))
    for kind in "pukr":
        table = getattr(step, kind)
        assert plain(table).schema.equals(SCHEMAS[kind])
        table.validate(full=True)
        keys = [
            tuple((row[name] is not None, row[name]) for name in SORTED_BY[kind])
            for row in table.to_pylist()
        ]
        assert keys == sorted(keys)
        assert set(table["q"].to_pylist()) <= {"2026Q4"}
        assert set(table["node"].to_pylist()) <= {"router-a"}
