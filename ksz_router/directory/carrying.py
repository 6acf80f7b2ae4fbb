"""What a bulk load takes along from the version before it: journal, exchange ids, notices.

Without them a change that is delivered again after the load would be applied a second time, and
what became of a number would not be told.
"""

from pathlib import Path

import lmdb

from ksz_router.directory import folder, journal, marks
from ksz_router.directory.change import Operation
from ksz_router.directory.packing import DirectoryError

_ROWS_AT_ONCE = 20_000


def carry_over(target: Path, environment: lmdb.Environment, version: int, now_us: int) -> None:
    """Copy them from the version that serves into a new environment, and note the load.

    A directory that cannot be read any more takes nothing along: a load is what mends it.
    """
    databases = folder.Databases(environment)
    came_from = 0
    former = _former(target)
    if former is not None:
        try:
            came_from = folder.read_meta(target, former).version
            pairs = (
                (former.open_db(folder.CHANGES, create=False), databases.changes),
                (former.open_db(folder.APPLIED, create=False), databases.applied),
                (former.open_db(folder.NOTICES, create=False), databases.notices),
            )
            with former.begin() as reading:
                for source, into in pairs:
                    _copy(reading, source, environment, into)
                meta = former.open_db(folder.META, create=False)
                forgotten_us = folder.forgotten_in(reading.get(folder.FORGOTTEN, db=meta))
            with environment.begin(write=True) as transaction:
                folder.write_forgotten(transaction, databases.meta, forgotten_us)
        finally:
            former.close()
    now_us = max(now_us, _last_us(environment, databases))
    with environment.begin(write=True) as transaction:
        row = journal.boundary(Operation.LOADED, now_us, came_from)
        transaction.put(journal.key_of(version), row, db=databases.changes)


def _former(target: Path) -> lmdb.Environment | None:
    serving = folder.serving(target)
    if serving is None:
        return None
    try:
        marks.check_mark(serving)
        environment = folder.open_environment(serving, reads_all=True)
    except DirectoryError:
        return None
    try:
        folder.read_meta(serving, environment)
    except DirectoryError:
        environment.close()
        return None
    return environment


def _copy(
    reading: "lmdb.Transaction[bytes]",
    source: "lmdb._Database",
    environment: lmdb.Environment,
    into: "lmdb._Database",
) -> None:
    transaction = environment.begin(into, write=True)
    for count, (key, value) in enumerate(reading.cursor(source), start=1):
        transaction.put(key, value, append=True)
        if not count % _ROWS_AT_ONCE:  # a write transaction keeps its pages in memory
            transaction.commit()
            transaction = environment.begin(into, write=True)
    transaction.commit()


def _last_us(environment: lmdb.Environment, databases: folder.Databases) -> int:
    """When the last row was written: time does not go back in the journal."""
    with environment.begin(databases.changes) as transaction, transaction.cursor() as cursor:
        return journal.unpack_entry(cursor.value()).now_us if cursor.last() else 0
