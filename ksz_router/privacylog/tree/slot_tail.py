"""What is new in the write-ahead files of one slot, read on from where it was."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ksz_router.limits import MIB
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.frame import FrameCipher, Place, Read, begin_of, frames, walk
from ksz_router.privacylog.header import PAGE, FileHeader, FrameDamaged, Link, parse_file_header
from ksz_router.privacylog.keys import KeyRing, KeysError
from ksz_router.privacylog.recovery import End, LogCorrupt, scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.privacylog.tree.places import Standing

_WINDOW_BYTES = MIB // 4


class Batch(NamedTuple):
    """Frames of one file, one after the other."""

    slot: str
    header: FileHeader
    begin: Place
    end: Place
    records: list[bytes]


class SlotTail:
    """The file of a slot that is being read."""

    def __init__(
        self,
        folder: Path,
        standing: Standing | None,
        keys: KeyRing,
        pause: Callable[[], None],
        disk: Disk,
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._pause = pause
        self._disk = disk
        self._standing = standing
        self._descriptor = -1
        self._is_read = False
        self._header: FileHeader
        self._cipher: FrameCipher
        self._place: Place
        self._damaged_at = -1

    def read(self, records_max: int, bytes_max: int) -> Iterator[Batch]:
        """Yield what is new, and stop with the frame that reaches a bound.

        Raises:
            LogCorrupt: what was durable is damaged or missing.
            KeysError: the keys of a file are missing.
            OSError: a file cannot be read or flushed.
        """
        while records_max > 0 and bytes_max > 0:
            if self._descriptor < 0 and not self._open():
                return
            after = file_of(self._folder, self._header.number + 1)
            is_final = after.exists()  # asked first: then nothing is added to this file any more
            batch, is_end = self._read_file(records_max, bytes_max, is_final=is_final)
            if batch is not None:
                yield batch
                records_max -= len(batch.records)
                bytes_max -= batch.end.offset - batch.begin.offset
            if not is_end or not is_final:
                return
            self.flush()
            over = self._place._replace(is_last=True)  # also where its writer was killed
            self._standing = Standing(self._header.number, over)
            self.close()

    def flush(self) -> None:
        """Return when the frames that were read will survive a power cut; OSError if they may not.

        It comes after the reading: a frame that is read between a flush and its own may be gone
        after a power cut.
        """
        if self._is_read:
            self._disk.flush(self._descriptor)
            self._is_read = False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        """Open the file that is ordered in part, or the next one; say whether there is one."""
        number, place = self._standing or (0, None)
        if number and place is not None:
            if not place.is_last and file_of(self._folder, number).exists():
                return self._open_file(number, place)
            if not file_of(self._folder, number + 1).exists():
                return False
        elif number == 0 and not file_of(self._folder, 1).exists():
            lowest = min(file_numbers(self._folder), default=0)
            if lowest:
                raise LogCorrupt(
                    f"{self._folder}: begins with file {lowest}, and the files before it were "
                    "never ordered: put them back"
                )
            return False
        return self._open_file(number + 1, None)

    def _open_file(self, number: int, place: Place | None) -> bool:
        file = file_of(self._folder, number)
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # What an earlier process read of it may never have reached the disk.
            self._disk.reread(self._descriptor)
            self._header = self._checked_header(file, number, is_next=place is None)
            keys = self._keys.named(self._header.key_id, self._header.commitment)
        except KeysError:
            # They may be gone for good where all of the file is ordered and no other follows it.
            is_whole = place and walk(_window(self._descriptor), place, place.frame + 1) is None
            self.close()
            if is_whole and not file_of(self._folder, number + 1).exists():
                return False
            raise
        except BaseException:
            self.close()
            raise
        self._cipher = FrameCipher(keys.frames, self._header.salt)
        self._place = place or begin_of(self._header)
        return True

    def _checked_header(self, file: Path, number: int, *, is_next: bool) -> FileHeader:
        try:
            header = parse_file_header(os.pread(self._descriptor, PAGE, 0))
        except FrameDamaged as error:
            raise LogCorrupt(f"{file}: {error}") from error
        before, named = self._standing, None
        if before is not None:
            named = Link(before.file, before.place.frame, before.place.crc)
        if header.number != number or (is_next and header.previous != named):
            raise LogCorrupt(f"{file}: does not continue what was ordered of this slot")
        return header

    def _read_file(
        self, records_max: int, bytes_max: int, *, is_final: bool
    ) -> tuple[Batch | None, bool]:
        """Read on in the open file; say whether its end was reached."""
        begin, place = self._place, self._place
        records: list[bytes] = []
        is_end = True
        try:
            for frame in frames(_window(self._descriptor), self._header, self._cipher, place):
                place = frame.end
                records += frame.records
                if len(records) >= records_max or place.offset - begin.offset >= bytes_max:
                    is_end = False
                    break
                self._pause()
        except FrameDamaged as error:  # one under way, or torn, or damage
            if not is_final:
                self._judge(error, place)
        self._place = place
        if place == begin:
            return None, is_end
        self._is_read = True
        return Batch(self._folder.name, self._header, begin, place, records), is_end

    def _judge(self, damage: FrameDamaged, place: Place) -> None:
        """Tell a frame that is being written, or was when its writer died, from damage.

        Raises:
            LogCorrupt: whole frames stand behind what was met twice at the same place.
        """
        if self._damaged_at != place.offset:
            self._damaged_at = place.offset
            return
        self._damaged_at = -1
        file = file_of(self._folder, self._header.number)
        result = scan(file, self._keys)
        if result.end is End.CORRUPT and result.frames == place.frame:
            raise LogCorrupt(
                f"{file}: byte {damage.offset}: {damage.what}, and whole frames stand behind it; "
                "see `ksz-router log verify`, and docs/privacylog-format.md for what to do"
            )


def _window(descriptor: int) -> Read:
    """Read ahead in large pieces; what is in one stays as it was when it was read."""
    begin, data = 0, b""

    def read(offset: int, size: int) -> bytes:
        nonlocal begin, data
        if not begin <= offset <= offset + size <= begin + len(data):
            begin, data = offset, os.pread(descriptor, max(size, _WINDOW_BYTES), offset)
        return data[offset - begin : offset - begin + size]

    return read
