"""The test vectors of the protocol, replayed: bytes that the router's own encoder did not write."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.messages import Answer, Delivery, Envelope, Reply, Request
from ksz_router.wire import (
    Bye,
    Connection,
    Drain,
    Ended,
    Event,
    Hello,
    Message,
    Ping,
    Pong,
    Side,
    State,
    Throttle,
    Welcome,
)

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "vectors" / "wire"
Vector = dict[str, Any]

KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Hello, Welcome, Ping, Pong, Drain, Throttle, Bye, Request, Answer, Delivery, Reply,
        Envelope,
    )
}  # fmt: skip


def vectors(name: str) -> list[Vector]:
    """Return the vectors of one file."""
    rows: list[Vector] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return rows


VALID, INVALID, CONVERSATIONS = map(vectors, ("valid", "invalid", "conversations"))


def shown(event: Event) -> Vector:
    """Return an event as the vector files show it."""
    fields = msgspec.structs.asdict(event)
    rows = fields.pop("recipients", None)
    plain: Vector = {"kind": type(event).__name__}
    for name, value in fields.items():
        plain[name] = {"bytes": value.hex()} if isinstance(value, bytes) else value
    if rows is not None:
        plain["recipients"] = [list(msgspec.structs.astuple(row)) for row in rows]
    row: Vector = json.loads(json.dumps(plain))
    return row


def built(row: Vector) -> Message:
    """Return the message that a vector file shows; its fields stand in the order of the wire."""
    kind = KINDS[row["kind"]]
    values = {name: restored(value) for name, value in row.items() if name != "kind"}
    if kind is Envelope:
        items = [msgspec.Raw(msgspec.msgpack.encode(item)) for item in values["requests"]]
        return Envelope(**(values | {"requests": tuple(items)}))
    return msgspec.convert([kind.__struct_config__.tag, *values.values()], kind)


def restored(value: Any) -> Any:
    """Return a value that a vector file shows, its bytes as bytes."""
    if isinstance(value, list):
        return [restored(part) for part in value]
    is_bytes = isinstance(value, dict) and value.keys() == {"bytes"}
    return bytes.fromhex(value["bytes"]) if is_bytes else value


def opened(side: Side) -> Connection:
    """Return a connection that has just been greeted, with nothing left to send."""
    talk = next(t for t in CONVERSATIONS if t["name"].startswith("one") and side_of(t) is side)
    connection = started(talk)
    for step in talk["steps"]:
        if step["do"] == "receive":
            connection.receive_data(bytes.fromhex(step["hex"]))
            break
    assert connection.state is State.OPEN
    connection.data_to_send()
    return connection


def side_of(row: Vector) -> Side:
    """Return the side from which a conversation is seen."""
    return Side[row["side"].upper()]


def started(talk: Vector) -> Connection:
    """Return the connection with which a conversation begins."""
    return Connection(side_of(talk), agent=talk["agent"], inflight_max=talk["inflight_max"])


def bye_code(sent: bytes) -> int:
    """Return the code of the Bye that is the last frame of ``sent``."""
    rest, last = sent, b""
    while rest:
        length = int.from_bytes(rest[:4], "big")
        last, rest = rest[4 : 4 + length], rest[4 + length :]
    elements = msgspec.msgpack.decode(last)
    assert elements[0] == Bye.__struct_config__.tag
    return int(elements[1])


def received(row: Vector) -> tuple[Connection, list[Event]]:
    """Feed the bytes of a single-frame vector to whom they are for."""
    side = Side[row["to"].upper()]
    greets = row["state"] == "greeting" if "state" in row else _greets(row)
    connection = Connection(side, agent="", inflight_max=1) if greets else opened(side)
    connection.data_to_send()
    return connection, connection.receive_data(bytes.fromhex(row["hex"]))


def _greets(row: Vector) -> bool:
    return row["is"]["kind"] in ("Hello", "Welcome")


@pytest.mark.parametrize("row", VALID, ids=lambda row: row["name"])
def test_a_valid_frame_means_what_its_vector_says(row: Vector) -> None:
    """Every field arrives, whatever form of MessagePack carried it and whatever came behind."""
    connection, events = received(row)

    if row["is"]["kind"] == "Bye":
        assert events == [Ended(Code(row["is"]["code"]), by_peer=True, text=row["is"]["text"])]
    else:
        assert [shown(event) for event in events] == row.get("gives", [row["is"]])
        assert not connection.is_ended


@pytest.mark.parametrize("row", [r for r in VALID if r["canonical"]], ids=lambda row: row["name"])
def test_our_encoder_writes_the_bytes_of_the_vector(row: Vector) -> None:
    """Two encoders that know nothing of each other write the same bytes."""
    assert msgspec.msgpack.encode(built(row["is"])) == bytes.fromhex(row["hex"])[4:]


@pytest.mark.parametrize("row", INVALID, ids=lambda row: row["name"])
def test_a_fault_of_the_peer_ends_the_connection_with_its_code(row: Vector) -> None:
    """One Ended comes out, one Bye goes out, and both say why."""
    connection, events = received(row)

    assert [type(event) for event in events] == [Ended]
    ended = events[0]
    assert isinstance(ended, Ended)
    assert (ended.code, ended.by_peer) == (Code(row["code"]), False)
    assert bye_code(connection.data_to_send()) == row["code"]
    assert connection.receive_data(bytes.fromhex(row["hex"])) == []


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk["name"])
def test_a_conversation_goes_as_its_vector_says(talk: Vector) -> None:
    """Step by step: what comes in, what it means, and what goes out."""
    connection = started(talk)
    for step in talk["steps"]:
        events: list[Event] = []
        match step["do"]:
            case "receive":
                events = connection.receive_data(bytes.fromhex(step["hex"]))
            case "receive_end":
                events = connection.receive_end()
            case "send":
                connection.send(built(step["message"]))
            case "end":
                connection.end(Code(step["code"]))
        assert_events(events, step.get("events", []))
        sent = connection.data_to_send()
        if "bye" in step:
            assert bye_code(sent) == step["bye"]
        else:
            assert sent.hex() == step["sends"]


def assert_events(events: list[Event], expected: list[Vector]) -> None:
    """Compare; what we say about a peer's fault is for people, so its text is left out."""
    plain = [shown(event) for event in events]
    for event in plain:
        if event["kind"] == "Ended" and not event["by_peer"]:
            event["text"] = ""
    assert plain == expected


def test_every_vector_has_a_name_of_its_own_and_says_where_it_is_from() -> None:
    """A vector that nobody can trace cannot be judged when it fails."""
    for rows in (VALID, INVALID, CONVERSATIONS):
        names = [row["name"] for row in rows]
        assert len(set(names)) == len(names)
        assert all(row["origin"] for row in rows)
    assert len(VALID) + len(INVALID) + len(CONVERSATIONS) >= 110
    assert {row["is"]["kind"] for row in VALID} | {"Ping"} == set(KINDS)


def test_the_vector_files_are_as_their_script_writes_them() -> None:
    """Nobody mends a vector by hand and leaves the script behind."""
    script = ROOT / "contrib" / "vectors.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_script_of_the_vectors_does_not_know_the_router() -> None:
    """Otherwise the vectors would test our encoder with our encoder."""
    for name in ("vectors.py", "vector_bytes.py", "vector_talks.py"):
        text = (ROOT / "contrib" / name).read_text(encoding="utf-8")
        assert "import ksz_router" not in text
        assert "from ksz_router" not in text
        assert "msgspec" not in text
