"""The parts of one worker: opened in order, wired together, closed in reverse."""

import gc
import socket
import time
from pathlib import Path

import structlog
import trio

from ksz_router import __version__
from ksz_router.config import Config
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.control import Adjust, Ask, Begin, Channel, Load, Renew, Report, Stop
from ksz_router.daemon.exchange import Exchanges
from ksz_router.daemon.gauges import gauges_of
from ksz_router.daemon.housekeeping import Housekeeping
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.incidents import Incidents
from ksz_router.daemon.keeping import RecordKeeping
from ksz_router.daemon.loop import Loop, Peer
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.server import Server, places_of_worker
from ksz_router.daemon.session import Session
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.upstream import Upstream
from ksz_router.directory.packing import DirectoryError
from ksz_router.ledger import LedgerError
from ksz_router.limits import institutions_counted_max
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rulebook.generation import RulebookError
from ksz_router.tls import TlsFilesError
from ksz_router.wire import Ended, State

CANNOT_OPEN = (
    PrivacyLogError, RulebookError, DirectoryError, TlsFilesError, LedgerError, OSError,
)  # fmt: skip

_LEAVE_SECONDS = 0.5
"""Requesters that were told of a drain, and have no answer to come, may stay so long."""


class Worker:
    """The parts of one worker, wired together.

    Args:
        settings: Checked configuration.
        index: 0 to workers - 1; names the slot of the log and the metrics port.
        generation: The rulebook to start with; verified by the supervisor.
        listener: The inherited listening socket.
        channel: To the supervisor.

    Raises:
        One of ``CANNOT_OPEN``: a part cannot be opened; the message says what to do.
    """

    def __init__(
        self,
        settings: Config,
        index: int,
        generation: str,
        *,
        listener: socket.socket,
        channel: Channel,
        nursery: trio.Nursery,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        agent = f"ksz-router/{__version__} {settings.node.name}"
        self._settings = settings
        self._channel = channel
        self._log = log
        self._listener = listener
        self.contexts = Contexts(settings.tls)
        self.metrics = Metrics()
        self.admission = Admission(settings.windows)
        self.incidents = Incidents(log, self.metrics, self.admission)
        self.keeping = RecordKeeping(
            settings,
            index,
            contexts=self.contexts,
            admission=self.admission,
            metrics=self.metrics,
            log=log,
        )
        self.journal = self.keeping.journal
        self.tables = Tables(
            Path(settings.tables.rulebook),
            generation,
            Path(settings.tables.directory),
            self.journal.entries,
            Path(settings.tables.sectoral),
        )
        self.upstream = Upstream(
            settings=settings.sources,
            window=settings.windows.source,
            context=self.contexts.client,
            agent=agent,
            endpoints_of=self.tables.endpoints_of,
            clock_ns=time.monotonic_ns,
            nursery=nursery,
        )
        self.upstream.breaker_turned = self.incidents.breaker_turned
        self.upstream.refused = self.incidents.source_refused
        self.loop = self._make_loop()
        self.housekeeping = Housekeeping(
            loop=self.loop,
            clock_ns=time.monotonic_ns,
            summarise=self._summarise,
        )
        self.server = Server(
            listener=listener,
            context=self.contexts.server,
            agent=agent,
            window=settings.windows.connection,
            bounds=settings.connections,
            places=places_of_worker(),
            metrics=self.metrics,
            clock_ns=time.monotonic_ns,
            opened=self.loop.add,
            refused=self.incidents.refused,
            turned_away=self.incidents.turned_away,
        )
        self.metrics.gauges |= gauges_of(self)
        self.metrics.generation = lambda: self.tables.generation
        self.metrics.sources = self.upstream.count_by_state

    def _make_loop(self) -> Loop:
        exchanges = Exchanges(
            tables=self.tables,
            entries=self.journal.entries,
            recorder=self.journal.recorder,
            upstream=self.upstream,
            submissions=self.journal.submissions,
            admission=self.admission,
            metrics=self.metrics,
            clock_ns=time.monotonic_ns,
            wall_ns=self.keeping.clock.now_ns,
            new_ids=ExchangeIds(self.keeping.clock.now_ns),
        )
        return Loop(
            exchanges=exchanges,
            recorder=self.journal.recorder,
            upstream=self.upstream,
            admission=self.admission,
            metrics=self.metrics,
            clock_ns=time.monotonic_ns,
            wall_ns=self.keeping.clock.now_ns,
            ended=self._ended,
        )

    async def serve(self, nursery: trio.Nursery) -> None:
        """Serve until told to stop or the supervisor is gone; then drain."""
        nursery.start_soon(self.loop.run)
        nursery.start_soon(self._keep_house)
        nursery.start_soon(self.keeping.keep_ahead)
        nursery.start_soon(self.server.serve)
        await self._channel.send(self.report("ready"))
        while (order := await self._channel.order()) is not None and not isinstance(order, Stop):
            assert not isinstance(order, Begin), "a worker begins once"
            await self._channel.send(await self._obey(order))
        await self.server.stop_accepting()
        self._listener.close()  # ours alone: the supervisor and the other workers have their own
        await self._drain()
        await self._channel.send(self.report("stop"))
        nursery.cancel_scope.cancel()

    async def _obey(self, order: Load | Renew | Adjust | Ask) -> Report:
        match order:
            case Load(generation):
                if generation == self.tables.generation:
                    return self.report("load")
                try:  # beside the traffic: a large rulebook takes a while to open
                    snapshot = await trio.to_thread.run_sync(self.tables.open, generation)
                except CANNOT_OPEN as error:
                    return self.report("load", text=str(error))
                self.tables.adopt(snapshot)
                gc.freeze()  # as at the start: no collection goes through the tables
                self.upstream.refresh()
                self._log.info("rulebook_loaded", generation=generation)
                return self.report("load")
            case Renew():
                try:  # beside the traffic: revocation lists may be long
                    standing = await trio.to_thread.run_sync(self.contexts.read)
                except CANNOT_OPEN as error:
                    return self.report("renew", text=str(error))
                self.contexts.adopt(standing)
                self.upstream.retire_connections()
                ended = self.contexts.end_refused(self.loop)
                self._log.info("certificates_renewed", connections_ended=ended)
                return self.report("renew")
            case Adjust(settings):
                self._settings = settings
                self.admission.windows = settings.windows
                self.server.window = settings.windows.connection
                self.upstream.adjust(settings.sources, settings.windows.source)
                return self.report("adjust")
            case Ask(restarts=restarts):
                self.metrics.restarts = restarts
                return self.report("ask")

    def report(self, about: str, *, text: str = "") -> Report:
        """Say how this worker is; a ``text`` means that the order could not be carried out."""
        return Report(
            about=about,
            ok=not text,
            text=text,
            generation=self.tables.generation,
            directory_version=self.tables.directory.version,
            sessions=len(self.loop.sessions),
            inflight=self.admission.inflight,
            exchanges=sum(self.metrics.exchanges.values()),
            is_draining=self.admission.is_draining,
            not_ready=self.keeping.reasons(),
            sources={kbo: source.state for kbo, source in self.upstream.sources.items()},
        )

    def close(self) -> None:
        """Close everything, in the reverse order of opening."""
        self.loop.close()
        self._summarise()
        self.loop.complete()
        self.incidents.write()
        self.tables.close()
        self.journal.close()

    async def _drain(self) -> None:
        """Take nothing new, and let what is open end, within its time.

        Who is told leaves by itself once it has its answers. Who stays is left a moment, in which
        what it sent before it was told is still answered: refused, and so known not to have passed.
        """
        self.admission.is_draining = True
        seconds = self._settings.stop.drain_seconds
        told: set[Session] = set()
        quiet_at = trio.current_time()
        with trio.move_on_after(seconds):
            while True:
                for session in self.loop.sessions:
                    if session not in told and session.link.connection.state is State.OPEN:
                        told.add(session)
                        session.drain(int(seconds))
                        session.link.flush()
                if self.admission.inflight or self.server.is_greeting:
                    quiet_at = trio.current_time()
                elif not self.loop.sessions or trio.current_time() > quiet_at + _LEAVE_SECONDS:
                    break
                await trio.sleep(0.01)

    async def _keep_house(self) -> None:
        due = trio.current_time()
        while True:
            due += 1.0
            await trio.sleep_until(due)
            self.metrics.loop_lag.observe(trio.current_time() - due)
            due = max(due, trio.current_time() - 1.0)
            if self.journal.recorder.is_standing:
                continue  # nobody is read, and nothing can be recorded, until the disk answers
            await self.keeping.look()
            self.housekeeping.tick()
            self.incidents.write()
            if self.admission.counted >= institutions_counted_max:
                self._summarise()
                self.loop.finish()
            try:
                if self.tables.refresh_directory():
                    self._log.info("directory_loaded", version=self.tables.directory.version)
            except DirectoryError as error:
                self._log.error("directory_refused", reason=str(error))
            for network, reason in self.tables.sectoral.news().items():
                if reason:
                    self._log.error("sectoral_directory_down", network=network, reason=reason)
                else:
                    self._log.info("sectoral_directory_serves", network=network)

    def _summarise(self) -> None:
        if not self.journal.is_open:
            return
        for uri, counts in self.admission.take_counts().items():
            self.journal.recorder.submit([self.journal.entries.summary(uri, counts)])

    def _ended(self, peer: Peer, ended: Ended) -> None:
        self.housekeeping.forget(peer)
        if isinstance(peer, Session):
            self.server.left(peer)
        self.incidents.ended(peer, ended)
