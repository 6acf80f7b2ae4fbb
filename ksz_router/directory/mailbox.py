"""A mailbox: a numbered file of changes that an institution sends whole. Pure nouns.

``docs/directory-files.md`` is the specification.
"""

import hashlib
from enum import IntEnum, unique
from typing import NamedTuple

import msgspec

from ksz_router.directory.change import EXCHANGE_BYTES
from ksz_router.directory.packing import DirectoryError
from ksz_router.limits import mailbox_bytes_max, mailbox_part_bytes_max, mailbox_part_bytes_min
from ksz_router.model import Role

NUMBER_MAX = 10**12 - 1


@unique
class Fault(IntEnum):
    """Why a mailbox, or a part of one, is not taken. The numbers travel: never renumber."""

    FILE_NUMBER_USED = 71
    FILE_PART_DIFFERS = 72
    FILE_PART_MALFORMED = 73
    FILE_DIGEST_DIFFERS = 74
    FILE_HEAD_MALFORMED = 75
    FILE_SENDER_DIFFERS = 76
    FILE_END_MISSING = 77
    FILE_COUNT_DIFFERS = 78
    FILE_TOO_LARGE = 79
    FILES_TOO_MANY = 80
    FILE_NO_ROOM = 81
    FILE_UNKNOWN = 82

    __hash__ = int.__hash__


# fmt: off
WHY: dict[Fault, str] = {
    Fault.FILE_NUMBER_USED: "the number was used for another mailbox; each mailbox takes the next",
    Fault.FILE_PART_DIFFERS: "the part was received before, with another content",
    Fault.FILE_PART_MALFORMED: "the part is not as long as announced, or there is no such part",
    Fault.FILE_DIGEST_DIFFERS: "all parts are here, but not with the SHA-256 that was announced",
    Fault.FILE_HEAD_MALFORMED: "the first two lines are not the identification and the columns",
    Fault.FILE_SENDER_DIFFERS: "the identification names another sender, role or number",
    Fault.FILE_END_MISSING: "the last line does not confirm that the mailbox is complete",
    Fault.FILE_COUNT_DIFFERS: "there are more or fewer changes than the last line says",
    Fault.FILE_TOO_LARGE: "the mailbox is larger than may be; send several",
    Fault.FILES_TOO_MANY: "too many mailboxes are on their way; send this one when others are done",
    Fault.FILE_NO_ROOM: "there is no room for it at this moment; send it again later",
    Fault.FILE_UNKNOWN: "no mailbox of this number was received from this role",
}
# fmt: on

assert set(WHY) == set(Fault), "every fault has its words"


class MailboxRefused(DirectoryError):
    """The mailbox or the part is not taken; ``fault`` says why. Nothing of it is applied."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(WHY[fault])
        self.fault = fault


@unique
class State(IntEnum):
    """How far a mailbox is. The numbers are kept: never renumber."""

    RECEIVING = 1
    """Not all parts are here."""
    WAITING = 2
    """Complete, acknowledged, and being applied or about to be."""
    DONE = 3
    """Every line has its verdict."""
    REFUSED = 4
    """Complete but wrong as a whole; nothing of it is applied, and its number may be used anew."""

    __hash__ = int.__hash__


class Sender(NamedTuple):
    """Who sends a mailbox, as the control settled it."""

    kbo: str
    role: Role
    member: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a mailbox, and what its sender announces of the whole in each of them."""

    number: int
    file_bytes: int
    sha256: bytes
    part_bytes: int
    part: int
    """From 1."""
    data: bytes

    def __repr__(self) -> str:
        return f"Part(number={self.number}, part={self.part})"


class Mailbox(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """All that is kept of a mailbox beside its files. Fields are only ever added, at the end."""

    kbo: str
    number: int
    sector: int
    type: int
    member: str = ""
    """For whom the sender acts, where that is not itself."""
    file_bytes: int
    sha256: bytes
    """Of the whole file, as announced; 32 bytes."""
    part_bytes: int
    """Of each part but the last."""
    received: bytes
    """One bit a part, the first part lowest in the first byte."""
    state: State = State.RECEIVING
    fault: int = 0
    """Where it was refused: the :class:`Fault`."""
    received_ms: int
    complete_ms: int = 0
    place: int = 0
    """Among those that wait; the lowest is applied first."""
    application: str = ""
    lines: int = 0
    begun_ms: int = 0
    """When its first line was taken up; 0 before."""
    runs: int = 0
    """How often a program took it up; more than once after a kill."""
    lines_done: int = 0
    offset: int = 0
    """Of the next line in the file."""
    answer_bytes: int = 0
    """Of the answer file, durable; what is behind is of a step that was not finished."""
    applied: int = 0
    refused: int = 0
    done_ms: int = 0

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.file_bytes // self.part_bytes)

    def length_of(self, part: int) -> int:
        """Return the bytes of a part, from 1."""
        return min(self.part_bytes, self.file_bytes - (part - 1) * self.part_bytes)

    def has(self, part: int) -> bool:
        """Say whether a part is here."""
        return bool(self.received[(part - 1) // 8] >> (part - 1) % 8 & 1)

    @property
    def missing(self) -> list[int]:
        """The parts that are not here, from 1."""
        return [part for part in range(1, self.parts + 1) if not self.has(part)]

    @property
    def why(self) -> str:
        """Why it was refused; empty where it was not."""
        return WHY[Fault(self.fault)] if self.fault else ""


_LINE_BITS = 28
assert mailbox_bytes_max >> _LINE_BITS <= 1, "a mailbox may have more lines than ids"


class LineIds:
    """Exchange ids of lines: the same ones however often the mailbox is taken up.

    A UUIDv7 (RFC 9562, 5.7) of the moment when the mailbox was first taken up; in the place of
    what is random there stand 46 bits of SHA-256 over sender, number and content, and the line.
    Those of one mailbox follow each other, so that what is noted of them lies together.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        assert mailbox.begun_ms, "not taken up yet"
        identity = f"{mailbox.kbo},{mailbox.number},".encode() + mailbox.sha256
        drawn = int.from_bytes(hashlib.sha256(identity).digest()[:6], "big") >> 2
        high, low = drawn >> 34, drawn & 0x3_FFFF_FFFF
        self._first = (
            mailbox.begun_ms << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low << _LINE_BITS
        )

    def __call__(self, line: int) -> bytes:
        """Return the id of a line, from 1."""
        return (self._first | line).to_bytes(EXCHANGE_BYTES, "big")


def new_mailbox(sender: Sender, part: Part, now_ms: int) -> Mailbox:
    """Return the mailbox that a first part announces.

    Raises:
        MailboxRefused: no mailbox may be so.
    """
    if part.file_bytes > mailbox_bytes_max:
        raise MailboxRefused(Fault.FILE_TOO_LARGE)
    is_one = part.part_bytes >= part.file_bytes
    least = 1 if is_one else mailbox_part_bytes_min
    if not (
        1 <= part.number <= NUMBER_MAX
        and len(part.sha256) == 32
        and part.file_bytes > 0
        and least <= part.part_bytes <= mailbox_part_bytes_max
    ):
        raise MailboxRefused(Fault.FILE_PART_MALFORMED)
    parts = -(-part.file_bytes // part.part_bytes)
    return Mailbox(
        kbo=sender.kbo,
        number=part.number,
        sector=sender.role.sector,
        type=sender.role.type,
        member=sender.member,
        file_bytes=part.file_bytes,
        sha256=part.sha256,
        part_bytes=part.part_bytes,
        received=bytes(-(-parts // 8)),
        received_ms=now_ms,
    )


def key_of(kbo: str, number: int) -> bytes:
    """Return under what a mailbox is known: those of a sender together, in their order."""
    return kbo.encode("ascii") + number.to_bytes(8, "big")


def number_in(key: bytes) -> int:
    """Return the number in such a key."""
    return int.from_bytes(key[-8:], "big")


def place_key(place: int) -> bytes:
    """Return under what it waits: who was complete first comes first."""
    return place.to_bytes(8, "big")
