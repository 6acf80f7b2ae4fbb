"""Conversations with something changed in them: the engine takes whatever comes, and says why not.

``make fuzz`` does the same with another seed every day; here it is fixed.
"""

from random import Random

import pytest

from contrib.fuzz import engine, mutations
from ksz_router.codes import Code
from ksz_router.wire import Connection, Ended, Event, Ping, Side
from tests.test_wire_vectors import VALID, opened

COUNT = 25_000


@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_mutated_conversations_never_raise_and_end_with_a_reason(
    seed: int,
) -> None:
    """A quarter of them each time; every side, in whatever pieces."""
    ends = engine.run(COUNT, seed)

    assert ends.total() == COUNT
    for code in engine.OWN_FAULTS:
        assert ends[code.name.lower()] > COUNT / 500, f"hardly any mutant ends with {code.name}"
    assert ends["truncated"] > COUNT / 20, "many mutants must stay alive: their values are tried"


def test_the_same_seed_makes_the_same_mutant() -> None:
    """What was found once can be made again from the two numbers in the message."""
    talk = mutations.recorded()["front"][0]
    one, two = (mutations.mutant(Random("1/2"), talk, talk) for _ in range(2))

    assert one == two
    assert one != b"".join(talk)


@pytest.mark.parametrize(
    ("events", "sent"),
    [
        ([Ended(Code.FRAME_MALFORMED, by_peer=False)], b""),
        ([Ended(Code.FRAME_MALFORMED, by_peer=False)], b"\0\0\0\x04\x93\x07\x02\xa0"),
        ([Ended(Code.LOG_NOT_WRITABLE, by_peer=False)], b"\0\0\0\x04\x93\x07\x19\xa0"),
        ([Ended(Code.CLOSED_IN_PEACE, by_peer=True), Ping(1)], b""),
        ([Ping(1)], b""),
    ],
)
def test_the_judge_of_the_engine_sees_what_is_wrong(events: list[Event], sent: bytes) -> None:
    """No Bye, another code, a code that is not the engine's, an event too late or out of place."""
    is_ended = any(isinstance(event, Ended) for event in events)
    with pytest.raises((AssertionError, IndexError)):
        engine.judge(Side.FRONT, events, sent, is_ended=is_ended)


@pytest.mark.parametrize("name", ["request by path A, typical, full", "reply, typical, full"])
def test_every_trick_in_every_element_ends_typed(name: str) -> None:
    """Huge and negative numbers, NaN, digits of other scripts, NUL, newlines, deep nesting."""
    row = next(row for row in VALID if row["name"] == name)
    side = Side[row["to"].upper()]
    count = 0
    for content in mutations.with_every_trick(bytes.fromhex(row["hex"])):
        connection: Connection = opened(side)
        events = connection.receive_data(content)
        assert len(events) == 1
        sent = connection.data_to_send()
        assert connection.is_ended == bool(sent), "a Bye if it ended, and else nothing"
        count += 1
    assert count > 500
