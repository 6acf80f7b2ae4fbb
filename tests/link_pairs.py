"""Two ends of one connection under TLS, with real certificates and sockets, for link tests."""

import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ksz_router.cli.testpki import Authority, Issued, issue, make_authority
from ksz_router.codes import Code
from ksz_router.credentials import Credentials, Identity
from ksz_router.link import HandshakeError, Link
from ksz_router.wire import Connection, Event, Side

FRONT_URI, CALLER_URI = "urn:ksz-router:test:router", "urn:kbo:0999016460"


class Pki:
    """A folder of certificates under one authority, and contexts made from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = make_authority()
        self.front = issue(self.authority, "front", uris=[FRONT_URI])
        self.caller = issue(self.authority, "caller", uris=[CALLER_URI])
        self._files = 0

    def file(self, data: bytes) -> Path:
        """Write a file that nothing else uses."""
        self._files += 1
        file = self.folder / f"{self._files}.pem"
        file.write_bytes(data)
        return file

    def front_context(self, issued: Issued | None = None, **more: bytes) -> ssl.SSLContext:
        """Of the side that accepts."""
        return self._context(issued or self.front, serves=True, **more)

    def caller_context(self, issued: Issued | None = None, **more: bytes) -> ssl.SSLContext:
        """Of the side that dials."""
        return self._context(issued or self.caller, serves=False, **more)

    def bare_context(self, issued: Issued | None = None) -> ssl.SSLContext:
        """A dialling side that is not ours: it trusts us, and names no application protocol."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.file(self.authority.pem))
        if issued is not None:
            context.load_cert_chain(self.file(issued.certificate), self.file(issued.key))
        return context

    def _context(
        self,
        issued: Issued,
        *,
        serves: bool,
        authorities: bytes | None = None,
        revocations: bytes | None = None,
    ) -> ssl.SSLContext:
        made = Credentials(self.identity(issued, authorities, revocations), time.time)
        return made.server() if serves else made.client()

    def identity(
        self, issued: Issued, authorities: bytes | None = None, revocations: bytes | None = None
    ) -> Identity:
        """Files of their own for a pair and for whom it accepts."""
        return Identity(
            certificate=self.file(issued.certificate),
            key=self.file(issued.key),
            authorities=self.file(authorities or self.authority.pem),
            revocations=self.file(revocations) if revocations is not None else None,
        )


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection: who accepted, who dialled."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    return accepted, dialled


class Ends:
    """Both links of a connection."""

    def __init__(
        self, accepted: socket.socket, dialled: socket.socket, *contexts: ssl.SSLContext
    ) -> None:
        serving, dialling = contexts
        front = Connection(Side.FRONT, agent="front", inflight_max=7)
        self.front = Link(accepted, serving, front)
        self.caller = Link(dialled, dialling, Connection(Side.REQUESTER, agent="caller"))

    async def shake_hands(self) -> tuple[Code | None, Code | None]:
        """Let both shake hands; return why each of them could not."""
        codes: list[Code | None] = [None, None]

        async def one(index: int, link: Link) -> None:
            try:
                await link.handshake()
            except HandshakeError as error:
                codes[index] = error.code

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, 0, self.front)
                nursery.start_soon(one, 1, self.caller)
        return codes[0], codes[1]

    async def greet(self) -> None:
        """Exchange Hello and Welcome."""
        self.caller.flush()
        await received(self.front, 1)
        self.front.flush()
        await received(self.caller, 1)

    def close(self) -> None:
        self.front.close()
        self.caller.close()


@asynccontextmanager
async def ends(
    serving: ssl.SSLContext, dialling: ssl.SSLContext, *, send_buffer_bytes: int = 0
) -> AsyncIterator[Ends]:
    """Two ends before their handshake; closed at the end."""
    accepted, dialled = tcp_pair()
    if send_buffer_bytes:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    made = Ends(accepted, dialled, serving, dialling)
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def open_ends(pki: Pki, *, send_buffer_bytes: int = 0) -> AsyncIterator[Ends]:
    """Two ends that shook hands and greeted."""
    contexts = pki.front_context(), pki.caller_context()
    async with ends(*contexts, send_buffer_bytes=send_buffer_bytes) as made:
        assert await made.shake_hands() == (None, None)
        await made.greet()
        yield made


async def received(link: Link, events_count: int) -> list[Event]:
    """Read until so many events came, as a loop does: whenever there is something to read."""
    events = link.receive()
    with trio.fail_after(5):
        while len(events) < events_count:
            await link.wait_readable()
            events += link.receive()
    return events


def chain_of(*authorities: Authority) -> bytes:
    """Several authorities in one file, as for a rollover."""
    return b"".join(authority.pem for authority in authorities)
