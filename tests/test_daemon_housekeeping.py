"""What a worker does once a second, with a clock that the test moves: nobody waits."""

import math
import socket
from collections.abc import Iterator

import pytest

from ksz_router.cli.testpki import ROUTER_URI
from ksz_router.codes import Code
from ksz_router.daemon.source import SourceLink
from ksz_router.dial import dial
from ksz_router.limits import (
    hello_seconds_max,
    ping_interval_seconds,
    pong_seconds_max,
    slow_reader_seconds_max,
    slow_sender_seconds_max,
)
from ksz_router.wire import Connection, Side
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import context_of
from tests.worlds import CENTRE, RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def tick(p: Parts, seconds: float = 1.0) -> None:
    """Let so many seconds pass, a tick in each, as a worker does; peers do nothing meanwhile."""
    for _ in range(math.ceil(seconds)):
        p.now_ns += 1_000_000_000
        p.housekeeping.tick()


def endings(p: Parts) -> list[Code]:
    return [ended.code for _, ended in p.ended]


@in_trio
async def test_who_does_not_say_hello_in_time_is_let_go(ground: Ground) -> None:
    """A connection that shook hands and then says nothing ends after its seconds, not before."""
    async with parts(ground) as p:
        context = context_of(ground.pki, CENTRE, serves=False)
        port = p.listener.getsockname()[1]
        link = await dial(
            "127.0.0.1", port, context, Connection(Side.REQUESTER, agent="mute"), ROUTER_URI
        )
        await p.until(lambda: p.loop.sessions)
        tick(p, hello_seconds_max)
        assert endings(p) == []
        tick(p)
        assert endings(p) == [Code.HELLO_LATE]
        link.close()


@in_trio
async def test_who_is_silent_is_pinged_and_stays_if_it_answers(ground: Ground) -> None:
    """After the interval a Ping goes out; the Pong is enough, for requesters and sources alike."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply()
        await p.until(lambda: caller.answers)
        for _ in range(3):
            before = {peer: peer.link.sent_bytes for peer in p.loop.peers.values()}
            tick(p, ping_interval_seconds + 1)
            assert all(peer.link.sent_bytes > sent for peer, sent in before.items())
            p.now_ns += 1_000_000
            await p.until(lambda: all(q.heard_ns == p.now_ns for q in p.loop.peers.values()))
        assert endings(p) == []
        assert len(p.loop.peers) == 2


@in_trio
async def test_who_answers_no_ping_is_let_go(ground: Ground) -> None:
    """Silence after the Ping ends the connection once the Pong's time is over."""
    async with parts(ground) as p:
        await p.connect()
        tick(p, ping_interval_seconds + 1 + pong_seconds_max)
        assert endings(p) == []
        tick(p)
        assert endings(p) == [Code.PEER_SILENT]


@in_trio
async def test_who_never_finishes_a_frame_is_let_go(ground: Ground) -> None:
    """Each frame has its time, however many were finished before; a trickle does not prolong it."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        (session,) = p.loop.sessions
        for number in range(6):
            caller.link.send(ask(id=number, payload=bytes(40)))
        stream = caller.link.connection.data_to_send()
        size = len(stream) // 6

        def write(data: bytes) -> None:
            caller.link._tls.write(data)
            caller.link.flush()

        write(stream[: size // 2])
        for number in range(4):
            await p.until(lambda n=number: session.link.connection.frame_in_part == 1 + n)
            tick(p, slow_sender_seconds_max)
            assert endings(p) == []
            write(stream[size // 2 + size * number : size // 2 + size * (number + 1)])
            await p.until(lambda n=number: len(source.deliveries) == n + 1)
        at = size // 2 + 4 * size
        for step in range(12):
            assert endings(p) == [], step
            session.heard_ns = p.now_ns
            write(stream[at + step : at + step + 1])
            await p.until(lambda s=step: len(session.link.connection._pending) > s)
            tick(p)
        assert endings(p) == [Code.PEER_TOO_SLOW]


@in_trio
async def test_who_reads_nothing_is_let_go(ground: Ground) -> None:
    """Bytes that the kernel does not take must move on; a reader that crawls is left alone."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        (session,) = p.loop.sessions
        session.link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        caller.reads = False
        caller.ask(*(ask(id=number) for number in range(8)))
        await p.until(lambda: len(source.deliveries) == 8)
        for index in range(8):
            source.reply(index, payload=bytes(900_000))
        await p.until(lambda: session.inflight == {} and session.link.unsent_bytes)
        for _ in range(3):
            tick(p, slow_reader_seconds_max)
            session.heard_ns = p.now_ns
            assert endings(p) == []
            before = session.link.sent_bytes
            while session.link.sent_bytes == before:
                caller.link.receive()
                p.loop.turn()
        tick(p, slow_reader_seconds_max + 2)
        assert [e.code for peer, e in p.ended if peer is session] == [Code.PEER_TOO_SLOW]


@in_trio
async def test_a_source_that_drains_is_left_once_nothing_is_open_there(ground: Ground) -> None:
    """What is in flight is still answered; then the connection is closed in peace, and another."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(id=1))
        await p.until(lambda: source.deliveries)
        source.drain(source.links[0])
        source.links[0].flush()
        (link,) = [peer for peer in p.loop.peers.values() if isinstance(peer, SourceLink)]
        await p.until(lambda: link.is_draining)
        tick(p)
        assert endings(p) == []
        caller.ask(ask(id=2))
        await p.until(lambda: len(source.deliveries) == 2)
        assert source.deliveries[1][0] is not source.deliveries[0][0], "a new connection"
        source.reply(0)
        await p.until(lambda: caller.answers)
        tick(p)
        assert endings(p) == [Code.CLOSED_IN_PEACE]
        source.reply(1)
        await p.until(lambda: len(caller.answers) == 2)
        assert {answer.code for answer in caller.answers} == {Code.ANSWERED_WITH_DATA}


@in_trio
async def test_what_is_gone_is_not_remembered(ground: Ground) -> None:
    """Marks of slow peers end with their connections."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.link._tls.write(b"\0\0\0\x09\x99")
        caller.link.flush()
        (session,) = p.loop.sessions
        await p.until(lambda: session.link.connection.frame_in_part)
        tick(p)
        assert p.housekeeping._reading
        caller.close()
        await p.until(lambda: p.ended)
        assert not p.housekeeping._reading
        assert not p.housekeeping._writing
