"""From a source's reply to what it comes to, for the exchange that it answers."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ksz_router.codes import Code
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.opened import Errand, Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.source import SourceLink
from ksz_router.daemon.well_formed import code_of
from ksz_router.decision import Forward
from ksz_router.limits import source_code_chars_max
from ksz_router.messages import Reply
from ksz_router.model import Kind

Settle: TypeAlias = Callable[[Errand, Forward, Code, Reply | None, int], None]
"""Goes on with an errand: what came of it, the reply where it can be used, and when it came."""

# Looked up once: an Enum has its members found in Python.
_DISTRIBUTION = Kind.DISTRIBUTION
_INVALID, _FOR_ANOTHER = Code.SOURCE_ANSWER_INVALID, Code.SOURCE_ANSWERED_FOR_ANOTHER


class Replies:
    """The replies to one worker.

    Args:
        recorder: Takes the entries of late ones.
        entries: Makes them.
        metrics: Counts the late ones, and times the others.
        clock_ns: Monotonic.
        settle: Called with each errand that was answered.
    """

    def __init__(
        self,
        recorder: Recorder[Exchange, Release],
        entries: EntryMaker,
        metrics: Metrics,
        clock_ns: Callable[[], int],
        settle: Settle,
    ) -> None:
        self._recorder = recorder
        self._entries = entries
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._settle = settle

    def take(self, link: SourceLink, replies: Sequence[Reply]) -> None:
        """Settle what the replies of one read are to; tell the source's breaker what it did."""
        source, pending, now_ns = link.source, link.pending, self._clock_ns()
        note, settle = self._metrics.source.note, self._settle
        usable: list[Errand] = []
        for reply in replies:
            errand = pending.pop(reply.id, None)
            if errand is None:
                self._discard(link, reply, now_ns)
                continue
            if not link.has_served:
                link.serve()
            errand.answered_ns = now_ns
            note(now_ns - errand.sent_ns)
            exchange = errand.exchange
            verdict = exchange.verdict
            assert isinstance(verdict, Forward)
            code = code_of(reply, verdict.person)
            if reply.source_code and code is not _INVALID:
                errand.source_code = reply.source_code[:source_code_chars_max]
            if code is _INVALID or code is _FOR_ANOTHER:
                source.answered(usable)  # those before: a breaker counts what fails in a row
                usable.clear()
                source.broke([errand], now_ns)
                settle(errand, verdict, code, None, now_ns)
                continue
            usable.append(errand)
            is_passed_on = verdict.service.kind is not _DISTRIBUTION
            if is_passed_on and not exchange.session.takes(reply.payload):
                settle(errand, verdict, Code.ANSWER_TOO_LARGE, None, now_ns)
            else:
                settle(errand, verdict, code, reply, now_ns)
        source.answered(usable)

    def _discard(self, link: SourceLink, reply: Reply, now_ns: int) -> None:
        """Nothing waits for it; where that is because it came late, this is recorded."""
        late = link.late.pop(reply.id, None)
        self._metrics.turned_away(Code.ANSWER_DISCARDED)
        if late is not None:
            self._recorder.submit([self._entries.discarded(late, now_ns)])
