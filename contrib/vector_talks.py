"""Conversations of the protocol as one side sees them, bytes and meaning: for ``vectors.py``."""

from collections.abc import Iterator

from contrib import vector_bytes as v
from contrib.vector_bytes import Fields, frame, message, shown


class Talk:
    """One conversation as one side sees it: what comes, what it makes of it, what it sends."""

    def __init__(self, side: str, name: str, inflight_max: int = 0) -> None:
        self.side, self.name, self.inflight_max = side, name, inflight_max
        self.steps: list[Fields] = []

    def receive(self, content: bytes, *events: Fields, sends: bytes = b"", bye: int = 0) -> None:
        self.steps.append(
            {"do": "receive", "hex": content.hex(), "events": events, "sends": sends.hex()}
            | ({"bye": bye} if bye else {})
        )

    def send(self, kind: str, given: Fields) -> None:
        sends = message(kind, given).hex()
        self.steps.append({"do": "send", "message": shown(kind, given), "sends": sends})

    def greet(self) -> None:
        """The greeting of this side with its counterpart."""
        hello = v.HELLO if self.side in ("requester", "front") else v.ROUTER_HELLO
        welcome = v.WELCOME if self.side in ("requester", "front") else v.SOURCE_WELCOME
        if self.side in ("requester", "back"):
            self.steps.append({"do": "start", "sends": message("Hello", hello).hex()})
            self.receive(message("Welcome", welcome), shown("Welcome", welcome))
        else:
            self.inflight_max = welcome["inflight_max"]
            sends = message("Welcome", welcome)
            self.receive(message("Hello", hello), shown("Hello", hello), sends=sends)

    def row(self) -> Fields:
        agents = {"requester": "stranger/1.0", "source": "register/3"}
        return {
            "name": self.name, "origin": "sections Order and Greeting", "side": self.side,
            "agent": agents.get(self.side, "ksz-router"), "inflight_max": self.inflight_max,
            "steps": self.steps,
        }  # fmt: skip


def ended(code: int, *, by_peer: bool, text: str = "") -> Fields:
    return {"kind": "Ended", "code": code, "by_peer": by_peer, "text": text}


def conversations() -> Iterator[Fields]:
    """Whole conversations, each seen from one side."""
    for build in (*_exchanges(), *_envelopes(), *_endings(), *_refused_greetings()):
        yield build.row()


def _exchanges() -> Iterator[Talk]:
    for side, own, own_given, peer, peer_given in (
        ("requester", "Request", v.PATH_A, "Answer", v.ANSWER),
        ("front", "Answer", v.ANSWER, "Request", v.PATH_A),
        ("back", "Delivery", v.DELIVERY, "Reply", v.REPLY),
        ("source", "Reply", v.REPLY, "Delivery", v.DELIVERY),
    ):
        asks = side in ("requester", "back")
        talk = Talk(side, f"one exchange, seen by the {side}")
        talk.greet()
        if asks:
            talk.send(own, own_given)
        talk.receive(message(peer, peer_given), shown(peer, peer_given))
        if not asks:
            talk.send(own, own_given)
        talk.receive(message("Bye", {"code": 1}), ended(1, by_peer=True))
        yield talk
        talk = Talk(side, f"pings among other messages, seen by the {side}")
        talk.greet()
        talk.send("Ping", {"number": 7})
        ping = message("Ping", {"number": (1 << 64) - 1})
        pong = message("Pong", {"number": 7})
        talk.receive(
            ping + message(peer, peer_given) + pong + ping,
            shown(peer, peer_given),
            shown("Pong", {"number": 7}),
            sends=message("Pong", {"number": (1 << 64) - 1}) * 2,
        )
        talk.steps.append({"do": "end", "code": 1, "events": [], "bye": 1})
        yield talk
    talk = Talk("front", "three requests in one read, answered in another order")
    talk.greet()
    requests = [v.PATH_A | {"id": number} for number in (5, 6, 7)]
    read = b"".join(message("Request", given) for given in requests)
    talk.receive(read, *(shown("Request", given) for given in requests))
    for number in (7, 5, 6):
        talk.send("Answer", v.ANSWER | {"id": number})
    yield talk
    talk = Talk("requester", "throttled, drained, answered, and a Bye")
    talk.greet()
    talk.send("Request", v.PATH_A)
    for kind, given in (
        ("Throttle", {"code": 22, "limit": 4096, "retry_at_ms": 1790000000123}),
        ("Answer", v.FULL),
        ("Drain", {"seconds": 30}),
        ("Answer", v.ANSWER),
    ):
        talk.receive(message(kind, given), shown(kind, given))
    goodbye = {"code": 24, "text": "reconnect"}
    talk.receive(message("Bye", goodbye), ended(24, by_peer=True, text="reconnect"))
    yield talk
    talk = Talk("front", "a frame over the greeting's bound right behind the greeting", 1024)
    large = v.PATH_A | {"payload": bytes(5000)}
    talk.receive(
        message("Hello", v.HELLO) + message("Request", large),
        shown("Hello", v.HELLO),
        shown("Request", large),
        sends=message("Welcome", v.WELCOME),
    )
    yield talk


def _envelopes() -> Iterator[Talk]:
    together = v.ENVELOPE | {"requests": [v.ITEMS[0], None, v.ITEMS[1]]}
    talk = Talk("front", "an envelope whose second item cannot be read, answered in another order")
    talk.greet()
    talk.receive(message("Envelope", together), *v.gives(together))
    for number in (11, 9, 10):
        talk.send("Answer", v.ANSWER | {"id": number})
    yield talk
    talk = Talk("requester", "an envelope, answered one by one")
    talk.greet()
    talk.send("Envelope", v.ENVELOPE)
    for number in (10, 9):
        answer = v.ANSWER | {"id": number}
        talk.receive(message("Answer", answer), shown("Answer", answer))
    yield talk
    talk = Talk("front", "an envelope among other messages, in one read")
    talk.greet()
    asked, ping = message("Request", v.PATH_A), message("Ping", {"number": 7})
    talk.receive(
        asked + message("Envelope", v.ENVELOPE) + ping + asked,
        shown("Request", v.PATH_A),
        *v.gives(v.ENVELOPE),
        shown("Request", v.PATH_A),
        sends=message("Pong", {"number": 7}),
    )
    yield talk
    talk = Talk("front", "an envelope with an item whose text is no UTF-8")
    talk.greet()
    spoilt = v.ENVELOPE | {"requests": [v.Encoded(b"\x92\xa1\xff\x01"), v.ITEMS[1]]}
    read = v.ENVELOPE | {"requests": [None, v.ITEMS[1]]}
    talk.receive(message("Envelope", spoilt), *v.gives(read))
    yield talk
    talk = Talk("front", "an envelope whose ids run past 32 bits, behind a good request")
    talk.greet()
    beyond = message("Envelope", v.ENVELOPE | {"id": 0xFFFFFFFF})
    ends = ended(3, by_peer=False)
    talk.receive(asked + beyond + asked, shown("Request", v.PATH_A), ends, bye=3)
    yield talk


def _endings() -> Iterator[Talk]:
    asked = message("Request", v.PATH_A)
    for name, content, code in (
        ("a bad frame behind a good one", asked + frame(b"\xc1") + asked, 3),
        ("a message out of place behind a good one", asked + message("Hello", v.HELLO) + asked, 4),
        ("a length of zero behind a good one", asked + bytes(4) + asked, 2),
    ):
        talk = Talk("front", f"{name}, and nothing after it counts")
        talk.greet()
        talk.receive(content, shown("Request", v.PATH_A), ended(code, by_peer=False), bye=code)
        talk.receive(asked)
        yield talk
    for name, rest in (("between frames", b""), ("inside a frame", asked[:-1])):
        talk = Talk("front", f"truncated {name}")
        talk.greet()
        talk.receive(rest)
        talk.steps.append({"do": "receive_end", "events": [ended(9, by_peer=True)], "sends": ""})
        yield talk
    talk = Talk("front", "bytes behind a Bye, and the end of bytes after it, mean nothing")
    talk.greet()
    talk.receive(message("Bye", {"code": 1}) + asked, ended(1, by_peer=True))
    talk.steps.append({"do": "receive_end", "events": [], "sends": ""})
    yield talk
    talk = Talk("requester", "a Bye of a code of tomorrow, with a text that is cut at 256")
    talk.greet()
    talk.receive(
        message("Bye", {"code": 99, "text": "x" * 300}), ended(1, by_peer=True, text="x" * 256)
    )
    yield talk


def _refused_greetings() -> Iterator[Talk]:
    hello = message("Hello", v.HELLO)
    talk = Talk("requester", "the Hello is refused")
    talk.steps.append({"do": "start", "sends": hello.hex()})
    refusal = {"code": 5, "text": "spoken here: 2"}
    talk.receive(message("Bye", refusal), ended(5, by_peer=True, text="spoken here: 2"))
    yield talk
    talk = Talk("front", "only versions of tomorrow are offered", 1024)
    newer = message("Hello", v.HELLO | {"versions": [2, 3]})
    talk.receive(newer + hello, ended(5, by_peer=False), bye=5)
    yield talk
    talk = Talk("front", "cut inside the greeting", 1024)
    talk.receive(hello[:9])
    talk.steps.append({"do": "receive_end", "events": [ended(9, by_peer=True)], "sends": ""})
    yield talk
