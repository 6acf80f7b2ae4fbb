"""Of a catalog only what is asked for is made sense of, and it says the same as all of it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ksz_router.privacylog.archive.chain import fold
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.listing import Listing
from ksz_router.privacylog.archive.manifest import Catalog, SealedFile
from ksz_router.privacylog.archive.places import ChainBroken, catalog_file, sealed_path
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
