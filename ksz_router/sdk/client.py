"""Ask the router: many requests in flight over one connection that is kept up.

    async with open_client(identity, host="router.example", port=7443, uri=ROUTER) as client:
        answer = await client.ask(Request(id=0, ticket=new_ticket(), ...), deadline_s=5)

An :class:`Answer` is returned whatever the verdict; exceptions are for when there is none.
"""

import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ksz_router import __version__
from ksz_router.credentials import Credentials, Identity
from ksz_router.limits import hello_seconds_max
from ksz_router.messages import Answer, Request
from ksz_router.sdk.dialling import dial_router, not_greeted
from ksz_router.sdk.line import Line
from ksz_router.sdk.pump import Pump
from ksz_router.sdk.settings import (
    AuthenticationError,
    ConnectionLostError,
    NotAnsweredError,
    NotConnectedError,
    SdkError,
)
from ksz_router.sdk.together import TURNED_AWAY, Result, Together, pause
from ksz_router.wire import Connection, Drain, Ended, Event, Side, Welcome

_BACKOFF_SECONDS_MAX = 5.0
_ATTEMPTS_MAX = 8


def new_ticket() -> str:
    """Return a fresh ticket: 36 characters, no two alike."""
    return str(uuid.uuid4())


class Client:
    """A connection to the router that reconnects by itself. Made by :func:`open_client`."""

    def __init__(self, identity: Identity, host: str, port: int, uri: str) -> None:
        self._credentials = Credentials(identity, time.time)
        self._address = (host, port, uri)
        self._line: Line | None = None
        self._connected = trio.Event()
        self._disturbed = trio.Event()
        """Set when the line in use is to be replaced."""
        self._renewed = trio.Event()
        self._fatal: AuthenticationError | None = None
        self._why_not = "it was not tried yet"

    async def ask(
        self, request: Request, *, deadline_s: float = 10.0, resend: bool = False
    ) -> Answer:
        """Ask, and wait for the answer.

        Args:
            request: Its ``id`` is chosen here; its ticket is kept over every retry.
            deadline_s: For everything, waiting for a connection and retries included.
            resend: Send again, with the same ticket, when the connection broke before the answer.
                Right for a consultation; for a submission only the caller knows.

        Raises:
            AuthenticationError: the router does not accept the certificate, or is another.
            NotConnectedError: no connection came about in time.
            NotAnsweredError, ConnectionLostError: what became of the request is not known.
            MessageTooLargeError: the payload does not fit into a frame.
        """
        ends_at = trio.current_time() + deadline_s
        turned_away: Answer | None = None
        was_sent = False
        for _ in range(_ATTEMPTS_MAX):
            answer = None
            with trio.move_on_at(ends_at) as waiting:
                line = await self._free_line()
                async with line.places:
                    if line.is_draining:
                        continue  # it ended while this waited for a place on it
                    was_sent = True
                    answer = await line.exchange(request, ends_at)
                if answer is not None and answer.code in TURNED_AWAY:
                    turned_away, was_sent = answer, False
                    await pause()
                    continue
                if answer is None and not resend:
                    raise ConnectionLostError("the connection broke; ask again with the ticket")
            if answer is not None and answer.code not in TURNED_AWAY:
                return answer
            if waiting.cancelled_caught:
                break
        if was_sent:
            raise NotAnsweredError("no answer before the deadline; ask again with the ticket")
        if turned_away is not None:
            return turned_away
        raise NotConnectedError(f"no connection before the deadline: {self._why_not}")

    async def ask_together(
        self, requests: Sequence[Request], *, deadline_s: float = 10.0, resend: bool = False
    ) -> list[Result]:
        """Ask several in as few frames as they fit into; wait for what comes of each.

        Neighbours that share who asks, why and until when travel in one envelope, as many as the
        router's window has places for. They are judged, answered and asked again one by one.

        Args:
            requests: As :meth:`ask` takes them.
            deadline_s: For all of them together.
            resend: As :meth:`ask` has it.

        Returns:
            For each request, in their order, its answer, or the error that :meth:`ask` would
            have raised: one that fails hides the answer of no other.
        """
        together = Together(
            requests,
            ends_at=trio.current_time() + deadline_s,
            resend=resend,
            free_line=self._free_line,
            ask=lambda request, left_s: self.ask(request, deadline_s=left_s, resend=resend),
        )
        return await together.run()

    async def _free_line(self) -> Line:
        while True:
            if self._fatal is not None:
                raise self._fatal
            line = self._line
            if line is not None and not line.is_draining:
                await line.pump.writable()
                if not line.pump.link.connection.is_ended:
                    return line
            await self._connected.wait()
            await trio.lowlevel.checkpoint()

    async def keep_connected(self) -> None:
        """Dial, and dial again when a connection ends or drains; with longer breaks on failure."""
        failures = 0
        async with trio.open_nursery() as nursery:
            while True:
                standing = self._credentials.standing
                try:
                    line = await self._open(nursery)
                except AuthenticationError as error:
                    if standing is self._credentials.standing:
                        self._fatal = error
                        self._connected.set()
                        await self._renewed.wait()
                    continue
                except (SdkError, OSError) as error:
                    self._why_not = str(error)
                    failures += 1
                    most = min(_BACKOFF_SECONDS_MAX, 0.1 * 2**failures)
                    await trio.sleep(random.uniform(most / 2, most))  # noqa: S311 - jitter
                    continue
                failures = 0
                if standing is not self._credentials.standing:
                    line.pump.end()  # it was dialled with certificates that are no longer ours
                if line.is_draining:
                    continue
                self._line, self._disturbed = line, trio.Event()
                self._connected.set()
                await self._disturbed.wait()

    async def _open(self, nursery: trio.Nursery) -> Line:
        """Dial, greet, and start driving a connection."""
        host, port, uri = self._address
        connection = Connection(Side.REQUESTER, agent=f"ksz-router-sdk/{__version__}")
        link = await dial_router(self._credentials, host, port, uri, connection)
        greeted = trio.Event()
        ended: list[Ended] = []

        def on_event(event: Event) -> None:
            if isinstance(event, Welcome):
                line.places.total_tokens = connection.inflight_max
                greeted.set()
            elif isinstance(event, Ended):
                ended.append(event)
                greeted.set()
            self._on_event(line, event)

        line = Line(Pump(link, on_event))
        nursery.start_soon(line.pump.run)
        with trio.move_on_after(hello_seconds_max):
            await greeted.wait()
        if ended or not greeted.is_set():
            line.pump.end()
            raise not_greeted(ended)
        return line

    def _on_event(self, line: Line, event: Event) -> None:
        if isinstance(event, Answer):
            waiting = line.waiting.get(event.id)
            if waiting is not None:
                waiting.answer = event
                waiting.event.set()
            line.end_if_idle()
        elif isinstance(event, Drain):
            self._leave(line)
            line.end_if_idle()
        elif isinstance(event, Ended):
            self._leave(line)
            for waiting in line.waiting.values():
                waiting.event.set()

    def _leave(self, line: Line) -> None:
        """Put nothing new on this connection; another one is dialled."""
        line.is_draining = True
        if self._line is line:
            self._line = None
            self._connected = trio.Event()
            self._disturbed.set()

    def renew(self) -> None:
        """Read the certificate files anew; what is asked from now on goes over a new connection.

        What is in flight is still answered on the old one. After an AuthenticationError the
        client dials again.

        Raises:
            TlsFilesError: a file cannot be used; nothing changed.
        """
        self._credentials.renew()
        if self._fatal is not None:
            self._fatal, self._connected = None, trio.Event()
        self._renewed.set()
        self._renewed = trio.Event()
        line = self._line
        if line is not None:
            self._leave(line)
            fault = self._credentials.fault(line.pump.link.chain)
            if fault is not None:
                line.pump.end(fault.code)
            line.end_if_idle()

    def close(self) -> None:
        """Say goodbye."""
        if self._line is not None:
            self._line.pump.end()


@asynccontextmanager
async def open_client(
    identity: Identity, *, host: str, port: int, uri: str
) -> AsyncIterator[Client]:
    """Open a client; it connects in the background and is closed on leaving.

    Args:
        identity: Our certificate and the CAs we accept.
        host: Where the router listens.
        port: Its TCP port.
        uri: The SAN URI that the router's certificate must carry.

    Raises:
        TlsFilesError: a certificate file cannot be used.
    """
    client = Client(identity, host, port, uri)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.keep_connected)
            yield client
            client.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:  # what the caller raised inside, as it raised it
            raise group.exceptions[0] from None
        raise
