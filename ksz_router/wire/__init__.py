"""The protocol, sans-I/O; ``docs/protocol.md`` is its specification."""

from ksz_router.wire.connection import Connection, LocalProtocolError, MessageTooLargeError
from ksz_router.wire.events import (
    VERSION,
    Bye,
    Drain,
    Ended,
    Event,
    Hello,
    Message,
    Ping,
    Pong,
    Speaker,
    Throttle,
    Welcome,
)
from ksz_router.wire.states import Side, State

__all__ = [
    "VERSION", "Bye", "Connection", "Drain", "Ended", "Event", "Hello", "LocalProtocolError",
    "Message", "MessageTooLargeError", "Ping", "Pong", "Side", "Speaker", "State", "Throttle",
    "Welcome",
]  # fmt: skip
