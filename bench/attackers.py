"""Clients with a certificate that do not keep to the protocol: blocking, and cheap."""

import contextlib
import functools
import itertools
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ksz_router import tls
from ksz_router.messages import Request
from ksz_router.wire import Connection, Ended, Event, Side, Welcome


class Words(NamedTuple):
    """What an attacker is told."""

    port: int
    tls: Path
    """Folder of certificates, by KBO number."""
    numbers: Path
    """Persons, eleven digits each."""
    seconds: float
    source_port: int = 0


def addresses(count: int) -> Iterator[str]:
    """Loopback addresses in turn, none of them the good client's."""
    return itertools.cycle(f"127.0.1.{n + 1}" for n in range(count))


def client_hello() -> bytes:
    """What a client says first; the same bytes every time, so that they cost nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([tls.ALPN])
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class Raw:
    """Many raw connections, kept in number: one that the router closes may be opened again."""

    def __init__(self, port: int) -> None:
        self.opened = self.closed = 0
        self.longest_s = 0.0
        self._port = port
        self._addresses = addresses(50)
        self._epoll = select.epoll()
        self.open: dict[int, tuple[socket.socket, float]] = {}

    def connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((next(self._addresses), 0))
        sock.connect_ex(("127.0.0.1", self._port))
        self.open[sock.fileno()] = sock, time.monotonic()
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self.opened += 1

    def forget(self, fd: int) -> None:
        sock, since_s = self.open.pop(fd)
        self.longest_s = max(self.longest_s, time.monotonic() - since_s)
        sock.close()
        self.closed += 1

    def wait(self, seconds: float, read: Callable[[int], None] | None = None) -> None:
        """Take note of what the router closed; ``read`` is called where bytes came."""
        for fd, _ in self._epoll.poll(max(0.0, seconds)):
            try:
                data = self.open[fd][0].recv(8_192)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self.forget(fd)
            elif read is not None:
                read(fd)


@functools.cache
def context_of(folder: Path, kbo: str, *, serves: bool = False) -> ssl.SSLContext:
    """The TLS context of an institution."""
    make = tls.server_context if serves else tls.client_context
    return make(
        certificate=folder / f"{kbo}.crt",
        key=folder / f"{kbo}.key",
        authorities=folder / "authorities.pem",
    )


class Peer:
    """One connection of an institution, after its TLS handshake; its Hello waits to be sent."""

    def __init__(
        self,
        words: Words,
        kbo: str,
        *,
        address: str = "127.0.2.1",
        receive_bytes: int = 0,
        seconds: float = 10.0,
    ) -> None:
        sock = socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(seconds)
        try:
            sock.bind((address, 0))
            sock.connect(("127.0.0.1", words.port))
            self._tls = context_of(words.tls, kbo).wrap_socket(sock)
        except OSError:
            sock.close()
            raise
        self.connection = Connection(Side.REQUESTER, agent="attacker")
        self._hello = self.connection.data_to_send()

    def greet(self) -> None:
        """Say Hello and wait for the Welcome."""
        self._tls.sendall(self._hello)
        while not any(isinstance(event, Welcome) for event in self._receive(5.0)):
            if self.connection.ended is not None:
                raise OSError(self.connection.ended.code.name)

    def ask(self, request: Request) -> None:
        """Send a request in order."""
        self.connection.send(request)
        self._tls.settimeout(5.0)
        self._tls.sendall(self.connection.data_to_send())

    def try_to_send(self, data: bytes) -> Ended | None:
        """Send bytes as they are; where the router hung up, say how."""
        try:
            self._tls.settimeout(5.0)
            self._tls.sendall(data)
        except OSError:
            return self.ended(0.0) or self.connection.ended
        return None

    def send_what_goes(self, data: bytes) -> None:
        """Send as much as the router takes within two seconds."""
        self._tls.settimeout(2.0)
        with contextlib.suppress(OSError):
            for at in range(0, len(data), 16_384):
                self._tls.sendall(data[at : at + 16_384])

    def ended(self, seconds: float, *, reads_max: int = 8) -> Ended | None:
        """Read what there is, and say how the connection ended, if it did."""
        for _ in range(reads_max):
            if not self._receive(seconds):
                break
        return self.connection.ended

    def events(self, seconds: float) -> list[Event]:
        """What comes within so many seconds, as soon as something does."""
        return self._receive(seconds)

    def exchange(self, data: bytes, *, seconds_max: float) -> Iterator[Event]:
        """Send bytes and read at the same time, as fast as both go."""
        self._tls.setblocking(False)
        view, at = memoryview(data), 0
        ends_s = time.monotonic() + seconds_max
        while time.monotonic() < ends_s and not self.connection.is_ended:
            wants = [self._tls] if at < len(view) else []
            select.select([self._tls], wants, [], 0.5)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if at < len(view):
                    at += self._tls.send(view[at : at + 16_384])
            yield from self._receive(0.0)

    def fileno(self) -> int:
        """For who waits for many."""
        return self._tls.fileno()

    def close(self) -> None:
        """Hang up."""
        self._tls.close()

    def _receive(self, seconds: float) -> list[Event]:
        self._tls.settimeout(seconds)
        try:
            data = self._tls.recv(65_536)
        except (TimeoutError, ssl.SSLWantReadError):
            return []
        except OSError:
            data = b""
        if not data:
            return self.connection.receive_end()
        return self.connection.receive_data(data) or [*self._receive(seconds)]


def greeted(words: Words, kbo: str, *, receive_bytes: int = 0) -> Peer:
    """A connection that may ask."""
    peer = Peer(words, kbo, receive_bytes=receive_bytes)
    peer.greet()
    return peer
