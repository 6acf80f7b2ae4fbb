"""An LMDB environment whose transactions fail at a named point, and a writer that dies."""

from types import TracebackType
from typing import Any

import lmdb

from ksz_router.directory.writer import Writer

POINTS = ("first put", "third put", "before commit", "after commit")


class _Puts:
    """Counts the rows that are put, and fails in place of one of them; 0: of none."""

    def __init__(self, left: int) -> None:
        self._left = left

    def taken(self, rows: int) -> int:
        """How many of so many rows are put before it fails; all of them where it does not."""
        before, self._left = self._left, self._left - rows
        return before - 1 if 0 < before <= rows else rows


class _Cursor:
    """A real cursor, one of whose puts fails, be it in the midst of many."""

    def __init__(self, cursor: Any, puts: _Puts) -> None:
        self._cursor = cursor
        self._puts = puts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __enter__(self) -> Any:
        self._cursor.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._cursor.__exit__(*error)

    def putmulti(self, items: Any, **options: Any) -> Any:
        rows = [*items]
        taken = self._puts.taken(len(rows))
        done = self._cursor.putmulti(rows[:taken], **options)
        if taken < len(rows):
            raise lmdb.DiskError("injected")
        return done


class _Transaction:
    """A real transaction, one of whose puts fails."""

    def __init__(self, transaction: Any, puts: int) -> None:
        self._transaction = transaction
        self._puts = _Puts(puts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def cursor(self, *values: Any, **options: Any) -> Any:
        return _Cursor(self._transaction.cursor(*values, **options), self._puts)

    def put(self, *values: Any, **options: Any) -> Any:
        if not self._puts.taken(1):
            raise lmdb.DiskError("injected")
        return self._transaction.put(*values, **options)


class _Begun:
    """What ``begin`` gives; it fails on the way in, or on the way out."""

    def __init__(self, begun: Any, point: str) -> None:
        self._begun = begun
        self._point = point

    def __enter__(self) -> Any:
        puts = {"first put": 1, "third put": 3}.get(self._point, 0)
        return _Transaction(self._begun.__enter__(), puts)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._point == "before commit":
            self._begun.abort()
            raise lmdb.DiskError("injected")
        self._begun.__exit__(kind, error, trace)
        if self._point == "after commit" and error is None:
            raise lmdb.DiskError("injected")


class _Environment:
    def __init__(self, environment: lmdb.Environment, point: str) -> None:
        self._environment = environment
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, *values: Any, **options: Any) -> Any:
        begun = self._environment.begin(*values, **options)
        return _Begun(begun, self._point) if options.get("write") else begun


def break_at(writer: Writer, point: str) -> None:
    """Let every transaction of the writer fail at one of ``POINTS`` from now on."""
    writer._environment = _Environment(writer._environment, point)  # type: ignore[assignment]


def die(writer: Writer) -> None:
    """Leave what a killed process leaves: no clean mark, and the lock free."""
    writer._environment.close()
    writer._lock.release()
