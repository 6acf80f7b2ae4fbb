"""The parts of one worker: opened in order, wired together, closed in reverse."""

import socket
import time
from pathlib import Path

import structlog
import trio

from ksz_router import __version__
from ksz_router.codes import Code
from ksz_router.config import Config
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.control import Ask, Channel, Load, Renew, Report, Stop
from ksz_router.daemon.exchange import Exchanges
from ksz_router.daemon.housekeeping import Housekeeping
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.loop import Loop, Peer
from ksz_router.daemon.metrics import Gauges, Metrics
from ksz_router.daemon.server import Server, places_of_worker
from ksz_router.daemon.session import Session
from ksz_router.daemon.source import Source
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.tally import Tally
from ksz_router.daemon.upstream import Upstream
from ksz_router.directory.packing import DirectoryError
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rulebook.generation import RulebookError
from ksz_router.tls import TlsFilesError
from ksz_router.wire import Ended

CANNOT_OPEN = (PrivacyLogError, RulebookError, DirectoryError, TlsFilesError, OSError)


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
        self._tally = Tally(log)
        self._listener = listener
        self.contexts = Contexts(settings.tls)
        self.journal = Journal(settings, f"w{index}", time.monotonic_ns, time.time_ns)
        self.tables = Tables(
            Path(settings.tables.rulebook),
            generation,
            Path(settings.tables.directory),
            self.journal.entries,
        )
        self.metrics = Metrics()
        self.admission = Admission(settings.windows)
        self.upstream = Upstream(
            settings=settings.sources,
            window=settings.windows.source,
            context=self.contexts.client,
            agent=agent,
            endpoints_of=self.tables.endpoints_of,
            clock_ns=time.monotonic_ns,
            nursery=nursery,
        )
        self.loop = self._make_loop()
        self.housekeeping = Housekeeping(
            loop=self.loop,
            admission=self.admission,
            log=self.journal.writer,
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
            refused=self._refused,
            turned_away=self._turned_away,
        )
        self.metrics.gauges |= self._gauges()
        self.metrics.generation = lambda: self.tables.generation

    def _make_loop(self) -> Loop:
        exchanges = Exchanges(
            tables=self.tables,
            entries=self.journal.entries,
            recorder=self.journal.recorder,
            upstream=self.upstream,
            admission=self.admission,
            metrics=self.metrics,
            clock_ns=time.monotonic_ns,
            wall_ns=time.time_ns,
            new_id=ExchangeIds(time.time_ns),
        )
        return Loop(
            exchanges=exchanges,
            recorder=self.journal.recorder,
            upstream=self.upstream,
            metrics=self.metrics,
            clock_ns=time.monotonic_ns,
            wall_ns=time.time_ns,
            ended=self._ended,
        )

    def _gauges(self) -> Gauges:
        tables, contexts = self.tables, self.contexts
        return {
            "connections": ("Connections, sources included.", lambda: len(self.loop.peers)),
            "pending_connections": (
                "Connections whose handshake is not over.",
                lambda: self.server.gate.pending,
            ),
            "inflight_messages": ("Exchanges open.", lambda: self.admission.inflight),
            "breakers_open": (
                "Sources left in peace after failures.",
                lambda: sum(_state_of(n) == "breaker open" for n in self.upstream.sources.values()),
            ),
            "privacy_log_free_share": (
                "Share of the log's disk that is free; below 0.1 nothing is taken.",
                self.journal.writer.free_share,
            ),
            "directory_version": ("Person directory in force.", lambda: tables.directory.version),
            "directory_numbers": ("Numbers it knows.", lambda: tables.directory.numbers_count),
            "rulebook_loaded_timestamp_seconds": (
                "When the rulebook in force was loaded.",
                lambda: tables.loaded_unix_s,
            ),
            "certificate_not_after_timestamp_seconds": (
                "When the router's own certificate ends.",
                lambda: contexts.not_after_unix_s,
            ),
            "crl_next_update_timestamp_seconds": (
                "When the first of the revocation lists is out of date; 0 where there is none.",
                lambda: contexts.crl_next_update_unix_s,
            ),
        }

    async def serve(self, nursery: trio.Nursery) -> None:
        """Serve until told to stop or the supervisor is gone; then drain."""
        nursery.start_soon(self.loop.run)
        nursery.start_soon(self._keep_house)
        nursery.start_soon(self._keep_log_ahead)
        accepting = trio.CancelScope()
        nursery.start_soon(self._accept, accepting)
        await self._channel.send(self.report("ready"))
        while (order := await self._channel.order()) is not None and not isinstance(order, Stop):
            await self._channel.send(await self._obey(order))
        accepting.cancel()
        self._listener.close()  # ours alone: the supervisor and the other workers have their own
        await self._drain()
        await self._channel.send(self.report("stop"))
        nursery.cancel_scope.cancel()

    async def _obey(self, order: Load | Renew | Ask) -> Report:
        match order:
            case Load(generation):
                if generation == self.tables.generation:
                    return self.report("load")
                try:  # beside the traffic: a large rulebook takes a while to open
                    snapshot = await trio.to_thread.run_sync(self.tables.open, generation)
                except CANNOT_OPEN as error:
                    return self.report("load", text=str(error))
                self.tables.adopt(snapshot)
                self.upstream.refresh()
                self._log.info("rulebook_loaded", generation=generation)
                return self.report("load")
            case Renew():
                try:
                    self.contexts.renew()
                except CANNOT_OPEN as error:
                    return self.report("renew", text=str(error))
                self.upstream.retire_connections()
                return self.report("renew")
            case Ask():
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
            sources={kbo: _state_of(source) for kbo, source in self.upstream.sources.items()},
        )

    def close(self) -> None:
        """Close everything, in the reverse order of opening."""
        self.loop.close()
        self._summarise()
        self.loop.finish()
        self._tally.write()
        self.tables.close()
        self.journal.close()

    async def _accept(self, scope: trio.CancelScope) -> None:
        with scope:
            await self.server.serve()

    async def _drain(self) -> None:
        """Take nothing new, and let what is open end, within its time."""
        self.admission.is_draining = True
        seconds = self._settings.stop.drain_seconds
        for session in self.loop.sessions:
            session.drain(int(seconds))
            session.link.flush()
        with trio.move_on_after(seconds):
            while self.admission.inflight:  # noqa: ASYNC110
                await trio.sleep(0.01)

    async def _keep_house(self) -> None:
        due = trio.current_time()
        while True:
            due += 1.0
            await trio.sleep_until(due)
            self.metrics.loop_lag.observe(trio.current_time() - due)
            due = max(due, trio.current_time() - 1.0)
            self.housekeeping.tick()
            self._tally.write()
            if self.journal.turn_quarter():
                self._log.info("quarter_began")
            try:
                if self.tables.refresh_directory():
                    self._log.info("directory_loaded", version=self.tables.directory.version)
            except DirectoryError as error:
                self._log.error("directory_refused", reason=str(error))

    async def _keep_log_ahead(self) -> None:
        while True:
            # On a stop nobody waits for it: closing the log ends it.
            await trio.to_thread.run_sync(self.journal.prefill, abandon_on_cancel=True)
            await trio.sleep(0.5)

    def _summarise(self) -> None:
        for uri, counts in self.admission.take_counts().items():
            self.journal.recorder.submit([self.journal.entries.summary(uri, counts)], None)

    def _ended(self, peer: Peer, ended: Ended) -> None:
        self.housekeeping.forget(peer)
        if isinstance(peer, Session):
            self.server.left(peer)
            if ended.code is not Code.CLOSED_IN_PEACE:
                self._turned_away(peer.uri, ended.code)
        else:
            self._log.info("source_ended", source=peer.source.kbo, code=ended.code.name)

    def _turned_away(self, uri: str, code: Code) -> None:
        self.admission.count(uri, code)
        self.metrics.turned_away(code)
        self._tally.add("connection_ended", uri=uri, code=code.name)

    def _refused(self, code: Code, reason: str, address: str) -> None:
        self._tally.add("handshake_refused", code=code.name, reason=reason, address=address)


def _state_of(source: Source) -> str:
    if source.breaker.open_until_ns:
        return "breaker open"
    if any(link.is_open for link in source.links):
        return "up"
    return "dialling" if source.is_dialling else "idle"
