"""Recorded before released: hands out proof that entries are durable.

Everything that a turn of the loop submits is one group: one write and one flush, in the turn
itself. There is no timer and no thread: what arrives during the flush is the next turn's group.
Nothing else in the router makes a :class:`Recorded`, and nothing forwards or releases without one.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
K = TypeVar("K")

_SEAL = object()

Commit = Callable[[Sequence[bytes]], None]
"""Writes records and returns when they are durable; blocks; raises if they may not be."""


class Recorded(Generic[T_co]):
    """``value``, after the entries that go with it became durable."""

    __slots__ = ("value",)

    def __init__(self, value: T_co, seal: object) -> None:
        assert seal is _SEAL, "only the recorder knows what is recorded"
        self.value = value

    def narrowed(self, kind: type[K]) -> "Recorded[K]":
        """The same proof, for a value that is known to be of ``kind``."""
        assert isinstance(self.value, kind)
        return cast("Recorded[K]", self)


class Recorder(Generic[T]):
    """Collects records and what is to happen after them; owned by the task that drives it.

    Args:
        commit: Makes records durable.
        clock_ns: For the duration of commits.
    """

    def __init__(self, commit: Commit, clock_ns: Callable[[], int]) -> None:
        self._commit = commit
        self._clock_ns = clock_ns
        self._records: list[bytes] = []
        self._after: list[T] = []
        self.commits: list[tuple[int, int]] = []
        """Records and nanoseconds of each commit since the caller last emptied the list."""

    @property
    def is_empty(self) -> bool:
        """Nothing was submitted since the last commit."""
        return not self._records

    def submit(self, records: Sequence[bytes], after: T | None) -> None:
        """Add records to the next group; ``after`` comes back when they are durable."""
        self._records.extend(records)
        if after is not None:
            self._after.append(after)

    def commit(self) -> list[Recorded[T]]:
        """Make all that was submitted durable; return what may go on, in the order of submission.

        Raises:
            BaseException: whatever the commit raised. The process must end: what was being
                written may or may not be in the log, and nothing of it is released.
        """
        records, self._records = self._records, []
        after, self._after = self._after, []
        started_ns = self._clock_ns()
        self._commit(records)
        self.commits.append((len(records), self._clock_ns() - started_ns))
        return [Recorded(value, _SEAL) for value in after]
