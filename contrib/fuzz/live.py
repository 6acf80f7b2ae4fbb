"""Mutated conversations against a router that runs: as its requesters, and as one of its sources.

Alongside, a good client asks a good source over and over. What must hold: every one of its
requests is answered with data; what a mutant is told is well formed; and afterwards the same
workers run, with as few connections and as little memory as before.
"""

import functools
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import trio

from contrib import vector_bytes as v
from contrib.fuzz import mutations
from contrib.fuzz.hostile import PING, HostileSource
from contrib.stand import ROUTER_URI, Stand
from ksz_router import tls
from ksz_router.codes import MEANINGS, Code
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer, Delivery, Outcome, Request
from ksz_router.sdk import Client, Provider, Supply, new_ticket, open_client
from ksz_router.wire import Connection, Ended, Hello, Side

GOOD_SOURCE, HOSTILE_SOURCE = "0999010126", "0999015767"
ASKER, HOSTILE_ASKER = "0999016460", "0999019232"
INSTITUTIONS = (GOOD_SOURCE, HOSTILE_SOURCE, ASKER, HOSTILE_ASKER)
PERSONS = landmarks(1)
USER = "85073099734"
OPTIONS = {
    "sources": {"breaker_failures": 1000, "breaker_open_seconds": 0.05},
    "connections": {
        "handshakes_per_second": 10_000.0,
        "handshakes_per_second_per_address": 10_000.0,
        "per_institution": 1_024,
    },
}
"""So that the hostile source is asked on, whatever it does, and mutants are not kept waiting."""

ASKED: v.Fields = {
    "service": "UnemploymentData", "version": 3, "user": USER, "sector": 17, "type": 1,
    "capacity": 2, "person": PERSONS["answered"], "payload": b"a question", "ticket": "T",
    "deadline_ms": 2_000,
}  # fmt: skip
HOSTILE: v.Fields = {"service": "OccupationalDisease", "version": 1, "deadline_ms": 500}


class Tally(msgspec.Struct):
    """What came of it all."""

    mutants: int = 0
    ends: Counter[str] = msgspec.field(default_factory=Counter)
    codes: Counter[str] = msgspec.field(default_factory=Counter)
    """Of the answers to mutants."""
    asked_of_hostile: Counter[str] = msgspec.field(default_factory=Counter)
    """What was answered to requests that went to the hostile source."""
    good: int = 0
    slowest_good_ms: float = 0.0
    rss_kib: int = 0
    rss_growth_kib: int = 0


def talks_of_requesters() -> list[list[bytes]]:
    """Valid conversations of the asker in the world of the stand."""
    hello = v.message("Hello", v.HELLO)
    changes: list[v.Fields] = [
        *({"person": number} for number in PERSONS.values()),
        {"capacity": 6}, {"begin": 20260101, "end": 20260630}, {"kbo": ASKER}, {"payload": b""},
        {"means": "eid", "level": 4}, {"final_client": v.SOURCE}, {"member": v.MEMBER},
        HOSTILE | {"deadline_ms": 200}, {"source": GOOD_SOURCE},
        {"sector": None, "type": None, "capacity": None, "legal_framework": "PCSA:SOCIAL_INQUIRY"},
    ]  # fmt: skip
    requests = [v.message("Request", ASKED | {"id": n} | c) for n, c in enumerate(changes)]
    test = v.message("Request", v.LEAST | {"id": 1000})
    rest = [PING, v.message("Pong", {"number": 1}), v.message("Drain", {"seconds": 1}), test]
    talks = [[hello, request] for request in requests]
    talks += [[hello, *requests[n : n + 4], *rest[n % 4 :]] for n in range(0, len(requests), 2)]
    talks += [[hello, test, v.message("Bye", {"code": 1})], [hello, *rest]]
    return talks


class Storm:
    """Mutants from many connections at a stand that is started."""

    def __init__(self, stand: Stand, *, count: int, seed: int, ports: tuple[int, int]) -> None:
        self.stand, self.count, self.seed = stand, count, seed
        self.good_port, self.hostile_port = ports
        self.tally = Tally()
        self._numbers: Iterator[int] = iter(range(count))
        self._talks = talks_of_requesters()
        recorded = mutations.recorded()
        self._pool = [frame for side in recorded.values() for talk in side for frame in talk]
        self._contexts = {kbo: self._context(kbo) for kbo in (ASKER, HOSTILE_ASKER)}

    async def run(self, *, attackers: int = 6) -> Tally:
        """Return once every mutant was sent and everything is as quiet as before.

        Raises:
            AssertionError: something of what must hold does not.
        """
        async with trio.open_nursery() as nursery, self._good_source():
            context = self._context(HOSTILE_SOURCE, serves=True)
            hostile = HostileSource(context, Random(f"{self.seed}/source"), self._pool)
            await nursery.start(hostile.serve, self.hostile_port)
            async with self._client(ASKER) as good, self._client(ASKER) as provoking:
                nursery.start_soon(self._ask_well, good)
                nursery.start_soon(self._provoke, provoking)
                before = self.stand.worker_pids()
                await self._attack(attackers, self.count // 5)
                warm = self.rss_kib()
                await self._attack(attackers, self.count)
                self.tally.rss_kib = self.rss_kib()
                self.tally.rss_growth_kib = self.tally.rss_kib - warm
                asked = self.tally.good
                while self.tally.good < asked + 20:  # noqa: ASYNC110 - still answered, now
                    await trio.sleep(0.01)
                assert self.stand.worker_pids() == before, "a worker died"
                nursery.cancel_scope.cancel()
        return self.tally

    def rss_kib(self) -> int:
        """The memory of all workers that is theirs alone."""
        total = 0
        for pid in self.stand.worker_pids():
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
        return total

    async def _attack(self, attackers: int, until: int) -> None:
        async def attack() -> None:
            while self.tally.mutants < until and (number := next(self._numbers, None)) is not None:
                self.tally.mutants += 1
                await self._send_mutant(number)

        async with trio.open_nursery() as nursery:
            for _ in range(attackers):
                nursery.start_soon(attack)

    async def _send_mutant(self, number: int) -> None:
        """One connection, one mutant; read what comes back, and judge it."""
        random = Random(f"{self.seed}/live/{number}")
        data = mutations.mutant(random, random.choice(self._talks), self._pool)
        pieces = mutations.cut(random, data)
        asker = random.choice((ASKER, ASKER, HOSTILE_ASKER))
        oracle = Connection(Side.FRONT, agent="", inflight_max=1024)
        expected = oracle.receive_data(data)
        patient = random.random() < 0.5
        sock = socket.create_connection(("127.0.0.1", self.stand.port))
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        stream = trio.SSLStream(plain, self._contexts[asker], https_compatible=True)
        received = b""
        try:
            with trio.fail_after(30):
                for piece in pieces:
                    await stream.send_all(piece)
                if patient:
                    received = await self._listen(stream, expected, ended=oracle.ended)
        except (trio.BrokenResourceError, ConnectionError):
            pass  # the router closed while we still wrote
        finally:
            if random.random() < 0.3:  # reset, in the middle of whatever happens
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with trio.move_on_after(1), suppress(trio.BrokenResourceError):
                await (plain if random.random() < 0.5 else stream).aclose()
            await plain.aclose()
        self._judge(number, received)
        self.tally.ends[oracle.ended.code.name.lower() if oracle.ended else "open"] += 1

    async def _listen(
        self, stream: "trio.SSLStream[trio.SocketStream]", expected: list[Any], *,
        ended: Ended | None,
    ) -> bytes:  # fmt: skip
        """Read until every request that could be read is answered, or the connection is over."""
        asked = [event.id for event in expected if isinstance(event, Request)]
        reader = Connection(Side.REQUESTER, agent="")
        received, answers = b"", Counter[int]()
        while ended is not None or answers.total() < len(asked):
            if not any(isinstance(event, Hello) for event in expected) and ended is None:
                break  # the router waits for a Hello, or for the rest of it
            chunk = await stream.receive_some(65_536)
            if not chunk:
                break
            received += chunk
            events = reader.receive_data(bytes(chunk))
            answers.update(event.id for event in events if isinstance(event, Answer))
            if reader.is_ended:
                break
        else:
            assert answers == Counter(asked), "not one answer each"
        return received

    def _judge(self, number: int, received: bytes) -> None:
        reader = Connection(Side.REQUESTER, agent="")
        for event in reader.receive_data(received):
            if isinstance(event, Ended):
                assert event.by_peer, f"mutant {number}: the router said nonsense: {event}"
            if isinstance(event, Answer):
                meaning = MEANINGS[Code(event.code)]
                said = event.stage, event.official, event.status, event.action
                assert said == (event.code // 1000, meaning.official, meaning.status,
                                meaning.action), f"mutant {number}: {event}"  # fmt: skip
                self.tally.codes[Code(event.code).name.lower()] += 1

    async def _ask_well(self, client: Client) -> None:
        """Ask without end, and never be answered with anything but data."""
        while True:
            fields: dict[str, Any] = ASKED | {"ticket": new_ticket(), "id": 0}
            begun = trio.current_time()
            with trio.fail_after(10):
                answer = await client.ask(Request(**fields))
            took_ms = (trio.current_time() - begun) * 1000
            assert answer.code == Code.ANSWERED_WITH_DATA, answer
            assert answer.payload == b"for a question", "another's answer"
            self.tally.good += 1
            self.tally.slowest_good_ms = max(self.tally.slowest_good_ms, took_ms)
            await trio.sleep(0.002)

    async def _provoke(self, client: Client) -> None:
        """Ask what goes to the hostile source, and be answered all the same."""
        while True:
            fields: dict[str, Any] = ASKED | HOSTILE | {"ticket": new_ticket(), "id": 0}
            with trio.fail_after(10):
                answer = await client.ask(Request(**fields))
            self.tally.asked_of_hostile[Code(answer.code).name.lower()] += 1
            await trio.sleep(0.002)

    def _client(self, kbo: str) -> AbstractAsyncContextManager[Client]:
        identity = self.stand.identity(kbo)
        return open_client(identity, host="127.0.0.1", port=self.stand.port, uri=ROUTER_URI)

    @asynccontextmanager
    async def _good_source(self) -> AsyncIterator[None]:
        async def supply(delivery: Delivery) -> Supply:
            return Supply(Outcome.DATA, payload=b"for " + delivery.payload)

        provider = Provider(
            self.stand.identity(GOOD_SOURCE),
            router_uris={ROUTER_URI},
            services={("UnemploymentData", 3): supply},
        )
        async with trio.open_nursery() as nursery:
            serve = functools.partial(provider.serve, host="127.0.0.1", port=self.good_port)
            await nursery.start(serve)
            yield
            nursery.cancel_scope.cancel()

    def _context(self, kbo: str, *, serves: bool = False) -> ssl.SSLContext:
        identity = self.stand.identity(kbo)
        make = tls.server_context if serves else tls.client_context
        return make(
            certificate=identity.certificate, key=identity.key, authorities=identity.authorities
        )


def judge_events(output: Path) -> None:
    """Assert of the operational log that a terminal may show it, and that it names no person.

    Raises:
        AssertionError: a line is no JSON object of printable ASCII, or holds a number.
    """
    text = output.read_bytes()
    for line in text.splitlines():
        assert all(0x20 <= byte < 0x7F for byte in line), "a line that a terminal would obey"
        assert isinstance(msgspec.json.decode(line), dict), "a line that is no event"
    for number in (*PERSONS.values(), USER):
        assert number.encode() not in text, "the number of a person in the operational log"
    assert b"Traceback" not in text, "an exception that nobody expected"


def shown(tally: Tally) -> dict[str, Any]:
    """The tally for JSON, its biggest counts first."""
    fields = msgspec.structs.asdict(tally)
    return {
        name: dict(value.most_common()) if isinstance(value, Counter) else value
        for name, value in fields.items()
    } | {"slowest_good_ms": round(tally.slowest_good_ms, 1)}
