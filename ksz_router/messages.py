"""What travels: the messages of an exchange. ``docs/protocol.md`` explains every field.

A struct is its wire form: a MessagePack array whose first element is the tag. A field may be
added at the end, with a default; none may be moved, renamed in meaning, or removed. No ``repr``
here shows a person, a ticket or a payload.
"""

from enum import IntEnum, unique
from typing import Annotated

import msgspec

from ksz_router.limits import envelope_requests_max
from ksz_router.model import Day

Correlation = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
"""Chosen by who asks; unique among what is in flight on a connection."""


class Request(
    msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=16, kw_only=True, gc=False
):
    """What a requester asks. Exactly one of ``capacity`` and ``legal_framework`` is given."""

    id: Correlation
    service: str
    version: int
    ticket: str
    user: str | None = None
    application: str | None = None
    means: str = ""
    level: int = 0
    kbo: str | None = None
    sector: int | None = None
    type: int | None = None
    capacity: int | None = None
    legal_framework: str | None = None
    member: str | None = None
    final_client: str | None = None
    person: str | None = None
    enterprise: str | None = None
    begin: Day | None = None
    end: Day | None = None
    source: str | None = None
    deadline_ms: int = 0
    payload: bytes = b""
    unchanged: bool = False
    """It says again what was said before; who subscribed to changes is left out."""

    def __repr__(self) -> str:
        return f"Request(id={self.id}, service={self.service!r}, version={self.version})"


class Item(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """One request of an :class:`Envelope`: what it does not share with the others."""

    service: str
    version: int
    person: str | None = None
    enterprise: str | None = None
    begin: Day | None = None
    end: Day | None = None
    source: str | None = None
    ticket: str = ""
    """Its own reference; empty: the envelope's."""
    payload: bytes = b""
    unchanged: bool = False

    def __repr__(self) -> str:
        return f"Item(service={self.service!r}, version={self.version})"


class Envelope(
    msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=20, kw_only=True
):
    """Several requests in one message, with what they share (SSDN ``RequestContext``) said once.

    It means what its requests would mean one after the other, and each is answered by itself.
    """

    id: Correlation
    """Of the first request; the others follow, by one each."""
    requests: Annotated[
        tuple[msgspec.Raw, ...], msgspec.Meta(min_length=1, max_length=envelope_requests_max)
    ]
    """An :class:`Item` each, in MessagePack: read one by one, so that none can spoil another."""
    ticket: str = ""
    user: str | None = None
    application: str | None = None
    means: str = ""
    level: int = 0
    kbo: str | None = None
    sector: int | None = None
    type: int | None = None
    capacity: int | None = None
    legal_framework: str | None = None
    member: str | None = None
    final_client: str | None = None
    deadline_ms: int = 0

    def __repr__(self) -> str:
        return f"Envelope(id={self.id}, requests={len(self.requests)})"


class RecipientStatus(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one recipient of a distribution, or the asked source, did."""

    kbo: str
    code: int
    source_code: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=17, gc=False):
    """What the requester gets, exactly once per request."""

    id: Correlation
    exchange: bytes
    code: int
    stage: int
    official: str
    status: str
    action: int
    generation: str
    detail: dict[str, str] = {}
    retry_at_ms: int | None = None
    router_us: int = 0
    source_us: int = 0
    recipients: tuple[RecipientStatus, ...] = ()
    persons: tuple[str, ...] = ()
    """Further persons whom the answer concerns, as its source declared them."""
    payload: bytes = b""

    def __repr__(self) -> str:
        return f"Answer(id={self.id}, code={self.code})"


class Addressed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first fields of a :class:`Delivery`, to which it adds those that are named when made.

    A call with more than fifteen keywords costs Python three times as much: these go by place.
    """

    id: Correlation
    exchange: bytes
    service: str
    version: int
    requester: str
    sector: int | None = None
    type: int | None = None
    capacity: int | None = None
    legal_framework: str | None = None
    member: str | None = None
    final_client: str | None = None
    person: str | None = None
    enterprise: str | None = None


class Delivery(Addressed, frozen=True, tag_field="kind", tag=18, kw_only=True, gc=False):
    """A checked and recorded request, on its way to a source."""

    begin: Day
    end: Day | None = None
    grant: str = ""
    groups: tuple[str, ...] = ()
    repeat: bool = False
    deadline_ms: int
    payload: bytes = b""

    def __repr__(self) -> str:
        return f"Delivery(id={self.id}, service={self.service!r}, version={self.version})"


@unique
class Outcome(IntEnum):
    """What a source says of a delivery."""

    DATA = 0
    NO_DATA = 1
    IN_PART = 2
    FAILED = 3

    __hash__ = int.__hash__  # an Enum's own is written in Python


class Reply(
    msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=19, kw_only=True, gc=False
):
    """What a source answers. ``person`` repeats the delivery's, and is compared."""

    id: Correlation
    outcome: Outcome
    person: str | None = None
    persons: tuple[str, ...] = ()
    user: str | None = None
    application: str | None = None
    source_code: str = ""
    payload: bytes = b""

    def __repr__(self) -> str:
        return f"Reply(id={self.id}, outcome={self.outcome.name})"
