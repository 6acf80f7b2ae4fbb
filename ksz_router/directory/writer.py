"""The one writer of a directory: changes in durable transactions, each applied once.

A transaction holds a whole batch: the records, their rows of the journal, what became of each
exchange id and the version. It is durable when :meth:`Writer.apply` returns; if that raises, it
is not known whether it is, and the same changes may be asked for again after opening anew.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import lmdb

from ksz_router.directory import folder, journal, marks
from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.snapshot import look_up_in
from ksz_router.directory.working import Working
from ksz_router.model import Person

KEEP_DAYS_DEFAULT = 35

_DAY_US = 86_400_000_000
_TRIMMED_MAX = 256
_CHANGES_MAX = 65_536


class Writer:
    """The directory, open to be changed. One per machine; not for several threads at once."""

    def __init__(self, lock: Lock, version_folder: Path, keep_days: int) -> None:
        self._lock = lock
        self._folder = version_folder
        self._keep_us = keep_days * _DAY_US
        self._process = os.getpid()
        self._is_broken = False
        marks.mark_live(version_folder)
        self._environment = folder.open_to_write(version_folder)
        try:
            self._environment.reader_check()
            self._meta = folder.read_meta(version_folder, self._environment)
            self._databases = folder.Databases(self._environment)
        except lmdb.Error as error:
            self._environment.close()
            raise DirectoryError(
                f"{version_folder}: LMDB cannot read it ({error}); run `ksz-router directory check`"
            ) from error
        except DirectoryError:
            self._environment.close()
            raise

    @classmethod
    def open(cls, path: Path, *, keep_days: int = KEEP_DAYS_DEFAULT) -> Self:
        """Open the directory in the folder ``path`` to change it.

        The journal and what is noted of exchange ids are kept for ``keep_days`` days at least.

        Raises:
            NoDirectoryError: there is none.
            NotCheckedError: it was copied or restored, and not checked since.
            FormatError: it is in a format that this program does not write.
            DirectoryError: another writer or a load is at work, or LMDB refuses it.
        """
        lock = Lock(path)
        try:
            version_folder = folder.current(path)
            marks.check_mark(version_folder)
            return cls(lock, version_folder, keep_days)
        except BaseException:
            lock.release()
            raise

    @property
    def version(self) -> int:
        """The version of what was last made durable."""
        return self._meta.version

    @property
    def numbers_count(self) -> int:
        """How many numbers the directory knows."""
        return self._meta.numbers

    @property
    def lines_count(self) -> int:
        """How many lines the directory holds."""
        return self._meta.lines

    def apply(self, changes: Sequence[Change], now_us: int) -> list[Applied | Refused]:
        """Apply changes in one durable transaction; return what came of each, in their order.

        They are applied in the order given, whoever they are about; what is read and written is
        sorted here, so no order is slower than another. An exchange id that is known gives its
        earlier result and changes nothing. ``now_us`` is Unix time in microseconds.

        Raises:
            DirectoryError: the disk or LMDB does not take it. Open anew and ask again: what was
                applied all the same is known by its exchange id.
            DamagedError: a record cannot be read; nothing was changed.
        """
        assert len(changes) <= _CHANGES_MAX, "too many changes at once"
        self._assert_usable()
        if not changes:
            return []
        try:
            with self._environment.begin(write=True) as transaction:
                working = Working(transaction, self._databases, self._meta, now_us)
                verdicts = working.apply(changes)
                working.trim(now_us - self._keep_us, 2 * len(changes) + _TRIMMED_MAX)
                meta = working.write()
        except lmdb.Error as error:
            self._is_broken = True  # LMDB may refuse all that follows, or know more than we do
            raise DirectoryError(
                f"{self._folder}: the changes could not be written ({error}); see to the disk, "
                "then open the directory anew and ask for them again"
            ) from error
        self._meta = meta
        return verdicts

    def look_up(self, numbers: Iterable[str | None]) -> list[Person | None]:
        """Return the person under each number, as :meth:`Directory.look_up` does.

        For the process that writes: LMDB lets it open the directory once only.
        """
        self._assert_usable()
        with self._environment.begin(self._databases.persons) as transaction:
            return look_up_in(numbers, transaction.get)

    def note_of(self, exchange: bytes) -> journal.Note | None:
        """Return what came of an exchange id, or None where it is not known (any more)."""
        self._assert_usable()
        with self._environment.begin(self._databases.applied) as transaction:
            value = transaction.get(exchange)
        return journal.unpack_note(value) if value is not None else None

    def clear_dead_readers(self) -> int:
        """Free the slots of readers that were killed; for a timer. Return how many."""
        return self._environment.reader_check()

    def close(self) -> None:
        """Stop cleanly: the mark then tells the file as it lies. The second time does nothing."""
        if not self._lock.is_held:
            return
        try:
            self._environment.close()
            if not self._is_broken:
                marks.write_mark(self._folder, marks.make_mark(self._folder, takes_digest=False))
        finally:
            self._lock.release()

    def _assert_usable(self) -> None:
        assert os.getpid() == self._process, "opened before a fork"
        assert self._lock.is_held, "the writer is closed"
        if self._is_broken:
            raise DirectoryError(
                f"{self._folder}: an earlier write failed; open the directory anew"
            )
