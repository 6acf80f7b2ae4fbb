"""The connections of a worker that have no turn to shake hands yet, watched by one task for all.

Nothing is made for one of them: no task, no TLS, no timer. The kernel holds what they sent, an
epoll says who has something to say, and since all have the same time, who came first is overdue
first. That the kernel itself keeps them until they speak (``TCP_DEFER_ACCEPT``) is not asked for:
there no bound of ours would see them, and at the end of its time it hands over the silent too.
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress

import trio

from ksz_router.codes import Code
from ksz_router.daemon.gate import Pending
from ksz_router.limits import first_byte_seconds_max, handshake_seconds_max, links_per_turn_max
from ksz_router.link import HandshakeError


class Doorstep:
    """Those who wait: for their own ClientHello first, then for their turn.

    Args:
        spoke: Called with one whose ClientHello has come whole. It stays until it is taken.
        failed: Called with one that will not shake hands, and why; it is not here any more.
    """

    def __init__(
        self,
        *,
        spoke: Callable[[Pending], None],
        failed: Callable[[Pending, HandshakeError], None],
    ) -> None:
        self._spoke = spoke
        self._failed = failed
        self._epoll = select.epoll()
        self._by_fd: dict[int, Pending] = {}
        self._silent: dict[Pending, None] = {}
        """Nothing came of them. These and the others in the order in which they are due."""
        self._begun: dict[Pending, None] = {}
        """Of them something came; all of a ClientHello or a part."""
        self._until_due = trio.CancelScope()

    def add(self, pending: Pending) -> None:
        """Wait for what it says."""
        fd = pending.sock.fileno()
        pending.due_s = trio.current_time() + first_byte_seconds_max
        self._by_fd[fd] = pending
        self._silent[pending] = None
        self._epoll.register(fd, select.EPOLLIN)
        self._until_due.deadline = min(self._until_due.deadline, pending.due_s)

    def take(self, pending: Pending) -> None:
        """It has its turn, or gives way; it is the caller's now."""
        self._forget(pending)
        self._silent.pop(pending, None)
        self._begun.pop(pending, None)

    async def watch(self) -> None:
        """Hear all of them, until cancelled; then those who still wait are closed."""
        try:
            while True:
                with trio.CancelScope(deadline=self._due_s()) as self._until_due:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, _ in self._epoll.poll(0, links_per_turn_max):
                    pending = self._by_fd.get(fd)
                    if pending is not None:  # who failed may have made another give way
                        self._hear(pending)
                self._end_overdue()
        finally:
            for pending in (*self._silent, *self._begun):
                pending.sock.close()
            self._epoll.close()

    def _hear(self, pending: Pending) -> None:
        """Look at what came; it stays in the kernel, which wakes us when the rest is there."""
        if pending in self._silent:
            del self._silent[pending]
            self._begun[pending] = None
            pending.due_s = trio.current_time() + handshake_seconds_max
            self._until_due.deadline = min(self._until_due.deadline, pending.due_s)
        sock = pending.sock
        try:
            there, wanted = pending.hello_bytes()
            if there < wanted != pending.waited_for:
                pending.waited_for = wanted
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except (EOFError, OSError):
            there, wanted = 0, 1
        if there < wanted:  # woken without the rest: no more will come
            self._fail(pending, Code.CONNECTION_TRUNCATED, "no whole ClientHello")
            return
        self._forget(pending)
        self._spoke(pending)

    def _end_overdue(self) -> None:
        now_s = trio.current_time()
        for waiting in (self._silent, self._begun):
            while waiting and (pending := next(iter(waiting))).due_s <= now_s:
                if pending.is_silent:
                    self._fail(pending, Code.PEER_TOO_SLOW, "no handshake in time")
                else:
                    self._fail(pending, Code.TOO_MANY_CONNECTIONS, "no turn in time")

    def _due_s(self) -> float:
        """When the first is overdue."""
        firsts = [next(iter(waiting)) for waiting in (self._silent, self._begun) if waiting]
        return min((first.due_s for first in firsts), default=float("inf"))

    def _fail(self, pending: Pending, code: Code, reason: str) -> None:
        self.take(pending)
        self._failed(pending, HandshakeError(code, reason))

    def _forget(self, pending: Pending) -> None:
        """Hear it no more."""
        if self._by_fd.pop(pending.sock.fileno(), None) is not None:
            with suppress(OSError):
                self._epoll.unregister(pending.sock.fileno())
