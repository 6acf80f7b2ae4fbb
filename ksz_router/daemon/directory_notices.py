"""Tells institutions what became of a number, as a requester of the router like any other.

A change of the register leaves notices in the directory, in its own transaction. Each is sent as a
distribution, under a ticket and with a content that follow from the change alone; so after a crash
the same submission is asked for again, and the ledger sees that nobody gets it twice. It is removed
once every recipient has it, and given up, never silently, when it is too old.
``docs/decisions/0019`` says why.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

import structlog
import trio

from ksz_router.codes import MEANINGS, Code
from ksz_router.config import Config
from ksz_router.credentials import Identity
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.days import brussels_day
from ksz_router.directory.change import Operation
from ksz_router.directory.hindrance import NotTakenError
from ksz_router.directory.outbox import Waiting
from ksz_router.directory.packing import DamagedError
from ksz_router.directory.writer import Writer
from ksz_router.ledger import NOT_SENT, UNKNOWN
from ksz_router.limits import notices_inflight_max
from ksz_router.messages import Answer, Request
from ksz_router.sdk import Client, SdkError, open_client
from ksz_router.sdk.directory import NUMBER, VERSION, Event, Notice, encode

NOBODY = frozenset(code for code, meaning in MEANINGS.items() if meaning.official == "MSG00021")
"""Answers that say that there is nobody to tell."""

_EVENTS = {
    Operation.REPLACE: Event.REPLACE,
    Operation.CANCEL: Event.CANCEL,
    Operation.DECEASE: Event.DECEASE,
    Operation.REACTIVATE: Event.REACTIVATE,
}
_LOOK_SECONDS = 0.25
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 1.0, 300.0
_DEADLINE_SECONDS = 15.0
"""A service's own deadline is 10 s unless the rulebook says otherwise."""


class Notices:
    """Sends what waits, the oldest first: each once at once, what is left in rounds.

    Args:
        batches: Of the one writer, which also removes what was told.
        router_uri: The SAN URI of the router's certificate.
        wall_us: Unix time in microseconds.
    """

    def __init__(
        self,
        settings: Config,
        batches: Batches,
        *,
        identity: Identity,
        router_uri: str,
        metrics: DirectoryMetrics,
        log: structlog.typing.FilteringBoundLogger,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._settings = settings.notices
        self._give_up_us = int(settings.notices.give_up_hours * 3_600_000_000)
        self._open = partial(
            open_client,
            identity,
            host=settings.notices.host,
            port=settings.notices.port or settings.listen.port,
            uri=router_uri,
        )
        self._batches = batches
        self._metrics = metrics
        self._log = log
        self._wall_us = wall_us
        self._client: Client | None = None
        self._tried = b""
        """Key of the last notice that was sent once; what waits behind it is new."""
        self._left = 0
        self._reason = ""

    async def run(self) -> None:
        """Work until cancelled: what is then under way is asked for again at the next start.

        Raises:
            DirectoryError: the directory cannot be read or written any more.
            TlsFilesError: the certificate cannot be used.
        """
        try:
            if self._settings.application:
                async with self._open() as self._client, trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_new)
                    nursery.start_soon(self._send_again)
            else:
                await self._count()
        except* DamagedError:  # the directory goes on; an alert on the age says that this does not
            self._metrics.notice_oldest_s = 1.0
            self._log.critical("notices_unreadable")

    def renew(self) -> None:
        """Read the certificate files anew.

        Raises:
            TlsFilesError: a file cannot be used; the old ones go on.
        """
        if self._client is not None:
            self._client.renew()

    async def _send_new(self) -> None:
        """Send each notice as soon as it waits."""
        seen = -1
        while True:
            written = self._batches.notices_written
            if written != seen:
                seen = written
                await self._count()
                while await self._send(self._tried, None) is not None:
                    pass
            await trio.sleep(_LOOK_SECONDS)

    async def _send_again(self) -> None:
        """Go round all that is left, after a pause that grows while nothing comes of it."""
        pause_s = _PAUSE_SECONDS
        while True:
            await trio.sleep(pause_s)
            if not self._left:
                pause_s = _PAUSE_SECONDS
                continue
            after, settled, last = b"", 0, self._tried
            while after < last:
                found = await self._send(after, last)
                if found is None:
                    break
                after, settled = found[0], settled + found[1]
            pause_s = _PAUSE_SECONDS if settled else min(2 * pause_s, _PAUSE_SECONDS_MAX)

    async def _send(self, after: bytes, last: bytes | None) -> tuple[bytes, int] | None:
        """Send the next few behind a key; return the key of the last, and how many are settled.

        None where there are none up to ``last``.
        """
        wanted = notices_inflight_max
        few = await self._batches.with_writer(lambda writer: writer.notices(after, wanted))
        if last is not None:
            few = [waiting for waiting in few if waiting.key <= last]
        if not few:
            return None
        settled: list[bytes] = []
        async with trio.open_nursery() as nursery:
            for waiting in few:
                nursery.start_soon(self._send_one, waiting, settled)
        if settled:
            try:
                await self._batches.with_writer(lambda writer: writer.remove_notices(settled))
            except NotTakenError:  # asked for again in the rounds, and given to nobody who has it
                settled.clear()
        self._tried = max(self._tried, few[-1].key)
        await self._count()
        return few[-1].key, len(settled)

    async def _send_one(self, waiting: Waiting, settled: list[bytes]) -> None:
        assert self._client is not None
        try:
            answer = await self._client.ask(self._request(waiting), deadline_s=_DEADLINE_SECONDS)
        except SdkError as error:
            outcome, reason = "", type(error).__name__
        else:
            outcome, reason = outcome_of(answer), Code(answer.code).name
        if not outcome and self._wall_us() - waiting.notice.now_us > self._give_up_us:
            outcome = "given_up"
            self._log.error("notice_given_up", version=waiting.version, reason=reason)
        if outcome == "failed":
            self._log.error("notice_failed", version=waiting.version, reason=reason)
        if not outcome:
            if reason != self._reason:  # once, not for each that waits for the same
                self._log.warning("notice_waits", version=waiting.version, reason=reason)
            self._reason = reason
            return
        self._reason = ""
        self._metrics.noticed(outcome)
        settled.append(waiting.key)

    def _request(self, waiting: Waiting) -> Request:
        return request_of(
            waiting, self._settings.application, self._settings.legal_framework or None
        )

    async def _count(self) -> None:
        backlog = await self._batches.with_writer(Writer.backlog)
        self._metrics.notices_waiting = self._left = backlog.notices
        self._metrics.notice_oldest_s = backlog.oldest_us / 1_000_000


def request_of(waiting: Waiting, application: str, legal_framework: str | None) -> Request:
    """Return what is sent: always the same for the same notice, whenever it is asked."""
    notice = waiting.notice
    day = brussels_day(notice.now_us * 1000)
    told = Notice(
        version=waiting.version,
        event=_EVENTS[notice.operation],
        number=notice.number,
        current=notice.current,
        deceased=notice.deceased,
    )
    return Request(
        id=0,
        service=NUMBER,
        version=VERSION,
        ticket=ticket_of(waiting),
        application=application,
        legal_framework=legal_framework,
        person=notice.person,
        begin=day,
        end=day,
        payload=encode(told),
    )


def ticket_of(waiting: Waiting) -> str:
    """Return the ticket: of the version and part, and of the change, should a version come again.

    Another directory, loaded from nothing, counts from the beginning; its changes are others.
    """
    digest = hashlib.sha256(waiting.key + waiting.notice.exchange).digest()
    return str(uuid.UUID(bytes=digest[:16]))


def outcome_of(answer: Answer) -> str:
    """Return what came of a notice; empty where somebody may still get it by a retry."""
    codes = _codes(answer)
    if not codes:
        return "nobody" if answer.code in NOBODY else ""
    if any(code in NOT_SENT or code in UNKNOWN for code in codes):
        return ""
    return "told" if all(code >= Code.ANSWERED_WITH_DATA for code in codes) else "failed"


def _codes(answer: Answer) -> Sequence[int]:
    """What came of each recipient; nothing where the router refused before there were any."""
    return [recipient.code for recipient in answer.recipients]
