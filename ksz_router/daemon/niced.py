"""A thread of its own for work that gives way: the system lets everybody else run first."""

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class NicedThread(Generic[T]):
    """Runs one piece of work after the other; the niceness is that of this thread alone (Linux).

    Args:
        niceness: 0 to 19.
    """

    def __init__(self, niceness: int) -> None:
        self._niceness = niceness
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="niced", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises; not to be cancelled meanwhile."""
        done, token = trio.Event(), trio.lowlevel.current_trio_token()
        found: list[T] = []
        failed: list[BaseException] = []

        def worked() -> None:
            try:
                found.append(work())
            except BaseException as error:  # noqa: BLE001  handed to who waits for it
                failed.append(error)
            trio.from_thread.run_sync(done.set, trio_token=token)

        self._work.put(worked)
        with trio.CancelScope(shield=True):
            await done.wait()
        if failed:
            raise failed[0]
        return found[0]

    def end(self) -> None:
        """Let the thread end once it is idle."""
        self._work.put(None)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (work := self._work.get()) is not None:
            work()


def when_idle(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises, from a thread of the idle class.

    It has a processor while nobody else wants it, and loses it at once to who does: a niced thread
    keeps it until its time slice is over. Where nobody ever rests it hardly gets on. A thread of
    that class may not leave it, so this one lives for this work alone (Linux, ``sched(7)``).
    """
    with ThreadPoolExecutor(1, "idle", _join_idle) as threads:
        return threads.submit(work).result()


def _join_idle() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # 0: this thread
