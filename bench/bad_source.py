"""A source that breaks the protocol in one way after the other, and who asks it."""

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from typing import Any

from bench.attackers import Peer, Words, context_of, greeted
from bench.world import CAPACITY, CENTRE, SECTOR, TYPE, USER
from ksz_router.codes import Code, Stage
from ksz_router.messages import Answer, Delivery, Outcome, Reply, Request
from ksz_router.wire import Connection, Side

BAD_SOURCE, SERVICE = "0999015767", "OccupationalDisease"
LINE = "6,0,10,1,2015-01-01,,2015-01-01"
WAYS = ("hang", "half-close", "garbage", "wrong id", "ten answers", "hang and break")
_ASKED_PER_WAY, _ASKED_TO_BREAK = 3, 8
_ANSWERED_SECONDS_MAX = 2.0
_DEADLINE_MS = 1_500
_BREAKER_SECONDS_MAX = 15.0


class BadSource:
    """Listens as an institution; ``way`` is how it answers now."""

    def __init__(self, words: Words) -> None:
        self.way = "good"
        self._context = context_of(words.tls, BAD_SOURCE, serves=True)
        self._listener = socket.create_server(("127.0.0.1", words.source_port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            stream = self._context.wrap_socket(sock, server_side=True)
            connection = Connection(Side.SOURCE, agent="bad", inflight_max=64)
            while not connection.is_ended and (data := stream.recv(65_536)):
                for event in connection.receive_data(data):
                    if isinstance(event, Delivery):
                        self._answer(stream, connection, event)
                stream.sendall(connection.data_to_send())

    def _answer(self, stream: ssl.SSLSocket, connection: Connection, asked: Delivery) -> None:
        if self.way.startswith("hang"):
            return
        if self.way == "half-close":
            stream.shutdown(socket.SHUT_WR)
            return
        if self.way == "garbage":
            stream.sendall(b"\x00\x00\x00\x20" + b"\xc1" * 32)
            return
        number = asked.id + 1_000 if self.way == "wrong id" else asked.id
        for _ in range(10 if self.way == "ten answers" else 1):
            connection.send(
                Reply(id=number, outcome=Outcome.DATA, person=asked.person, payload=b"data")
            )


def misbehave(words: Words) -> dict[str, Any]:
    """Case 27: every request has a typed answer in two seconds, and the breaker closes again."""
    source, peer = BadSource(words), greeted(words, CENTRE)
    person = words.numbers.read_text("ascii")[:11]
    faults: list[str] = []
    codes: Counter[str] = Counter()
    longest_s, number = 0.0, 0

    def ask() -> Code | None:
        nonlocal longest_s, number
        number += 1
        begun_s = time.monotonic()
        peer.ask(request(number, person))
        answer = _answer_to(peer, number, begun_s + 10)
        longest_s = max(longest_s, time.monotonic() - begun_s)
        return Code(answer.code) if answer is not None else None

    for way in WAYS:
        ends_s = time.monotonic() + _BREAKER_SECONDS_MAX
        source.way = "good"
        while ask() is not Code.ANSWERED_WITH_DATA and time.monotonic() < ends_s:
            time.sleep(0.2)
        source.way = way
        for _ in range(_ASKED_TO_BREAK if way == "hang and break" else _ASKED_PER_WAY):
            code = ask()
            codes[f"{way}: {code.name if code is not None else 'nothing'}"] += 1
            good = code is Code.ANSWERED_WITH_DATA if way == "ten answers" else _is_source(code)
            if not good:
                faults.append(f"{way}: {code!r}")
    if codes[f"hang and break: {Code.SOURCE_BREAKER_OPEN.name}"] == 0:
        faults.append("the breaker never opened")
    if longest_s > _ANSWERED_SECONDS_MAX:
        faults.append(f"an answer took {longest_s:.2f} s")
    return {
        "held": not faults,
        "why": "; ".join(faults[:4]),
        "longest_s": round(longest_s, 2),
        "codes": codes,
    }


def _is_source(code: Code | None) -> bool:
    return code is not None and code.stage is Stage.ROUTING


def _answer_to(peer: Peer, number: int, ends_s: float) -> Answer | None:
    while time.monotonic() < ends_s:
        for event in peer.events(0.5):
            if isinstance(event, Answer) and event.id == number:
                return event
    return None


def request(number: int, person: str) -> Request:
    """What only the bad source answers."""
    return Request(
        id=number,
        service=SERVICE,
        version=1,
        ticket=f"abuse-{number}",
        user=USER,
        means="eid",
        level=4,
        sector=SECTOR,
        type=TYPE,
        capacity=CAPACITY,
        person=person,
        deadline_ms=_DEADLINE_MS,
    )
