"""The header page of a log file: damaged, or a header in its one form."""

from collections.abc import Iterator
from zlib import crc32

from contrib.fuzz import targets
from ksz_router.privacylog.header import (
    PAGE,
    FileHeader,
    FrameDamaged,
    Link,
    encode_file_header,
    parse_file_header,
)

_HEADER = FileHeader(
    salt=bytes(32), node="router-a", slot="w0", number=2, key_id="2026Q4-00000000",
    commitment=bytes(32), created_us=1_795_300_000_000_000, file_bytes=1 << 20, first_record=7,
    previous=Link(1, 3, 5),
)  # fmt: skip


def one_input(data: bytes) -> None:
    """As it is, and with a checksum that is right: the reader must stand what a forger writes."""
    page = data[: PAGE - 4].ljust(PAGE - 4, b"\0")
    for content in (data, page + crc32(page).to_bytes(4, "little")):
        try:
            header = parse_file_header(content)
        except FrameDamaged:
            continue
        assert encode_file_header(header) == content[:PAGE]


def seeds() -> Iterator[bytes]:
    """The fields of a header page, without and with its padding."""
    page = encode_file_header(_HEADER)
    yield page[:300]
    yield page


if __name__ == "__main__":
    targets.run(__file__)
