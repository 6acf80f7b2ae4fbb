"""Steps of the sealer: what they seal, when, and that being killed anywhere changes nothing."""

import errno
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ksz_router.privacylog.archive import leaves
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import carried, catalog, newest, read_chain
from ksz_router.privacylog.archive.columns import to_table
from ksz_router.privacylog.archive.pieces import SegmentRefused
from ksz_router.privacylog.archive.places import file_of, manifest_file, sealed_path
from ksz_router.privacylog.archive.seal import LEAVES_READY, SLOT, WAIT_US, SealRefused
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import Kind, parse
from ksz_router.privacylog.keys import quarter_begin_ns
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.slots import file_of as wal_of
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import root_of
from tests.archive_ground import Ground
from tests.privacylog_world import FILE_BYTES, NEXT_QUARTER_NS, NOW_NS, crash, filled


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def commit(ground: Ground, *records: bytes, slot: str = "w0", file_bytes: int = FILE_BYTES) -> None:
    writer = ground.world.open(slot=slot, file_bytes=file_bytes)
    for record in records:
        writer.commit([record], ground.world.now_ns)
    writer.close()


class Refusing(Disk):
    """Refuses one call, before it is done or after it."""

    def __init__(self, at: int, when: str) -> None:
        self.left = at
        self._when = when

    def _refuse(self, when: str) -> None:
        if when == self._when:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, "refused")

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._refuse("before")
        super().write(descriptor, data, offset)
        self._refuse("after")

    def flush(self, descriptor: int) -> None:
        self._refuse("before")
        super().flush(descriptor)
        self._refuse("after")

    def replace(self, partial: Path, file: Path) -> None:
        self._refuse("before")
        super().replace(partial, file)
        self._refuse("after")


def test_a_step_seals_what_is_signed(ground: Ground) -> None:
    filled(ground.world)
    ground.seal()
    assert ground.truth() == ground.records
    manifest = newest(ground.archive)
    assert manifest is not None
    assert (manifest.number, manifest.sealed_leaves) == (1, 9)
    # SETTLED and LAST frames count; the entry of the manifest itself is not sealed yet.
    assert {slot: (c.file, c.frame, c.next_record) for slot, c in manifest.slots.items()} == {
        "w0": (1, 2, 3), "w1": (1, 2, 6),
    }  # fmt: skip
    for slot, cursor in manifest.slots.items():
        last = ground.world.frames(wal_of(ground.world.log / slot, 1))[-1]
        assert (cursor.offset, cursor.crc) == (last.offset + last.size, last.crc)
    (file,) = ground.files("t")
    data = file_of(ground.archive, file.path).read_bytes()
    assert (file.sha256, file.bytes) == (sha256(data).hexdigest(), len(data))
    assert (file.first_leaf, file.end_leaf, file.rows) == (0, 9, 9)
    times = [parse(record).at_us for record in ground.records]
    assert (file.first_us, file.end_us) == (min(times), max(times) + 1)


def test_what_was_sealed_is_recorded_in_the_log(ground: Ground) -> None:
    filled(ground.world)
    ground.seal()
    digests = [entry.digest for entry in ground.world.entries(SLOT)]
    assert digests == [sha256(manifest_file(ground.archive, 1).read_bytes()).digest()]
    # The next step seals that entry, under the next signature.
    commit(ground, ground.world.request(9))
    ground.seal()
    sealed = [parse(record) for record in ground.truth()]
    assert next(entry.digest for entry in sealed if entry.kind == Kind.SEALED) == digests[0]
    assert ground.truth() == ground.records


def exchanges(ground: Ground, kind: str) -> list[int]:
    """The exchanges of all rows of a kind of derived files."""
    column = "key" if kind == "k" else "exchange"
    return sorted(
        int.from_bytes(value, "big")
        for file in ground.files(kind)
        for rows in rows_of(kind, file_of(ground.archive, file.path))
        for value in rows[column].to_pylist()
    )


def test_derived_files_hold_the_exchanges(ground: Ground) -> None:
    world = ground.world
    filled(world)
    commit(ground, world.request(9), slot="w0")
    commit(ground, world.request(9), slot="w1")
    ground.seal()
    assert set(exchanges(ground, "p")) >= {1, 2, 3, 4, 5}
    assert exchanges(ground, "p").count(5) == 2  # of the person asked about and the further one
    assert set(exchanges(ground, "u")) >= {1, 2, 3, 4, 5}
    assert set(exchanges(ground, "k")) == {1, 2, 3, 4, 5, 9}
    (file,) = ground.files("p")
    tokens = next(rows_of("p", file_of(ground.archive, file.path)))["person"].to_pylist()
    assert (file.min_key, file.max_key) == (min(tokens).hex(), max(tokens).hex())
    assert sum(each.rows for each in ground.files("r")) > 0


def test_open_exchanges_are_carried_until_they_end(ground: Ground) -> None:
    world = ground.world
    writer = world.open()
    writer.commit([world.request(1), world.request(2), world.outcome(1)], NOW_NS)
    ground.seal()
    before = carried(ground.archive)
    assert before is not None
    assert 2 not in exchanges(ground, "p")
    writer.commit([world.outcome(2), world.request(3), world.outcome(3), world.request(4)], NOW_NS)
    ground.seal()
    after = carried(ground.archive)
    assert after is not None
    assert [file.path for file in ground.files("c")] == [after.path] != [before.path]
    assert exchanges(ground, "p") == [1, 2, 3]
    writer.commit([world.outcome(4), world.request(5, code=6001)], NOW_NS)
    writer.close()
    ground.seal()
    assert exchanges(ground, "p")[:4] == [1, 2, 3, 4]


def test_a_file_ends_where_the_keys_change(ground: Ground) -> None:
    """One slot has gone over to the next quarter, the other not yet: three files, in order."""
    world = ground.world
    for at_ns, slot in ((NEXT_QUARTER_NS, "w1"), (NOW_NS, "w0"), (NEXT_QUARTER_NS, "w2")):
        world.now_ns = at_ns
        commit(ground, world.request(1), slot=slot)
        ground.sequence()
    ground.seal()
    files = sorted(ground.files("t"), key=lambda file: file.first_leaf)
    assert [file.quarter for file in files] == ["2027Q1", "2026Q4", "2027Q1"]
    assert sorted(ground.truth()) == sorted(ground.records)
    for file in files:
        assert file.key_id == ground.keys.quarter(file.quarter).id
        assert file.path.startswith(f"q={file.quarter}/t/")
    manifest = newest(ground.archive)
    assert manifest is not None
    assert manifest.number == 1


def test_steps_are_bounded(ground: Ground) -> None:
    """Whole frames, at most so many leaves, and each step goes on where the one before ended."""
    world = ground.world
    commit(ground, *[world.request(n) for n in range(10)])
    ground.seal(leaves_max=4)
    ends = [each.manifest.sealed_leaves for each in read_chain(ground.archive)]
    assert ends == [4, 8, 10]
    assert ground.truth() == ground.records
    assert [(file.first_leaf, file.end_leaf) for file in ground.files("t")] == [
        (0, 4), (4, 8), (8, 10),
    ]  # fmt: skip


def test_only_what_is_signed_is_sealed(ground: Ground) -> None:
    commit(ground, ground.world.request(1))
    signed = ground.sequence()
    commit(ground, ground.world.request(2))
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    assert sealer.step(ground.now_us) is not None
    assert sealer.step(ground.now_us) is None
    writer.close()
    assert ground.sealed_leaves() == signed


def test_nothing_is_due_before_anything_is_signed(ground: Ground) -> None:
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    assert not sealer.is_due(ground.now_us)
    assert sealer.step(ground.now_us) is None
    writer.close()


def test_leaves_wait_for_others_ten_minutes(ground: Ground) -> None:
    commit(ground, ground.world.request(1, code=6001))
    ground.sequence()
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    at_us = ground.now_us
    assert not sealer.is_due(at_us + WAIT_US - 1)
    assert sealer.is_due(at_us + WAIT_US)
    sealer.step(at_us + WAIT_US)
    ground.sequence()
    # All that waits now says that something was sealed: that alone is no reason.
    assert sealer.signed() is not None
    assert not sealer.is_due(at_us + 10 * WAIT_US)
    commit(ground, ground.world.request(2, at_us=at_us + 2 * WAIT_US))
    ground.sequence()
    assert not sealer.is_due(at_us + 3 * WAIT_US - 1)
    assert sealer.is_due(at_us + 3 * WAIT_US)
    writer.close()


def test_enough_leaves_do_not_wait(ground: Ground) -> None:
    writer = ground.world.open(file_bytes=64 << 20)
    writer.commit([ground.world.request(1)] * (LEAVES_READY - 1), NOW_NS)
    ground.sequence()
    slot = ground.open_slot()
    sealer = ground.sealer(slot)
    assert not sealer.is_due(ground.now_us)
    writer.commit([ground.world.request(2)], NOW_NS)
    ground.sequence()
    assert sealer.is_due(ground.now_us)
    slot.close()
    writer.close()


def test_the_end_of_a_quarter_is_sealed_at_once(ground: Ground) -> None:
    end_us = quarter_begin_ns("2027Q1") // 1000
    commit(ground, ground.world.request(1, at_us=end_us - 1_000_000))
    ground.sequence()
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    assert not sealer.is_due(end_us - 1)
    assert sealer.is_due(end_us)
    writer.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_being_killed_anywhere_changes_nothing(ground: Ground, when: str) -> None:
    """A run of the sealer dies at each call of the disk; the next one ends what it began."""
    world = ground.world
    filled(world)
    commit(ground, world.request(11), slot="w2")
    signed = ground.sequence()
    at = 0
    while True:
        writer = ground.open_slot()
        disk = Refusing(at, when)
        try:
            sealer = ground.sealer(writer, disk=disk, leaves_max=6)
            while sealer.step(ground.now_us):
                pass
        except OSError as error:
            assert error.errno == errno.EIO
            crash(writer)
        else:
            writer.close()
            break
        at += 1
    assert at > 20
    assert ground.truth() == ground.records
    assert ground.sealed_leaves() == signed
    chain = list(read_chain(ground.archive))
    recorded = {entry.digest for entry in world.entries(SLOT)}
    assert {bytes.fromhex(each.sha256) for each in chain} <= recorded
    # The same files as those of a run that nothing befell.
    assert [file.path for file in ground.files("t")] == [
        file.path for each in chain for file in each.manifest.added if file.kind == "t"
    ]
    for kind in "tpukrc":
        for file in ground.files(kind):
            data = file_of(ground.archive, file.path).read_bytes()
            assert sha256(data).hexdigest() == file.sha256


def test_the_entry_of_the_newest_manifest_is_made_up_for(ground: Ground) -> None:
    """Killed between a manifest and its entry: the next run records it before anything else."""
    filled(ground.world)
    ground.seal()
    for file in (ground.world.log / SLOT).iterdir():
        file.unlink()
    (ground.world.log / SLOT).rmdir()
    writer = ground.open_slot()
    ground.sealer(writer)
    writer.close()
    (entry,) = ground.world.entries(SLOT)
    assert entry.digest == sha256(manifest_file(ground.archive, 1).read_bytes()).digest()


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def refused(ground: Ground, error: type[Exception], match: str = "") -> None:
    """A step is refused, and leaves no manifest."""
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    with pytest.raises(error, match=match):
        sealer.step(ground.now_us)
    writer.close()
    assert newest(ground.archive) is None


def test_a_leaf_that_is_not_in_the_tree_is_not_sealed(ground: Ground) -> None:
    filled(ground.world)
    ground.sequence()
    flip(ground.archive / "tree" / "0" / "000000", 32 * 4)
    refused(ground, SealRefused, "another root")


def test_rows_that_are_not_the_leaves_are_not_sealed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong between the frames and the disk, the tree tells."""
    filled(ground.world)
    ground.sequence()

    def other(records: list[bytes], **place: Any) -> object:
        return to_table([records[0], *records[:-1]], **place)

    monkeypatch.setattr(leaves, "to_table", other)
    refused(ground, SegmentRefused, "not those of the tree")


def test_a_disk_that_holds_something_else_is_noticed(ground: Ground) -> None:
    class Lying(Disk):
        def replace(self, partial: Path, file: Path) -> None:
            flip(partial, 1000)
            super().replace(partial, file)

    filled(ground.world)
    ground.sequence()
    writer = ground.open_slot()
    sealer = ground.sealer(writer, disk=Lying())
    with pytest.raises(SegmentRefused, match="not what was written"):
        sealer.step(ground.now_us)
    writer.close()
    assert newest(ground.archive) is None


def test_a_write_ahead_file_that_changed_is_not_sealed(ground: Ground) -> None:
    filled(ground.world)
    ground.sequence()
    file = wal_of(ground.world.log / "w1", 1)
    flip(file, 4096 + 60)
    refused(ground, LogCorrupt, "damaged or missing")
    file.unlink()
    refused(ground, LogCorrupt, "missing")


def test_what_was_ordered_is_sealed_from_the_folder_it_was_renamed_to(ground: Ground) -> None:
    """Where it was, another run of the slot may have begun a file of the same number."""
    world = ground.world
    commit(ground, world.request(1), world.request(2))
    ground.sequence()
    world.slot.rename(world.log / "q-2026-11-22-w0")
    commit(ground, world.request(3))
    ground.seal()
    assert ground.truth() == [world.request(number) for number in (1, 2, 3)]


def test_a_checkpoint_that_was_set_back_is_refused(ground: Ground) -> None:
    filled(ground.world)
    ground.sequence()
    checkpoint = ground.archive / "tree" / "checkpoint"
    old = checkpoint.read_bytes()
    commit(ground, ground.world.request(9))
    ground.seal()
    checkpoint.write_bytes(old)
    writer = ground.open_slot()
    with pytest.raises(SealRefused, match="older copy"):
        ground.sealer(writer).step(ground.now_us)
    checkpoint.unlink()
    with pytest.raises(SealRefused, match="missing"):
        ground.sealer(writer).is_due(ground.now_us)
    writer.close()


def test_the_manifest_has_the_root_of_each_file(ground: Ground) -> None:
    filled(ground.world)
    ground.seal(leaves_max=4)
    levels = Levels.reading(ground.archive / "tree")
    for file in ground.files("t"):
        leaves = levels.leaves(file.first_leaf, file.end_leaf)
        assert file.range_root == root_of(leaves).hex()
    levels.close()
    assert catalog(ground.archive, "2026Q4", "t").files == tuple(ground.files("t"))
    assert to_records(next(rows_of("t", file_of(ground.archive, ground.files("t")[0].path))))


def test_eight_runs_become_one(ground: Ground) -> None:
    """The rows are the same; the files that were merged are no longer named, and told about."""
    world = ground.world
    records = [r for n in range(1, 9) for r in (world.request(n), world.outcome(n))]
    commit(ground, *records, file_bytes=64 * 4096)
    ground.sequence()
    writer = ground.open_slot()
    sealer = ground.sealer(writer, leaves_max=2)
    while sealer.step(ground.now_us):
        pass
    before = exchanges(ground, "k")
    assert len(ground.files("k")) == 8
    merged = set()
    while manifest := sealer.merge(ground.now_us):
        merged |= set(manifest.removed)
        data = manifest_file(ground.archive, manifest.number).read_bytes()
        assert world.entries(SLOT)[-1].digest == sha256(data).digest()
    writer.close()
    (file,) = ground.files("k")
    assert (file.level, file.first_leaf, file.end_leaf) == (1, 0, 16)
    assert exchanges(ground, "k") == before
    assert {path for path in merged if "/k/" in path} == {
        sealed_path("k", "2026Q4", n, n + 2) for n in range(0, 16, 2)
    }
    assert len(ground.files("t")) == 8


def test_the_runs_of_a_quarter_that_is_over_become_one(ground: Ground) -> None:
    world = ground.world
    for number in range(3):
        commit(ground, world.request(number), world.outcome(number))
        ground.seal()
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    end_us = quarter_begin_ns("2027Q1") // 1000
    assert sealer.merge(end_us) is None
    writer.close()
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    while sealer.merge(end_us + 3_600_000_000):
        pass
    writer.close()
    assert len(ground.files("k")) == 1
