"""Whom a router talks to, in tests: a caller that asks and a source that a test answers for."""

import functools
import socket
import ssl
from pathlib import Path
from typing import Any

import trio

from ksz_router import tls
from ksz_router.dial import dial
from ksz_router.link import HandshakeError, Link
from ksz_router.messages import Answer, Delivery, Outcome, Reply, Request
from ksz_router.model import Endpoint
from ksz_router.wire import Connection, Drain, Ended, Event, Side, Welcome


@functools.cache
def context_of(pki: Path, name: str, *, serves: bool) -> ssl.SSLContext:
    """The TLS context of one pair of files of a test PKI."""
    make = tls.server_context if serves else tls.client_context
    return make(
        certificate=pki / f"{name}.crt",
        key=pki / f"{name}.key",
        authorities=pki / "authorities.pem",
    )


class Caller:
    """An institution's connection. ``answers`` is everything it was answered, in order."""

    def __init__(self, link: Link, uri: str) -> None:
        self.link = link
        self.uri = uri
        self.events: list[Event] = []
        self.answers: list[Answer] = []
        self.reads = True

    @classmethod
    async def connect(
        cls, port: int, context: ssl.SSLContext, *, router: str, uri: str
    ) -> "Caller":
        """Dial a router and shake hands; the Hello is sent, its Welcome still to come."""
        connection = Connection(Side.REQUESTER, agent="caller")
        link = await dial("127.0.0.1", port, context, connection, router)
        link.flush()
        return cls(link, uri)

    @property
    def is_open(self) -> bool:
        return any(isinstance(event, Welcome) for event in self.events)

    @property
    def ended(self) -> Ended | None:
        """How the connection ended, as this side saw it."""
        return next((event for event in self.events if isinstance(event, Ended)), None)

    def ask(self, *requests: Request) -> None:
        """Send requests, all in one piece."""
        for request in requests:
            self.link.send(request)
        self.link.flush()

    def answer_to(self, number: int) -> Answer:
        """The one answer to a request."""
        (answer,) = [answer for answer in self.answers if answer.id == number]
        return answer

    def pump(self) -> None:
        """Read what came and write what is queued."""
        if self.reads and not self.link.connection.is_ended:
            for event in self.link.receive():
                self.events.append(event)
                if isinstance(event, Answer):
                    self.answers.append(event)
        self.link.flush()

    def close(self) -> None:
        self.link.close()


class SourceSide:
    """A source that listens. What it is delivered waits in ``deliveries`` for the test."""

    def __init__(self, uri: str, context: ssl.SSLContext, *, inflight_max: int) -> None:
        self._context = context
        self._inflight_max = inflight_max
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1], uri)
        self.links: list[Link] = []
        self.deliveries: list[tuple[Link, Delivery]] = []
        self.ended: list[Ended] = []
        self.reads = True
        """Whether what comes is read; a Hello is answered by the reading of it."""

    async def serve(self) -> None:
        """Accept and shake hands until cancelled."""
        self._listener.setblocking(False)
        listener = trio.socket.from_stdlib_socket(self._listener)
        while True:
            sock, _ = await listener.accept()
            plain = socket.socket(fileno=sock.detach())
            connection = Connection(Side.SOURCE, agent="s", inflight_max=self._inflight_max)
            link = Link(plain, self._context, connection)
            try:
                await link.handshake()
            except HandshakeError:
                plain.close()
                continue
            except BaseException:
                plain.close()
                raise
            self.links.append(link)

    @property
    def last(self) -> Delivery:
        """What was delivered last."""
        return self.deliveries[-1][1]

    def pump(self) -> None:
        """Read what came and write what is queued."""
        for link in self.links:
            if self.reads and not link.connection.is_ended:
                for event in link.receive():
                    if isinstance(event, Delivery):
                        self.deliveries.append((link, event))
                    elif isinstance(event, Ended):
                        self.ended.append(event)
            link.flush()

    def reply(self, index: int = -1, **changes: Any) -> None:
        """Answer a delivery, with data for the person asked about unless said otherwise."""
        link, delivery = self.deliveries[index]
        link.send(self.reply_to(delivery, **changes))
        link.flush()

    def reply_to(self, delivery: Delivery, **changes: Any) -> Reply:
        """What :meth:`reply` sends."""
        fields: dict[str, Any] = {
            "id": delivery.id,
            "outcome": Outcome.DATA,
            "person": delivery.person,
            "payload": b"data",
        }
        return Reply(**(fields | changes))

    def drain(self, link: Link) -> None:
        """Announce that nothing new is taken on a connection."""
        link.send(Drain(30))

    def lose(self, link: Link) -> None:
        """Cut a connection without a word."""
        link.close()
        link.connection.receive_end()

    def close(self) -> None:
        for link in self.links:
            link.close()
        self._listener.close()
