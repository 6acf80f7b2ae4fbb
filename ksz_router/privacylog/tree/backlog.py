"""How much of the log is not ordered yet, as anyone can see from the disk: for who must wait."""

import os
from pathlib import Path

from ksz_router.privacylog.frame import Read, begin_of
from ksz_router.privacylog.header import PAGE, FrameDamaged, parse_file_header
from ksz_router.privacylog.slots import file_numbers, file_of, opened, slot_folders
from ksz_router.privacylog.tree.order import Line, Order
from ksz_router.privacylog.tree.places import LogOlder, standing_of


class Backlog:
    """Looks at a log and its order again and again, and reads only what was added to the order.

    It does not ask the sequencer, which may be what stands still.
    """

    def __init__(self, log: Path, order: Path) -> None:
        self._log = log
        self._order = Order(order)
        self._start = -1
        self._count = 0
        self._last: dict[str, Line] = {}
        self._known: dict[str, tuple[Line | None, int, int]] = {}

    def share(self) -> float:
        """Return the part of the log's disk, 0 to 1, that is taken by what is not ordered.

        Raises:
            OSError: the log or the order cannot be read.
        """
        if not self._log.is_dir():
            return 0.0
        state = os.statvfs(self._log)
        return self.bytes() / (state.f_blocks * state.f_frsize)

    def bytes(self) -> int:
        """Return how many bytes of frames are not ordered; errors as above."""
        if not self._log.is_dir():
            return 0
        self._read_order()
        folders = slot_folders(self._log)
        return sum(self._bytes_of(folder, folders) for folder in folders)

    def _read_order(self) -> None:
        starts = self._order.starts()
        if not starts:
            return
        if starts[-1] != self._start:
            self._start, self._count = starts[-1], 0
        for line in self._order.grown(self._start, self._count):
            self._last[line.slot] = line
            self._count += 1

    def _bytes_of(self, folder: Path, folders: list[Path]) -> int:
        numbers = file_numbers(folder)
        file, offset = self._place_of(folder, numbers, folders)
        found = 0
        for number in numbers:
            if number >= file:
                begin = offset if number == file else PAGE
                with opened(file_of(folder, number)) as read:
                    found += max(0, used_end(read) - begin)
        return found

    def _place_of(self, folder: Path, numbers: list[int], folders: list[Path]) -> tuple[int, int]:
        """Return up to which file and offset a slot is ordered."""
        own = self._last.get(folder.name)
        if own is not None and own.file in numbers:
            return own.file, own.end
        known = self._known.get(folder.name)
        if known is not None and known[0] == own and (own is not None or known[1]):
            return known[1:]
        try:  # it was renamed, or begun anew, or nothing of it is ordered
            standing, _ = standing_of(folder, folders, self._last, {})
        except LogOlder:
            standing = None
        file, offset = (standing.file, standing.place.offset) if standing else (0, 0)
        self._known[folder.name] = own, file, offset
        return file, offset


def used_end(read: Read) -> int:
    """Return where the frames of a file end: pages are used from the first on, without a gap."""
    try:
        header = parse_file_header(read(0, PAGE))
    except FrameDamaged:
        return PAGE
    low, high = begin_of(header).offset // PAGE, header.file_bytes // PAGE
    while low < high:
        middle = (low + high) // 2
        if read(middle * PAGE, PAGE).strip(b"\0"):
            low = middle + 1
        else:
            high = middle
    return low * PAGE
