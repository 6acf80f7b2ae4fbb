"""Serve the directory of a secondary network that we keep: the router asks, we say yes or no.

    async def knows(question: Asked) -> bool:
        return await our_directory.holds(question)

    provider = Provider(identity, router_uris={ROUTER}, services={...}, sectoral=knows)

Nothing but that goes back: no line, no date, no name. ``docs/sdk.md`` says what is asked.
"""

from collections.abc import Awaitable, Callable

import msgspec

from ksz_router.identifiers import Kbo
from ksz_router.messages import Delivery
from ksz_router.model import OPEN, Day, Role


class Sought(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a question says beside its envelope: its payload, a MessagePack map."""

    institution: Kbo
    """About which: it must be known there for this one."""
    roles: tuple[Role, ...]
    """In one of these."""
    capacities: tuple[int, ...] = ()
    """In one of these; empty: in any."""
    provisional: bool = False
    """Of any capacity, whether a provisional inscription (902) counts."""
    phase: int = 0
    """In this phase or a later one."""
    whole: bool = False
    """On every day of the period, by one line or several; else on one day of it at least."""


class Asked(msgspec.Struct, frozen=True):
    """A question, as a handler gets it."""

    person: str
    """The INSZ in use."""
    begin: Day
    end: Day
    """The period, both days included; without end ``OPEN``."""
    client: Kbo
    """The institution on whose request it is asked."""
    exchange: bytes
    sought: Sought

    def __repr__(self) -> str:
        return f"Asked(about {self.sought.institution})"


Knows = Callable[[Asked], Awaitable[bool]]
"""Says whether our directory knows the person. A fault, or no answer in time, is *unavailable*."""

_decode = msgspec.msgpack.Decoder(Sought).decode
encode = msgspec.msgpack.Encoder().encode


def asked(delivery: Delivery) -> Asked:
    """Read a question.

    Raises:
        ValueError: it is none that this release knows.
    """
    if delivery.person is None or delivery.final_client is None:
        raise ValueError("a question names a person, and for whom it is asked")
    return Asked(
        person=delivery.person,
        begin=delivery.begin,
        end=OPEN if delivery.end is None else delivery.end,
        client=Kbo(delivery.final_client),
        exchange=delivery.exchange,
        sought=_decode(delivery.payload),
    )
