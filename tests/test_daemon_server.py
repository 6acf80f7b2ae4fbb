"""Who gets in and who gives way: real sockets at a real listener, in stages and behind bounds."""

import contextlib
import errno
import functools
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import ParamSpec

import pytest
import trio
import trio.testing

from ksz_router.cli.testpki import ROUTER_URI
from ksz_router.codes import Code
from ksz_router.config import Connections
from ksz_router.daemon import gate, server
from ksz_router.limits import (
    first_byte_seconds_max,
    handshake_seconds_max,
)
from ksz_router.privacylog.entry import Kind
from ksz_router.tls import ALPN
from ksz_router.wire import Ended
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller, context_of
from tests.worlds import CENTRE, MANAGER, PENSIONS, REGISTER, RVA, ask, uri

P = ParamSpec("P")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@pytest.fixture
def knock() -> Iterator[Callable[..., socket.socket]]:
    """Connect from an address of this machine; everything is closed at the end."""
    opened = []

    def connect(p: Parts, address: str = "127.0.0.2") -> socket.socket:
        sock = socket.create_connection(p.listener.getsockname(), source_address=(address, 0))
        sock.setblocking(False)
        opened.append(sock)
        return sock

    yield connect
    for sock in opened:
        sock.close()


Knock = Callable[..., socket.socket]


def client_hello() -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    tls = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def is_closed(sock: socket.socket) -> bool:
    """The router closed this connection."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def turns_until(condition: Callable[[], object]) -> None:
    """Let everybody run until it is so, without any time passing on the clock of the test."""
    for _ in range(20_000):
        if condition():
            await trio.testing.wait_all_tasks_blocked()
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never came about")


@asynccontextmanager
async def router(
    ground: Ground, **bounds: float
) -> AsyncIterator[tuple[Parts, trio.testing.MockClock]]:
    """A worker whose time passes only when the test says so."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    places = int(bounds.pop("places", 4_096))
    connections = Connections(**bounds)  # type: ignore[arg-type]
    async with parts(ground, connections=connections, places=places) as p:
        yield p, clock


def at_a_standstill(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test on a clock that only the test moves."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock())

    return run


@at_a_standstill
async def test_a_silent_connection_is_closed_after_its_seconds_and_costs_no_tls(
    ground: Ground, knock: Knock
) -> None:
    """Until a byte comes nothing is made for it; then the time for the first byte is over."""
    async with router(ground) as (p, clock):
        silent = [knock(p) for _ in range(20)]
        await turns_until(lambda: p.server.gate.pending == 20)
        clock.jump(first_byte_seconds_max - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        assert not any(map(is_closed, silent))
        clock.jump(0.2)
        await turns_until(lambda: all(map(is_closed, silent)))
        assert p.metrics.handshakes == {"peer_too_slow": 20}
        assert (p.server.gate.pending, p.server.gate.taken) == (0, 0)


@at_a_standstill
async def test_who_waits_costs_no_task_and_is_closed_with_the_worker(
    ground: Ground, knock: Knock
) -> None:
    """One task hears all of them, silent, half said and without a turn; its end is theirs."""
    async with router(ground, handshakes_per_second=0.001, pending_per_address=100) as (p, _):
        await trio.testing.wait_all_tasks_blocked()
        tasks_before = trio.lowlevel.current_statistics().tasks_living
        waiting = [knock(p, f"127.0.0.{2 + n % 3}") for n in range(90)]
        for said, sock in zip(itertools.cycle((b"", b"\x16", client_hello())), waiting):
            sock.send(said)
        await turns_until(lambda: len(p.server._turns) == 26)
        assert trio.lowlevel.current_statistics().tasks_living - tasks_before == 4, "the burst"
    assert sum(map(is_closed, waiting)) == 86, "of the burst there is an answer to read first"


@at_a_standstill
async def test_the_time_of_a_handshake_begins_with_its_first_byte(
    ground: Ground, knock: Knock
) -> None:
    """However late that is, the time from it on is the same; who is silent has less."""
    async with router(ground) as (p, clock):
        late, silent = knock(p), knock(p)
        await turns_until(lambda: p.server.gate.pending == 2)
        clock.jump(first_byte_seconds_max - 0.1)
        late.send(b"\x16")
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(handshake_seconds_max - 0.1)
        await turns_until(lambda: is_closed(silent))
        assert not is_closed(late)
        clock.jump(0.2)
        await turns_until(lambda: is_closed(late))


@at_a_standstill
async def test_a_client_hello_byte_by_byte_gets_no_turn_and_no_tls(
    ground: Ground, knock: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow one is waited for by the kernel; it is gone in time however it goes on dribbling."""
    made = []
    monkeypatch.setattr(server, "Link", lambda *args: made.append(args))
    async with router(ground) as (p, clock):
        slow, hello = knock(p), client_hello()
        for n in range(6):
            slow.send(hello[n : n + 1])
            await trio.testing.wait_all_tasks_blocked()
            assert not is_closed(slow), n
            clock.jump(0.8)
        assert len(p.server._turns) == 0
        clock.jump(handshake_seconds_max)
        await turns_until(lambda: is_closed(slow))
        assert made == []
        assert p.metrics.handshakes == {"peer_too_slow": 1}


@at_a_standstill
async def test_a_hello_in_two_pieces_is_a_hello(ground: Ground, knock: Knock) -> None:
    """Wherever it is cut, also inside the head of its record, the handshake goes on when it is
    whole; and who hangs up inside it is gone at once."""
    async with router(ground) as (p, clock):
        hello = client_hello()
        for cut in (1, 4, 5, 6, len(hello) - 1):
            clock.jump(0.1)
            sock = knock(p)
            sock.send(hello[:cut])
            await trio.testing.wait_all_tasks_blocked()
            sock.send(hello[cut:])
            await turns_until(functools.partial(readable, sock))
            assert sock.recv(3) == b"\x16\x03\x03", "the ServerHello"
            gone = knock(p)
            gone.send(hello[:cut])
            gone.shutdown(socket.SHUT_WR)
            await turns_until(functools.partial(is_closed, gone))
        assert p.metrics.handshakes == {"connection_truncated": 5}


def readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@at_a_standstill
async def test_a_flood_of_silent_ones_of_the_own_address_locks_nobody_out(
    ground: Ground, knock: Knock
) -> None:
    """Behind one proxy all have one address: the oldest silent ones give way to who comes."""
    async with router(ground, pending_per_address=8) as (p, _):
        silent = [knock(p, "127.0.0.1") for _ in range(40)]
        await turns_until(lambda: sum(map(is_closed, silent)) == 32)
        assert [is_closed(sock) for sock in silent] == [True] * 32 + [False] * 8
        caller = await connect(p)
        assert caller.is_open
        assert p.server.gate.pending == 7
        assert p.metrics.handshakes["done"] == 1
        assert p.refused.count((Code.PEER_TOO_SLOW, "gave way to others")) == 33


@at_a_standstill
async def test_an_address_with_too_many_handshakes_is_refused_and_no_other(
    ground: Ground, knock: Knock
) -> None:
    """Who speaks does not give way to more of the same address; another address gets in."""
    async with router(ground, pending_per_address=8) as (p, clock):
        begun = [knock(p) for _ in range(8)]
        for sock in begun:
            sock.send(client_hello())
        await turns_until(lambda: p.server.gate.pending == 8 and not p.server.gate._silent)
        refused = [knock(p) for _ in range(5)]
        await turns_until(lambda: all(map(is_closed, refused)))
        assert not any(map(is_closed, begun))
        assert p.refused == [(Code.TOO_MANY_CONNECTIONS, "too many of this address")] * 5
        for _ in range(3):
            clock.jump(0.1)
            await trio.testing.wait_all_tasks_blocked()
        assert (await connect(p)).is_open


@at_a_standstill
async def test_full_places_of_silent_ones_make_way(ground: Ground, knock: Knock) -> None:
    """All places taken by connections of many addresses that say nothing: a good one gets in."""
    async with router(ground, places=16) as (p, _):
        silent = [knock(p, f"127.0.0.{10 + n % 8}") for n in range(16)]
        await turns_until(lambda: p.server.gate.taken == 16)
        assert (await connect(p)).is_open
        assert sum(map(is_closed, silent)) == 1
        assert is_closed(silent[0])


@in_trio
async def test_full_places_of_institutions_wait_in_the_kernel_until_one_is_free(
    ground: Ground,
) -> None:
    """Nobody who is in is put out, and nobody is refused: who comes waits, where another worker
    may take it, and is taken by itself as soon as somebody leaves."""
    async with parts(ground, places=4) as p:
        callers = [await p.connect(kbo) for kbo in (CENTRE, MANAGER, RVA, PENSIONS)]
        assert p.server.gate.is_closed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(p.connect, REGISTER)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(p.loop.sessions) == 4
            callers[0].close()
            callers[0].link.connection.receive_end()
            await p.until(lambda: p.callers[-1] is not callers[-1] and p.callers[-1].is_open)
        assert len(p.loop.sessions) == 4
        assert p.refused == []


@at_a_standstill
async def test_a_crowd_at_the_door_is_taken_in_by_a_few_at_a_time(
    ground: Ground, knock: Knock
) -> None:
    """Of many that wait in the kernel each look takes several and leaves the others for the other
    workers; nobody is forgotten there."""
    async with router(ground) as (p, _):
        many = [knock(p, f"127.0.0.{2 + n % 4}") for n in range(50)]
        taken = [0]
        while taken[-1] < len(many):
            await trio.lowlevel.checkpoint()
            if p.server.gate.pending > taken[-1]:
                taken.append(p.server.gate.pending)
        steps = [later - earlier for earlier, later in itertools.pairwise(taken)]
        assert 8 <= max(steps) <= 16, "at most two looks between two of ours"
        assert not any(map(is_closed, many))


@in_trio
async def test_an_institution_with_too_many_connections_is_told_the_bound(ground: Ground) -> None:
    """The one too many gets a Bye that says why; it is counted for its institution, and another
    institution gets in; as does its own next one once one has left."""
    async with parts(ground, connections=Connections(per_institution=2)) as p:
        callers = [await p.connect(), await p.connect()]
        context = context_of(ground.pki, CENTRE, serves=False)
        port = p.listener.getsockname()[1]
        refused = await Caller.connect(port, context, router=ROUTER_URI, uri=uri(CENTRE))
        p.callers.append(refused)
        await p.until(lambda: refused.ended)
        assert refused.ended == Ended(
            Code.TOO_MANY_CONNECTIONS, by_peer=True, text="at most 2 at once, per worker"
        )
        refused.close()
        assert (await p.connect(MANAGER)).is_open
        callers[0].close()
        callers[0].link.connection.receive_end()
        await p.until(lambda: len(p.loop.sessions) == 2)
        assert (await p.connect()).is_open
        p.summarise()
        await p.until(lambda: p.durable)
        assert [(e.kind, e.requester, e.counts) for e in p.durable] == [
            (Kind.SUMMARY, uri(CENTRE), ((Code.TOO_MANY_CONNECTIONS, 1),))
        ]
        await p.until(lambda: p.server.gate.taken == 3)


@at_a_standstill
async def test_a_handshake_that_stops_gives_way_to_the_next_at_the_bound(
    ground: Ground, knock: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a ServerHello and says nothing more holds a TLS object only while few do so."""
    monkeypatch.setattr(gate, "handshakes_at_once_max", 3)
    async with router(ground) as (p, clock):
        stuck = []
        for n in range(6):
            stuck.append(knock(p, f"127.0.0.{20 + n}"))
            stuck[-1].send(client_hello())
            await turns_until(lambda: readable(stuck[-1]))
            clock.jump(0.1)
        await turns_until(lambda: p.server.gate.pending == 3)
        assert p.refused == [(Code.PEER_TOO_SLOW, "gave way to others")] * 3
        assert (await connect(p)).is_open
        clock.jump(handshake_seconds_max)
        await turns_until(lambda: p.server.gate.pending == 0)


@at_a_standstill
async def test_a_flood_of_handshakes_is_paced_and_a_good_one_is_next(
    ground: Ground, knock: Knock
) -> None:
    """Of 60 that come at once from one address a few get their turn; another address is next."""
    async with router(ground, handshakes_per_second=10.0) as (p, clock):
        flood = [knock(p) for _ in range(60)]
        for sock in flood:
            sock.send(client_hello())
        await turns_until(lambda: len(p.server._turns) == 56)
        assert sum(map(readable, flood)) == 4, "the burst of everyone"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, p)
            await turns_until(lambda: len(p.server._turns) == 57)
            for _ in range(2):
                clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked()
            await turns_until(lambda: p.callers)
        assert p.metrics.handshakes == {"done": 1}
        clock.jump(handshake_seconds_max)
        await turns_until(lambda: p.server.gate.pending == 0)
        assert (Code.TOO_MANY_CONNECTIONS, "no turn in time") in p.refused


@in_trio
async def test_descriptors_that_run_out_stop_nothing_for_good(
    ground: Ground, knock: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there are none an accept fails and is counted; what is connected is served; then
    accepting resumes by itself."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        listener, failing = p.server._listener, True

        class Exhausted:
            def fileno(self) -> int:
                return listener.fileno()

            def accept(self) -> object:
                if failing:
                    raise OSError(errno.EMFILE, "Too many open files")
                return listener.accept()

        knock(p)  # the server waits at the real one; it comes back to the other
        await p.until(lambda: p.server.gate.pending)
        monkeypatch.setattr(p.server, "_listener", Exhausted())
        knock(p)
        await p.until(lambda: p.metrics.handshakes["no_room"])
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply()
        await p.until(lambda: caller.answers)
        failing = False
        assert (await p.connect()).is_open


async def dial(p: Parts) -> None:
    """Shake hands as the centre; nobody takes a turn meanwhile but the server."""
    context = context_of(p.ground.pki, CENTRE, serves=False)
    port = p.listener.getsockname()[1]
    p.callers.append(await Caller.connect(port, context, router=ROUTER_URI, uri=uri(CENTRE)))


async def connect(p: Parts) -> Caller:
    """Connect the centre without any time passing."""

    def is_open() -> bool:
        p.turn()
        return len(p.callers) > before and p.callers[-1].is_open

    before = len(p.callers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, p)
        await turns_until(is_open)
    return p.callers[-1]
