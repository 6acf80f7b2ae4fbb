"""Integration by business message: what a forwarded message changes in the person directory. Pure.

The service declares it (``[[integration]]``), the message names whom and when. Each change is a
request of its own, which passes the control like any other.
"""

import hashlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from ksz_router.decision.case import Destination, Forward
from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import (
    INSCRIBE_SERVICE,
    OPEN,
    REMOVE_SERVICE,
    Inscription,
    Integration,
    Party,
    Role,
)

_VERSION_7, _VARIANT = 0x70, 0x80  # RFC 9562, 5.7 and 4.1

_encode = msgspec.msgpack.Encoder().encode


class Change(NamedTuple):
    """One change that follows from a message."""

    request: Request
    """Of the router's own institution, for the institution whose line changes."""
    exchange: bytes
    """Follows from the exchange id of this attempt to send the message, and from what changes."""
    first: bytes
    """The same of the first attempt: what the directory knows a repeat by."""

    def __repr__(self) -> str:
        return f"Change({self.request!r})"


class _Party(NamedTuple):
    """An institution whose line changes, in the role and the capacity of the line."""

    kbo: Kbo
    role: Role
    capacity: int


def changes(
    request: Request, verdict: Forward, answered: Collection[str], attempt: bytes, first: bytes
) -> list[Change]:
    """Return the changes that follow from a message.

    Args:
        request: The message.
        verdict: What the control said of it.
        answered: KBO numbers of the recipients that have it, in this attempt or an earlier one.
        attempt: Exchange id of this attempt.
        first: Exchange id of the first one.
    """
    if not answered:
        return []
    # Of a retry also whom the control would not put it to first today: they have it.
    reached = [found for found in verdict.destinations if found.kbo in answered]
    found = []
    for integration in verdict.service.integrations:
        for party in _parties(integration, request, verdict, reached):
            name = _encode((integration, party.kbo, party.role))
            made, noted = derived(attempt, name), derived(first, name)
            change = _request(integration, verdict, party, made)
            found.append(Change(change, made, noted))
    return found


def _parties(
    integration: Integration, request: Request, verdict: Forward, reached: list[Destination]
) -> Iterator[_Party]:
    """Whose lines change. A text that was checked names them."""
    declared = integration.capacity
    if integration.party is Party.SENDER:
        capacity = declared if declared is not None else request.capacity
        if verdict.role is not None and capacity is not None:
            yield _Party(verdict.acting, verdict.role, capacity)
        return
    for found in reached:
        known = found.line.capacity if found.line is not None else None
        capacity = declared if declared is not None else known
        if capacity is not None:
            yield _Party(found.kbo, found.role, capacity)


def _request(integration: Integration, verdict: Forward, party: _Party, exchange: bytes) -> Request:
    """The change as a message: its period is that of the message it follows from."""
    is_inscribed = integration.inscription is Inscription.INSCRIBE
    payload: dict[str, object] = {"what": "period"}
    if is_inscribed:
        payload = {"phase": integration.phase}
    return Request(
        id=0,
        service=INSCRIBE_SERVICE if is_inscribed else REMOVE_SERVICE,
        version=1,
        ticket=exchange.hex(),
        application=integration.application,
        sector=party.role.sector,
        type=party.role.type,
        capacity=party.capacity,
        member=party.kbo,
        person=verdict.person,
        begin=verdict.begin,
        end=None if verdict.end == OPEN else verdict.end,
        payload=_encode(payload),
    )


def derived(exchange: bytes, name: bytes) -> bytes:
    """Return the exchange id of what follows from an exchange: always the same, of the same time.

    A UUIDv7 with the time of the exchange, and in place of chance a hash of its id and the name.
    """
    digest = hashlib.sha256(b"ksz-integration" + exchange + name).digest()
    made = bytearray(exchange[:6] + digest[:10])
    made[6] = made[6] & 0x0F | _VERSION_7
    made[8] = made[8] & 0x3F | _VARIANT
    return bytes(made)
