"""What the directory itself knows of changes, found by the exchange ids that brought them."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import lmdb

from ksz_router.directory import folder, journal, marks
from ksz_router.directory.change import Change, Reason
from ksz_router.directory.packing import DirectoryError


class Noted(NamedTuple):
    """What came of one exchange."""

    version: int
    """That the change made, or that a refusal met."""
    reason: Reason | None
    """Of a refusal."""
    change: Change | None
    """As it was applied, as long as the journal keeps it."""


def noted(path: Path, exchanges: Iterable[bytes]) -> dict[bytes, Noted]:
    """Return what came of those exchanges that the directory in ``path`` knows (still).

    What is found concerns a person: record the reading first.

    Raises:
        DirectoryError: the directory cannot be read.
        DamagedError: what is noted cannot be read.
    """
    version_folder = folder.current(path)
    marks.check_mark(version_folder)
    environment = folder.open_environment(version_folder, reads_all=True)
    try:
        applied = environment.open_db(folder.APPLIED, create=False)
        changes = environment.open_db(folder.CHANGES, create=False)
        with environment.begin(buffers=True) as transaction:
            found = {}
            for exchange in exchanges:
                value = transaction.get(exchange, db=applied)
                if value is None:
                    continue
                note = journal.unpack_note(value)
                row = None
                if note.reason is None:
                    row = transaction.get(journal.key_of(note.version), db=changes)
                change = journal.unpack_entry(row).change if row is not None else None
                found[exchange] = Noted(note.version, note.reason, change)
            return found
    except lmdb.Error as error:
        raise DirectoryError(
            f"{version_folder}: LMDB cannot read it ({error}); run `ksz-router directory check`"
        ) from error
    finally:
        environment.close()
