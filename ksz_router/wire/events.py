"""What may come out of a connection: the messages of the link itself, and how it ended.

The messages of an exchange stand in ``ksz_router.messages``. Tags below 16 are the link's.
"""

from enum import IntEnum, unique
from typing import TypeAlias

import msgspec

from ksz_router.codes import Code
from ksz_router.messages import Answer, Delivery, Envelope, Reply, Request

VERSION = 1
"""The one version of the protocol that this release speaks."""


@unique
class Speaker(IntEnum):
    """What the side that dials is."""

    REQUESTER = 1
    ROUTER = 2


class Hello(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=1, kw_only=True):
    """The first message of who dials."""

    versions: tuple[int, ...]
    speaker: Speaker
    agent: str
    frame_bytes_max: int
    """The largest frame the sender of this Hello takes."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=2, kw_only=True):
    """The answer to a Hello that suits."""

    version: int
    agent: str
    frame_bytes_max: int
    inflight_max: int
    """How many requests may be in flight on this connection."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=3):
    """Are you there? Answered with a Pong of the same number."""

    number: int


class Pong(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=4):
    """The answer to a Ping."""

    number: int


class Drain(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=5):
    """The sender takes nothing new on this connection; what is in flight is still answered."""

    seconds: int
    """How long it will stay."""


class Throttle(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=6):
    """A bound was reached, and requests beyond it are being refused."""

    code: int
    """Which bound, as the refusals say it."""
    limit: int
    retry_at_ms: int


class Bye(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag=7):
    """The last message of a side, with the reason."""

    code: int
    text: str = ""


class Ended(msgspec.Struct, frozen=True):
    """The connection is over. Not a message: it is what the engine makes of it."""

    code: Code
    by_peer: bool
    text: str = ""


LinkMessage: TypeAlias = Hello | Welcome | Ping | Pong | Drain | Throttle | Bye
Message: TypeAlias = LinkMessage | Request | Answer | Delivery | Reply | Envelope
Event: TypeAlias = LinkMessage | Request | Answer | Delivery | Reply | Ended
"""Requests come out as such, whether they came alone or in an envelope."""
