"""Exchange ids: UUIDv7 (RFC 9562, 5.7), made many at a time."""

import os
from collections.abc import Callable

_POOL = 512


class ExchangeIds:
    """Makes ids. The first six bytes are Unix milliseconds, so ids sort by time.

    Where the clock goes back, they stand still.

    Args:
        wall_ns: Unix time.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._random = b""
        self._used = 0
        self._last_ms = 0

    def __call__(self) -> bytes:
        """Return 16 bytes."""
        if self._used >= len(self._random):
            self._random, self._used = os.urandom(10 * _POOL), 0
        part = self._random[self._used : self._used + 10]
        self._used += 10
        self._last_ms = milliseconds = max(self._last_ms, self._wall_ns() // 1_000_000)
        return b"".join(
            (
                milliseconds.to_bytes(6, "big"),
                bytes((0x70 | part[0] & 0x0F, part[1], 0x80 | part[2] & 0x3F)),
                part[3:],
            )
        )
