"""One connection of a client, and the requests that wait for their answers on it."""

import trio

from ksz_router.messages import Answer
from ksz_router.sdk.pump import Pump


class Waiting:
    """One request that waits for its answer."""

    __slots__ = ("answer", "event", "lost")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: Answer | None = None
        self.lost = False


class Line:
    """One connection to the router and what is in flight on it."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.waiting: dict[int, Waiting] = {}
        self.is_draining = False
        self.places: trio.CapacityLimiter = trio.CapacityLimiter(1)
        self._last_number = 0

    def next_number(self) -> int:
        """Return a correlation id that is not in use."""
        self._last_number = self._last_number % 0xFFFF_FFFF + 1
        return self._last_number

    def end_if_idle(self) -> None:
        """Close a connection that takes nothing new, once everything on it was answered.

        An answer that came may still lie in ``waiting``, until its task has run.
        """
        if self.is_draining and all(each.answer is not None for each in self.waiting.values()):
            self.pump.end()
