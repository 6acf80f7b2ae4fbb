"""``log verify fast|full``: what is whole is whole, and what is not is found, at its place."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bench.log_flips import Flips
from ksz_router.cli import main
from ksz_router.privacylog.archive.chain import fold
from ksz_router.privacylog.archive.findings import Fault, Findings
from ksz_router.privacylog.archive.manifest import Manifest
from ksz_router.privacylog.archive.segment import encode
from ksz_router.privacylog.archive.verify_fast import verify_fast
from ksz_router.privacylog.archive.verify_full import Range, verify_full
from tests.verify_ground import Ground


@pytest.fixture(scope="module")
def whole() -> Iterator[Ground]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Ground(Path(folder))


@pytest.fixture
def ground(whole: Ground, tmp_path: Path) -> Ground:
    """A copy that may be broken."""
    return whole.copy(tmp_path)


def both(ground: Ground) -> list[Fault]:
    found = [verify_fast(ground.place), verify_full(ground.place)]
    return [fault for findings in found for fault in findings.faults]


def names(findings: Findings) -> set[str]:
    return {fault.file.name for fault in findings.faults}


def test_what_is_whole_has_no_fault_and_every_leaf_is_checked(whole: Ground) -> None:
    fast, full = verify_fast(whole.place), verify_full(whole.place)
    assert fast.faults == full.faults == []
    assert fast.notes == full.notes == []
    assert full.leaves == full.tree_size > full.sealed_leaves > 500
    assert fast.manifests == full.manifests >= 4
    assert len(whole.sealed("t")) >= 4  # of two quarters


def test_the_commit_keys_alone_are_enough_for_what_is_sealed(whole: Ground, tmp_path: Path) -> None:
    """An auditor's kit: no write-ahead file, no other key, nobody is identified."""
    for file in whole.keys.quarters.iterdir():
        words = ["--folder", str(file.parent), "--quarter", file.stem]
        out = tmp_path / file.name
        assert main(["keys", "commit", *words, "--out", str(out)]) == 0
        assert main(["keys", "commit", *words, "--out", str(out)]) == 1  # it is never replaced
        assert main(["keys", "commit", *words, "--out", str(tmp_path / "other.json")]) == 2
        assert out.stat().st_mode & 0o777 == 0o600
        whole_keys, told = json.loads(file.read_text()), out.read_text()
        assert whole_keys["keys"].pop("commit") in told
        assert not any(key in told for key in whole_keys["keys"].values())
    kit = msgspec.structs.replace(whole.place, commit_keys=tmp_path, log=None)
    full = verify_full(kit)
    assert full.faults == []
    assert full.leaves == full.sealed_leaves
    assert all("not sealed itself yet" in note for note in full.notes)


def test_every_flip_is_found_and_its_file_is_named(ground: Ground) -> None:
    """A few bytes of every file; ``bench/log_faults.py`` takes every one."""
    told: list[str] = []
    flips = Flips(ground.place, Random(5), sample=2, tell=told.append)
    counts = flips.run(every=False)
    assert told == []
    assert counts.undetected_alterations == counts.not_located == 0
    assert counts.by_fast
    assert counts.by_full
    assert counts.files > 40


def test_a_leaf_that_changes_beside_a_sealed_entry_is_not_laid_on_the_entry(
    ground: Ground,
) -> None:
    """Fast proves one entry; what spoils its tile is a hash of the tree, and that file is named."""
    path = ground.disk / "archive" / "tree" / "0" / "000000"
    flips = Flips(ground.place, Random(5), sample=0)
    for at in range(512 * 32, path.stat().st_size, 509):
        flips._whole(path, at)
    assert (flips.counts.undetected_alterations, flips.counts.not_located) == (0, 0)
    assert flips.counts.by_fast


def test_a_leaf_that_changes_below_a_kept_checkpoint_is_not_laid_on_the_checkpoint(
    ground: Ground,
) -> None:
    """It ends within a tile, so its root takes hashes of level 0; the level above tells of them."""
    tree = ground.disk / "archive" / "tree"
    pipeline = ground.pipeline()
    pipeline.start()
    pipeline.record("w0", 100)  # the tile is full since
    pipeline.settle()
    pipeline.close()
    sizes = [int(note.read_bytes().split(b"\n")[1]) for note in tree.glob("checkpoints/*.note")]
    within = [size for size in sizes if size % 256]
    assert within
    flips = Flips(ground.place, Random(5), sample=0)
    for size in within:
        flips._part(tree / "0" / "000000", 32 * (size - 1), {})
    assert (flips.counts.undetected_alterations, flips.counts.not_located) == (0, 0)
    assert flips.counts.by_fast


@pytest.mark.parametrize(
    "part",
    ["manifest/000002.json", "tree/checkpoint", "tree/0/000000", "catalog/index.msgpack", "t", "p"],
)
def test_a_file_that_is_missing_is_named(ground: Ground, part: str) -> None:
    path = ground.sealed(part)[0] if len(part) == 1 else ground.disk / "archive" / part
    path.unlink()
    assert path in {fault.file for fault in both(ground)}


def forged(ground: Ground) -> Path:
    """Change a row of truth, and make everything fit that takes no signature to make."""
    archive = ground.disk / "archive"
    victim = ground.sealed("t")[1]
    table = pq.ParquetFile(victim).read()
    services = table.column("service").to_pylist()
    services[7] = "other.consult"
    at = table.schema.get_field_index("service")
    table = table.set_column(at, table.schema.field(at), pa.array(services, pa.string()))
    victim.write_bytes(encode("t", table))
    previous = ""
    for path in sorted((archive / "manifest").iterdir()):
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        added = tuple(
            msgspec.structs.replace(file, sha256=sha256(victim), bytes=victim.stat().st_size)
            if archive / "sealed" / file.path == victim
            else file
            for file in manifest.added
        )
        manifest = msgspec.structs.replace(manifest, added=added, previous=previous)
        path.write_bytes(msgspec.json.encode(manifest))
        previous = sha256(path)
    shutil.rmtree(archive / "catalog")
    fold(archive)
    return victim


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_that_was_forged_with_all_hashes_made_anew_is_found(ground: Ground) -> None:
    """By fast, for the log names the SHA-256 of the manifests; by full, to the very row."""
    victim = forged(ground)
    fast, full = verify_fast(ground.place), verify_full(ground.place)
    assert any("SHA-256 than that of any manifest" in fault.what for fault in fast.faults)
    rows = [fault for fault in full.faults if fault.file == victim]
    first = int(victim.name.partition("-")[0])
    wrong = [fault for fault in rows if fault.what == "a row is not the record of its leaf"]
    assert [(fault.leaf, fault.row_group) for fault in wrong] == [(first + 7, 0)]
    assert any("range_root" in fault.what for fault in rows)


def test_a_forger_who_changes_the_entries_of_the_manifests_too_is_found_by_fast(
    ground: Ground,
) -> None:
    """The sealed entry that names the manifest leads to the tree, which he cannot sign."""
    place = msgspec.structs.replace(ground.place, log=None)  # nobody has the write-ahead files
    for path in ground.sealed("t"):
        table = pq.ParquetFile(path).read()
        digests = table.column("digest").to_pylist()
        if any(digests):
            forged_digests = [None if each is None else bytes(32) for each in digests]
            at = table.schema.get_field_index("digest")
            column = pa.array(forged_digests, table.schema.field(at).type)
            path.write_bytes(encode("t", table.set_column(at, table.schema.field(at), column)))
    fast = verify_fast(place)
    assert any("of any manifest" in fault.what for fault in fast.faults)


def test_two_rows_that_change_places_are_found(ground: Ground) -> None:
    """Each is a record of the log; neither is the one of its leaf."""
    path = ground.sealed("t")[0]
    table = pq.ParquetFile(path).read()
    order = [1, 0, *range(2, len(table))]
    path.write_bytes(encode("t", table.take(order)))
    whats = {fault.what for fault in verify_full(ground.place).faults if fault.file == path}
    assert "a row is not the record of its leaf" in whats
    assert "column seq is not what the order fixed" in whats


@pytest.mark.parametrize(
    ("column", "value"), [("slot", "w9"), ("record", 1), ("node", "b"), ("b", 1)]
)
def test_a_column_that_is_no_part_of_a_record_counts_too(
    ground: Ground, column: str, value: object
) -> None:
    path = ground.sealed("t")[0]
    table = pq.ParquetFile(path).read()
    at = table.schema.get_field_index(column)
    field = table.schema.field(at)
    kept = table.column(column).combine_chunks()
    mask = pa.array([row == 9 for row in range(len(table))])
    changed = pc.if_else(mask, pa.scalar(value, field.type), kept)
    path.write_bytes(encode("t", table.set_column(at, field, changed)))
    found = [fault for fault in verify_full(ground.place).faults if fault.file == path]
    assert any(column in fault.what and fault.leaf is not None for fault in found)


def test_an_archive_that_was_set_back_to_an_older_copy_is_found(
    ground: Ground, tmp_path: Path
) -> None:
    """The last checkpoint lies elsewhere, and is not older."""
    older = tmp_path / "older"
    shutil.copytree(ground.disk / "archive", older)
    pipeline = ground.pipeline()
    pipeline.start()
    pipeline.record("w0", 5)
    pipeline.settle()
    pipeline.close()
    assert both(ground) == []
    shutil.rmtree(ground.disk / "archive")
    older.rename(ground.disk / "archive")
    faults = both(ground)
    assert any("ends before byte" in fault.what for fault in faults)
    assert any("the lines end at leaf" in fault.what for fault in faults)


def test_a_manifest_whose_entry_is_still_to_come_is_a_note(ground: Ground) -> None:
    """The sealer died between the two; it records it when it starts again."""
    pipeline = ground.pipeline()
    pipeline.start()
    pipeline.record("w0", 5)
    pipeline.sequence()
    pipeline.seal()
    pipeline.close()  # nobody sequenced the entry
    fast = verify_fast(ground.place)
    assert fast.faults == []
    assert [note for note in fast.notes if "still to be written" in note]


def test_a_part_of_the_leaves_can_be_checked_by_itself(ground: Ground) -> None:
    """A fault elsewhere is for who checks elsewhere."""
    first, second, *_ = ground.sealed("t")
    table = pq.ParquetFile(second).read()
    second.write_bytes(encode("t", table.take([1, 0, *range(2, len(table))])))
    begin = int(second.name.partition("-")[0])
    assert "a row is not the record of its leaf" not in {
        fault.what for fault in verify_full(ground.place, Range(0, begin)).faults
    }
    found = verify_full(ground.place, Range(begin))
    assert second.name in names(found)
    one = verify_full(ground.place, Range(quarter="2026Q4"))
    assert 0 < one.leaves < one.sealed_leaves
    assert first.parent.parent.name == "q=2026Q4"


def words(ground: Ground) -> list[str]:
    disk = ground.disk
    return [
        "--archive", str(disk / "archive"), "--vkeys", str(ground.keys.checkpoint / "vkeys"),
        "--last-checkpoint", str(disk / "state" / "last-checkpoint"),
        "--keys", str(ground.keys.quarters), "--log", str(disk / "log"),
    ]  # fmt: skip


@pytest.mark.parametrize("check", ["fast", "full"])
def test_the_verbs_say_what_they_found_and_where(
    ground: Ground, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "verify", check, *words(ground), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["faults"] == 0
    path = ground.sealed("t")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["log", "verify", check, *words(ground)]) == 1
    out = capsys.readouterr().out
    assert f"{path}: its SHA-256 is not the one in its manifest" in out
    assert "no faults" not in out
