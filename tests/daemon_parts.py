"""One worker's parts in this process, wired as the worker wires them: real tables, log, TLS, TCP.

Only the clocks are the test's own: nothing waits for time to pass. A test drives everything by
``until``, which lets the worker, its callers and its sources take turns until something is so.
"""

import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ParamSpec

import trio

from ksz_router.cli.testpki import ROUTER_URI
from ksz_router.codes import Code
from ksz_router.config import Connections, Sources, Tls, Windows
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.exchange import Exchanges
from ksz_router.daemon.housekeeping import Housekeeping
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.loop import Loop, Peer
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.server import Server
from ksz_router.daemon.session import Session
from ksz_router.daemon.submissions import Submissions
from ksz_router.daemon.upstream import Upstream
from ksz_router.ledger import Ledger
from ksz_router.limits import connections_per_worker_max
from ksz_router.link import HandshakeError
from ksz_router.model import Endpoint
from ksz_router.privacylog.durable import DISK, Disk
from ksz_router.privacylog.entry import Entry, parse
from ksz_router.privacylog.writer import Writer
from ksz_router.wire import Ended
from tests import worlds
from tests.daemon_ground import Ground
from tests.daemon_peers import Caller, SourceSide, context_of
from tests.hostile_sources import Behaviour, Hostile
from tests.worlds import NOW_MS, uri

P = ParamSpec("P")

FILE_BYTES = 1 << 20
LEDGER_WINDOW_US = 3_600_000_000
_START_NS = 1_000_000_000_000


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test; of a group with one exception, show that one."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        error: BaseException
        try:
            trio.run(functools.partial(test, *args, **kwargs))
        except BaseExceptionGroup as group:
            error = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    return run


def contexts_of(ground: Ground) -> Contexts:
    """The router's certificates, with the revocation lists of its authorities."""
    names = ("router.crt", "router.key", "authorities.pem", "revocations.pem")
    certificate, key, authorities, revocations = (str(ground.pki / name) for name in names)
    return Contexts(Tls(certificate, key, authorities, revocations))


class Parts:
    """One worker. ``now_ns`` is its clock, and the test moves it. Make it with :func:`parts`."""

    def __init__(
        self,
        ground: Ground,
        nursery: trio.Nursery,
        *,
        windows: Windows,
        connections: Connections,
        places: int,
        sources: Sources,
        disk: Disk,
        writer: type[Writer],
    ) -> None:
        self.ground = ground
        self.nursery = nursery
        self.now_ns = _START_NS
        self.durable: list[Entry] = []
        """What became durable, in order."""
        self.ended: list[tuple[Peer, Ended]] = []
        self.refused: list[tuple[Code, str]] = []
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self.callers: list[Caller] = []
        self.sources: list[SourceSide] = []
        self.hostile: list[Hostile] = []
        self.log = ground.folder / f"log-{next(ground.logs)}"
        self.writer = writer.open(
            self.log,
            slot="w0",
            node="router-a",
            keys_folder=ground.keys_folder,
            now_ns=self.wall_ns(),
            file_bytes=FILE_BYTES,
            disk=disk,
        )
        self.ledger = Ledger(
            self.log / "ledger",
            rows_max=1_000,
            window_us=LEDGER_WINDOW_US,
            made_for_boot_s=0.0,
        )
        self.entries = ground.entries
        self.entries.now_us = lambda: self.wall_ns() // 1000
        self.recorder = Recorder[Exchange, Release](self._begin, self.clock_ns, self._is_durable)
        self.metrics = Metrics()
        self.admission = Admission(windows)
        self.contexts = contexts_of(ground)
        self.upstream = Upstream(
            settings=sources,
            window=windows.source,
            context=self.contexts.client,
            agent="router",
            endpoints_of=lambda kbo: self.endpoints.get(kbo, ()),
            clock_ns=self.clock_ns,
            nursery=nursery,
        )
        self.metrics.sources = self.upstream.count_by_state
        self.sources_refused: list[HandshakeError] = []
        self.upstream.refused = lambda _, error: self.sources_refused.append(error)
        self._make_loop()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(
            listener=self.listener,
            context=self.contexts.server,
            agent="router",
            window=windows.connection,
            bounds=connections,
            places=places,
            metrics=self.metrics,
            clock_ns=self.clock_ns,
            opened=self.loop.add,
            refused=lambda code, reason, _address: self.refused.append((code, reason)),
            turned_away=self.admission.count,
        )

    def _make_loop(self) -> None:
        self.exchanges = Exchanges(
            tables=self.ground.tables,
            entries=self.entries,
            recorder=self.recorder,
            upstream=self.upstream,
            submissions=Submissions(self.ledger, 0, self.entries, lambda: None),
            admission=self.admission,
            metrics=self.metrics,
            clock_ns=self.clock_ns,
            wall_ns=self.wall_ns,
            new_ids=ExchangeIds(self.wall_ns),
        )
        self.loop = Loop(
            exchanges=self.exchanges,
            recorder=self.recorder,
            upstream=self.upstream,
            admission=self.admission,
            metrics=self.metrics,
            clock_ns=self.clock_ns,
            wall_ns=self.wall_ns,
            ended=self._has_ended,
        )
        self.housekeeping = Housekeeping(
            loop=self.loop,
            clock_ns=self.clock_ns,
            summarise=self.summarise,
        )

    def clock_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return NOW_MS * 1_000_000 + self.now_ns - _START_NS

    def pass_time(self, seconds: float) -> None:
        """Let the worker's clock go on, and the worker take a turn."""
        self.now_ns += int(seconds * 1e9)
        self.turn()

    def turn(self) -> None:
        """The worker, then everybody else, does what there is to do."""
        self.loop.turn()
        sides: tuple[Caller | SourceSide, ...] = (*self.callers, *self.sources)
        for side in sides:
            side.pump()

    async def until(self, condition: Callable[..., object]) -> None:
        """Take turns until it is so; it is a failure if it never is."""
        with trio.fail_after(5):
            while True:
                self.turn()
                if condition():
                    return
                await trio.lowlevel.checkpoint()

    async def connect(self, kbo: str = worlds.CENTRE) -> Caller:
        """Connect an institution, and let it say Hello."""
        context = context_of(self.ground.pki, kbo, serves=False)
        port = self.listener.getsockname()[1]
        caller = await Caller.connect(port, context, router=ROUTER_URI, uri=uri(kbo))
        self.callers.append(caller)
        await self.until(lambda: caller.is_open)
        return caller

    def add_source(self, kbo: str, *, inflight_max: int = 64, listens: bool = True) -> SourceSide:
        """Let an institution listen as a source; or only name an endpoint where nobody does."""
        context = context_of(self.ground.pki, kbo, serves=True)
        source = SourceSide(uri(kbo), context, inflight_max=inflight_max)
        self.endpoints[kbo] = (source.endpoint,)
        if listens:
            self.sources.append(source)
            self.nursery.start_soon(source.serve)
        else:
            source.close()
        return source

    def add_hostile(self, kbo: str, behave: Behaviour, *more: Endpoint) -> Hostile:
        """Put a source that misbehaves where an institution is expected, before other endpoints."""
        hostile = Hostile(uri(kbo), context_of(self.ground.pki, kbo, serves=True), behave)
        self.endpoints[kbo] = (hostile.endpoint, *more)
        self.hostile.append(hostile)
        self.nursery.start_soon(hostile.serve)
        return hostile

    def entries_of(self, exchange: bytes) -> list[Entry]:
        """The durable entries of one exchange, in order."""
        return [entry for entry in self.durable if entry.exchange == exchange]

    def summarise(self) -> None:
        for name, counts in self.admission.take_counts().items():
            self.recorder.submit([self.entries.summary(name, counts)])

    def close(self) -> None:
        sides: tuple[Caller | SourceSide, ...] = (*self.callers, *self.sources)
        for side in (*sides, *self.hostile):
            side.close()
        self.loop.close()
        self.writer.close()
        self.ledger.close()
        self.listener.close()

    def _begin(self, records: Sequence[bytes]) -> None:
        self._written = records
        self.writer.begin(records, self.wall_ns())

    def _is_durable(self, wait_s: float) -> bool:
        if not self.writer.is_durable(wait_s):
            return False
        self.durable.extend(map(parse, self._written))
        return True

    def _has_ended(self, peer: Peer, ended: Ended) -> None:
        self.ended.append((peer, ended))
        if isinstance(peer, Session):
            self.server.left(peer)
        self.housekeeping.forget(peer)


@asynccontextmanager
async def parts(
    ground: Ground,
    *,
    windows: Windows = Windows(),  # noqa: B008 - frozen
    connections: Connections = Connections(),  # noqa: B008 - frozen
    places: int = connections_per_worker_max,
    sources: Sources = Sources(),  # noqa: B008 - frozen
    disk: Disk = DISK,
    writer: type[Writer] = Writer,
) -> AsyncIterator[Parts]:
    """One worker that accepts; everything is closed at the end, tasks too."""
    made = None
    try:
        async with trio.open_nursery() as nursery:
            made = Parts(
                ground,
                nursery,
                windows=windows,
                connections=connections,
                places=places,
                sources=sources,
                disk=disk,
                writer=writer,
            )
            nursery.start_soon(made.server.serve)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        if made is not None:
            made.close()
