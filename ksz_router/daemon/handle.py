"""The supervisor's hold on one worker: its process, its channel, and when the next one starts."""

import trio

from ksz_router.daemon.control import Channel, Order, Report, Stop

_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 60.0
_HEARD_SECONDS_MAX = 6.0


class Backoff:
    """How long to wait before a worker is started again: longer while it keeps failing."""

    def __init__(self) -> None:
        self._failures = 0

    def pause_s(self, ran_s: float) -> float:
        """Say how long to wait after a worker that ran so many seconds; a minute is steady."""
        if ran_s > _STEADY_SECONDS:
            self._failures = 0
        pause = _PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS) - 1)]
        self._failures += 1
        return pause


class WorkerHandle:
    """One worker's place: the process that fills it now, and what was last heard of it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: trio.Process | None = None
        self.channel: Channel | None = None
        self.report: Report | None = None
        self.heard_at = 0.0
        self.restarts = 0
        self.is_leaving = False
        """It was told to stop."""
        self._answers: dict[str, tuple[trio.Event, list[Report]]] = {}

    @property
    def is_serving(self) -> bool:
        """It came up, is not gone since, and was not told to go: it obeys orders."""
        return self.report is not None and self.process is not None and not self.is_leaving

    @property
    def is_ready(self) -> bool:
        """It serves, takes requests, and said so lately."""
        return not self.why_not

    @property
    def why_not(self) -> str:
        """Why it is not ready, in a few words; empty where it is."""
        if self.process is None or self.report is None:
            return "starting"
        if self.is_leaving:
            return "draining"
        is_mute = trio.current_time() - self.heard_at >= _HEARD_SECONDS_MAX
        return ", ".join(self.report.not_ready) or ("mute" if is_mute else "")

    def began(self, process: trio.Process, channel: Channel) -> None:
        """Another process fills the place."""
        self.process, self.channel = process, channel
        self.report = None
        self.is_leaving = False
        self.heard_at = trio.current_time()

    def ended(self) -> None:
        """The process is gone: nobody waits for it any longer."""
        self.process = self.report = None
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        for event, _ in self._answers.values():
            event.set()
        self._answers.clear()

    def heard(self, report: Report) -> None:
        """Take a report in, and wake who waits for it."""
        self.report = report
        self.heard_at = trio.current_time()
        waiting = self._answers.pop(report.about, None)
        if waiting is not None:
            waiting[1].append(report)
            waiting[0].set()

    async def order(self, order: Order) -> Report:
        """Send an order and wait for its report; one of a worker that is gone is not ok."""
        about = str(order.__struct_config__.tag)
        event, reports = self._answers.setdefault(about, (trio.Event(), []))
        if self.channel is not None and await self.channel.send(order):
            await event.wait()
        gone = Report(about, ok=False, text="the worker ended before it answered")
        return reports[0] if reports else gone

    async def dismiss(self) -> None:
        """Tell the worker to drain and end; another takes its place."""
        self.is_leaving = True
        if self.channel is not None:
            await self.channel.send(Stop())
