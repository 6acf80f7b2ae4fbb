"""Mutated conversations into the engine of the protocol: it never raises and always says why.

What must hold of whatever came, however it was cut:

- nothing is raised;
- what comes out is what the peer of this side may send in this state, of the right types, and it
  says the same once it was written and read again;
- the connection is over exactly if an Ended came out, which is then the last; if the fault is the
  peer's, a Bye with the same code waits to be sent, and nothing more comes out afterwards;
- the same bytes in other pieces give the same events.
"""

from collections import Counter
from random import Random

import msgspec

from contrib.fuzz import mutations
from ksz_router.codes import Code
from ksz_router.wire import (
    Bye,
    Connection,
    Ended,
    Event,
    Hello,
    Message,
    Ping,
    Pong,
    Side,
    State,
    Welcome,
)
from ksz_router.wire.states import MAY_SEND, PEER

_message = msgspec.msgpack.Decoder(Message)
_encode = msgspec.msgpack.encode

OWN_FAULTS = {
    Code.FRAME_TOO_LARGE, Code.FRAME_MALFORMED, Code.MESSAGE_UNEXPECTED, Code.VERSION_NOT_SPOKEN,
}  # fmt: skip


def run(count: int, seed: int) -> Counter[str]:
    """Feed so many mutants to the engines; return how each ended.

    Raises:
        AssertionError: something above does not hold. The message names seed and number.
    """
    talks = mutations.recorded()
    pool = [frame for side in talks.values() for talk in side for frame in talk]
    sides = list(Side)
    ends: Counter[str] = Counter()
    for number in range(count):
        random = Random(f"{seed}/{number}")
        side = sides[number % len(sides)]
        data = mutations.mutant(random, random.choice(talks[side.name.lower()]), pool)
        pieces = mutations.cut(random, data)
        try:
            ends[_feed(side, data, pieces)] += 1
        except Exception as error:
            raise AssertionError(f"mutant {number} of seed {seed}: {error!r}") from error
    return ends


def _feed(side: Side, data: bytes, pieces: list[bytes]) -> str:
    connection = Connection(side, agent="fuzz", inflight_max=1)
    connection.data_to_send()
    events: list[Event] = []
    for piece in pieces:
        events += _received(connection, piece)
    sent = connection.data_to_send()
    judge(side, events, sent, is_ended=connection.is_ended)
    if len(pieces) > 1:
        whole = Connection(side, agent="fuzz", inflight_max=1)
        whole.data_to_send()
        assert _encoded(_received(whole, data)) == _encoded(events), "the pieces matter"
        assert whole.data_to_send() == sent, "the pieces matter to what is sent"
    if not connection.is_ended:
        (ended,) = connection.receive_end()
        assert ended == Ended(Code.CONNECTION_TRUNCATED, by_peer=True), ended
        return "truncated"
    assert connection.receive_data(data) == [], "something came out after the end"
    assert connection.receive_end() == [], "a second end"
    assert connection.data_to_send() == b"", "something is said after the end"
    last = events[-1]
    assert isinstance(last, Ended)
    return "bye" if last.by_peer else last.code.name.lower()


def _received(connection: Connection, data: bytes) -> list[Event]:
    """What bytes mean, all portions of it."""
    events = connection.receive_data(data)
    while connection.has_more:
        events += connection.receive_data(b"")
    return events


def judge(side: Side, events: list[Event], sent: bytes, *, is_ended: bool) -> None:
    """Assert what must hold of the events of one connection, from its beginning."""
    state = State.GREETING
    for at, event in enumerate(events):
        if isinstance(event, Ended):
            assert at == len(events) - 1, "an event behind the end"
            break
        assert type(event) in MAY_SEND[PEER[side], state], f"{type(event).__name__} in {state}"
        assert not isinstance(event, Ping | Bye), "the engine keeps these to itself"
        if isinstance(event, Hello | Welcome):
            state = State.OPEN
        body = _encode(event)
        assert _encode(_message.decode(body)) == body, "not what a message says"
    last = events[-1] if events else None
    assert is_ended == isinstance(last, Ended), "the state says otherwise"
    messages = [_message.decode(frame[4:]) for frame in mutations.frames_of(sent)]
    if isinstance(last, Ended) and not last.by_peer:
        assert last.code in OWN_FAULTS, last.code
        bye = messages.pop()
        assert isinstance(bye, Bye), "a fault without a Bye"
        assert bye.code == last.code, "another reason than the event's"
    assert all(isinstance(said, Pong | Welcome) for said in messages), "only pongs and a greeting"


def _encoded(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(type(event).__name__, _encode(event)) for event in events]
