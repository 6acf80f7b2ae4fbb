"""The process of the sealer: takes its first order, and seals until told to stop.

Started by the supervisor beside the workers, and niced; its work is in the idle class unless it is
far behind: traffic comes first. Told to stop, it does so at once.
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

from ksz_router.config import Config
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.control import Begin, Channel
from ksz_router.daemon.memory import keep_memory
from ksz_router.daemon.program import FAILED, begin, opened_once_free, reason_of
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.taking import SlotTaken
from ksz_router.privacylog.writer import Writer

SLOT = "s0"
"""Of the entries that say what was sealed."""

_NICE = 10
_FILE_BYTES = 1024 * 1024
_MEMORY_MIB = 144
"""What steps and merges need besides the program itself, as measured (decision 0023)."""


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
        log.critical("cannot_seal", reason=reason_of(failures))
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

    def opened() -> Writer:
        return Writer.open(
            Path(settings.privacy_log.path),
            slot=SLOT,
            node=settings.node.name,
            keys_folder=Path(settings.privacy_log.keys),
            now_ns=time.time_ns(),
            file_bytes=_FILE_BYTES,
        )

    return await opened_once_free(
        opened,
        SlotTaken,
        settings,
        channel,
        lambda reason: log.warning("waiting_for_sealer", reason=reason),
    )


def _serve_metrics(settings: Config) -> None:
    """Show that it lives and what it takes; how far it is, the sequencer shows."""
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + settings.node.workers + 1
        exposition.serve(settings.metrics.host, port, registry, tuple)


def main() -> int:
    """Run the sealer: version, control fd."""
    os.nice(_NICE)
    keep_memory(_MEMORY_MIB)
    code = begin("sealer", _main)
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that was left in the midst of a step may be in a library of C++, which aborts where
    # the interpreter ends its threads: nothing it holds is needed, and what it wrote has no name.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
