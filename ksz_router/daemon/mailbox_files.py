"""The files of a mailbox while it is applied: its lines from a place on, and its answers."""

import os
from pathlib import Path

from ksz_router.directory.mailbox_form import LINE_BYTES_MAX


class Lines:
    """The lines of a mailbox, from a byte on.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, file: Path, offset: int) -> None:
        self._stream = file.open("rb", buffering=256 * 1024)
        self._stream.seek(offset)
        self._ends: list[int] = []

    @property
    def offset(self) -> int:
        """Where the next line begins."""
        return self._stream.tell()

    def take(self, count: int) -> list[bytes]:
        """Return the next lines without their ends; a line that is longer than may be is empty."""
        read, lines, at = self._stream.readline, [], self._stream.tell()
        self._ends.clear()
        for _ in range(count):
            line = read(LINE_BYTES_MAX)
            at += len(line)
            if not line.endswith(b"\n"):
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest, line = read(LINE_BYTES_MAX), b""
                    at += len(rest)
            self._ends.append(at)
            lines.append(line.rstrip(b"\r\n"))
        return lines

    def keep(self, count: int) -> None:
        """Give back all but the first of the lines that were taken last."""
        if count < len(self._ends):
            self._stream.seek(self._ends[count - 1])

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def append_answers(file: Path, offset: int, text: str) -> int:
    """Make answers durable at a byte of the answer file; what stood behind it goes.

    Returns:
        Where the next ones belong.
    """
    data = text.encode("ascii")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, offset)
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return offset + len(data)
