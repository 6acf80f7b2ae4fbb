"""A disk whose power can be cut: ext4 on a loop device, shut down without flushing its journal.

``FS_IOC_SHUTDOWN`` with ``NOLOGFLUSH`` stops the file system at once: what was not flushed is
dropped, as with a power cut, and the next mount finds what a disk would hold. What had reached
the block device without being flushed stays, so a cache of the device itself is not played.
Needs root and loop devices.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN = 0x8004_587D  # FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_NO_LOG_FLUSH = struct.pack("I", 2)
_IMAGE_BYTES = 12 * 1024**3  # sparse: only what is written takes room
_UNMOUNT_TRIES = 100


class CannotMountError(Exception):
    """An image cannot be mounted here. The message says what the machine said."""


class Disk:
    """A mounted image.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self._image = folder / "disk.image"
        self.folder.mkdir()
        try:
            with self._image.open("wb") as file:
                file.truncate(_IMAGE_BYTES)
            _run("mkfs.ext4", "-q", "-F", str(self._image))
            self._mount()
        except (OSError, subprocess.CalledProcessError) as error:
            self._image.unlink(missing_ok=True)
            said = getattr(error, "stderr", None) or str(error)
            raise CannotMountError(said.strip()) from None

    def cut(self) -> None:
        """Cut the power: from here on every write fails, and what was not flushed is gone."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Power is back; nobody may have a file of the disk open."""
        self._unmount()
        self._mount()

    def close(self) -> None:
        """Give the disk up."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._unmount()
        self._image.unlink(missing_ok=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))

    def _unmount(self) -> None:
        """Unmount; a process that was killed may take a moment to let go of its files."""
        for attempt in range(_UNMOUNT_TRIES):
            try:
                _run("umount", str(self.folder))
            except subprocess.CalledProcessError:
                if attempt == _UNMOUNT_TRIES - 1:
                    raise
                time.sleep(0.05)
            else:
                return


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
