"""Unix time for a worker whose host's clock may jump.

Between two looks time goes on by the monotonic clock, so a jump reaches nobody before it is seen.
A small step is gone along with. A jump is not: it makes the router stop taking requests, because a
record with a wrong time is worse than none being forwarded. It is over when the clock is back. If
it stays, and is no larger than a mistake of some hours, it is taken for the truth once nothing is
open any more that began before it; if it is larger, a person has to say so, by a restart.
"""

import time
from collections.abc import Callable

from ksz_router.limits import (
    clock_error_seconds_max,
    clock_hold_seconds,
    clock_step_seconds_max,
)

_STEP_NS = int(clock_step_seconds_max * 1e9)
_HOLD_NS = int(clock_hold_seconds * 1e9)
_ERROR_NS = int(clock_error_seconds_max * 1e9)


class HostClock:
    """Unix time, guarded. ``look`` at it once a second.

    Args:
        wall_ns: The clock of the host, Unix nanoseconds; may jump.
        monotonic_ns: Never does.
    """

    def __init__(self, wall_ns: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._base_ns = wall_ns() - monotonic_ns()
        self._jump: tuple[int, int] | None = None
        """What the base would be by the host's clock, and since when it has been so."""
        self.jumps = 0
        """How many were seen."""
        self.offset_s = 0.0
        """How far the host's clock was ahead of this one at the last look."""

    @property
    def has_jumped(self) -> bool:
        """The host's clock says another time than it should, and it is not known which is right."""
        return self._jump is not None

    def now_ns(self) -> int:
        """Unix nanoseconds."""
        return self._base_ns + self._monotonic_ns()

    def look(self) -> None:
        """Compare with the host's clock."""
        now_ns = self._monotonic_ns()
        base_ns = self._wall_ns() - now_ns
        offset_ns = base_ns - self._base_ns
        self.offset_s = offset_ns / 1e9
        if abs(offset_ns) <= _STEP_NS:
            self._base_ns, self._jump = base_ns, None
        elif self._jump is None or abs(base_ns - self._jump[0]) > _STEP_NS:
            self.jumps += 1
            self._jump = base_ns, now_ns
        elif now_ns - self._jump[1] >= _HOLD_NS and abs(offset_ns) <= _ERROR_NS:
            self._base_ns, self._jump = base_ns, None

    def begin_anew(self) -> None:
        """Take the host's clock as it is; only while nothing is open or written."""
        self._base_ns, self._jump = self._wall_ns() - self._monotonic_ns(), None


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
