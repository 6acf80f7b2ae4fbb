"""The writer beside readers, backups, kills and other writers; real processes, real files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ksz_router.cli import main
from ksz_router.directory import Directory, DirectoryError
from ksz_router.directory.backup import RestoreRefusedError, Wanted, back_up, restore
from ksz_router.directory.change import Applied, Change, Operation, Reason, Refused
from ksz_router.directory.check import check
from ksz_router.directory.marks import NotCheckedError, read_mark
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line
from tests.directory_breaking import break_at, die
from tests.directory_child import BATCH, batch
from tests.directory_files import A, B, line, loaded, person
from tests.directory_model import NOW_US

ROOT = Path(__file__).parents[1]
DAY_US = 86_400_000_000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory of two persons."""
    loaded(tmp_path, person(A), line(A), person(B))
    return tmp_path / "directory"


def inscribe(exchange: int, capacity: int = 3, insz: str = A) -> Change:
    what = Line(17, 1, capacity, 1, 20240101, OPEN)
    return Change(exchange.to_bytes(16, "big"), insz, Operation.INSCRIBE, what)


def test_a_killed_writer_loses_nothing_that_it_answered(target: Path) -> None:
    """Seen by a reader, in a backup that was taken meanwhile, and applied once when asked again."""
    words = [sys.executable, "-m", "tests.directory_child", str(target)]
    answered = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        directory = Directory.open(target)
        for _ in range(3):
            answered = int(child.stdout.readline())
            directory.look_up([A])
            assert directory.version >= answered
        directory.close()
        backup = target.parent / "backup"
        made = back_up(target, backup)
        for _ in range(3):
            answered = int(child.stdout.readline())
        child.kill()
    assert made.version % BATCH == 1
    assert made.lines == made.version
    assert check(backup) == []

    writer = Writer.open(target)
    reached = writer.version
    assert reached >= answered
    assert reached % BATCH == 1
    for index in range(answered // BATCH + 2):
        for change, verdict in zip(batch(index), writer.apply(batch(index), NOW_US), strict=True):
            version = int.from_bytes(change.exchange, "big") + 2
            assert isinstance(verdict, Applied)
            assert (verdict.version, verdict.repeated) == (version, version <= reached)
    assert writer.lines_count == writer.version
    writer.close()
    assert check(target) == []

    came_back = restore(backup, target.parent / "elsewhere", wanted=Wanted(target))
    assert came_back.came_from == came_back.lines == max(reached, index * BATCH + BATCH + 1)


def test_who_changes_a_directory_is_alone(target: Path, tmp_path: Path) -> None:
    """A second writer, a load, a restore and a check are refused while it is open."""
    writer = Writer.open(target)
    for attempt in (
        lambda: Writer.open(target),
        lambda: loaded(tmp_path, person(A)),
        lambda: check(target),
        lambda: restore(target, target),
    ):
        with pytest.raises(DirectoryError, match="is being changed by a writer"):
            attempt()
    writer.close()
    writer.close()
    Writer.open(target).close()


def test_a_live_file_serves_after_a_death_and_a_copy_of_it_does_not(target: Path) -> None:
    """The inode tells them apart; a clean stop writes what the file is."""
    writer = Writer.open(target)
    writer.apply([inscribe(1)], NOW_US)
    version_folder = target / "version-00000001"
    assert read_mark(version_folder).live
    die(writer)
    Directory.open(target).close()
    copy = target.parent / "copy"
    shutil.copytree(target, copy)
    for opened in (Directory.open, Writer.open):
        with pytest.raises(NotCheckedError):
            opened(copy)
    Writer.open(target).close()
    mark = read_mark(version_folder)
    assert (mark.live, mark.sha256) == (False, "")
    assert mark.bytes == (version_folder / "data.mdb").stat().st_size
    assert check(copy) == []
    directory = Directory.open(copy)
    directory.look_up([])
    assert directory.version == 2
    directory.close()


def test_what_is_old_is_forgotten_and_what_is_kept_is_not(target: Path) -> None:
    """Journal and exchange ids together, by the days that the writer is told."""
    writer = Writer.open(target, keep_days=2)
    writer.apply([inscribe(1), inscribe(2)], NOW_US)
    writer.apply([inscribe(3, 4)], NOW_US + DAY_US)
    writer.apply([inscribe(4, 5)], NOW_US + 2 * DAY_US + 1)
    kept = [writer.note_of(n.to_bytes(16, "big")) for n in range(1, 5)]
    assert [note and (note.version, note.reason) for note in kept] == [
        None,
        None,
        (3, None),
        (4, None),
    ]
    again = writer.apply([inscribe(2), inscribe(3, 4)], NOW_US + 2 * DAY_US + 1)
    assert again[0] == Refused(Reason.OVERLAPS)
    assert isinstance(again[1], Applied)
    assert again[1].repeated
    writer.close()
    assert check(target) == []


def test_a_bulk_load_goes_on_from_the_last_change(target: Path, tmp_path: Path) -> None:
    """The version is higher than any before, and an exchange id stays known."""
    writer = Writer.open(target)
    writer.apply([inscribe(1), inscribe(2, 4)], NOW_US)
    writer.close()
    assert loaded(tmp_path, person(A), person(B)).version == 4
    writer = Writer.open(target)
    verdict = writer.apply([inscribe(1)], NOW_US)[0]
    assert verdict == Applied(2, (), A, repeated=True)
    assert writer.version == 4
    writer.close()


@pytest.mark.parametrize("at", [20, 5000, -2000])
def test_a_damaged_backup_is_refused_before_it_can_be_served(target: Path, at: int) -> None:
    """And what served before goes on; nothing is left of the attempt."""
    backup = target.parent / "backup"
    back_up(target, backup)
    data = next(backup.glob("version-*")) / "data.mdb"
    content = bytearray(data.read_bytes())
    content[at] ^= 1
    data.write_bytes(content)
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(RestoreRefusedError, match="SHA-256 differs"):
        restore(backup, target)
    assert sorted(path.name for path in target.iterdir()) == before
    assert check(target) == []


def test_the_journal_must_join_on_and_reach_what_is_asked_for(target: Path) -> None:
    """A gap is refused, as is a moment before the backup; neither changes anything."""
    writer = Writer.open(target, keep_days=1)
    writer.apply([inscribe(1)], NOW_US)
    writer.close()
    backup = target.parent / "backup"
    back_up(target, backup)
    writer = Writer.open(target, keep_days=1)
    writer.apply([inscribe(2, 4)], NOW_US)
    writer.apply([inscribe(3, 5)], NOW_US + 2 * DAY_US)
    writer.close()
    with pytest.raises(DirectoryError, match="nothing between versions 2 and 4"):
        restore(backup, target, wanted=Wanted(target))
    with pytest.raises(DirectoryError, match="older backup"):
        restore(backup, target, wanted=Wanted(target, 1))
    assert check(target) == []


def test_a_journal_that_was_trimmed_whole_is_no_journal(target: Path) -> None:
    """Though no row shows the gap, the version of its directory does."""
    backup = target.parent / "backup"
    back_up(target, backup)
    writer = Writer.open(target, keep_days=1)
    writer.apply([inscribe(1)], NOW_US)
    writer.apply([Change(b"short", A, Operation.CANCEL)], NOW_US + 3 * DAY_US)
    writer.close()
    with pytest.raises(DirectoryError, match="nothing between versions 1 and 2"):
        restore(backup, target, wanted=Wanted(target))


def test_a_refusal_that_the_backup_holds_is_not_asked_for_again(target: Path) -> None:
    """A replay begins behind it, and takes along those that came after."""
    writer = Writer.open(target)
    writer.apply([inscribe(1), inscribe(2)], NOW_US)
    writer.close()
    backup = target.parent / "backup"
    back_up(target, backup)
    writer = Writer.open(target)
    writer.apply([inscribe(3), inscribe(4, 4)], NOW_US)
    writer.close()
    assert restore(backup, target, wanted=Wanted(target)).came_from == 3
    writer = Writer.open(target)
    repeated = writer.apply([inscribe(2), inscribe(3)], NOW_US)
    assert repeated == [Refused(Reason.OVERLAPS, repeated=True)] * 2
    writer.close()
    assert check(target) == []


def test_after_a_failed_write_nothing_is_written_before_it_was_opened_anew(target: Path) -> None:
    """What LMDB then holds is not known; the exchange ids tell it."""
    writer = Writer.open(target)
    break_at(writer, "after commit")
    for _ in range(2):
        with pytest.raises(DirectoryError, match="anew"):
            writer.apply([inscribe(1)], NOW_US)
    with pytest.raises(DirectoryError, match="an earlier write failed"):
        writer.look_up([A])
    writer.close()
    assert read_mark(target / "version-00000001").live
    writer = Writer.open(target)
    verdict = writer.apply([inscribe(1)], NOW_US)[0]
    assert isinstance(verdict, Applied)
    assert (verdict.version, verdict.repeated) == (2, True)
    writer.close()


def test_the_verbs_bring_back_what_was_before_a_mistake(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Backup, a good change, a mistake, and the directory as it was between them."""
    backup, place = target.parent / "backup", ["--directory", str(target)]
    assert main(["directory", "backup", str(backup), *place]) == 0
    assert main(["directory", "backup", str(backup), *place]) == 1
    writer = Writer.open(target)
    writer.apply([inscribe(1)], NOW_US)
    mistake = Change(b"m" * 16, A, Operation.REMOVE_ALL, Line(17, 1, 0, 0, 0, 0))
    writer.apply([mistake], NOW_US + 60_000_000)
    writer.close()
    until = ["--journal-of", str(target), "--until-time", "2024-02-01T12:00:30+00:00"]
    assert main(["directory", "restore", str(backup), *until, *place]) == 0
    assert "version 4, with the content of version 2" in capsys.readouterr().out
    assert main(["directory", "check", *place]) == 0
    directory = Directory.open(target)
    found = directory.look_up([A])[0]
    assert found is not None
    assert [row.capacity for row in found.lines] == [2, 3]
    directory.close()
    wrong = ["--until-time", "yesterday", "--journal-of", str(target)]
    for words in (["--until-version", "2"], wrong):
        assert main(["directory", "restore", str(backup), *words, *place]) == 2


def test_what_is_answered_is_on_the_disk(target: Path) -> None:
    """The flushes of LMDB are on: a kill would not show it, a power cut would."""
    writer = Writer.open(target)
    flags = writer._environment.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"]) == (True, True, False)
    writer.close()


def test_what_was_not_told_outlives_its_journal_and_a_restore(target: Path) -> None:
    """Trimmed or not; a restore has what its journal's directory had not told, up to its point."""

    def change(ordinal: int, operation: Operation, day: int = 0) -> Change:
        return Change(bytes([ordinal]) * 16, A, operation, day=day)

    writer = Writer.open(target, keep_days=1)
    writer.apply([change(1, Operation.CANCEL)], NOW_US)
    writer.close()
    backup = target.parent / "backup"
    back_up(target, backup)
    writer = Writer.open(target, keep_days=1)
    writer.apply([change(2, Operation.REACTIVATE), change(3, Operation.CANCEL)], NOW_US)
    first, second, third = writer.notices(b"", 9)
    writer.remove_notices([first.key])
    writer.close()
    restore(backup, target.parent / "other", wanted=Wanted(target, second.version))
    restored = Writer.open(target.parent / "other", keep_days=1)
    assert restored.notices(b"", 9) == [second]
    restored.close()
    restore(backup, target.parent / "other")
    restored = Writer.open(target.parent / "other", keep_days=1)
    assert restored.notices(b"", 9) == [first]
    restored.apply([change(4, Operation.REACTIVATE)], NOW_US + 3 * DAY_US)
    assert restored.note_of(bytes([1]) * 16) is None
    assert restored.notices(b"", 1) == [first]
    restored.close()
    writer = Writer.open(target)
    assert writer.notices(b"", 9) == [second, third]
    writer.close()
