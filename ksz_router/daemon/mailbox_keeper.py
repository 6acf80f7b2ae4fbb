"""Mailboxes in the directory program: applied while nothing else waits for the writer.

Online changes come first: a step of a mailbox begins only when none waits, takes some hundredths of
a second, and where some came meanwhile the next one leaves them as long. The workers come first
too: the thread of the steps is niced, and while they serve anybody it rests between two steps.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.mailbox_lane import MailboxLane, Manners, Rulebook, Step
from ksz_router.daemon.mailbox_record import MailboxRecord
from ksz_router.daemon.mailbox_services import MailboxServices
from ksz_router.daemon.mailbox_step import Clocks
from ksz_router.daemon.niced import NicedThread
from ksz_router.daemon.pacer import Pacer
from ksz_router.daemon.traffic import Traffic
from ksz_router.directory.hindrance import NotTakenError
from ksz_router.directory.mailboxes import Mailboxes, MailboxesUnusable
from ksz_router.directory.packing import DamagedError
from ksz_router.directory.writer import Writer
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rulebook.generation import RulebookError

_NICE = 10
_REST = 8.0
"""So much longer than a turn worked it rests while workers serve."""
_LOOK_SECONDS = 1.0
"""How soon a mailbox is seen that a command put there."""
_AGAIN_SECONDS = 5.0
_FORGET_SECONDS = 3600.0
_QUIET_SECONDS = 2.0
"""So long after a change or a look-up the next one is expected no more."""
_DAY_MS = 86_400_000

_MENDED_BY_WAITING = (
    PrivacyLogError, RulebookError, MailboxesUnusable, DamagedError, NotTakenError, OSError,
)  # fmt: skip
"""What keeps mailboxes from being applied, and nothing else from going on."""


def lane_of(
    settings: Config,
    mailboxes: Mailboxes,
    writer: Writer,
    own_uri: str,
    now_us: Callable[[], int],
) -> MailboxLane:
    """Return the lane of this machine: with its log and its rulebook, by a guarded clock."""

    def wall_ns() -> int:
        return now_us() * 1000

    log = Path(settings.privacy_log.path)
    record = MailboxRecord(settings, time.monotonic_ns, wall_ns)
    pacer = Pacer(time.thread_time)
    pacer.rest = _REST
    return MailboxLane(
        mailboxes,
        writer,
        record,
        Rulebook(
            Path(settings.tables.rulebook),
            Path(settings.tables.rulebook_signer),
            Path(settings.tables.sectoral),
            own_uri,
        ),
        Clocks(time.monotonic_ns, wall_ns, ExchangeIds(wall_ns)),
        manners=Manners(
            pacer,
            Traffic([log / f"w{n}" for n in range(settings.node.workers)], time.monotonic),
        ),
    )


class MailboxKeeper:
    """Takes mailboxes and applies them.

    Args:
        batches: That it gives way to; their writer is used between two of them.
        now_us: Unix time, guarded.
        own_uri: SAN URI of the institution that keeps the directory.

    Raises:
        MailboxesUnusable: the folder cannot be used.
    """

    def __init__(
        self,
        settings: Config,
        writer: Writer,
        batches: Batches,
        now_us: Callable[[], int],
        *,
        own_uri: str,
        metrics: DirectoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._mailboxes = Mailboxes(Path(settings.directory.mailboxes))
        self._now_us = now_us
        self._lane = lane_of(settings, self._mailboxes, writer, own_uri, now_us)
        self._keep_ms = settings.directory.keep_days * _DAY_MS
        self._thread: NicedThread[Step | None] = NicedThread(_NICE)
        self._batches = batches
        self._metrics = metrics
        self._log = log
        self._trouble = ""
        services = MailboxServices(self._mailboxes, batches.wake, lambda: now_us() // 1000)
        self.handlers = services.handlers()
        batches.spare = self._step

    async def look(self) -> None:
        """See what was put there by others, and forget what is old; until cancelled."""
        forgot_at = -_FORGET_SECONDS
        while True:
            try:
                if await trio.to_thread.run_sync(self._mailboxes.waiting) and not self._trouble:
                    self._batches.wake()
                if trio.current_time() >= forgot_at + _FORGET_SECONDS:
                    forgot_at = trio.current_time()
                    before_ms = self._now_us() // 1000 - self._keep_ms
                    await trio.to_thread.run_sync(self._mailboxes.forget_before, before_ms)
            except (MailboxesUnusable, OSError) as error:
                self._say(error)
                self._batches.wake()  # a step finds out when it is over
            await trio.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """End, once nobody steps any more."""
        self._thread.end()
        with contextlib.suppress(PrivacyLogError):  # what is open is settled by the next run
            self._lane.close()
        self._mailboxes.close()

    async def _step(self) -> float | None:
        is_quiet = trio.current_time() - self._batches.served_at > _QUIET_SECONDS
        self._lane.changes_come = not is_quiet
        self._lane.has_waited = self._batches.is_waited_for
        try:
            step = await self._thread.run(self._lane.step)
        except _MENDED_BY_WAITING as error:
            self._say(error)
            return _AGAIN_SECONDS
        self._trouble = ""
        if step is None:
            return None
        self._metrics.mailbox_step(step.lines, step.seconds)
        done = step.mailbox
        if done.done_ms:
            self._log.info(
                "mailbox_done",
                sender=done.kbo,
                number=done.number,
                applied=done.applied,
                refused=done.refused,
            )
        return max(step.rest_s, step.seconds if self._batches.is_waited_for else 0.0)

    def _say(self, error: Exception) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            self._log.error("mailboxes_stand_still", reason=self._trouble)
