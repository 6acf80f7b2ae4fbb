"""The sequencer: every durable record once, in order, under a checkpoint, whatever is killed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.manifest import Cursor, Manifest
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.slots import file_of
from ksz_router.privacylog.tree.anchor import AnchorRefused, SequencerRuns
from ksz_router.privacylog.tree.checkpoint import parse_checkpoint
from ksz_router.privacylog.tree.order import Order, OrderDamaged
from ksz_router.privacylog.tree.places import LogOlder
from tests.privacylog_world import NEXT_QUARTER_NS, NOW_NS, crash
from tests.sequence_ground import ORIGIN, Faulty, Ground, Killed, in_memory


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder whose flushes cost nothing: what a power cut takes is taken by the test itself."""
    with in_memory() as folder:
        yield folder


def name_of(descriptor: int) -> str:
    """The name of an open file."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


def test_all_slots_come_under_one_checkpoint(ground: Ground) -> None:
    """Two workers and a reader, several files, a clean stop and a crash."""
    sequencer = ground.sequencer()
    ground.signer.roots.clear()
    first, second, reader = ground.open(), ground.open(slot="w1"), ground.open(slot="v-0-0")
    for _ in range(4):
        first.commit(ground.records(40), NOW_NS)
        second.commit(ground.records(3), NOW_NS)
        assert sequencer.cycle(NOW_NS).records == 43
    reader.commit(ground.records(1), NOW_NS)
    reader.close()
    crash(second)
    first.close()
    assert sequencer.cycle(NOW_NS).records == 1
    ground.open(slot="w1").close()  # settles what is open
    assert sequencer.cycle(NOW_NS).records == 12
    assert sequencer.cycle(NOW_NS).records == 0
    sequencer.close()
    assert ground.check() == 4 * 43 + 1 + 12
    assert len(ground.signer.roots) == 6  # nothing new, nothing signed


def test_a_frame_that_comes_during_the_flush_waits(ground: Ground) -> None:
    """It was read by nobody before the flush, so nothing says that it is durable."""
    writer = ground.open()

    class Late(Disk):
        more = ground.records(2)

        def flush(self, descriptor: int) -> None:
            if name_of(descriptor).endswith(".wal") and self.more:
                super().flush(descriptor)
                if self.armed:
                    writer.commit(self.more, NOW_NS)
                    self.more = []
                return
            super().flush(descriptor)

        armed = False

    disk = Late()
    sequencer = ground.sequencer(disk)
    sequencer.cycle(NOW_NS)
    writer.commit(ground.records(5), NOW_NS)
    disk.armed = True
    assert sequencer.cycle(NOW_NS).records == 5
    assert disk.more == []
    assert sequencer.cycle(NOW_NS).records == 2
    sequencer.close()
    ground.check()


def test_each_file_is_flushed_after_it_is_read_and_before_it_is_ordered(ground: Ground) -> None:
    """Once when it is opened, to see what is on disk; and once more, when it was read."""
    calls = []

    class Told(Disk):
        def flush(self, descriptor: int) -> None:
            calls.append(name_of(descriptor))
            super().flush(descriptor)

    sequencer = ground.sequencer(Told())
    writer = ground.open()
    writer.commit(ground.records(1), NOW_NS)
    sequencer.cycle(NOW_NS)
    for _ in range(20):  # goes over into a further file
        writer.commit(ground.records(1), NOW_NS)
    calls.clear()
    sequencer.cycle(NOW_NS)
    sequencer.close()
    assert calls[:4] == ["000001.wal", "000002.wal", "000002.wal", "000000000000"]
    ground.check()


def test_a_quarter_changes_within_a_cycle(ground: Ground) -> None:
    """Leaves of each file are salted under the keys that its header names."""
    writer = ground.open()
    writer.commit(ground.records(3), NOW_NS)
    writer.commit(ground.records(3), NEXT_QUARTER_NS)
    sequencer = ground.sequencer()
    assert sequencer.cycle(NEXT_QUARTER_NS).records == 6
    sequencer.close()
    lines = [line for line in Order(ground.archive / "order").lines() if line.records]
    assert [line.key_id[:6] for line in lines] == ["2026Q4", "2027Q1"]
    ground.check()


def story(ground: Ground, disk: Disk) -> None:
    """Three cycles with two slots, a rotation, a clean stop; the sequencer may be killed."""
    first, second = ground.open(), ground.open(slot="w1")
    first.commit(ground.records(300), NOW_NS)
    sequencer = None
    try:
        sequencer = ground.sequencer(disk)
        sequencer.cycle(NOW_NS)
        second.commit(ground.records(5), NOW_NS)
        first.close()
        sequencer.cycle(NOW_NS)
        second.close()
        sequencer.cycle(NOW_NS)
    finally:
        if sequencer is not None:
            sequencer.close()
        for writer in (first, second):
            if not writer._closed:
                crash(writer)


def calls_of_story(folder: Path) -> int:
    disk = Faulty(10**9, "before")
    story(Ground(folder), disk)
    return 10**9 - disk._left


@pytest.mark.parametrize("how", ["before", "after", "torn", "power"])
def test_killed_at_each_step_nothing_is_lost_doubled_or_signed_twice(
    memory: Path, how: str
) -> None:
    """At each call of the disk; then a new run completes what the order fixed, and goes on."""
    calls = calls_of_story(memory / "whole")
    assert calls > 30
    ground = Ground(memory / "ground")
    for at in range(1, calls + 1):
        for name in ("log", "archive"):
            shutil.rmtree(memory / "ground" / name, ignore_errors=True)
        ground.last_checkpoint.unlink(missing_ok=True)
        ground.signer.roots.clear()
        disk = Faulty(at, how)
        with pytest.raises(Killed):
            story(ground, disk)
        signed = dict(ground.signer.roots)
        again = ground.sequencer()
        again.cycle(NOW_NS)
        again.close()
        ground.check()
        assert signed.items() <= ground.signer.roots.items()


def test_killed_again_and_again_while_it_starts(ground: Ground) -> None:
    """A start is repeated until it comes through, from whatever the one before left."""
    with pytest.raises(Killed):
        story(ground, Faulty(22, "power"))
    for at in range(1, 40):
        disk = Faulty(at, "torn" if at % 2 else "after")
        try:
            sequencer = ground.sequencer(disk)
        except Killed:
            continue
        sequencer.close()
        if not disk.is_hit:
            break
    else:
        pytest.fail("it never came through")
    again = ground.sequencer()
    again.cycle(NOW_NS)
    again.close()
    ground.check()


def sequenced(ground: Ground, records: int = 5) -> None:
    """One run that orders some more."""
    writer = ground.open()
    writer.commit(ground.records(records), NOW_NS)
    sequencer = ground.sequencer()
    sequencer.cycle(NOW_NS)
    sequencer.close()
    writer.close()


def test_two_at_once_are_refused(ground: Ground, tmp_path: Path) -> None:
    """Whether they share the archive, the last checkpoint, or both."""
    one = ground.sequencer()
    with pytest.raises(SequencerRuns):
        ground.sequencer()
    archive, ground.archive = ground.archive, tmp_path / "another"
    with pytest.raises(SequencerRuns, match="last-checkpoint"):
        ground.sequencer()
    ground.archive, ground.last_checkpoint = archive, tmp_path / "another-checkpoint"
    with pytest.raises(SequencerRuns, match="tree"):
        ground.sequencer()
    one.close()


def refused(ground: Ground, kind: type[PrivacyLogError], words: str) -> None:
    signed = dict(ground.signer.roots)
    anchor = ground.last_checkpoint.read_bytes() if ground.last_checkpoint.exists() else b""
    with pytest.raises(kind, match=words):
        ground.sequencer()
    assert ground.signer.roots == signed
    assert not anchor or ground.last_checkpoint.read_bytes() == anchor


@pytest.mark.parametrize("part", ["archive", "archive/tree", "archive/order"])
def test_a_restored_old_copy_of_the_archive_is_refused(
    ground: Ground, tmp_path: Path, part: str
) -> None:
    """Its tree is smaller than what was signed."""
    sequenced(ground)
    shutil.copytree(tmp_path / part, tmp_path / "copy")
    sequenced(ground)
    shutil.rmtree(tmp_path / part)
    shutil.copytree(tmp_path / "copy", tmp_path / part)
    refused(ground, PrivacyLogError, "newest copy of the archive")


def test_an_empty_archive_beside_a_checkpoint_is_refused(ground: Ground) -> None:
    sequenced(ground)
    shutil.rmtree(ground.archive)
    refused(ground, OrderDamaged, "newest copy of the archive")


def test_another_tree_is_refused(ground: Ground) -> None:
    """A leaf that was changed under a checkpoint changes the root."""
    sequenced(ground)
    with (ground.archive / "tree" / "0" / "000000").open("r+b") as file:
        file.write(b"another leaf")
    refused(ground, AnchorRefused, "not those that were signed")


def test_a_missing_last_checkpoint_is_refused(ground: Ground) -> None:
    """Only where there is no tree at all does one begin."""
    sequenced(ground)
    ground.last_checkpoint.unlink()
    refused(ground, AnchorRefused, "newest copy of that file")


def test_an_old_copy_of_the_last_checkpoint_is_refused(ground: Ground) -> None:
    """What is shown was signed: a tree of that size may not be signed again."""
    sequenced(ground)
    old = ground.last_checkpoint.read_bytes()
    sequenced(ground)
    ground.last_checkpoint.write_bytes(old)
    refused(ground, AnchorRefused, "newest copy of the last checkpoint")


def test_the_last_checkpoint_of_another_log_is_refused(ground: Ground, tmp_path: Path) -> None:
    sequenced(ground)
    other = Ground(tmp_path / "other")
    sequenced(other)
    shutil.copy(other.last_checkpoint, ground.last_checkpoint)
    refused(ground, AnchorRefused, "newest copy")


@pytest.mark.parametrize("loss", ["file", "slot", "shorter", "other"])
def test_a_restored_old_copy_of_the_log_is_refused(ground: Ground, loss: str) -> None:
    """Frames that were ordered are gone, or others are in their place."""
    sequenced(ground)
    sequenced(ground)
    newest = ground.files()[-1]
    match loss:
        case "file":
            newest.unlink()
        case "slot":
            shutil.rmtree(ground.slot)
        case "shorter":
            with newest.open("r+b") as file:
                file.seek(2 * 4096)
                file.write(bytes(newest.stat().st_size - 2 * 4096))
        case "other":
            with newest.open("r+b") as file:
                file.seek(2 * 4096 + 50)
                file.write(b"other")
    refused(ground, LogOlder, "newest copy of the privacy log")


@pytest.mark.parametrize("sealed_frame", [1, 2])
def test_a_file_may_be_gone_once_it_is_sealed(ground: Ground, sealed_frame: int) -> None:
    """All of it: up to the last frame that was ordered, which is the one that ends the file."""
    writer = ground.open()
    writer.commit(ground.records(2), NOW_NS)
    writer.close()
    sequencer = ground.sequencer()
    sequencer.cycle(NOW_NS)
    sequencer.close()
    ground.open().close()  # settles what is open in a further file
    file_of(ground.slot, 1).unlink()
    manifest = Manifest(
        number=1, previous="", origin=ORIGIN, node="router-a", made_at_us=0, sealed_leaves=2,
        slots={"w0": Cursor(1, sealed_frame, 2, 0, 0, is_last=False)}, added=(),
    )  # fmt: skip
    (ground.archive / "manifest").mkdir()
    (ground.archive / "manifest" / "000001.json").write_bytes(msgspec.json.encode(manifest))
    if sealed_frame == 1:
        refused(ground, LogOlder, "newest copy of the privacy log")
        return
    sequencer = ground.sequencer()
    assert sequencer.cycle(NOW_NS).records == 2
    assert sequencer.signed.size == 4
    sequencer.close()


@pytest.mark.parametrize("is_seen_between", [True, False])
def test_a_slot_that_was_renamed_goes_on_and_its_worker_begins_anew(
    ground: Ground, *, is_seen_between: bool
) -> None:
    """As docs/privacylog-format.md has it for a damaged slot; while it runs, and over a start."""
    sequenced(ground)
    writer = ground.open()
    writer.commit(ground.records(4), NOW_NS)
    sequencer = ground.sequencer()
    assert sequencer.cycle(NOW_NS).records == 4 + 5  # with the outcomes unknown of the first run
    writer.commit(ground.records(3), NOW_NS)
    crash(writer)
    ground.slot.rename(ground.log / "q-2026-11-22-w0")
    if is_seen_between:
        assert sequencer.cycle(NOW_NS).records == 3
    anew = ground.open()
    anew.commit(ground.records(7), NOW_NS)
    assert sequencer.cycle(NOW_NS).records == (7 if is_seen_between else 10)
    sequencer.close()
    (ground.log / "q-2026-11-22-w0").rename(ground.log / "q-2026-11-23-w0")
    anew.close()
    for _ in range(2):
        sequencer = ground.sequencer()
        assert sequencer.cycle(NOW_NS).records == 0
        sequencer.close()
    assert ground.sequenced.check(is_renamed=True) == 5 + 9 + 3 + 7


def test_a_damaged_slot_stands_still_and_the_others_go_on(ground: Ground) -> None:
    """A torn tail is waited for; damage before whole frames is told."""
    writer, other = ground.open(), ground.open(slot="w1")
    for _ in range(3):
        writer.commit(ground.records(1), NOW_NS)
    with file_of(ground.slot, 1).open("r+b") as file:
        file.seek(2 * 4096 + 50)
        file.write(b"other")
    sequencer = ground.sequencer()
    assert sequencer.cycle(NOW_NS)[::3] == (1, {})
    other.commit(ground.records(2), NOW_NS)
    found = sequencer.cycle(NOW_NS)
    assert found.records == 2
    assert "w0" in found.stalled
    sequencer.close()


def test_a_torn_tail_is_passed_over_once_the_next_file_names_the_end(ground: Ground) -> None:
    writer = ground.open()
    for _ in range(3):
        writer.commit(ground.records(1), NOW_NS)
    crash(writer)
    with file_of(ground.slot, 1).open("r+b") as file:
        file.seek(3 * 4096 + 50)
        file.write(b"torn!")
    sequencer = ground.sequencer()
    for _ in range(3):
        assert sequencer.cycle(NOW_NS).stalled == {}
    assert sequencer.signed.size == 2
    ground.open().close()
    assert sequencer.cycle(NOW_NS).records == 2
    sequencer.close()
    ground.check()


def test_keys_may_be_gone_once_all_is_ordered(ground: Ground) -> None:
    """A quarter expires; the last file of a slot that was not used since may have no last frame."""
    writer = ground.open()
    writer.commit(ground.records(2), NOW_NS)
    crash(writer)
    sequencer = ground.sequencer()
    sequencer.cycle(NOW_NS)
    sequencer.close()
    (ground.keys / "2026Q4.json").unlink()
    sequencer = ground.sequencer()
    assert sequencer.cycle(NOW_NS).stalled == {}
    sequencer.close()


def test_without_its_keys_a_slot_stands_still(ground: Ground) -> None:
    """And goes on by itself when they are back."""
    key, aside = ground.keys / "2026Q4.json", ground.keys / "aside"
    writer = ground.open()
    writer.commit(ground.records(2), NOW_NS)
    key.rename(aside)
    sequencer = ground.sequencer()
    assert "keys quarter" in sequencer.cycle(NOW_NS).stalled["w0"]
    aside.rename(key)
    assert sequencer.cycle(NOW_NS)[::3] == (2, {})
    sequencer.close()


def test_what_is_left_over_by_a_bound_comes_next(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no slot waits for ever behind another."""
    monkeypatch.setattr("ksz_router.privacylog.tree.sequence.sequence_records_max", 10)
    first, second = ground.open(), ground.open(slot="w1")
    for _ in range(6):
        first.commit(ground.records(10), NOW_NS)
    second.commit(ground.records(10), NOW_NS)
    sequencer = ground.sequencer()
    found = [sequencer.cycle(NOW_NS) for _ in range(2)]
    assert [(each.records, each.has_more) for each in found] == [(10, True), (10, True)]
    assert {slot for slot, _, _ in ground.ordered()} == {"w0", "w1"}
    while sequencer.cycle(NOW_NS).has_more:
        pass
    sequencer.close()
    assert ground.check() == 70


def test_the_first_checkpoint_of_each_hour_is_kept(ground: Ground) -> None:
    hour_ns = 3_600_000_000_000
    writer = ground.open()
    sequencer = ground.sequencer()
    for at in (0, 1, hour_ns, hour_ns + 1):
        writer.commit(ground.records(1), NOW_NS)
        sequencer.cycle(NOW_NS + at)
    sequencer.close()
    kept = sorted((ground.archive / "tree" / "checkpoints").iterdir())
    sizes = [parse_checkpoint(file.read_bytes(), ground.signer.vkeys).size for file in kept]
    assert sizes == [0, 3]
    assert [file.suffix for file in kept] == [".note", ".note"]
