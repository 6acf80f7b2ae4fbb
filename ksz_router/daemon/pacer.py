"""Rests between pieces of work, for what runs beside the workers and may take longer for it.

Niceness is not enough: it says who has a processor first, and nothing of caches, memory and the
other half of a core. What is worked all the time costs a commit about twice its time.
"""

from collections.abc import Callable

REST = 3.0
REST_SECONDS_MAX = 10.0
STRETCH_SECONDS = 0.001
"""Worked in one go. While it lasts a processor is missing, and what comes beside it queues."""


class Pacer:
    """Says how long a rest is due.

    Args:
        worked_s: Processor time so far of whoever works: of a process, or of a thread.
    """

    def __init__(self, worked_s: Callable[[], float]) -> None:
        self._worked_s = worked_s
        self._from_s = worked_s()
        self.rest = REST
        """So much longer than it worked it rests."""
        self.gives_way = True
        """There is somebody to give way to, and time for it."""

    def begin(self) -> None:
        """What was worked up to now is rested for."""
        self._from_s = self._worked_s()

    def due_s(self) -> float:
        """Seconds to rest for what was worked since :meth:`begin`; 0 where nobody needs it."""
        worked_s = self._worked_s() - self._from_s
        return min(self.rest * worked_s, REST_SECONDS_MAX) if self.gives_way else 0.0


class Stretches:
    """Called again and again by who works: makes short stretches of it, with rests between.

    Args:
        pacer: Of the thread that works.
        rest: Sleeps.
    """

    def __init__(self, pacer: Pacer, rest: Callable[[float], None]) -> None:
        self.pacer = pacer
        self._rest = rest

    def __call__(self) -> None:
        """Rest, once a stretch is over."""
        due_s = self.pacer.due_s()
        if due_s >= STRETCH_SECONDS * self.pacer.rest:
            self._rest(due_s)
            self.pacer.begin()
