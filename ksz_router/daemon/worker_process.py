"""One worker process: reads its orders from the command line, serves, and says why it ended.

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
from pathlib import Path

import prometheus_client
import trio

from ksz_router import config
from ksz_router.config import Config
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.control import Channel
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.worker import CANNOT_OPEN, Worker
from ksz_router.privacylog import PrivacyLogError

LOG_FAILED, CANNOT_START, OUT_OF_MEMORY = 3, 4, 5
"""Exit codes that the supervisor reports as what they are."""


async def _main(settings: Config, index: int, generation: str, fds: tuple[int, int]) -> int:
    log = oplog.set_up(f"worker-{index}")
    listener = socket.socket(fileno=fds[0])
    channel = Channel(socket.socket(fileno=fds[1]))
    exit_code = 0
    try:
        async with trio.open_nursery() as nursery:
            worker = Worker(
                settings,
                index,
                generation,
                listener=listener,
                channel=channel,
                nursery=nursery,
                log=log,
            )
            _serve_metrics(settings, index, worker)
            gc.callbacks.append(_Pauses(worker.metrics))
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)
            await worker.serve(nursery)
        worker.close()
    except* MemoryError:
        with contextlib.suppress(MemoryError):
            log.critical("out_of_memory")
        os._exit(OUT_OF_MEMORY)  # an orderly end needs memory too: Trio's own may wait for ever
    except* PrivacyLogError as failures:
        log.critical("log_not_writable", reason=str(failures.exceptions[0]))
        exit_code = LOG_FAILED
    except* CANNOT_OPEN as failures:
        log.critical("cannot_start", reason=str(failures.exceptions[0]))
        exit_code = CANNOT_START
    return exit_code


class _Pauses:
    """Times the collector; it runs in whichever thread allocates."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._begun = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self._metrics.gc_pause.observe(time.perf_counter() - self._begun)


def _serve_metrics(settings: Config, index: int, worker: Worker) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(worker.metrics)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + index
        exposition.serve(settings.metrics.host, port, registry, worker.metrics.not_ready)


def main() -> int:
    """Run one worker: configuration file, index, generation, listener fd, control fd."""
    file, index, generation, listener_fd, control_fd = sys.argv[1:6]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the supervisor's to act on
    settings = config.load(Path(file))
    return trio.run(_main, settings, int(index), generation, (int(listener_fd), int(control_fd)))


if __name__ == "__main__":
    sys.exit(main())
