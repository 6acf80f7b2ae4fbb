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
from ksz_router.daemon.clock import guarded_us
from ksz_router.daemon.directory_jobs import (
    ChangeJob,
    Failure,
    Found,
    Job,
    LookUpJob,
    Turn,
    Verdict,
    WorkJob,
)
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.directory.change import Change
from ksz_router.directory.hindrance import DirectoryFullError, NotTakenError
from ksz_router.directory.writer import Writer

Spare: TypeAlias = Callable[[], Awaitable[float | None]]
"""Does a bounded piece of work and returns after how many seconds it may do the next; None where
there is nothing left to do, until :meth:`Batches.wake`. Nobody else uses the writer meanwhile."""


Returned = TypeVar("Returned")


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
        self._turn = Turn(writer, wall_us or guarded_us())
        self._waiting: deque[Job] = deque()
        self._to_do = trio.Event()
        self._is_closing = self._is_over = False
        self.spare: Spare | None = None
        """Work that uses the writer while nothing waits, and now and then; see :data:`Spare`."""
        self._spare_at = self._spared_at = -math.inf
        self._is_woken = False
        self.hindered: Callable[[NotTakenError], None] | None = None
        """Told why no change is taken, once until one was taken again; called on the loop."""
        self.served_at = -math.inf
        """When somebody last waited for the writer; Trio's time."""

    def change(self, change: Change, seconds: float, done: Callable[[Verdict], None]) -> None:
        """Have a change made; ``done`` is told what came of it, which is durable by then.

        Nothing takes it back. Where the program ends without knowing, ``done`` is told nothing.

        Args:
            change: What is asked.
            seconds: How long it may wait for its batch.
            done: Called on the loop, and at once where there is no room; may not raise.
        """
        self._admit(ChangeJob(change, trio.current_time() + seconds, done))

    def look_up(self, number: str, seconds: float, done: Callable[[Found | Failure], None]) -> None:
        """Look up the person under a number, after the changes that wait; the rest as above."""
        self._admit(LookUpJob(number, trio.current_time() + seconds, done))

    async def with_writer(self, work: Callable[[Writer], Returned]) -> Returned:
        """Do something short with the writer, in its thread, after the changes that wait.

        For the program itself, not for peers: it finds room, and may wait for as long as it takes.

        Raises:
            DamagedError: what it needed cannot be read.
            NotTakenError: it writes, and nothing can be written now.
        """
        returned: list[Returned] = []
        job = WorkJob(lambda writer: returned.append(work(writer)))
        if not self._is_over:
            self._add(job)
            with trio.CancelScope(shield=True):
                await job.ended.wait()
        if job.trouble is not None:
            raise job.trouble
        if not returned:  # nobody works any more, and what is to come ends with the program
            await trio.sleep_forever()
        return returned[0]

    @property
    def notices_written(self) -> int:
        """How many notices the changes of this run left to be told."""
        return self._writer.notices_written

    def _admit(self, job: ChangeJob | LookUpJob) -> None:
        if self._is_over:  # nobody works any more: who asks again is told by the next run
            return
        if len(self._waiting) < limits.directory_waiting_max:
            self._add(job)
        else:
            self._metrics.turned_away += 1
            job.done(Failure.FULL)

    def _add(self, job: Job) -> None:
        self._waiting.append(job)
        self._metrics.waiting = len(self._waiting)
        self._to_do.set()

    async def run(self) -> None:
        """Work until :meth:`close` was called and nothing is left.

        Raises:
            DirectoryError: a batch could not be written. It is not known whether it stands; who
                waits for it is not answered, and asks again by the same exchange id.
        """
        batch: list[Job] = []
        try:
            while self._waiting or not self._is_closing:
                if self._is_spare_due():
                    await self._do_spare()
                elif not self._waiting:
                    await self._idle()
                else:
                    count = min(len(self._waiting), limits.directory_batch_max)
                    batch = [self._waiting.popleft() for _ in range(count)]
                    self._metrics.waiting = len(self._waiting)
                    await self._work(batch)
                    self.served_at = trio.current_time()
        finally:
            self._is_over = True
            for job in (*batch, *self._waiting):
                if isinstance(job, WorkJob):  # who waits for it can be let go
                    job.ended.set()

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
        """Wait for changes, or for the end of a pause of the spare work."""
        self._to_do = trio.Event()
        with trio.move_on_at(self._spare_at if self.spare is not None else math.inf):
            await self._to_do.wait()

    def _is_spare_due(self) -> bool:
        """Nothing waits for the writer, or something always does, and spare work has its share."""
        now = trio.current_time()
        if self.spare is None or self._is_closing or now < self._spare_at:
            return False
        return not self._waiting or now >= self._spared_at + limits.directory_spare_seconds

    async def _do_spare(self) -> None:
        assert self.spare is not None
        self._is_woken = False
        pause_s = await self.spare()
        self._spared_at = trio.current_time()
        if pause_s is not None:
            self._spare_at = self._spared_at + pause_s
        elif not self._is_woken:
            self._spare_at = math.inf

    def close(self) -> None:
        """Let :meth:`run` return once nothing is left."""
        self._is_closing = True
        self._to_do.set()

    async def _work(self, batch: Sequence[Job]) -> None:
        now = trio.current_time()
        changes: list[ChangeJob] = []
        look_ups: list[LookUpJob] = []
        works: list[WorkJob] = []
        for job in batch:
            if isinstance(job, WorkJob):
                works.append(job)
            elif now > job.ends_at:  # who asked was told that nothing is known; let it stay undone
                job.done(Failure.TOO_LATE)
            elif isinstance(job, ChangeJob):
                changes.append(job)
            else:
                look_ups.append(job)
        if not changes and not look_ups and not works:
            return
        began = time.perf_counter()
        with trio.CancelScope(shield=True):
            verdicts, found = await trio.to_thread.run_sync(
                self._turn.run,
                [job.change for job in changes],
                [job.number for job in look_ups],
                works,
            )
        settled = [
            (job.change.operation, verdict)
            for job, verdict in zip(changes, verdicts, strict=True)
            if not isinstance(verdict, Failure)
        ]
        took_s = time.perf_counter() - began
        self._metrics.version = self._writer.version
        self._tell_hindrance()
        self._metrics.committed(settled, look_ups=len(look_ups), took_s=took_s)
        for change, verdict in zip(changes, verdicts, strict=True):
            change.done(verdict)
        for look_up, seen in zip(look_ups, found, strict=True):
            look_up.done(seen)
        for work in works:
            work.ended.set()

    def _tell_hindrance(self) -> None:
        error, was = self._turn.hindrance, self._metrics.hindrance
        is_full = isinstance(error, DirectoryFullError)
        self._metrics.hindrance = "" if error is None else "full" if is_full else "damaged"
        if error is not None and not was and self.hindered is not None:
            self.hindered(error)
