"""Loading in columns: it judges, sorts and packs as one row at a time would."""

import sys
import tracemalloc
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import csv, parquet

from ksz_router.directory import Directory, DirectoryError
from ksz_router.directory.bulk import text
from ksz_router.directory.bulk.glance import glance
from ksz_router.directory.bulk.records import NUMBERS_END, RECORD, record_of, row_of
from ksz_router.directory.bulk.sorting import Sorter
from ksz_router.directory.loader import LoadRefusedError, load
from ksz_router.directory.rows import COLUMNS, RowError, judge
from ksz_router.identifiers import is_insz
from ksz_router.limits import person_lines_max
from tests.directory_files import HEADING, A, B, C, line, number, person, written

calendar = st.sampled_from(
    ["", "1800-01-01", "2199-12-31", "2000-02-29", "2019-02-28", "2024-04-30", "2020-12-31"]
)
wrong_days = st.sampled_from(
    ["1799-12-31", "2200-01-01", "1900-02-29", "2023-02-29", "2024-04-31", "2024-13-01",
     "2024-00-10", "2024-01-00", "20240101", "2024-1-01", "2024/01/01", "-024-01-01", "9999-12-31",
     "2024-01-011", "2O24-01-01"]
)  # fmt: skip
codes = st.integers(0, 999).map(str) | st.sampled_from(
    [
        "",
        "00",
        "007",
        "900",
        "901",
        "902",
        "903",
        "999",
        "1000",
        "0017",
        "-1",
        "+1",
        " 1",
        "1 ",
        "x",
    ]
)


def checked(body: int, *, late: bool) -> str:
    """Nine digits and their check digits."""
    return f"{body:09}{97 - (body + 2_000_000_000 * late) % 97:02}"


numbers = st.builds(
    lambda year, month, day, counter, late: checked(
        ((year * 100 + month) * 100 + day) * 1000 + counter, late=late
    ),
    st.integers(0, 99) | st.sampled_from([0, 4, 19]),
    st.integers(0, 99) | st.sampled_from([0, 2, 12, 20, 22, 32, 33, 40, 42, 52, 53, 60, 62]),
    st.integers(0, 33) | st.sampled_from([28, 29, 30, 31]),
    st.sampled_from([0, 1, 998, 999]),
    st.booleans(),
)
inszs = (
    st.sampled_from([A, B, C]) | numbers | st.sampled_from(["", A[:-1], A + "0", f" {A}", "x" * 11])
)
statuses = st.sampled_from(
    ["active", "replaced", "cancelled", "deceased", "", "Active", "activf", "actives", "dead"]
)
good_codes = st.integers(0, 900).map(str) | st.sampled_from(["902", "007", "00", "999"])
good_line = st.tuples(
    st.sampled_from([A, B, C]) | numbers.filter(is_insz),
    *([st.just("")] * 3),
    *([good_codes] * 4),
    *([calendar] * 3),
)
good_number = st.sampled_from(
    [person(A), person(A, "replaced", B), person(A, "deceased", "", "2024-05-17"),
     person(A, "cancelled")]
).map(lambda row: tuple(row.split(",")))  # fmt: skip
any_cell = st.tuples(inszs, statuses, inszs, *([calendar | wrong_days] * 8)) | st.tuples(
    *([codes] * 11)
)
odd = st.text("017-Aé# ٣\0", max_size=12)
rows = st.one_of(
    good_line,
    good_number,
    st.lists(odd, max_size=13).map(tuple),
    st.tuples(good_line | good_number, st.integers(0, 10), any_cell | st.tuples(*([odd] * 11))).map(
        lambda made: (*made[0][: made[1]], made[2][made[1]], *made[0][made[1] + 1 :])
    ),
)


@given(st.lists(rows, min_size=1, max_size=30))
@example([(A, "", "", "", "17", "", "2", "1", "2015-01-01", "", "")])
@example([(A, "deceased", "", "2024-05-17", "", "", "", "", "", "", "")])
@example([("00000000097", "active", *[""] * 9), ("29022910051", "active", *[""] * 9)])
def test_a_glance_judges_as_the_rules_do(given_rows: list[tuple[str, ...]]) -> None:
    """What it takes is good and becomes the same record; what it leaves is bad, or a remark."""
    block = "".join(",".join(cells) + "\n" for cells in given_rows).encode()
    seen = glance(block, 7)
    left = set(seen.left.tolist())
    taken = {int(record["row"]) - 7: record.tolist() for record in seen.records}
    assert left | set(taken) == set(range(len(given_rows)))
    assert not left & set(taken)
    for place, cells in enumerate(given_rows):
        try:
            expected = record_of(judge(list(cells)), place + 7)
        except RowError:
            assert place in left
        else:
            assert taken[place] == expected
            assert row_of(np.array([expected], RECORD)[0].tolist()) == (
                judge(list(cells)),
                place + 7,
            )


def test_a_glance_knows_every_number_and_day() -> None:
    """All six first digits of a year of each kind, both centuries; all days that text can say."""
    bodies = [(year * 10_000 + rest) * 1000 + 1 for year in (0, 4, 99) for rest in range(10_000)]
    texts = [checked(body, late=late) for body in bodies for late in (False, True)]
    days = [
        f"{year}-{m:02}-{d:02}" for year in (1900, 2000, 2023) for m in range(14) for d in range(33)
    ]
    cells = [(text, "active", *[""] * 9) for text in texts]
    cells += [(A, "", "", "", "1", "1", "1", "1", day, "", day) for day in days]
    seen = glance("".join(",".join(row) + "\n" for row in cells).encode(), 0)
    expected = set()
    for place, row in enumerate(cells):
        try:
            judge(list(row))
            expected.add(place)
        except RowError:
            pass
    assert set(seen.records["row"].tolist()) == expected
    assert 6_000 < len(expected) < 9_000


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=200),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    st.integers(1, 7),
    st.sampled_from([list, sorted]),
)
def test_the_sorter_sorts(
    given_keys: list[tuple[int, int]], sizes: tuple[int, int, int], chunk: int, arranged: Any
) -> None:
    """Any records, any size of a run; nothing lost, nothing doubled, no number in two ranges."""
    given_keys = arranged(given_keys)
    records = np.array([(n << 21, p, 0, row, 0) for row, (n, p) in enumerate(given_keys)], RECORD)
    with TemporaryDirectory() as name:
        sorter = Sorter(Path(name), *sizes)
        for at in range(0, len(records), chunk):
            sorter.add(records[at : at + chunk])
        ranges = list(sorter.ranges())
        assert sorter.count == len(records)
    found = [tuple(record) for one in ranges for record in one.records.tolist()]
    assert sorted(found) == sorted(records.tolist())
    assert [row[:2] for row in found] == sorted(row[:2] for row in records.tolist())
    if ranges:
        assert ranges[0].begin == 0
        assert ranges[-1].end == NUMBERS_END
    for one in ranges:
        assert all(one.begin <= role >> 21 < one.end for role in one.records["role"].tolist())


def test_a_sorted_input_is_one_run(tmp_path: Path) -> None:
    """Nothing is merged where nothing needs to be."""
    sorter = Sorter(tmp_path, 10, 10, 3)
    for n in range(100):
        sorter.add(np.array([(n << 21, 0, 0, 0, 0)], RECORD))
    assert sum(len(one.records) for one in sorter.ranges()) == 100
    assert len(list(tmp_path.iterdir())) == 1


def test_little_of_a_run_stays_in_memory(tmp_path: Path) -> None:
    """A view of an array would keep the whole of it."""
    sorter = Sorter(tmp_path, 1 << 16)
    roles = np.arange(20, 0, -1) << 21
    tracemalloc.start()
    for role in roles:
        sorter.add(np.array([(role, 0, 0, 0, 0)], RECORD).repeat(1 << 16))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 8 * 20 * (1 << 16) / 10


def test_a_number_with_endless_rows_does_not_fill_the_memory(tmp_path: Path) -> None:
    """It is refused before its rows are read back."""
    sorter = Sorter(tmp_path, 2_000, 2_000, 10)
    rest = np.zeros(30_000, RECORD)
    rest["role"] = np.where(np.arange(30_000) % 10, 7, np.arange(30_000)).astype(np.uint64) << 21
    rest["row"] = np.arange(30_000)
    for at in range(0, 30_000, 500):
        sorter.add(rest[at : at + 500])
    with pytest.raises(RowError, match=f"{person_lines_max} lines at most") as caught:
        list(sorter.ranges())
    assert rest[caught.value.row]["role"] == 7 << 21


def population() -> list[str]:
    """Rows of many numbers, shuffled: lines, a chain, somebody dead."""
    known = [number(998 - n // 20, 850701 + n % 20) for n in range(400)]
    made = [person(known[0], "replaced", known[1]), person(known[1], "replaced", known[2])]
    made += [person(known[2], "deceased", deceased="2024-05-17"), *map(person, known[3:])]
    for n, insz in enumerate(known):
        made += [line(insz, f"{n % 90},{n % 3 or ''},{n % 900}", phase=str(n % 9))] * (n % 4 > 0)
        made += [line(insz, "5,0,20", end="2019-12-31", changed="2020-01-01"), line(insz, "5,0,30")]
    Random(1).shuffle(made)
    return made


def content(target: Path) -> dict[str, object]:
    """Everybody in the directory."""
    directory = Directory.open(target)
    known = [number(998 - n // 20, 850701 + n % 20) for n in range(400)]
    try:
        assert directory.numbers_count == len(known)
        return dict(zip(known, directory.look_up(known), strict=True))
    finally:
        directory.close()


def as_parquet(file: Path, **types: pa.DataType) -> Path:
    """The CSV file as Parquet, its columns of the types that pyarrow sees in it or these."""
    kept = dict.fromkeys(("insz", "current", "status"), pa.string()) | types
    options = csv.ConvertOptions(column_types=kept, strings_can_be_null=True)
    table = csv.read_csv(file, convert_options=options)
    place = file.with_suffix(".parquet")
    parquet.write_table(table, place, row_group_size=100)
    return place


def test_every_form_of_a_file_makes_the_same_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other ends of lines, quotes, a byte-order mark, Parquet of several types; small blocks."""
    plain = written(tmp_path, *population())
    load(plain, tmp_path / "plain")
    expected = content(tmp_path / "plain")
    lines = plain.read_text().splitlines()
    forms = {
        "windows": "\ufeff" + "\r\n".join(lines),
        "quoted": "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in lines),
        "remarks": "# one\n\n#,,,,,,,,,,\n" + "\n\n# more\n".join(lines),
    }
    monkeypatch.setattr(text, "BLOCK_BYTES", 1_000)
    for name, form in forms.items():
        file = tmp_path / f"{name}.csv"
        file.write_bytes(form.encode())
        load(file, tmp_path / name)
        assert content(tmp_path / name) == expected, name
    texts = dict.fromkeys(COLUMNS, pa.string())
    for name, types in (("typed", {}), ("text", texts), ("narrow", {"sector": pa.uint16()})):
        load(as_parquet(plain, **types), tmp_path / name)
        assert content(tmp_path / name) == expected, name


def test_a_bad_row_of_a_parquet_file_is_refused_by_its_count(tmp_path: Path) -> None:
    """Characters that would end a cell or a row of text do not move the count."""
    good = dict(zip(COLUMNS, person(A).split(","), strict=True))
    table = [good, good | {"insz": B, "status": 'act\nive,"x'}, good | {"insz": "1"}]
    file = tmp_path / "persons.parquet"
    parquet.write_table(pa.Table.from_pylist(table), file)
    with pytest.raises(LoadRefusedError) as caught:
        load(file, tmp_path / "directory")
    assert [reason.partition("parquet:")[2] for reason in caught.value.reasons] == [
        "2: status: must be one of active, replaced, cancelled, deceased",
        "3: insz: is not a well-formed INSZ",
    ]


def test_a_file_that_is_no_parquet_or_has_other_columns_is_refused(tmp_path: Path) -> None:
    """With a sentence, and nothing is changed."""
    file = tmp_path / "persons.parquet"
    file.write_text(HEADING)
    with pytest.raises(DirectoryError, match="cannot be read as Parquet"):
        load(file, tmp_path / "directory")
    parquet.write_table(pa.table({"insz": [A]}), file)
    with pytest.raises(LoadRefusedError, match="1: the columns must be: insz,status"):
        load(file, tmp_path / "directory")


def test_a_line_without_an_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another kind may have no line feed at all."""
    monkeypatch.setattr(text, "BLOCK_BYTES", 1_000)
    file = written(tmp_path, person(A), "x" * 5_000)
    with pytest.raises(LoadRefusedError, match="3: is not CSV: a line has more than"):
        load(file, tmp_path / "directory")


def test_without_the_extra_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that loads no directory itself installs small."""
    for name in [name for name in sys.modules if name.startswith("ksz_router.directory.bulk")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(DirectoryError, match=r"numpy is missing.* ksz-router\[audit\]"):
        load(written(tmp_path, person(A)), tmp_path / "directory")
