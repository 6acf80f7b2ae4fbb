"""What was read of write-ahead files, kept: by the next question, and the next pass of this one.

Frames that were durable do not change: only what a live file got since is read, and decrypted.
"""

from pathlib import Path
from typing import Final, NamedTuple

from ksz_router.limits import MIB
from ksz_router.privacylog.frame import Frame, Place
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import End, FileScan, Visit, scan

KEPT_BYTES_MAX: Final = 64 * MIB
"""Of frames with their padding. What is more is read again each time."""


class _Kept(NamedTuple):
    """A stretch of a file."""

    begin: Place | None
    frames: list[Frame]
    end: Place


class Tail:
    """Frames of write-ahead files. For one thread.

    Args:
        kept_bytes_max: Of all frames that are kept.
    """

    def __init__(self, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = kept_bytes_max
        self._kept: dict[Path, _Kept] = {}
        self._bytes = 0

    def scan(
        self, file: Path, keys: KeyRing, visit: Visit, begin: Place | None, look_behind_bytes: int
    ) -> FileScan:
        """As :func:`recovery.scan`; what is kept of the file is not read again."""
        kept = self._kept.get(file)
        if kept is not None and not _covers(kept, begin):
            self._forget(file)
            kept = None
        frames: list[Frame] = []
        room = self._bytes_max - self._bytes

        def keep(frame: Frame) -> None:
            nonlocal room
            visit(frame)
            room -= frame.size
            if room >= 0:
                frames.append(frame)

        self.visit_kept(file, visit, begin)
        place = begin if kept is None else kept.end
        found = scan(file, keys, keep, place, look_behind_bytes=look_behind_bytes)
        if room < 0 or found.end not in (End.OPEN, End.CLOSED):
            self._forget(file)
            return found
        is_last = found.end is End.CLOSED
        end = Place(found.offset, found.frames, found.crc, found.next_record, is_last=is_last)
        before = _Kept(begin, [], end) if kept is None else kept
        before.frames.extend(frames)
        self._kept[file] = before._replace(end=end)
        self._bytes += sum(frame.size for frame in frames)
        return found

    def visit_kept(self, file: Path, visit: Visit, begin: Place | None) -> bool:
        """Hand over what is kept of a file from a place on; False if it is not kept."""
        kept = self._kept.get(file)
        if kept is None:
            return False
        since = 0 if begin is None else begin.offset
        for frame in kept.frames:
            if frame.offset >= since:
                visit(frame)
        return True

    def keep_only(self, files: set[Path]) -> None:
        """Forget all other files: they were sealed."""
        for file in self._kept.keys() - files:
            self._forget(file)

    def _forget(self, file: Path) -> None:
        kept = self._kept.pop(file, None)
        if kept is not None:
            self._bytes -= sum(frame.size for frame in kept.frames)


def _covers(kept: _Kept, begin: Place | None) -> bool:
    if kept.begin is None or begin is None:
        return kept.begin is begin or kept.begin is None
    return kept.begin.offset <= begin.offset <= kept.end.offset
