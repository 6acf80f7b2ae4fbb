"""The form of a mailbox file: identification, columns, changes, confirmation. Pure but one reader.

``docs/directory-files.md`` is the specification.
"""

import hashlib
import re
from enum import StrEnum, unique
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ksz_router.days import is_day
from ksz_router.directory.mailbox import Fault, Mailbox, MailboxRefused
from ksz_router.directory.packing import DirectoryError
from ksz_router.identifiers import is_application, is_kbo
from ksz_router.limits import MIB
from ksz_router.model import OPEN, Day

FORMAT = 1

COLUMNS = (
    "insz", "operation", "capacity", "phase", "begin", "end", "line_begin", "by", "sector_wide",
)  # fmt: skip

LINE_BYTES_MAX = 256
_CODE_MAX = 999
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")


_CHUNK_BYTES = MIB


class RowMalformed(DirectoryError):
    """A row is not a change. The message says why, without what stood in it."""


@unique
class Work(StrEnum):
    """What a row asks for: the changes of the services, in one word each."""

    INSCRIBE = "inscribe"
    ADJUST = "adjust"
    REMOVE_LINE = "remove-line"
    REMOVE_PERIOD = "remove-period"
    REMOVE_PERIOD_EVERYWHERE = "remove-period-everywhere"
    """Out of the lines of every capacity of the role."""
    REMOVE_CAPACITY = "remove-capacity"
    REMOVE_ALL = "remove-all"
    NEW = "new"
    REPLACE = "replace"
    CANCEL = "cancel"
    DECEASE = "decease"
    REACTIVATE = "reactivate"


class Head(msgspec.Struct, frozen=True):
    """The identification of a mailbox: its first line."""

    kbo: str
    sector: int
    type: int
    application: str
    """Program number of who made it; its access right is asked for each line."""
    number: int
    """1 for the first of this sender, one more for each."""

    @property
    def text(self) -> str:
        """The line."""
        who = f"{self.kbo},{self.sector},{self.type},{self.application}"
        return f"mailbox,{FORMAT},{who},{self.number}"


class Row(NamedTuple):
    """One change as it stands in a file; None and 0 where a cell is empty."""

    insz: str
    work: Work
    capacity: int
    phase: int | None
    begin: Day
    end: Day
    line_begin: Day
    by: str
    is_sector_wide: bool


def head_of(line: bytes) -> Head:
    """Return what the first line says.

    Raises:
        MailboxRefused: it is no identification.
    """
    try:
        word, form, kbo, sector, kind, application, number = line.decode("ascii").split(",")
        is_ours = (word, form) == ("mailbox", str(FORMAT)) and is_kbo(kbo)
        if is_ours and is_application(application) and _NUMBER.fullmatch(number):
            return Head(kbo, _code(sector), _code(kind), application, int(number))
    except (ValueError, RowMalformed):
        pass
    raise MailboxRefused(Fault.FILE_HEAD_MALFORMED)


def is_columns(line: bytes) -> bool:
    """Say whether the second line names the columns."""
    return line == ",".join(COLUMNS).encode()


def count_of(line: bytes) -> int:
    """Return the number of changes that the last line confirms.

    Raises:
        MailboxRefused: it confirms nothing.
    """
    word, _, count = line.partition(b",")
    if word != b"end" or not (count.isascii() and count.isdigit() and len(count) <= 9):
        raise MailboxRefused(Fault.FILE_END_MISSING)
    return int(count)


def row_of(line: bytes) -> Row:
    """Return the change of a row.

    Raises:
        RowMalformed: it is none; whether its number and codes exist is not looked at.
    """
    try:
        cells = line.decode("ascii").split(",")
    except UnicodeDecodeError:
        raise RowMalformed("the row is not ASCII") from None
    if len(cells) != len(COLUMNS):
        raise RowMalformed(f"the row has {len(cells)} columns, {len(COLUMNS)} are expected")
    insz, work, capacity, phase, begin, end, line_begin, by, wide = cells
    rest = _rest(work, capacity, phase, wide)
    last = _day(end) if end else OPEN
    return Row(insz, *rest[:3], _day(begin), last, _day(line_begin), by, rest[3])


@lru_cache(maxsize=16_384)
def _rest(work: str, capacity: str, phase: str, wide: str) -> tuple[Work, int, int | None, bool]:
    try:
        known = Work(work)
    except ValueError:
        raise RowMalformed("operation: is none that is known") from None
    if wide not in ("", "1"):
        raise RowMalformed("sector_wide: must be 1 or empty")
    return known, _code(capacity), _code(phase) if phase else None, bool(wide)


@lru_cache(maxsize=65_536)
def _day(text: str) -> Day:
    if not text:
        return 0
    day = int(text.replace("-", "")) if _DAY.fullmatch(text) else 0
    if not is_day(day):
        raise RowMalformed("begin, end, line_begin: must be a calendar day as yyyy-mm-dd")
    return day


def _code(text: str) -> int:
    if not (0 < len(text) <= 3 and text.isascii() and text.isdigit()) or int(text) > _CODE_MAX:
        raise RowMalformed(f"a code must be a number from 0 to {_CODE_MAX}")
    return int(text)


def digest_of(file: Path) -> bytes:
    """Return the SHA-256 of a file: what its sender announces.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def checked(mailbox: Mailbox, file: Path) -> Mailbox:
    """Return the mailbox with what its file says, which is as was announced and confirmed.

    Raises:
        MailboxRefused: it is not.
    """
    digest, ends, last = hashlib.sha256(), 0, b"\n"
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            ends += chunk.count(b"\n")
            last = chunk[-1:]
        if digest.digest() != mailbox.sha256 or stream.tell() != mailbox.file_bytes:
            raise MailboxRefused(Fault.FILE_DIGEST_DIFFERS)
        stream.seek(0)
        head = head_of(stream.readline(LINE_BYTES_MAX).rstrip(b"\r\n"))
        if not is_columns(stream.readline(LINE_BYTES_MAX).rstrip(b"\r\n")):
            raise MailboxRefused(Fault.FILE_HEAD_MALFORMED)
        begin = stream.tell()
        stream.seek(max(begin, mailbox.file_bytes - LINE_BYTES_MAX))
        confirmed = count_of(stream.read().rstrip(b"\r\n").rpartition(b"\n")[2])
    sender = (head.kbo, head.sector, head.type, head.number)
    if sender != (mailbox.kbo, mailbox.sector, mailbox.type, mailbox.number):
        raise MailboxRefused(Fault.FILE_SENDER_DIFFERS)
    if ends + (last != b"\n") - 3 != confirmed:
        raise MailboxRefused(Fault.FILE_COUNT_DIFFERS)
    return replace(mailbox, application=head.application, lines=confirmed, offset=begin)
