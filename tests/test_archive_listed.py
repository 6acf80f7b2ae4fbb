"""Of a catalog only what is asked for is made sense of, and it says the same as all of it."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from ksz_router.privacylog.archive import taken
from ksz_router.privacylog.archive.chain import fold
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.listing import Listing
from ksz_router.privacylog.archive.manifest import Catalog, SealedFile
from ksz_router.privacylog.archive.places import ChainBroken, carry_path, catalog_file, sealed_path
from ksz_router.privacylog.archive.schema import PERSON
from ksz_router.privacylog.archive.segment import ROWS_OF_GROUP, encode
from ksz_router.privacylog.archive.verify_chain import Chain
from tests.test_archive_chain import sealed, step
from tests.test_archive_listing import run

BOUNDS = [(0, 9), (12, 20), (20, 20), (21, 30), (31, 60)]
TIMES = [(50, 70), (20, 90), (60, 65), (40, 41), (30, 95)]


def filled(archive: Path) -> list[SealedFile]:
    """One run of five parts, of different times."""
    parts = [
        msgspec.structs.replace(part, first_us=begin, end_us=end)
        for part, (begin, end) in zip(run("p", 0, 10, BOUNDS), TIMES, strict=True)
    ]
    step(archive, [sealed("t", 0, 10), *parts])
    fold(archive)
    return parts


def rewritten(archive: Path, change: Any) -> None:
    file = catalog_file(archive, "2026Q4", "p")
    held = msgspec.msgpack.decode(file.read_bytes())
    change(held)
    file.write_bytes(msgspec.msgpack.encode(held))


def listing_of(archive: Path) -> Listing:
    listing = Listing(archive)
    listing.update("p")
    return listing


def damage_part_3(held: dict[str, Any]) -> None:
    held["files"][3]["rows"] = "many"


def test_a_part_that_is_not_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    """The middle ones are looked at by who seeks a key among them, and the first and last."""
    parts = filled(tmp_path)
    rewritten(tmp_path, damage_part_3)
    (files,) = listing_of(tmp_path).of("p")
    assert [*files.of_key("05")] == parts[:1]
    assert (files.first_us, files.end_us) == (20, 95)
    assert files.key_ids == {"2026Q4-00000000"}


def test_a_part_that_is_damaged_is_never_left_out(tmp_path: Path) -> None:
    filled(tmp_path)
    rewritten(tmp_path, damage_part_3)
    (files,) = listing_of(tmp_path).of("p")
    with pytest.raises(ChainBroken, match=r"2026Q4-p\.msgpack: is damaged"):
        list(files.of_key(f"{25:02x}"))
    with pytest.raises(ChainBroken):
        list(files.all)


@pytest.mark.parametrize("is_older", [True, False])
def test_the_times_of_a_quarter_are_those_of_its_files(tmp_path: Path, *, is_older: bool) -> None:
    """Also of a catalog that was written before they were said, and behind a later step."""
    filled(tmp_path)
    if is_older:
        rewritten(tmp_path, lambda held: [held.pop(name) for name in ("first_us", "end_us")])
    listing = listing_of(tmp_path)
    windows = [(0, 21), (0, 20), (94, 99), (95, 99)]
    assert [bool(listing.of_time("p", [one])) for one in windows] == [True, False, True, False]
    later = msgspec.structs.replace(sealed("p", 10, 20), first_us=10, end_us=200)
    step(tmp_path, [later])
    listing.update("p")
    assert [bool(listing.of_time("p", [one])) for one in windows] == [True, True, True, True]


def test_what_removes_a_part_removes_it_from_a_list_that_was_not_looked_at(tmp_path: Path) -> None:
    parts = filled(tmp_path)
    step(tmp_path, run("p", 0, 20, [(0, 60)]), tuple(part.path for part in parts))
    (files,) = listing_of(tmp_path).of("p")
    assert [file.path for file in files.all] == [sealed_path("p", "2026Q4", 0, 20, level=3, part=0)]


def test_what_is_removed_without_a_successor_is_gone_too(tmp_path: Path) -> None:
    parts = filled(tmp_path)
    step(tmp_path, [sealed("c", 10, 10)])
    fold(tmp_path)
    removed = (*(part.path for part in parts), carry_path(10))
    step(tmp_path, [sealed("t", 10, 20, quarter="2027Q1")], removed)
    listing = Listing(tmp_path)
    listing.update("cp")
    assert [file for kind in "cp" for files in listing.of(kind) for file in files.all] == []


def test_a_run_that_is_not_whole_is_not_taken_for_one(tmp_path: Path) -> None:
    """Its parts and those of the next run are not in one order: each is looked at by itself."""
    first, other = run("p", 0, 10, [(40, 49), (50, 60)])[0], run("p", 10, 20, [(0, 9), (10, 20)])
    step(tmp_path, [sealed("t", 0, 20), first, *other])
    fold(tmp_path)
    (files,) = listing_of(tmp_path).of("p")
    assert [[*files.of_key(key)] for key in ("28", "05", "0f")] == [[first], other[:1], other[1:]]


def test_keys_with_rows_in_many_row_groups_are_left_to_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys over the bounds of row groups, and several of them; as many as are allowed are taken."""
    monkeypatch.setitem(ROWS_OF_GROUP, "p", 4)
    monkeypatch.setattr(taken, "GROUPS_MAX", 3)
    keys = [bytes([key] * 16) for key in (1, 1, 2, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 7)]
    empty = {name: pa.nulls(len(keys), PERSON.field(name).type) for name in PERSON.names}
    seqs = pa.array(range(len(keys)), pa.int64())
    rows = pa.table(empty | {"person": pa.array(keys, pa.binary(16)), "seq": seqs}, schema=PERSON)
    file = tmp_path / "rows.parquet"
    file.write_bytes(encode("p", rows).to_pybytes())
    for wanted in (
        {1},
        {2},
        {1, 3},
        {4},
        {5},
        {2, 4},
        {6},
        {7},
        {0},
        {9},
        {3, 5},
        {1, 5},
        {1, 2, 5},
    ):
        place = taken.find(file, taken.Keys("person", [bytes([key] * 16) for key in wanted]))
        if wanted in ({3, 5}, {1, 5}, {1, 2, 5}):  # in four
            assert place is None
            continue
        assert place is not None
        found = [seq for table in taken.take(place) for seq in table["seq"].to_pylist()]
        assert found == [seq for seq, key in enumerate(keys) if key[0] in wanted]


def faults(archive: Path) -> list[str]:
    findings = Findings()
    Chain(archive, findings).check_catalogs()
    return [fault.what for fault in findings.faults]


@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        ({}, True),
        ({"first_us": None, "end_us": None}, True),
        ({"first_us": 21}, False),
        ({"end_us": 96}, False),
        ({"end_us": None}, False),
        ({"first_us": None}, False),
    ],
)
def test_times_that_a_catalog_says_are_verified(
    tmp_path: Path, change: dict[str, int | None], *, is_right: bool
) -> None:
    """A catalog of before it said any is right as it is."""
    filled(tmp_path)
    file = catalog_file(tmp_path, "2026Q4", "p")
    catalog = msgspec.msgpack.decode(file.read_bytes(), type=Catalog)
    changed = msgspec.structs.replace(catalog, **change)
    file.write_bytes(msgspec.msgpack.encode(changed))
    assert faults(tmp_path) == ([] if is_right else ["is not what the manifests up to 1 add up to"])
