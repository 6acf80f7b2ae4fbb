"""The programs beside the workers: sequencer, sealer and directory, where this machine has them.

They are started, watched and started anew as workers are, and neither traffic nor readiness hangs
on them. They stop after the workers: the directory, which then has answered all it was asked, the
sealer, which writes entries of its own, and last
the sequencer, so that everything that was ever recorded is under a checkpoint when the router is
down. What the sealer cannot finish it begins anew at the next start.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from ksz_router import __version__
from ksz_router.config import Config
from ksz_router.daemon.control import Ask, Begin, Channel, Renew, Report, pair
from ksz_router.daemon.handle import Backoff, WorkerHandle

_STOP_SECONDS = 5.0
_SILENT_SECONDS_MAX = 60.0
"""Longer than a worker may be silent: nobody waits for an answer of theirs."""


async def run_process(
    place: WorkerHandle,
    command: Sequence[str],
    fds: Sequence[int],
    first: Begin,
    *,
    is_stopping: Callable[[], bool],
    heard: Callable[[Report], Awaitable[None]],
) -> int:
    """Start a program of ours with a channel, and return its exit code when it ends.

    Args:
        place: That it fills meanwhile.
        command: Module and arguments; version and descriptors are put behind the module.
        fds: That it inherits; the last one is its end of the channel.
        first: Its first order.
        is_stopping: Whether the router stops, so that nobody will tell it to.
        heard: Is given each report.
    """
    ours, theirs = pair()
    module, *rest = command
    passed = (*fds, theirs.fileno())
    line = [sys.executable, "-m", module, __version__, *rest, *map(str, passed)]
    process = await trio.lowlevel.open_process(line, pass_fds=passed, stdin=subprocess.DEVNULL)
    theirs.close()
    channel = Channel(ours)
    place.began(process, channel)
    if is_stopping():  # nobody told it to stop, so nobody waits for it
        process.kill()
    channel.post(first)

    async def listen() -> None:
        while (report := await channel.report()) is not None:
            place.heard(report)
            await heard(report)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            place.ended()
        nursery.cancel_scope.cancel()
    return process.returncode or 0


class Companion(WorkerHandle):
    """One such program.

    Args:
        name: Such as ``sequencer``; ``ksz_router.daemon.<name>_process`` is run, with version and
            channel as arguments, and ``Begin`` as its first order.
        settings: That it is started with.
    """

    def __init__(
        self, name: str, settings: Config, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        super().__init__(-1)
        self.name = name
        self._settings = settings
        self._log = log
        self._is_stopping = False

    @property
    def state(self) -> str:
        """How far it is, in words."""
        return self.report.state if self.report is not None else ""

    async def keep(self) -> None:
        """Keep it running, with longer and longer breaks while it keeps failing."""
        backoff = Backoff()
        command = [f"ksz_router.daemon.{self.name}_process"]
        while not self._is_stopping:
            started_at = trio.current_time()
            code = await run_process(
                self,
                command,
                (),
                Begin(self._settings, ""),
                is_stopping=lambda: self._is_stopping,
                heard=self._take_note,
            )
            if self._is_stopping:
                return
            self.restarts += 1
            pause = backoff.pause_s(trio.current_time() - started_at)
            self._log.error("program_ended", program=self.name, exit_code=code, pause_seconds=pause)
            await trio.sleep(pause)

    async def look(self) -> None:
        """Ask how it is; end it where it does not answer."""
        if self.report is None or self.channel is None or self.process is None:
            return
        await self.channel.send(Ask())
        if trio.current_time() - self.heard_at > _SILENT_SECONDS_MAX:
            self._log.error("program_mute", program=self.name)
            self.process.kill()

    async def renew(self) -> None:
        """Have it read certificates anew, where it has any."""
        if self.name == "directory" and self.channel is not None:
            await self.channel.send(Renew())

    async def stop(self) -> None:
        """Tell it to finish, and end it where that takes too long."""
        self._is_stopping = True
        await self.dismiss()
        with trio.move_on_after(_STOP_SECONDS):
            while self.process is not None:  # noqa: ASYNC110
                await trio.sleep(0.02)
        if self.process is not None:
            self._log.error("program_killed", program=self.name)
            self.process.kill()

    async def _take_note(self, report: Report) -> None:
        if report.about == "ready":
            self._log.info("program_ready", program=self.name)


def companions(settings: Config, log: structlog.typing.FilteringBoundLogger) -> list[Companion]:
    """Return the programs of a router in the order in which they stop."""
    directory = ["directory"] if settings.directory.serving else []
    sealer = ["sealer"] if settings.archive.sealing else []
    return [Companion(name, settings, log) for name in (*directory, *sealer, "sequencer")]
