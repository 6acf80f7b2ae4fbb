"""Sealed files on the disk: written in pieces, and read again.

After each piece comes a flush and a pause: a larger one makes the commits of the workers wait
behind its flush. A file gets its name when all of it is on disk.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import DISK, Disk, sync_folder

_PIECE_BYTES = 256 * 1024
_PARTIAL = ".partial"


class SegmentRefused(PrivacyLogError):
    """A sealed file is damaged, or is not what it is named for."""


class Written(NamedTuple):
    """A file as it was written."""

    sha256: str
    bytes: int


def write(
    file: Path, data: pa.Buffer | bytes, *, pause: Callable[[], None], disk: Disk = DISK
) -> Written:
    """Write a file whole, flushed, and under its name; one of that name is replaced.

    Args:
        file: Folders above it are made where they are missing.
        data: All of it.
        pause: Called after each 256 KiB, which are flushed then.
        disk: For fault tests.

    Raises:
        OSError: the disk refused. What is left has another name, which :func:`is_partial` knows.
    """
    with Pieces(file, pause, disk) as pieces:
        pieces.write(data)
    return pieces.written()


class Pieces:
    """A file that is being written, in pieces; it gets its name at the end of the context."""

    closed = False  # for arrow

    def __init__(self, file: Path, pause: Callable[[], None], disk: Disk) -> None:
        self._file, self._pause, self._disk = file, pause, disk
        self._partial = file.with_name(f".{file.name}{_PARTIAL}")
        self._waiting = bytearray()
        self._hash = sha256()
        self._bytes = 0
        self._failed = False

    def __enter__(self) -> Self:
        _make_folders(self._file.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(self._partial, flags, 0o600)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None and self._waiting:
                self._put()
            if failed is None and self._failed:
                raise OSError(errno.EIO, "could not be written", str(self._partial))
        finally:
            os.close(self._descriptor)
        if failed is None:
            self._disk.replace(self._partial, self._file)

    def write(self, data: pa.Buffer | bytes) -> int:
        """Take bytes; what fills a piece goes to the disk.

        Raises:
            OSError: it refused; nothing more is written then.
        """
        view = memoryview(data).cast("B")
        count = len(view)
        self._hash.update(view)
        while view:
            room = _PIECE_BYTES - len(self._waiting)
            self._waiting += view[:room]
            view = view[room:]
            if len(self._waiting) == _PIECE_BYTES:
                self._put()
        return count

    def flush(self) -> None:
        """Do nothing: arrow asks for it, and each piece is flushed."""

    def close(self) -> None:
        """Do nothing: the end of the context closes it."""

    def written(self) -> Written:
        """Return what was written."""
        return Written(self._hash.hexdigest(), self._bytes)

    def _put(self) -> None:
        """Write a piece and flush it. After a failure nothing is, whatever arrow tries then."""
        if not self._failed:
            self._failed = True
            self._disk.write(self._descriptor, bytes(self._waiting), self._bytes)
            self._disk.flush(self._descriptor)
            self._bytes += len(self._waiting)
            self._pause()
            self._failed = False
        self._waiting.clear()


def is_partial(name: str) -> bool:
    """Say whether a file of this name was never finished."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def reread(file: Path, written: Written, disk: Disk = DISK) -> bytes:
    """Return what the disk holds of a file, not what the kernel remembers, once it is right.

    Args:
        file: Which.
        written: Its size and its hash.
        disk: For fault tests.

    Raises:
        SegmentRefused: it is missing, or is not what was written.
        OSError: it cannot be read.
    """
    with _held(file, disk) as stream:
        held = stream.read(written.bytes + 1)
    if len(held) != written.bytes or sha256(held).hexdigest() != written.sha256:
        raise _not_as_written(file)
    return held


def check(file: Path, written: Written, disk: Disk = DISK) -> None:
    """Read a file again as :func:`reread` does, and hold nothing of it.

    Args and raises: as :func:`reread`.
    """
    with _held(file, disk) as stream:
        found = file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    if size != written.bytes or found != written.sha256:
        raise _not_as_written(file)


@contextmanager
def _held(file: Path, disk: Disk) -> Iterator[BufferedReader]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SegmentRefused(f"{file}: missing") from None
    with os.fdopen(descriptor, "rb") as stream:
        disk.reread(descriptor)
        yield stream


def _not_as_written(file: Path) -> SegmentRefused:
    return SegmentRefused(f"{file}: is not what was written: the disk lies, or somebody wrote")


def _make_folders(folder: Path) -> None:
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
