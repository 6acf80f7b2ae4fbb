"""Several requests in one message: what was well formed comes out as if it had come alone."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router import limits
from ksz_router.codes import Code
from ksz_router.messages import Envelope, Item, Request
from ksz_router.wire import Connection, Ended, Event, Side
from ksz_router.wire.envelopes import packed
from tests.test_wire_vectors import opened

ID_MAX = 0xFFFF_FFFF

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.none() | st.integers(0, 999)
days = st.none() | st.integers(19000101, 99991231)
contexts = st.fixed_dictionaries(
    {
        "ticket": texts, "user": st.none() | texts, "application": st.none() | texts,
        "means": texts, "level": st.integers(0, 4), "kbo": st.none() | texts, "sector": numbers,
        "type": numbers, "capacity": numbers, "legal_framework": st.none() | texts,
        "member": st.none() | texts, "final_client": st.none() | texts,
        "deadline_ms": st.integers(0, 60_000),
    }
)  # fmt: skip
items = st.builds(
    Item, service=texts, version=st.integers(0, 65_535), person=st.none() | texts,
    enterprise=st.none() | texts, begin=days, end=days, source=st.none() | texts, ticket=texts,
    payload=st.binary(max_size=40),
)  # fmt: skip
rubbish = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
broken_texts = st.sampled_from([b"\x92\xa1\xff\x01", b"\x93\xa1s\x01\xa2\xc3\x28", b"\xa1\xff"])


def as_item(value: Any) -> Item | None:
    """What an item is on the wire; None where the value has not the form of one."""
    try:
        return msgspec.convert(value, Item)
    except msgspec.ValidationError:
        return None


def alone(number: int, shared: dict[str, Any], item: Item | None) -> Request:
    """The request that an item means; without a name of a service where it could not be read."""
    own = {"service": "", "version": 0} if item is None else msgspec.structs.asdict(item)
    ticket = own.get("ticket") or shared["ticket"]
    return Request(**(shared | own | {"id": number, "ticket": ticket}))


def take(front: Connection, envelope: Envelope) -> list[Event]:
    """Let an envelope travel from a requester to a front."""
    requester = opened(Side.REQUESTER)
    requester.send(envelope)
    return front.receive_data(requester.data_to_send())


@given(
    first=st.integers(0, ID_MAX - 63),
    shared=contexts,
    parts=st.lists(items | rubbish | broken_texts.map(msgspec.Raw), min_size=1, max_size=64),
)
@settings(deadline=None, max_examples=200)
def test_an_item_that_cannot_be_read_leaves_the_others_as_they_are(
    first: int, shared: dict[str, Any], parts: list[Any]
) -> None:
    """Anything in place of some items: the good ones come out unchanged, each under its id."""
    raws, expected = [], []
    for number, part in enumerate(parts, first):
        raws.append(msgspec.Raw(msgspec.msgpack.encode(part)))
        item = part if isinstance(part, Item) else as_item(part)
        expected.append(alone(number, shared, None if isinstance(part, msgspec.Raw) else item))
    front = opened(Side.FRONT)

    events = take(front, Envelope(id=first, requests=tuple(raws), **shared))

    assert events == expected
    assert not front.is_ended


@given(parts=st.lists(items.map(packed) | st.binary(max_size=30).map(msgspec.Raw), max_size=70))
@settings(deadline=None, max_examples=200)
def test_random_bytes_among_the_items_never_raise(parts: list[msgspec.Raw]) -> None:
    """Bytes that are no value spoil the frame, and then nothing of it comes out."""
    front = opened(Side.FRONT)

    events = take(front, Envelope(id=1, requests=tuple(parts)))

    if front.is_ended:
        assert events == [Ended(Code.FRAME_MALFORMED, by_peer=False)]
    else:
        assert [event.id for event in events if isinstance(event, Request)] == list(
            range(1, len(events) + 1)
        )


@pytest.mark.parametrize("count", [0, 1, 64, 65])
@pytest.mark.parametrize("last", [ID_MAX, ID_MAX + 1])
def test_one_to_sixty_four_requests_with_ids_that_exist(count: int, last: int) -> None:
    """The bound is taken, and one beyond it ends the connection before room is made."""
    one = packed(Item(service="s", version=1))
    front = opened(Side.FRONT)
    envelope = Envelope(id=min(ID_MAX, last - max(count, 1) + 1), requests=(one,) * count)

    events = take(front, envelope)

    if count in (1, 64) and last == ID_MAX:
        ids = [event.id for event in events if isinstance(event, Request)]
        assert ids == list(range(ID_MAX - count + 1, ID_MAX + 1))
    elif count == 1:  # the one id there is, since no larger one can be written
        assert [type(event) for event in events] == [Request]
    else:
        assert events == [Ended(Code.FRAME_MALFORMED, by_peer=False)]


def test_a_million_items_cost_no_memory_before_they_are_refused() -> None:
    """The number is judged before any item is looked at."""
    content = b"\x93\x14\x01\xdd" + (1_000_000).to_bytes(4, "big") + b"\xc0" * 1_000_000
    data = len(content).to_bytes(4, "big") + content
    front = opened(Side.FRONT)

    tracemalloc.start()
    events = front.receive_data(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert events == [Ended(Code.FRAME_MALFORMED, by_peer=False)]
    assert peak < 2 * limits.frame_bytes_max


def drained(connection: Connection, data: bytes) -> Iterator[list[Event]]:
    """What comes out call by call, until there is no more."""
    yield connection.receive_data(data)
    while connection.has_more:
        yield connection.receive_data(b"")


@given(
    counts=st.lists(st.integers(1, 64), min_size=1, max_size=30),
    singles=st.integers(0, 600),
    end=st.sampled_from(
        [b"", b"\0\0\0\4\x93\7\1\xa0", b"\0\0\0\1\xc1", b"\0\0\0\0", b"\0\0\0\7abc"]
    ),
    cut=st.integers(1, 9_000),
)
@settings(deadline=None, max_examples=50)
def test_a_flood_of_requests_comes_out_in_portions_and_whole(
    counts: list[int], singles: int, end: bytes, cut: int
) -> None:
    """A few bytes mean thousands of requests; none is lost, and what is behind them comes last."""
    requester = opened(Side.REQUESTER)
    number = 0
    for count in counts:
        requester.send(Envelope(id=number, requests=(msgspec.Raw(b"\xc0"),) * count))
        number += count
    for single in range(number, number + singles):
        requester.send(Request(id=single, service="", version=0, ticket=""))
    data = requester.data_to_send() + end
    front = opened(Side.FRONT)
    portions = [*drained(front, data[:cut]), *drained(front, data[cut:])]

    most = limits.events_per_receive_max + limits.envelope_requests_max
    assert max(map(len, portions)) < most
    events = [event for portion in portions for event in portion]
    ids = [event.id for event in events if isinstance(event, Request)]
    assert ids == list(range(number + singles))
    ended = [event for event in events if isinstance(event, Ended)]
    assert ended == events[len(ids) :]
    assert len(ended) == front.is_ended == (end not in (b"", b"\0\0\0\7abc"))
    if not ended:
        assert (front.frame_in_part is not None) == (end == b"\0\0\0\7abc")


def test_the_requests_keep_no_frame_alive() -> None:
    """Small requests out of a frame of a megabyte weigh what they weigh."""
    small = packed(Item(service="s", version=1, payload=b"x" * 100))
    large = msgspec.Raw(b"\xc6" + (1_000_000).to_bytes(4, "big") + bytes(1_000_000))
    requester, front = opened(Side.REQUESTER), opened(Side.FRONT)
    requester.send(Envelope(id=1, requests=(*[small] * 63, large), ticket="t"))
    data = requester.data_to_send()
    assert len(data) > 1_000_000

    tracemalloc.start()
    events = front.receive_data(data)
    del data
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(events) == 64
    assert held < 65_536


def test_what_the_requests_share_is_held_once() -> None:
    """Sixty-four requests with a text of half a megabyte in common hold it together."""
    one = packed(Item(service="s", version=1))
    events = take(
        opened(Side.FRONT), Envelope(id=1, requests=(one,) * 64, legal_framework="x" * 500_000)
    )

    assert len({id(event.legal_framework) for event in events if isinstance(event, Request)}) == 1


def test_an_envelope_shows_neither_persons_nor_tickets_nor_payloads() -> None:
    """Nor do its items, nor the requests that it gives."""
    item = Item(service="s", version=1, person="85073099734", ticket="T-0009", payload=b"TI 001")
    envelope = Envelope(id=1, requests=(packed(item),), ticket="T-0009", user="85073099833")
    for shown in (item, envelope, *take(opened(Side.FRONT), envelope)):
        for text in (repr(shown), str(shown), f"{[shown]}"):
            assert not any(word in text for word in ("8507309", "T-0009", "TI 001"))
