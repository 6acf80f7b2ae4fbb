"""The link carries every byte in order, whatever the kernel takes, and knows how it ended."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess

import pytest
import trio
from msgspec import Raw

from ksz_router.codes import Code
from ksz_router.limits import events_per_receive_max, frame_bytes_max, payload_bytes_max
from ksz_router.link import Link
from ksz_router.messages import Answer, Envelope, Request
from ksz_router.poller import Poller
from ksz_router.tls import ALPN
from ksz_router.wire import Connection, Ended, Event, Hello, Ping, Side
from tests.daemon_parts import in_trio
from tests.link_pairs import Pki, open_ends, received, tcp_pair
from tests.worlds import ask


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def answer(number: int, payload: bytes) -> Answer:
    return Answer(
        id=number, exchange=b"", code=10001, stage=10, official="", status="", action=0,
        generation="", payload=payload,
    )  # fmt: skip


@in_trio
async def test_a_frame_of_nearly_a_mebibyte_arrives_whole(pki: Pki) -> None:
    """The largest payload takes several reads, and is one event, equal to what was sent."""
    payload = os.urandom(payload_bytes_max)
    async with open_ends(pki) as made:
        made.caller.send(ask(payload=payload))
        made.caller.flush()
        events: list[Event] = []
        while not events:
            events = made.front.receive()
            made.caller.flush()
            await trio.lowlevel.checkpoint()

        assert events == [ask(payload=payload)]
        assert payload_bytes_max >= 15 * frame_bytes_max // 16


@in_trio
async def test_a_flood_comes_in_portions_and_whole_before_the_end_behind_it(pki: Pki) -> None:
    """What is left over makes the link ready again, without a byte from the peer."""
    async with open_ends(pki) as made:
        poller = Poller()
        poller.add(made.front)
        for number in range(20):
            items = (Raw(b"\xc0"),) * 64
            made.caller.send(Envelope(id=64 * number, requests=items))
        made.caller.close()
        portions = []
        with trio.fail_after(5):
            while not made.front.connection.is_ended:
                poller.watch(made.front, read=False, write=False)
                assert poller.ready() == ([], [])
                poller.watch(made.front, read=True, write=False)
                await poller.wait()
                if made.front in poller.ready()[0]:
                    portions.append(made.front.receive())
        poller.close()

        assert max(map(len, portions)) <= events_per_receive_max + 64
        *events, ended = [event for portion in portions for event in portion]
        assert [event.id for event in events if isinstance(event, Request)] == list(range(1280))
        assert ended == Ended(Code.CONNECTION_TRUNCATED, by_peer=True)


@in_trio
async def test_what_the_kernel_does_not_take_is_kept_in_order(pki: Pki) -> None:
    """A peer that does not read leaves bytes here; once it reads, nothing is lost or swapped."""
    payloads = [os.urandom(200_000) for _ in range(10)]
    async with open_ends(pki, send_buffer_bytes=8192) as made:
        for number, payload in enumerate(payloads):
            made.front.send(answer(number, payload))
            made.front.flush()
        unsent = [made.front.unsent_bytes]
        events: list[Event] = []
        while len(events) < len(payloads):
            events += made.caller.receive()
            made.front.flush()
            unsent.append(made.front.unsent_bytes)
            await trio.lowlevel.checkpoint()

        assert [event.payload for event in events if isinstance(event, Answer)] == payloads
        assert unsent[0] > 1_000_000
        assert unsent[-1] == 0
        assert len(set(unsent)) > 10, "it went out in many parts"


@in_trio
async def test_a_peer_that_is_gone_takes_what_was_unsent_with_it(pki: Pki) -> None:
    """After a reset nothing is kept for nobody, flushing does not raise, and reading says why."""
    async with open_ends(pki, send_buffer_bytes=8192) as made:
        made.front.send(answer(1, bytes(900_000)))
        made.front.flush()
        assert made.front.unsent_bytes
        made.caller._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        made.caller._socket.close()
        made.caller.is_closed = True

        made.front.flush()

        assert made.front.unsent_bytes == 0
        assert await received(made.front, 1) == [Ended(Code.CONNECTION_TRUNCATED, by_peer=True)]


@in_trio
async def test_a_connection_cut_without_a_word_is_truncated(pki: Pki) -> None:
    """The end of TCP without the end of TLS comes after what was sent, as a truncation."""
    async with open_ends(pki) as made:
        made.caller.send(ask())
        made.caller.flush()
        made.caller._socket.shutdown(socket.SHUT_WR)

        events = await received(made.front, 2)

        assert events == [ask(), Ended(Code.CONNECTION_TRUNCATED, by_peer=True)]


@in_trio
async def test_a_truncation_in_the_middle_of_a_frame_gives_nothing_of_it(pki: Pki) -> None:
    """Half a request is no request."""
    async with open_ends(pki) as made:
        made.caller.connection.send(ask())
        made.caller._tls.write(made.caller.connection.data_to_send()[:-1])
        made.caller.flush()
        made.caller._socket.shutdown(socket.SHUT_WR)

        events = await received(made.front, 1)

        assert events == [Ended(Code.CONNECTION_TRUNCATED, by_peer=True)]


@in_trio
async def test_half_a_connection_still_carries_the_other_way(pki: Pki) -> None:
    """Who said its last word still hears ours: what we send after its end arrives."""
    async with open_ends(pki) as made:
        with contextlib.suppress(ssl.SSLWantReadError):
            made.caller._tls.unwrap()
        made.caller.flush()
        made.front.send(answer(1, b"still"))
        made.front.flush()

        assert await received(made.front, 1) == [Ended(Code.CONNECTION_TRUNCATED, by_peer=True)]
        assert made.caller._socket.recv(1 << 16)


@in_trio
async def test_a_goodbye_then_a_close_in_order_is_peace(pki: Pki) -> None:
    """Bye, close of TLS and end of TCP in one piece are one ending, in peace."""
    async with open_ends(pki) as made:
        made.caller.connection.end()
        made.caller.close()

        assert await received(made.front, 1) == [Ended(Code.CLOSED_IN_PEACE, by_peer=True)]
        assert made.front.receive() == []


@in_trio
async def test_a_close_of_tls_without_a_goodbye_is_a_truncation(pki: Pki) -> None:
    """TLS in order is not enough: without a Bye nobody knows whether all was said."""
    async with open_ends(pki) as made:
        made.caller.close()

        assert await received(made.front, 1) == [Ended(Code.CONNECTION_TRUNCATED, by_peer=True)]


@in_trio
async def test_bytes_that_are_no_tls_end_the_connection_once(pki: Pki) -> None:
    """Garbage below TLS is a fault of the peer, not an exception of ours."""
    async with open_ends(pki) as made:
        made.caller._socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))

        assert await received(made.front, 1) == [Ended(Code.FRAME_MALFORMED, by_peer=True)]
        assert made.front.connection.is_ended
        assert made.front.receive() == []


@in_trio
async def test_a_message_in_the_last_flight_of_the_handshake_is_not_lost(pki: Pki) -> None:
    """The Hello may come in one packet with Finished; no further packet need come for it."""
    accepted, dialled = tcp_pair()
    front = Link(accepted, pki.front_context(), Connection(Side.FRONT, agent="front"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = pki.caller_context().wrap_bio(incoming, outgoing)
    hello = Connection(Side.REQUESTER, agent="caller").data_to_send()
    dialled.setblocking(False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front.handshake)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                dialled.send(outgoing.read())
                await trio.lowlevel.wait_readable(dialled)
                incoming.write(dialled.recv(1 << 16))
        client.write(hello)
        dialled.send(outgoing.read())
    with pytest.raises(BlockingIOError):
        accepted.recv(1, socket.MSG_PEEK)

    events = front.receive()

    assert [type(event) for event in events] == [Hello]
    front.close()
    dialled.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed here")
@in_trio
async def test_a_key_update_changes_nothing_for_what_is_said(pki: Pki) -> None:
    """``openssl s_client`` asks for new keys on both sides (RFC 8446, 4.6.3), and both go on."""
    hello, ping, pong = (
        Connection(Side.REQUESTER, agent="c").data_to_send(),
        b"\0\0\0\3\x92\3\1",
        b"\0\0\0\3\x92\4\1",
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(10):
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
        sock, _ = listener.accept()
        front = Link(sock, pki.front_context(), Connection(Side.FRONT, agent="front"))
        await front.handshake()
        await say.send_all(hello)
        await received(front, 1)
        await say.send_all(b"K\n")
        await until_said(told, b"KEYUPDATE")
        await say.send_all(ping)
        front.flush()
        greeted_bytes = front.sent_bytes
        while front.sent_bytes == greeted_bytes:
            await front.wait_readable()
            assert front.receive() == []
            front.flush()
        await until_said(said, pong)

        front.close()
        process.kill()
        await process.wait()
        for stream in (say, said, told):
            await stream.aclose()


async def until_said(stream: trio.abc.ReceiveStream, words: bytes) -> None:
    heard = b""
    while words not in heard:
        chunk = await stream.receive_some()
        assert chunk, heard
        heard += chunk


@in_trio
async def test_the_poller_says_which_links_are_ready(pki: Pki) -> None:
    """Readable only when bytes came, writable only while something is unsent, both as one batch."""
    poller = Poller()
    async with open_ends(pki, send_buffer_bytes=8192) as made, open_ends(pki) as quiet:
        poller.add(made.front)
        poller.add(quiet.front)
        assert poller.ready() == ([], [])
        made.caller.send(Ping(1))
        made.caller.flush()
        with trio.fail_after(5):
            await poller.wait()
        assert poller.ready() == ([made.front], [])

        made.front.send(answer(1, bytes(900_000)))
        made.front.flush()
        poller.watch(made.front, read=False, write=True)
        while poller.ready()[1]:  # the other kernel takes some yet, later on a busy machine
            made.front.flush()
        assert poller.ready() == ([], []), "not to be read, and the kernel takes nothing more"
        while made.front.unsent_bytes:
            made.caller.receive()
            with trio.move_on_after(0):
                await poller.wait()
            readable, writable = poller.ready()
            assert readable == []
            if writable:
                made.front.flush()
        poller.watch(made.front, read=True, write=False)
        assert poller.ready() == ([made.front], [])

        poller.remove(made.front)
        poller.remove(made.front)
        assert poller.ready() == ([], [])
    poller.close()
