"""Whether the router serves somebody, as any process on its machine can see.

A worker that serves records, and nothing else writes into the file that its slot of the privacy log
is at: so the file's time of change tells. It needs nobody's help, costs the workers nothing, and
sees consultations as well as changes. A file that is prepared ahead has another name until it is
used.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from ksz_router.privacylog.slots import file_numbers, file_of

_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 2.0
"""So long after an entry the next one is expected no more."""


class Traffic:
    """Looks at the slots of the workers.

    Args:
        slots: Their folders in the log.
        now_s: Monotonic.
    """

    def __init__(self, slots: Iterable[Path], now_s: Callable[[], float]) -> None:
        self._slots = tuple(slots)
        self._now_s = now_s
        self._seen: tuple[tuple[int, int], ...] | None = None
        self._looked_s = self._changed_s = now_s()

    def is_there(self) -> bool:
        """Say whether a worker recorded anything lately; yes where it is not known yet."""
        now_s = self._now_s()
        if self._seen is None or now_s >= self._looked_s + _LOOK_SECONDS:
            seen = tuple(map(_latest, self._slots))
            if seen != self._seen:
                self._changed_s = now_s
            self._seen, self._looked_s = seen, now_s
        return now_s < self._changed_s + _QUIET_SECONDS


def _latest(slot: Path) -> tuple[int, int]:
    """Number and time of change of the newest file; zeros where there is none."""
    try:
        number = file_numbers(slot)[-1]
        return number, file_of(slot, number).stat().st_mtime_ns
    except (OSError, IndexError):
        return 0, 0
