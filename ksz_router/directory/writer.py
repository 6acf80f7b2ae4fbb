"""The one writer of a directory: changes in durable transactions, each applied once.

A transaction holds a whole batch: the records, their rows of the journal, what became of each
exchange id and the version. It is durable when :meth:`Writer.apply` returns; if that raises, it
is not known whether it is, and the same changes may be asked for again after opening anew.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import lmdb

from ksz_router.directory import folder, journal, marks, outbox
from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.directory.hindrance import PageDamagedError, hindrance_of
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.directory.snapshot import look_up_in
from ksz_router.directory.working import Working
from ksz_router.persons import Person

KEEP_DAYS_DEFAULT = 35
JOURNAL_ROWS_MAX_DEFAULT = 100_000_000

_DAY_US = 86_400_000_000
_TRIMMED_MAX = 256
_CHANGES_MAX = 65_536


class Writer:
    """The directory, open to be changed. One per machine; not for several threads at once."""

    def __init__(
        self, lock: Lock, version_folder: Path, keep_days: int, journal_rows_max: int
    ) -> None:
        self._lock = lock
        self._folder = version_folder
        self._keep_us = keep_days * _DAY_US
        self._journal_rows_max = journal_rows_max
        self._process = os.getpid()
        self._is_broken = False
        self._refusal: PageDamagedError | None = None
        self.notices_written = 0
        """How many notices the changes left that were made since it was opened."""
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
    def open(
        cls,
        path: Path,
        *,
        keep_days: int = KEEP_DAYS_DEFAULT,
        journal_rows_max: int = JOURNAL_ROWS_MAX_DEFAULT,
    ) -> Self:
        """Open the directory in the folder ``path`` to change it.

        The journal and what is noted of exchange ids are kept for ``keep_days`` days at least,
        and of ``journal_rows_max`` changes at the most.

        Raises:
            NoDirectoryError: there is none.
            NotCheckedError: it was copied or restored, and not checked since.
            FormatError: it is in a format that this program does not write.
            DirectoryError: another writer or a load is at work, the disk is full, or LMDB
                refuses it.
        """
        lock = Lock(path)
        try:
            version_folder = folder.current(path)
            marks.check_mark(version_folder)
            return cls(lock, version_folder, keep_days, journal_rows_max)
        except OSError as error:
            lock.release()
            raise DirectoryError(
                f"{path}: cannot be opened to be changed ({error.strerror}); see to the disk"
            ) from error
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
            NotTakenError: nothing was changed, whatever is asked for; look-ups go on.
            DamagedError: a record cannot be read; nothing was changed.
        """
        assert len(changes) <= _CHANGES_MAX, "too many changes at once"
        self._assert_usable()
        if not changes:
            return []
        with self._writing() as transaction:
            working = Working(transaction, self._databases, self._meta, now_us)
            verdicts = working.apply(changes)
            rows_max = 2 * len(changes) + _TRIMMED_MAX
            working.trim(now_us - self._keep_us, rows_max, self._journal_rows_max)
            meta = working.write()
        self._meta = meta
        self.notices_written += working.notices_count
        return verdicts

    @contextmanager
    def _writing(self) -> Iterator["lmdb.Transaction[bytes]"]:
        if self._refusal is not None:
            raise self._refusal
        before = self._environment.info()["last_txnid"]
        try:
            with self._environment.begin(write=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._failed(error, before) from error

    def _failed(self, error: lmdb.Error, before: int) -> DirectoryError:
        """Say what it means that a transaction failed; ``before`` is the last durable one."""
        hindrance = hindrance_of(self._folder, error)
        if hindrance is not None and self._stands_at(before):
            if isinstance(hindrance, PageDamagedError):
                self._refusal = hindrance
            return hindrance
        self._is_broken = True  # LMDB may refuse all that follows, or know more than we do
        return DirectoryError(
            f"{self._folder}: the changes could not be written ({error}); see to the disk, "
            "then open the directory anew and ask for them again"
        )

    def _stands_at(self, transaction_id: int) -> bool:
        """Whether no transaction came behind that one, and the directory can be read."""
        try:
            with self._environment.begin(self._databases.meta) as transaction:
                version = folder.version_in(transaction.get(folder.STATE))
            found = int(self._environment.info()["last_txnid"])
        except (lmdb.Error, DamagedError):
            return False
        return (version, found) == (self._meta.version, transaction_id)

    @contextmanager
    def _reading(self, database: "lmdb._Database") -> Iterator["lmdb.Transaction[bytes]"]:
        self._assert_usable()
        try:
            with self._environment.begin(database) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise DamagedError(f"{self._folder}: LMDB cannot read it ({error})") from error

    def look_up(self, numbers: Iterable[str | None]) -> list[Person | None]:
        """Return the person under each number, as :meth:`Directory.look_up` does.

        For the process that writes: LMDB lets it open the directory once only.

        Raises:
            DamagedError: LMDB cannot read it. What is changed is not touched by that.
        """
        with self._reading(self._databases.persons) as transaction:
            return look_up_in(numbers, transaction.get)

    def note_of(self, exchange: bytes) -> journal.Note | None:
        """Return what came of an exchange id, or None where it is not known (any more).

        Raises:
            DamagedError: LMDB cannot read it.
        """
        with self._reading(self._databases.applied) as transaction:
            value = transaction.get(exchange)
        return journal.unpack_note(value) if value is not None else None

    def notices(self, after: bytes, most: int) -> list[outbox.Waiting]:
        """Return at most so many notices that wait behind a key, the oldest first.

        Raises:
            DamagedError: one cannot be read.
        """
        with self._reading(self._databases.notices) as transaction:
            return outbox.waiting(transaction, self._databases.notices, after, most)

    def backlog(self) -> outbox.Backlog:
        """Return how many notices wait, and since when; errors as :meth:`notices`."""
        with self._reading(self._databases.notices) as transaction:
            return outbox.backlog(transaction, self._databases.notices)

    def remove_notices(self, keys: Iterable[bytes]) -> None:
        """Forget notices that were told, durably; errors as :meth:`apply`."""
        self._assert_usable()
        with self._writing() as transaction:
            outbox.remove(transaction, self._databases.notices, keys)

    def clear_dead_readers(self) -> int:
        """Free the slots of readers that were killed; for a timer. Return how many.

        Raises:
            DirectoryError: LMDB cannot see them.
        """
        try:
            return self._environment.reader_check()
        except lmdb.Error as error:
            raise DirectoryError(
                f"{self._folder}: LMDB cannot check its readers ({error})"
            ) from error

    def close(self) -> None:
        """Stop cleanly: the mark then tells the file as it lies. The second time does nothing."""
        if not self._lock.is_held:
            return
        try:
            self._environment.close()
            if not self._is_broken:
                mark = marks.make_mark(self._folder, takes_digest=False)
                with suppress(OSError):  # a full disk: that it was open stays true, and serves
                    marks.write_mark(self._folder, mark)
        finally:
            self._lock.release()

    def _assert_usable(self) -> None:
        assert os.getpid() == self._process, "opened before a fork"
        assert self._lock.is_held, "the writer is closed"
        if self._is_broken:
            raise DirectoryError(
                f"{self._folder}: an earlier write failed; open the directory anew"
            )
