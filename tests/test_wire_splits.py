"""However the bytes are cut on their way, they mean the same."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.wire import Connection, Ended, Event
from tests.test_wire_vectors import CONVERSATIONS, INVALID, Vector, built, opened, side_of, started

Outcome = tuple[list[Event], bytes]


def replay(talk: Vector, sizes: list[int]) -> Outcome:
    """Run a conversation with what comes in cut into pieces of ``sizes``, over and over."""
    connection = started(talk)
    events: list[Event] = []
    sent = connection.data_to_send()
    for step in talk["steps"]:
        match step["do"]:
            case "receive":
                events += feed(connection, bytes.fromhex(step["hex"]), sizes)
            case "receive_end":
                events += connection.receive_end()
            case "send":
                connection.send(built(step["message"]))
            case "end":
                connection.end()
        sent += connection.data_to_send()
    return events, sent


def feed(connection: Connection, data: bytes, sizes: list[int]) -> list[Event]:
    """Hand ``data`` over in pieces."""
    events: list[Event] = []
    start = turn = 0
    while start < len(data):
        stop = start + sizes[turn % len(sizes)]
        events += connection.receive_data(data[start:stop])
        start, turn = stop, turn + 1
    return events


@cache
def whole(name: str) -> Outcome:
    """What a conversation gives when nothing is cut."""
    return replay(named(name), [1 << 20])


@cache
def named(name: str) -> Vector:
    """The conversation of this name."""
    return next(talk for talk in CONVERSATIONS if talk["name"] == name)


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk["name"])
def test_one_cut_at_any_offset_changes_nothing(talk: Vector) -> None:
    """Every offset of every piece of every conversation, and byte by byte."""
    longest = max(len(step.get("hex", "")) // 2 for step in talk["steps"])
    stride = 1 if longest < 1000 else 61
    for offset in range(1, longest + 1, stride):
        assert replay(talk, [offset, 1 << 20]) == whole(talk["name"])
    assert replay(talk, [1]) == whole(talk["name"])


@given(
    name=st.sampled_from([talk["name"] for talk in CONVERSATIONS]),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=300)
def test_however_the_bytes_are_cut_the_events_are_the_same(name: str, sizes: list[int]) -> None:
    """Same events, same bytes to send, for any pattern of pieces."""
    assert replay(named(name), sizes) == whole(name)


@given(row=st.sampled_from(INVALID), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6))
@settings(deadline=None, max_examples=300)
def test_a_fault_is_the_same_fault_in_pieces(row: Vector, sizes: list[int]) -> None:
    """A broken peer learns the same code however its bytes arrive."""
    open_now = row["state"] == "open"
    side = side_of({"side": row["to"]})
    connection = opened(side) if open_now else Connection(side, agent="", inflight_max=1)

    events = feed(connection, bytes.fromhex(row["hex"]), sizes)

    assert len(events) == 1
    assert isinstance(events[0], Ended)
    assert events[0].code == row["code"]


def test_a_part_of_a_frame_is_seen_as_such() -> None:
    """The shell bounds how long a frame may stay begun; it must know that one is."""
    talk = named("one exchange, seen by the front")
    request = bytes.fromhex(talk["steps"][1]["hex"])
    connection = opened(side_of(talk))

    seen = []
    for offset in range(len(request)):
        connection.receive_data(request[offset : offset + 1])
        seen.append(connection.frame_in_part is not None)

    assert seen == [True] * (len(request) - 1) + [False]
