"""Append entries durably: a frame, one write, one flush, and only then on with what hangs on them.

One writer owns one slot. It never writes into a file that another run began, and it never goes on
after an error of the disk: a flush that failed once may falsely succeed when tried again, so the
writer refuses from then on and its process ends. Nothing here logs or reads the clock.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from ksz_router.limits import record_bytes_max
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry, canonical
from ksz_router.privacylog.frame import FILE_BYTES_MIN, SETTLED
from ksz_router.privacylog.growing import GrowingFile
from ksz_router.privacylog.header import NAME_BYTES_MAX, PAGE
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.prefill import NewFiles
from ksz_router.privacylog.recovery import Recovered, open_exchanges, outcome_unknown
from ksz_router.privacylog.slots import is_slot
from ksz_router.privacylog.taking import LogNotWritable, not_before, reread_newest, take_slot

_WAIT_SECONDS = 0.9


class Writer:
    """The only writer of a slot. ``commit`` and ``close`` are for one thread at a time."""

    def __init__(
        self,
        slot_folder: Path,
        *,
        node: str,
        keys: KeyRing,
        file_bytes: int,
        lock: int,
        recovered: Recovered,
        disk: Disk,
    ) -> None:
        self._folder = slot_folder
        self.keys = keys
        self._lock = lock
        self._disk = disk
        self._new_files = NewFiles(slot_folder, lock, file_bytes, disk)
        previous = recovered.previous
        self._growing = GrowingFile(
            slot_folder,
            node=node,
            keys=keys,
            files=self._new_files,
            file_bytes=file_bytes,
            disk=disk,
            number=previous.number if previous is not None else 0,
            record=recovered.next_record if previous is not None else 0,
        )
        self.next_file_error = ""
        """Why the next file could not be made ahead, the last time this was tried."""
        self.latest_us = 0
        """No entry of an earlier run is later than this, and none of this one may be earlier."""
        self._broken = False
        self._closed = False
        self._is_flushing = False

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
                slot_folder,
                node=node,
                keys=keys,
                file_bytes=file_bytes,
                lock=lock,
                recovered=recovered,
                disk=disk,
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
        return self._growing.path

    @property
    def used_share(self) -> float:
        """How much of the file being written is used, 0 to 1."""
        return self._growing.used_share

    def commit(self, records: Sequence[bytes], now_ns: int) -> None:
        """Make canonical entries durable, in their order. Blocks; on return they are on disk.

        Raises:
            LogNotWritable: as :meth:`begin`.
        """
        self.begin(records, now_ns)
        while not self.is_durable(_WAIT_SECONDS):
            pass

    def begin(self, records: Sequence[bytes], now_ns: int) -> None:
        """Write canonical entries, in their order, and begin to flush them.

        One frame, one write and one flush for at most ``group_records_max`` records and
        ``group_bytes_max`` bytes; several of each for more, and all but the last are waited for.
        ``now_ns`` decides the quarter. Nothing else may be begun before :meth:`is_durable`.

        Raises:
            LogNotWritable: the disk refused, or did so before, or the key file of a new quarter
                is missing. Some of the records may be on disk. The process must end.
        """
        assert not self._is_flushing
        assert all(records)
        assert max(map(len, records), default=0) <= record_bytes_max
        self._check_usable()
        try:
            for group in self._growing.cut(records):
                self._wait_for_flush()
                self._growing.append(group, now_ns)
                self._disk.begin_flush(self._growing.descriptor)
                self._is_flushing = True
        except BaseException as error:
            self._refuse_for_ever(error)
            raise

    def is_durable(self, wait_s: float) -> bool:
        """Say whether all that was begun is on disk; waits so long for it, less than a second.

        Raises:
            LogNotWritable: the disk refused. Some of the records may be on disk. The process must
                end.
        """
        if not self._is_flushing:
            self._check_usable()
            return True
        try:
            self._is_flushing = not self._disk.is_flushed(wait_s)
        except BaseException as error:
            self._refuse_for_ever(error)
            raise
        return not self._is_flushing

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
                self._wait_for_flush()
                self._growing.end()
        except BaseException as error:
            self._refuse_for_ever(error)
            raise
        finally:
            self._closed = True
            if self._growing.descriptor >= 0:
                os.close(self._growing.descriptor)
            self._new_files.close()
            os.close(self._lock)

    def _check_usable(self) -> None:
        if self._broken or self._closed:
            raise LogNotWritable(f"{self._folder}: this writer ended, or met an error before")

    def _refuse_for_ever(self, error: BaseException) -> None:
        self._broken, self._is_flushing = True, False
        if isinstance(error, OSError):
            raise LogNotWritable(f"{self.file}: {error.strerror}") from error
        if isinstance(error, PrivacyLogError):
            raise LogNotWritable(str(error)) from error

    def _begin(self, recovered: Recovered, now_ns: int) -> None:
        growing, previous = self._growing, recovered.previous
        growing.begin(previous, now_ns)
        if previous is None:
            return
        self.latest_us = now_ns // 1000
        outcomes = [canonical(outcome_unknown(entry, now_ns // 1000)) for entry in recovered.open]
        *most, last = growing.cut(outcomes) or [[]]
        for group in most:
            growing.append(group, now_ns)
            self._disk.flush(growing.descriptor)
        growing.append(last, now_ns, SETTLED)
        self._disk.flush(growing.descriptor)

    def _wait_for_flush(self) -> None:
        while self._is_flushing:
            self._is_flushing = not self._disk.is_flushed(_WAIT_SECONDS)
