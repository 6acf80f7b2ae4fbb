"""Bring an environment forward by the journal of another: what a restore does after its copy.

Changes are applied again by the rules that applied them, at the time at which they were; each must
give the version that it gave, so that a journal of another history is seen.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from ksz_router.directory import folder, journal, outbox
from ksz_router.directory.change import Operation
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.working import Working

_ROWS_AT_ONCE = 10_000

FOREVER = 1 << 62
"""Later than any version or moment."""


class Until(NamedTuple):
    """Where a replay stops: what is later than either is left out."""

    version: int = FOREVER
    now_us: int = FOREVER


class _Row(NamedTuple):
    version: int
    ordinal: int
    entry: journal.Entry


def replay(
    source: Path,
    environment: lmdb.Environment,
    meta: folder.Meta,
    until: Until,
    progress: Callable[[int, int], None],
) -> folder.Meta:
    """Apply the journal of the version in the folder ``source`` to ``environment``.

    ``progress`` is told how many versions were passed, and of how many.

    Raises:
        DirectoryError: the journal does not join on, or is of another history.
    """
    journal_of = folder.open_environment(source)
    try:
        newest = folder.read_meta(source, journal_of).version
        total = min(newest, until.version) - meta.version
        if total < 0:
            raise DirectoryError(
                f"the backup is of version {meta.version}, later than what is asked for; "
                "take an older backup"
            )
        databases = folder.Databases(environment)
        untold = journal_of.open_db(folder.NOTICES, create=False)
        first = meta.version
        with environment.begin(databases.changes) as own, own.cursor() as cursor:
            ordinal = journal.last_ordinal(cursor, first)
        with journal_of.begin(journal_of.open_db(folder.CHANGES, create=False)) as reading:
            for rows in _batches(_checked(reading, first, ordinal, newest, until), _ROWS_AT_ONCE):
                with environment.begin(write=True) as transaction:
                    working = Working(transaction, databases, meta, 0)
                    for row in rows:
                        working.again(row.version, row.ordinal, row.entry)
                    meta = working.write()
                progress(meta.version - first, total)
            with environment.begin(write=True) as transaction:
                outbox.take_over(reading, untold, transaction, databases.notices, meta.version)
    except lmdb.Error as error:
        raise DirectoryError(
            f"{source}: its journal cannot be read or applied ({error})"
        ) from error
    finally:
        journal_of.close()
    return meta


def _checked(
    reading: "lmdb.Transaction[bytes]", version: int, ordinal: int, newest: int, until: Until
) -> Iterator[_Row]:
    """Rows that join on to the given one without a gap, up to where the replay stops.

    Raises:
        DirectoryError: there is a gap, or a load lies between.
    """
    with reading.cursor() as cursor:
        for row in map(_Row._make, journal.rows(cursor, version, ordinal)):
            if row.version > version >= until.version:
                return
            operation = row.entry.change.operation
            if operation in (Operation.LOADED, Operation.RESTORED):
                joins = row.entry.came_from == version
            else:
                joins = (row.version, row.ordinal) in ((version, ordinal + 1), (version + 1, 0))
            if not joins:
                raise _gap(version, row.version)
            if row.version > until.version or row.entry.now_us > until.now_us:
                return
            if operation is Operation.LOADED:
                raise DirectoryError(
                    f"version {row.version} was a bulk load, which no journal can repeat; "
                    "take a backup made after it"
                )
            version, ordinal = row.version, row.ordinal
            yield row
    if version < min(newest, until.version):
        raise _gap(version, newest)


def _gap(version: int, later: int) -> DirectoryError:
    return DirectoryError(
        f"the journal has nothing between versions {version} and {later}: it goes back for "
        "[directory] keep_days and journal_rows_max at the most, or is of another directory; "
        "take a newer backup, or the journal of a directory that came from this backup"
    )


def _batches(rows: Iterator[_Row], size: int) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
