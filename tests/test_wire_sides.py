"""The two ends of a connection together, and what we may not do ourselves."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router import limits
from ksz_router.codes import Code
from ksz_router.messages import Answer, Delivery, Envelope, Item, Outcome, Reply, Request
from ksz_router.wire import (
    Bye,
    Connection,
    Drain,
    Ended,
    Event,
    Hello,
    LocalProtocolError,
    Message,
    MessageTooLargeError,
    Ping,
    Pong,
    Side,
    Speaker,
    State,
    Throttle,
    Welcome,
)
from ksz_router.wire.envelopes import packed
from ksz_router.wire.states import MAY_SEND, PEER
from tests.test_wire_vectors import KINDS, opened

ONE_OF_EACH: dict[type[Message], Message] = {
    Hello: Hello(versions=(1,), speaker=Speaker.REQUESTER, agent="", frame_bytes_max=4096),
    Welcome: Welcome(version=1, agent="", frame_bytes_max=4096, inflight_max=1),
    Ping: Ping(1),
    Pong: Pong(1),
    Drain: Drain(1),
    Throttle: Throttle(code=22, limit=1, retry_at_ms=1),
    Bye: Bye(1),
    Request: Request(id=1, service="s", version=1, ticket="t"),
    Answer: Answer(
        id=1, exchange=b"", code=21, stage=0, official="", status="", action=3, generation=""
    ),
    Delivery: Delivery(
        id=1, exchange=b"", service="s", version=1, requester="", begin=20260101, deadline_ms=1
    ),
    Reply: Reply(id=1, outcome=Outcome.NO_DATA),
    Envelope: Envelope(id=1, requests=(packed(Item(service="s", version=1)),), ticket="t"),
}
PAIRS = [(Side.REQUESTER, Side.FRONT), (Side.BACK, Side.SOURCE)]


class Wire:
    """Two engines and nothing between them but bytes."""

    def __init__(self, dialling: Side, accepting: Side) -> None:
        self.ends = {
            dialling: Connection(dialling, agent="dialling"),
            accepting: Connection(accepting, agent="accepting", inflight_max=8),
        }
        self.events: dict[Side, list[Event]] = {side: [] for side in self.ends}

    def carry(self) -> None:
        """Carry bytes both ways until nothing moves."""
        moved = True
        while moved:
            moved = False
            for side, end in self.ends.items():
                data = end.data_to_send()
                if data:
                    moved = True
                    self.events[PEER[side]] += self.ends[PEER[side]].receive_data(data)


def at(side: Side, state: State) -> Connection:
    """Return a connection in that state, reached the way it is reached in life."""
    connection = Connection(side, agent="", inflight_max=1)
    if state is State.GREETING:
        connection.data_to_send()
        return connection
    connection = opened(side)
    if state is State.ENDED:
        connection.end()
        connection.data_to_send()
    return connection


@pytest.mark.parametrize(("dialling", "accepting"), PAIRS)
def test_two_engines_greet_each_other(dialling: Side, accepting: Side) -> None:
    """A Hello arrives at one end and a Welcome at the other, and both are open."""
    wire = Wire(dialling, accepting)
    wire.carry()

    assert [type(event) for event in wire.events[accepting]] == [Hello]
    assert [type(event) for event in wire.events[dialling]] == [Welcome]
    assert {end.state for end in wire.ends.values()} == {State.OPEN}
    assert wire.ends[dialling].inflight_max == 8
    assert wire.ends[dialling].peer_agent == "accepting"
    assert wire.ends[accepting].peer_agent == "dialling"


@pytest.mark.parametrize(("dialling", "accepting"), PAIRS)
def test_whatever_one_end_may_send_the_other_takes(dialling: Side, accepting: Side) -> None:
    """The table holds for both ends: nothing that may be sent is refused."""
    for side, peer in ((dialling, accepting), (accepting, dialling)):
        for kind in sorted(MAY_SEND[side, State.OPEN] - {Bye}, key=lambda kind: kind.__name__):
            wire = Wire(dialling, accepting)
            wire.carry()
            wire.ends[side].send(ONE_OF_EACH[kind])
            wire.carry()
            arrived = wire.events[peer][1:]
            if kind is Ping:
                assert arrived == []
                assert wire.events[side][1:] == [Pong(1)]
            else:  # a request comes out as such, however it came
                came_as = Request if kind is Envelope else kind
                assert arrived == [ONE_OF_EACH[came_as]]


@pytest.mark.parametrize(("dialling", "accepting"), PAIRS)
def test_a_local_end_is_a_bye_at_the_other_side(dialling: Side, accepting: Side) -> None:
    """Both ends know that it is over, and why, and who said so."""
    wire = Wire(dialling, accepting)
    wire.carry()
    wire.ends[accepting].end(Code.ROUTER_DRAINING)
    wire.ends[accepting].end(Code.PEER_SILENT)
    wire.carry()

    assert wire.events[dialling][1:] == [Ended(Code.ROUTER_DRAINING, by_peer=True)]
    assert all(end.is_ended for end in wire.ends.values())
    assert wire.ends[accepting].receive_end() == []


@pytest.mark.parametrize("two", list(product(Side, repeat=2)), ids=str)
def test_only_ends_that_belong_together_get_open(two: tuple[Side, Side]) -> None:
    """Any two sides wired together: they are peers, or neither gets open."""
    first, second = (Connection(side, agent="", inflight_max=1) for side in two)
    for _ in range(3):
        second.receive_data(first.data_to_send())
        first.receive_data(second.data_to_send())

    is_open = {first.state is State.OPEN, second.state is State.OPEN}
    assert is_open == {PEER[two[0]] is two[1]}


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", ONE_OF_EACH, ids=lambda kind: kind.__name__)
def test_only_what_the_table_allows_can_be_sent(
    side: Side, state: State, kind: type[Message]
) -> None:
    """A fault of our own is an exception, at once, and leaves nothing half sent."""
    connection = at(side, state)

    if kind in MAY_SEND[side, state]:
        connection.send(ONE_OF_EACH[kind])
        assert connection.data_to_send()
    else:
        with pytest.raises(LocalProtocolError):
            connection.send(ONE_OF_EACH[kind])
        assert connection.data_to_send() == b""


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", [State.GREETING, State.OPEN])
@pytest.mark.parametrize("kind", ONE_OF_EACH, ids=lambda kind: kind.__name__)
def test_only_what_the_table_allows_is_taken(side: Side, state: State, kind: type[Message]) -> None:
    """The same table from the other end: what the peer may not send ends the connection."""
    content = bytes(_frame(ONE_OF_EACH[kind]))
    events = at(side, state).receive_data(content)

    ours = [event for event in events if isinstance(event, Ended) and not event.by_peer]
    if kind not in MAY_SEND[PEER[side], state]:
        assert [event.code for event in ours] == [Code.MESSAGE_UNEXPECTED]
    elif kind is not Hello or side is Side.FRONT:
        assert ours == []


def _frame(message: Message) -> bytearray:
    """A frame of any message, in a direction of no account."""
    for side, state in MAY_SEND:
        if type(message) in MAY_SEND[side, state] and state is not State.ENDED:
            connection = at(side, state)
            connection.send(message)
            return bytearray(connection.data_to_send())
    raise AssertionError(message)


def test_every_message_may_be_sent_by_someone() -> None:
    """The table leaves no message without a use, and knows none that does not exist."""
    assert set().union(*MAY_SEND.values()) == set(KINDS.values()) == set(ONE_OF_EACH)


def test_a_message_beyond_the_peers_frame_is_not_queued() -> None:
    """What was queued before it still goes, and the next one too."""
    connection = opened(Side.REQUESTER)
    small = Request(id=1, service="s", version=1, ticket="t")
    connection.send(small)
    large = Request(id=2, service="s", version=1, ticket="t", payload=bytes(limits.frame_bytes_max))

    with pytest.raises(MessageTooLargeError):
        connection.send(large)
    connection.send(small)

    once = bytes(_frame(small))
    assert connection.data_to_send() == once * 2


def test_the_largest_payload_fits_around_the_largest_header() -> None:
    """``payload_bytes_max`` leaves room, also for an answer with every list full."""
    text = "0" * limits.detail_chars_max
    rows = tuple(("0999999922", 10001, "x" * 16) for _ in range(limits.recipients_max))
    fields: dict[str, Any] = {
        "detail": {f"{n:02}{text[2:]}": text for n in range(limits.details_max)},
        "persons": ("85073099734",) * limits.further_persons_max,
        "payload": bytes(limits.payload_bytes_max),
    }
    answer = Answer(
        id=2**32 - 1, exchange=bytes(16), code=10003, stage=10, official="HAN20200",
        status="INCOMPLETE_DATA", action=3, generation="0" * 64, retry_at_ms=2**53,
        router_us=2**32, source_us=2**32, recipients=rows, **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    connection = opened(Side.FRONT)
    connection.send(answer)
    data = connection.data_to_send()

    (event,) = opened(Side.REQUESTER).receive_data(data)
    assert isinstance(event, Answer)
    assert len(event.payload) == limits.payload_bytes_max
    assert len(event.recipients) == limits.recipients_max


def test_a_peer_that_takes_little_gets_little() -> None:
    """The bound that a Hello states holds for what is sent back."""
    small = ONE_OF_EACH[Hello]
    front = Connection(Side.FRONT, agent="", inflight_max=1)
    front.receive_data(bytes(_frame(small)))
    front.data_to_send()
    fields: dict[str, Any] = {"stage": 10, "official": "", "status": "", "generation": ""}

    with pytest.raises(MessageTooLargeError):
        front.send(Answer(id=1, exchange=b"", code=10001, action=0, payload=bytes(4096), **fields))
    front.send(Answer(id=1, exchange=b"", code=10001, action=0, payload=bytes(4000), **fields))


@pytest.mark.parametrize(
    "broken",
    [
        Request(id=1, service="\ud800", version=1, ticket="t"),
        Request(id=2**64, service="s", version=1, ticket="t"),
        Request(id=1, service="s", version=1, ticket="t", payload=object()),  # type: ignore[arg-type]
    ],
    ids=["lone surrogate", "an id beyond 64 bits", "no bytes at all"],
)
def test_a_message_that_cannot_be_encoded_leaves_nothing_behind(broken: Request) -> None:
    """Half a frame would make the peer take the next message for garbage."""
    connection = opened(Side.REQUESTER)
    connection.send(Ping(1))

    with pytest.raises(LocalProtocolError) as caught:
        connection.send(broken)
    connection.send(Ping(2))

    assert connection.data_to_send() == bytes(_frame(Ping(1)) + _frame(Ping(2)))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the library's error holds the whole text"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
days = st.none() | st.integers(19000101, 99991231)
requests = st.builds(
    Request, id=st.integers(0, 2**32 - 1), service=texts, version=st.integers(0, 9999),
    ticket=texts, user=st.none() | texts, means=texts, level=st.integers(0, 4),
    sector=st.none() | st.integers(0, 999), capacity=st.none() | st.integers(0, 999),
    legal_framework=st.none() | texts, person=st.none() | texts, begin=days, end=days,
    deadline_ms=st.integers(0, 60_000), payload=st.binary(max_size=400),
)  # fmt: skip
replies = st.builds(
    Reply, id=st.integers(0, 2**32 - 1), outcome=st.sampled_from(Outcome),
    person=st.none() | texts, persons=st.lists(texts, max_size=5).map(tuple), source_code=texts,
    payload=st.binary(max_size=400),
)  # fmt: skip


@given(sent=st.lists(requests, max_size=6), back=st.lists(replies, max_size=6))
@settings(deadline=None, max_examples=150)
def test_what_goes_in_at_one_end_comes_out_at_the_other(
    sent: list[Request], back: list[Reply]
) -> None:
    """Any fields, in order, none lost and none changed."""
    for dialling, accepting, sender, messages in (
        (Side.REQUESTER, Side.FRONT, Side.REQUESTER, sent),
        (Side.BACK, Side.SOURCE, Side.SOURCE, back),
    ):
        wire = Wire(dialling, accepting)
        wire.carry()
        for message in messages:
            wire.ends[sender].send(message)
        wire.carry()
        assert wire.events[PEER[sender]][1:] == list(messages)
