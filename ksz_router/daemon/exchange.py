"""The life of an exchange, from the request to its answer, a batch at a time.

    take      identify, look up, decide, and hand the entry to the recorder
    go_on     what became durable is forwarded, or its answer released
    settle    what came of a destination is handed to the recorder
    expire    what did not come in time is settled without it

What waits for the keeper of a sectoral directory does so in ``inquiries``. This is the only place
where a request is forwarded or answered; it is decided on in ``judging``, and what a source replies
is judged in ``replies``.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from ksz_router.codes import Code
from ksz_router.daemon import answers
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.deadlines import Deadlines
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.inquiries import Inquiries, Inquiry
from ksz_router.daemon.integrations import Integrations
from ksz_router.daemon.judging import Judged, judge
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.on_behalf import Follows, OnBehalf
from ksz_router.daemon.opened import Errand, Exchange, Release
from ksz_router.daemon.own_answers import OwnAnswers
from ksz_router.daemon.recorder import Recorded, Recorder
from ksz_router.daemon.replies import Replies
from ksz_router.daemon.submissions import Submissions
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.upstream import Failed, Upstream
from ksz_router.days import brussels_day
from ksz_router.decision import Forward
from ksz_router.link import Link
from ksz_router.messages import Reply, Request
from ksz_router.model import Kind

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session

_Batch: TypeAlias = list[tuple["Session | OnBehalf", Request]]

# Looked up once: an Enum has its members found in Python.
_DISTRIBUTION = Kind.DISTRIBUTION
_set = msgspec.structs.force_setattr

_JUDGED_AT_ONCE = 64
"""More would not be cheaper by look-up, and what was looked up for it would leave the cache."""


class Exchanges:
    """All open exchanges of one worker.

    Args:
        clock_ns: Monotonic; for deadlines and durations.
        wall_ns: Unix time; for the day, and what is said of time to others.
        new_ids: Makes so many exchange ids (UUIDv7).
    """

    def __init__(
        self,
        *,
        tables: Tables,
        entries: EntryMaker,
        recorder: Recorder[Exchange, Release],
        upstream: Upstream,
        submissions: Submissions,
        admission: Admission,
        metrics: Metrics,
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        new_ids: Callable[[int], Sequence[bytes]],
    ) -> None:
        self._tables = tables
        self._entries = entries
        self._recorder = recorder
        self._upstream = upstream
        self._submissions = submissions
        self._admission = admission
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._new_ids = new_ids
        self._deadlines = Deadlines()
        self._own_answers = OwnAnswers(upstream, wall_ns)
        self._integrations = Integrations(recorder, tables.uri_of_source, self._own_answers.soon_ms)
        self._inquiries = Inquiries(recorder, tables.asker, metrics.sectoral, clock_ns)
        self.replies = Replies(recorder, entries, metrics, clock_ns, self._settle)
        """What sources answer is handed over here, and settled."""
        self.touched: set[Link] = set()
        """Links that something was queued on, to be flushed at the end of the turn."""

    @property
    def next_deadline_ns(self) -> int | None:
        """When :meth:`expire` has something to do; None if nothing is open."""
        return self._deadlines.next_ns

    def take(
        self, asked: Sequence[tuple["Session", Request]], following: Sequence[Follows] = ()
    ) -> None:
        """Judge a batch of requests, and hand each to the recorder.

        Args:
            asked: What came in.
            following: Or what follows from messages, and was admitted with these.
        """
        now_ns, wall_ns = self._clock_ns(), self._wall_ns()
        batch = self._admitted(asked, wall_ns // 1_000_000)
        batch += [(follows.session, follows.request) for follows in following]
        for begin in range(0, len(batch), _JUDGED_AT_ONCE):
            end = begin + _JUDGED_AT_ONCE
            self._judge(batch[begin:end], now_ns, wall_ns, following[begin:end])
        if self._inquiries.questions:
            self.take((), self._inquiries.take_questions())

    def _judge(
        self, batch: _Batch, now_ns: int, wall_ns: int, following: Sequence[Follows]
    ) -> None:
        today, generation = brussels_day(wall_ns), self._tables.generation
        begun_ns = self._clock_ns()
        looked_up = self._tables.look_up(batch, wall_ns // 1_000_000)
        for place, follows in enumerate(following):
            looked_up[place] = follows.informed(looked_up[place])
        checked_ns = self._clock_ns()
        ids = self._new_ids(len(batch))
        exchanges = judge(batch, looked_up, ids, Judged(today, generation, now_ns))
        for exchange in exchanges:
            exchange.session.inflight[exchange.request.id] = exchange
        for exchange, follows in zip(exchanges, following, strict=False):
            self._admission.held_bytes += follows.settle(exchange)
        if self._tables.asks:
            exchanges = self._inquiries.hold_back(exchanges, following, today)
        decided_ns = self._clock_ns()
        self._submissions.claim(exchanges)
        self._record(exchanges)
        self._metrics.checked(len(batch), checked_ns - begun_ns, decided_ns - checked_ns)

    def _record(self, exchanges: Sequence[Exchange]) -> None:
        """Have requests recorded, and with each the answer where the router gives it itself."""
        forward_after = self._recorder.forward_after
        for exchange, entry in zip(exchanges, self._entries.requests(exchanges), strict=True):
            verdict = exchange.verdict
            if isinstance(verdict, Forward) and not verdict.is_spotless:
                self._metrics.violated(verdict.violations)
            answer = self._own_answers.of(exchange) if not exchange.destinations else None
            # What the directory says of the person was for the control, and is not kept. These
            # facts are this exchange's alone, and a copy would cost as much as making them did.
            _set(exchange.facts, "person", None)
            if answer is None:
                forward_after(entry, exchange)
            else:
                records = [entry, *self._entries.outcome(exchange, Code(answer.code), router_us=0)]
                self._end(records, Release(exchange, answer, exchange.received_ns))
        self._deadlines.add([exchange for exchange in exchanges if exchange.destinations])

    def _end(self, records: Sequence[bytes], release: Release) -> None:
        """Have an outcome recorded, and then the answer given; changes that follow come between."""
        service, session = release.exchange.facts.service, release.exchange.session
        if (service is not None and service.integrations) or isinstance(session, OnBehalf):
            if isinstance(session, Inquiry):
                self._inquiries.end(session, records, release)
            else:
                self._integrations.end(records, release)
        else:
            self._recorder.release_after(records, release)

    def _admitted(self, asked: Sequence[tuple["Session", Request]], now_ms: int) -> _Batch:
        """Take in what the windows leave room for; turn the rest away."""
        admitted: _Batch = []
        admit, touched = self._admission.admit, self.touched
        for session, request in asked:
            inflight = session.inflight
            if session.is_at_fault:
                continue  # behind the fault, in the same read or envelope: it no longer counts
            if request.id in inflight:
                session.end(Code.CORRELATION_REUSED)
                touched.add(session.link)
                continue
            refused = admit(session, len(request.payload))
            if refused is None:
                inflight[request.id] = None  # taken; a second one in this batch is a reuse
                admitted.append((session, request))
                continue
            code, limit = refused
            session.turn_away(answers.not_admitted(request, code, limit=limit, now_ms=now_ms))
            self._admission.count(session.uri, code)
            self._metrics.turned_away(code)
            touched.add(session.link)
        return admitted

    def commit(self) -> None:
        """Begin to make what was submitted durable."""
        if self._integrations.is_waiting:
            self.take((), self._integrations.take())
        if self._inquiries.answered:
            self.take((), self._inquiries.take_answered())
        self._submissions.note()
        self._recorder.begin()

    def go_on(self, wait_s: float) -> None:
        """Forward or answer what became durable; waits so many seconds until it is, at most."""
        taken = self._recorder.take(wait_s)
        if taken is None:
            return
        passed, releases = taken
        self._submissions.settle()
        now_ns = self._clock_ns()
        failed = self._upstream.forward(passed, now_ns)
        note = self._metrics.request_leg.note
        for exchange in passed.value:
            note(now_ns - exchange.received_ns)
        self.settle_failed(failed)
        self._release(releases, now_ns)
        self.settle_failed(self._upstream.resume(self.touched))

    def settle_failed(self, failed: Failed) -> None:
        """Settle errands that will not be answered."""
        for errand, code in failed:
            if errand.code is None:
                self._fail(errand, code)

    def expire(self) -> None:
        """Settle what is past its deadline."""
        for exchange in self._deadlines.due(self._clock_ns()):
            for errand in exchange.errands:
                if errand.code is None:
                    self._fail(errand, self._upstream.give_up(errand))
            self._admission.held_bytes -= len(exchange.request.payload)
            # The answer is still to be recorded; what was asked is not kept for it.
            exchange.request = msgspec.structs.replace(exchange.request, payload=b"")

    def _fail(self, errand: Errand, code: Code) -> None:
        """It is silent, lost or not reached: the time was not the router's."""
        exchange, now_ns = errand.exchange, self._clock_ns()
        errand.sent_ns = errand.sent_ns or exchange.forwarded_ns
        errand.answered_ns = now_ns
        assert isinstance(exchange.verdict, Forward), "nothing else has errands"
        self._settle(errand, exchange.verdict, code, None, now_ns)

    def _settle(
        self, errand: Errand, verdict: Forward, code: Code, reply: Reply | None, now_ns: int
    ) -> None:
        """Something came of one destination; once it did of all, the exchange has its outcome."""
        errand.code = code
        exchange = errand.exchange
        if exchange.submission is not None and not self._is_last(errand, verdict, code, reply):
            return
        self._deadlines.remove(exchange)
        came_from: Errand | None = errand
        if verdict.service.kind is _DISTRIBUTION:
            answer = answers.distributed(exchange, verdict, self._own_answers.retry_at_ms)
            code, came_from, reply = Code(answer.code), None, None
        else:
            answer = answers.outcome(errand, verdict, code, reply, self._own_answers.retry_at_ms)
        records = self._entries.outcome(
            exchange,
            code,
            router_us=(now_ns - exchange.received_ns) // 1000 - answer.source_us,
            errand=came_from,
            reply=reply,
        )
        release = Release(exchange, answer, now_ns)
        if verdict.service.integrations or isinstance(exchange.session, OnBehalf):
            self._end(records, release)
        else:
            self._recorder.release_after(records, release)

    def _is_last(self, errand: Errand, verdict: Forward, code: Code, reply: Reply | None) -> bool:
        """Note what came of a submission at a recipient; say whether nothing is awaited now."""
        exchange = errand.exchange
        exchange.open_errands -= 1
        if verdict.service.kind is _DISTRIBUTION:
            self._recorder.submit(self._entries.recipient(exchange, code, errand, reply))
        self._submissions.came(exchange, errand, code, reply)
        return not exchange.open_errands

    def _release(self, recorded: Recorded[Sequence[Release]], now_ns: int) -> None:
        admission, answered, touched = self._admission, self._metrics.answered, self.touched
        for place, release in enumerate(recorded.value):
            exchange, answer = release.exchange, release.answer
            session, service = exchange.session, exchange.facts.service
            spent_us, source_us = (now_ns - exchange.received_ns) // 1000, answer.source_us
            router_us = spent_us - source_us if spent_us > source_us else 0
            exchange.errands.clear()  # they point back: without this only the collector frees them
            if isinstance(session, OnBehalf):
                admission.held_bytes -= len(exchange.request.payload)
            else:
                session.release(recorded, place, router_us)
                admission.leave(session, len(exchange.request.payload))
                touched.add(session.link)
            answered(
                service.kind if service is not None else None,
                answer.code,
                router_us * 1000,
                now_ns - release.replied_ns,
            )
