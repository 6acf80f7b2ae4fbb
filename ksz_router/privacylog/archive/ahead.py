"""Let the disk bring what is about to be read of several files, so that nobody waits for each."""

import os
from contextlib import suppress
from pathlib import Path


def announce(path: Path, begin: int = 0, size: int = 0) -> None:
    """Let the disk bring ``size`` bytes of a file, all from ``begin`` on where it is 0.

    Waits for nothing. A file that cannot be opened is reported by who reads it.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
