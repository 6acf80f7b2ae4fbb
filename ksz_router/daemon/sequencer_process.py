"""The process of the sequencer: takes its first order, and sequences until told to stop.

Started by the supervisor beside the workers. On the way out it sequences what there is; when the
supervisor is gone it does the same, so that the next one finds little left to do.
"""

import socket
import sys
import time
from pathlib import Path

import prometheus_client
import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon import exposition, oplog
from ksz_router.daemon.control import Begin, Channel, Report, Stop
from ksz_router.daemon.pacer import Pacer, Stretches
from ksz_router.daemon.program import FAILED, begin, opened_once_free, reason_of
from ksz_router.daemon.sequencer_metrics import SequencerMetrics
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.tree.anchor import SequencerRuns
from ksz_router.privacylog.tree.checkpoint import Signer
from ksz_router.privacylog.tree.sequence import Cycle, Sequencer

_EVERY_SECONDS = 0.5
"""From the begin of one cycle to that of the next. A record is under a checkpoint a second after it
became durable; a line of the order a cycle and slot is the price."""


class SequencerProgram:
    """Runs cycles, one after the other, and says how it is.

    Args:
        sequencer: Opened.
        pacer: By which the sequencer rests.
        metrics: Show how it goes.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        pacer: Pacer,
        metrics: SequencerMetrics,
        channel: Channel,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._sequencer = sequencer
        self._pacer = pacer
        self._metrics = metrics
        self._channel = channel
        self._log = log
        self._stalled: dict[str, str] = {}
        self._told_to_stop = trio.Event()
        self._is_behind = False
        metrics.size = sequencer.signed.size

    async def run(self) -> None:
        """Cycle until told to stop, and then until nothing is left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            await self._channel.send(self._report("ready"))
            while True:
                is_last, began_s = self._told_to_stop.is_set(), trio.current_time()
                self._pacer.gives_way = not (is_last or self._is_behind)
                found = await trio.to_thread.run_sync(self._cycle)
                self._tell(found.stalled)
                self._is_behind = found.has_more
                if found.has_more:
                    continue
                if is_last:
                    break
                with trio.move_on_at(began_s + _EVERY_SECONDS):
                    await self._told_to_stop.wait()
            await self._channel.send(self._report("stop"))
            nursery.cancel_scope.cancel()

    def _cycle(self) -> Cycle:
        began = time.perf_counter()
        self._pacer.begin()  # in this thread, whose time it goes by
        found = self._sequencer.cycle(time.time_ns())
        self._metrics.cycled(found, self._sequencer.signed.size, time.perf_counter() - began)
        return found

    async def _obey(self) -> None:
        while (order := await self._channel.order()) is not None and not isinstance(order, Stop):
            await self._channel.send(self._report(order.__struct_config__.tag))
        self._told_to_stop.set()

    def _report(self, about: object) -> Report:
        state = f"{self._metrics.size} entries under a checkpoint"
        if self._stalled:
            state += f"; not read: {', '.join(sorted(self._stalled))}"
        return Report(about=str(about), state=state)

    def _tell(self, stalled: dict[str, str]) -> None:
        for slot, reason in stalled.items():
            if self._stalled.get(slot) != reason:
                self._log.error("slot_stalled", slot=slot, reason=reason)
        self._stalled = stalled


async def _main(control: socket.socket) -> int:
    log = oplog.set_up("sequencer")
    channel = Channel(control)
    first = await channel.order()
    if not isinstance(first, Begin):
        return 0  # the supervisor is gone
    try:
        pacer = Pacer(time.thread_time)
        sequencer = await _opened(first.settings, Stretches(pacer, time.sleep), channel, log)
        if sequencer is None:
            return 0
        metrics = SequencerMetrics(first.settings)
        _serve_metrics(first.settings, metrics)
        try:
            await SequencerProgram(sequencer, pacer, metrics, channel, log).run()
        finally:
            sequencer.close()
    except* (PrivacyLogError, OSError) as failures:
        log.critical("cannot_sequence", reason=reason_of(failures))
        return_code = FAILED
    else:
        return_code = 0
    return return_code


async def _opened(
    settings: Config,
    pause: Stretches,
    channel: Channel,
    log: structlog.typing.FilteringBoundLogger,
) -> Sequencer | None:
    """Open the sequencer, once an earlier run is gone; None when told to stop meanwhile.

    Raises:
        SequencerRuns: another process signs for longer than a stop may take.
        PrivacyLogError: the log or the archive cannot be used.
        OSError: likewise.
    """
    archive = settings.archive

    def opened() -> Sequencer:
        return Sequencer(
            log=Path(settings.privacy_log.path),
            archive=Path(archive.path),
            last_checkpoint=Path(archive.last_checkpoint),
            keys_folder=Path(settings.privacy_log.keys),
            signer=Signer(Path(archive.keys), archive.origin),
            now_ns=time.time_ns(),
            pause=pause,
        )

    return await opened_once_free(
        opened,
        SequencerRuns,
        settings,
        channel,
        lambda reason: log.warning("waiting_for_sequencer", reason=reason),
    )


def _serve_metrics(settings: Config, metrics: SequencerMetrics) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    prometheus_client.ProcessCollector(registry=registry)
    if settings.metrics.port:
        port = settings.metrics.port + settings.node.workers
        exposition.serve(settings.metrics.host, port, registry, metrics.not_ready)


def main() -> int:
    """Run the sequencer: version, control fd."""
    return begin("sequencer", _main)


if __name__ == "__main__":
    sys.exit(main())
