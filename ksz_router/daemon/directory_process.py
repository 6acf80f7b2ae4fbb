"""The directory program: one writer, serving the directory's services as a source does.

Started by the supervisor beside the workers, which dial it and forward to it what the control let
through. Whatever stops it in the midst of a batch, nobody was told of what is not durable; who was
not told asks again by the same exchange id, and that is known where the change stands.
"""

import socket
import sys
from functools import partial
from pathlib import Path

import prometheus_client
import structlog
import trio
from cryptography import x509

from ksz_router.config import Config
from ksz_router.credentials import Identity
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.clock import guarded_us
from ksz_router.daemon.control import Begin, Channel, Renew, Report, Stop
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.directory_notices import Notices
from ksz_router.daemon.directory_services import DirectoryServices
from ksz_router.daemon.mailbox_keeper import MailboxKeeper
from ksz_router.daemon.program import FAILED, begin, opened_once_free, reason_of
from ksz_router.daemon.uncollected import uncollected
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.sdk.provider import Provider
from ksz_router.tls import TlsFilesError

_DRAIN_SECONDS = 3
"""Less than the supervisor waits for a program that was told to stop."""
_READERS_SECONDS = 60.0


class DirectoryProgram:
    """Serves until told to stop.

    Args:
        writer: Open.
        metrics: Show how it goes.
    """

    def __init__(
        self,
        settings: Config,
        writer: Writer,
        *,
        metrics: DirectoryMetrics,
        channel: Channel,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._log = log
        self._settings = settings
        self._writer = writer
        self._metrics = metrics
        self._channel = channel
        now_us = guarded_us()  # one clock for what is forgotten, and for what is too old
        self._batches = Batches(writer, metrics, now_us)
        self._batches.hindered = lambda error: log.critical("directory_refuses", reason=str(error))
        own = own_uri(Path(settings.directory.certificate))
        self._keeper = MailboxKeeper(
            settings, writer, self._batches, now_us, own_uri=own, metrics=metrics, log=log
        )
        services = DirectoryServices(
            self._batches, settings.directory.keep_days, lambda: now_us() // 1000
        )
        identity, router_uri = identity_of(settings), own_uri(Path(settings.tls.certificate))
        self._notices = Notices(
            settings,
            self._batches,
            identity=identity,
            router_uri=router_uri,
            metrics=metrics,
            log=log,
        )
        self._provider = Provider(
            identity,
            router_uris={router_uri},
            services=self._keeper.handlers,
            takers=services.takers(),
        )
        metrics.version = writer.version

    async def run(self) -> None:
        """Serve; what is in flight when told to stop is answered first.

        Raises:
            DirectoryError: a batch could not be written.
            OSError: the address cannot be listened on.
        """
        try:
            await self._work()
        finally:
            self._keeper.close()

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._batches.run)
            nursery.start_soon(self._clear_readers)
            nursery.start_soon(self._keeper.look)
            served = trio.Event()
            await nursery.start(self._serve, served)
            telling = trio.CancelScope()
            nursery.start_soon(self._tell, telling)
            await self._channel.send(self._report("ready"))
            while (order := await self._channel.order()) is not None:
                if isinstance(order, Stop):
                    break
                await self._channel.send(self._obey(order))
            telling.cancel()  # what is under way is asked for again at the next start
            self._provider.drain(_DRAIN_SECONDS)
            await served.wait()
            self._batches.close()
            await self._channel.send(self._report("stop"))
            nursery.cancel_scope.cancel()

    async def _serve(
        self,
        served: trio.Event,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        serving = self._settings.directory
        serve = partial(self._provider.serve, host=serving.host, port=serving.port)
        await serve(task_status=task_status)
        served.set()

    async def _tell(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._notices.run()

    async def _clear_readers(self) -> None:
        """Free the slots of workers that were killed: a reader that is gone keeps old pages."""
        while True:
            await trio.sleep(_READERS_SECONDS)
            await trio.to_thread.run_sync(self._writer.clear_dead_readers)

    def _obey(self, order: object) -> Report:
        if isinstance(order, Renew):
            try:
                self._provider.renew()
                self._notices.renew()
            except TlsFilesError as error:  # the old one goes on
                self._log.error("certificate_not_renewed", reason=str(error))
            return self._report("renew")
        return self._report("ask")

    def _report(self, about: str) -> Report:
        state = f"version {self._metrics.version}, {self._metrics.waiting} waiting"
        return Report(about=about, state=state)


def identity_of(settings: Config) -> Identity:
    """The certificate of the router's own institution, and whom it accepts: as the router does."""
    tls, serving = settings.tls, settings.directory
    return Identity(
        certificate=Path(serving.certificate),
        key=Path(serving.key),
        authorities=Path(tls.authorities),
        revocations=Path(tls.revocations) if tls.revocations else None,
        revocations_grace_hours=tls.revocations_grace_hours,
    )


def own_uri(certificate: Path) -> str:
    """Return the SAN URI of the router's own certificate: of the only one who may dial.

    Raises:
        TlsFilesError: it has not exactly one, or cannot be read.
    """
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise TlsFilesError(f"{certificate}: give a certificate with one SAN URI") from error
    return uri


async def _main(control: socket.socket) -> int:
    log = oplog.set_up("directory")
    oplog.hear_sdk(log)
    channel = Channel(control)
    first = await channel.order()
    if not isinstance(first, Begin):
        return 0  # the supervisor is gone
    settings, writer = first.settings, None
    try:
        metrics = DirectoryMetrics()
        _serve_metrics(settings, metrics)
        writer = await _opened(settings, channel, log)
        if writer is not None:
            with uncollected():
                program = DirectoryProgram(
                    settings, writer, metrics=metrics, channel=channel, log=log
                )
            await program.run()
    except* (DirectoryError, TlsFilesError, OSError) as failures:
        log.critical("cannot_keep_directory", reason=reason_of(failures))
        return_code = FAILED
    else:
        return_code = 0
    finally:
        if writer is not None:
            writer.close()
    return return_code


async def _opened(
    settings: Config, channel: Channel, log: structlog.typing.FilteringBoundLogger
) -> Writer | None:
    """Open the writer, once an earlier run or a load is done; None when told to stop meanwhile.

    Raises:
        DirectoryError: the directory cannot be written.
    """

    def opened() -> Writer:
        # A day longer: an exchange id is as old as a worker's clock says, its note as this one's.
        keep_days = settings.directory.keep_days + 1
        return Writer.open(
            Path(settings.tables.directory),
            keep_days=keep_days,
            journal_rows_max=settings.directory.journal_rows_max,
        )

    return await opened_once_free(
        opened,
        DirectoryError,
        settings,
        channel,
        lambda reason: log.warning("waiting_for_directory", reason=reason),
    )


def _serve_metrics(settings: Config, metrics: DirectoryMetrics) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    prometheus_client.ProcessCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + settings.node.workers + 2
        exposition.serve(settings.metrics.host, port, registry, tuple)


def main() -> int:
    """Run the directory program: version, control fd."""
    return begin("directory", _main)


if __name__ == "__main__":
    sys.exit(main())
