"""New files of a slot, filled with zeros before use.

A commit into a file that has its blocks changes no metadata of the file system: its flush is
about twice as fast as one that grows the file, and much steadier. Files are made under a name
that no reader looks at and get their number when their header page is on disk.

A file that was prepared is room that nobody can take away: going over to it needs no block of the
disk, and no descriptor. One that was not used waits for the next run, which then starts without
filling any: a file gets the name ``prepared`` when all of it is on disk.
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ksz_router.privacylog.durable import Disk

_MAKING, _FILLING, _PREPARED = "making", "filling", "prepared"
_CHUNK_BYTES = 256 * 1024  # a larger one makes commits wait behind its flush for milliseconds
_ZEROS = bytes(_CHUNK_BYTES)
_BLOCK_BYTES = 512  # of ``st_blocks``, whatever the file system's own are


class NewFiles:
    """Makes the files of one slot. ``prepare`` may run in a thread beside ``take``.

    Args:
        slot_folder: Where they are made.
        folder_descriptor: Of that folder, open as long as this is used.
        file_bytes: Size of each.
        disk: For fault tests.
    """

    def __init__(
        self, slot_folder: Path, folder_descriptor: int, file_bytes: int, disk: Disk
    ) -> None:
        self._folder = slot_folder
        self._folder_descriptor = folder_descriptor
        self._file_bytes = file_bytes
        self._disk = disk
        self._lock = threading.Lock()
        self._closed = False
        # What a killed run was making; the slot is ours, so nobody else is at it.
        for name in (_MAKING, _FILLING):
            (slot_folder / name).unlink(missing_ok=True)
        self._prepared: int | None = None

    def prepare(self, pause: Callable[[], None]) -> None:
        """Fill one file ahead, a flush and a ``pause`` after each chunk; at once if one is ready.

        Raises:
            OSError: the disk refused; nothing of the file is left, and it may be tried again.
        """
        if self._prepared is not None or self._closed:
            return
        self._check_room()
        descriptor = self._create(_FILLING)
        kept = False
        try:
            for offset in range(0, self._file_bytes, _CHUNK_BYTES):
                self._fill(descriptor, offset)
                self._disk.flush(descriptor)
                pause()
                if self._closed:
                    break
            with self._lock:
                if not self._closed:
                    (self._folder / _FILLING).rename(self._folder / _PREPARED)
                    self._prepared, kept = descriptor, True
        finally:
            if not kept:
                os.close(descriptor)
                (self._folder / _FILLING).unlink(missing_ok=True)

    def take(self, header_page: bytes, file: Path) -> int:
        """Return a descriptor of a new file that has its header and name on disk.

        Raises:
            FileExistsError: a file of that name is there, against all that recovery found.
            OSError: the disk refused.
        """
        with self._lock:
            descriptor, self._prepared = self._prepared, None
            if descriptor is None:
                descriptor = self._left_prepared()
            name = _MAKING if descriptor is None else _PREPARED
            if descriptor is None:
                self._check_room()
                descriptor = self._create(_MAKING)
            try:
                for offset in range(0, self._file_bytes if name == _MAKING else 0, _CHUNK_BYTES):
                    self._fill(descriptor, offset)
                self._disk.write(descriptor, header_page, 0)
                self._disk.flush(descriptor)
                # Unlike a rename, a link refuses where the name is taken.
                os.link(self._folder / name, file)
                (self._folder / name).unlink()
            except BaseException:
                os.close(descriptor)
                raise
        os.fsync(self._folder_descriptor)
        return descriptor

    def close(self) -> None:
        """Leave what was prepared to the next run; a ``prepare`` under way ends soon."""
        with self._lock:
            self._closed = True
            if self._prepared is not None:
                os.close(self._prepared)
                self._prepared = None

    def _left_prepared(self) -> int | None:
        """Open what an earlier run prepared, if it is one of ours: all there, nothing but zeros.

        Of another size it was made under another configuration; without its blocks it is a copy.
        What is not zero would be found behind the last frame some day, and taken for damage.
        """
        file = self._folder / _PREPARED
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        is_ours = False
        try:
            is_ours = self._is_ours(descriptor)
        finally:
            if not is_ours:
                os.close(descriptor)
        if is_ours:
            return descriptor
        file.unlink()
        return None

    def _is_ours(self, descriptor: int) -> bool:
        state, size = os.fstat(descriptor), self._file_bytes
        if state.st_size != size or state.st_blocks * _BLOCK_BYTES < size:
            return False
        for offset in range(0, size, _CHUNK_BYTES):
            zeros = _ZEROS[: size - offset]
            if os.pread(descriptor, len(zeros), offset) != zeros:
                return False
        return True

    def _check_room(self) -> None:
        """Leave a disk alone that has no room: filling it to the brim would hurt its neighbours."""
        state = os.statvfs(self._folder)
        if state.f_bavail * state.f_frsize < self._file_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _create(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._folder / name, flags, 0o600)

    def _fill(self, descriptor: int, offset: int) -> None:
        size = min(_CHUNK_BYTES, self._file_bytes - offset)
        self._disk.write(descriptor, _ZEROS[:size], offset)
