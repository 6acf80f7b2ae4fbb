"""What was counted of a quarter soon after it had ended, kept beside the directory for good.

A directory tells what is so today: a line that was taken out since is not there to be counted. So
the figures of a quarter are kept, some kilobytes, the first time that they are counted after its
end; nothing replaces them. ``docs/directory-format.md`` says how they lie; decision 0021 why.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from ksz_router.directory.marks import UNREADABLE, sync_folder
from ksz_router.directory.packing import DamagedError
from ksz_router.model import Day

FOLDER = "quarters"
FORMAT = 1


class KeptLines(NamedTuple):
    """Lines of a sector, type and capacity, by what happened to them in the quarter."""

    sector: int
    type: int
    capacity: int
    in_force_at_begin: int
    inscribed: int
    ended: int
    in_force_at_end: int
    changed: int


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of a quarter."""

    quarter: str
    """As ``2026Q3``."""
    counted_on: Day
    """As the directory stood on that day."""
    version: int
    """Of the directory."""
    persons_known: int
    """With a line in force at the end of the quarter."""
    sectors_added_up: int
    """Different sectors of these persons."""
    deaths: int
    lines: tuple[KeptLines, ...]
    format: int = FORMAT


def keep(directory: Path, kept: Kept) -> bool:
    """Keep figures durably, unless those of the quarter are kept already; say whether it did.

    Raises:
        OSError: the disk does not take them.
    """
    folder = directory / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return _written(folder / f"{kept.quarter}.json", msgspec.json.encode(kept) + b"\n")


def read(directory: Path) -> dict[str, Kept]:
    """Return what is kept, by quarter.

    Raises:
        DamagedError: a file is not one of ours.
        OSError: one cannot be read.
    """
    found = {}
    for file in _files(directory):
        try:
            kept = msgspec.json.decode(file.read_bytes(), type=Kept)
        except UNREADABLE as error:
            raise DamagedError(_damage(file)) from error
        if kept.format != FORMAT or kept.quarter != file.stem:
            raise DamagedError(_damage(file))
        found[kept.quarter] = kept
    return found


def copy(source: Path, target: Path) -> None:
    """Copy the files of one directory that another one lacks, durably.

    Raises:
        OSError: a disk does not do it.
    """
    for file in _files(source):
        (target / FOLDER).mkdir(mode=0o700, exist_ok=True)
        _written(target / FOLDER / file.name, file.read_bytes())


def _files(directory: Path) -> Iterable[Path]:
    return sorted((directory / FOLDER).glob("*.json"))


def _written(file: Path, content: bytes) -> bool:
    """Give a file its name when it is durable, and never to a second one."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with new.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):
            file.hardlink_to(new)
            sync_folder(file.parent)
            return True
        return False
    finally:
        new.unlink(missing_ok=True)


def _damage(file: Path) -> str:
    return (
        f"{file}: is damaged or of another format; put back the one of a backup, or remove it: the "
        "quarter is then told as today's lines tell it"
    )
