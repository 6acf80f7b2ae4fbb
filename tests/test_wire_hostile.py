"""What a hostile or broken peer sends: it ends its own connection and nothing else."""

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ksz_router import limits
from ksz_router.codes import Code
from ksz_router.messages import Request
from ksz_router.wire import Connection, Ended, Hello, Pong, Side
from tests.test_wire_vectors import CONVERSATIONS, KINDS, VALID, Vector, bye_code, opened, started

SIDES = st.sampled_from(Side)
MIB = 1 << 20


def assert_sound(connection: Connection, events: list[object]) -> None:
    """Whatever came: known events, an Ended at the end at most, and then a Bye if it was ours."""
    ends = [event for event in events if isinstance(event, Ended)]
    assert len(ends) <= 1
    assert all(type(event) in KINDS.values() for event in events if event not in ends)
    assert connection.is_ended == bool(ends)
    if ends:
        assert events[-1] is ends[0]
        sent = connection.data_to_send()
        if not ends[0].by_peer:
            assert bye_code(sent) == ends[0].code
        assert connection.receive_data(b"\0\0\0\x01\xc0") == []
        assert connection.receive_end() == []
        assert not connection.data_to_send()


@given(side=SIDES, is_open=st.booleans(), data=st.binary(max_size=200))
@settings(deadline=None, max_examples=1500)
def test_garbage_never_raises(side: Side, is_open: bool, data: bytes) -> None:  # noqa: FBT001
    """Random bytes, before and after a greeting."""
    connection = opened(side) if is_open else Connection(side, agent="", inflight_max=1)
    connection.data_to_send()

    assert_sound(connection, list(connection.receive_data(data)))


@given(side=SIDES, content=st.binary(min_size=1, max_size=60))
@settings(deadline=None, max_examples=1500)
@example(side=Side.FRONT, content=b"\x93\x07\x01\xa1\xff")
@example(side=Side.FRONT, content=b"\x93\x03\x01" + b"\x91" * 200_000 + b"\xc0")
@example(side=Side.FRONT, content=b"\x93\x03\x01" + b"\x81\xc0" * 200_000 + b"\xc0")
def test_garbage_in_whole_frames_never_raises(side: Side, content: bytes) -> None:
    """Random bytes that get as far as the decoder."""
    connection = opened(side)
    data = len(content).to_bytes(4, "big") + content

    assert_sound(connection, list(connection.receive_data(data)))


@given(
    talk=st.sampled_from(CONVERSATIONS),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 400),
)
@settings(deadline=None, max_examples=1500)
def test_a_conversation_with_bytes_changed_never_raises(
    talk: Vector, changes: list[tuple[int, int]], cut: int | None
) -> None:
    """Almost right is harder to refuse than plain garbage."""
    data = bytearray(b"".join(bytes.fromhex(step.get("hex", "")) for step in talk["steps"]))
    for offset, value in changes:
        data[offset % len(data)] = value
    if cut is not None:
        del data[cut % len(data)]
    connection = started(talk)
    connection.data_to_send()

    assert_sound(connection, list(connection.receive_data(bytes(data))))


@given(row=st.sampled_from(VALID), value=st.integers(0, 255), data=st.data())
@settings(deadline=None, max_examples=1500)
def test_a_message_with_one_byte_changed_never_raises(
    row: Vector, value: int, data: st.DataObject
) -> None:
    """Each field of each message, and the heads between them."""
    content = bytearray.fromhex(row["hex"])
    content[data.draw(st.integers(4, len(content) - 1))] = value
    connection = opened(Side[row["to"].upper()])

    assert_sound(connection, list(connection.receive_data(bytes(content))))


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("length", [0, limits.frame_bytes_max + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_judged_before_memory_is_taken(side: Side, length: int) -> None:
    """Four bytes are enough to be refused, and they cost four bytes."""
    connection = opened(side)

    tracemalloc.start()
    events = connection.receive_data(length.to_bytes(4, "big"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert events == [Ended(Code.FRAME_TOO_LARGE, by_peer=False)]
    assert peak < 16_384


def test_a_greeting_takes_no_more_than_a_greeting() -> None:
    """A peer that is not known yet cannot make us keep more than ``hello_bytes_max``."""
    connection = Connection(Side.FRONT, agent="", inflight_max=1)

    events = connection.receive_data((limits.hello_bytes_max + 1).to_bytes(4, "big"))

    assert events == [Ended(Code.FRAME_TOO_LARGE, by_peer=False)]


@pytest.mark.parametrize("head", ["dd", "df"])
def test_what_an_array_or_map_announces_takes_no_memory(head: str) -> None:
    """Four billion elements announced in a frame of thirty bytes."""
    row = next(row for row in VALID if row["name"] == "answer, refused, full")
    content = bytes.fromhex(row["hex"])[4:]
    at = content.index(b"\x80\xc0\xcd")  # the details, then no moment to retry at
    content = content[:at] + bytes.fromhex(head + "ffffffff") + content[at + 1 :]
    connection = opened(Side.REQUESTER)

    tracemalloc.start()
    events = connection.receive_data(len(content).to_bytes(4, "big") + content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert events == [Ended(Code.FRAME_MALFORMED, by_peer=False)]
    assert peak < 65_536


def test_a_frame_that_comes_in_small_pieces_costs_its_size_once() -> None:
    """The largest frame in a thousand pieces: the buffer holds it, and little more."""
    content = bytes([0x93, 3, 1, 0xC6]) + (MIB - 8).to_bytes(4, "big") + bytes(MIB - 8)
    data = len(content).to_bytes(4, "big") + content
    connection = opened(Side.FRONT)

    tracemalloc.start()
    for start in range(0, len(data), 1024):
        assert connection.receive_data(data[start : start + 1024]) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not connection.is_ended
    assert peak < 4 * MIB
    assert connection.frame_in_part is None


def test_what_still_waits_when_we_end_the_connection_is_never_taken() -> None:
    """Three messages in one piece, taken one by one: an end behind the first is the end."""
    connection = opened(Side.FRONT)
    pongs = b"\0\0\0\x03\x92\x04\x07" * 3

    assert connection.receive_data(pongs, events_max=1) == [Pong(7)]
    assert connection.has_more
    connection.end()

    assert not connection.has_more
    assert connection.receive_data(b"") == []


def test_pings_are_answered_one_for_one() -> None:
    """A flood of pings gets as many bytes back as it cost, never more."""
    connection = opened(Side.SOURCE)
    flood = b"\0\0\0\x03\x92\x03\x07" * 10_000

    assert connection.receive_data(flood) == []
    assert connection.data_to_send() == b"\0\0\0\x03\x92\x04\x07" * 10_000


def test_nothing_of_what_is_carried_shows_in_a_repr() -> None:
    """A log line with a message in it names no person, user, ticket or payload."""
    secret = ("85073099734", "00010199776", "85073099833", "00901234567", "TTTT", "T-000", "data")
    for row in VALID:
        if row["is"]["kind"] in ("Request", "Answer", "Delivery", "Reply"):
            connection = opened(Side[row["to"].upper()])
            (event,) = connection.receive_data(bytes.fromhex(row["hex"]))
            for text in (repr(event), str(event), f"{[event]}"):
                assert not any(word in text for word in secret)


def test_what_we_say_of_a_fault_repeats_nothing_of_it() -> None:
    """A Bye or an Ended never carries the peer's bytes back."""
    request = Request(id=1, service="s", version=1, ticket="85073099734", person="85073099734")
    sender = opened(Side.REQUESTER)
    sender.send(request)
    data = sender.data_to_send()
    for receiver in (opened(Side.REQUESTER), opened(Side.BACK), opened(Side.SOURCE)):
        (ended,) = receiver.receive_data(data)
        assert "85073099734" not in repr(ended)
        assert b"85073099734" not in receiver.data_to_send()


def test_the_bounds_of_the_greeting_hold_for_agent_and_window() -> None:
    """A peer's name for itself is cut at 64, and a window of less than one is taken as one."""
    connection = Connection(Side.REQUESTER, agent="a")
    welcome = next(row for row in VALID if row["name"] == "welcome, typical, full")
    content = bytearray.fromhex(welcome["hex"])
    content[-3:] = b"\x00"  # the window, of three bytes, becomes zero
    content[3] -= 2

    (event,) = connection.receive_data(bytes(content))

    assert type(event).__name__ == "Welcome"
    assert connection.inflight_max == 1
    front = Connection(Side.FRONT, agent="a", inflight_max=1)
    largest = next(row for row in VALID if row["name"].startswith("hello, as large"))
    (hello,) = front.receive_data(bytes.fromhex(largest["hex"]))
    assert isinstance(hello, Hello)
    assert front.peer_agent == "a" * limits.agent_chars_max


def test_unknown_trailing_elements_are_ignored_in_every_message() -> None:
    """What a later release appends does not trouble this one."""
    for tag, rest in ((3, [1]), (4, [1]), (5, [1]), (7, [1, ""])):
        plain = opened(Side.FRONT).receive_data(framed([tag, *rest]))
        later = opened(Side.FRONT).receive_data(framed([tag, *rest, "new", None, {"a": [1]}]))
        assert plain == later
        assert all(not isinstance(event, Ended) or event.by_peer for event in later)
    rows = {row["name"]: row for row in VALID}
    trailing = {row["is"]["kind"] for name, row in rows.items() if name.endswith("trailing")}
    assert trailing >= {"Hello", "Welcome", "Throttle", "Request", "Answer", "Delivery", "Reply"}


def framed(elements: list[object]) -> bytes:
    """A message of bare elements as a frame; small ones only."""
    content = bytes([0x90 | len(elements)])
    for element in elements:
        if isinstance(element, int):
            content += bytes([element])
        elif isinstance(element, str):
            content += bytes([0xA0 | len(element)]) + element.encode()
        else:
            content += {"NoneType": b"\xc0", "dict": b"\x81\xa1a\x91\x01"}[type(element).__name__]
    return len(content).to_bytes(4, "big") + content
