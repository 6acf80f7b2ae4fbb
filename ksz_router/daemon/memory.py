"""How a process holds its memory: taken at the start, kept, and used again.

Whoever does the same work over and over needs the same memory each time. Given back in between, it
is cleared and mapped anew each time, and nobody can say of the figures whether it grows. Taken bit
by bit, it is missing one night, and not at the start.
"""

import ctypes
import os

from ksz_router.limits import MIB

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Of ``mallopt(3)``."""
_KEPT_BYTES = 256 * MIB
"""So much may be free at the end of the heap before any of it is given back."""
_MAPPED_BYTES = 32 * MIB
"""Single pieces from this size on are given back at once: the most that glibc takes here."""


def keep_memory(taken_mib: int) -> None:
    """Let this process keep what memory it needed. To be called first of all, before threads.

    All threads have one heap (glibc), which arrow uses too, if it is not imported yet: with heaps
    of its own for each thread, what one freed is of no use to the next. Where the C library is
    another one, only arrow is told.

    Args:
        taken_mib: So much of it is taken at once.

    Raises:
        MemoryError: that is not there.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        _ = [b"\1" * MIB for _ in range(taken_mib)]  # written to: else the kernel gives nothing
