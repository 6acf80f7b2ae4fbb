"""The notices that wait, in the environment: read, removed, taken along by loads and restores."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import lmdb

from ksz_router.directory import notice
from ksz_router.directory.notice import Notice
from ksz_router.directory.packing import DamagedError


class Waiting(NamedTuple):
    """One notice, and where it stands."""

    key: bytes
    notice: Notice

    @property
    def version(self) -> int:
        """Of the directory, which the change made."""
        return notice.version_of(self.key)


class Backlog(NamedTuple):
    """How much waits."""

    notices: int
    oldest_us: int
    """When the change was made that waits longest, in Unix microseconds; 0: nothing waits."""


def waiting(
    transaction: "lmdb.Transaction[bytes]",
    notices: "lmdb._Database",
    after: bytes,
    most: int,
) -> list[Waiting]:
    """Return at most so many notices behind a key, the oldest first.

    Raises:
        DamagedError: one cannot be read.
    """
    found: list[Waiting] = []
    with transaction.cursor(notices) as cursor:
        if not cursor.set_range(after + b"\0"):
            return found
        for key, value in cursor:
            if len(found) == most:
                break
            found.append(Waiting(key, notice.unpack(value)))
    return found


def backlog(transaction: "lmdb.Transaction[bytes]", notices: "lmdb._Database") -> Backlog:
    """Return how many notices wait, and since when the first does.

    Raises:
        DamagedError: it cannot be read.
    """
    with transaction.cursor(notices) as cursor:
        oldest_us = notice.unpack(cursor.value()).now_us if cursor.first() else 0
    return Backlog(transaction.stat(notices)["entries"], oldest_us)


def remove(
    transaction: "lmdb.Transaction[bytes]", notices: "lmdb._Database", keys: Iterable[bytes]
) -> None:
    """Remove notices; one that is gone already is passed."""
    for key in keys:
        transaction.delete(key, db=notices)


def take_over(
    reading: "lmdb.Transaction[bytes]",
    source: "lmdb._Database",
    transaction: "lmdb.Transaction[bytes]",
    notices: "lmdb._Database",
    version_max: int,
) -> None:
    """Let exactly that wait which waits elsewhere, of changes up to a version."""
    transaction.drop(notices, delete=False)
    for key, value in reading.cursor(source):
        if notice.version_of(key) > version_max:
            return
        transaction.put(key, value, db=notices, append=True)


def problems(
    transaction: "lmdb.Transaction[memoryview]", notices: "lmdb._Database", version: int
) -> Iterator[str]:
    """Yield what is wrong with the notices of a directory at this version."""
    try:
        for key, value in transaction.cursor(notices):
            notice.unpack(value)
            if not 0 < notice.version_of(key) <= version:
                yield "a notice waits for a change that the directory does not hold"
    except DamagedError as error:
        yield str(error)
