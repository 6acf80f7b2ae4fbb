"""Who may send what, and when: the protocol's order as a table.

A connection has two sides. ``REQUESTER`` dials a ``FRONT``; a ``BACK`` dials a ``SOURCE``. The
router is ``FRONT`` towards requesters and ``BACK`` towards sources. What a side may receive is
what its peer may send.
"""

from enum import Enum, auto

from ksz_router.messages import Answer, Delivery, Envelope, Reply, Request
from ksz_router.wire.events import (
    Bye,
    Drain,
    Hello,
    Message,
    Ping,
    Pong,
    Speaker,
    Throttle,
    Welcome,
)


class Side(Enum):
    """Which end of which kind of connection."""

    REQUESTER = auto()
    FRONT = auto()
    BACK = auto()
    SOURCE = auto()


class State(Enum):
    """How far a connection is."""

    GREETING = auto()
    OPEN = auto()
    ENDED = auto()


PEER = {
    Side.REQUESTER: Side.FRONT,
    Side.FRONT: Side.REQUESTER,
    Side.BACK: Side.SOURCE,
    Side.SOURCE: Side.BACK,
}

SPEAKER = {Side.REQUESTER: Speaker.REQUESTER, Side.BACK: Speaker.ROUTER}
"""What a dialling side calls itself in its Hello."""

_ALWAYS: frozenset[type[Message]] = frozenset({Ping, Pong, Drain, Bye})

MAY_SEND: dict[tuple[Side, State], frozenset[type[Message]]] = {
    (Side.REQUESTER, State.GREETING): frozenset({Hello, Bye}),
    (Side.FRONT, State.GREETING): frozenset({Welcome, Bye}),
    (Side.BACK, State.GREETING): frozenset({Hello, Bye}),
    (Side.SOURCE, State.GREETING): frozenset({Welcome, Bye}),
    (Side.REQUESTER, State.OPEN): _ALWAYS | {Request, Envelope},
    (Side.FRONT, State.OPEN): _ALWAYS | {Answer, Throttle},
    (Side.BACK, State.OPEN): _ALWAYS | {Delivery},
    (Side.SOURCE, State.OPEN): _ALWAYS | {Reply},
    (Side.REQUESTER, State.ENDED): frozenset(),
    (Side.FRONT, State.ENDED): frozenset(),
    (Side.BACK, State.ENDED): frozenset(),
    (Side.SOURCE, State.ENDED): frozenset(),
}

_HEEDED: frozenset[type[Message]] = frozenset({Hello, Welcome, Ping, Bye, Envelope})

PASSED_ON = {which: messages - _HEEDED for which, messages in MAY_SEND.items()}
"""Of those, what comes out at the other end as it came, without a word of the engine's own."""

assert set(MAY_SEND) == {(side, state) for side in Side for state in State}
