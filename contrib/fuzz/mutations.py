"""Valid conversations, and what they become when bytes, frames or elements of them are changed.

Everything follows from a seed: the same seed and number give the same bytes on any machine.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from contrib import vector_bytes as v

VECTORS = Path(__file__).parents[2] / "tests" / "vectors" / "wire"
BYTES_MAX = 1 << 17
"""A mutant is cut here; giants have a test of their own."""

FULL_WIDTH = "".join(chr(0xFF10 + int(digit)) for digit in "85073099734")
ARABIC = "".join(chr(0x0660 + int(digit)) for digit in "85073099734")

TRICKS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 127, -32, 255, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1,
    2**64 - 1, -(2**63), 0.0, -0.0, 1.5, float("nan"), float("inf"), 1e308, "", "0", "nil",
    "85073099734", "85073099734\n", "85073099734\0", FULL_WIDTH, ARABIC,
    ARABIC[0] + "5073099734", " 85073099734", "85.07.30-997.34", "0999016460", "-0999016460",
    "\0", "\n", "\r\n{}", "\x1b[2J\x1b]0;owned\x07", "\u202e\u2066evil", "\u2028\u2029", '"}',
    "\N{REPLACEMENT CHARACTER}", "\U0010ffff", "e\u0301" * 40, "%s%n{0}", "../../etc/passwd",
    "'; DROP TABLE", "9" * 12, "9" * 5_000, "x" * 70_000, b"", b"\0", b"\xff" * 16, bytes(17),
    b"x" * 70_000, [], [[]], [1] * 300, [None] * 64, {}, {"": ""}, {"a": {"b": []}}, 20260101,
    20261399, 99991231, -20260101, 0xFFFF_FFFF_FFFF, "TestConnectionService", "UnemploymentData",
)  # fmt: skip
"""Values that some reader somewhere took for another."""

INTERESTING = bytes([0, 1, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC4, 0xC7, 0xCA,
                     0xCF, 0xD3, 0xD9, 0xDB, 0xDC, 0xDD, 0xDF, 0xE0, 0xFF])  # fmt: skip


def frames_of(data: bytes) -> list[bytes]:
    """Cut a stream that is known to be whole into its frames, lengths included."""
    frames, at = [], 0
    while at < len(data):
        stop = at + 4 + int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at:stop])
        at = stop
    return frames


def recorded() -> dict[str, list[list[bytes]]]:
    """Return what each side receives in the vectors: conversations as lists of frames.

    One whole greeting stands in front of each, so that what follows it is read in the open state.
    """
    sides: dict[str, list[list[bytes]]] = {side: [] for side in ("requester", "front", "back",
                                                                  "source")}  # fmt: skip
    greeting: dict[str, bytes] = {}
    for talk in json.loads((VECTORS / "conversations.json").read_text(encoding="utf-8")):
        received = b"".join(bytes.fromhex(step.get("hex", "")) for step in talk["steps"])
        if "cut inside" in talk["name"] or "inside a frame" in talk["name"]:
            continue
        if "zero" not in talk["name"]:
            sides[talk["side"]].append(frames_of(received))
        if talk["name"].startswith("one exchange"):
            greeting[talk["side"]] = sides[talk["side"]][-1][0]
    for row in json.loads((VECTORS / "valid.json").read_text(encoding="utf-8")):
        frame = bytes.fromhex(row["hex"])
        if len(frame) < BYTES_MAX and row["is"]["kind"] not in ("Hello", "Welcome"):
            sides[row["to"]].append([greeting[row["to"]], frame, frame])
    return sides


def mutant(random: Random, talk: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    """Return the conversation with one to four things changed.

    Args:
        random: Decides everything.
        talk: Frames of a valid conversation.
        pool: Frames that may be spliced in: of any message, for any side.
    """
    frames = list(talk)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if frames and random.random() < 0.75:
            random.choice(_ON_FRAMES)(random, frames, pool)
        else:
            frames = [_bytes_changed(random, b"".join(frames))]
    return b"".join(frames)[:BYTES_MAX]


def _bytes_changed(random: Random, data: bytes) -> bytes:
    if not data:
        return random.randbytes(8)
    content = bytearray(data)
    at = random.randrange(len(content))
    size = min(random.choice((1, 1, 2, 4, 16, 64)), len(content) - at)
    match random.randrange(7):
        case 0:
            content[at] ^= 1 << random.randrange(8)
        case 1:
            content[at] = random.choice(INTERESTING)
        case 2:
            del content[at : at + size]
        case 3:
            content[at:at] = random.randbytes(size)
        case 4:
            content[at:at] = content[at : at + size] * random.choice((1, 2, 200))
        case 5:
            del content[at:]
        case _:
            content[at : at + size] = random.randbytes(size)
    return bytes(content)


def _drop(random: Random, frames: list[bytes], _pool: Sequence[bytes]) -> None:
    del frames[random.randrange(len(frames))]


def _repeat(random: Random, frames: list[bytes], _pool: Sequence[bytes]) -> None:
    at = random.randrange(len(frames))
    frames[at:at] = [frames[at]] * random.choice((1, 1, 3, 40))


def _shuffle(random: Random, frames: list[bytes], _pool: Sequence[bytes]) -> None:
    random.shuffle(frames)


def _splice(random: Random, frames: list[bytes], pool: Sequence[bytes]) -> None:
    frames.insert(random.randrange(len(frames) + 1), random.choice(pool))


def _lie_about_length(random: Random, frames: list[bytes], _pool: Sequence[bytes]) -> None:
    at = random.randrange(len(frames))
    size = len(frames[at]) - 4
    lie = random.choice((0, size - 1, size + 1, size // 2, 4_096, 4_097, 1 << 20, (1 << 20) + 1,
                         1 << 31, (1 << 32) - 1, random.getrandbits(12)))  # fmt: skip
    frames[at] = max(0, lie).to_bytes(4, "big") + frames[at][4:]


def _change_element(random: Random, frames: list[bytes], pool: Sequence[bytes]) -> None:
    """Change what a message says and keep it well framed: the decoder and the control see it."""
    at = random.randrange(len(frames))
    try:
        elements = msgspec.msgpack.decode(frames[at][4:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _splice(random, frames, pool)
    if not isinstance(elements, list) or not elements:
        return _splice(random, frames, pool)
    place = random.randrange(len(elements))
    match random.randrange(12):
        case 0:
            del elements[place:]
        case 1:
            elements.append(random.choice(TRICKS))
        case 2:
            elements.insert(place, random.choice(TRICKS))
        case 3:
            elements[0] = random.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 18, 19, 20, 21, -1))
        case 4:
            value: Any = random.choice(TRICKS)
            for _ in range(random.choice((1, 16, 60, 400))):
                value = [value] if random.random() < 0.7 else {"k": value}
            elements[place] = value
        case 5:
            other = random.randrange(len(elements))
            elements[place], elements[other] = elements[other], elements[place]
        case 6 if isinstance(elements[place], str):
            text = elements[place]
            cut = random.randrange(len(text) + 1)
            elements[place] = text[:cut] + random.choice(("\0", "\n", "\u202e", "9")) + text[cut:]
        case 7 if isinstance(elements[place], int):
            more = elements[place] + random.choice((-1, 1, 1 << 16, 1 << 31))
            elements[place] = max(-(2**63), min(more, 2**64 - 1))
        case _:
            elements[place] = random.choice(TRICKS)
    try:
        if random.random() < 0.2:
            body = v.pack(elements, wide=True)
        else:
            body = msgspec.msgpack.encode(elements)  # as good, and faster than ours
    except RecursionError:
        return _splice(random, frames, pool)
    frames[at] = v.frame(body)
    return None


def _nest(random: Random, frames: list[bytes], _pool: Sequence[bytes]) -> None:
    """Put an element behind a message that nests deeper than an encoder would go."""
    opener = random.choice((b"\x91", b"\x81\xa1k", b"\xdc\x00\x01"))
    deep = opener * random.choice((17, 900, 3_000)) + b"\xc0"
    frames.insert(random.randrange(len(frames) + 1), v.frame(b"\x93\x03\x01" + deep))


def with_every_trick(frame: bytes) -> Iterator[bytes]:
    """Give a frame over and over, each trick in each element once."""
    elements = msgspec.msgpack.decode(frame[4:])
    for place in range(1, len(elements)):
        for trick in TRICKS:
            yield v.frame(v.pack([*elements[:place], trick, *elements[place + 1 :]]))


_ON_FRAMES: tuple[Callable[[Random, list[bytes], Sequence[bytes]], None], ...] = (
    _drop, _repeat, _shuffle, _splice, _lie_about_length, _nest,
    *(_change_element,) * 6,
)  # fmt: skip


def cut(random: Random, data: bytes) -> list[bytes]:
    """Cut bytes into the pieces in which they arrive: one, some, or each byte by itself."""
    match random.randrange(8):
        case 0 if len(data) <= 160:
            return [data[n : n + 1] for n in range(len(data))]
        case 1 | 2:
            places = sorted(random.randrange(len(data) + 1) for _ in range(3))
            ends = [*places, len(data)]
            return [data[a:b] for a, b in zip([0, *places], ends, strict=True) if a < b]
        case _:
            return [data]
