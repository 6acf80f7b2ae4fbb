"""What supervisor and worker say to each other, over one socket pair per worker.

One JSON object a datagram. When the supervisor is gone the socket ends, and the worker stops.
"""

import socket
from typing import TypeAlias

import msgspec
import trio

_BYTES_MAX = 65_536


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Go over to this generation of the rulebook; it was verified."""

    generation: str


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """Read certificates and revocations anew."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Drain, then end."""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Report how you are."""


Order: TypeAlias = Load | Renew | Stop | Ask


class Report(msgspec.Struct, frozen=True):
    """How a worker is; sent when it is ready, after each order, and when asked."""

    about: str
    """The order's tag, or ``ready``."""
    ok: bool = True
    text: str = ""
    generation: str = ""
    directory_version: int = 0
    sessions: int = 0
    inflight: int = 0
    exchanges: int = 0
    is_draining: bool = False
    not_ready: tuple[str, ...] = ()
    """Why it takes no requests, by the names of ``readiness.Reason``; empty where it does."""
    sources: dict[str, str] = {}
    """KBO number → ``up``, ``dialling``, ``breaker open`` or ``idle``."""


_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports = msgspec.json.Decoder(Report)


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a control channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end of a control channel, for the tasks of one process."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(end)

    async def send(self, message: Order | Report) -> bool:
        """Send; return False where the other side is gone."""
        try:
            await self._socket.send(msgspec.json.encode(message))
        except OSError:
            return False
        return True

    async def order(self) -> Order | None:
        """Wait for the next order; None when the supervisor is gone."""
        data = await self._receive()
        return _orders.decode(data) if data else None

    async def report(self) -> Report | None:
        """Wait for the next report; None when the worker is gone."""
        data = await self._receive()
        return _reports.decode(data) if data else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    async def _receive(self) -> bytes:
        try:
            return await self._socket.recv(_BYTES_MAX)
        except OSError:
            return b""
