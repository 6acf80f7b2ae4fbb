"""Whose handshake is next: paced, and one address after the other, so that no flood has all turns.

A handshake is processor time. Who floods waits behind its own; everybody else is next.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

_BURST = 4
"""Turns that may be had at once by everyone together, after a pause."""

_SWEEP_SECONDS = 10.0


class Turns(Generic[T]):
    """Who waits for a turn, by address. Times are seconds of any clock that does not go back.

    Args:
        per_second: Turns that everyone together gets.
        per_second_of_address: Turns that one address gets for long.
        burst_of_address: Turns that one address gets at once, after a pause.
    """

    def __init__(
        self, *, per_second: float, per_second_of_address: float, burst_of_address: int
    ) -> None:
        self._interval_s = 1 / per_second
        self._address_interval_s = 1 / per_second_of_address
        self._address_ahead_s = (burst_of_address - 1) / per_second_of_address
        self._waiting: dict[str, deque[T]] = {}
        """Those of one address in the order in which they came; addresses in turn."""
        self._used_until_s = 0.0
        self._address_used_until_s: dict[str, float] = {}
        """Until when the turns that an address had are paid for by its pace."""
        self._sweep_s = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def join(self, address: str, waiter: T) -> None:
        """Wait for a turn."""
        self._waiting.setdefault(address, deque()).append(waiter)

    def leave(self, address: str, waiter: T) -> None:
        """Wait no more; who had its turn already is not there, which is no fault."""
        waiting = self._waiting.get(address)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[address]

    def next(self, now_s: float) -> T | None:
        """Return whose turn it is now, and forget it; None where nobody may have one yet."""
        if now_s < self._used_until_s - (_BURST - 1) * self._interval_s:
            return None
        address = next((name for name in self._waiting if self._free_s(name) <= now_s), None)
        if address is None:
            return None
        waiting = self._waiting.pop(address)
        waiter = waiting.popleft()
        if waiting:
            self._waiting[address] = waiting  # behind every other address
        self._used_until_s = max(self._used_until_s, now_s) + self._interval_s
        used_until_s = max(self._address_used_until_s.get(address, 0.0), now_s)
        self._address_used_until_s[address] = used_until_s + self._address_interval_s
        self._sweep(now_s)
        return waiter

    @property
    def due_s(self) -> float | None:
        """When :meth:`next` may have somebody again; None where nobody waits."""
        if not self._waiting:
            return None
        return max(
            self._used_until_s - (_BURST - 1) * self._interval_s,
            min(map(self._free_s, self._waiting)),
        )

    def _free_s(self, address: str) -> float:
        return self._address_used_until_s.get(address, 0.0) - self._address_ahead_s

    def _sweep(self, now_s: float) -> None:
        """Forget the addresses whose turns are paid for, so that their number stays bounded."""
        if now_s >= self._sweep_s:
            self._sweep_s = now_s + _SWEEP_SECONDS
            paces = self._address_used_until_s
            for address in [name for name, until_s in paces.items() if until_s <= now_s]:
                del paces[address]
