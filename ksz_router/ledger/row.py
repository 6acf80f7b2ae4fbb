"""One row of the ledger: a ticket, its attempts, and what became of it at each recipient. Pure."""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum, unique
from typing import NamedTuple

from ksz_router.codes import Code
from ksz_router.limits import recipients_max

NOT_SENT = frozenset(
    {
        Code.ANNOUNCED_OUTAGE,
        Code.SOURCE_UNREACHABLE,
        Code.SOURCE_BREAKER_OPEN,
        Code.SOURCE_WINDOW_FULL,
        Code.DEADLINE_PASSED,
        Code.DELIVERY_TOO_LARGE,
    }
)
"""Outcomes after which nothing left the router: a retry is a first delivery."""

UNKNOWN = frozenset({Code.SOURCE_SILENT, Code.SOURCE_CONNECTION_LOST, Code.OUTCOME_UNKNOWN})
"""Outcomes after which the recipient may have it or not: a retry is a repeat."""

_HEAD = struct.Struct(">16s16s16s32sHQHB")
_RECIPIENT = struct.Struct(">10sHH")

NO_DIGEST = bytes(32)
FIRST_BYTES = 16
"""A row begins with the exchange id of its first attempt."""
ROW_BYTES_MAX = _HEAD.size + recipients_max * _RECIPIENT.size


@unique
class State(IntEnum):
    """How far the latest attempt is."""

    OPEN = 0
    """Claimed; its outcome is not known yet."""
    NOTED = 1
    """Its outcome is known and on its way into the log."""
    CLOSED = 2
    """Its outcome is recorded."""


class Claim(NamedTuple):
    """A submission that passed the control and is about to be recorded."""

    names: Sequence[tuple[bytes, bytes]]
    """Key of the row and hash of the content, 16 bytes each: under the hashing keys of the quarter,
    then under those of the quarter before where its rows still count."""
    exchange: bytes
    slot: int
    """Of the worker."""
    candidates: tuple[str, ...]
    """KBO numbers of everybody to whom it may be sent, the preferred one first."""
    is_to_all: bool
    """A distribution goes to all of them, a submission to one."""
    spared: tuple[str, ...] = ()
    """Recipients of a distribution that this attempt leaves out; its answer names them too."""
    first: bytes = b""
    """Under which exchange id a new ticket goes out; empty: under that of this attempt."""


class Granted(NamedTuple):
    """It is to be sent."""

    first: bytes
    """The exchange id under which it goes out: of the first attempt."""
    attempt: int
    """1 for a new ticket."""
    recipients: tuple[str, ...]
    """To whom it goes now."""
    repeats: frozenset[str]
    """Those of them who may have it already."""
    earlier: Mapping[str, int]
    """What became of it elsewhere in earlier attempts."""


class Earlier(NamedTuple):
    """Everybody has it, or it cannot be said of somebody who is no destination any more."""

    first: bytes
    codes: Mapping[str, int]
    """What became of it, by recipient."""
    digest: bytes
    """SHA-256 of the payload that was answered; zeros where there was none."""


class Noted(NamedTuple):
    """What became of the latest attempt."""

    key: bytes
    exchange: bytes
    codes: Mapping[str, int]
    is_whole: bool
    """No recipient is left."""
    digest: bytes = NO_DIGEST
    """SHA-256 of the payload that was answered."""


class Row:
    """One ticket: unpacked, changed, packed again."""

    __slots__ = (
        "at_us", "attempt", "codes", "content", "digest", "exchange", "first", "slot", "state",
    )  # fmt: skip

    def __init__(self, data: bytes) -> None:
        (
            self.first, self.exchange, self.content, self.digest,
            self.attempt, self.at_us, self.slot, self.state,
        ) = _HEAD.unpack_from(data)  # fmt: skip
        self.codes = {
            kbo.decode(): (code, attempt)
            for kbo, code, attempt in _RECIPIENT.iter_unpack(data[_HEAD.size :])
        }

    @classmethod
    def new(cls, content: bytes) -> "Row":
        return cls(_HEAD.pack(bytes(16), bytes(16), content, NO_DIGEST, 0, 0, 0, State.CLOSED))

    def packed(self) -> bytes:
        head = _HEAD.pack(
            self.first, self.exchange, self.content, self.digest,
            self.attempt, self.at_us, self.slot, self.state,
        )  # fmt: skip
        return head + b"".join(
            _RECIPIENT.pack(kbo.encode(), code, attempt)
            for kbo, (code, attempt) in self.codes.items()
        )

    def came(self, codes: Mapping[str, int], attempt: int) -> None:
        """Take in what became of an attempt, whatever came of others before or after it.

        Who replied has it; who may have had it once may have it, though a later attempt did not
        leave the router.
        """
        for kbo, code in codes.items():
            old = self.codes.get(kbo)
            if old is not None and _certainty(old[0]) > _certainty(code):
                code = old[0]  # noqa: PLW2901
            self.codes[kbo] = code, attempt

    def lose(self, recipients: Sequence[str]) -> None:
        """A crash came: of these it is not known whether they have it, but where it was noted."""
        lost = [kbo for kbo in recipients if self.codes.get(kbo, (0, 0))[1] < self.attempt]
        self.came(dict.fromkeys(lost, int(Code.OUTCOME_UNKNOWN)), self.attempt)

    def join(self, other: "Row") -> None:
        """Take in what another row of the same ticket says of other attempts."""
        for kbo, (code, attempt) in other.codes.items():
            old = self.codes.get(kbo)
            if old is None or _certainty(old[0]) < _certainty(code):
                self.codes[kbo] = code, attempt
        self.digest = self.digest if self.digest != NO_DIGEST else other.digest

    def plain_codes(self) -> dict[str, int]:
        return {kbo: code for kbo, (code, _) in self.codes.items()}

    def told(self, claim: Claim) -> dict[str, int]:
        """What a retry that is not sent is told: of a submission, where it is or may be."""
        codes = self.plain_codes()
        if claim.is_to_all:
            return codes
        return {kbo: code for kbo, code in codes.items() if code not in NOT_SENT}


def _certainty(code: int) -> int:
    """How sure it is that a recipient has it."""
    return 0 if code in NOT_SENT else 1 if code in UNKNOWN else 2


def recipients_of(row: Row, claim: Claim) -> tuple[str, ...]:
    """Say to whom a submission is still to be sent; nobody, where all is known or cannot be mended.

    Where one recipient may have a submission, it goes to no other: it could be there twice.
    """
    codes = {kbo: code for kbo, (code, _) in row.codes.items()}
    if claim.is_to_all:
        left = UNKNOWN | NOT_SENT
        return tuple(kbo for kbo in claim.candidates if codes.get(kbo) in left or kbo not in codes)
    reached = [kbo for kbo, code in codes.items() if code not in NOT_SENT]
    if not reached:
        return claim.candidates[:1]
    return tuple(kbo for kbo in reached if codes[kbo] in UNKNOWN and kbo in claim.candidates)
