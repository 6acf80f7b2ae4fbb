"""Where the files of the log are: ``<log>/<slot>/<number>.wal``. Reading only."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksz_router.privacylog.frame import Read

_FILE = re.compile(r"([0-9]{6,})\.wal")
_SLOT = re.compile(r"[a-z][a-z0-9-]{0,31}")


def is_slot(name: str) -> bool:
    """Say whether ``name`` may name a slot: 1 to 32 lower-case letters, digits and hyphens."""
    return _SLOT.fullmatch(name) is not None


def file_of(slot_folder: Path, number: int) -> Path:
    """Return the path of a slot's file of this number."""
    return slot_folder / f"{number:06d}.wal"


def slot_folders(log: Path) -> list[Path]:
    """Return the folders of a log that hold write-ahead files, by name.

    Raises:
        OSError: the folder cannot be listed.
    """
    return sorted(entry for entry in log.iterdir() if entry.is_dir() and file_numbers(entry))


def file_numbers(slot_folder: Path) -> list[int]:
    """Return the numbers of the write-ahead files in a slot's folder, in order.

    Raises:
        OSError: the folder cannot be listed.
    """
    matches = (_FILE.fullmatch(entry.name) for entry in slot_folder.iterdir())
    return sorted(int(match[1]) for match in matches if match is not None)


@contextmanager
def opened(file: Path) -> Iterator[Read]:
    """Give a function that reads the file at an offset, as long as the context lasts.

    Raises:
        OSError: the file cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda offset, size: os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
