"""One worker process: takes its first order from its channel, serves, and says why it ended.

Started fresh by the supervisor, never forked with LMDB or threads in it. It inherits the listening
socket and one end of a control channel; when the other end is gone, it drains and stops.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import prometheus_client
import structlog
import trio

from ksz_router import __version__
from ksz_router.config import Config
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.control import SLOT_TAKEN, Begin, Channel, Stop, stop_seconds
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.uncollected import uncollected
from ksz_router.daemon.worker import CANNOT_OPEN, Worker
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.taking import SlotTaken

LOG_FAILED, CANNOT_START, OUT_OF_MEMORY = 3, 4, 6
"""Exit codes that the supervisor reports as what they are; ``SLOT_TAKEN`` is one more."""

_LOOK_AGAIN_SECONDS = 0.05


async def _main(index: int, listener: socket.socket, control: socket.socket) -> int:
    log = oplog.set_up(f"worker-{index}")
    channel = Channel(control)
    first = await channel.order()
    if not isinstance(first, Begin):
        return 0  # the supervisor is gone
    exit_code = 0
    try:
        async with trio.open_nursery() as nursery:

            def open_worker() -> Worker:
                return Worker(
                    first.settings,
                    index,
                    first.generation,
                    listener=listener,
                    channel=channel,
                    nursery=nursery,
                    log=log,
                )

            with uncollected():
                worker = await _opened(open_worker, first.settings, channel, log)
                if worker is None:
                    return 0
                _serve_metrics(first.settings, index, worker)
            gc.callbacks.append(_Pauses(worker.metrics))
            await worker.serve(nursery)
        worker.close()
    except* MemoryError:
        with contextlib.suppress(MemoryError):
            log.critical("out_of_memory")
        os._exit(OUT_OF_MEMORY)  # an orderly end needs memory too: Trio's own may wait for ever
    except* SlotTaken as failures:
        log.critical("log_not_writable", reason=str(failures.exceptions[0]))
        exit_code = SLOT_TAKEN
    except* PrivacyLogError as failures:
        log.critical("log_not_writable", reason=str(failures.exceptions[0]))
        exit_code = LOG_FAILED
    except* CANNOT_OPEN as failures:
        log.critical("cannot_start", reason=str(failures.exceptions[0]))
        exit_code = CANNOT_START
    return exit_code


async def _opened(
    open_worker: Callable[[], Worker],
    settings: Config,
    channel: Channel,
    log: structlog.typing.FilteringBoundLogger,
) -> Worker | None:
    """Open a worker, once an earlier run has left its slot; None when told to stop meanwhile.

    Raises:
        SlotTaken: another process writes the slot for longer than a stop may take.
        One of ``CANNOT_OPEN``: as :class:`Worker`.
    """
    ends_at = trio.current_time() + stop_seconds(settings)
    is_told = False
    while True:
        try:
            return open_worker()
        except SlotTaken as error:
            if trio.current_time() > ends_at:
                raise
            if not is_told:
                log.warning("waiting_for_slot", reason=str(error))
                is_told = True
        with trio.move_on_after(_LOOK_AGAIN_SECONDS):
            order = await channel.order()
            if order is None or isinstance(order, Stop):
                return None


class _Pauses:
    """Times the collector; it runs in whichever thread allocates."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._begun = 0.0
        self._longest_s = 0.0
        text = "Longest pause of the collector since the start."
        metrics.gauges["gc_pause_max_seconds"] = text, lambda: self._longest_s

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            pause_s = time.perf_counter() - self._begun
            self._metrics.gc_pause.observe(pause_s)
            self._longest_s = max(self._longest_s, pause_s)


def _serve_metrics(settings: Config, index: int, worker: Worker) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(worker.metrics)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + index
        exposition.serve(settings.metrics.host, port, registry, worker.metrics.not_ready)


def main() -> int:
    """Run one worker: version, index, listener fd, control fd."""
    version, index, listener_fd, control_fd = sys.argv[1:5]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the supervisor's to act on
    if version != __version__:  # the program was exchanged under a running router
        reason = f"this is version {__version__}, the supervisor {version}: restart the router"
        oplog.set_up(f"worker-{index}").critical("cannot_start", reason=reason)
        return CANNOT_START
    listener, control = (socket.socket(fileno=int(fd)) for fd in (listener_fd, control_fd))
    return trio.run(_main, int(index), listener, control)


if __name__ == "__main__":
    sys.exit(main())
