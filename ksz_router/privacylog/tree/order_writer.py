"""Append to the order: the one process that does, which its caller makes sure of."""

import os
from collections.abc import Sequence
from pathlib import Path

from ksz_router.privacylog.durable import DISK, Disk, sync_folder, write_over
from ksz_router.privacylog.tree.order import (
    LINE_BYTES,
    Line,
    Order,
    OrderDamaged,
    encode_line,
    standing,
)

FILE_LINES = 2**17
"""A further line begins another file: 16 MiB."""


class OrderWriter:
    """Appends lines; one process at a time, which its caller makes sure of.

    Args:
        folder: Made where it is missing.
        signed: How many leaves were signed. Lines up to there must be right; what stands behind
            the last whole line after that was never finished, and is cut off.

    Raises:
        OrderDamaged: lines of signed leaves are missing or not right.
        OSError: the disk refuses.
    """

    def __init__(
        self, folder: Path, signed: int, disk: Disk = DISK, file_lines: int = FILE_LINES
    ) -> None:
        self._disk = disk
        self._file_lines = file_lines
        self._descriptor = -1
        self._last: dict[str, Line] = {}
        self._start = self._count = self._crc = 0
        self.end_leaf = 0
        """How many leaves are ordered."""
        self.order = Order(folder)
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
        starts = self.order.starts()
        if starts:
            self._go_on_with(starts[-1])
        if self.end_leaf < signed:
            self.close()
            raise OrderDamaged(
                f"{folder}: orders {self.end_leaf} entries, but {signed} were signed: put back the "
                "newest copy of the archive"
            )

    def last_places(self) -> dict[str, Line]:
        """Return the last line of each slot."""
        return dict(self._last)

    def append(self, lines: Sequence[Line]) -> None:
        """Make lines durable, in their order; they must follow what is ordered.

        Raises:
            OSError: the disk refused; this object must not be used any more.
        """
        if not lines:
            return
        is_full = self._count + len(lines) > self._file_lines and self.end_leaf > self._start
        if self._descriptor < 0 or is_full:
            self._begin_file()
        parts = []
        leaf = self.end_leaf
        for line in lines:
            assert line.first_leaf == leaf
            leaf = line.end_leaf
            part, self._crc = encode_line(line, self._crc)
            parts.append(part)
        self._disk.write(self._descriptor, b"".join(parts), self._count * LINE_BYTES)
        self._disk.flush(self._descriptor)
        self._count += len(lines)
        self._last.update((line.slot, line) for line in lines)
        self.end_leaf = leaf

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _go_on_with(self, start: int) -> None:
        self._start = start
        file = self.order.file_of(start)
        self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._disk.reread(self._descriptor)
            self._last, self._count, self._crc = self.order.tail(start)
            os.ftruncate(self._descriptor, self._count * LINE_BYTES)
            self._disk.flush(self._descriptor)
        except BaseException:
            self.close()
            raise
        self.end_leaf = max((line.end_leaf for line in self._last.values()), default=start)

    def _begin_file(self) -> None:
        self.close()
        self._start = self.end_leaf
        parts = []
        for after, line in zip(range(len(self._last))[::-1], self._last.values(), strict=True):
            mark = standing(line, self._start)
            part, self._crc = encode_line(mark, self._crc, standing_after=after)
            parts.append(part)
        file = self.order.file_of(self._start)
        write_over(file, b"".join(parts), disk=self._disk)
        self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._count = len(parts)
