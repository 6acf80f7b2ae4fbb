"""Recorded before released: hands out proof that entries are durable.

Everything that a turn of the loop submits is one group: one write and one flush, in the turn
itself. There is no timer and no thread: what arrives during the flush is the next turn's group.
Nothing else in the router makes a :class:`Recorded`, and nothing forwards or releases without one.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D")
R = TypeVar("R")

_SEAL = object()

Commit = Callable[[Sequence[bytes]], None]
"""Writes records and returns when they are durable; blocks; raises if they may not be."""


class Recorded(Generic[T_co]):
    """``value``, after the entries that go with it became durable."""

    __slots__ = ("value",)

    def __init__(self, value: T_co, seal: object) -> None:
        assert seal is _SEAL, "only the recorder knows what is recorded"
        self.value = value


class Recorder(Generic[D, R]):
    """Collects records and what is to happen after them; owned by the task that drives it.

    Args:
        commit: Makes records durable.
        clock_ns: For the duration of commits.
    """

    def __init__(self, commit: Commit, clock_ns: Callable[[], int]) -> None:
        self._commit = commit
        self._clock_ns = clock_ns
        self._records: list[bytes] = []
        self._dispatches: list[D] = []
        self._releases: list[R] = []
        self.commits: list[tuple[int, int]] = []
        """Records and nanoseconds of each commit since the caller last emptied the list."""

    @property
    def is_empty(self) -> bool:
        """Nothing was submitted since the last commit."""
        return not self._records

    def submit(self, records: Sequence[bytes]) -> None:
        """Add records to the next group; nothing waits for them."""
        self._records.extend(records)

    def forward_after(self, record: bytes, dispatch: D) -> None:
        """Add a record to the next group; ``dispatch`` comes back when it is durable."""
        self._records.append(record)
        self._dispatches.append(dispatch)

    def release_after(self, records: Sequence[bytes], release: R) -> None:
        """Add records to the next group; ``release`` comes back when they are durable."""
        self._records.extend(records)
        self._releases.append(release)

    def commit(self) -> tuple[Recorded[Sequence[D]], Recorded[Sequence[R]]]:
        """Make all that was submitted durable; return what may go on, in the order of submission.

        One proof for the group, as there is one flush: thousands a second cost as much as entries.

        Raises:
            BaseException: whatever the commit raised. The process must end: what was being
                written may or may not be in the log, and nothing of it is released.
        """
        records, self._records = self._records, []
        dispatches, self._dispatches = self._dispatches, []
        releases, self._releases = self._releases, []
        started_ns = self._clock_ns()
        self._commit(records)
        self.commits.append((len(records), self._clock_ns() - started_ns))
        return Recorded(dispatches, _SEAL), Recorded(releases, _SEAL)
