"""The write-ahead files of all slots, read by stretches of time; what is damaged is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ksz_router.limits import MIB
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US
from ksz_router.privacylog.frame import BODY_BYTES_MAX, Place
from ksz_router.privacylog.header import PAGE, FrameDamaged, Link, parse_file_header
from ksz_router.privacylog.keys import KeyRing, KeysError, Tokens, quarter_before
from ksz_router.privacylog.recovery import End, Visit
from ksz_router.privacylog.slots import file_numbers, file_of, opened, slot_folders
from ksz_router.privacylog.tail import Tail

_LOOK_BEHIND_BYTES = 2 * MIB
"""A question does not read all the zeros that a live file is filled with: more than the largest
frame of them, and nothing that was written stands behind."""

assert BODY_BYTES_MAX + 2 * PAGE < _LOOK_BEHIND_BYTES


class _File(NamedTuple):
    path: Path
    number: int
    created_us: int
    quarter: str
    previous: Link | None


class Begin(NamedTuple):
    """Where reading of a slot begins."""

    file: int
    """Number of the file; those before it are not read."""
    place: Place
    """In this file."""


class HotLog:
    """The files of a log, and what is wrong with them.

    Args:
        folder: Of the log.
        keys: Of its quarters.
        begins: Of slots of which only what follows is read.
        tail: What was read before; else one is made for this.

    Raises:
        PrivacyLogError: there is no log in ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        keys: KeyRing,
        begins: Mapping[str, Begin] | None = None,
        tail: Tail | None = None,
    ) -> None:
        self.damaged: dict[str, None] = {}  # in the order found, each once
        self._keys = keys
        self._begins = begins or {}
        self._tail = tail or Tail()
        self._ends: dict[Path, Link] = {}  # of files that were read to their end
        try:
            self.slots = slot_folders(folder)
        except OSError as error:
            raise PrivacyLogError(f"{folder}: no privacy log here: {error.strerror}") from error
        self._files = {slot: self._list(slot) for slot in self.slots}
        self._tail.keep_only({file.path for files in self._files.values() for file in files})

    @property
    def begin_us(self) -> int:
        """When the oldest file that is read was begun; 0 where none is."""
        files = (file for files in self._files.values() for file in files)
        return min((file.created_us for file in files), default=0)

    def tokens(self) -> list[Tokens]:
        """Return the tokens of each quarter that has files, and of the one before.

        Tokens are those of the moment of an entry, which may come just before the file's quarter.
        """
        quarters = {file.quarter for files in self._files.values() for file in files}
        tokens = []
        for quarter in sorted(quarters | {quarter_before(quarter) for quarter in quarters}):
            try:
                tokens.append(Tokens(self._keys.quarter(quarter)))
            except KeysError as error:
                if quarter in quarters:
                    self.damaged[str(error)] = None
        return tokens

    def read(self, slot: Path, from_us: int, to_us: int, visit: Visit) -> None:
        """Hand over the frames of the files that may hold entries of this time."""
        files = self._files[slot]
        before: Link | None = None
        for at, file in enumerate(files):
            after = files[at + 1] if at + 1 < len(files) else None
            too_old = after is not None and after.created_us < from_us
            if too_old or file.created_us > to_us + OUTCOME_WITHIN_US:
                before = None
                continue
            if before is not None and file.previous != before:
                self.damaged[f"{file.path}: does not continue the file before it"] = None
            before = self._scan(file, visit, self._begins.get(slot.name))

    def _scan(self, file: _File, visit: Visit, begin: Begin | None = None) -> Link | None:
        place = begin.place if begin is not None and begin.file == file.number else None
        if file.path in self._ends and self._tail.visit_kept(file.path, visit, place):
            return self._ends[file.path]
        try:
            result = self._tail.scan(file.path, self._keys, visit, place, _LOOK_BEHIND_BYTES)
        except (OSError, PrivacyLogError) as error:
            self.damaged[f"{file.path}: {error}"] = None
            return None
        if result.end is End.CORRUPT:
            self.damaged[f"{file.path}: byte {result.offset}: {result.what}"] = None
        self._ends[file.path] = result.link
        return result.link

    def _list(self, slot: Path) -> list[_File]:
        files = []
        begin = self._begins.get(slot.name)
        for number in file_numbers(slot):
            if begin is not None and number < begin.file:
                continue
            path = file_of(slot, number)
            try:
                with opened(path) as read:
                    header = parse_file_header(read(0, PAGE))
            except (OSError, FrameDamaged) as error:
                self.damaged[f"{path}: {error}"] = None
                continue
            quarter = header.key_id.partition("-")[0]
            files.append(_File(path, number, header.created_us, quarter, header.previous))
        return files
