"""Sources that misbehave: raw TLS, frames written by hand, nothing of the router's own engine."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from ksz_router.model import Endpoint

FRAME_BYTES_MAX = 1 << 20
WELCOME, PING, PONG, DRAIN, BYE, DELIVERY, REPLY = 2, 3, 4, 5, 7, 18, 19


class Wire:
    """The source's end of one connection."""

    def __init__(self, tcp: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.tcp = tcp
        self.tls = trio.SSLStream(tcp, context, server_side=True)
        self._came = bytearray()

    async def greet(self, *, inflight_max: int = 64) -> None:
        """Take the Hello and say Welcome."""
        await self.frame()
        await self.say(WELCOME, 1, "hostile", FRAME_BYTES_MAX, inflight_max)

    async def frame(self) -> list[Any]:
        """The next message."""
        length = int.from_bytes(await self._exactly(4), "big")
        message: list[Any] = msgspec.msgpack.decode(await self._exactly(length))
        return message

    async def delivery(self) -> list[Any]:
        """The next delivery."""
        while (message := await self.frame())[0] != DELIVERY:
            pass
        return message

    async def say(self, *message: object) -> None:
        """Send a message, whatever it is."""
        await self.tls.send_all(framed(*message))

    async def reply(self, delivery: list[Any], **changes: object) -> None:
        """Answer a delivery, with data for the person asked about unless said otherwise."""
        await self.say(*reply_to(delivery, **changes))

    async def reset(self) -> None:
        """Cut the connection so that the other side gets a reset."""
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.tcp)

    async def _exactly(self, size: int) -> bytes:
        while len(self._came) < size:
            data = await self.tls.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._came += data
        taken = bytes(self._came[:size])
        del self._came[:size]
        return taken


def framed(*message: object) -> bytes:
    """The frame of a message."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def reply_to(delivery: list[Any], **changes: object) -> list[object]:
    """What a source says to a delivery."""
    fields = {
        "id": delivery[1], "outcome": 0, "person": delivery[12], "persons": [], "user": None,
        "application": None, "source_code": "", "payload": b"data",
    }  # fmt: skip
    return [REPLY, *(fields | changes).values()]


Behaviour = Callable[[Wire], Awaitable[None]]


class Hostile:
    """An endpoint where each connection is treated to one behaviour, and then left open."""

    def __init__(self, uri: str, context: ssl.SSLContext, behave: Behaviour) -> None:
        self._context = context
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1], uri)
        self.connections = 0

    async def serve(self) -> None:
        """Accept until cancelled."""
        self._listener.setblocking(False)
        listener = trio.socket.from_stdlib_socket(self._listener)
        async with trio.open_nursery() as nursery:
            while True:
                sock, _ = await listener.accept()
                self.connections += 1
                nursery.start_soon(self._treat, trio.SocketStream(sock))

    async def _treat(self, tcp: trio.SocketStream) -> None:
        try:
            gone = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
            with contextlib.suppress(*gone):
                await self._behave(Wire(tcp, self._context))
                await trio.sleep_forever()
        finally:
            await trio.aclose_forcefully(tcp)

    def close(self) -> None:
        self._listener.close()
