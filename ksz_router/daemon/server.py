"""Who connects: admission in stages, the handshake, and the identity of the certificate.

A connection costs next to nothing until its ClientHello has come whole; only then it waits for
its turn, in which a TLS object is made for it. ``gate.py`` has the bounds, ``turns.py`` the pace.
"""

import errno
import resource
import socket
import ssl
from collections.abc import Callable

import trio

from ksz_router.codes import Code
from ksz_router.config import Connections
from ksz_router.daemon.doorstep import Doorstep
from ksz_router.daemon.gate import Gate, Pending, address_of
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.session import Session
from ksz_router.daemon.turns import Turns
from ksz_router.limits import (
    connections_per_worker_max,
    descriptors_reserved,
)
from ksz_router.link import HandshakeError, Link
from ksz_router.tls import Refused
from ksz_router.wire import Connection, Side

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ACCEPTED_AT_ONCE_MAX = 8
"""Few, since the other workers take from the same queue, and should get their share."""
_LINGER_SECONDS = 1.0
_LINGER_READS_MAX = 16


class Server:
    """Accepts requesters on a listening socket that it inherited.

    Args:
        listener: Bound and listening; shared with the other workers, so it is never closed here.
        context: Gives the TLS context with the certificates of the day.
        agent: What the router calls itself.
        window: Requests in flight that a connection is offered.
        bounds: How many may come, and how fast.
        places: Connections at once.
        clock_ns: Monotonic.
        opened: Called with each session that came about.
        refused: Called with why one did not, and the address of who asked.
        turned_away: Called with an institution that has too many connections, and the code.
    """

    def __init__(
        self,
        *,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext],
        agent: str,
        window: int,
        bounds: Connections,
        places: int,
        metrics: Metrics,
        clock_ns: Callable[[], int],
        opened: Callable[[Session], None],
        refused: Callable[[Code, str, str], None],
        turned_away: Callable[[str, Code], None],
    ) -> None:
        listener.setblocking(False)
        self.gate = Gate(
            places=places,
            pending_per_address=bounds.pending_per_address,
            per_institution=bounds.per_institution,
            give_way=self._make_way,
        )
        self._doorstep = Doorstep(spoke=self._spoke, failed=self._turn_away)
        self._turns: Turns[Pending] = Turns(
            per_second=bounds.handshakes_per_second,
            per_second_of_address=bounds.handshakes_per_second_per_address,
            burst_of_address=bounds.pending_per_address,
        )
        self._has_waiting = trio.Event()
        self._place_freed = trio.Event()
        self._listener = listener
        self._context = context
        self._agent = agent
        self.window = window
        """What the next connections are offered."""
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._opened = opened
        self._refused = refused
        self._turned_away = turned_away
        self._accepting = trio.CancelScope()
        self._has_stopped = trio.Event()

    async def serve(self) -> None:
        """Accept until cancelled. Where no place is free, the kernel's queue is the bound."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._doorstep.watch)
            nursery.start_soon(self._give_turns, nursery)
            with self._accepting:
                await self._accept()
            self._has_stopped.set()

    async def stop_accepting(self) -> None:
        """Accept nothing new; handshakes that began go on. Then the listener may be closed."""
        self._accepting.cancel()
        await self._has_stopped.wait()

    async def _accept(self) -> None:
        while True:
            while self.gate.is_closed:
                self._place_freed = trio.Event()
                await self._place_freed.wait()
            await trio.lowlevel.wait_readable(self._listener)
            try:
                self._take_in()
            except BlockingIOError:  # there are no more, or another worker had them
                continue
            except OSError as error:
                has_room = error.errno not in _NO_ROOM
                self._metrics.handshakes["lost" if has_room else "no_room"] += 1
                if not has_room:
                    await trio.sleep(0.05)

    def _take_in(self) -> None:
        """Accept a few of those that wait in the kernel, which is quicker than one at a time.

        Raises:
            OSError: what ``accept`` does.
        """
        for _ in range(_ACCEPTED_AT_ONCE_MAX):
            if self.gate.is_closed:
                return
            accepted, peer = self._listener.accept()
            accepted.setblocking(False)
            pending = Pending(accepted, address_of(peer), self._clock_ns())
            refusal = self.gate.enter(pending)
            if refusal:
                accepted.close()
                self._fail(pending, HandshakeError(Code.TOO_MANY_CONNECTIONS, refusal))
            else:
                self._doorstep.add(pending)

    def left(self, session: Session) -> None:
        """A session is over: its place is free."""
        self.gate.part(session.uri)
        self._free_place()

    def _free_place(self) -> None:
        self.gate.taken -= 1
        self._place_freed.set()

    def _spoke(self, pending: Pending) -> None:
        """Its ClientHello is whole."""
        self.gate.spoke(pending)
        self._turns.join(pending.address, pending)
        self._has_waiting.set()

    def _turn_away(self, pending: Pending, error: HandshakeError) -> None:
        """Close one that has no turn yet."""
        self._turns.leave(pending.address, pending)
        self._close(pending)
        self._fail(pending, error)

    def _make_way(self, pending: Pending) -> None:
        """Another gets what this one had."""
        if pending.scope is not None:
            pending.scope.cancel()
        else:
            self._doorstep.take(pending)
            self._turn_away(pending, _gave_way())

    def _close(self, pending: Pending) -> None:
        self.gate.leave(pending)
        pending.sock.close()
        self._free_place()

    async def _greet(self, pending: Pending, scope: trio.CancelScope) -> None:
        """Take one connection from its turn to its identity, or close it."""
        session = None
        try:
            with scope:
                link = await self._shake_hands(pending)
                session = await self._identify(link, pending)
        except HandshakeError as error:
            self._fail(pending, error)
        finally:
            if session is None:
                self._close(pending)
            else:
                self.gate.leave(pending)
        if session is not None:
            self._metrics.handshakes["done"] += 1
            self._metrics.handshake.observe((self._clock_ns() - pending.begun_ns) / 1e9)
            self._opened(session)
        elif scope.cancelled_caught:
            self._fail(pending, _gave_way())

    @property
    def is_greeting(self) -> bool:
        """Somebody is in the middle of a handshake."""
        return self.gate.is_shaking

    def _fail(self, pending: Pending, error: HandshakeError) -> None:
        self._metrics.handshakes[error.result] += 1
        self._refused(error.code, error.reason, pending.address)

    async def _shake_hands(self, pending: Pending) -> Link:
        try:
            with trio.fail_at(pending.due_s):
                self.gate.shakes_hands(pending)
                connection = Connection(Side.FRONT, agent=self._agent, inflight_max=self.window)
                link = Link(pending.sock, self._context(), connection)
                await link.handshake()
        except OSError as error:
            raise HandshakeError(Code.CONNECTION_TRUNCATED, type(error).__name__) from None
        except trio.TooSlowError:
            raise HandshakeError(Code.PEER_TOO_SLOW, "no handshake in time") from None
        return link

    async def _give_turns(self, nursery: trio.Nursery) -> None:
        while True:
            chosen = self._turns.next(trio.current_time())
            if chosen is not None:
                self._doorstep.take(chosen)
                chosen.scope = trio.CancelScope()
                nursery.start_soon(self._greet, chosen, chosen.scope)
                await trio.lowlevel.checkpoint()  # one handshake, then whatever else there is
                continue
            self._has_waiting = trio.Event()
            due_s = self._turns.due_s
            with trio.CancelScope() if due_s is None else trio.move_on_at(due_s):
                await self._has_waiting.wait()

    async def _identify(self, link: Link, pending: Pending) -> Session | None:
        """Say whose connection it is; None where that one has as many as it may."""
        uri = link.peer_uri()
        if not uri:
            link.turn_away(Code.CERTIFICATE_REFUSED)
            text = "the certificate needs one SAN URI"
            raise HandshakeError(Code.CERTIFICATE_REFUSED, text, Refused.NAMES)
        if self.gate.join(uri):
            return Session(link, uri, self._clock_ns())
        most = self.gate.per_institution
        link.connection.end(Code.TOO_MANY_CONNECTIONS, f"at most {most} at once, per worker")
        link.flush()
        self._metrics.handshakes[Code.TOO_MANY_CONNECTIONS.name.lower()] += 1
        self._turned_away(uri, Code.TOO_MANY_CONNECTIONS)
        self.gate.leave(pending)
        await _linger(pending.sock)
        return None


def _gave_way() -> HandshakeError:
    return HandshakeError(Code.PEER_TOO_SLOW, "gave way to others")


def places_of_worker() -> int:
    """How many connections a worker may hold, so that descriptors are left for all the rest.

    The soft limit of the process is raised to the hard one first. What is reserved is for the
    log, the tables, sources, metrics and the control channel.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return connections_per_worker_max
    return max(1, min(connections_per_worker_max, hard - descriptors_reserved))


async def _linger(sock: socket.socket) -> None:
    """Let the peer read the Bye: a close over unread bytes would take it out of its hands."""
    try:
        sock.shutdown(socket.SHUT_WR)
        with trio.move_on_after(_LINGER_SECONDS):
            for _ in range(_LINGER_READS_MAX):
                await trio.lowlevel.wait_readable(sock)
                if not sock.recv(65_536):
                    return
    except OSError:
        return
