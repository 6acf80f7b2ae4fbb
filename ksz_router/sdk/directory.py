"""Ask the directory's own services: payloads made and read, requests ready to be sent.

    answer = await client.ask(inscribe(envelope, person, begin=20260101, phase=1))
    told = told_of(answer)

``docs/directory-services.md`` says what each service asks and answers. Person, role, capacity and
period of a change stand in the request itself, where they are checked and recorded; the payload
holds only what has no place there. Nothing in here shows a person in its ``repr``.
"""

from enum import StrEnum, unique
from typing import TypeVar

import msgspec

from ksz_router.messages import Answer, Delivery, Request
from ksz_router.model import OPEN, Day, Line

VERSION = 1

INSCRIBE = "directory.inscribe"
ADJUST = "directory.adjust"
REMOVE = "directory.remove"
LINES = "directory.lines"
OTHERS = "directory.others"
REGISTER = "directory.register"

SERVICES = (INSCRIBE, ADJUST, REMOVE, LINES, OTHERS, REGISTER)

NUMBER = "directory.number"
"""The directory sends it, to all who know the person and may receive it."""

SECTOR_WIDE = "sector-wide"
"""Data group of a grant that lets lines without institution type be changed."""


def group_of(sector: int) -> str:
    """Return the data group of a grant that lets the lines of one other sector be seen."""
    return f"sector-{sector}"


@unique
class What(StrEnum):
    """What is to be removed (form S607)."""

    LINE = "line"
    """The line of the capacity that begins on the first day of the period."""
    PERIOD = "period"
    """The days of the period, out of the lines of the capacity; a line may split in two."""
    CAPACITY = "capacity"
    """All lines of the capacity."""
    ALL = "all"
    """All lines of the role."""


@unique
class Event(StrEnum):
    """What became of a number."""

    NEW = "new"
    REPLACE = "replace"
    CANCEL = "cancel"
    DECEASE = "decease"
    REACTIVATE = "reactivate"


class Inscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.inscribe``."""

    phase: int = 0
    sector_wide: bool = False
    """The line has no institution type: it fits every type of the sector."""


class Adjustment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.adjust``; the period of the request is the one the line gets."""

    phase: int
    line_begin: Day | None = None
    """First day of the line as it stands; the same as the new first day where it is left out."""
    sector_wide: bool = False


class Removal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.remove``."""

    what: What
    line_begin: Day | None = None
    """``PERIOD``: out of the line that begins on this day only."""
    phase: int | None = None
    """``CAPACITY``: lines of this phase only."""
    every_capacity: bool = False
    """``PERIOD``: out of the lines of every capacity of the role."""
    sector_wide: bool = False


class Consultation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.others``: the period of the data, beside that of the integration."""

    begin: Day
    end: Day | None = None
    """None: open."""


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of ``directory.register``; the day of a death is the first day of the request."""

    event: Event
    by: str = ""
    """``REPLACE``: the number that takes the place."""

    def __repr__(self) -> str:
        return f"Registration({self.event.name})"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Payload of ``directory.number``: what became of a number, on the first day of the period."""

    version: int
    """Of the directory, which the change made. Of two notices the higher is the later one; one
    that comes again with the version and the person of an earlier one is that one."""
    event: Event
    number: str
    """The number that it is about, which need not be the one that the delivery names."""
    current: str = ""
    """The number in use of the person who has ``number``; empty where it was cancelled."""
    deceased: Day = 0
    """The day of death of that person; 0: none is known."""

    def __repr__(self) -> str:
        return f"Notice({self.event.name}, version={self.version})"


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Payload of every answer."""

    version: int
    """Of the directory: that the change made, or that was consulted."""
    lines: tuple[Line, ...] = ()
    """After a change, or as consulted; ``[sector, type, capacity, phase, begin, end, changed]``."""
    current: str = ""
    """The number in use, where that is another than the one asked and may be known."""
    more: bool = False
    """There are more lines than an answer holds; these are the first."""
    repeated: bool = False
    """This very change was settled before, and was not made again."""
    reason: str = ""
    """Name of the rule that is broken; empty where none is."""
    why: str = ""
    """The rule in words."""

    def __repr__(self) -> str:
        return f"Told(version={self.version}, lines={len(self.lines)}, reason={self.reason!r})"


Payload = TypeVar("Payload", Inscription, Adjustment, Removal, Consultation, Registration)

_encode = msgspec.msgpack.Encoder().encode
_told = msgspec.msgpack.Decoder(Told)
_notice = msgspec.msgpack.Decoder(Notice)


def told_of(answer: Answer) -> Told | None:
    """Read what the directory said; None where the router answered without it, or was repeated.

    Raises:
        msgspec.ValidationError: the payload is none of the directory's.
    """
    return _told.decode(answer.payload) if answer.payload else None


def notice_of(delivery: Delivery) -> Notice:
    """Read what a delivery of ``directory.number`` says.

    Raises:
        msgspec.ValidationError: the payload is none of the directory's.
    """
    return _notice.decode(delivery.payload)


def encode(payload: object) -> bytes:
    """Return the bytes of a payload or of an answer."""
    return _encode(payload)


def inscribe(
    envelope: Request,
    person: str,
    *,
    begin: Day,
    end: Day = OPEN,
    phase: int = 0,
    sector_wide: bool = False,
) -> Request:
    """Make a request that inscribes a person for a period, open where no end is given.

    Args:
        envelope: Who asks: ticket, user or application, role, capacity; all else is put in.
        person: The INSZ.
        begin: First Brussels day, ``yyyymmdd``.
        end: Last one, which counts.
        phase: Of the line.
        sector_wide: For a line without institution type; the grant must allow it.
    """
    payload = Inscription(phase=phase, sector_wide=sector_wide)
    return _change(envelope, INSCRIBE, person, (begin, end), payload)


def adjust(
    envelope: Request,
    person: str,
    *,
    phase: int,
    begin: Day,
    end: Day = OPEN,
    line_begin: Day | None = None,
    sector_wide: bool = False,
) -> Request:
    """Make a request that gives a line another phase, begin or end; ``line_begin`` finds it."""
    payload = Adjustment(phase=phase, line_begin=line_begin, sector_wide=sector_wide)
    return _change(envelope, ADJUST, person, (begin, end), payload)


def remove(
    envelope: Request, person: str, removal: Removal, *, begin: Day | None = None, end: Day = OPEN
) -> Request:
    """Make a request that removes lines, or days out of lines.

    ``LINE`` needs the ``begin`` of the line, ``PERIOD`` the days that are to go.

    Raises:
        ValueError: it has none; the request would mean today.
    """
    if begin is None and removal.what in (What.LINE, What.PERIOD):
        raise ValueError(f"to remove a {removal.what}, name the day that it begins on")
    return _change(envelope, REMOVE, person, (begin, end), removal)


def lines(envelope: Request, person: str) -> Request:
    """Make a request for all lines of the role."""
    return msgspec.structs.replace(
        envelope, service=LINES, version=VERSION, person=person, payload=b""
    )


def others(
    envelope: Request, person: str, *, data_begin: Day, data_end: Day | None = None
) -> Request:
    """Make a request for the lines of other sectors.

    The period of ``envelope`` is that of the own integration; the one here is of the lines asked.
    """
    payload = encode(Consultation(begin=data_begin, end=data_end))
    return msgspec.structs.replace(
        envelope, service=OTHERS, version=VERSION, person=person, payload=payload
    )


def register(
    envelope: Request, person: str, event: Event, *, by: str = "", day: Day | None = None
) -> Request:
    """Make a request that says what became of a number; ``day`` is that of a death.

    Raises:
        ValueError: a death has none; the request would mean today.
    """
    if day is None and event is Event.DECEASE:
        raise ValueError("to say that somebody died, name the day")
    payload = Registration(event=event, by=by)
    return _change(envelope, REGISTER, person, (day, day or OPEN), payload)


def _change(
    envelope: Request, service: str, person: str, days: tuple[Day | None, Day], payload: object
) -> Request:
    begin, end = days
    return msgspec.structs.replace(
        envelope,
        service=service,
        version=VERSION,
        person=person,
        begin=begin,
        end=None if begin is None or end == OPEN else end,
        payload=encode(payload),
    )
