"""The router's own connections to sources: dialled on demand, pipelined, bounded, broken off.

Takes a ``Recorded`` group of exchanges and nothing less, so that no delivery can leave before the
entry of its request is durable.
"""

import ssl
from collections.abc import Callable, Sequence

import trio

from ksz_router.codes import Code
from ksz_router.config import Sources
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.daemon.recorder import Recorded
from ksz_router.daemon.source import STATES, Source, SourceLink
from ksz_router.dial import dial
from ksz_router.identifiers import Kbo
from ksz_router.limits import (
    handshake_seconds_max,
    source_dials_at_once_max,
    source_draining_links_max,
)
from ksz_router.link import HandshakeError, Link
from ksz_router.model import Endpoint
from ksz_router.routing import BreakerSettings
from ksz_router.wire import Connection, Side

Failed = list[tuple[Errand, Code]]

_DIALLED_AGAIN_AFTER_NS = 1_000_000_000
"""An endpoint that came to nothing is left out this long, as long as there is another way."""


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
        self.breaker_turned: Callable[[Source], None] = lambda _: None
        """Called with a source whose breaker opened or closed."""
        self.refused: Callable[[Endpoint, HandshakeError], None]
        """Called when a source did not get through the handshake."""
        self._settings = settings
        self._breaker = _breaker_settings(settings)
        self._window = window
        self._context = context
        self._agent = agent
        self._endpoints_of = endpoints_of
        self._clock_ns = clock_ns
        self._nursery = nursery
        self._waited_for: set[Source] = set()
        """Sources for which something waits."""
        self._retired = 0
        """How often connections were retired: one that was being made meanwhile is, too."""

    def forward(self, recorded: Recorded[Sequence[Exchange]], now_ns: int) -> Failed:
        """Put recorded requests to their destinations; return those that failed at once.

        They are sent by :meth:`resume`, once their connections are seen to.
        """
        known, taking = self.sources, set[Source]()
        per_endpoint = self._settings.connections_per_endpoint
        failed: Failed = []
        for exchange in recorded.value:
            caller = exchange.facts.caller
            assert caller is not None, "only what passed the control is forwarded"
            exchange.forwarded_ns = now_ns
            exchange.open_errands = len(exchange.destinations)
            requester = exchange.counted_for or caller.kbo
            for kbo in exchange.destinations:
                errand = Errand(exchange, kbo, requester)
                exchange.errands.append(errand)
                source = known.get(kbo) or self._source(kbo)
                code = source.take(errand, now_ns)
                if code is None:
                    taking.add(source)
                else:
                    failed.append((errand, code))
        for source in taking:
            if not source.is_served:
                self._dial(source, is_urgent=True)
            elif len(source.links) < len(source.endpoints) * per_endpoint:
                self._dial(source)  # one of them may be back
        self._waited_for |= taking
        return failed

    def resume(self, touched: set[Link]) -> Failed:
        """Send what waits wherever there is room; return what failed.

        A group that became durable, a reply, a Welcome, a Drain, a deadline, a flush, the end of a
        connection: whatever changes what there is to send, or what a source takes, this comes
        after it, in the same turn.
        """
        failed: Failed = []
        for source in list(self._waited_for):
            failed += source.send_waiting(self._clock_ns(), touched)
            if not source.waiting:
                self._waited_for.discard(source)
            elif not source.is_served:
                self._dial(source)
        return failed

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
        if link in source.links:
            source.links.remove(link)
        lost = list(link.pending.values())
        link.pending.clear()
        failed = [(errand, Code.SOURCE_CONNECTION_LOST) for errand in lost]
        if not link.is_open and not source.is_served:  # it does not even greet: no use to dial on
            unreachable = source.abandon()
            failed += [(errand, Code.SOURCE_UNREACHABLE) for errand in unreachable]
            lost += unreachable
        if lost:
            source.broke(lost, self._clock_ns())
        return failed

    def abandon(self) -> Failed:
        """The worker ends: return the errands that no connection came about for."""
        waiting = [errand for source in self.sources.values() for errand in source.abandon()]
        return [(errand, Code.SOURCE_UNREACHABLE) for errand in waiting]

    def refresh(self) -> None:
        """Another rulebook is in force: leave endpoints that are gone, once they are idle."""
        for source in self.sources.values():
            source.endpoints = self._endpoints_of(source.kbo)
            for link in source.links:
                link.is_draining = link.is_draining or link.endpoint not in source.endpoints

    def retire_connections(self) -> None:
        """Other certificates or revocations are in force: new connections for new deliveries."""
        self._retired += 1
        for source in self.sources.values():
            for link in source.links:
                link.is_draining = True

    def count_by_state(self) -> dict[str, int]:
        """How many of the sources that were ever asked are in each of ``STATES``."""
        states = [source.state for source in list(self.sources.values())]
        return {state: states.count(state) for state in STATES}

    def adjust(self, settings: Sources, window: int) -> None:
        """Go by other settings, for the sources that are known as well."""
        self._settings, self._window = settings, window
        self._breaker = _breaker_settings(settings)
        for source in self.sources.values():
            source.adjust(window, self._breaker)
            for endpoint in source.endpoints:
                links = [n for n in source.links if n.endpoint == endpoint and not n.is_draining]
                for surplus in links[settings.connections_per_endpoint :]:
                    surplus.is_draining = True
            if source.links:
                self._dial(source, is_urgent=True)

    def _source(self, kbo: Kbo) -> Source:
        source = self.sources.get(kbo)
        if source is None:
            source = self.sources[kbo] = Source(
                kbo,
                self._endpoints_of(kbo),
                window=self._window,
                settings=self._breaker,
                breaker_turned=self.breaker_turned,
            )
        return source

    def _dial(self, source: Source, *, is_urgent: bool = False) -> None:
        """Dial every endpoint that lacks connections, all at once.

        One that was dialled lately and has not served since is left out, unless it is urgent: a
        request has nobody else.
        """
        now_ns = self._clock_ns()
        for endpoint in source.endpoints:
            if len(source.dialling) >= source_dials_at_once_max:
                return
            is_due = now_ns - source.dialled_ns.get(endpoint, 0) >= _DIALLED_AGAIN_AFTER_NS
            if (
                (is_due or is_urgent)
                and endpoint not in source.dialling
                and self._lacks_links(source, endpoint)
            ):
                source.dialled_ns[endpoint] = now_ns
                source.dialling.add(endpoint)
                self._nursery.start_soon(self._connect, source, endpoint)

    def _lacks_links(self, source: Source, endpoint: Endpoint) -> bool:
        links = [link for link in source.links if link.endpoint == endpoint]
        draining = sum(link.is_draining for link in links)
        lacks = len(links) - draining < self._settings.connections_per_endpoint
        return lacks and draining < source_draining_links_max  # else wait for one to end

    async def _connect(self, source: Source, endpoint: Endpoint) -> None:
        """Open what an endpoint lacks of connections; fail what waits if none comes about."""
        try:
            while self._lacks_links(source, endpoint):
                retired = self._retired
                link = await self._open(endpoint)
                if link is None:
                    break
                source_link = SourceLink(source, link, endpoint, self._clock_ns())
                source_link.is_draining = (
                    retired != self._retired or endpoint not in source.endpoints
                )
                source.links.append(source_link)
                self.dialled(source_link)
        finally:
            source.dialling.discard(endpoint)
        if source.waiting and not source.is_served:
            self._dial(source)  # those whose turn did not come yet
        if source.waiting and not source.is_served:
            waiting = source.abandon()
            source.broke(waiting, self._clock_ns())
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
            except (OSError, UnicodeError):  # the last: a host that no DNS name is
                return None
        return None


def _breaker_settings(settings: Sources) -> BreakerSettings:
    return BreakerSettings(
        failures_max=settings.breaker_failures,
        open_ns=int(settings.breaker_open_seconds * 1e9),
        failed_share=settings.breaker_failed_share,
    )
