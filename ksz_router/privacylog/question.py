"""What is asked of the privacy log, what is found, and how an answer is cut into pages. Pure."""

import base64
import struct
from collections.abc import Iterable
from itertools import dropwhile
from typing import TypeAlias

import msgspec

from ksz_router.days import brussels_midnight_ns, next_day
from ksz_router.identifiers import Insz, Kbo
from ksz_router.model import Day
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import Entry
from ksz_router.privacylog.rows import Row

LIMIT_MAX = 100_000
FOREVER_US = 2**63 - 1

Order: TypeAlias = tuple[int, bytes, str, str, str, bool]
"""Of a row: its time, exchange id, and for a reading what was read, by whom, why, and whether a
user's. It is the same before and after sealing; rows that are equal in it look the same."""

_POSITION = struct.Struct(">Q16sH")


class PositionRefused(PrivacyLogError):
    """A cursor was not printed by a query."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a row must fit; what is left out fits all."""

    persons: tuple[Insz, ...] = ()
    """All numbers of one person, replaced ones too: as the number in use, as the number asked,
    and as a further person of an answer."""
    institution: Kbo | None = None
    """That asked, was acted for, is the final client, or was sent it."""
    user: str | None = None
    """Eleven digits of the user or application that asked or supplied the answer; with an
    institution, that did so for this one."""
    service: str | None = None
    """Name; of a reading, its verb."""
    from_day: Day | None = None
    to_day: Day | None = None
    verdict: int | None = None
    """0 for what was passed, else the code of the refusal."""
    violation: str | None = None
    """A logged violation of ``own``, ``source`` or ``recipient`` integration; ``any`` of them."""
    exchange: bytes | None = None
    """Exchange id."""
    ticket: str | None = None
    """The reference of the institution, which must be given: a ticket is kept as a hash under its
    requester."""

    @property
    def from_us(self) -> int:
        """Unix microseconds of the earliest row."""
        return 0 if self.from_day is None else _begin_us(self.from_day)

    @property
    def to_us(self) -> int:
        """Unix microseconds beyond the latest row."""
        return FOREVER_US if self.to_day is None else _begin_us(next_day(self.to_day))


class Position(msgspec.Struct, frozen=True):
    """Where a page ended. Holds no token of a person; an exchange id is in every row anyway."""

    at_us: int
    exchange: bytes
    """16 bytes, zeros for a reading."""
    shown: int
    """Rows of this time and exchange that were shown already."""

    @property
    def key(self) -> tuple[int, bytes]:
        """Begin of the order of the row that was shown last."""
        return self.at_us, b"" if self.exchange == bytes(16) else self.exchange

    def encode(self) -> str:
        """Return it as a word for the command line."""
        data = _POSITION.pack(self.at_us, self.exchange, self.shown)
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    @classmethod
    def parse(cls, word: str) -> "Position":
        """Return the position that ``word`` stands for.

        Raises:
            PositionRefused: it stands for none.
        """
        try:
            data = base64.urlsafe_b64decode(word.encode("ascii") + b"==")
            position = cls(*_POSITION.unpack(data))
        except (ValueError, struct.error):
            raise PositionRefused("a cursor is a word that an earlier query printed") from None
        return position


class Found(msgspec.Struct, kw_only=True):
    """What a query found."""

    rows: list[Row]
    """In the order of time."""
    more: Position | None = None
    """There are later rows that fit: ask again from here."""
    damaged: list[str]
    """What could not be read, and why: the rows may be incomplete."""


def order_of(row: Row | Entry) -> Order:
    """Return the order of a row, or of the one that begins with an entry."""
    names_user = bool(row.user)  # of an entry it is the token
    return row.at_us, row.exchange or b"", row.service, row.reader, row.purpose, names_user


def page_of(
    rows: Iterable[Row], limit: int, after: Position | None, damaged: Iterable[str]
) -> Found:
    """Return the first ``limit`` rows behind a position.

    Args:
        rows: In any order: at least ``wanted(limit, after)`` of the earliest from the position on.
        limit: Of the page.
        after: Where the page before ended.
        damaged: What could not be read.
    """
    ordered = sorted(rows, key=order_of)
    shown = 0 if after is None else after.shown
    if after is not None:
        ordered = list(dropwhile(lambda row: order_of(row)[:2] < after.key, ordered))
        while shown and ordered and order_of(ordered[0])[:2] == after.key:
            del ordered[0]
            shown -= 1
    page = ordered[:limit]
    more = None
    if len(ordered) > limit:
        last = order_of(page[-1])[:2]
        shown = sum(order_of(row)[:2] == last for row in page)
        if after is not None and last == after.key:
            shown += after.shown
        more = Position(last[0], last[1] or bytes(16), shown)
    return Found(rows=page, more=more, damaged=list(damaged))


def wanted(limit: int, after: Position | None) -> int:
    """Return how many rows from a position on must be found for a page, and to know of more."""
    return limit + 1 + (0 if after is None else after.shown)


def _begin_us(day: Day) -> int:
    return brussels_midnight_ns(day) // 1000
