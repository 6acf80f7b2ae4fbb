"""Exchange ids: UUIDv7 (RFC 9562, 5.7), made many at a time."""

import os
import struct
from collections.abc import Callable, Iterator

_POOL = 512

_RANDOM = struct.Struct(">HQ")
_ID = struct.Struct(">QHQ")


class ExchangeIds:
    """Makes ids. The first six bytes are Unix milliseconds, so ids sort by time.

    Where the clock goes back, they stand still.

    Args:
        wall_ns: Unix time.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._random: Iterator[tuple[int, int]] = iter(())
        self._last_ms = 0

    def __call__(self) -> bytes:
        """Return 16 bytes."""
        drawn = next(self._random, None)
        if drawn is None:
            self._random = _RANDOM.iter_unpack(os.urandom(_RANDOM.size * _POOL))
            drawn = next(self._random)
        milliseconds = self._wall_ns() // 1_000_000
        self._last_ms = max(self._last_ms, milliseconds)
        version = 0x7000 | drawn[0] & 0x0FFF
        variant = 0x8000_0000_0000_0000 | drawn[1] >> 2
        return _ID.pack(self._last_ms, version, variant)[2:]
