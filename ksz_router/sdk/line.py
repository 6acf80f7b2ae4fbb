"""One connection to the router, as the client uses it: places in its window, and who waits."""

import msgspec
import trio

from ksz_router.limits import deadline_ms_max
from ksz_router.messages import Answer, Request
from ksz_router.sdk.pump import Pump

_ID_MAX = 0xFFFF_FFFF
_SHARE_OF_ROUTER = 0.95
"""Of the time left, what the router is given: its typed answer is to arrive before we give up."""


class Waiting:
    """One request that waits for its answer; once ``event`` is set without one, it is lost."""

    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.answer: Answer | None = None


class Line:
    """One connection to the router and what is in flight on it."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.waiting: dict[int, Waiting] = {}
        self.is_draining = False
        self.places: trio.CapacityLimiter = trio.CapacityLimiter(1)
        self._last_number = 0

    def next_numbers(self, count: int = 1) -> int:
        """Return the first of so many ids in a row."""
        first = self._last_number + 1
        if first + count - 1 > _ID_MAX:
            first = 1
        self._last_number = first + count - 1
        return first

    async def take_places(self, most: int) -> list[Waiting]:
        """Wait for a place in the window, and take as many as are free then, up to ``most``.

        Not for all of them: two who wait while they hold some could wait for each other.
        """
        taken = [Waiting()]
        await self.places.acquire_on_behalf_of(taken[0])
        while len(taken) < most:
            one = Waiting()
            try:
                self.places.acquire_on_behalf_of_nowait(one)
            except trio.WouldBlock:
                break
            taken.append(one)
        return taken

    def give_back(self, taken: list[Waiting]) -> None:
        """Leave places that were taken."""
        for one in taken:
            self.places.release_on_behalf_of(one)

    async def exchange(self, request: Request, ends_at: float) -> Answer | None:
        """Send once and wait; None where the connection broke. The caller holds a place."""
        number = self.next_numbers()
        wished_ms = wish_ms(request.deadline_ms, ends_at)
        waiting = self.waiting[number] = Waiting()
        try:
            self.pump.send(msgspec.structs.replace(request, id=number, deadline_ms=wished_ms))
            await waiting.event.wait()
        finally:
            self.forget(number)
        return waiting.answer

    def forget(self, number: int) -> None:
        """Wait for an answer no longer."""
        self.waiting.pop(number, None)
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """Close a connection that takes nothing new, once everything on it was answered.

        An answer that came may still lie in ``waiting``, until its task has run.
        """
        if self.is_draining and all(each.answer is not None for each in self.waiting.values()):
            self.pump.end()


def wish_ms(deadline_ms: int, ends_at: float) -> int:
    """Return what the router is given of the time that is left; 0 wishes all of it."""
    left_ms = max(1, int((ends_at - trio.current_time()) * 1000 * _SHARE_OF_ROUTER))
    return min(deadline_ms or left_ms, left_ms, deadline_ms_max)
