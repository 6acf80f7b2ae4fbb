"""The router's own connections to sources: dialled on demand, pipelined, bounded, broken off.

Takes ``Recorded[Dispatch]`` and nothing less, so that no delivery can leave before the entry of
its request is durable.
"""

import ssl
from collections.abc import Callable

import trio

from ksz_router.codes import Code
from ksz_router.config import Sources
from ksz_router.daemon.entries import destinations_of
from ksz_router.daemon.opened import Dispatch, Errand
from ksz_router.daemon.recorder import Recorded
from ksz_router.daemon.source import Source, SourceLink
from ksz_router.decision import Forward
from ksz_router.identifiers import Kbo
from ksz_router.limits import handshake_seconds_max
from ksz_router.link import HandshakeError, Link, dial
from ksz_router.messages import Reply
from ksz_router.model import Endpoint
from ksz_router.routing import BreakerSettings
from ksz_router.wire import Connection, Side

Failed = list[tuple[Errand, Code]]


class Upstream:
    """All sources of one worker.

    Args:
        settings: Bounds of connections and breakers.
        window: Deliveries in flight to one source.
        context: Gives the TLS context for a new connection, with the certificates of the day.
        agent: What the router calls itself.
        endpoints_of: Asks the rulebook in force.
        clock_ns: Monotonic.
        nursery: Where dialling runs.
    """

    def __init__(
        self,
        *,
        settings: Sources,
        window: int,
        context: Callable[[], ssl.SSLContext],
        agent: str,
        endpoints_of: Callable[[Kbo], tuple[Endpoint, ...]],
        clock_ns: Callable[[], int],
        nursery: trio.Nursery,
    ) -> None:
        self.sources: dict[Kbo, Source] = {}
        self.dialled: Callable[[SourceLink], None]
        """Called with each new connection, to be watched for what comes."""
        self.failed: Callable[[Failed], None]
        """Called with errands that failed outside a batch."""
        self.refused: Callable[[Endpoint, HandshakeError], None]
        """Called when a source did not get through the handshake."""
        self._settings = settings
        self._breaker = BreakerSettings(
            settings.breaker_failures, int(settings.breaker_open_seconds * 1e9)
        )
        self._window = window
        self._context = context
        self._agent = agent
        self._endpoints_of = endpoints_of
        self._clock_ns = clock_ns
        self._nursery = nursery

    def forward(self, recorded: Recorded[Dispatch], touched: set[Link]) -> Failed:
        """Put a recorded request to its destinations; return those that failed at once."""
        exchange = recorded.value.exchange
        verdict = exchange.verdict
        assert isinstance(verdict, Forward)
        now_ns = self._clock_ns()
        exchange.forwarded_ns = now_ns
        exchange.errands = [Errand(exchange, Kbo(kbo)) for kbo in destinations_of(verdict)]
        exchange.open_errands = len(exchange.errands)
        failed = []
        for errand in exchange.errands:
            source = self._source(errand.kbo)
            code = source.take(errand, now_ns)
            if code is not None:
                failed.append((errand, code))
            elif errand.link is not None:
                touched.add(errand.link.link)
            else:
                self._dial(source)
        return failed

    def welcomed(self, link: SourceLink, touched: set[Link]) -> Failed:
        """The source is ready: send what waited for it; return what failed."""
        link.is_open = True
        touched.add(link.link)
        return link.source.take_waiting(self._clock_ns())

    def replied(self, link: SourceLink, reply: Reply) -> Errand | None:
        """Return the errand that this answers; None where none is waiting under that number."""
        errand = link.pending.pop(reply.id, None)
        if errand is not None:
            errand.answered_ns = self._clock_ns()
            link.source.succeeded()
            if link.source.waiting:
                for late, code in link.source.take_waiting(errand.answered_ns):
                    self.failed([(late, code)])
        return errand

    def give_up(self, errand: Errand) -> Code:
        """The deadline of an errand passed: stop waiting, and say what for it waited."""
        source = self._source(errand.kbo)
        source.give_up(errand, self._clock_ns())
        if errand.sent_ns:
            return Code.SOURCE_SILENT
        is_up = any(link.is_open for link in source.links)
        return Code.SOURCE_WINDOW_FULL if is_up else Code.SOURCE_UNREACHABLE

    def retry_after_ms(self, kbo: Kbo) -> int:
        """How long the breaker of a source stays open; 0 where it is closed."""
        left_ns = self._source(kbo).breaker.open_until_ns - self._clock_ns()
        return max(0, -(-left_ns // 1_000_000))

    def ended(self, link: SourceLink) -> Failed:
        """A connection is over: return the errands that will not be answered on it."""
        source = link.source
        lost = list(link.pending.values())
        link.pending.clear()
        if link in source.links:
            source.links.remove(link)
        if lost or not link.is_open:
            source.failed(self._clock_ns(), errands=len(lost))
        failed = [(errand, Code.SOURCE_CONNECTION_LOST) for errand in lost]
        is_alone = not source.links and not source.is_dialling
        if is_alone and not link.is_open:  # it does not even greet: no use to dial on
            failed += [(errand, Code.SOURCE_UNREACHABLE) for errand in source.waiting]
            source.inflight -= len(source.waiting)
            source.waiting.clear()
        elif source.waiting:
            self._dial(source)
        return failed

    def abandon(self) -> Failed:
        """The worker ends: return the errands that no connection came about for."""
        waiting = [errand for source in self.sources.values() for errand in source.waiting]
        for source in self.sources.values():
            source.waiting.clear()
        return [(errand, Code.SOURCE_UNREACHABLE) for errand in waiting]

    def refresh(self) -> None:
        """Another rulebook is in force: leave endpoints that are gone, once they are idle."""
        for source in self.sources.values():
            source.endpoints = self._endpoints_of(source.kbo)
            for link in source.links:
                link.is_draining = link.is_draining or link.endpoint not in source.endpoints

    def retire_connections(self) -> None:
        """Other certificates or revocations are in force: new connections for new deliveries."""
        for source in self.sources.values():
            for link in source.links:
                link.is_draining = True

    def _source(self, kbo: Kbo) -> Source:
        source = self.sources.get(kbo)
        if source is None:
            endpoints = self._endpoints_of(kbo)
            source = self.sources[kbo] = Source(kbo, endpoints, self._window, self._breaker)
        return source

    def _dial(self, source: Source) -> None:
        if not source.is_dialling:
            source.is_dialling = True
            self._nursery.start_soon(self._connect, source)

    async def _connect(self, source: Source) -> None:
        """Open what is missing of a source's connections; fail what waits if none comes about."""
        try:
            for endpoint in source.endpoints:
                there = [n for n in source.links if n.endpoint == endpoint and not n.is_draining]
                for _ in range(self._settings.connections_per_endpoint - len(there)):
                    link = await self._open(endpoint)
                    if link is None:
                        break
                    source_link = SourceLink(source, link, endpoint, self._clock_ns())
                    source.links.append(source_link)
                    self.dialled(source_link)
        finally:
            source.is_dialling = False
        if source.waiting and not any(not link.is_draining for link in source.links):
            waiting = list(source.waiting)
            source.waiting.clear()
            source.failed(self._clock_ns(), errands=len(waiting))
            self.failed([(errand, Code.SOURCE_UNREACHABLE) for errand in waiting])

    async def _open(self, endpoint: Endpoint) -> Link | None:
        connection = Connection(Side.BACK, agent=self._agent)
        limit_s = self._settings.connect_seconds + handshake_seconds_max
        with trio.move_on_after(min(limit_s, 2 * self._settings.connect_seconds)):
            try:
                return await dial(
                    endpoint.host, endpoint.port, self._context(), connection, endpoint.uri
                )
            except HandshakeError as error:
                self.refused(endpoint, error)
                return None
            except OSError:
                return None
        return None
