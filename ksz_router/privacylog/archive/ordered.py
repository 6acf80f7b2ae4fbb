"""The records that the order makes leaves of, read from the write-ahead files again."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from ksz_router.privacylog.frame import FrameCipher, Place, frames, walk
from ksz_router.privacylog.header import PAGE, FileHeader, FrameDamaged, parse_file_header
from ksz_router.privacylog.keys import KeyRing, QuarterKeys
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.slots import file_of, slot_folders
from ksz_router.privacylog.tree.order import Line, Order
from ksz_router.privacylog.tree.places import locate

_OPEN_MAX: Final = 16


class Taken(NamedTuple):
    """The records of one frame, and which leaves they are."""

    slot: str
    file: int
    keys: QuarterKeys
    """That the file is under."""
    first_leaf: int
    first_record: int
    """Number in the slot of the first record."""
    records: tuple[bytes, ...]
    """Canonical; there may be none."""
    end: Place
    """Where the next frame of the file is."""


class _Opened(NamedTuple):
    descriptor: int
    header: FileHeader
    keys: QuarterKeys
    cipher: FrameCipher

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, offset)


class Ordered:
    """Reads ordered records, with some files open at a time; a context that closes them."""

    def __init__(self, log: Path, order: Path, keys: KeyRing) -> None:
        self._log = log
        self._order = Order(order)
        self._keys = keys
        self._open: dict[Path, _Opened] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1].descriptor)

    def lines(self, from_leaf: int, to_leaf: int) -> list[Line]:
        """Return the lines that have leaves from ``from_leaf`` up to and without ``to_leaf``.

        Raises:
            OrderDamaged: a line is not right, or they end before ``to_leaf``.
        """
        return [line for line in self._order.lines(from_leaf, to_leaf) if line.records]

    def take(self, from_leaf: int, to_leaf: int) -> Iterator[Taken]:
        """Yield the frames whose first leaf lies from ``from_leaf`` up to and without ``to_leaf``.

        A frame without records lies before the leaf that follows it.

        Raises:
            LogCorrupt: a file is not what was ordered, or is missing.
            OrderDamaged: see :meth:`lines`.
            KeysError: the keys of its quarter are missing.
            OSError: it cannot be read.
        """
        for line in self._order.lines(from_leaf, to_leaf):
            for taken in self.of_line(line, from_leaf):
                if taken.first_leaf >= to_leaf:
                    return
                if taken.first_leaf >= from_leaf:
                    yield taken
                elif taken.first_leaf + len(taken.records) > from_leaf:
                    raise LogCorrupt(
                        f"{file_of(self._log / line.slot, line.file)}: what is sealed ends within "
                        f"frame {taken.end.frame}: the manifests are of another log"
                    )

    def of_line(self, line: Line, from_leaf: int = 0) -> Iterator[Taken]:
        """Yield the frames of one line, one at a time: a line may be of a whole file.

        Those whose records all lie before ``from_leaf`` are passed over, by their checksums.

        Raises:
            LogCorrupt, KeysError, OSError: as :meth:`take`.
        """
        file = file_of(self._log / line.slot, line.file)
        found = self._whole(file, line)
        if found is None:  # the folder of the slot may have been renamed since
            moved = locate(slot_folders(self._log), line)
            found = None if moved is None else self._whole(moved, line)
        if found is None:
            raise _refused(file, line)
        place = _passed(found, line, from_leaf)
        if place.frame == line.last_frame:
            return
        leaf = _leaf(line, place)
        try:
            for frame in frames(found.read, found.header, found.cipher, place):
                yield Taken(
                    line.slot, line.file, found.keys, leaf, frame.first_record, frame.records,
                    frame.end,
                )  # fmt: skip
                leaf += len(frame.records)
                if frame.number == line.last_frame:
                    return
        except FrameDamaged:
            raise _refused(file, line) from None

    def _whole(self, file: Path, line: Line) -> _Opened | None:
        """Open the file of a line; None where it does not have its frames, by their checksums."""
        try:
            opened = self._opened(file)
        except (FileNotFoundError, FrameDamaged):
            return None
        is_whole = walk(opened.read, line.place, line.last_frame) == line.end_place
        return opened if is_whole else None

    def _opened(self, file: Path) -> _Opened:
        found = self._open.pop(file, None)
        if found is None:
            if len(self._open) >= _OPEN_MAX:
                idle = next(iter(self._open))
                os.close(self._open.pop(idle).descriptor)
            found = self._open_file(file)
        self._open[file] = found  # at the end: the first is the one not used for longest
        return found

    def _open_file(self, file: Path) -> _Opened:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = parse_file_header(os.pread(descriptor, PAGE, 0))
            keys = self._keys.named(header.key_id, header.commitment)
        except BaseException:
            os.close(descriptor)
            raise
        return _Opened(descriptor, header, keys, FrameCipher(keys.frames, header.salt))


def _leaf(line: Line, place: Place) -> int:
    """Return the leaf that follows at a place within a line."""
    return line.first_leaf + place.next_record - line.first_record


def _passed(opened: _Opened, line: Line, from_leaf: int) -> Place:
    """Return the place in a line before which all frames have leaves before ``from_leaf`` alone."""
    place = line.place
    while place.frame < line.last_frame and _leaf(line, place) < from_leaf:
        after = walk(opened.read, place, place.frame + 1)
        if after is None or _leaf(line, after) > from_leaf:
            break
        place = after
    return place


def _refused(file: Path, line: Line) -> LogCorrupt:
    return LogCorrupt(
        f"{file}: damaged or missing from byte {line.begin} on, where entries were ordered "
        "that are not sealed yet: put back a copy of it"
    )
