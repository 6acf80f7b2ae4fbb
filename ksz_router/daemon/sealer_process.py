"""The process of the sealer: takes its first order, and seals until told to stop.

Started by the supervisor beside the workers, and niced: traffic comes first. Told to stop, it does
so at once.
"""

import importlib
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import prometheus_client
import structlog
import trio

from ksz_router import __version__
from ksz_router.config import Config
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.control import Begin, Channel, Stop, stop_seconds
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.taking import SlotTaken
from ksz_router.privacylog.writer import Writer

FAILED = 3
"""Exit code: the log or the archive cannot be used; the event before says why."""

SLOT = "s0"
"""Of the entries that say what was sealed."""

_NICE = 10
_FILE_BYTES = 1024 * 1024
_LOOK_AGAIN_SECONDS = 0.1


def missing_extra() -> str:
    """Say what to do where this machine cannot seal; empty where it can."""
    missing = [name for name in ("numpy", "pyarrow") if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"sealing needs {' and '.join(missing)}: install ksz-router[audit], or set "
        "archive.sealing = false"
    )


async def _main(control: socket.socket) -> int:
    log = oplog.set_up("sealer")
    channel = Channel(control)
    first = await channel.order()
    if not isinstance(first, Begin):
        return 0  # the supervisor is gone
    if reason := missing_extra():
        log.critical("cannot_seal", reason=reason)
        return FAILED
    try:
        _serve_metrics(first.settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, nursery.cancel_scope)
            await _seal(first.settings, channel, log)
            nursery.cancel_scope.cancel()
    except* (PrivacyLogError, OSError) as failures:
        failure: BaseException = failures
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        log.critical("cannot_seal", reason=str(failure))
        return_code = FAILED
    else:
        return_code = 0
    return return_code


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await _first(signals)
        scope.cancel()


async def _first(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        return


async def _seal(
    settings: Config, channel: Channel, log: structlog.typing.FilteringBoundLogger
) -> None:
    """Take the slot and work until told to stop.

    Raises:
        PrivacyLogError: the log or the archive cannot be used.
        OSError: likewise.
    """
    sealer = importlib.import_module("ksz_router.daemon.sealer")  # it needs the extra
    writer = await _opened(settings, channel, log)
    if writer is None:
        return
    program = None
    try:
        program = await trio.to_thread.run_sync(
            sealer.SealerProgram, settings, writer, channel, log
        )
        await program.run()
    finally:
        # Left in the midst of a step, the slot is as after a crash: nobody closes it under a
        # thread that may be writing.
        if program is None or program.is_idle:
            writer.close()


async def _opened(
    settings: Config, channel: Channel, log: structlog.typing.FilteringBoundLogger
) -> Writer | None:
    """Open the slot, once an earlier run is gone; None when told to stop meanwhile.

    Raises:
        SlotTaken: another process has it for longer than a stop may take.
        PrivacyLogError: the log or its keys cannot be used.
    """
    ends_at = trio.current_time() + stop_seconds(settings)

    def opened() -> Writer:
        return Writer.open(
            Path(settings.privacy_log.path),
            slot=SLOT,
            node=settings.node.name,
            keys_folder=Path(settings.privacy_log.keys),
            now_ns=time.time_ns(),
            file_bytes=_FILE_BYTES,
        )

    is_told = False
    while True:
        try:
            return await trio.to_thread.run_sync(opened)
        except SlotTaken as error:
            if trio.current_time() > ends_at:
                raise
            if not is_told:
                log.warning("waiting_for_sealer", reason=str(error))
                is_told = True
        with trio.move_on_after(_LOOK_AGAIN_SECONDS):
            order = await channel.order()
            if order is None or isinstance(order, Stop):
                return None


def _serve_metrics(settings: Config) -> None:
    """Show that it lives and what it takes; how far it is, the sequencer shows."""
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + settings.node.workers + 1
        exposition.serve(settings.metrics.host, port, registry, tuple)


def main() -> int:
    """Run the sealer: version, control fd."""
    version, control_fd = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the supervisor's to act on
    if version != __version__:  # the program was exchanged under a running router
        reason = f"this is version {__version__}, the supervisor {version}: restart the router"
        oplog.set_up("sealer").critical("cannot_start", reason=reason)
        return FAILED
    os.nice(_NICE)
    code = trio.run(_main, socket.socket(fileno=int(control_fd)))
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that was left in the midst of a step may be in a library of C++, which aborts where
    # the interpreter ends its threads: nothing it holds is needed, and what it wrote has no name.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
