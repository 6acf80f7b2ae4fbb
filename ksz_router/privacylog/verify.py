"""Check every byte of a log against its specification, and say where it does not hold.

This shares the format with the write path (``entry``, ``header``, ``frame``, ``keys``) and nothing
else: it is the judge of what the writer wrote, and the oracle of its fault tests. It never stops
at a fault: what stands behind one is looked at too.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.entry import EntryMalformed, parse
from ksz_router.privacylog.exchanges import Exchanges
from ksz_router.privacylog.frame import (
    BODY_BYTES_MAX,
    LAST,
    SETTLED,
    Frame,
    FrameCipher,
    Read,
    first_nonzero,
    frame_extent,
    frames,
    is_frame,
)
from ksz_router.privacylog.header import (
    PAGE,
    FileHeader,
    FrameDamaged,
    chain_value,
    parse_file_header,
)
from ksz_router.privacylog.keys import KeyRing, KeysError
from ksz_router.privacylog.slots import file_numbers, file_of, opened, slot_folders

_SECTOR = 512
_TORN_BYTES_MAX = -(-(BODY_BYTES_MAX + PAGE) // PAGE) * PAGE


class Fault(msgspec.Struct, frozen=True):
    """One place at which the log is not what it must be."""

    file: Path
    offset: int
    frame: int
    """Number of the frame concerned; 0 for the file header."""
    what: str


class Report(msgspec.Struct, kw_only=True):
    """What was checked and what was found."""

    files: int = 0
    frames: int = 0
    records: int = 0
    faults: list[Fault] = []


def verify(folder: Path, keys_folder: Path, sealed: Mapping[str, Cursor] | None = None) -> Report:
    """Check a whole log, live or at rest.

    Args:
        folder: Of the log.
        keys_folder: Of the quarter keys.
        sealed: How far each slot is sealed, as the newest manifest says: the first files of a slot
            may be gone where they lie before that.

    Raises:
        PrivacyLogError: there is no log in ``folder``.
    """
    report = Report()
    keys = KeyRing(keys_folder)
    try:
        slots = slot_folders(folder)
    except OSError as error:
        raise PrivacyLogError(f"{folder}: no privacy log here: {error.strerror}") from error
    for slot_folder in slots:
        cursor = (sealed or {}).get(slot_folder.name)
        _Slot(slot_folder, keys, report, cursor.file if cursor is not None else 1).check()
    return report


class _Slot:
    """The files of one slot, in their order; what is known so far of the next."""

    def __init__(self, folder: Path, keys: KeyRing, report: Report, sealed_before: int) -> None:
        self._folder = folder
        self._sealed_before = sealed_before
        self._keys = keys
        self._report = report
        self._exchanges = Exchanges()
        self._file = folder
        # What the file before gives: its header, its frames with place and chain value.
        self._header: FileHeader | None = None
        self._links: dict[int, tuple[int, int]] = {}
        self._ended = False
        self._next_record = 0

    def check(self) -> None:
        numbers = file_numbers(self._folder)
        if numbers[0] != 1:
            if numbers[0] > self._sealed_before:
                first = file_of(self._folder, numbers[0])
                self._fault(0, 0, "the files before it are missing, and not sealed", first)
            self._exchanges.forgive()
        before = numbers[0] - 1
        for number in numbers:
            self._file = file_of(self._folder, number)
            if number != before + 1:
                self._fault(0, 0, f"file {before + 1} of the slot is missing before it")
                self._lose()
            before = number
            try:
                with opened(self._file) as read:
                    self._check_file(read, number, newest=number == numbers[-1])
            except OSError as error:
                self._fault(0, 0, f"cannot be read: {error.strerror}")
                self._lose()

    def _lose(self) -> None:
        """Frames are missing from here: do not report what follows from that alone."""
        self._header = None
        self._exchanges.forgive()

    def _fault(self, offset: int, frame: int, what: str, file: Path | None = None) -> None:
        self._report.faults.append(Fault(file or self._file, offset, frame, what))

    def _check_file(self, read: Read, number: int, *, newest: bool) -> None:
        self._report.files += 1
        page = read(0, PAGE)
        try:
            header = parse_file_header(page)
        except FrameDamaged as error:
            self._fault(error.offset, 0, error.what)
            self._lose()
            return
        try:
            keys = self._keys.named(header.key_id, header.commitment)
        except KeysError as error:
            self._fault(0, 0, str(error))
            self._lose()
            return
        self._check_header(header, number)
        self._header, self._links = header, {0: (PAGE, chain_value(page))}
        self._ended, self._next_record = False, header.first_record
        cipher = FrameCipher(keys.frames, header.salt)
        last: Frame | None = None
        again = False
        while True:
            seen, damage = last, None
            try:
                for frame in frames(read, header, cipher, last.end if last else None):
                    self._check_frame(frame)
                    last = frame
            except FrameDamaged as error:
                damage = error
            fault = self._judge_end(read, header, cipher, last, damage)
            # A live file grows while it is read: what looked torn may be whole by now.
            if fault is None or (again and last is seen):
                break
            again = True
        if fault is not None and not (newest and self._is_live()):
            self._fault(*fault)
            self._exchanges.forgive()
        if self._file.stat().st_size != header.file_bytes:
            self._fault(header.file_bytes, len(self._links) - 1, "the file has another size")

    def _check_header(self, header: FileHeader, number: int) -> None:
        if header.number != number or header.slot != self._folder.name:
            self._fault(0, 0, "the file header is of another slot or number")
        named = header.previous
        if number == 1 and (named is not None or header.first_record != 0):
            self._fault(0, 0, "the first file names one before it")
        before = self._header
        if before is None:
            return
        if named is None or named.number != before.number or named.frame not in self._links:
            self._fault(0, 0, "it does not continue the file before it")
            return
        place, crc = self._links[named.frame]
        last = len(self._links) - 1
        if crc != named.crc:
            self._fault(0, 0, f"it names another frame {named.frame} of the file before it")
        elif named.frame != last:
            what = f"the next file names frame {named.frame} as the last good one"
            self._fault(place, last, what, file_of(self._folder, before.number))
        elif header.first_record != self._next_record:
            self._fault(0, 0, "its record numbers do not continue the file before it")

    def _check_frame(self, frame: Frame) -> None:
        self._report.frames += 1
        self._report.records += len(frame.records)
        self._links[frame.number] = (frame.offset, frame.crc)
        self._ended = bool(frame.flags & LAST)
        self._next_record = frame.first_record + len(frame.records)
        if frame.flags & ~(LAST | SETTLED) or (self._ended and frame.records):
            self._fault(frame.offset, frame.number, "the flags of the frame are not known ones")
        for record in frame.records:
            try:
                entry = parse(record)
            except EntryMalformed as error:
                self._fault(frame.offset, frame.number, str(error))
                continue
            what = self._exchanges.take(entry)
            if what:
                self._fault(frame.offset, frame.number, what)
        if frame.flags & SETTLED:
            for _ in range(self._exchanges.settle()):
                self._fault(frame.offset, frame.number, "an earlier exchange has no outcome")

    def _judge_end(
        self,
        read: Read,
        header: FileHeader,
        cipher: FrameCipher,
        last: Frame | None,
        damage: FrameDamaged | None,
    ) -> tuple[int, int, str] | None:
        """Return place, frame and fault of what stands behind the last good frame.

        None where nothing stands there, or what a crash may leave of the frame under way.
        """
        end, number = (last.offset + last.size, last.number) if last else (PAGE, 0)
        place = first_nonzero(read, end, header.file_bytes)
        if self._ended:
            what = "bytes behind the last frame are not zero"
            return None if place is None else (place, number, what)
        if place is None and damage is None:
            return None
        offset, what = place or end, "bytes behind the end are not zero"
        if damage is not None:
            offset, what = damage.offset, damage.what
        behind = _frame_behind(read, header, cipher, end)
        if behind is not None:
            return offset, number + 1, f"{what}; a whole frame stands at byte {behind}"
        if not _is_torn(read, end, header.file_bytes):
            return offset, number + 1, f"{what}; a torn write does not explain it"
        return None

    def _is_live(self) -> bool:
        """Say whether a writer holds the slot: then the tail is a frame on its way to the disk."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _frame_behind(read: Read, header: FileHeader, cipher: FrameCipher, begin: int) -> int | None:
    while begin < header.file_bytes:
        if is_frame(read, begin, cipher):
            return begin
        place = first_nonzero(read, begin + PAGE, header.file_bytes)
        if place is None:
            return None
        begin = place // PAGE * PAGE
    return None


def _is_torn(read: Read, begin: int, file_bytes: int) -> bool:
    """Say whether missing sectors of one frame explain the bytes from ``begin`` on.

    A disk writes a sector whole or not at all, over zeros; no sector of a frame's header and body
    is zero by itself, so one of them must be missing, and nothing may stand behind the frame.
    """
    head = read(begin, _SECTOR)
    if not any(head):
        return first_nonzero(read, begin + _TORN_BYTES_MAX, file_bytes) is None
    extent = frame_extent(head)
    if extent is None or first_nonzero(read, begin + extent, file_bytes) is not None:
        return False
    data = read(begin, extent).ljust(extent, b"\0")
    return any(not any(data[at : at + _SECTOR]) for at in range(0, extent, _SECTOR))
