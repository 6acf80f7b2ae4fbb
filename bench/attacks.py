"""What ``bench/abuse.py`` does to a router, each case in a process of its own.

    python -m bench.attacks '{"case": "silent", "port": 7443, ...}'

Cheap on purpose: attacker and router share the processors. Raw sockets and epoll, no event loop;
the clients with a certificate are few. The last line on standard output is what was seen:
``held``, ``why`` and figures.
"""

import contextlib
import json
import resource
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.attackers import Peer, Raw, Words, client_hello, greeted
from bench.bad_source import BadSource, misbehave, request
from bench.world import CENTRE, SOURCE, request_frame
from ksz_router.codes import Code
from ksz_router.limits import (
    first_byte_seconds_max,
    frame_length_bytes,
    handshake_seconds_max,
    slow_reader_seconds_max,
    slow_sender_seconds_max,
)
from ksz_router.messages import Answer
from ksz_router.wire import Ended, Throttle

Seen = dict[str, Any]
_SLACK_S = 3.0
"""What a busy machine may add to a time that the router keeps."""


def silent(words: Words) -> Seen:
    """Case 1: 5,000 connections from 50 addresses that say nothing."""
    raw = Raw(words.port)
    for _ in range(5_000):
        raw.connect()
    ends_s = time.monotonic() + first_byte_seconds_max + 1 + _SLACK_S
    while raw.open and time.monotonic() < ends_s:
        raw.wait(0.1)
    return _seen(not raw.open, f"{len(raw.open)} open", longest_s=round(raw.longest_s, 2))


def slow_handshake(words: Words) -> Seen:
    """Case 2: 500 at once from 50 addresses; half dribble their ClientHello, half what follows."""
    raw, hello = Raw(words.port), client_hello()
    progress: dict[int, int] = {}
    ends_s = time.monotonic() + words.seconds
    while time.monotonic() < ends_s:
        while len(raw.open) < 500:
            raw.connect()
        second_ends_s = time.monotonic() + 1
        for fd, (sock, _) in raw.open.items():
            at = progress.get(fd, 0)
            piece = hello if fd % 2 and not at else hello[at : at + 1] or b"\x16"
            with contextlib.suppress(OSError):
                progress[fd] = at + sock.send(piece)
        while time.monotonic() < second_ends_s:
            raw.wait(second_ends_s - time.monotonic())
            progress = {fd: at for fd, at in progress.items() if fd in raw.open}
    limit_s = handshake_seconds_max + first_byte_seconds_max + _SLACK_S
    return _seen(
        raw.closed > 0 and raw.longest_s <= limit_s,
        f"one stayed {raw.longest_s:.1f} s",
        opened=raw.opened,
    )


def handshake_flood(words: Words) -> Seen:
    """Case 3: 600 handshakes a second from 50 addresses, each left once the router has worked."""
    raw, hello = Raw(words.port), client_hello()
    answered = 0

    def leave(fd: int) -> None:
        nonlocal answered
        answered += 1
        raw.forget(fd)

    begun_s, asked = time.monotonic(), set[int]()
    while (passed_s := time.monotonic() - begun_s) < words.seconds:
        while raw.opened < passed_s * 600:
            raw.connect()
        for fd, (sock, _) in raw.open.items():
            if fd not in asked:
                with contextlib.suppress(OSError):
                    sock.send(hello)
                    asked.add(fd)
        raw.wait(0.01, leave)
        asked &= raw.open.keys()
    return _seen(raw.opened > 500 * words.seconds, "too slow an attack", answered=answered)


def slow_sender(words: Words) -> Seen:
    """Case 7: 20 institutions' connections that send a frame at a byte a second."""
    peers = [greeted(words, CENTRE) for _ in range(20)]
    frame, _ = request_frame(300)
    codes: Counter[str] = Counter()
    begun_s = time.monotonic()
    for byte in frame:
        for peer in list(peers):
            ended = peer.ended(0.0) or peer.try_to_send(bytes([byte]))
            if ended is not None:
                codes[ended.code.name] += 1
                peers.remove(peer)
        if not peers or time.monotonic() - begun_s > slow_sender_seconds_max + 2 + _SLACK_S:
            break
        time.sleep(1.0)
    return _seen(codes == {Code.PEER_TOO_SLOW.name: 20}, f"{len(peers)} open, {dict(codes)}")


def slow_reader(words: Words) -> Seen:
    """Case 8: 8 connections that ask 1,000 times for 8 kB and read nothing.

    The kernel takes some megabytes for each before the router has to keep any.
    """
    peers = [greeted(words, CENTRE, receive_bytes=4_096) for _ in range(8)]
    for peer in peers:
        peer.send_what_goes(b"".join(_requests(words, 1_000, payload_bytes=8_000)))
    time.sleep(slow_reader_seconds_max + 2 + _SLACK_S)
    is_open = [peer.ended(0.5, reads_max=100_000) is None for peer in peers]
    return _seen(not any(is_open), f"{sum(is_open)} still open")


def giant_length(words: Words) -> Seen:
    """Case 9: a length of 4 GiB, before the greeting and behind it."""
    codes: Counter[str] = Counter()
    longest_s = 0.0
    for number in range(60):
        peer = greeted(words, CENTRE) if number % 2 else Peer(words, CENTRE)
        begun_s = time.monotonic()
        peer.try_to_send(b"\xff\xff\xff\xff")
        ended = peer.ended(2.0)
        longest_s = max(longest_s, time.monotonic() - begun_s)
        codes[ended.code.name if ended is not None else "open"] += 1
        peer.close()
    held = codes == {Code.FRAME_TOO_LARGE.name: 60}
    return _seen(held, str(dict(codes)), longest_s=round(longest_s, 3))


def pipelining_flood(words: Words) -> Seen:
    """Case 13: 100,000 requests at once on one connection; every one of them is answered.

    The source of the last thousand hangs, so that the window of the connection fills.
    """
    count, hanging = 100_000, 1_000
    source, peer = BadSource(words), greeted(words, CENTRE)
    source.way = "hang"
    person = words.numbers.read_text("ascii")[:11]
    frames = list(_requests(words, count - hanging))
    for number in range(count - hanging, count):
        body = msgspec.msgpack.encode(request(number + 1, person))
        frames.append(len(body).to_bytes(frame_length_bytes, "big") + body)
    codes: Counter[int] = Counter()
    answered: set[int] = set()
    notices = 0
    begun_s = time.monotonic()
    for event in peer.exchange(b"".join(frames), seconds_max=200.0):
        if isinstance(event, Answer):
            answered.add(event.id)
            codes[event.code] += 1
        elif isinstance(event, Throttle):
            notices += 1
        elif isinstance(event, Ended):
            return _seen(held=False, why=f"ended with {event.code.name}")
        if len(answered) == count:
            break
    seconds = time.monotonic() - begun_s
    held = len(answered) == codes.total() == count and 0 < notices <= seconds + 2
    names = {Code(code).name: n for code, n in codes.items()}
    why = f"{codes.total()} answers, {notices} notices"
    return _seen(held, why, seconds=round(seconds, 1), notices=notices, codes=names)


def descriptors(words: Words) -> Seen:
    """Case 26: 150 connections of one institution and 150 silent ones, at a router with 256 files.

    Some of the institution get in and stay; the others are told why not. Once all have gone, the
    institution gets in again. That descriptors are left meanwhile is seen from outside.
    """
    raw = Raw(words.port)
    peers: list[Peer] = []
    codes: Counter[str] = Counter()
    ends_s = time.monotonic() + words.seconds - _SLACK_S
    while time.monotonic() < ends_s:
        while len(raw.open) < 150:
            raw.connect()
        raw.wait(0.0 if codes.total() < 150 else 0.05)
        if codes.total() < 150:
            try:
                peers.append(greeted(words, SOURCE))
                codes["in"] += 1
            except OSError as error:
                codes[str(error)] += 1
    is_open = [peer.ended(0.0) is None for peer in peers]
    for peer in peers:
        peer.close()
    for sock, _ in raw.open.values():
        sock.close()
    try:
        greeted(words, SOURCE).close()
    except OSError as error:
        return _seen(held=False, why=f"nobody gets in afterwards: {error}", codes=codes)
    held = all(is_open) and codes["in"] > 0 and codes.keys() == {"in", "TOO_MANY_CONNECTIONS"}
    return _seen(held, f"{dict(codes)}, of those in {sum(is_open)} stayed", codes=codes)


def _requests(words: Words, count: int, *, payload_bytes: int = 0) -> Iterator[bytes]:
    """Frames with ids from 1 on, about persons in turn."""
    numbers = words.numbers.read_bytes()
    frame, places = request_frame(payload_bytes)
    made = bytearray(frame)
    at, person_at = places["id_at"], places["person_at"]
    for number in range(1, count + 1):
        made[at : at + 4] = number.to_bytes(4, "big")
        digits_at = number * 11 % (len(numbers) // 11 * 11)
        made[person_at : person_at + 11] = numbers[digits_at : digits_at + 11]
        yield bytes(made)


def _seen(held: bool, why: str, **figures: object) -> Seen:  # noqa: FBT001
    return {"held": held, "why": "" if held else why, **figures}


CASES: dict[str, Callable[[Words], Seen]] = {
    "silent": silent,
    "slow handshake": slow_handshake,
    "handshake flood": handshake_flood,
    "slow sender": slow_sender,
    "slow reader": slow_reader,
    "giant length": giant_length,
    "pipelining flood": pipelining_flood,
    "descriptors": descriptors,
    "misbehaving source": misbehave,
}


def main() -> int:
    words = json.loads(sys.argv[1])
    case = CASES[words.pop("case")]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    paths = {name: Path(words[name]) for name in ("tls", "numbers")}
    try:
        print(json.dumps(case(Words(**(words | paths)))))
    except (OSError, ssl.SSLError) as error:
        print(json.dumps(_seen(held=False, why=f"the attack broke: {error!r}")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
