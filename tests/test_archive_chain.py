"""Manifests follow one another; catalogs are what they add up to, however they were lost."""

import errno
import shutil
from pathlib import Path

import msgspec
import pytest

from ksz_router.privacylog.archive.chain import (
    append,
    carried,
    catalog,
    fold,
    newest,
    newest_recorded,
    quarters,
    read_chain,
)
from ksz_router.privacylog.archive.manifest import Manifest, SealedFile
from ksz_router.privacylog.archive.places import (
    ChainBroken,
    carry_path,
    catalog_file,
    file_of,
    index_file,
    key_of,
    manifest_file,
    sealed_path,
)
from ksz_router.privacylog.durable import Disk


class NoRoom(Disk):
    """Refuses from the write of a given number on."""

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        if not self.writes:
            raise OSError(errno.ENOSPC, "no room")
        self.writes -= 1
        super().write(descriptor, data, offset)


def sealed(
    kind: str, first: int, end: int, *, quarter: str = "2026Q4", level: int = 0
) -> SealedFile:
    path = carry_path(end) if kind == "c" else sealed_path(kind, quarter, first, end, level=level)
    return SealedFile(
        kind=kind, path=path, sha256="00" * 32, bytes=1, rows=end - first, level=level,
        quarter=quarter, key_id=f"{quarter}-00000000", first_leaf=first, end_leaf=end, first_us=0,
        end_us=1,
    )  # fmt: skip


def step(archive: Path, added: list[SealedFile], removed: tuple[str, ...] = ()) -> None:
    before = newest_recorded(archive)
    append(
        archive,
        Manifest(
            number=before.manifest.number + 1 if before else 1,
            previous=before.sha256 if before else "",
            origin="log.example/router-a",
            node="router-a",
            made_at_us=0,
            sealed_leaves=max((file.end_leaf for file in added), default=0),
            slots={},
            added=tuple(added),
            removed=removed,
        ),
    )


def filled(archive: Path) -> None:
    """Three steps that seal, over a change of quarter, and one that merges."""
    step(archive, [sealed("t", 0, 10), sealed("p", 0, 10), sealed("c", 10, 10)])
    step(
        archive, [sealed("t", 10, 20), sealed("p", 10, 20), sealed("c", 20, 20)], (carry_path(10),)
    )
    step(archive, [sealed("p", 0, 20, level=1)],
         (sealed_path("p", "2026Q4", 0, 10), sealed_path("p", "2026Q4", 10, 20)))  # fmt: skip
    step(archive, [sealed("t", 20, 30, quarter="2027Q1")], (carry_path(20),))


def view(archive: Path) -> dict[str, list[str]]:
    return {
        f"{quarter} {kind}": [file.path for file in catalog(archive, quarter, kind).files]
        for quarter in quarters(archive)
        for kind in "tpc"
    }


EXPECTED = {
    "2026Q4 t": [sealed_path("t", "2026Q4", 0, 10), sealed_path("t", "2026Q4", 10, 20)],
    "2026Q4 p": [sealed_path("p", "2026Q4", 0, 20, level=1)],
    "2026Q4 c": [],
    "2027Q1 t": [sealed_path("t", "2027Q1", 20, 30)],
    "2027Q1 p": [],
    "2027Q1 c": [],
}


def test_an_archive_that_was_never_sealed_has_nothing(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert quarters(tmp_path) == []
    assert catalog(tmp_path, "2026Q4", "t").files == ()
    assert carried(tmp_path) is None
    fold(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_manifests_follow_each_other(tmp_path: Path) -> None:
    filled(tmp_path)
    chain = list(read_chain(tmp_path))
    assert [each.manifest.number for each in chain] == [1, 2, 3, 4]
    assert [each.manifest.previous for each in chain[1:]] == [each.sha256 for each in chain[:-1]]
    assert newest(tmp_path) == chain[-1].manifest
    assert list(read_chain(tmp_path, after=chain[1])) == chain[2:]


@pytest.mark.parametrize("folded_after", [0, 1, 2, 3, 4])
def test_catalogs_are_what_the_manifests_add_up_to(tmp_path: Path, folded_after: int) -> None:
    """Read without catalogs, with ones that are behind, and with new ones: always the same."""
    whole = tmp_path / "whole"
    filled(whole)
    manifest_file(tmp_path, 1).parent.mkdir()
    for number in range(1, 5):
        shutil.copy(manifest_file(whole, number), manifest_file(tmp_path, number))
        if number == folded_after:
            fold(tmp_path)
    assert view(tmp_path) == EXPECTED
    fold(tmp_path)
    assert view(tmp_path) == EXPECTED


def test_the_carry_file_is_the_one_not_removed(tmp_path: Path) -> None:
    step(tmp_path, [sealed("t", 0, 10), sealed("c", 10, 10)])
    step(tmp_path, [sealed("t", 10, 20), sealed("c", 20, 20)], (carry_path(10),))
    found = carried(tmp_path)
    assert found is not None
    assert found.path == carry_path(20)


@pytest.mark.parametrize("lost", ["2026Q4-t", "2026Q4-p", "index"])
def test_a_catalog_that_is_lost_or_damaged_is_made_anew(tmp_path: Path, lost: str) -> None:
    filled(tmp_path)
    fold(tmp_path)
    file = tmp_path / "catalog" / f"{lost}.msgpack"
    content = file.read_bytes()
    for damage in (None, b"\xc1"):
        file.unlink()
        if damage is not None:
            file.write_bytes(damage)
        assert view(tmp_path) == EXPECTED
        fold(tmp_path)
        assert file.read_bytes() == content
        assert view(tmp_path) == EXPECTED


@pytest.mark.parametrize("writes", range(6))
def test_catalogs_left_half_written_are_brought_up(tmp_path: Path, writes: int) -> None:
    """Whatever a crash left, readers see the same, and the next step ends it."""
    filled(tmp_path)
    shutil.move(manifest_file(tmp_path, 4), tmp_path / "kept")
    fold(tmp_path)
    shutil.move(tmp_path / "kept", manifest_file(tmp_path, 4))
    try:
        fold(tmp_path, NoRoom(writes))
    except OSError:
        assert writes < 4
    assert view(tmp_path) == EXPECTED
    fold(tmp_path)
    assert view(tmp_path) == EXPECTED
    assert catalog(tmp_path, "2027Q1", "t").upto == 4


def test_a_chain_that_was_touched_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    second = manifest_file(tmp_path, 2)
    content = second.read_bytes()
    changes = {
        "another word": content.replace(b"router-a", b"router-b"),
        "another form": content.replace(b'"number":2', b'"number": 2'),
        "another number": manifest_file(tmp_path, 3).read_bytes(),
        "no JSON": b"{",
    }
    for what, data in changes.items():
        second.write_bytes(data)
        with pytest.raises(ChainBroken):
            list(read_chain(tmp_path))
            pytest.fail(what)
    last = manifest_file(tmp_path, 4)
    form = last.read_bytes()
    last.write_bytes(form.replace(b":", b": ", 1))
    second.write_bytes(content)
    with pytest.raises(ChainBroken, match="is not manifest 4"):
        newest(tmp_path)
    second.unlink()
    with pytest.raises(ChainBroken, match="missing"):
        list(read_chain(tmp_path))


def test_only_the_manifest_that_follows_is_appended(tmp_path: Path) -> None:
    filled(tmp_path)
    last = newest(tmp_path)
    assert last is not None
    with pytest.raises(ChainBroken):
        append(tmp_path, last)
    with pytest.raises(ChainBroken):
        append(tmp_path, msgspec.structs.replace(last, number=5))
    assert newest(tmp_path) == last


def test_an_index_beyond_the_manifests_is_not_believed(tmp_path: Path) -> None:
    """Manifests that were lost with the disk's end are missed, not silently sealed anew."""
    filled(tmp_path)
    fold(tmp_path)
    manifest_file(tmp_path, 4).unlink()
    with pytest.raises(ChainBroken, match="missing"):
        newest(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../../keys/2026Q4.json", "q=2026Q4/t/../x.parquet", "/etc/passwd", "carry/1.msgpack",
     "q=2026Q4/p/000000000000-000000000001.parquet",
     "q=2026Q5/t/000000000000-000000000001.parquet"],
)  # fmt: skip
def test_a_manifest_leads_nowhere_else(tmp_path: Path, path: str) -> None:
    with pytest.raises(ChainBroken):
        file_of(tmp_path, path)


def test_names_are_read_as_they_are_made() -> None:
    assert key_of(sealed_path("t", "2026Q4", 0, 7)) == ("2026Q4", "t")
    assert key_of(sealed_path("u", "2026Q4", 0, 7, level=3, part=12)) == ("2026Q4", "u")
    assert key_of(carry_path(7)) == ("", "c")
    assert catalog_file(Path(), "2026Q4", "t").name == "2026Q4-t.msgpack"
    assert index_file(Path()).parent == catalog_file(Path(), "2026Q4", "t").parent
