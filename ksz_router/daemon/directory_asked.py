"""What a checked delivery asks of the directory, and the rules that it may break.

Alike for what comes alone and for what comes in a mailbox. ``docs/directory-services.md`` is the
specification.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from ksz_router.days import is_day
from ksz_router.directory.change import ANY, WHY, Change, Operation, Reason
from ksz_router.messages import Delivery
from ksz_router.model import ANY_TYPE, OPEN, Line, Role
from ksz_router.sdk.directory import (
    SECTOR_WIDE,
    Adjustment,
    Event,
    Inscription,
    Registration,
    Removal,
    What,
)

MALFORMED = "PAYLOAD_MALFORMED"
NO_ROLE = "ROLE_MISSING"
NOT_SECTOR_WIDE = "NOT_SECTOR_WIDE"
TOO_OLD = Reason.TICKET_TOO_OLD.name

REFUSALS: Mapping[str, tuple[str, str]] = {
    MALFORMED: ("DIR-51", "the payload is not what the service takes"),
    NO_ROLE: ("DIR-52", "the request names no role: use path A, by sector, type and capacity"),
    NOT_SECTOR_WIDE: ("DIR-53", "the grant does not let lines without institution type be changed"),
} | {reason.name: (f"DIR-{int(reason)}", why) for reason, why in WHY.items()}
"""Name of the rule → source code, and the rule in words. Never renumber."""

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

_PAYLOAD_BYTES_MAX = 512
"""Several times what a service needs: payloads are held while what they ask waits."""

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Broken(Exception):
    """A rule of the services themselves is broken; ``args[0]`` names it."""


def change_of(delivery: Delivery) -> Change:
    """Return the change that a delivery asks for.

    Raises:
        Broken: it asks for none.
    """
    match delivery.service:
        case "directory.inscribe":
            inscription = decoded(delivery, Inscription)
            line = _line(delivery, inscription.phase, is_wide=inscription.sector_wide)
            return _made(delivery, Operation.INSCRIBE, line)
        case "directory.adjust":
            adjustment = decoded(delivery, Adjustment)
            line = _line(delivery, adjustment.phase, is_wide=adjustment.sector_wide)
            return _made(delivery, Operation.ADJUST, line, adjustment.line_begin)
        case "directory.remove":
            return _removal(delivery, decoded(delivery, Removal))
    registration = decoded(delivery, Registration)
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
    role = role_of(delivery)
    if is_wide and SECTOR_WIDE not in delivery.groups:
        raise Broken(NOT_SECTOR_WIDE)
    assert delivery.capacity is not None, "a role comes with a capacity"
    kind = ANY_TYPE if is_wide else role.type
    end = OPEN if delivery.end is None else delivery.end
    return Line(role.sector, kind, delivery.capacity, phase, delivery.begin, end)


def role_of(delivery: Delivery) -> Role:
    """Return the role that a delivery names.

    Raises:
        Broken: it names none.
    """
    if delivery.sector is None or delivery.type is None or delivery.capacity is None:
        raise Broken(NO_ROLE)
    return Role(delivery.sector, delivery.type)


def decoded(delivery: Delivery, kind: type[Struct]) -> Struct:
    """Return what the payload of a delivery says.

    Raises:
        Broken: it is not what the service takes.
    """
    if len(delivery.payload) > _PAYLOAD_BYTES_MAX:
        raise Broken(MALFORMED)
    try:
        return msgspec.msgpack.decode(delivery.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Broken(MALFORMED) from None


assert all(len(code) <= 16 for code, _ in REFUSALS.values())
assert {reason.name for reason in Reason} <= set(REFUSALS)
