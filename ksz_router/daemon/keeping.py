"""A worker's record keeping: its journal, the clock it goes by, and whether they can be used."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.clock import HostClock
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.readiness import Readiness, is_file_short
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.tree.backlog import Backlog

_AGAIN_SECONDS, _AGAIN_AFTER_FAILURE_SECONDS = 0.5, 2.0
_BACKLOG_LOOKS = 5
"""At every so manieth look, how far the sequencer is behind is looked at too."""


class RecordKeeping:
    """Opens the log as soon as that is possible, and keeps it fit to be written.

    Where there is no room, no key or no right time, the worker is not ended: it refuses what it is
    asked, says why, and goes on by itself when it can.

    Args:
        settings: Checked configuration.
        index: Of the worker; names its slot.
        contexts: Tell when certificates end.
        admission: Is told whether anything new may be taken.
        metrics: Show it.
        wall_ns: The clock of the host.
        monotonic_ns: That does not jump.

    Raises:
        PrivacyLogError: the log is damaged, or another process writes it.
    """

    def __init__(
        self,
        settings: Config,
        index: int,
        *,
        contexts: Contexts,
        admission: Admission,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock = HostClock(wall_ns, monotonic_ns)
        self.journal = Journal(settings, index, monotonic_ns, self.clock.now_ns)
        self.readiness = Readiness(
            journal=self.journal,
            clock=self.clock,
            contexts=contexts,
            admission=admission,
            wall_ns=wall_ns,
            monotonic_ns=monotonic_ns,
        )
        self._admission = admission
        self._metrics = metrics
        self._log = log
        self._trouble = ""
        order = Path(settings.archive.path) / "order"
        self._backlog = Backlog(Path(settings.privacy_log.path), order)
        self._looks = 0
        self.journal.committed = self._see_room
        metrics.not_ready = self.reasons
        metrics.clock_jumps = lambda: self.clock.jumps
        try:
            self._note(self.journal.try_open())
        except BaseException:
            self.journal.close()  # it may be tried again in this process
            raise
        self._tell()

    def reasons(self) -> tuple[str, ...]:
        """Why the worker is not ready; none where it is. From any thread."""
        return tuple(reason.value for reason in self.readiness.reasons())

    async def look(self) -> None:
        """Look at the clock, the log and its keys; once a second, between two turns."""
        self.clock.look()
        if not self.journal.is_open:
            self.clock.begin_anew()
            self._note(await trio.to_thread.run_sync(self.journal.try_open))
        elif self.journal.turn_quarter():
            self._log.info("quarter_began")
        elif self.journal.keys_error:
            self._note(self.journal.keys_error)
        self.journal.count_tickets()
        self._looks += 1
        if self._looks % _BACKLOG_LOOKS == 0:
            with contextlib.suppress(OSError, PrivacyLogError):  # then it is as it was
                share = await trio.to_thread.run_sync(self._backlog.share)
                self.readiness.unsequenced_share = share
        self._tell()

    async def keep_ahead(self) -> None:
        """Keep the next file ready, until cancelled; nobody waits for it on a stop."""
        while True:
            pause_s = _AGAIN_SECONDS
            if self.journal.is_open:
                made = await trio.to_thread.run_sync(self.journal.prefill, abandon_on_cancel=True)
                if not made:
                    self._metrics.next_file_failures += 1
                    pause_s = _AGAIN_AFTER_FAILURE_SECONDS
            await trio.sleep(pause_s)

    def _see_room(self) -> None:
        """Half a file is gone in less than a second where much comes: look after each group."""
        if is_file_short(self.journal.writer) and not self._admission.is_log_full:
            self._tell()

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            self._log.critical("log_not_writable", reason=trouble)
        self._trouble = trouble

    def _tell(self) -> None:
        news = self.readiness.look()
        self._admission.is_log_full = not self.readiness.can_record
        if news is not None:
            self._log.warning("readiness_changed", not_ready=[reason.value for reason in news])
