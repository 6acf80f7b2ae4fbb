"""The services of the directory: from a checked delivery to a change, and back to an answer.

What an institution may act as was settled by the control before: each change concerns lines of the
role in the delivery and of no other, and each consultation those that its grant lets be seen.
``docs/directory-services.md`` is the specification.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from ksz_router import limits
from ksz_router.daemon.directory_batches import Batches, Damaged, Full, TooLate
from ksz_router.days import is_day
from ksz_router.directory.change import ANY, WHY, Applied, Change, Operation, Reason, Refused
from ksz_router.identifiers import is_insz
from ksz_router.messages import Delivery, Outcome
from ksz_router.model import ANY_TYPE, OPEN, Line, Person, Role
from ksz_router.sdk.directory import (
    ADJUST,
    INSCRIBE,
    LINES,
    OTHERS,
    REGISTER,
    REMOVE,
    SECTOR_WIDE,
    VERSION,
    Adjustment,
    Consultation,
    Event,
    Inscription,
    Registration,
    Removal,
    Told,
    What,
    encode,
    group_of,
)
from ksz_router.sdk.provider import Handler, Supply

MALFORMED = "PAYLOAD_MALFORMED"
NO_ROLE = "ROLE_MISSING"
NOT_SECTOR_WIDE = "NOT_SECTOR_WIDE"
TOO_OLD = "TICKET_TOO_OLD"

REFUSALS: Mapping[str, tuple[str, str]] = {
    MALFORMED: ("DIR-51", "the payload is not what the service takes"),
    NO_ROLE: ("DIR-52", "the request names no role: use path A, by sector, type and capacity"),
    NOT_SECTOR_WIDE: ("DIR-53", "the grant does not let lines without institution type be changed"),
    TOO_OLD: ("DIR-54", "what became of it is no longer kept; look, and use a new ticket"),
} | {reason.name: (f"DIR-{int(reason)}", why) for reason, why in WHY.items()}
"""Name of the rule → source code, and the rule in words. Never renumber."""

_FAILURES = {Full: "DIR-FULL", TooLate: "DIR-LATE", Damaged: "DIR-DAMAGED"}
"""Source codes where nothing was changed, and it is not the requester's to mend."""

_REMOVES = {
    What.LINE: Operation.REMOVE_LINE,
    What.PERIOD: Operation.REMOVE_PERIOD,
    What.CAPACITY: Operation.REMOVE_CAPACITY,
    What.ALL: Operation.REMOVE_ALL,
}
_REGISTERS = {
    Event.NEW: Operation.NEW_NUMBER,
    Event.REPLACE: Operation.REPLACE,
    Event.CANCEL: Operation.CANCEL,
    Event.DECEASE: Operation.DECEASE,
    Event.REACTIVATE: Operation.REACTIVATE,
}

_DAY_MS = 86_400_000
_PAYLOAD_BYTES_MAX = 512
"""Several times what a service needs: payloads are held while what they ask waits."""

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Broken(Exception):
    """A rule of the services themselves is broken; ``args[0]`` names it."""


class DirectoryServices:
    """Answers deliveries of the directory's services.

    Args:
        batches: Of the one writer.
        keep_days: How long it keeps what became of a change.
        wall_ms: Unix time in milliseconds.
    """

    def __init__(self, batches: Batches, keep_days: int, wall_ms: Callable[[], int]) -> None:
        self._batches = batches
        self._keep_ms = keep_days * _DAY_MS
        self._wall_ms = wall_ms

    def handlers(self) -> dict[tuple[str, int], Handler]:
        """By service name and version, for a ``Provider``."""
        changes = dict.fromkeys((INSCRIBE, ADJUST, REMOVE, REGISTER), self._change)
        works = {**changes, LINES: self._lines, OTHERS: self._others}
        return {(name, VERSION): partial(self._answer, work) for name, work in works.items()}

    async def _answer(
        self, work: Callable[[Delivery], Awaitable[Supply]], delivery: Delivery
    ) -> Supply | None:
        try:
            return await work(delivery)
        except Broken as broken:
            return _refusal(str(broken))
        except (Full, TooLate, Damaged) as failure:
            if delivery.repeat:  # it may stand since the first time: to say that it failed is final
                return None
            return Supply(Outcome.FAILED, source_code=_FAILURES[type(failure)])

    async def _change(self, delivery: Delivery) -> Supply:
        change = change_of(delivery)
        if made_ms(delivery.exchange) < self._wall_ms() - self._keep_ms:
            raise Broken(TOO_OLD)
        found = await self._batches.change(change, delivery.deadline_ms / 1000)
        if isinstance(found, Refused):
            # The refusal says something of the other number: that it was asked gets its entry.
            further = tuple(n for n in (change.other,) if is_insz(n) and n != delivery.person)
            return _refusal(found.reason.name, repeated=found.repeated, further=further)
        if change.line is None:  # who keeps numbers need not learn which sectors know the person
            found = Applied(found.version, (), found.current, found.repeated)
        return _told(delivery, found, change.other)

    async def _lines(self, delivery: Delivery) -> Supply:
        role = _role_of(delivery)
        if delivery.payload:
            raise Broken(MALFORMED)
        person, version = await self._person(delivery)
        lines = tuple(
            line
            for line in (person.lines if person is not None else ())
            if line.sector == role.sector and line.type in (role.type, ANY_TYPE)
        )
        if person is None or not lines:
            return _nothing(version)
        return _told(delivery, Applied(version, lines, person.current))

    async def _others(self, delivery: Delivery) -> Supply:
        role, asked = _role_of(delivery), _decoded(delivery, Consultation)
        begin, end = asked.begin, OPEN if asked.end is None else asked.end
        if not is_day(begin) or (end != OPEN and not is_day(end)) or end < begin:
            raise Broken(MALFORMED)
        person, version = await self._person(delivery)
        lines = tuple(
            line
            for line in (person.lines if person is not None else ())
            if line.sector != role.sector
            and (not delivery.groups or group_of(line.sector) in delivery.groups)
            and line.begin <= end
            and line.end >= begin
        )
        return _told(delivery, Applied(version, lines, "")) if lines else _nothing(version)

    async def _person(self, delivery: Delivery) -> tuple[Person | None, int]:
        assert delivery.person is not None, "the services are about persons"
        return await self._batches.look_up(delivery.person, delivery.deadline_ms / 1000)


def made_ms(exchange: bytes) -> int:
    """When an exchange id was made, Unix milliseconds: a UUIDv7 begins with it (RFC 9562 5.7)."""
    return int.from_bytes(exchange[:6], "big")


def change_of(delivery: Delivery) -> Change:
    """Return the change that a delivery asks for.

    Raises:
        Broken: it asks for none.
    """
    match delivery.service:
        case "directory.inscribe":
            inscription = _decoded(delivery, Inscription)
            line = _line(delivery, inscription.phase, is_wide=inscription.sector_wide)
            return _made(delivery, Operation.INSCRIBE, line)
        case "directory.adjust":
            adjustment = _decoded(delivery, Adjustment)
            line = _line(delivery, adjustment.phase, is_wide=adjustment.sector_wide)
            return _made(delivery, Operation.ADJUST, line, adjustment.line_begin)
        case "directory.remove":
            return _removal(delivery, _decoded(delivery, Removal))
    registration = _decoded(delivery, Registration)
    if registration.by and registration.event is not Event.REPLACE:
        raise Broken(MALFORMED)
    return Change(
        exchange=delivery.exchange,
        number=delivery.person or "",
        operation=_REGISTERS[registration.event],
        other=registration.by,
        day=delivery.begin if registration.event is Event.DECEASE else 0,
    )


def _removal(delivery: Delivery, removal: Removal) -> Change:
    what, is_period = removal.what, removal.what is What.PERIOD
    fits = (
        (removal.phase is None or what is What.CAPACITY)
        and (removal.line_begin is None or is_period)
        and (not removal.every_capacity or is_period)
    )
    if not fits:  # else a wish would be left out in silence, and too much removed
        raise Broken(MALFORMED)
    phase = ANY if removal.phase is None else removal.phase
    line = _line(delivery, phase, is_wide=removal.sector_wide)
    if removal.every_capacity:
        line = msgspec.structs.replace(line, capacity=ANY)
    return _made(delivery, _REMOVES[what], line, removal.line_begin)


def _made(
    delivery: Delivery, operation: Operation, line: Line, line_begin: int | None = None
) -> Change:
    if line_begin is not None and not is_day(line_begin):
        raise Broken(MALFORMED)
    return Change(
        exchange=delivery.exchange,
        number=delivery.person or "",
        operation=operation,
        line=line,
        line_begin=line_begin or 0,
    )


def _line(delivery: Delivery, phase: int, *, is_wide: bool) -> Line:
    """The line that the envelope of a change names."""
    role = _role_of(delivery)
    if is_wide and SECTOR_WIDE not in delivery.groups:
        raise Broken(NOT_SECTOR_WIDE)
    assert delivery.capacity is not None, "a role comes with a capacity"
    kind = ANY_TYPE if is_wide else role.type
    end = OPEN if delivery.end is None else delivery.end
    return Line(role.sector, kind, delivery.capacity, phase, delivery.begin, end)


def _role_of(delivery: Delivery) -> Role:
    if delivery.sector is None or delivery.type is None or delivery.capacity is None:
        raise Broken(NO_ROLE)
    return Role(delivery.sector, delivery.type)


def _decoded(delivery: Delivery, kind: type[Struct]) -> Struct:
    if len(delivery.payload) > _PAYLOAD_BYTES_MAX:
        raise Broken(MALFORMED)
    try:
        return msgspec.msgpack.decode(delivery.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Broken(MALFORMED) from None


def _told(delivery: Delivery, found: Applied, other: str = "") -> Supply:
    """What is answered where there is something to say; further numbers in it are declared."""
    current = found.current if found.current != delivery.person else ""
    lines_max = limits.directory_lines_told_max
    told = Told(
        version=found.version,
        lines=found.lines[:lines_max],
        more=len(found.lines) > lines_max,
        current=current,
        repeated=found.repeated,
    )
    further = tuple(dict.fromkeys(number for number in (current, other) if is_insz(number)))
    return Supply(Outcome.DATA, payload=encode(told), persons=further)


def _nothing(version: int) -> Supply:
    return Supply(Outcome.NO_DATA, payload=encode(Told(version=version)))


def _refusal(name: str, *, repeated: bool = False, further: tuple[str, ...] = ()) -> Supply:
    """What is answered where a rule is broken; it says nothing of the person."""
    code, why = REFUSALS[name]
    told = Told(version=0, repeated=repeated, reason=name, why=why)
    return Supply(Outcome.NO_DATA, payload=encode(told), persons=further, source_code=code)


assert all(len(code) <= 16 for code, _ in REFUSALS.values())
assert {reason.name for reason in Reason} <= set(REFUSALS)
