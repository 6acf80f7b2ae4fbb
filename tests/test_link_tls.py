"""TLS of a link against OpenSSL on a socket: records cut anywhere, broken, half closed, rekeyed."""

import contextlib
import itertools
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from ksz_router.cli.testpki import issue
from ksz_router.codes import Code
from ksz_router.limits import buffered_bytes_max, payload_bytes_max
from ksz_router.link import Link
from ksz_router.messages import Answer
from ksz_router.tls import ALPN
from ksz_router.wire import Connection, Ended, Event, Hello, Side, Welcome
from tests.daemon_parts import in_trio
from tests.link_pairs import FRONT_URI, Pki, received, tcp_pair
from tests.test_link import answer, until_said
from tests.worlds import ask

_CUTS = (1, 3, 5, 16_384, 21, 16_406, 16_405, 2, 70_001, 255, 40_000)
"""Around the size of a record, its head and its tag, and others that fit nothing."""
_RECORD_HEAD_BYTES, _TAG_BYTES = 5, 16
TRUNCATED = Ended(Code.CONNECTION_TRUNCATED, by_peer=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Peer:
    """The other end: OpenSSL between two buffers, whose every byte the test sends or keeps."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.connection = Connection(Side.REQUESTER, agent="peer")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing)

    async def shake_hands(self, read_bytes: int = 1 << 16, last: bytes = b"") -> None:
        """Where there is something to say ``last``, it goes with Finished, behind the Hello."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(self._outgoing.read())
                await trio.lowlevel.wait_readable(self.sock)
                self._incoming.write(self.sock.recv(read_bytes))
            else:
                if last:
                    self.tls.write(self.connection.data_to_send() + last)
                await self.send(self._outgoing.read())
                return

    def sealed(self) -> bytes:
        """The records of what the connection has to say."""
        plain = self.connection.data_to_send()
        if plain:
            self.tls.write(plain)
        return self._outgoing.read()

    def goodbye_of_tls(self) -> bytes:
        """The record that closes TLS in order, on this side."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    async def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self.sock.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    def read(self, bytes_max: int = 1 << 16) -> list[Event]:
        """Take what came, up to a bound."""
        try:
            data = self.sock.recv(bytes_max)
        except BlockingIOError:
            return []
        self._incoming.write(data)
        events = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while plain := self.tls.read(1 << 16):
                events += self.connection.receive_data(plain)
        return events


@asynccontextmanager
async def shaken(pki: Pki) -> AsyncIterator[tuple[Link, Peer]]:
    """A link and a peer after the handshake, the peer's Hello unsent."""
    accepted, dialled = tcp_pair()
    front = Link(accepted, pki.front_context(), Connection(Side.FRONT, agent="front"))
    peer = Peer(dialled, pki.caller_context())
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.handshake)
            nursery.start_soon(peer.shake_hands)
        yield front, peer
    front.close()
    dialled.close()


@asynccontextmanager
async def greeted(pki: Pki) -> AsyncIterator[tuple[Link, Peer]]:
    """The same after Hello and Welcome."""
    async with shaken(pki) as (front, peer):
        await peer.send(peer.sealed())
        assert [type(event) for event in await received(front, 1)] == [Hello]
        front.flush()
        await trio.lowlevel.wait_readable(peer.sock)
        assert [type(event) for event in peer.read()] == [Welcome]
        yield front, peer


def cut(data: bytes) -> Iterator[bytes]:
    """In pieces of odd sizes."""
    at = 0
    for size in itertools.cycle(_CUTS):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


@in_trio
async def test_the_largest_frames_arrive_however_their_records_are_cut(pki: Pki) -> None:
    """A piece may end in the head of a record, in its middle or its tag, or hold several."""
    asked = [ask(id=number, payload=os.urandom(payload_bytes_max)) for number in range(3)]
    async with greeted(pki) as (front, peer):
        events: list[Event] = []
        for request in asked:
            peer.connection.send(request)
        for piece in cut(peer.sealed()):
            await peer.send(piece)
            await front.wait_readable()
            events += front.receive()
        assert events == asked


@in_trio
async def test_the_largest_answers_arrive_however_little_the_peer_reads(pki: Pki) -> None:
    """What the kernel takes of a record and what it leaves is the peer's to choose."""
    payloads = [os.urandom(payload_bytes_max) for _ in range(3)]
    async with greeted(pki) as (front, peer):
        front._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        for number, payload in enumerate(payloads):
            front.send(answer(number, payload))
            front.flush()
        events: list[Event] = []
        for size in itertools.cycle(_CUTS):
            await trio.lowlevel.wait_readable(peer.sock)
            events += peer.read(size)
            front.flush()
            if len(events) == len(payloads):
                break
        assert [event.payload for event in events if isinstance(event, Answer)] == payloads
        assert front.unsent_bytes == 0


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("kept_bytes", [1, 5, 6, -17, -1], ids=str)
@in_trio
async def test_a_record_cut_off_gives_nothing_of_itself(
    pki: Pki, kept_bytes: int, *, is_reset: bool
) -> None:
    """What came whole before is told, then the truncation; of the part nothing, not even where
    its plain text would be a whole frame but for the tag."""
    async with greeted(pki) as (front, peer):
        peer.connection.send(ask(id=1))
        await peer.send(peer.sealed())
        before = await received(front, 1)
        peer.connection.send(ask(id=2))
        await peer.send(peer.sealed()[:kept_bytes])
        if is_reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
            peer.sock.close()
        else:
            peer.sock.shutdown(socket.SHUT_WR)

        assert before + await received(front, 1) == [ask(id=1), TRUNCATED]
        assert front.receive() == []


@pytest.mark.parametrize("where", [_RECORD_HEAD_BYTES, -_TAG_BYTES - 1, -1], ids=str)
@in_trio
async def test_a_record_with_one_bit_turned_is_no_message(pki: Pki, where: int) -> None:
    """Nothing of it comes out, nor of what follows; the peer is told by TLS itself."""
    async with greeted(pki) as (front, peer):
        peer.connection.send(ask(id=1))
        broken = bytearray(peer.sealed())
        broken[where] ^= 1
        peer.connection.send(ask(id=2))
        await peer.send(bytes(broken) + peer.sealed())

        assert await received(front, 1) == [Ended(Code.FRAME_MALFORMED, by_peer=True)]
        front.flush()
        await trio.lowlevel.wait_readable(peer.sock)
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            peer.read()


@pytest.mark.parametrize("says_goodbye", [True, False], ids=["close_notify", "FIN"])
@in_trio
async def test_who_closed_its_side_hears_ours_to_the_end(pki: Pki, *, says_goodbye: bool) -> None:
    """After the peer's last record, with a TLS close or without, a large answer still goes out."""
    payload = os.urandom(payload_bytes_max)
    async with greeted(pki) as (front, peer):
        peer.connection.send(ask(id=7))
        await peer.send(peer.sealed())
        front.send(answer(7, payload))
        if says_goodbye:
            await peer.send(peer.goodbye_of_tls())
        peer.sock.shutdown(socket.SHUT_WR)

        assert await received(front, 2) == [ask(id=7), TRUNCATED]
        events: list[Event] = []
        while not events:
            front.flush()
            await trio.lowlevel.wait_readable(peer.sock)
            events = peer.read()
        assert isinstance(events[0], Answer)
        assert events[0].payload == payload


@in_trio
async def test_what_follows_a_close_of_tls_is_not_heard(pki: Pki) -> None:
    """After it no record counts, whatever its bytes are."""
    async with greeted(pki) as (front, peer):
        await peer.send(peer.goodbye_of_tls() + b"\x17\x03\x03\x00\x20" + bytes(32))

        assert await received(front, 1) == [TRUNCATED]
        assert front.receive() == []


@in_trio
async def test_a_handshake_goes_out_in_as_many_parts_as_the_kernel_takes(pki: Pki) -> None:
    """A large certificate, little room to send it and a peer that reads little by little."""
    names = [f"front-{number}.example" for number in range(4_500)]
    large = issue(pki.authority, "front", uris=[FRONT_URI], dns_names=names)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as dialled:
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        dialled.connect(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        front = Link(accepted, pki.front_context(large), Connection(Side.FRONT, agent="front"))
        peer = Peer(dialled, pki.caller_context())
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(front.handshake)
                nursery.start_soon(peer.shake_hands, 5_000)
            await peer.send(peer.sealed())
            assert [type(event) for event in await received(front, 1)] == [Hello]
        front.close()


@in_trio
async def test_a_handshake_takes_little_of_what_follows_it(pki: Pki) -> None:
    """Who sends on at once is not read far before it is known; nothing of it is lost."""
    pings_count = 8_000
    accepted, dialled = tcp_pair()
    front = Link(accepted, pki.front_context(), Connection(Side.FRONT, agent="front"))
    peer = Peer(dialled, pki.caller_context())
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(front.handshake)
            await peer.shake_hands(last=b"\0\0\0\3\x92\3\1" * pings_count)
        taken_bytes = front._incoming.pending
        front.receive()
        while front.connection.frames_count < 1 + pings_count:
            if not front.connection.has_more:
                await front.wait_readable()
            front.receive()
    assert 0 < taken_bytes <= buffered_bytes_max
    assert not front.connection.is_ended
    front.close()
    dialled.close()


@in_trio
async def test_a_large_answer_leaves_no_room_behind(pki: Pki) -> None:
    """Once it is sent, what a connection holds of memory has nothing to do with its size."""
    payload = os.urandom(payload_bytes_max)
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(greeted(pki)) for _ in range(32)]
        before_kib = anonymous_kib()
        for front, peer in ends:
            front.send(answer(1, payload))
            events: list[Event] = []
            while not events:
                front.flush()
                await trio.lowlevel.wait_readable(peer.sock)
                events = peer.read()
        kept_kib = (anonymous_kib() - before_kib) / len(ends)
    assert kept_kib < 512, "two ends, and what the test itself needs"


def anonymous_kib() -> int:
    """What this process has of memory that is no file's."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed here")
@pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["both ways", "one way"])
@in_trio
async def test_keys_change_again_and_again_amid_what_is_said(pki: Pki, command: bytes) -> None:
    """``openssl s_client`` changes its keys, and asks for ours or not; each time small and large
    frames go on both ways under the new ones."""
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(20):
        process = await trio.lowlevel.open_process(
            ["openssl", "s_client", "-tls1_3", "-alpn", ALPN,
             "-connect", f"127.0.0.1:{listener.getsockname()[1]}",
             "-cert", pki.file(pki.caller.certificate), "-key", pki.file(pki.caller.key)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        say, said, told = process.stdin, process.stdout, process.stderr
        assert say is not None
        assert said is not None
        assert told is not None
        await trio.lowlevel.wait_readable(listener)
        front = Link(
            listener.accept()[0], pki.front_context(), Connection(Side.FRONT, agent="front")
        )
        await front.handshake()
        peer = Connection(Side.REQUESTER, agent="peer")
        await say.send_all(peer.data_to_send())
        await received(front, 1)
        front.flush()
        for number in range(3):
            await say.send_all(command)
            await until_said(told, b"KEYUPDATE")
            frame = msgspec.msgpack.encode(ask(id=number, payload=bytes(9_000)))
            await say.send_all(len(frame).to_bytes(4, "big") + frame)
            assert await received(front, 1) == [ask(id=number, payload=bytes(9_000))]
            payload = os.urandom(100_000)
            front.send(answer(number, payload))
            front.flush()
            await until_said(said, payload)
        front.close()
        process.kill()
        await process.wait()
        for stream in (say, said, told):
            await stream.aclose()
