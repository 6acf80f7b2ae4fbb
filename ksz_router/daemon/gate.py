"""The connections of a worker by how far they are known, and who gives way where there are many.

A connection is *pending* from its acceptance to the end of its handshake. It is *silent* until
its ClientHello has come whole; then it waits for its turn, then it shakes hands. Nothing is kept
for a silent one but its socket. At a bound the oldest of those that keep others waiting gives way,
so that nobody who goes on is locked out by those who do not.
"""

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterable

import trio

from ksz_router.limits import handshakes_at_once_max, pending_per_worker_max

_RECORD_HEAD_BYTES = 5
_RECORD_BYTES_MAX = 16_384 + 256
_HANDSHAKE_RECORD = 22


class Pending:
    """One connection whose certificate is not known yet.

    Args:
        address: As :func:`address_of`.
        begun_ns: When it was accepted, monotonic.
    """

    __slots__ = ("address", "begun_ns", "due_s", "is_silent", "scope", "sock", "waited_for")

    def __init__(self, sock: socket.socket, address: str, begun_ns: int) -> None:
        self.sock = sock
        self.address = address
        self.begun_ns = begun_ns
        self.is_silent = True
        self.due_s = 0.0
        """By when what it is to do next must be done; Trio's time."""
        self.waited_for = 0
        """With how many bytes of its ClientHello the kernel is to wake us; 0: with the first."""
        self.scope: trio.CancelScope | None = None
        """Of its handshake; None while nobody works for it."""

    def hello_bytes(self) -> tuple[int, int]:
        """Return how many bytes have come, and how many the ClientHello has, as far as known yet.

        Nothing is taken from the socket. What is no TLS is whole at once: OpenSSL says why not.

        Raises:
            EOFError: the peer went away.
            OSError: the connection broke.
        """
        try:
            head = self.sock.recv(_RECORD_HEAD_BYTES + _RECORD_BYTES_MAX, socket.MSG_PEEK)
        except BlockingIOError:
            return 0, 1
        if not head:
            raise EOFError
        if head[0] != _HANDSHAKE_RECORD:
            return len(head), len(head)
        if len(head) < _RECORD_HEAD_BYTES:
            return len(head), _RECORD_HEAD_BYTES
        length = int.from_bytes(head[3:5], "big")
        if length > _RECORD_BYTES_MAX:
            return len(head), len(head)
        return len(head), _RECORD_HEAD_BYTES + length


class Gate:
    """Counts the connections of one worker.

    Args:
        places: Connections at once, pending ones included.
        pending_per_address: Pending connections of one address.
        per_institution: Connections of one institution, once it is known.
        give_way: Called with one that has to end in favour of another; it has left already.
    """

    def __init__(
        self,
        *,
        places: int,
        pending_per_address: int,
        per_institution: int,
        give_way: Callable[[Pending], None],
    ) -> None:
        self.places = places
        self._give_way = give_way
        # Where there are few places, no institution may have them all.
        self.per_institution = min(per_institution, max(1, places // 4))
        self.taken = 0
        """Places in use."""
        self.pending = 0
        """Connections whose certificate is not known yet."""
        self._pending_per_address = pending_per_address
        self._of_address: dict[str, dict[Pending, None]] = {}
        self._silent: dict[Pending, None] = {}
        self._shaking: dict[Pending, None] = {}
        self._of_institution: Counter[str] = Counter()

    @property
    def is_closed(self) -> bool:
        """No place is free, and nobody would give way."""
        return self.taken >= self.places and not self._silent

    @property
    def is_shaking(self) -> bool:
        """Somebody is shaking hands."""
        return bool(self._shaking)

    def enter(self, pending: Pending) -> str:
        """Give a new connection a place; where it gets none, return why not."""
        of_address = self._of_address.get(pending.address, {})
        if len(of_address) >= self._pending_per_address and not self._make_way(of_address):
            return "too many of this address"
        is_full = self.taken >= self.places or self.pending >= pending_per_worker_max
        if is_full and not self._make_way(self._silent):
            return "no place is free"
        self.taken += 1
        self.pending += 1
        self._of_address.setdefault(pending.address, {})[pending] = None
        self._silent[pending] = None
        return ""

    def spoke(self, pending: Pending) -> None:
        """Its ClientHello has come."""
        pending.is_silent = False
        self._silent.pop(pending, None)

    def shakes_hands(self, pending: Pending) -> None:
        """It is its turn; of too many the oldest handshake gives way.

        Turns are paced, so the oldest of so many had its time.
        """
        if len(self._shaking) >= handshakes_at_once_max:
            oldest = next(iter(self._shaking))
            self.leave(oldest)
            self._give_way(oldest)
        self._shaking[pending] = None

    def leave(self, pending: Pending) -> None:
        """It is not pending any more; its place it still has."""
        self._silent.pop(pending, None)
        self._shaking.pop(pending, None)
        of_address = self._of_address.get(pending.address, {})
        if pending in of_address:
            del of_address[pending]
            self.pending -= 1
        if not of_address:
            self._of_address.pop(pending.address, None)

    def join(self, uri: str) -> bool:
        """A connection is an institution's; False: that one has as many as it may."""
        if self._of_institution[uri] >= self.per_institution:
            return False
        self._of_institution[uri] += 1
        return True

    def part(self, uri: str) -> None:
        """A connection of an institution is over."""
        self._of_institution[uri] -= 1
        if not self._of_institution[uri]:
            del self._of_institution[uri]

    def _make_way(self, candidates: Iterable[Pending]) -> bool:
        """Have the oldest that is still silent give way."""
        for pending in list(candidates):
            if not pending.is_silent:
                continue
            try:
                there, wanted = pending.hello_bytes()
                is_silent = there < wanted
            except (EOFError, OSError):
                is_silent = True
            if is_silent:
                self.leave(pending)
                self._give_way(pending)
                return True
            self.spoke(pending)  # it did, and nobody has come to see it yet
        return False


def address_of(peer: tuple[str | int, ...]) -> str:
    """Whom to count a peer under: its IPv4 address, or the /64 network of its IPv6 address."""
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
