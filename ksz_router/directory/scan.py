"""Read a whole directory from end to end, in one view: for counts over everybody.

A look-up touches a page here and there; this walks all of them in their order, so that a disk
reads ahead. All of it is one read transaction: what a writer changes meanwhile is not seen, and
LMDB keeps every page that it replaces until this ends (``docs/operations.md`` says what that
takes). No value is copied: what :meth:`Scan.batches` yields holds until the scan is closed.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from ksz_router.directory import folder, journal, marks
from ksz_router.directory.packing import DirectoryError

Item = tuple[memoryview, memoryview]
"""Key and value of one number, as ``docs/directory-format.md`` lays them down."""


class Scan:
    """One view of the version that serves. Use :meth:`open`, and close it soon."""

    def __init__(self, target: Path) -> None:
        self._folder = folder.current(target)
        marks.check_mark(self._folder)
        self.live: bool = marks.read_mark(self._folder).live
        """Whether a writer has it open, or died: then what it replaces meanwhile stays in place."""
        self._environment = folder.open_environment(self._folder, reads_all=True)
        try:
            folder.read_meta(self._folder, self._environment)  # sees that the format is ours
            persons = self._environment.open_db(folder.PERSONS, create=False)
            described = self._environment.open_db(folder.META, create=False)
            changes = self._environment.open_db(folder.CHANGES, create=False)
            self._transaction = self._environment.begin(persons, buffers=True)
            state = self._transaction.get(folder.STATE, b"", db=described)
            self.version: int = folder.version_in(state)
            self.numbers, self.lines = folder.counts_in(state)
            self.recorded_us: int = self._recorded_us(changes)
            """When the last change that this view sees was recorded, in Unix microseconds."""
        except lmdb.Error as error:
            self._environment.close()
            raise DirectoryError(
                f"{self._folder}: LMDB cannot read it ({error}); run `ksz-router directory check`"
            ) from error
        except DirectoryError:
            self._environment.close()
            raise

    @classmethod
    def open(cls, target: Path) -> Self:
        """Open the directory in the folder ``target``.

        Raises:
            DirectoryError: it cannot be read; the message says the mend.
        """
        return cls(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _recorded_us(self, changes: "lmdb._Database") -> int:
        with self._transaction.cursor(changes) as cursor:
            return journal.unpack_entry(cursor.value()).now_us if cursor.last() else 0

    def batches(self, numbers: int) -> Iterator[list[Item]]:
        """Yield every number in order, at most ``numbers`` of them at a time."""
        with self._transaction.cursor() as cursor:
            items = iter(cursor)
            while batch := list(islice(items, numbers)):
                yield batch

    def value(self, key: bytes | memoryview) -> memoryview | None:
        """Return the value under one key in the same view, if there is one."""
        return self._transaction.get(key)

    def close(self) -> None:
        """End the view."""
        self._transaction.abort()
        self._environment.close()
