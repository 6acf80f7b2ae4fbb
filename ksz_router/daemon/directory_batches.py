"""Changes and look-ups of the directory, taken by its one writer in batches of what is waiting.

Everything that waits when the writer is free becomes one durable transaction, in a thread; what
comes meanwhile waits for the next. So the flush of a batch is the window in which the next one
gathers, and no timer is needed. Look-ups go the same way, and see every change before them.
"""

import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import trio

from ksz_router import limits
from ksz_router.daemon.clock import HostClock
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.model import Person

Spare: TypeAlias = Callable[[], Awaitable[float | None]]
"""Does a bounded piece of work and returns after how many seconds it may do the next; None where
there is nothing left to do, until :meth:`Batches.wake`. Nobody else uses the writer meanwhile."""


def guarded_us(
    wall_ns: Callable[[], int] = time.time_ns,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
) -> Callable[[], int]:
    """Return a clock in Unix microseconds that a jump of the host's does not carry along.

    A writer that believed in a year that has not come would forget every exchange id it knows.
    """
    clock = HostClock(wall_ns, monotonic_ns)

    def now_us() -> int:
        clock.look()
        return clock.now_ns() // 1000

    return now_us


class Full(Exception):
    """As much waits as may; nothing was done, and it may be asked again."""


class TooLate(Exception):
    """Its time was over before the writer came to it; nothing was done."""


class Damaged(Exception):
    """What the directory holds on this person cannot be read; nothing was done now."""


class Found(tuple[Person | None, int]):
    """What a look-up found, and the version of the directory that it saw."""

    __slots__ = ()


Returned = TypeVar("Returned")


class _Done:
    """A piece of work with the writer is done."""


_Work: TypeAlias = Callable[[Writer], None]
_Result: TypeAlias = Applied | Refused | Found | TooLate | Damaged | _Done


class _Job:
    """A change or a look-up, and who waits for it."""

    __slots__ = ("asked", "done", "ends_at", "result")

    def __init__(self, asked: Change | str | _Work, ends_at: float) -> None:
        self.asked = asked
        self.ends_at = ends_at
        self.done = trio.Event()
        self.result: _Result | None = None


class Batches:
    """The writer's one user.

    Args:
        writer: Open; nobody else uses it until :meth:`run` returned.
        wall_us: Unix time in microseconds; None: that of the host, guarded.
    """

    def __init__(
        self,
        writer: Writer,
        metrics: DirectoryMetrics,
        wall_us: Callable[[], int] | None = None,
    ) -> None:
        self._writer = writer
        self._metrics = metrics
        self._wall_us = wall_us or guarded_us()
        self._waiting: deque[_Job] = deque()
        self._to_do = trio.Event()
        self._is_closing = self._is_over = False
        self.spare: Spare | None = None
        """Work that uses the writer while nothing waits; see :data:`Spare`."""
        self._spare_at = -math.inf
        self._is_woken = False
        self.served_at = -math.inf
        """When somebody last waited for the writer; Trio's time."""

    async def change(self, change: Change, seconds: float) -> Applied | Refused:
        """Have a change made; what came of it is durable when this returns.

        Cancelling does not take it back: it waits until what came of it is known.

        Args:
            change: What is asked.
            seconds: How long it may wait for its batch.

        Raises:
            Full, TooLate, Damaged: nothing was changed.
        """
        result = await self._result(change, seconds)
        assert isinstance(result, (Applied, Refused))
        return result

    async def look_up(self, number: str, seconds: float) -> tuple[Person | None, int]:
        """Return the person under a number, and the version of the directory; errors as above."""
        result = await self._result(number, seconds)
        assert isinstance(result, Found)
        return result

    async def with_writer(self, work: Callable[[Writer], Returned]) -> Returned:
        """Do something short with the writer, in its thread, after the changes that wait.

        For the program itself, not for peers: it finds room, and may wait for as long as it takes.

        Raises:
            Damaged: what it needed cannot be read.
        """
        returned: list[Returned] = []
        await self._result(lambda writer: returned.append(work(writer)), math.inf)
        return returned[0]

    @property
    def notices_written(self) -> int:
        """How many notices the changes of this run left to be told."""
        return self._writer.notices_written

    async def _result(self, asked: Change | str | _Work, seconds: float) -> _Result:
        if len(self._waiting) >= limits.directory_waiting_max and seconds < math.inf:
            self._metrics.turned_away += 1
            raise Full
        if self._is_over:  # nobody works any more, and what is to come ends with the program
            await trio.sleep_forever()
        job = _Job(asked, trio.current_time() + seconds)
        self._waiting.append(job)
        self._metrics.waiting = len(self._waiting)
        self._to_do.set()
        with trio.CancelScope(shield=True):
            await job.done.wait()
        if job.result is None:  # the program ends without knowing; so must the answer be
            await trio.sleep_forever()
        if isinstance(job.result, Exception):
            raise job.result
        assert job.result is not None
        return job.result

    async def run(self) -> None:
        """Work until :meth:`close` was called and nothing is left.

        Raises:
            DirectoryError: a batch could not be written. It is not known whether it stands; who
                waits for it is not answered, and asks again by the same exchange id.
        """
        batch: list[_Job] = []
        try:
            while self._waiting or not self._is_closing:
                if not self._waiting:
                    await self._idle()
                    continue
                batch = [
                    self._waiting.popleft()
                    for _ in range(min(len(self._waiting), limits.directory_batch_max))
                ]
                self._metrics.waiting = len(self._waiting)
                await self._work(batch)
                self.served_at = trio.current_time()
        finally:
            self._is_over = True
            for job in (*batch, *self._waiting):
                job.done.set()

    @property
    def is_waited_for(self) -> bool:
        """Changes or look-ups wait for the writer."""
        return bool(self._waiting)

    def wake(self) -> None:
        """There is spare work, which is begun when a pause is over."""
        self._is_woken = True
        if self._spare_at == math.inf:
            self._spare_at = -math.inf
            self._to_do.set()

    async def _idle(self) -> None:
        """Wait for changes, and do spare work until there are some."""
        self._to_do = trio.Event()
        with trio.move_on_at(self._spare_at if self.spare is not None else math.inf):
            await self._to_do.wait()
        if self.spare is None or self._to_do.is_set() or self._is_closing:
            return
        self._is_woken = False
        pause_s = await self.spare()
        if pause_s is not None:
            self._spare_at = trio.current_time() + pause_s
        elif not self._is_woken:
            self._spare_at = math.inf

    def close(self) -> None:
        """Let :meth:`run` return once nothing is left."""
        self._is_closing = True
        self._to_do.set()

    async def _work(self, batch: Sequence[_Job]) -> None:
        now = trio.current_time()
        in_time = []
        for job in batch:
            if now > job.ends_at:  # who asked was told that nothing is known; let it stay undone
                job.result = TooLate()
                job.done.set()
            else:
                in_time.append(job)
        changes = [job for job in in_time if isinstance(job.asked, Change)]
        look_ups = [job for job in in_time if isinstance(job.asked, str)]
        works = [job for job in in_time if callable(job.asked)]
        if not in_time:
            return
        began = time.perf_counter()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._in_thread, changes, look_ups, works)
        settled = [
            (job.asked.operation, job.result)
            for job in changes
            if isinstance(job.asked, Change) and isinstance(job.result, (Applied, Refused))
        ]
        took_s = time.perf_counter() - began
        self._metrics.committed(settled, look_ups=len(look_ups), took_s=took_s)
        for job in in_time:
            job.done.set()

    def _in_thread(
        self, changes: Sequence[_Job], look_ups: Sequence[_Job], works: Sequence[_Job]
    ) -> None:
        asked = [job.asked for job in changes if isinstance(job.asked, Change)]
        try:
            verdicts: Sequence[_Result] = self._writer.apply(asked, self._wall_us())
        except DamagedError:  # of one person; the others must not suffer for it
            verdicts = [self._apply_alone(change) for change in asked]
        for job, verdict in zip(changes, verdicts, strict=True):
            job.result = verdict
        numbers = [job.asked for job in look_ups if isinstance(job.asked, str)]
        try:
            persons: list[Person | Damaged | None] = [*self._writer.look_up(numbers)]
        except DirectoryError:  # the changes beside them are durable, and are answered
            persons = [self._look_up_alone(number) for number in numbers]
        version = self._writer.version
        for job, person in zip(look_ups, persons, strict=True):
            job.result = person if isinstance(person, Damaged) else Found((person, version))
        self._metrics.version = version
        for job in works:
            assert callable(job.asked)
            try:
                job.asked(self._writer)
                job.result = _Done()
            except DamagedError:
                job.result = Damaged()

    def _apply_alone(self, change: Change) -> _Result:
        try:
            return self._writer.apply([change], self._wall_us())[0]
        except DamagedError:
            return Damaged()

    def _look_up_alone(self, number: str) -> Person | Damaged | None:
        try:
            return self._writer.look_up([number])[0]
        except DirectoryError:
            return Damaged()
