"""The header page of a write-ahead file: whose it is, under which key, and after which file. Pure.

Integers are little-endian; the checksum is the CRC-32 of ISO-HDLC (``zlib.crc32``), in the last
four bytes of the page, over all others. ``docs/privacylog-format.md`` has the layout.
"""

import struct
from typing import NamedTuple
from zlib import crc32

import msgspec

from ksz_router.privacylog import PrivacyLogError

PAGE = 4096
FORMAT = 1
NAME_BYTES_MAX = 32
SALT_BYTES = 32

_MAGIC = b"KSZPLOG\n"
_FIELDS = struct.Struct("<8sI32s32s32sQ32s32sQQQQQI")
_CRC = struct.Struct("<I")


class FrameDamaged(PrivacyLogError):
    """The bytes at ``offset`` are not what they must be."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"byte {offset}: {what}")
        self.offset = offset
        self.what = what


class Link(NamedTuple):
    """The good end of a file, as the next one names it."""

    number: int
    """Of the file; from 1."""
    frame: int
    """Its last good frame; 0 where it has none."""
    crc: int
    """Its chain value."""


class FileHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first page of a file."""

    salt: bytes
    node: str
    slot: str
    number: int
    key_id: str
    commitment: bytes
    """Of the frames key, 32 bytes."""
    created_us: int
    file_bytes: int
    """Size of the whole file, prefilled with zeros."""
    first_record: int
    """Number of the first record of the file within its slot; from 0."""
    previous: Link | None


def encode_file_header(header: FileHeader) -> bytes:
    """Return the header page; the last four bytes are the checksum of the others."""
    previous = header.previous or Link(0, 0, 0)
    fields = _FIELDS.pack(
        _MAGIC,
        FORMAT,
        header.salt,
        header.node.encode("ascii"),
        header.slot.encode("ascii"),
        header.number,
        header.key_id.encode("ascii"),
        header.commitment,
        header.created_us,
        header.file_bytes,
        header.first_record,
        previous.number,
        previous.frame,
        previous.crc,
    )
    page = fields.ljust(PAGE - _CRC.size, b"\0")
    return page + _CRC.pack(crc32(page))


def parse_file_header(page: bytes) -> FileHeader:
    """Return what a header page says.

    Raises:
        FrameDamaged: it is not a header page of this format, whole.
    """
    if len(page) < PAGE:
        raise FrameDamaged(len(page), "the file ends within its header page")
    if _CRC.unpack_from(page, PAGE - _CRC.size)[0] != crc32(page[: PAGE - _CRC.size]):
        raise FrameDamaged(0, "the checksum of the file header does not match")
    (magic, version, salt, node, slot, number, key_id, commitment, created_us, file_bytes,
     first_record, *previous) = _FIELDS.unpack_from(page)  # fmt: skip
    if magic != _MAGIC or version != FORMAT:
        raise FrameDamaged(0, f"not a write-ahead file of format {FORMAT}")
    if not (node.isascii() and slot.isascii() and key_id.isascii()):
        raise FrameDamaged(0, "a name in the file header is not ASCII")
    header = FileHeader(
        salt=salt,
        node=_text(node),
        slot=_text(slot),
        number=number,
        key_id=_text(key_id),
        commitment=commitment,
        created_us=created_us,
        file_bytes=file_bytes,
        first_record=first_record,
        previous=Link(*previous) if previous[0] else None,
    )
    if encode_file_header(header) != page:
        raise FrameDamaged(0, "the file header is not in its one form")
    return header


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii")


def chain_value(page: bytes) -> int:
    """Return the chain value of a file that has only this header page."""
    return crc32(page)
