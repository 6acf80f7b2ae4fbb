"""The frames of a write-ahead file, which follow its header page. Pure: no files, no clock.

``docs/privacylog-format.md`` has the layout. All integers are little-endian, every checksum is
the CRC-32 of ISO-HDLC (``zlib.crc32``), each frame begins on a page of 4 KiB and is padded with
zeros to the next. Frame numbers begin at 1 in each file, record numbers run on through a slot.
The chain value of a file is the checksum of its newest frame, or of its header page while it has
none; each frame names the value before it.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias
from zlib import crc32

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ksz_router.limits import group_bytes_max, group_records_max, record_bytes_max
from ksz_router.privacylog.header import (
    PAGE,
    FileHeader,
    FrameDamaged,
    chain_value,
    encode_file_header,
)

LAST = 1
"""Flag: the last frame of its file, after a clean stop or a rotation. Holds no record."""
SETTLED = 2
"""Flag: every exchange that an earlier run of this slot left open has its outcome by now."""

_FRAME_MAGIC = 0x46504C4B  # "KLPF" as it stands in the file
_HEAD = struct.Struct("<IIIIQQI")
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<H")
_LENGTHS = tuple(_LENGTH.pack(size) for size in range(record_bytes_max + 1))  # before each record
HEADER_BYTES = _HEAD.size + _CRC.size
_TAG_BYTES = 16
_ZERO_PAGE = bytes(PAGE)
_ZEROS = bytes(1024 * 1024)

BODY_BYTES_MAX = group_bytes_max + _LENGTH.size * group_records_max + _TAG_BYTES
FILE_BYTES_MIN = 4 * PAGE
"""Room for the header, one entry of any size, and the last frame."""

assert HEADER_BYTES == 40
assert _LENGTH.size + record_bytes_max + HEADER_BYTES + _TAG_BYTES + _CRC.size <= 2 * PAGE

Read: TypeAlias = Callable[[int, int], bytes]
"""Offset and number of bytes to what the file holds there; shorter where the file ends."""


class Frame(NamedTuple):
    """A frame that was read and is right in itself and in the chain."""

    offset: int
    size: int
    """With its padding."""
    number: int
    flags: int
    first_record: int
    previous_crc: int
    records: tuple[bytes, ...]
    crc: int

    @property
    def end(self) -> "Place":
        """Where the next frame of its file must be."""
        return Place(
            self.offset + self.size,
            self.number,
            self.crc,
            self.first_record + len(self.records),
            is_last=bool(self.flags & LAST),
        )


class Place(NamedTuple):
    """Between two frames of a file, or before the first: where reading may go on."""

    offset: int
    """Of the next frame."""
    frame: int
    """Number of the frame before; 0 where there is none."""
    crc: int
    """Chain value of the file up to here."""
    next_record: int
    """Number in the slot of the record that would follow."""
    is_last: bool = False
    """The frame before has ``LAST``: nothing follows."""


def begin_of(header: FileHeader) -> Place:
    """Return the place before the first frame of a file."""
    return Place(PAGE, 0, chain_value(encode_file_header(header)), header.first_record)


class FrameCipher:
    """AES-256-GCM under a key of this file alone, the frame number as nonce.

    HKDF-SHA-256 of the quarter's frames key and the file's random salt: key and nonce never come
    together twice, not even after a machine was set back to an older image.
    """

    def __init__(self, frames_key: bytes, salt: bytes) -> None:
        info = b"ksz_router privacylog frames 1"
        kdf = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info)
        self._aead = AESGCM(kdf.derive(frames_key))

    def encrypt(self, number: int, plain: bytes, header: bytes) -> bytes:
        return self._aead.encrypt(number.to_bytes(12, "little"), plain, header)

    def decrypt(self, number: int, body: bytes, header: bytes) -> bytes:
        """Return the plain body.

        Raises:
            cryptography.exceptions.InvalidTag: header or body are not what was encrypted.
        """
        return self._aead.decrypt(number.to_bytes(12, "little"), body, header)


def frame_bytes(records: Sequence[bytes]) -> int:
    """Return the size of a frame of these records, padding included."""
    body = sum(map(len, records)) + _LENGTH.size * len(records) + _TAG_BYTES
    return _padded(HEADER_BYTES + body + _CRC.size)


def _padded(size: int) -> int:
    return -(-size // PAGE) * PAGE


def encode_frame(
    cipher: FrameCipher,
    records: Sequence[bytes],
    *,
    number: int,
    first_record: int,
    previous_crc: int,
    flags: int = 0,
) -> tuple[bytes, int]:
    """Return the bytes of a frame, padded, and its checksum (the new chain value)."""
    parts = [b""] * (2 * len(records))
    parts[::2] = map(_LENGTHS.__getitem__, map(len, records))
    parts[1::2] = records
    plain = b"".join(parts)
    fields = _HEAD.pack(
        _FRAME_MAGIC,
        len(plain) + _TAG_BYTES,
        len(records),
        flags,
        number,
        first_record,
        previous_crc,
    )
    header = fields + _CRC.pack(crc32(fields))
    body = cipher.encrypt(number, plain, header)
    crc = crc32(body, crc32(header))
    size = len(header) + len(body) + _CRC.size
    return b"".join((header, body, _CRC.pack(crc), _ZERO_PAGE[: -size % PAGE])), crc


def frames(
    read: Read, header: FileHeader, cipher: FrameCipher, place: Place | None = None
) -> Iterator[Frame]:
    """Yield the frames of a file in order; end at ``LAST``, at a page of zeros, or at the end.

    With ``place``, go on from there: a live file may have grown since.

    Raises:
        FrameDamaged: what stands at the place of the next frame is not that frame.
    """
    if place is None:
        place = begin_of(header)
    if place.is_last:
        return
    offset, number, crc, first_record = place[:4]
    number += 1
    while offset < header.file_bytes:
        if (page := read(offset, PAGE)) == _ZERO_PAGE:
            return
        frame = _read_frame(read, page, offset, cipher)
        if frame.number != number or frame.first_record != first_record:
            raise FrameDamaged(offset, "the frame is out of order")
        if frame.previous_crc != crc:
            raise FrameDamaged(offset, "the frame does not continue the chain")
        end = offset + frame.size
        stray = first_nonzero(read, offset + (frame_extent(page) or 0), end)
        if stray is not None:
            raise FrameDamaged(stray, "the padding of a frame is not zero")
        if end > header.file_bytes:
            raise FrameDamaged(offset, "the frame goes beyond the size of the file")
        yield frame
        if frame.flags & LAST:
            return
        offset, number, crc = end, number + 1, frame.crc
        first_record += len(frame.records)


def is_frame(read: Read, offset: int, cipher: FrameCipher) -> bool:
    """Say whether a frame of this file, right in itself, stands at ``offset``, chain apart."""
    page = read(offset, PAGE)
    try:
        _read_frame(read, page, offset, cipher)
    except FrameDamaged:
        return False
    return True


def frame_extent(head: bytes) -> int | None:
    """Return how many bytes a frame fills before its padding; None where the header is not one."""
    if len(head) < HEADER_BYTES:
        return None
    magic, body_bytes, *_ = _HEAD.unpack_from(head)
    right = _CRC.unpack_from(head, _HEAD.size)[0] == crc32(head[: _HEAD.size])
    if magic != _FRAME_MAGIC or not right or not _TAG_BYTES <= body_bytes <= BODY_BYTES_MAX:
        return None
    return int(HEADER_BYTES + body_bytes + _CRC.size)


def first_nonzero(read: Read, offset: int, end: int) -> int | None:
    """Return the place of the first byte from ``offset`` up to ``end`` that is not zero."""
    while offset < end:
        chunk = read(offset, min(len(_ZEROS), end - offset))
        if not chunk:
            return None
        if chunk != _ZEROS[: len(chunk)]:
            return offset + len(chunk) - len(chunk.lstrip(b"\0"))
        offset += len(chunk)
    return None


def walk(read: Read, place: Place, frame: int) -> Place | None:
    """Go on from a place to the end of frame number ``frame``, by the checksums: without a key.

    Returns:
        The place behind it; None where the chain does not lead there.
    """
    while place.frame < frame:
        try:
            whole = _read_whole(read, read(place.offset, PAGE), place.offset)
        except FrameDamaged:
            return None
        told = (whole.number, whole.first_record, whole.previous_crc)
        if told != (place.frame + 1, place.next_record, place.crc):
            return None
        end = place.offset + _padded(len(whole.data))
        record = place.next_record + whole.length
        place = Place(end, whole.number, whole.crc, record, is_last=bool(whole.flags & LAST))
    return place


class _Whole(NamedTuple):
    """A frame whose checksums are right; it is not decrypted."""

    data: bytes
    length: int  # in records
    number: int
    flags: int
    first_record: int
    previous_crc: int
    crc: int


def _read_whole(read: Read, page: bytes, offset: int) -> _Whole:
    extent = frame_extent(page)
    if extent is None:
        raise FrameDamaged(offset, "the header of a frame does not match its checksum")
    _, body_bytes, count, flags, number, first_record, previous = _HEAD.unpack_from(page)
    data = page[:extent] if extent <= PAGE else page + read(offset + PAGE, extent - PAGE)
    if len(data) < extent:
        raise FrameDamaged(offset + len(data), "the file ends within a frame")
    crc = crc32(memoryview(data)[: HEADER_BYTES + body_bytes])
    if _CRC.unpack_from(data, HEADER_BYTES + body_bytes)[0] != crc:
        raise FrameDamaged(offset + HEADER_BYTES, "the body of a frame does not match its checksum")
    return _Whole(data, count, number, flags, first_record, previous, crc)


def _read_frame(read: Read, page: bytes, offset: int, cipher: FrameCipher) -> Frame:
    whole = _read_whole(read, page, offset)
    data = whole.data
    try:
        plain = cipher.decrypt(whole.number, data[HEADER_BYTES : -_CRC.size], data[:HEADER_BYTES])
    except InvalidTag:
        raise FrameDamaged(offset + HEADER_BYTES, "a frame was not made with this key") from None
    records = _split(plain)
    if records is None or len(records) != whole.length:
        raise FrameDamaged(offset + HEADER_BYTES, "the records of a frame do not fill it")
    return Frame(offset, _padded(len(data)), *whole[2:6], records, whole.crc)


def _split(plain: bytes) -> tuple[bytes, ...] | None:
    records = []
    at = 0
    while at + _LENGTH.size <= len(plain):
        begin = at + _LENGTH.size
        at = begin + (plain[at] | plain[at + 1] << 8)  # little-endian, as _LENGTH
        records.append(plain[begin:at])
    return tuple(records) if at == len(plain) else None
