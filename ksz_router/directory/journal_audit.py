"""What is wrong with the journal of a directory and with what is noted of exchange ids."""

from collections.abc import Iterator

import lmdb

from ksz_router.directory import journal
from ksz_router.directory.change import Operation
from ksz_router.directory.packing import DamagedError


def journal_problems(
    transaction: "lmdb.Transaction[memoryview]",
    changes: "lmdb._Database",
    notes: "lmdb._Database",
    version: int,
) -> Iterator[str]:
    """Judge every row: none is missing between the first and ``version``, and each is noted."""
    at, ordinal_at, rows, noted = 0, 0, 0, 0
    try:
        for key, value in transaction.cursor(changes):
            found, ordinal = journal.parts_of(key)
            entry = journal.unpack_entry(value)
            if at and not _joins(at, ordinal_at, found, ordinal, entry):
                yield f"the journal has nothing between versions {at} and {found}"
            at, ordinal_at = found, ordinal
            rows += 1
            if not entry.change.exchange:
                continue
            noted += 1
            note = transaction.get(entry.change.exchange, db=notes)
            if note is None or journal.unpack_note(note)[:2] != (found, entry.reason or None):
                yield f"version {found} of the journal is not noted under its exchange id"
    except DamagedError as error:
        yield f"row {rows + 1} of the journal: {error}"
        return
    if at and at != version:
        yield f"the journal ends at version {at}, the directory is at {version}"
    if noted != transaction.stat(notes)["entries"]:
        yield "exchange ids are noted that the journal does not know"


def _joins(at: int, ordinal_at: int, found: int, ordinal: int, entry: journal.Entry) -> bool:
    """Say whether a row follows on the one before it."""
    if ordinal:
        return (found, ordinal) == (at, ordinal_at + 1)
    if entry.change.operation is Operation.RESTORED:
        return entry.came_from == at < found
    if entry.change.operation is Operation.LOADED:
        return entry.came_from in (0, at) and at < found
    return found == at + 1
