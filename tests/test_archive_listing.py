"""What is kept from one question to the next is what a new reader would find."""

import os
from pathlib import Path

import msgspec
import pytest

from ksz_router.limits import MIB
from ksz_router.privacylog.archive.chain import files, fold
from ksz_router.privacylog.archive.listing import Listing
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import sealed_path
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tail import Tail
from tests.privacylog_world import World, crash
from tests.test_archive_chain import sealed, step


def run(kind: str, first: int, end: int, bounds: list[tuple[int, int]]) -> list[SealedFile]:
    """Return a run whose parts have the keys from and up to these."""
    return [
        msgspec.structs.replace(
            sealed(kind, first, end, level=3),
            path=sealed_path(kind, "2026Q4", first, end, level=3, part=part),
            part=part,
            parts=len(bounds),
            min_key=f"{least:02x}",
            max_key=f"{greatest:02x}",
        )
        for part, (least, greatest) in enumerate(bounds)
    ]


def asked(listing: Listing, key: int) -> set[str]:
    (held,) = listing.of("p")
    return {file.path for file in held.of_key(f"{key:02x}")}


def walked(archive: Path, key: int) -> set[str]:
    text = f"{key:02x}"
    return {
        file.path
        for file in files(archive, "p")
        if not file.max_key or file.min_key <= text <= file.max_key
    }


def test_the_files_of_a_key_are_those_that_a_walk_over_all_finds(tmp_path: Path) -> None:
    """Parts with gaps between them, parts that share a key, a run of one, a file without keys."""
    step(tmp_path, run("p", 0, 10, [(0, 9), (12, 20), (20, 20), (20, 30), (31, 60)]))
    step(tmp_path, run("p", 10, 20, [(5, 50)]))
    step(tmp_path, [sealed("p", 20, 30)])
    fold(tmp_path)
    listing = Listing(tmp_path)
    listing.update("p")
    for key in range(64):
        assert asked(listing, key) == walked(tmp_path, key)


@pytest.mark.parametrize("is_folded", [True, False])
def test_what_is_kept_follows_the_manifests(tmp_path: Path, *, is_folded: bool) -> None:
    """Runs are merged, a quarter begins, and truth of a quarter that was read grows."""
    first, second = run("p", 0, 10, [(0, 9), (10, 20)]), run("p", 10, 20, [(0, 20)])
    step(tmp_path, [*first, *second, sealed("t", 0, 20)])
    fold(tmp_path)
    listing = Listing(tmp_path)
    listing.update("p")
    before = listing.truth("2026Q4").of_leaf(25)
    step(tmp_path, run("p", 0, 20, [(0, 20)]), tuple(file.path for file in (*first, *second)))
    step(tmp_path, [sealed("t", 20, 30), sealed("p", 30, 40, quarter="2027Q1")])
    if is_folded:
        fold(tmp_path)
    listing.update("pk")
    assert [file for held in listing.of("p") for file in held.all] == files(tmp_path, "p")
    truth = listing.truth("2026Q4")
    found = [truth.of_leaf(leaf) for leaf in (-1, 0, 19, 20, 29, 30)]
    assert before is None
    assert [file and file.first_leaf for file in found] == [None, 0, 0, 20, 20, None]


def test_a_tail_reads_only_what_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    writer = world.open(file_bytes=MIB)
    for number in range(20):
        writer.commit([world.request(number)], world.now_ns)
    (file,) = world.files()
    reads: list[int] = []
    kept = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(offset)
        return kept(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)

    def numbers(tail: Tail) -> list[int]:
        seen: list[Frame] = []
        reads.clear()
        tail.scan(file, KeyRing(world.keys), seen.append, None, 0)
        return [frame.number for frame in seen]

    tail, small = Tail(), Tail(4096)
    assert numbers(tail) == numbers(small) == list(range(1, 21))
    writer.commit([world.request(20)], world.now_ns)
    crash(writer)
    whole = list(range(1, 22))
    assert numbers(small) == whole  # nothing was kept: it was too much
    assert len(reads) > 20
    assert numbers(tail) == whole
    assert len(reads) < 10
    assert numbers(tail) == whole  # nothing twice
    tail.keep_only(set())
    assert numbers(tail) == whole
    assert len(reads) > 20
