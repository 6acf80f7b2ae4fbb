"""Files that are there after a power cut, or are not there at all.

The order is always the same: write the whole content under another name, flush the file, give it
its name, flush the folder. Until the folder is flushed the name may be lost; until the file is
flushed its content may be. A flush that failed is never tried again on the same descriptor: the
kernel may have dropped the pages, and the second try would falsely succeed.
"""

import errno
import os
from pathlib import Path


class Disk:
    """The system calls that what is durable depends on. A fault test passes a subclass."""

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``; a short write is completed.

        Raises:
            OSError: the rest could not be written.
        """
        while data:
            written = os.pwrite(descriptor, data, offset)
            if written <= 0:
                raise OSError(errno.EIO, "nothing could be written")
            data, offset = data[written:], offset + written

    def flush(self, descriptor: int) -> None:
        """Return when what was written will survive a power cut.

        Raises:
            OSError: it may not. Never to be called again for this descriptor.
        """
        os.fdatasync(descriptor)

    def begin_flush(self, descriptor: int) -> None:
        """Begin to flush; the next one may begin when :meth:`is_flushed` said that this is done.

        Raises:
            OSError: as :meth:`flush`.
        """
        self.flush(descriptor)

    def is_flushed(self, wait_s: float) -> bool:  # noqa: ARG002  it was waited for
        """Say whether what was begun is done; waits so long for it, less than a second.

        Raises:
            OSError: as :meth:`flush`.
        """
        return True

    def close(self) -> None:
        """Nothing will be flushed beside the caller any more."""

    def reread(self, descriptor: int) -> None:
        """Flush a file that another run wrote, and let the kernel forget what it holds of it.

        After a flush that failed the kernel may go on showing pages that never reached the disk.
        What is read after this is what is there.

        Raises:
            OSError: it cannot be flushed.
        """
        self.flush(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def replace(self, partial: Path, file: Path) -> None:
        """Give a flushed file its name, in place of an older one, and flush the folder.

        Raises:
            OSError: it may have the name or not.
        """
        partial.replace(file)
        sync_folder(file.parent)

    def cut(self, descriptor: int, size: int) -> None:
        """Take the end of a file away, down to ``size`` bytes, and flush.

        Raises:
            OSError: it may have either size.
        """
        os.ftruncate(descriptor, size)
        self.flush(descriptor)

    def remove(self, file: Path) -> None:
        """Remove a file and flush the folder.

        Raises:
            OSError: it may be there or not.
        """
        file.unlink()
        sync_folder(file.parent)


DISK = Disk()


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder.

    Raises:
        OSError: they could not be flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(file: Path, data: bytes, mode: int = 0o600, disk: Disk = DISK) -> None:
    """Create a file that did not exist, whole and flushed.

    Raises:
        FileExistsError: a file of that name exists; it is left as it is.
        OSError: it could not be written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        disk.write(descriptor, data, 0)
        disk.flush(descriptor)
        os.link(partial, file)  # unlike a rename, refuses where the name is taken
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    sync_folder(file.parent)


def write_over(file: Path, data: bytes, mode: int = 0o600, disk: Disk = DISK) -> None:
    """Write a file whole and flushed, in place of an older one: there is always one of the two.

    Raises:
        OSError: it could not be written; the older one may be there, or the new one.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        disk.write(descriptor, data, 0)
        disk.flush(descriptor)
        disk.replace(partial, file)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
