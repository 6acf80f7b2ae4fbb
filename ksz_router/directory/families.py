"""Which numbers belong to one person: replacements, collected from the rows, followed on disk."""

import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from ksz_router.directory.packing import KEY_BYTES
from ksz_router.directory.rows import RowError
from ksz_router.limits import MIB, person_numbers_max

_ROW = struct.Struct(">Q")
_TOO_MANY = f"current: a person may have {person_numbers_max} numbers at most"
_MAP_BYTES = 16 * 1024 * MIB


class Families:
    """Replacements of a load, in a scratch environment, so that memory stays flat."""

    def __init__(self, scratch: Path) -> None:
        self._environment = lmdb.open(
            str(scratch), map_size=_MAP_BYTES, max_dbs=2, sync=False, lock=False, lib_version=0
        )
        self._next = self._environment.open_db(b"next")
        self._former = self._environment.open_db(b"former", dupsort=True)
        self._transaction = self._environment.begin(write=True)
        self._waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transaction.abort()
        self._environment.close()

    def add(self, key: bytes, target: bytes, row: int) -> None:
        """Note that one number was replaced by another, in which row of the file; both as keys."""
        self._transaction.put(key, target + _ROW.pack(row), db=self._next)
        self._transaction.put(target, key, db=self._former)
        self._waiting += 1
        if self._waiting == 1_000:  # a write transaction keeps its pages in memory
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)
            self._waiting = 0

    def others(self, key: bytes, row: int) -> list[bytes]:
        """Return the person's other numbers as keys; the one in use first, if it is another.

        ``row`` is the number row of ``key``, for the error.

        Raises:
            RowError: the replacements go round in a circle, or the numbers are too many.
        """
        current = key
        passed = {key}
        while (found := self._transaction.get(current, db=self._next)) is not None:
            current = found[:KEY_BYTES]
            if current in passed:
                raise RowError("current: the replacements go round in a circle", row)
            passed.add(current)
            if len(passed) > person_numbers_max:
                raise RowError(_TOO_MANY, row)
        family = [current]
        for member in family:  # grows while it is walked: former numbers of former numbers
            family += self._former_of(member)
            if len(family) > person_numbers_max:
                raise RowError(_TOO_MANY, row)
        return [member for member in family if member != key]

    def _former_of(self, key: bytes) -> list[bytes]:
        with self._transaction.cursor(self._former) as cursor:
            if not cursor.set_key(key):
                return []
            found = []
            for former in cursor.iternext_dup():
                found.append(former)
                if len(found) > person_numbers_max:
                    break
            return found

    def replaced(self, begin: bytes, end: bytes) -> Iterator[bytes]:
        """Every number that was replaced, from ``begin`` up to, not including, ``end``; sorted."""
        with self._transaction.cursor(self._next) as cursor:
            if cursor.set_range(begin):
                for key in cursor.iternext(values=False):
                    if key >= end:
                        return
                    yield key

    def targets(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, int]]:
        """Every number in the range that replaced another, and a row that says so; sorted."""
        with self._transaction.cursor(self._former) as cursor:
            if cursor.set_range(begin):
                for key in cursor.iternext_nodup():
                    if key >= end:
                        return
                    link = self._transaction.get(cursor.value(), b"", db=self._next)
                    yield key, _ROW.unpack(link[KEY_BYTES:])[0]
