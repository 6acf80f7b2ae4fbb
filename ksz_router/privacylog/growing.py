"""The file of a slot that is being written: where its next frame goes, how it begins and ends."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ksz_router.limits import group_bytes_max, group_records_max
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.frame import LAST, FrameCipher, encode_frame, frame_bytes
from ksz_router.privacylog.header import (
    PAGE,
    SALT_BYTES,
    FileHeader,
    Link,
    chain_value,
    encode_file_header,
)
from ksz_router.privacylog.keys import KeyRing, quarter_after, quarter_begin_ns, quarter_of
from ksz_router.privacylog.prefill import NewFiles
from ksz_router.privacylog.slots import file_of


class GrowingFile:
    """One file after the other; nothing in here goes on after an error.

    Args:
        slot_folder: Where they are.
        node: Name of the router, for headers.
        files: Makes new ones, of ``file_bytes`` each.
        number: Of the last file that there is; 0 where there is none.
        record: Number of the next record of the slot.
    """

    def __init__(
        self,
        slot_folder: Path,
        *,
        node: str,
        keys: KeyRing,
        files: NewFiles,
        file_bytes: int,
        disk: Disk,
        number: int,
        record: int,
    ) -> None:
        self._folder = slot_folder
        self._node = node
        self._keys = keys
        self._files = files
        self._file_bytes = file_bytes
        self._disk = disk
        self._number, self._record = number, record
        self._frame = self._offset = self._crc = 0
        self._quarter_end_ns = 0
        self._cipher: FrameCipher
        self.descriptor = -1

    @property
    def path(self) -> Path:
        """Of the file being written."""
        return file_of(self._folder, self._number)

    @property
    def used_share(self) -> float:
        """How much of it is used, 0 to 1."""
        return self._offset / self._file_bytes

    def cut(self, records: Sequence[bytes]) -> list[Sequence[bytes]]:
        """Cut into frames: by number, by bytes, and so that each fits into an empty file."""
        room = min(group_bytes_max, self._file_bytes - 3 * PAGE)
        if len(records) <= group_records_max and sum(map(len, records)) + 2 * len(records) <= room:
            return [records] if records else []
        groups = []
        begin = size = 0
        for at, record in enumerate(records):
            cost = len(record) + 2
            if at > begin and (size + cost > room or at - begin == group_records_max):
                groups.append(records[begin:at])
                begin, size = at, 0
            size += cost
        groups.append(records[begin:])
        return groups

    def append(self, records: Sequence[bytes], now_ns: int, flags: int = 0) -> None:
        """Write one frame, into the next file where this one is full or its quarter over.

        It is not flushed; a file that is ended is.

        Raises:
            OSError: the disk refused.
            KeysError: the keys of a new quarter are missing.
        """
        room = self._file_bytes - PAGE - self._offset  # a page is kept for the LAST frame
        if now_ns >= self._quarter_end_ns or frame_bytes(records) > room:
            self.end()
            self.begin(Link(self._number, self._frame, self._crc), now_ns)
        self._put(records, flags)

    def end(self) -> None:
        """End the file with a ``LAST`` frame and close it, flushed; OSError: the disk refused."""
        self._put((), LAST)
        self._disk.flush(self.descriptor)
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def begin(self, previous: Link | None, now_ns: int) -> None:
        """Begin the next file, after ``previous``; on return its header and name are on disk.

        Raises:
            OSError: the disk refused.
            KeysError: the keys of the quarter are missing.
        """
        quarter = quarter_of(now_ns)
        keys = self._keys.quarter(quarter)
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
        self.descriptor = self._files.take(page, self.path)
        self._cipher = FrameCipher(keys.frames, header.salt)
        self._frame, self._offset, self._crc = 0, PAGE, chain_value(page)
        self._quarter_end_ns = quarter_begin_ns(quarter_after(quarter))

    def _put(self, records: Sequence[bytes], flags: int) -> None:
        data, crc = encode_frame(
            self._cipher,
            records,
            number=self._frame + 1,
            first_record=self._record,
            previous_crc=self._crc,
            flags=flags,
        )
        self._disk.write(self.descriptor, data, self._offset)
        self._frame += 1
        self._record += len(records)
        self._offset += len(data)
        self._crc = crc
