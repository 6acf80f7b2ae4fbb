"""Who connects: admission in two stages, the handshake, and the identity of the certificate.

A connection costs next to nothing until its first byte has come; only then is a TLS object made
for it, and only so many shake hands at once.
"""

import errno
import socket
import ssl
from collections.abc import Callable

import trio

from ksz_router.codes import Code
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.session import Session
from ksz_router.limits import (
    connections_per_worker_max,
    first_byte_seconds_max,
    handshake_seconds_max,
    handshakes_at_once_max,
)
from ksz_router.link import HandshakeError, Link
from ksz_router.tls import Refused
from ksz_router.wire import Connection, Side

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Accepts requesters on a listening socket that it inherited.

    Args:
        listener: Bound and listening; shared with the other workers, so it is never closed here.
        context: Gives the TLS context with the certificates of the day.
        agent: What the router calls itself.
        window: Requests in flight that a connection is offered.
        clock_ns: Monotonic.
        opened: Called with each session that came about.
        refused: Called with why one did not.
    """

    def __init__(
        self,
        *,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext],
        agent: str,
        window: int,
        metrics: Metrics,
        clock_ns: Callable[[], int],
        opened: Callable[[Session], None],
        refused: Callable[[Code, str], None],
    ) -> None:
        listener.setblocking(False)
        self._places = trio.Semaphore(connections_per_worker_max)
        self._listener = trio.socket.from_stdlib_socket(listener)
        self._context = context
        self._agent = agent
        self.window = window
        """What the next connections are offered."""
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._opened = opened
        self._refused = refused
        self.accepting = trio.CancelScope()
        """Cancelled when nothing new is accepted; handshakes that began go on."""
        self._handshakes = trio.CapacityLimiter(handshakes_at_once_max)

    async def serve(self) -> None:
        """Accept until cancelled. Where no place is free, the kernel's queue is the bound."""
        async with trio.open_nursery() as nursery:
            with self.accepting:
                while True:
                    await self._places.acquire()
                    try:
                        sock, _ = await self._listener.accept()
                    except OSError as error:
                        self._places.release()
                        has_room = error.errno not in _NO_ROOM
                        self._metrics.handshakes["lost" if has_room else "no_room"] += 1
                        if not has_room:
                            await trio.sleep(0.05)
                        continue
                    except BaseException:
                        self._places.release()
                        raise
                    nursery.start_soon(self._greet, _detached(sock))

    @property
    def is_greeting(self) -> bool:
        """Somebody is in the middle of a handshake."""
        return self._handshakes.borrowed_tokens > 0

    def left(self) -> None:
        """A session is over: its place is free."""
        self._places.release()

    async def _greet(self, sock: socket.socket) -> None:
        """Take one connection from its first byte to its identity, or close it."""
        begun_ns = self._clock_ns()
        try:
            link = await self._shake_hands(sock)
        except BaseException as error:
            sock.close()
            self.left()
            if not isinstance(error, HandshakeError):
                raise
            self._metrics.handshakes[error.result] += 1
            self._refused(error.code, error.reason)
            return
        self._metrics.handshakes["done"] += 1
        self._metrics.handshake.observe((self._clock_ns() - begun_ns) / 1e9)
        self._opened(Session(link, link.peer_uri(), self._clock_ns()))

    async def _shake_hands(self, sock: socket.socket) -> Link:
        try:
            with trio.fail_after(first_byte_seconds_max):
                await trio.lowlevel.wait_readable(sock)
            with trio.fail_after(handshake_seconds_max):
                async with self._handshakes:
                    connection = Connection(Side.FRONT, agent=self._agent, inflight_max=self.window)
                    link = Link(sock, self._context(), connection)
                    await link.handshake()
        except trio.TooSlowError:
            raise HandshakeError(Code.PEER_TOO_SLOW, "no handshake in time") from None
        if not link.peer_uri():
            link.turn_away(Code.CERTIFICATE_REFUSED)
            text = "the certificate needs one SAN URI"
            raise HandshakeError(Code.CERTIFICATE_REFUSED, text, Refused.NAMES)
        return link


def _detached(sock: trio.socket.SocketType) -> socket.socket:
    """The plain socket of an accepted connection; the loop drives it from here."""
    return socket.socket(fileno=sock.detach())
