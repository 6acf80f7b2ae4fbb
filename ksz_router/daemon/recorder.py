"""Recorded before released: hands out proof that entries are durable.

Everything that a turn of the loop submits is one group: one write and one flush. What arrives
during the flush is the next turn's group, and one group is under way at a time.
Nothing else in the router makes a :class:`Recorded`, and nothing forwards or releases without one.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)
D = TypeVar("D")
R = TypeVar("R")

_SEAL = object()

_WAIT_SECONDS = 0.5

Begin = Callable[[Sequence[bytes]], None]
"""Writes records and begins to make them durable; raises if they may not be."""
IsDurable = Callable[[float], bool]
"""Says whether they are; waits so many seconds for it, less than one; raises if they may not be."""


class Recorded(Generic[T_co]):
    """``value``, after the entries that go with it became durable."""

    __slots__ = ("value",)

    def __init__(self, value: T_co, seal: object) -> None:
        assert seal is _SEAL, "only the recorder knows what is recorded"
        self.value = value


class Recorder(Generic[D, R]):
    """Collects records and what is to happen after them; owned by the task that drives it.

    Args:
        begin: Makes records durable.
        clock_ns: For the duration of commits.
        is_durable: Says when they are; at once where ``begin`` waits for it.
    """

    def __init__(
        self,
        begin: Begin,
        clock_ns: Callable[[], int],
        is_durable: IsDurable = lambda _wait_s: True,
    ) -> None:
        self._begin = begin
        self._is_durable = is_durable
        self._clock_ns = clock_ns
        self._records: list[bytes] = []
        self._dispatches: list[D] = []
        self._releases: list[R] = []
        self._under_way: tuple[list[D], list[R]] = ([], [])
        self._count = 0
        self.is_standing = False
        """A group is under way, and the device not done with it."""
        self.begun_ns = 0
        """When the last group was."""
        self.commits: list[tuple[int, int]] = []
        """Records and nanoseconds of each commit since the caller last emptied the list."""

    @property
    def is_empty(self) -> bool:
        """Nothing was submitted since the last group was begun."""
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

    def begin(self) -> None:
        """Begin to make all that was submitted durable: one group, and the only one under way.

        Raises:
            BaseException: as :meth:`take`.
        """
        assert not self.is_standing, "one group at a time"
        records, self._records = self._records, []
        self._under_way = self._dispatches, self._releases
        self._dispatches, self._releases = [], []
        self._count = len(records)
        self.begun_ns = self._clock_ns()
        self._begin(records)
        self.is_standing = True

    def take(self, wait_s: float) -> tuple[Recorded[Sequence[D]], Recorded[Sequence[R]]] | None:
        """Return what of the group under way may go on, in the order of submission.

        One proof for the group, as there is one flush: thousands a second cost as much as entries.

        Args:
            wait_s: Waited so long until it is durable, less than a second; None where it is not.

        Raises:
            BaseException: whatever came of writing it. The process must end: what was being
                written may or may not be in the log, and nothing of it is released.
        """
        assert self.is_standing
        try:
            self.is_standing = not self._is_durable(wait_s)
        except BaseException:
            self.is_standing = False
            self._under_way = [], []
            raise
        if self.is_standing:
            return None
        self.commits.append((self._count, self._clock_ns() - self.begun_ns))
        dispatches, releases = self._under_way
        self._under_way = [], []
        return Recorded(dispatches, _SEAL), Recorded(releases, _SEAL)

    def commit(self) -> tuple[Recorded[Sequence[D]], Recorded[Sequence[R]]]:
        """Begin and take; blocks until all that was submitted is durable.

        Raises:
            BaseException: as :meth:`take`.
        """
        self.begin()
        while (taken := self.take(_WAIT_SECONDS)) is None:
            pass
        return taken
