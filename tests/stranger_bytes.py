"""The bytes of the protocol, written from docs/protocol.md alone: MessagePack, messages, frames.

For ``stranger.py``; nothing but the standard library. Run by itself it reads frames of the test
vectors and prints a line of JSON for each:

    python tests/stranger_bytes.py frames.json ...
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
FRAME_MAX, HELLO_MAX, DEPTH_MAX = 1 << 20, 4096, 64
ALPN = "ksz-router/1"

# Section "Greeting" to "Exchange messages": tag, name, elements; a default makes one optional.
LAYOUT = """
1 Hello versions:[u16] speaker:u16 agent:text frame_bytes_max:u32
2 Welcome version:u16 agent:text frame_bytes_max:u32 inflight_max:u32
3 Ping number:u64
4 Pong number:u64
5 Drain seconds:u32
6 Throttle code:u16 limit:u32 retry_at_ms:u64
7 Bye code:u16 text:text=""
16 Request id:u32 service:text version:u16 ticket:text user:text?=nil application:text?=nil
 means:text="" level:u16=0 kbo:text?=nil sector:u16?=nil type:u16?=nil capacity:u16?=nil
 legal_framework:text?=nil member:text?=nil final_client:text?=nil person:text?=nil
 enterprise:text?=nil begin:day?=nil end:day?=nil source:text?=nil deadline_ms:u32=0
 payload:bytes=b"" unchanged:boolean=false
17 Answer id:u32 exchange:bytes code:u16 stage:u16 official:text status:text action:u16
 generation:text detail:{text}={} retry_at_ms:u64?=nil router_us:u64=0 source_us:u64=0
 recipients:[recipient]=[] persons:[text]=[] payload:bytes=b""
20 Envelope id:u32 requests:[any] ticket:text user:text?=nil application:text?=nil means:text=""
 level:u16=0 kbo:text?=nil sector:u16?=nil type:u16?=nil capacity:u16?=nil
 legal_framework:text?=nil member:text?=nil final_client:text?=nil deadline_ms:u32=0
18 Delivery id:u32 exchange:bytes service:text version:u16 requester:text sector:u16?=nil
 type:u16?=nil capacity:u16?=nil legal_framework:text?=nil member:text?=nil final_client:text?=nil
 person:text?=nil enterprise:text?=nil begin:day end:day?=nil grant:text="" groups:[text]=[]
 repeat:boolean=false deadline_ms:u32 payload:bytes=b""
19 Reply id:u32 outcome:u16 person:text?=nil persons:[text]=[] user:text?=nil application:text?=nil
 source_code:text="" payload:bytes=b""
"""
DEFAULTS: Fields = {"nil": None, '""': "", 'b""': b"", "0": 0, "{}": {}, "[]": [], "false": False}
MESSAGES: dict[int, tuple[str, list[tuple[str, str, str]]]] = {}
for _line in LAYOUT.strip().replace("\n ", " ").splitlines():
    _tag, _name, *_elements = _line.split()
    MESSAGES[int(_tag)] = (
        _name,
        [(e.partition(":")[0], *e.partition(":")[2].partition("=")[::2]) for e in _elements],
    )
TAGS = {name: tag for tag, (name, _) in MESSAGES.items()}

LINK = {"Ping", "Pong", "Drain", "Bye"}
RECEIVES = {
    ("requester", False): {"Welcome", "Bye"}, ("requester", True): LINK | {"Answer", "Throttle"},
    ("source", False): {"Hello", "Bye"}, ("source", True): LINK | {"Delivery"},
    ("front", False): {"Hello", "Bye"}, ("front", True): LINK | {"Request", "Envelope"},
    ("back", False): {"Welcome", "Bye"}, ("back", True): LINK | {"Reply"},
}  # fmt: skip
WRONG_SIZE, MALFORMED, UNEXPECTED, NO_VERSION = 2, 3, 4, 5


class Fault(Exception):
    """The peer broke the protocol; the code is the reason of the Bye."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


# MessagePack, from its specification.


def pack(value: object) -> bytes:
    """A value in its smallest form."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        head, size = next((0xCC + n, 1 << n) for n in range(4) if value < 1 << (8 << n))
        return bytes([head]) + value.to_bytes(size, "big")
    if isinstance(value, str):
        text = value.encode()
        return _head(len(text), 0xA0, 31, (0xD9, 0xDA, 0xDB)) + text
    if isinstance(value, bytes):
        return _head(len(value), 0, -1, (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, dict):
        inner = b"".join(pack(part) for pair in value.items() for part in pair)
        return _head(len(value), 0x80, 15, (0, 0xDE, 0xDF)) + inner
    assert isinstance(value, list)
    return _head(len(value), 0x90, 15, (0, 0xDC, 0xDD)) + b"".join(map(pack, value))


def _head(size: int, fixed: int, fixed_max: int, heads: tuple[int, int, int]) -> bytes:
    if size <= fixed_max:
        return bytes([fixed | size])
    n = 0 if size < 256 and heads[0] else 1 if size < 65_536 else 2
    return bytes([heads[n]]) + size.to_bytes(1 << n, "big")


SCALARS = {0xC0: None, 0xC2: False, 0xC3: True}
NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h",
    0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
SIZED = {
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4), 0xC4: ("bytes", 1),
    0xC5: ("bytes", 2), 0xC6: ("bytes", 4), 0xDC: ("array", 2), 0xDD: ("array", 4),
    0xDE: ("map", 2), 0xDF: ("map", 4), 0xC7: ("extension", 1), 0xC8: ("extension", 2),
    0xC9: ("extension", 4),
}  # fmt: skip


class Unpacker:
    """Reads one value. Text that is no UTF-8 is kept, to be refused only where it has a meaning."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise Fault(MALFORMED)
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, depth: int = 0) -> Any:
        head = self.take(1)[0]
        if depth > DEPTH_MAX or head == 0xC1:
            raise Fault(MALFORMED)
        if head < 0x80 or head >= 0xE0:
            return struct.unpack("b", bytes([head]))[0]
        if head in SCALARS:
            return SCALARS[head]
        if head in NUMBERS:
            form = NUMBERS[head]
            return struct.unpack(form, self.take(struct.calcsize(form)))[0]
        if 0xD4 <= head <= 0xD8:
            return ("extension", self.take(1 + (1 << head - 0xD4)))
        if head < 0xC0:
            kind, size = ("map", "array", "text", "text")[head - 0x80 >> 4], head & 15
            size = head & 31 if kind == "text" else size
        else:
            kind, width = SIZED[head]
            size = int.from_bytes(self.take(width), "big")
        if kind == "text":
            return self.take(size).decode("utf-8", "surrogateescape")
        if kind == "array":
            return [self.value(depth + 1) for _ in range(size)]
        if kind == "map":
            return ("map", [(self.value(depth + 1), self.value(depth + 1)) for _ in range(size)])
        return self.take(size) if kind == "bytes" else ("extension", self.take(size + 1))


def checked(value: Any, kind: str) -> Any:
    """A value as its element wants it."""
    if kind.endswith("?"):
        return None if value is None else checked(value, kind[:-1])
    if kind[0] == "[":
        if isinstance(value, list):
            return [checked(item, kind[1:-1]) for item in value]
    elif kind == "any":
        return value
    elif kind == "{text}":
        if isinstance(value, tuple) and value[0] == "map":
            return {checked(key, "text"): checked(item, "text") for key, item in value[1]}
    elif kind == "recipient":
        if isinstance(value, list) and len(value) >= 2:
            return [checked(value[0], "text"), checked(value[1], "u16"),
                    checked(value[2], "text") if len(value) > 2 else ""]  # fmt: skip
    elif kind == "text":
        if isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value):
            return value
    elif type(value) is {"boolean": bool, "bytes": bytes}.get(kind, int):
        return value
    raise Fault(MALFORMED)


def message_of(body: bytes) -> tuple[str, Fields]:
    """The message in a frame: its name and elements."""
    reader = Unpacker(body)
    value = reader.value()
    if reader.at != len(body) or not isinstance(value, list) or not value:
        raise Fault(MALFORMED)
    tag, *values = value
    if type(tag) is not int or tag not in MESSAGES:
        raise Fault(MALFORMED)
    name, layout = MESSAGES[tag]
    fields: Fields = {}
    for at, (element, kind, default) in enumerate(layout):
        if at >= len(values) and not default:
            raise Fault(MALFORMED)
        fields[element] = checked(values[at], kind) if at < len(values) else DEFAULTS[default]
    bounds = {"Hello": ("speaker", {1, 2}), "Reply": ("outcome", {0, 1, 2, 3})}
    if name in bounds and fields[bounds[name][0]] not in bounds[name][1]:
        raise Fault(MALFORMED)
    count = len(fields["requests"]) if name == "Envelope" else 1
    if not 0 <= fields.get("id", 0) <= (1 << 32) - count or not 0 < count <= 64:
        raise Fault(MALFORMED)
    return name, fields


def frame_of(name: str, fields: Fields) -> bytes:
    """A message with the defaults filled in, as a frame."""
    layout = MESSAGES[TAGS[name]][1]
    assert set(fields) <= {element for element, _, _ in layout}, "a misspelt element"
    values = [
        fields[element] if element in fields else DEFAULTS[default]
        for element, _, default in layout
    ]
    body = pack([TAGS[name], *values])
    return struct.pack(">I", len(body)) + body


class Reader:
    """Bytes in, messages out, of one side."""

    def __init__(self, side: str, *, is_open: bool = False) -> None:
        self.side, self.is_open, self.rest = side, is_open, b""

    def feed(self, data: bytes) -> Iterator[tuple[str, Fields]]:
        """Give each whole message; raises a Fault where the peer broke a rule."""
        self.rest += data
        while len(self.rest) >= 4:
            size = int.from_bytes(self.rest[:4], "big")
            if not 0 < size <= (FRAME_MAX if self.is_open else HELLO_MAX):
                raise Fault(WRONG_SIZE)
            if len(self.rest) < 4 + size:
                return
            body, self.rest = self.rest[4 : 4 + size], self.rest[4 + size :]
            name, fields = message_of(body)
            if name not in RECEIVES[self.side, self.is_open]:
                raise Fault(UNEXPECTED)
            if name in ("Hello", "Welcome"):
                self.greeted(name, fields)
            yield name, fields
            if name == "Bye":
                return

    def greeted(self, name: str, fields: Fields) -> None:
        """Judge a greeting, in the order of the section."""
        versions = fields["versions"] if name == "Hello" else [fields["version"]]
        if 1 not in versions:
            raise Fault(NO_VERSION)
        if name == "Hello" and fields["speaker"] != (1 if self.side == "front" else 2):
            raise Fault(UNEXPECTED)
        if fields["frame_bytes_max"] < HELLO_MAX:
            raise Fault(WRONG_SIZE)
        self.is_open = True


# The vectors.


def main() -> None:
    """Read every frame of the vectors and say what it is; who calls compares."""
    for file in sys.argv[1:]:
        for row in json.loads(Path(file).read_text(encoding="utf-8")):
            reader = Reader(row["to"], is_open=row.get("state") == "open")
            found: Fields = {"name": row["name"]}
            try:
                body = bytes.fromhex(row["hex"])
                if "is" in row:
                    kind, fields = message_of(body[4:])
                    found |= {"kind": kind, "fields": hexed(fields)}
                    if '"map"' not in (said := json.dumps(found)) and '"extension"' not in said:
                        found["again"] = frame_of(kind, fields).hex()
                else:
                    list(reader.feed(body))
            except Fault as fault:
                found["code"] = fault.code
            print(json.dumps(found))


def hexed(value: Any) -> Any:
    """As the vectors write bytes."""
    if isinstance(value, dict):
        return {key: hexed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hexed(item) for item in value]
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
