"""Write ``tests/vectors/wire/``: frames and conversations of the protocol, as bytes.

``docs/protocol.md``, "Test vectors", explains the files. The output is the same on every run.

    python contrib/vectors.py            # write the files
    python contrib/vectors.py --check    # say whether the files are what would be written
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from contrib import vector_bytes as v
from contrib.vector_bytes import Fields, body, frame, message, pack, shown
from contrib.vector_talks import conversations

FOLDER = Path(__file__).parents[1] / "tests" / "vectors" / "wire"
FORMS = {
    "full": "every element written, smallest MessagePack forms",
    "short": "trailing elements that have their default left out",
    "wide": "every element written, widest MessagePack forms",
    "trailing": "eight unknown elements behind the known ones",
}
TO = {
    "Hello": "front",
    "Request": "front",
    "Envelope": "front",
    "Delivery": "source",
    "Reply": "back",
}
"""Who receives a message in the vectors; the requester where nothing stands here."""


def valid() -> Iterator[Fields]:
    """Messages that are taken, each alone in a frame."""
    for name, kind, given, to in _messages():
        for form, how in FORMS.items():
            if form == "full" or name.endswith("typical"):
                yield {
                    "name": f"{name}, {form}",
                    "origin": f"section {kind}; {how}",
                    "to": to or TO.get(kind, "requester"),
                    "hex": frame(body(kind, given, form=form)).hex(),
                    "is": shown(kind, given),
                    "canonical": form == "full",
                }
    for name, kind, given in (
        ("request, least", "Request", v.LEAST),
        ("delivery, least", "Delivery", v.DELIVERY_LEAST),
        ("reply, least", "Reply", {"id": 1, "outcome": 1}),
        ("bye without text", "Bye", {"code": 24}),
    ):
        yield {
            "name": f"{name}, short", "origin": f"section {kind}; {FORMS['short']}",
            "to": TO.get(kind, "requester"), "hex": frame(body(kind, given, form="short")).hex(),
            "is": shown(kind, given), "canonical": False,
        }  # fmt: skip
    yield from _envelopes()


def _envelopes() -> Iterator[Fields]:
    """Several requests in one frame, with the Requests that they are."""
    test = ["TestConnectionService", 1]
    alone = {"id": 0, "requests": [test], "ticket": "t"}
    twice = {"id": 1, "requests": [test, [*test, *[None] * 5, "T-2"]], "ticket": "T-1"}
    many = {"id": 0xFFFFFFC0, "requests": [test] * 64, "ticket": "t"}
    shared = {name: value for name, value in v.MOST.items() if name in v.MESSAGES["Envelope"][1]}
    own = {name: value for name, value in v.MOST.items() if name in v.ITEM}
    most = shared | {"requests": [v.item(**own)]}
    by_framework = {
        "id": 1, "application": "00901234567", "kbo": v.REQUESTER,
        "legal_framework": "PCSA:SOCIAL_INQUIRY",
        "requests": [
            v.item(service="s", version=1, enterprise=v.SOURCE, source=v.SOURCE, ticket="T-1"),
            v.item(service="s", version=1, end=20261231, ticket="T-2"),
        ],
    }  # fmt: skip
    later = v.ENVELOPE | {"requests": [[*v.ITEMS[0], None, 7, "later", [1, [2]], -1.5], ["s", 1]]}
    good, *_ = v.ITEMS
    mixed = [part for bad in v.UNREADABLE_ITEMS for part in (bad, good)]
    for name, given, forms in (
        ("envelope, typical", v.ENVELOPE, FORMS),
        ("envelope of one, least", alone, ("full", "short")),
        ("envelope, the example of its section", twice, ("short",)),
        ("envelope of 64, up to the last id", many, ("full",)),
        ("envelope, every field at its bound", most, ("full",)),
        ("envelope by path B, each with its ticket", by_framework, ("full", "wide")),
        ("envelope, unknown elements in an item", later, ("full",)),
        ("envelope, of which every other item cannot be read", v.ENVELOPE | {"requests": mixed},
         ("full", "wide")),
    ):  # fmt: skip
        for form in forms:
            yield {
                "name": f"{name}, {form}", "origin": f"section Envelope; {FORMS[form]}",
                "to": "front", "hex": frame(body("Envelope", given, form=form)).hex(),
                "is": shown("Envelope", given), "gives": v.gives(given),
                "canonical": form == "full",
            }  # fmt: skip


def _messages() -> Iterator[tuple[str, str, Fields, str]]:
    hello, welcome = v.HELLO, v.WELCOME
    yield "hello, typical", "Hello", hello, ""
    yield "hello of a router to a source", "Hello", v.ROUTER_HELLO, "source"
    yield "hello of a newer peer", "Hello", hello | {"versions": [3, 2, 1]}, ""
    yield "hello, least", "Hello", hello | {"agent": "", "frame_bytes_max": 4096}, ""
    yield "hello, as large as it may be", "Hello", hello | {"agent": "a" * 4083}, ""
    yield "welcome, typical", "Welcome", welcome, ""
    yield "welcome of a source", "Welcome", v.SOURCE_WELCOME, "back"
    yield "welcome, least", "Welcome", welcome | {"agent": "", "frame_bytes_max": 4096}, ""
    for number in (0, 127, 128, 256, 1 << 16, 1 << 32, (1 << 64) - 1):
        yield f"pong {number}", "Pong", {"number": number}, ""
    yield "drain, typical", "Drain", {"seconds": 30}, ""
    yield "drain at once, by a requester", "Drain", {"seconds": 0}, "front"
    throttle = {"code": 22, "limit": 4096, "retry_at_ms": 1790000000123}
    yield "throttle, typical", "Throttle", throttle, ""
    yield "request by path A, typical", "Request", v.PATH_A, ""
    yield "request by path B, typical", "Request", v.PATH_B, ""
    yield "request, least", "Request", v.LEAST, ""
    yield "request, every field at its bound", "Request", v.MOST, ""
    yield "answer, typical", "Answer", v.ANSWER, ""
    yield "answer, refused", "Answer", v.REFUSED, ""
    yield "answer, replaced number, typical", "Answer", v.REPLACED, ""
    yield "answer, deceased", "Answer", v.DECEASED, ""
    yield "answer, window full", "Answer", v.FULL, ""
    yield "answer to a distribution, typical", "Answer", v.DISTRIBUTED, ""
    many = {f"field{n}": "x" * n for n in range(15)}
    yield "answer, fifteen details", "Answer", v.REFUSED | {"detail": many}, ""
    yield "answer of a code of tomorrow", "Answer", v.REFUSED | {"code": 4999}, ""
    yield "delivery, typical", "Delivery", v.DELIVERY, ""
    yield "delivery, least", "Delivery", v.DELIVERY_LEAST, ""
    repeat = {"repeat": True, "legal_framework": "PCSA:SOCIAL_INQUIRY", "member": v.MEMBER}
    yield "delivery, repeated", "Delivery", v.DELIVERY | repeat, ""
    of_enterprise = {"enterprise": v.SOURCE, "person": None, "end": None}
    yield "delivery about an enterprise", "Delivery", v.DELIVERY | of_enterprise, ""
    yield "reply, typical", "Reply", v.REPLY, ""
    yield "reply without data", "Reply", v.REPLY | {"outcome": 1, "payload": b""}, ""
    yield "reply in part", "Reply", v.REPLY | {"outcome": 2, "persons": [v.OTHER, v.USER]}, ""
    yield "reply, failed", "Reply", v.REPLY | {"outcome": 3, "source_code": "E" * 16}, ""


def invalid() -> Iterator[Fields]:
    """Bytes that end a connection, and the code of the Bye that says why."""
    for name, to, state, content, code in (*_faults(), *_greeting_faults()):
        yield {
            "name": name, "origin": "section Broken peers", "to": to, "state": state,
            "hex": content.hex(), "code": code,
        }  # fmt: skip
    allowed = {
        ("front", "greeting"): {"Hello", "Bye"},
        ("requester", "greeting"): {"Welcome", "Bye"},
        ("source", "greeting"): {"Hello", "Bye"},
        ("back", "greeting"): {"Welcome", "Bye"},
        ("front", "open"): {"Ping", "Pong", "Drain", "Bye", "Request", "Envelope"},
        ("requester", "open"): {"Ping", "Pong", "Drain", "Bye", "Answer", "Throttle"},
        ("source", "open"): {"Ping", "Pong", "Drain", "Bye", "Delivery"},
        ("back", "open"): {"Ping", "Pong", "Drain", "Bye", "Reply"},
    }
    one_of_each: dict[str, Fields] = {
        "Hello": v.HELLO, "Welcome": v.WELCOME, "Ping": {"number": 1}, "Pong": {"number": 1},
        "Drain": {"seconds": 1}, "Throttle": {"code": 22, "limit": 1, "retry_at_ms": 1},
        "Request": v.LEAST, "Answer": v.REFUSED, "Delivery": v.DELIVERY_LEAST, "Reply": v.REPLY,
        "Envelope": v.ENVELOPE,
    }  # fmt: skip
    for (to, state), kinds in allowed.items():
        for kind in sorted(one_of_each.keys() - kinds):
            yield {
                "name": f"{kind} to {to}, {state}", "origin": "section Order, its table",
                "to": to, "state": state, "hex": message(kind, one_of_each[kind]).hex(), "code": 4,
            }  # fmt: skip


def _faults() -> Iterator[tuple[str, str, str, bytes, int]]:
    """Name, who receives it, in which state, the bytes, and the code it ends with."""
    for name, length in (("zero", 0), ("one over the bound", v.MIB + 1), ("ones", 0xFFFFFFFF)):
        yield f"length {name}", "front", "open", struct.pack(">I", length), 2
    yield "length over the bound of a greeting", "front", "greeting", struct.pack(">I", 4097), 2
    yield "the letters GET", "front", "greeting", b"GET / HTTP/1.1\r\n\r\n", 2
    yield "a TLS record in the frame", "front", "greeting", bytes.fromhex("1603010200010001fc"), 2
    for name, content in (
        ("the one unused byte of MessagePack", b"\xc1"),
        ("nil", pack(None)),
        ("an integer", pack(1)),
        ("a map", pack({"kind": 3})),
        ("an empty array", pack([])),
        ("an unknown tag", pack([8, 1])),
        ("an unknown tag of an exchange", pack([21, 1])),
        ("a tag below zero", pack([-1, 1])),
        ("a tag that is text", pack(["3", 1])),
        ("a tag that is nil", pack([None, 1])),
        ("a tag that is a float", pack([3.0, 1])),
        ("an element too few", pack([3])),
        ("an integer as a float", pack([3, 1.0])),
        ("an integer as true", pack([3, True])),
        ("nil for an integer", pack([3, None])),
        ("a byte behind the message", pack([3, 1]) + b"\x00"),
        ("a second message in the frame", pack([3, 1]) * 2),
        ("a message cut short", pack([3, 1 << 40])[:-1]),
        ("an array of four billion announced", b"\xdd\xff\xff\xff\xff\x03\x01"),
        ("text of four gigabytes announced", b"\x93\x07\x01\xdb\xff\xff\xff\xff"),
        ("text that is no UTF-8", b"\x93\x07\x01\xa1\xff"),
        ("text as bytes", b"\x93\x07\x01\xc4\x01a"),
        ("an unknown element nested too deep", b"\x93\x03\x01" + b"\x91" * 20_000 + b"\xc0"),
    ):
        yield name, "front", "open", frame(content), 3
    for name, kind, given in (
        ("a person as an integer", "Request", v.PATH_A | {"person": int(v.PERSON)}),
        ("a payload as text", "Request", v.PATH_A | {"payload": "TI 001"}),
        ("a capacity as text", "Request", v.PATH_A | {"capacity": "2"}),
        ("a service as nil", "Request", v.PATH_A | {"service": None}),
        ("an id below zero", "Request", v.PATH_A | {"id": -1}),
        ("an id above 32 bits", "Request", v.PATH_A | {"id": 1 << 32}),
    ):
        yield name, "front", "open", message(kind, given), 3
    yield from _envelope_faults()
    for name, kind, given in (
        ("details as an array", "Answer", v.REFUSED | {"detail": ["newSSIN", v.OTHER]}),
        ("a detail that is no text", "Answer", v.REFUSED | {"detail": {"limit": 1024}}),
        ("a recipient without code", "Answer", v.REFUSED | {"recipients": [[v.SOURCE]]}),
        ("an exchange id as text", "Answer", v.REFUSED | {"exchange": "0192f5d2"}),
    ):
        yield name, "requester", "open", message(kind, given), 3
    yield "groups as text", "source", "open", message("Delivery", v.DELIVERY | {"groups": "a"}), 3
    yield "repeat as 1", "source", "open", message("Delivery", v.DELIVERY | {"repeat": 1}), 3
    yield "an outcome of tomorrow", "back", "open", message("Reply", v.REPLY | {"outcome": 4}), 3


def _envelope_faults() -> Iterator[tuple[str, str, str, bytes, int]]:
    """What concerns the envelope itself ends the connection; what concerns one item does not."""
    one = ["s", 1]
    changes: tuple[tuple[str, Fields], ...] = (
        ("no requests", {"requests": []}),
        ("65 requests", {"requests": [one] * 65}),
        ("requests as nil", {"requests": None}),
        ("requests as a map", {"requests": {"s": 1}}),
        ("ids past 32 bits", {"requests": [one] * 2, "id": 0xFFFFFFFF}),
        ("64 ids past 32 bits", {"requests": [one] * 64, "id": 0xFFFFFFC1}),
        ("an id past 32 bits", {"id": 1 << 32}),
        ("an id below zero", {"id": -1}),
        ("a ticket as nil", {"ticket": None}),
        ("a user as an integer", {"user": int(v.USER)}),
        ("a sector as text", {"sector": "17"}),
        ("an item with the one unused byte", {"requests": [v.ITEMS[0], v.Encoded(b"\xc1")]}),
        ("an item nested too deep", {"requests": [v.Encoded(b"\x91" * 20_000 + b"\xc0")]}),
    )
    for name, given in changes:
        content = message("Envelope", v.ENVELOPE | given)
        yield f"envelope: {name}", "front", "open", content, 3
    yield "envelope: without requests", "front", "open", frame(pack([20, 1])), 3
    yield "envelope: an item cut short", "front", "open", frame(b"\x93\x14\x01\x91\x92\xa1s"), 3
    announced = b"\x93\x14\x01\xdd\xff\xff\xff\xff"
    yield "envelope: four billion requests announced", "front", "open", frame(announced), 3


def _greeting_faults() -> Iterator[tuple[str, str, str, bytes, int]]:
    hello, welcome = v.HELLO, v.WELCOME
    hellos: tuple[tuple[str, Fields, int], ...] = (
        ("a speaker of tomorrow", {"speaker": 3}, 3),
        ("a router where a requester belongs", {"speaker": 2}, 4),
        ("no version", {"versions": []}, 5),
        ("only versions of tomorrow", {"versions": [2, 3]}, 5),
        ("frames that are too small for a greeting", {"frame_bytes_max": 4095}, 2),
    )
    for name, given, code in hellos:
        yield f"hello: {name}", "front", "greeting", message("Hello", hello | given), code
    yield "hello: a requester to a source", "source", "greeting", message("Hello", hello), 4
    welcomes: tuple[tuple[str, Fields, int], ...] = (
        ("a version that was not offered", {"version": 2}, 5),
        ("frames that are too small for a greeting", {"frame_bytes_max": 0}, 2),
    )
    for name, given, code in welcomes:
        yield f"welcome: {name}", "requester", "greeting", message("Welcome", welcome | given), code


def main(arguments: list[str]) -> int:
    """Write or check the files."""
    tables = {"valid": valid, "invalid": invalid, "conversations": conversations}
    stale = []
    for name, table in tables.items():
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table())
        text, file = f"[\n{rows}\n]\n", FOLDER / f"{name}.json"
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file.name)
    if stale:
        print("not as contrib/vectors.py writes them:", *stale, file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
