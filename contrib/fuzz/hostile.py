"""A source that answers almost right: each reply is a mutant of the right one."""

import ssl
from collections.abc import Sequence
from contextlib import suppress
from random import Random

import msgspec
import trio

from contrib import vector_bytes as v
from contrib.fuzz import mutations
from ksz_router.messages import Delivery, Outcome, Reply
from ksz_router.wire import Connection, Ended, Side

PING = v.message("Ping", {"number": 77})
_RIGHT_SHARE, _BAD_GREETINGS_SHARE = 0.2, 0.1

Stream = trio.SSLStream[trio.SocketStream]


class HostileSource:
    """Accepts the router on a port, over and over.

    Args:
        context: TLS, of the source's certificate.
        random: Decides everything.
        pool: Frames of all kinds, to be spliced in.
    """

    def __init__(self, context: ssl.SSLContext, random: Random, pool: Sequence[bytes]) -> None:
        self._context, self._random, self._pool = context, random, pool

    async def serve(self, port: int, task_status: trio.TaskStatus[None]) -> None:
        """Accept until cancelled."""
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, plain: trio.SocketStream) -> None:
        stream: Stream = trio.SSLStream(
            plain, self._context, server_side=True, https_compatible=True
        )
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._answer(stream)
        await trio.aclose_forcefully(plain)

    async def _answer(self, stream: Stream) -> None:
        engine, random = Connection(Side.SOURCE, agent="hostile", inflight_max=64), self._random
        while chunk := await stream.receive_some(65_536):
            for event in engine.receive_data(bytes(chunk)):
                if isinstance(event, Ended):
                    return
                if isinstance(event, Delivery):
                    await stream.send_all(self._reply(event))
            if said := engine.data_to_send():
                if random.random() < _BAD_GREETINGS_SHARE:
                    said = mutations.mutant(random, [said], self._pool)
                await stream.send_all(said)

    def _reply(self, delivery: Delivery) -> bytes:
        reply = Reply(
            id=delivery.id, outcome=Outcome.DATA, person=delivery.person, payload=b"answer"
        )
        right = v.frame(msgspec.msgpack.encode(reply))
        if self._random.random() < _RIGHT_SHARE:
            return right
        return mutations.mutant(self._random, [right, PING], self._pool)
