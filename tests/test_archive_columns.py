"""Entries become columns and columns entries again, byte for byte; what does not fit is refused."""

import re
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.model import Line
from ksz_router.privacylog.archive.canon import ROWS_AT_ONCE, ColumnsRefused, to_records
from ksz_router.privacylog.archive.columns import EntryNotSealable, to_table
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.entry import Entry, Kind, canonical

I16, I32, I64 = ((-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (16, 32, 64))


def integers(bounds: tuple[int, int]) -> st.SearchStrategy[int]:
    """Numbers at both sides of each place where MessagePack takes another form, and any other."""
    edges = [sign * (1 << bits) + by for bits in (5, 7, 8, 15, 16, 31, 32, 63) for sign in (1, -1)
             for by in (-1, 0, 1)]  # fmt: skip
    least, most = bounds
    return st.sampled_from([0, *(n for n in edges if least <= n <= most)]) | st.integers(*bounds)


EDGES_OF_TEXT = ["", "pension.consult", "é€𝄞", "\0", "x" * 31, "x" * 32, "x" * 255, "é" * 128]
TEXT = st.sampled_from(EDGES_OF_TEXT) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
TOKEN = st.binary(min_size=16, max_size=16)
OF_FIELD: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(
        ("service", "means", "generation", "grant", "basis", "reader", "purpose"), TEXT
    ),
    **dict.fromkeys(
        ("requester", "acting", "final_client", "legal_framework", "application", "enterprise"),
        st.none() | TEXT,
    ),
    **dict.fromkeys(("exchange", "user", "ticket", "person", "asked", "first", "content"),
                    st.none() | TOKEN),
    **dict.fromkeys(("sector", "type", "capacity", "begin", "end"), st.none() | integers(I32)),
    **dict.fromkeys(("code", "service_version", "level", "attempt"), integers(I32)),
    **dict.fromkeys(("request_bytes", "answer_bytes"), integers(I32)),
    **dict.fromkeys(("rights_version", "directory_version", "router_us", "source_us", "at_us"),
                    integers(I64)),
    **dict.fromkeys(("destinations", "violations"),
                    st.lists(TEXT, max_size=40).map(tuple) | st.just(())),
    "kind": st.sampled_from(Kind),
    "stage": integers(I16),
    "line": st.none() | st.builds(Line, *[integers(I32)] * 7),
    "digest": st.none() | st.binary(min_size=32, max_size=32),
    "counts": st.lists(st.tuples(integers(I32), integers(I64)), max_size=20).map(tuple),
}  # fmt: skip
ENTRIES = st.builds(Entry, **OF_FIELD)

PLAIN = Entry(
    kind=Kind.REQUEST, at_us=1_795_000_000_000_000, exchange=bytes(16), destinations=("0200881951",)
)


def table_of(records: list[bytes]) -> pa.Table:
    """As a step of the sealer makes it of the records of one slot."""
    return to_table(
        records,
        first_seq=7,
        q="2026Q4",
        node="router-a",
        slots=["w0"] * len(records),
        record_numbers=range(len(records)),
    )


def test_every_field_is_drawn_and_has_its_columns() -> None:
    assert set(OF_FIELD) | {"version"} == set(Entry.__struct_fields__)


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRIES, max_size=8))
def test_any_entry_survives_both_ways(entries: list[Entry]) -> None:
    records = [msgspec.msgpack.encode(entry) for entry in entries]
    table = table_of(records)
    table.validate(full=True)
    assert table.schema == TRUTH
    assert to_records(table) == records


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(OF_FIELD)), st.data())
def test_a_column_of_many_values_gives_each_back(name: str, data: st.DataObject) -> None:
    """One field at a time over columns where the others are all the same."""
    values = data.draw(st.lists(OF_FIELD[name], min_size=1, max_size=20))
    entries = [msgspec.structs.replace(PLAIN, **{name: value}) for value in values]
    records = [msgspec.msgpack.encode(entry) for entry in entries]
    assert to_records(table_of(records)) == records


def test_what_a_table_was_cut_into_does_not_matter() -> None:
    """Rows of a file come by row groups, its names as dictionaries, and some begin in the midst."""
    numbers = range(ROWS_AT_ONCE + 10)
    entries = [
        msgspec.structs.replace(PLAIN, at_us=PLAIN.at_us + n, service=f"s{n % 300}")
        for n in numbers
    ]
    records = [canonical(entry) for entry in entries]
    table = table_of(records)
    coded = table.set_column(
        table.schema.get_field_index("service"), "service", table["service"].dictionary_encode()
    )
    parts = pa.concat_tables([coded.slice(0, 70), coded.slice(70)])
    assert to_records(parts) == records
    assert to_records(table.slice(65_500, 60)) == records[65_500:65_560]


def test_the_place_of_each_entry_stands_before_it() -> None:
    table = table_of([canonical(PLAIN)] * 3)
    assert table["seq"].to_pylist() == [7, 8, 9]
    assert table["record"].to_pylist() == [0, 1, 2]
    assert set(table["slot"].to_pylist()) == {"w0"}
    assert set(table["q"].to_pylist()) == {"2026Q4"}
    assert table_of([]).num_rows == 0
    assert to_records(table_of([])) == []


FIELDS = msgspec.to_builtins(PLAIN, builtin_types=(bytes,))


@pytest.mark.parametrize(
    "fields",
    [
        [*FIELDS, 0],
        FIELDS[:-1],
        [2, *FIELDS[1:]],
        [*FIELDS[:4], 1 << 31, *FIELDS[5:]],
        [*FIELDS[:3], bytes(15), *FIELDS[4:]],
        [*FIELDS[:31], [1, 2, 3], *FIELDS[32:]],
        [*FIELDS[:38], [[1, 2, 3]], *FIELDS[39:]],
        [*FIELDS[:6], 7, *FIELDS[7:]],
        "no array",
    ],
)
def test_what_does_not_fit_is_refused(fields: object) -> None:
    with pytest.raises(EntryNotSealable):
        table_of([canonical(PLAIN), msgspec.msgpack.encode(fields)])


def test_columns_that_are_not_an_entry_are_refused() -> None:
    table = table_of([canonical(PLAIN)])
    with pytest.raises(ColumnsRefused):
        to_records(table.drop_columns(["person"]))
    nothing = pa.nulls(1, TRUTH.field("destinations").type)
    at = table.schema.get_field_index("destinations")
    with pytest.raises(ColumnsRefused):
        to_records(table.set_column(at, TRUTH.field("destinations"), nothing))


def test_the_format_describes_every_column_in_its_order() -> None:
    text = (Path(__file__).parents[1] / "docs" / "privacylog-format.md").read_text("utf-8")
    section = text.partition("### t: the truth")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", section, re.MULTILINE)
    described = [(name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names)]
    assert [name for name, _ in described] == TRUTH.names
    names_of = {
        "text": "string",
        "fixed 16": "fixed_size_binary[16]",
        "fixed 32": "fixed_size_binary[32]",
    }
    for name, kind in described:
        told = str(TRUTH.field(name).type)
        assert told.startswith(names_of.get(kind, kind.partition(" ")[0])), name
