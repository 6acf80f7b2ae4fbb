"""The deadlines of all open exchanges: one ordered structure for a worker.

Deadlines are kept in ticks of some eight milliseconds, so that adding and removing one costs the
same however many there are, and an exchange that was answered is forgotten at once, payload and
all.
"""

import heapq
from collections.abc import Sequence

from ksz_router.daemon.opened import Exchange

_TICK_BITS = 23
"""A tick is 2**23 ns: to shift a moment costs a third of dividing it."""


class Deadlines:
    """Which exchanges end when."""

    def __init__(self) -> None:
        self._ticks: list[int] = []
        self._exchanges: dict[int, dict[bytes, Exchange]] = {}

    def add(self, exchanges: Sequence[Exchange]) -> None:
        """Remember exchanges up to their deadlines, rounded up to a tick."""
        deadline_ns, bucket = -1, dict[bytes, Exchange]()
        for exchange in exchanges:
            if exchange.deadline_ns != deadline_ns:  # those of one batch and service share it
                deadline_ns = exchange.deadline_ns
                bucket = self._bucket((deadline_ns >> _TICK_BITS) + 1)
            bucket[exchange.id] = exchange

    def remove(self, exchange: Exchange) -> None:
        """Forget an exchange; nothing happens if it is not here."""
        bucket = self._exchanges.get((exchange.deadline_ns >> _TICK_BITS) + 1)
        if bucket is not None:
            bucket.pop(exchange.id, None)

    @property
    def next_ns(self) -> int | None:
        """The first moment at which something may be due."""
        while self._ticks and not self._exchanges[self._ticks[0]]:
            del self._exchanges[heapq.heappop(self._ticks)]
        return self._ticks[0] << _TICK_BITS if self._ticks else None

    def due(self, now_ns: int) -> list[Exchange]:
        """Return and forget every exchange whose deadline has passed."""
        passed: list[Exchange] = []
        while self._ticks and self._ticks[0] << _TICK_BITS <= now_ns:
            passed.extend(self._exchanges.pop(heapq.heappop(self._ticks)).values())
        return passed

    def _bucket(self, tick: int) -> dict[bytes, Exchange]:
        bucket = self._exchanges.get(tick)
        if bucket is None:
            heapq.heappush(self._ticks, tick)
            bucket = self._exchanges[tick] = {}
        return bucket
