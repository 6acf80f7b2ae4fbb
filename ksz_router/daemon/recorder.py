"""Recorded before released: hands out proof that a group of entries is durable.

Each worker has one recorder with one thread. The thread writes and syncs one group at a time;
what is submitted meanwhile is the next group. There is no timer: the previous flush is the
batching window. Nothing else in the router makes a :class:`Recorded`, and nothing forwards or
releases without one.
"""

import os
import select
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

from ksz_router.limits import group_bytes_max, group_records_max, log_backlog_records_max

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
K = TypeVar("K")

_SEAL = object()

Commit = Callable[[Sequence[bytes]], None]
"""Writes records and returns when they are durable; blocking; raises if they may not be."""


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
        commit: Called in the recorder's thread, one call at a time.
        clock_ns: For the duration of commits.
    """

    def __init__(self, commit: Commit, clock_ns: Callable[[], int]) -> None:
        self._commit = commit
        self._clock_ns = clock_ns
        self._records: list[bytes] = []
        self._after: list[tuple[int, T]] = []
        """What happens once the first n of the records that ever were submitted are durable."""
        self._submitted = 0
        self._durable = 0
        self._asked: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, int] | BaseException] = SimpleQueue()
        self._is_busy = False
        self.wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when :meth:`collect` has something to give."""
        self.commits: list[tuple[int, int]] = []
        """Records and nanoseconds of each commit since the caller last emptied the list."""
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Records submitted and not durable yet."""
        return self._submitted - self._durable

    def has_room_for(self, records: int) -> bool:
        """Say whether so many more may wait.

        Asked for new exchanges; the outcomes of open ones always may, since windows bound them.
        """
        return self.backlog + records <= log_backlog_records_max

    def submit(self, records: Sequence[bytes], after: T | None) -> None:
        """Add records to the next group; ``after`` comes back when all of them are durable."""
        self._records.extend(records)
        self._submitted += len(records)
        if after is not None:
            self._after.append((self._submitted, after))

    def start(self) -> None:
        """Hand the next group to the thread, if it is free and there is one."""
        if self._is_busy or not self._records:
            return
        group = self._records[:group_records_max]
        size = 0
        for count, record in enumerate(group):
            size += len(record)
            if size > group_bytes_max and count:
                del group[count:]
                break
        del self._records[: len(group)]
        self._is_busy = True
        self._asked.put(group)

    def collect(self) -> list[Recorded[T]]:
        """Return what became durable, in the order of submission.

        Raises:
            BaseException: whatever the commit raised. The process must end: what was being
                written may or may not be in the log, and nothing of it was released.
        """
        try:
            os.eventfd_read(self.wakeup_fd)
        except BlockingIOError:
            return []
        result = self._done.get()
        if isinstance(result, BaseException):
            raise result
        records, _ = result
        self.commits.append(result)
        self._is_busy = False
        self._durable += records
        ready = 0
        while ready < len(self._after) and self._after[ready][0] <= self._durable:
            ready += 1
        released = [Recorded(after, _SEAL) for _, after in self._after[:ready]]
        del self._after[:ready]
        return released

    def wait(self) -> None:
        """Block until the group in hand is done; :meth:`collect` then gives it at once."""
        while self._is_busy and self._done.empty():
            select.select([self.wakeup_fd], [], [])

    def close(self) -> None:
        """End the thread once the group in hand is done. What was only submitted is dropped."""
        self._asked.put(None)
        self._thread.join()
        os.close(self.wakeup_fd)

    def _work(self) -> None:
        while (group := self._asked.get()) is not None:
            started_ns = self._clock_ns()
            try:
                self._commit(group)
            except BaseException as error:  # noqa: BLE001 - raised again by collect()
                self._done.put(error)
            else:
                self._done.put((len(group), self._clock_ns() - started_ns))
            os.eventfd_write(self.wakeup_fd, 1)
