"""What supervisor and worker say to each other, over one socket pair per worker.

One JSON object a datagram. When the supervisor is gone the socket ends, and the worker stops.
"""

import contextlib
import socket
from typing import TypeAlias

import msgspec
import trio

from ksz_router.config import Config

_BYTES_MAX = 65_536
_KILL_AFTER_DRAIN_SECONDS = 10.0

SLOT_TAKEN = 5
"""Exit code of a worker whose slot of the log another process writes, and did not leave in time."""


def stop_seconds(settings: Config) -> float:
    """How long a worker that was told to stop may live: it drains, and is killed some time later.

    So long the next one waits for its slot of the log, too.
    """
    return settings.stop.drain_seconds + _KILL_AFTER_DRAIN_SECONDS


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Open everything and serve: the first order, and given once.

    A worker takes its configuration from here and not from the file, which may have been changed
    since, for the better or the worse: all workers of a router go by the same one.
    """

    settings: Config
    generation: str


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Go over to this generation of the rulebook; it was verified."""

    generation: str


class Renew(msgspec.Struct, frozen=True, tag="renew"):
    """Read certificates and revocations anew."""


class Adjust(msgspec.Struct, frozen=True, tag="adjust"):
    """Go by this configuration; what differs is ``config.LIVE``."""

    settings: Config


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Drain, then end."""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Report how you are."""

    restarts: dict[str, int] = {}
    """For a worker, which tells Prometheus: how often each process was started again."""


Order: TypeAlias = Begin | Load | Renew | Adjust | Stop | Ask


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
    state: str = ""
    """Of a program beside the workers: how far it is, in words."""


_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports = msgspec.json.Decoder(Report)


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a control channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end of a control channel, for the tasks of one process."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._socket = trio.socket.from_stdlib_socket(end)

    async def send(self, message: Order | Report) -> bool:
        """Send; return False where the other side is gone."""
        try:
            await self._socket.send(msgspec.json.encode(message))
        except OSError:
            return False
        return True

    def post(self, message: Order) -> None:
        """Send without giving way; for the first message, for which there is always room."""
        with contextlib.suppress(OSError):  # the other side is gone, as who waits for it will see
            self._end.send(msgspec.json.encode(message))

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
