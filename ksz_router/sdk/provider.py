"""Serve as a source: the router dials, and each delivery is answered by a handler of ours.

    async def unemployment(delivery: Delivery) -> Supply:
        return Supply(Outcome.DATA, payload=...)

    provider = Provider(identity, router_uris={ROUTER}, services={("UnemploymentData", 3): ...})
    await provider.serve(host="0.0.0.0", port=7801)

What is delivered was checked and recorded. A handler answers for the person of the delivery and
for no other: it has no say in whom the reply names.
"""

import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType

import msgspec
import trio

from ksz_router import __version__
from ksz_router.codes import Code
from ksz_router.credentials import Credentials, Identity
from ksz_router.identifiers import is_insz
from ksz_router.keepers import KNOWN_SERVICE
from ksz_router.limits import (
    connections_per_worker_max,
    further_persons_max,
    handshake_seconds_max,
    payload_bytes_max,
    source_inflight_max,
)
from ksz_router.link import HandshakeError, Link
from ksz_router.messages import Delivery, Outcome, Reply
from ksz_router.sdk.pump import Pump
from ksz_router.sdk.sectoral import Knows, asked
from ksz_router.wire import Connection, Drain, Event, Side

_log = logging.getLogger("ksz_router.sdk")


class Supply(msgspec.Struct, frozen=True):
    """What a handler answers.

    ``persons`` are further persons whom the answer concerns, at most 64: each must be declared,
    since each gets an entry in the privacy log; whoever is named twice, or is the person asked
    about, is declared once. ``user`` or ``application`` is who supplied it.
    """

    outcome: Outcome
    payload: bytes = b""
    persons: tuple[str, ...] = ()
    user: str | None = None
    application: str | None = None
    source_code: str = ""

    def __repr__(self) -> str:
        return f"Supply({self.outcome.name})"


Handler = Callable[[Delivery], Awaitable[Supply | None]]
"""Answers a delivery. ``None`` is no answer: the router takes for unknown what became of it, and a
submission may come again, marked as a repeat. To say ``FAILED`` of it instead is final."""

Taker = Callable[[Delivery, Callable[[Supply | None], None]], None]
"""Takes a delivery, returns at once, and has it answered later by the function that it is given.

For who answers many deliveries together, at a third of the cost of a task for each. It keeps the
deadline itself, and calls that function once, on the loop of the provider; ``None`` is no answer,
as of a handler. Only a program that ends without knowing what came of a delivery may not call it.
"""


class Provider:
    """Answers deliveries.

    Args:
        identity: Our certificate and the CAs we accept.
        router_uris: SAN URIs of the routers that may dial us.
        services: Handler by service name and version.
        takers: Likewise; no service is in both.
        sectoral: Says whom the directory of our secondary network knows, where we keep one.

    Raises:
        TlsFilesError: a certificate file cannot be used.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        router_uris: set[str],
        services: Mapping[tuple[str, int], Handler],
        takers: Mapping[tuple[str, int], Taker] = MappingProxyType({}),
        sectoral: Knows | None = None,
    ) -> None:
        self._credentials = Credentials(identity, time.time)
        self._router_uris = router_uris
        self._services = dict(services)
        if sectoral is not None:
            self._services[KNOWN_SERVICE, 1] = partial(_known, sectoral)
        self._takers = dict(takers)
        self._pumps: set[Pump] = set()
        self._inflight = 0
        self._drain_s = 0
        self._changed = trio.Event()
        self._accepting = trio.CancelScope()

    async def serve(
        self,
        *,
        host: str,
        port: int,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or until :meth:`drain` was called and all is answered.

        ``nursery.start`` returns the port that is listened on.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        task_status.started(listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            try:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        for listener in listeners:
                            accepting.start_soon(self._accept, listener.socket, nursery)
            finally:
                for listener in listeners:
                    listener.socket.close()
            # Deliveries may be on their way until the router knows; then it closes what is idle.
            with trio.move_on_after(self._drain_s):
                while self._inflight or self._pumps:
                    self._changed = trio.Event()
                    await self._changed.wait()
            for pump in list(self._pumps):
                pump.end()

    def drain(self, seconds: int = 30) -> None:
        """Take nothing new; :meth:`serve` returns once everything in flight is answered.

        At the latest after so many ``seconds``, which the routers are told.
        """
        self._drain_s = seconds
        for pump in self._pumps:
            pump.send(Drain(seconds))
        self._accepting.cancel()

    def renew(self) -> None:
        """Read the certificate files anew, for the connections that come from now on.

        Those that stand stay, but for routers that are no longer accepted.

        Raises:
            TlsFilesError: a file cannot be used; nothing changed.
        """
        self._credentials.renew()
        for pump in list(self._pumps):
            fault = self._credentials.fault(pump.link.chain)
            if fault is not None:
                pump.end(fault.code)

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                sock, _ = await listener.accept()
            except OSError as error:
                _log.warning("cannot accept a connection: %s", error.strerror)
                await trio.sleep(0.1)
                continue
            plain = socket.socket(fileno=sock.detach())
            if len(self._pumps) >= connections_per_worker_max:
                plain.close()
            else:
                nursery.start_soon(self._serve_one, plain)

    async def _serve_one(self, sock: socket.socket) -> None:
        agent = f"ksz-router-sdk/{__version__}"
        connection = Connection(Side.SOURCE, agent=agent, inflight_max=source_inflight_max)
        link = Link(sock, self._credentials.server(), connection)
        try:
            with trio.fail_after(handshake_seconds_max):
                await link.handshake()
        except (HandshakeError, trio.TooSlowError) as error:
            _log.warning("a handshake failed: %s", error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        if link.peer_uri() not in self._router_uris:
            _log.warning("refused a peer that is not the router: %r", link.peer_uri())
            link.turn_away(Code.CERTIFICATE_REFUSED)
            link.close()
            return
        async with trio.open_nursery() as nursery:

            def on_event(event: Event) -> None:
                if isinstance(event, Delivery):
                    self._inflight += 1
                    taker = self._takers.get((event.service, event.version))
                    if taker is None:
                        nursery.start_soon(self._answer, pump, event)
                    else:
                        self._hand_over(taker, pump, event)

            pump = Pump(link, on_event)
            self._pumps.add(pump)
            try:
                await pump.run()
            finally:
                self._pumps.discard(pump)
                self._changed.set()

    async def _answer(self, pump: Pump, delivery: Delivery) -> None:
        """Run the handler within the deadline of the delivery, and reply as far as it is known."""
        supply: Supply | None = Supply(Outcome.FAILED, source_code="NO-HANDLER")
        handler = self._services.get((delivery.service, delivery.version))
        try:
            if handler is not None:
                supply = None  # cancelled in the midst: nobody can say that nothing was done
                with trio.move_on_after(delivery.deadline_ms / 1000):
                    supply = await handler(delivery)
        except Exception as error:  # noqa: BLE001 - any fault of a handler is a failed answer
            supply = _failed(delivery, error)
        except BaseException:  # ended without an answer
            self._settled()
            raise
        self._reply(pump, delivery, supply)

    def _hand_over(self, taker: Taker, pump: Pump, delivery: Delivery) -> None:
        answer = partial(self._reply, pump, delivery)
        try:
            taker(delivery, answer)
        except Exception as error:  # noqa: BLE001 - as above
            answer(_failed(delivery, error))

    def _settled(self) -> None:
        self._inflight -= 1
        if not self._inflight:
            self._changed.set()

    def _reply(self, pump: Pump, delivery: Delivery, supply: Supply | None) -> None:
        """Answer, if at all; what is answered in one turn of the loop is written together."""
        self._settled()
        if supply is None:
            return
        persons = tuple(dict.fromkeys(n for n in supply.persons if n != delivery.person))
        fault = _fault(supply.payload, persons)
        if fault:
            _log.error("the answer of %s cannot be sent: %s", delivery.service, fault)
            supply, persons = Supply(Outcome.FAILED, source_code=fault), ()
        if not pump.link.connection.is_ended:
            pump.send_together(
                Reply(
                    id=delivery.id,
                    outcome=supply.outcome,
                    person=delivery.person,
                    persons=persons,
                    user=supply.user,
                    application=supply.application,
                    source_code=supply.source_code,
                    payload=supply.payload,
                )
            )


async def _known(knows: Knows, delivery: Delivery) -> Supply:
    return Supply(Outcome.DATA if await knows(asked(delivery)) else Outcome.NO_DATA)


def _failed(delivery: Delivery, error: Exception) -> Supply:
    _log.error("the handler of %s failed: %s", delivery.service, type(error).__name__)
    return Supply(Outcome.FAILED, source_code="HANDLER-FAULT")


def _fault(payload: bytes, persons: tuple[str, ...]) -> str:
    """Why an answer would not be taken; told as its source code, since it is ours to mend."""
    if len(payload) > payload_bytes_max:
        return "TOO-LARGE"
    if len(persons) > further_persons_max:
        return "TOO-MANY-PERSONS"
    return "" if all(map(is_insz, persons)) else "PERSON-MALFORMED"
