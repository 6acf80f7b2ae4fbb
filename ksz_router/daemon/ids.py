"""Exchange ids: UUIDv7 (RFC 9562, 5.7), made many at a time."""

import os
import struct
from collections.abc import Callable, Iterator
from itertools import chain, islice

_POOL = 512
_POOLED = struct.Struct("10s" * _POOL)
_FREE = int.from_bytes(b"\x0f\xff\x3f\xff\xff\xff\xff\xff\xff\xff" * _POOL, "big")
_FIXED = int.from_bytes(b"\x70\x00\x80\x00\x00\x00\x00\x00\x00\x00" * _POOL, "big")
"""Version and variant, in the last ten bytes of so many ids; all other bits are free."""


class ExchangeIds:
    """Makes ids. The first six bytes are Unix milliseconds, so ids sort by time.

    Where the clock goes back, they stand still.

    Args:
        wall_ns: Unix time.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._drawn: Iterator[bytes] = chain.from_iterable(iter(_draw, None))
        self._last_ms = 0

    def __call__(self, count: int) -> list[bytes]:
        """Return so many ids of this moment, 16 bytes each."""
        self._last_ms = max(self._last_ms, self._wall_ns() // 1_000_000)
        moment = self._last_ms.to_bytes(6, "big")
        return [moment + drawn for drawn in islice(self._drawn, count)]


def _draw() -> tuple[bytes, ...]:
    """Return what follows the moment in ids, for a pool of them."""
    bits = int.from_bytes(os.urandom(_POOLED.size), "big") & _FREE | _FIXED
    return _POOLED.unpack(bits.to_bytes(_POOLED.size, "big"))
