"""Append entries durably: a frame, one write, one flush, and only then back to the caller.

One writer owns one slot. It never writes into a file that another run began, and it never goes on
after an error of the disk: a flush that failed once may falsely succeed when tried again, so the
writer refuses from then on and its process ends. Nothing here logs or reads the clock.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from ksz_router.limits import group_bytes_max, group_records_max, record_bytes_max
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry, canonical
from ksz_router.privacylog.frame import (
    FILE_BYTES_MIN,
    LAST,
    SETTLED,
    FrameCipher,
    encode_frame,
    frame_bytes,
)
from ksz_router.privacylog.header import (
    NAME_BYTES_MAX,
    PAGE,
    SALT_BYTES,
    FileHeader,
    Link,
    chain_value,
    encode_file_header,
)
from ksz_router.privacylog.keys import KeyRing, quarter_after, quarter_begin_ns, quarter_of
from ksz_router.privacylog.prefill import NewFiles
from ksz_router.privacylog.recovery import Recovered, open_exchanges, outcome_unknown
from ksz_router.privacylog.slots import file_of, is_slot
from ksz_router.privacylog.taking import LogNotWritable, not_before, reread_newest, take_slot


class Writer:
    """The only writer of a slot. ``commit`` and ``close`` are for one thread at a time."""

    def __init__(
        self, slot_folder: Path, *, node: str, keys: KeyRing, file_bytes: int, lock: int, disk: Disk
    ) -> None:
        self._folder = slot_folder
        self._node = node
        self.keys = keys
        self._file_bytes = file_bytes
        self._lock = lock
        self._disk = disk
        self._new_files = NewFiles(slot_folder, lock, file_bytes, disk)
        self.next_file_error = ""
        """Why the next file could not be made ahead, the last time this was tried."""
        self.latest_us = 0
        """No entry of an earlier run is later than this, and none of this one may be earlier."""
        self._broken = False
        self._closed = False
        # The file being written: set by _start, before anything else is done.
        self._descriptor = -1
        self._cipher: FrameCipher
        self._number = self._frame = self._record = self._offset = self._crc = 0
        self._quarter_end_ns = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        slot: str,
        node: str,
        keys_folder: Path,
        now_ns: int,
        file_bytes: int,
        found: Callable[[Sequence[Entry]], None] = lambda _: None,
        disk: Disk = DISK,
    ) -> Self:
        """Take the slot, start its next file and settle what an earlier run left open.

        Each exchange left open gets an outcome ``OUTCOME_UNKNOWN``, durable on return. Blocks
        while the new file is filled with zeros.

        Args:
            folder: Of the log; made where only its last part is missing.
            slot: Such as ``w0``; one process at a time.
            node: Name of the router, for the header.
            keys_folder: Holds the key file of the quarter of ``now_ns``, and of the last run.
            now_ns: Unix nanoseconds.
            file_bytes: Size of each file, a multiple of 4 KiB.
            found: Given the requests left open, before their outcome is written; repeatable.
            disk: For fault tests.

        Raises:
            SlotTaken: another process has the slot.
            LogNotWritable: the disk refuses.
            ClockBehindLog: the last entry is hours later than ``now_ns``.
            LogCorrupt: what the last run left is damaged (see :mod:`recovery`).
            KeysError: a key file is missing; the message says how to make it.
        """
        assert is_slot(slot), "a slot is 1 to 32 lower-case letters, digits and hyphens"
        assert node.isascii()
        assert len(node) <= NAME_BYTES_MAX
        assert file_bytes >= FILE_BYTES_MIN
        assert file_bytes % PAGE == 0
        slot_folder = folder / slot
        keys = KeyRing(keys_folder)
        lock = -1
        try:
            lock = take_slot(folder, slot_folder)
            reread_newest(slot_folder, disk)
            recovered = open_exchanges(slot_folder, keys)
            found(recovered.open)
            now_ns = not_before(recovered.latest_us, now_ns, slot_folder)
            writer = cls(
                slot_folder, node=node, keys=keys, file_bytes=file_bytes, lock=lock, disk=disk
            )
            writer._begin(recovered, now_ns)
        except BaseException as error:
            if lock >= 0:
                os.close(lock)
            if isinstance(error, OSError):
                raise LogNotWritable(f"{slot_folder}: {error.strerror}") from error
            raise
        return writer

    @property
    def file(self) -> Path:
        """The file being written."""
        return file_of(self._folder, self._number)

    @property
    def used_share(self) -> float:
        """How much of the file being written is used, 0 to 1."""
        return self._offset / self._file_bytes

    def commit(self, records: Sequence[bytes], now_ns: int) -> None:
        """Make canonical entries durable, in their order. Blocks; on return they are on disk.

        One frame, one write and one flush for at most ``group_records_max`` records and
        ``group_bytes_max`` bytes; several of each for more. ``now_ns`` decides the quarter.

        Raises:
            LogNotWritable: the disk refused, or did so before, or the key file of a new quarter
                is missing. Some of the records may be on disk. The process must end.
        """
        assert all(records)
        assert max(map(len, records), default=0) <= record_bytes_max
        self._check_usable()
        try:
            for group in self._groups(records):
                self._append(group, now_ns)
        except BaseException as error:
            self._refuse_for_ever(error)
            raise

    def prepare_next(self, pause: Callable[[], None]) -> bool:
        """Fill the next file ahead of its use, in a helper thread, beside commits.

        At once where one is ready. Unpaced (``pause``, after each 256 KiB), it delays commits.
        Where the disk refuses, commits go on as long as the current file has room: nothing of the
        log was in what was being made, so it may be tried again.

        Returns:
            Whether one is ready; if not, ``next_file_error`` says why.

        Raises:
            LogNotWritable: this writer ended, or met an error before.
        """
        self._check_usable()
        try:
            self._new_files.prepare(pause)
        except OSError as error:
            self.next_file_error = error.strerror or "input/output error"
        else:
            self.next_file_error = ""
        return not self.next_file_error

    def free_share(self) -> float:
        """Return the share of the disk that is free for us, 0 to 1; OSError where none says."""
        state = os.statvfs(self._folder)
        return state.f_bavail / state.f_blocks

    def close(self) -> None:
        """End the file with a ``LAST`` frame and leave the slot. A second call does nothing.

        Raises:
            LogNotWritable: the disk refused; the slot is left all the same.
        """
        if self._closed:
            return
        try:
            if not self._broken:
                self._end_file()
        except BaseException as error:
            self._refuse_for_ever(error)
            raise
        finally:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._new_files.close()
            os.close(self._lock)

    def _check_usable(self) -> None:
        if self._broken or self._closed:
            raise LogNotWritable(f"{self._folder}: this writer ended, or met an error before")

    def _refuse_for_ever(self, error: BaseException) -> None:
        self._broken = True
        if isinstance(error, OSError):
            raise LogNotWritable(f"{self.file}: {error.strerror}") from error
        if isinstance(error, PrivacyLogError):
            raise LogNotWritable(str(error)) from error

    def _begin(self, recovered: Recovered, now_ns: int) -> None:
        previous = recovered.previous
        if previous is None:
            self._start(None, now_ns)
            return
        self._number, self._record = previous.number, recovered.next_record
        self.latest_us = now_ns // 1000
        self._start(previous, now_ns)
        outcomes = [canonical(outcome_unknown(entry, now_ns // 1000)) for entry in recovered.open]
        *most, last = list(self._groups(outcomes)) or [[]]
        for group in most:
            self._append(group, now_ns)
        self._append(last, now_ns, SETTLED)

    def _groups(self, records: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Cut into frames: by number, by bytes, and so that each fits into an empty file."""
        room = min(group_bytes_max, self._file_bytes - 3 * PAGE)
        if len(records) <= group_records_max and sum(map(len, records)) + 2 * len(records) <= room:
            if records:
                yield records
            return
        begin = size = 0
        for at, record in enumerate(records):
            cost = len(record) + 2
            if at > begin and (size + cost > room or at - begin == group_records_max):
                yield records[begin:at]
                begin, size = at, 0
            size += cost
        if begin < len(records):
            yield records[begin:]

    def _append(self, records: Sequence[bytes], now_ns: int, flags: int = 0) -> None:
        room = self._file_bytes - PAGE - self._offset  # a page is kept for the LAST frame
        if now_ns >= self._quarter_end_ns or frame_bytes(records) > room:
            self._end_file()
            self._start(Link(self._number, self._frame, self._crc), now_ns)
        self._put(records, flags)

    def _put(self, records: Sequence[bytes], flags: int) -> None:
        data, crc = encode_frame(
            self._cipher,
            records,
            number=self._frame + 1,
            first_record=self._record,
            previous_crc=self._crc,
            flags=flags,
        )
        self._disk.write(self._descriptor, data, self._offset)
        self._disk.flush(self._descriptor)
        self._frame += 1
        self._record += len(records)
        self._offset += len(data)
        self._crc = crc

    def _end_file(self) -> None:
        self._put((), LAST)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _start(self, previous: Link | None, now_ns: int) -> None:
        quarter = quarter_of(now_ns)
        keys = self.keys.quarter(quarter)
        self._number += 1
        header = FileHeader(
            salt=secrets.token_bytes(SALT_BYTES),
            node=self._node,
            slot=self._folder.name,
            number=self._number,
            key_id=keys.id,
            commitment=keys.commitment("frames"),
            created_us=now_ns // 1000,
            file_bytes=self._file_bytes,
            first_record=self._record,
            previous=previous,
        )
        page = encode_file_header(header)
        self._descriptor = self._new_files.take(page, self.file)
        self._cipher = FrameCipher(keys.frames, header.salt)
        self._frame, self._offset, self._crc = 0, PAGE, chain_value(page)
        self._quarter_end_ns = quarter_begin_ns(quarter_after(quarter))
