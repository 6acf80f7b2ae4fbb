"""The journal of a directory is bounded by its rows: the oldest go, and nothing is made twice."""

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from ksz_router.directory.backup import Wanted, back_up, restore
from ksz_router.directory.change import Applied, Change, Operation, Reason, Refused
from ksz_router.directory.check import check
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.model import Line
from tests.daemon_ground import load_directory
from tests.test_directory_services import NOW_MS, exchange
from tests.worlds import LINES, PERSON

ROWS_MAX = 20
_HOUR_MS = 3_600_000


def made_ms(hour: int) -> int:
    return NOW_MS + hour * _HOUR_MS


def change(hour: int) -> Change:
    """A change of that hour; those of two hours are about different days."""
    line = Line(
        17,
        1,
        3,
        0,
        20300101 + hour // 28 * 100 + hour % 28,
        20300101 + hour // 28 * 100 + hour % 28,
    )
    return Change(exchange(hour, made_ms(hour)), PERSON, Operation.INSCRIBE, line)


def apply(writer: Writer, asked: int, now: int) -> Applied | Refused:
    """Ask for the change of one hour in another."""
    (verdict,) = writer.apply([change(asked)], made_ms(now) * 1000 + 1000)
    return verdict


def rows(writer: Writer) -> tuple[int, int]:
    """How many rows the journal has, and how many exchange ids are known."""
    with writer._environment.begin() as transaction:
        databases = writer._databases
        counts = [transaction.stat(db)["entries"] for db in (databases.changes, databases.applied)]
    return counts[0], counts[1]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    load_directory(tmp_path / "directory", {PERSON: LINES}, {})
    return tmp_path / "directory"


@pytest.fixture
def writer(target: Path) -> Iterator[Writer]:
    opened = Writer.open(target, journal_rows_max=ROWS_MAX)
    yield opened
    opened.close()


def test_no_more_rows_are_kept_than_the_bound_however_young(writer: Writer) -> None:
    """With as many notes of exchange ids; all of it within the days for which it would be kept."""
    for hour in range(100):
        assert isinstance(apply(writer, hour, hour), Applied)
        assert rows(writer)[0] <= ROWS_MAX
    assert rows(writer) == (ROWS_MAX, ROWS_MAX)


def test_a_large_batch_is_worked_off_by_those_that_follow(target: Path) -> None:
    """What is removed in one transaction is bounded too."""
    writer = Writer.open(target)
    for hour in range(300):
        apply(writer, hour, hour)
    writer.close()
    writer = Writer.open(target, journal_rows_max=1)
    apply(writer, 300, 300)
    first = rows(writer)[0]
    apply(writer, 301, 301)
    assert 1 < first < 100
    assert rows(writer)[0] == 1
    writer.close()


def test_a_retry_of_what_was_forgotten_is_refused_and_never_made_twice(
    target: Path, writer: Writer
) -> None:
    """Also after a removal, which would let it be made; over a restart and a load; a new one is."""
    for hour in range(50):
        apply(writer, hour, hour)
    meant = Line(17, 1, 3, 0, 20300101, 20300101)
    removal = Change(exchange(999, made_ms(50)), PERSON, Operation.REMOVE_LINE, meant)
    assert isinstance(writer.apply([removal], made_ms(50) * 1000)[0], Applied)
    before = writer.version
    assert apply(writer, 0, 51) == Refused(Reason.TICKET_TOO_OLD)
    kept = apply(writer, 45, 51)
    assert isinstance(kept, Applied)
    assert kept.repeated
    assert writer.version == before
    writer.close()
    again = Writer.open(target)
    assert apply(again, 0, 52) == Refused(Reason.TICKET_TOO_OLD)
    again.close()
    assert check(target) == []
    load_directory(target, {PERSON: LINES}, {})
    loaded = Writer.open(target)
    assert apply(loaded, 0, 53) == Refused(Reason.TICKET_TOO_OLD)
    assert isinstance(apply(loaded, 54, 54), Applied)
    loaded.close()


def test_what_age_alone_forgot_is_left_to_who_judges_ages(target: Path) -> None:
    """The bound was not reached: the days are judged where exchange ids come in."""
    writer = Writer.open(target, keep_days=1)
    for hour in range(0, 90, 10):
        apply(writer, hour, hour)
    assert rows(writer)[0] < 5
    assert apply(writer, 1, 91) != Refused(Reason.TICKET_TOO_OLD)
    writer.close()


def test_a_restore_to_a_point_that_the_journal_lost_says_so(target: Path, tmp_path: Path) -> None:
    """Whole or not at all: a gap is named, with the versions and what bounds the journal."""
    backups = [tmp_path / "old", tmp_path / "young"]
    version = 0
    for number, backup in enumerate(backups):
        back_up(target, backup)
        writer = Writer.open(target, journal_rows_max=ROWS_MAX)
        for hour in range(number * 15, number * 15 + 15):
            apply(writer, hour, hour)
        version = writer.version
        writer.close()
    with pytest.raises(
        DirectoryError, match=r"nothing between versions 1 and 1\d: .*journal_rows_max"
    ):
        restore(backups[0], tmp_path / "other", wanted=Wanted(journal_of=target))
    assert not (tmp_path / "other" / "current").exists()
    restored = restore(backups[1], tmp_path / "other", wanted=Wanted(journal_of=target))
    assert restored.came_from == version


def test_what_says_up_to_when_was_forgotten_may_not_be_damaged(writer: Writer) -> None:
    """It decides whether something is made twice."""
    with writer._environment.begin(writer._databases.meta, write=True) as transaction:
        assert isinstance(transaction, lmdb.Transaction)
        transaction.put(b"forgotten", b"short")
    with pytest.raises(DirectoryError, match="damaged"):
        apply(writer, 0, 0)
