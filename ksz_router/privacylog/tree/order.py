"""The order of all records: lines of 128 bytes, each for some frames of one write-ahead file.

``docs/privacylog-format.md`` has the layout. A line fixes which leaves the records of its frames
are; once it is on disk, nothing changes that. Integers are little-endian; a line ends with the
CRC-32 of ISO-HDLC over the rest of it, and names that of the line before.

A file of lines is named by the leaf that follows when it is begun. It gets its name with a line for
each slot in it that says how far the slot was then, so the last file alone says how far each is.
"""

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.frame import Place

LINE_BYTES = 128
FORMAT = 1

_MAGIC = 0x4C4F4C4B  # "KLOL" as it stands in the file
_LINE = struct.Struct("<II32s24sIIIIIIIQQIIII")
_CRC = struct.Struct("<I")
_HEAD = struct.pack("<II", _MAGIC, FORMAT)
_FILE = re.compile(r"[0-9]{12,}")
_STANDING, _LAST = 1, 2
_READ_LINES = 4096

assert _LINE.size + _CRC.size == LINE_BYTES


class OrderDamaged(PrivacyLogError):
    """What the order fixed, and was signed, is damaged or missing."""


class Line(NamedTuple):
    """Some frames of one file, one after the other, and the leaves that their records are."""

    slot: str
    """Name of the folder in which the file was."""
    file: int
    key_id: str
    """Of the quarter, from the header of the file."""
    begin: int
    """Offset of the first frame."""
    end: int
    """Offset behind the last."""
    first_frame: int
    last_frame: int
    previous_crc: int
    """Chain value of the file before the first frame."""
    crc: int
    """Chain value of the file behind the last frame."""
    first_record: int
    """Number in the slot of the first record."""
    records: int
    """How many; 0 where the frames hold none."""
    first_leaf: int
    """Leaf of the first record; the next ones follow."""
    is_last: bool = False
    """The last frame ends its file."""

    @property
    def end_leaf(self) -> int:
        """The leaf behind the last one."""
        return self.first_leaf + self.records

    @property
    def place(self) -> Place:
        """Where the frames begin."""
        return Place(self.begin, self.first_frame - 1, self.previous_crc, self.first_record)

    @property
    def end_place(self) -> Place:
        """Where the next frame of the file is."""
        record = self.first_record + self.records
        return Place(self.end, self.last_frame, self.crc, record, is_last=self.is_last)


def standing(line: Line, leaf: int) -> Line:
    """Return the line that says how far a slot is, without frames; ``leaf`` is the next leaf."""
    place = line.end_place
    return line._replace(
        begin=place.offset,
        first_frame=place.frame + 1,
        previous_crc=place.crc,
        first_record=place.next_record,
        records=0,
        first_leaf=leaf,
    )


def encode_line(line: Line, previous: int, *, standing_after: int = -1) -> tuple[bytes, int]:
    """Return the bytes of a line, and its checksum.

    ``previous`` is the checksum of the line before, 0 for the first of all; ``standing_after`` how
    many lines that only say how far a slot is follow this one, or -1 where this is none.
    """
    fields = _LINE.pack(
        _MAGIC,
        FORMAT,
        line.slot.encode("ascii"),
        line.key_id.encode("ascii"),
        line.file,
        line.begin,
        line.end,
        line.first_frame,
        line.last_frame,
        line.previous_crc,
        line.crc,
        line.first_record,
        line.first_leaf,
        line.records,
        _STANDING * (standing_after >= 0) | _LAST * line.is_last,
        previous,
        max(standing_after, 0),
    )
    crc = crc32(fields)
    return fields + _CRC.pack(crc), crc


class _Read(NamedTuple):
    line: Line
    previous: int
    standing_after: int


def _parse(data: bytes, at: int) -> _Read:
    (_, _, slot, key_id, file, begin, end, first_frame, last_frame, previous_crc, crc, first_record,
     first_leaf, records, flags, previous, after) = _LINE.unpack_from(data, at)  # fmt: skip
    line = Line(
        slot.rstrip(b"\0").decode("ascii", "replace"),
        file,
        key_id.rstrip(b"\0").decode("ascii", "replace"),
        begin,
        end,
        first_frame,
        last_frame,
        previous_crc,
        crc,
        first_record,
        records,
        first_leaf,
        bool(flags & _LAST),
    )
    return _Read(line, previous, after if flags & _STANDING else -1)


def _checksum(data: bytes, at: int) -> int | None:
    """Return the checksum that ends a line; None where it is not right."""
    if data[at : at + len(_HEAD)] != _HEAD:
        return None
    told = int(_CRC.unpack_from(data, at + _LINE.size)[0])
    return told if told == crc32(data[at : at + _LINE.size]) else None


def parse_line(data: bytes, at: int) -> tuple[Line, int, int] | None:
    """Return a line, the checksum it names and its own; None where it is not right."""
    crc = _checksum(data, at)
    return None if crc is None else (*_parse(data, at)[:2], crc)


class Order:
    """Reads the lines in a folder, while they may be growing: a line in the making ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def starts(self) -> list[int]:
        """Return the leaf that names each file, in order; none where there is no folder."""
        try:
            names = [entry.name for entry in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if _FILE.fullmatch(name))

    def file_of(self, start: int) -> Path:
        """Return the path of the file that a leaf names."""
        return self.folder / f"{start:012d}"

    def lines(self, from_leaf: int = 0, to_leaf: int | None = None) -> Iterator[Line]:
        """Yield the lines with leaves from ``from_leaf`` up to and without ``to_leaf``, whole.

        Lines without a record come too, where they lie within.

        Raises:
            OrderDamaged: a line is not right, or the lines end before ``to_leaf``.
            OSError: a file cannot be read.
        """
        starts = self.starts()
        chain: int | None = None
        end_leaf = 0
        for start in starts[max(bisect_right(starts, from_leaf) - 1, 0) :]:
            first, is_empty = self._first_line(start, from_leaf), True
            for crc, (line, previous, standing_after) in self._lines(start, first):
                if to_leaf is not None and line.first_leaf >= to_leaf:
                    return
                if chain not in (None, previous):
                    raise self._damaged(start, "does not continue the line before")
                chain, end_leaf, is_empty = crc, line.end_leaf, False
                if standing_after < 0 and (line.end_leaf > from_leaf or not line.records):
                    yield line
            if is_empty and start != starts[-1]:
                raise self._damaged(start, "is damaged")
        if to_leaf is not None and end_leaf < to_leaf:
            raise self._damaged(starts[-1] if starts else 0, f"ends before leaf {to_leaf}")

    def last_places(self) -> dict[str, Line]:
        """Return the last line of each slot; its ``end_place`` is how far the slot is ordered.

        Raises:
            OrderDamaged: the lines that the newest file begins with are not right.
            OSError: a file cannot be read.
        """
        starts = self.starts()
        return self.tail(starts[-1])[0] if starts else {}

    def grown(self, start: int, first: int) -> Iterator[Line]:
        """Yield the lines of a file from line number ``first`` on, as far as they are whole.

        Raises:
            OSError: the file cannot be read.
        """
        for _, read in self._lines(start, first):
            yield read.line

    def tail(self, start: int) -> tuple[dict[str, Line], int, int]:
        """Return the last line of each slot in a file, how many are right, and the last checksum.

        Raises:
            OrderDamaged: the lines that the file begins with are not right.
        """
        last: dict[str, Line] = {}
        count = chain = after = 0
        for crc, (line, _, standing_after) in self._lines(start, 0):
            last[line.slot] = line
            count += 1
            chain, after = crc, standing_after
        if after > 0 or (start and not count):
            raise self._damaged(start, "is damaged where it begins")
        return last, count, chain

    def _damaged(self, start: int, what: str) -> OrderDamaged:
        return OrderDamaged(f"{self.file_of(start)}: {what}: put back a copy of this file")

    def _first_line(self, start: int, from_leaf: int) -> int:
        """Return the first line of a file that ends at this leaf or behind: they go up."""
        with self.file_of(start).open("rb") as stream:
            low, high = 0, os.fstat(stream.fileno()).st_size // LINE_BYTES
            while from_leaf > start and low < high:
                middle = (low + high) // 2
                data = os.pread(stream.fileno(), LINE_BYTES, middle * LINE_BYTES)
                if len(data) < LINE_BYTES or _checksum(data, 0) is None:
                    high = middle  # a line in the making, or damage: it is met when it is read
                elif _parse(data, 0).line.end_leaf < from_leaf:
                    low = middle + 1
                else:
                    high = middle
        return low

    def _lines(self, start: int, first: int) -> Iterator[tuple[int, _Read]]:
        """Yield checksum and line, from a line on up to the first that is not right."""
        with self.file_of(start).open("rb") as stream:
            stream.seek(first * LINE_BYTES)
            chain: int | None = None
            while data := stream.read(_READ_LINES * LINE_BYTES):
                for at in range(0, len(data) - LINE_BYTES + 1, LINE_BYTES):
                    crc = _checksum(data, at)
                    if crc is None:
                        return
                    read = _parse(data, at)
                    if chain not in (None, read.previous):
                        return
                    chain = crc
                    yield crc, read
