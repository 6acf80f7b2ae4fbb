"""The messages of the protocol as bytes, built without the router: for ``vectors.py``.

It knows ``docs/protocol.md`` and the MessagePack specification, and imports nothing of
``ksz_router``: the encoder below is written anew, so that a fault in the router's own encoder
cannot hide behind the same fault in its decoder.
"""

import struct
from typing import Any

REQUIRED = object()
Fields = dict[str, Any]

# docs/protocol.md, "Messages": tag, then the elements in their order with their defaults.
MESSAGES: dict[str, tuple[int, Fields]] = {
    "Hello": (1, {
        "versions": REQUIRED, "speaker": REQUIRED, "agent": REQUIRED, "frame_bytes_max": REQUIRED,
    }),
    "Welcome": (2, {
        "version": REQUIRED, "agent": REQUIRED, "frame_bytes_max": REQUIRED,
        "inflight_max": REQUIRED,
    }),
    "Ping": (3, {"number": REQUIRED}),
    "Pong": (4, {"number": REQUIRED}),
    "Drain": (5, {"seconds": REQUIRED}),
    "Throttle": (6, {"code": REQUIRED, "limit": REQUIRED, "retry_at_ms": REQUIRED}),
    "Bye": (7, {"code": REQUIRED, "text": ""}),
    "Request": (16, {
        "id": REQUIRED, "service": REQUIRED, "version": REQUIRED, "ticket": REQUIRED,
        "user": None, "application": None, "means": "", "level": 0, "kbo": None, "sector": None,
        "type": None, "capacity": None, "legal_framework": None, "member": None,
        "final_client": None, "person": None, "enterprise": None, "begin": None, "end": None,
        "source": None, "deadline_ms": 0, "payload": b"", "unchanged": False,
    }),
    "Answer": (17, {
        "id": REQUIRED, "exchange": REQUIRED, "code": REQUIRED, "stage": REQUIRED,
        "official": REQUIRED, "status": REQUIRED, "action": REQUIRED, "generation": REQUIRED,
        "detail": {}, "retry_at_ms": None, "router_us": 0, "source_us": 0, "recipients": [],
        "persons": [], "payload": b"",
    }),
    "Delivery": (18, {
        "id": REQUIRED, "exchange": REQUIRED, "service": REQUIRED, "version": REQUIRED,
        "requester": REQUIRED, "sector": None, "type": None, "capacity": None,
        "legal_framework": None, "member": None, "final_client": None, "person": None,
        "enterprise": None, "begin": REQUIRED, "end": None, "grant": "", "groups": [],
        "repeat": False, "deadline_ms": REQUIRED, "payload": b"",
    }),
    "Reply": (19, {
        "id": REQUIRED, "outcome": REQUIRED, "person": None, "persons": [], "user": None,
        "application": None, "source_code": "", "payload": b"",
    }),
    "Envelope": (20, {
        "id": REQUIRED, "requests": REQUIRED, "ticket": "", "user": None, "application": None,
        "means": "", "level": 0, "kbo": None, "sector": None, "type": None, "capacity": None,
        "legal_framework": None, "member": None, "final_client": None, "deadline_ms": 0,
    }),
}  # fmt: skip
ITEM: Fields = {
    "service": REQUIRED, "version": REQUIRED, "person": None, "enterprise": None, "begin": None,
    "end": None, "source": None, "ticket": "", "payload": b"", "unchanged": False,
}  # fmt: skip
UNREADABLE: Fields = {"service": "", "version": 0}


# MessagePack, from its specification: the smallest form of a value, and the widest.


def _int(value: int, *, wide: bool) -> bytes:
    if not wide and -32 <= value < 128:
        return struct.pack("b", value)
    unsigned = ((0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"))
    signed = ((0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q"))
    forms = unsigned if value >= 0 else signed
    for head, form in forms[3:] if wide else forms:
        try:
            return bytes([head]) + struct.pack(form, value)
        except struct.error:
            continue
    raise OverflowError(value)


def _sized(size: int, fix: int, room: int, heads: tuple[int, ...], *, wide: bool) -> bytes:
    """The head of text, bytes, an array or a map: ``fix | size`` below ``room``, else a head."""
    if not wide and size < room:
        return bytes([fix | size])
    forms = ((1, ">B"), (2, ">H"), (4, ">I"))[-len(heads) :]
    for head, (width, form) in zip(heads, forms, strict=True):
        if (not wide and size < 1 << 8 * width) or width == 4:
            return bytes([head]) + struct.pack(form, size)
    raise OverflowError(size)


class Encoded(bytes):
    """Bytes that are MessagePack already, right or wrong."""


def pack(value: Any, *, wide: bool = False) -> bytes:
    """One value in MessagePack."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _int(value, wide=wide)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return _sized(len(text), 0xA0, 32, (0xD9, 0xDA, 0xDB), wide=wide) + text
    if isinstance(value, Encoded):
        return bytes(value)
    if isinstance(value, bytes):
        return _sized(len(value), 0, 0, (0xC4, 0xC5, 0xC6), wide=wide) + value
    if isinstance(value, dict):
        items = [pack(part, wide=wide) for pair in value.items() for part in pair]
        return _sized(len(value), 0x80, 16, (0xDE, 0xDF), wide=wide) + b"".join(items)
    items = [pack(item, wide=wide) for item in value]
    return _sized(len(value), 0x90, 16, (0xDC, 0xDD), wide=wide) + b"".join(items)


def filled(kind: str, given: Fields) -> Fields:
    fields = MESSAGES[kind][1] | given
    assert REQUIRED not in fields.values(), kind
    assert list(fields) == list(MESSAGES[kind][1]), kind
    return fields


def body(kind: str, given: Fields, *, form: str = "full") -> bytes:
    """A message: ``full``, ``wide``, ``short`` (ends where the rest is default), ``trailing``."""
    elements = [MESSAGES[kind][0], *filled(kind, given).values()]
    if form == "short":
        defaults = [REQUIRED, *MESSAGES[kind][1].values()]
        while elements[-1] == defaults[len(elements) - 1]:
            elements.pop()
    if form == "trailing":
        elements += [None, 7, "later", b"\xff", [1, [2]], {"a": {}}, -1.5, True]
    return pack(elements, wide=form == "wide")


def frame(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def message(kind: str, given: Fields) -> bytes:
    return frame(body(kind, given))


def shown(kind: str, given: Fields) -> Fields:
    """A message as the files show it; bytes as ``{"bytes": hex}``."""
    return {"kind": kind} | {name: _plain(value) for name, value in filled(kind, given).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def item(**given: Any) -> list[Any]:
    """An item of an Envelope, every element written."""
    assert given.keys() <= ITEM.keys()
    return list((ITEM | given).values())


def gives(envelope: Fields) -> list[Fields]:
    """The Requests that an Envelope means; an item that no Item has the form of is unreadable."""
    shared = filled("Envelope", envelope)
    found = []
    for number, content in enumerate(shared["requests"], shared["id"]):
        own = UNREADABLE
        if isinstance(content, list) and len(content) >= 2 and _suits(content):
            own = dict(zip(ITEM, content, strict=False))
        fields = {name: shared[name] for name in MESSAGES["Request"][1].keys() & shared.keys()}
        fields |= own | {"id": number, "ticket": own.get("ticket") or shared["ticket"]}
        order = MESSAGES["Request"][1]
        found.append(shown("Request", {name: fields.get(name, order[name]) for name in order}))
    return found


def _suits(content: list[Any]) -> bool:
    texts, numbers = (str, type(None)), (int, type(None))
    kinds = ((str,), (int,), texts, texts, numbers, numbers, texts, (str,), (bytes,))
    return all(type(value) in kind for value, kind in zip(content, kinds, strict=False))


# What the vectors are about. The numbers of persons have counters that are not given out.
PERSON, OTHER, USER = "85073099734", "00010199776", "85073099833"
REQUESTER, SOURCE, MEMBER = "0999999922", "0566988259", "1000000021"
EXCHANGE = bytes.fromhex("0192f5d2a8007c3e9b1f4a6d2e8c5b70")
MIB = 1 << 20

HELLO: Fields = {"versions": [1], "speaker": 1, "agent": "stranger/1.0", "frame_bytes_max": MIB}
ROUTER_HELLO: Fields = {
    "versions": [1],
    "speaker": 2,
    "agent": "ksz-router",
    "frame_bytes_max": MIB,
}
WELCOME: Fields = {
    "version": 1,
    "agent": "ksz-router",
    "frame_bytes_max": MIB,
    "inflight_max": 1024,
}
SOURCE_WELCOME: Fields = {
    "version": 1,
    "agent": "register/3",
    "frame_bytes_max": MIB,
    "inflight_max": 64,
}
PATH_A = {
    "id": 1, "service": "RetrieveTIGroups", "version": 2, "ticket": "T-0001", "user": USER,
    "means": "eid", "level": 4, "sector": 17, "type": 1, "capacity": 2, "person": PERSON,
    "begin": 20260101, "end": 20261231, "deadline_ms": 5000, "payload": b"TI 001",
}  # fmt: skip
PATH_B = {
    "id": 2, "service": "RetrieveTIGroups", "version": 2, "ticket": "T-0002",
    "application": "00901234567", "kbo": REQUESTER, "legal_framework": "PCSA:SOCIAL_INQUIRY",
    "person": PERSON,
}  # fmt: skip
LEAST = {"id": 0, "service": "TestConnectionService", "version": 1, "ticket": "t"}
MOST = {
    "id": 0xFFFFFFFF, "service": "S" * 64, "version": 65535, "ticket": "T" * 36, "user": USER,
    "application": "99999999999", "means": "m" * 32, "level": 4, "kbo": MEMBER, "sector": 999,
    "type": 999, "capacity": 998, "legal_framework": "é" * 64, "member": MEMBER,
    "final_client": "1999999943", "person": PERSON, "enterprise": SOURCE, "begin": 19000101,
    "end": 99991231, "source": SOURCE, "deadline_ms": 60000, "payload": bytes(range(256)) * 2,
    "unchanged": True,
}  # fmt: skip
ANSWER = {
    "id": 1, "exchange": EXCHANGE, "code": 10001, "stage": 10, "official": "MSG00000",
    "status": "DATA_FOUND", "action": 0, "generation": "b2f6c01d", "router_us": 840,
    "source_us": 21500, "recipients": [[SOURCE, 10001, "OK"]], "payload": b"<data/>",
}  # fmt: skip
REFUSED = ANSWER | {
    "code": 4001, "stage": 4, "official": "MSG00013", "status": "NO_RESULT", "action": 2,
    "source_us": 0, "recipients": [], "payload": b"",
}  # fmt: skip
REPLACED = REFUSED | {
    "code": 6002, "stage": 6, "official": "MSG00006", "action": 1, "detail": {"newSSIN": OTHER},
}  # fmt: skip
DECEASED = REFUSED | {
    "code": 6004, "stage": 6, "official": "MSG00009", "status": "NO_DATA_FOUND", "action": 0,
    "detail": {"deceaseDate": "20260228"},
}  # fmt: skip
FULL = REFUSED | {
    "exchange": b"", "code": 21, "stage": 0, "official": "MSG00001", "action": 3,
    "detail": {"limit": "1024"}, "retry_at_ms": 1790000000123,
}  # fmt: skip
DISTRIBUTED = ANSWER | {
    "code": 10003, "official": "HAN20200", "status": "INCOMPLETE_DATA", "action": 3,
    "retry_at_ms": 1790000000123, "persons": [OTHER, USER], "payload": b"",
    "recipients": [[SOURCE, 10001, "OK"], [MEMBER, 9001, ""]],
}  # fmt: skip
DELIVERY = {
    "id": 77, "exchange": EXCHANGE, "service": "RetrieveTIGroups", "version": 2,
    "requester": REQUESTER, "sector": 17, "type": 1, "capacity": 2, "person": PERSON,
    "begin": 20260101, "end": 20261231, "grant": "G-2026-001", "groups": ["identity", "address"],
    "deadline_ms": 4980, "payload": b"TI 001",
}  # fmt: skip
DELIVERY_LEAST = {
    "id": 0, "exchange": EXCHANGE, "service": "s", "version": 1, "requester": REQUESTER,
    "begin": 20260101, "deadline_ms": 1,
}  # fmt: skip
ITEMS = [
    item(service="RetrieveTIGroups", version=2, person=PERSON, payload=b"TI 001"),
    item(service="RetrieveTIGroups", version=2, person=OTHER, begin=20260101, payload=b"TI 010"),
]
ENVELOPE = {
    "id": 9, "requests": ITEMS, "ticket": "T-0009", "user": USER, "means": "eid", "level": 4,
    "sector": 17, "type": 1, "capacity": 2, "deadline_ms": 5000,
}  # fmt: skip
UNREADABLE_ITEMS: list[Any] = [
    None, 7, "RetrieveTIGroups", {"service": "s"}, [], ["RetrieveTIGroups"], [None, 2],
    ["RetrieveTIGroups", 2.0], ["RetrieveTIGroups", True], item(service="s", version="2"),
    item(service="s", version=2, person=int(PERSON)), item(service="s", version=2, ticket=None),
    item(service="s", version=2, payload="TI 001"), item(service="s", version=2, begin="20260101"),
]  # fmt: skip
REPLY = {
    "id": 77, "outcome": 0, "person": PERSON, "application": "00901234567", "source_code": "OK",
    "payload": b"<data/>",
}  # fmt: skip
