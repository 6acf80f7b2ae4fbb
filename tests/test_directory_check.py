"""What the check finds in values, families and journal that no writer makes, or remarks."""

import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from ksz_router.directory import folder, journal, marks, notice
from ksz_router.directory.change import Change, Operation
from ksz_router.directory.check import check
from ksz_router.directory.packing import Record, pack, pack_key
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line, NumberStatus
from tests.directory_files import A, B, C, D, line, loaded, person
from tests.directory_model import NOW_US

Spoil = Callable[["lmdb.Transaction[bytes]", folder.Databases], object]

FIRST, SECOND = b"1" * 16, b"2" * 16
UNTOLD = notice.Notice(NOW_US, FIRST, Operation.CANCEL, D, D, "")


def at(capacity: int, begin: int, end: int = OPEN) -> Line:
    return Line(17, 1, capacity, 1, begin, end)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Three numbers of one person, and another; versions 2 to 4 are changes."""
    loaded(tmp_path, person(A), person(B), person(C), line(A))
    writer = Writer.open(tmp_path / "directory")
    writer.apply([Change(b"0" * 16, D, Operation.NEW_NUMBER)], NOW_US)
    writer.apply([Change(FIRST, A, Operation.REPLACE, other=B)], NOW_US)
    writer.apply([Change(SECOND, B, Operation.REPLACE, other=C)], NOW_US)
    writer.close()
    return tmp_path / "directory"


def spoilt(target: Path, spoil: Spoil) -> list[str]:
    """Write as somebody would who knows the format, marks included; then check."""
    place = target / "version-00000001"
    environment = folder.open_to_write(place)
    databases = folder.Databases(environment)
    with environment.begin(write=True) as transaction:
        spoil(transaction, databases)
    environment.close()
    marks.write_mark(place, marks.make_mark(place))
    return check(target)


def record(insz: str, *others: str, lines: tuple[Line, ...] = ()) -> Spoil:
    """Put another record under a number; replaced unless it is the last one's."""
    status = NumberStatus.ACTIVE if insz == C else NumberStatus.REPLACED
    value = pack(Record(status=status, others=others, lines=lines))
    return lambda transaction, databases: transaction.put(
        pack_key(insz), value, db=databases.persons
    )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            record(A, C, B, lines=(at(2, 20150101, 20150131), at(2, 20150131))),
            "two lines of one role and capacity share a day",
        ),
        (record(A, C), "the person's numbers do not name each other"),
        (record(A, B, C, lines=(at(2, 20150101),)), "do not agree which one is in use"),
        (record(A, C, A, B), "names a number of the person twice"),
        (record(C, A), "the person's numbers do not name each other"),
        (
            lambda transaction, databases: transaction.delete(
                journal.key_of(3), db=databases.changes
            ),
            "the journal has nothing between versions 2 and 4",
        ),
        (
            lambda transaction, databases: transaction.delete(
                journal.key_of(4), db=databases.changes
            ),
            "the journal ends at version 3, the directory is at 4",
        ),
        (
            lambda transaction, databases: transaction.delete(FIRST, db=databases.applied),
            "version 3 of the journal is not noted under its exchange id",
        ),
        (
            lambda transaction, databases: transaction.put(
                b"3" * 16, journal.pack_note(4, None), db=databases.applied
            ),
            "exchange ids are noted that the journal does not know",
        ),
        (
            lambda transaction, databases: transaction.put(
                journal.key_of(3), b"\xc1", db=databases.changes
            ),
            "row 2 of the journal",
        ),
        (
            lambda transaction, databases: transaction.put(
                notice.key_of(5, 0), notice.pack(UNTOLD), db=databases.notices
            ),
            "a notice waits for a change that the directory does not hold",
        ),
        (
            lambda transaction, databases: transaction.put(
                notice.key_of(3, 0), b"\xc1", db=databases.notices
            ),
            "a notice cannot be read",
        ),
        (
            lambda transaction, databases: transaction.put(
                folder.STATE, struct.pack(">QQQ", 4, 4, 2), db=databases.meta
            ),
            "4 numbers and 1 lines, 4 and 2 were written",
        ),
    ],
)
def test_the_check_finds_what_no_writer_makes(target: Path, spoil: Spoil, problem: str) -> None:
    """Each by a sentence of its own, which names nobody; and what is not spoilt is sound."""
    assert check(target) == []
    problems = spoilt(target, spoil)
    assert any(problem in found for found in problems)
    assert not any(insz in found for insz in (A, B, C) for found in problems)


def test_unknown_codes_and_doubled_lines_are_remarked_and_admitted(target: Path) -> None:
    """The official lists are older than some sectors; a replacement moves no line."""
    lines = (at(2, 20150101), Line(17, 1, 333, 1, 20150101, OPEN))
    with_more = record(C, B, A, lines=lines)

    def spoil(transaction: "lmdb.Transaction[bytes]", databases: folder.Databases) -> None:
        with_more(transaction, databases)
        state = struct.pack(">QQQ", 4, 4, 3)
        transaction.put(folder.STATE, state, db=databases.meta)

    assert spoilt(target, spoil) == []
    remarks: list[str] = []
    assert check(target, remark=remarks.append) == []
    assert remarks == [
        "1 lines of sector 17, type 1 in capacity 333, which is on no official list",
        (
            "1 persons with lines of one role and capacity under two numbers that share a day, "
            "from before a replacement"
        ),
    ]
