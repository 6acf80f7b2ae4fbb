"""One step of a mailbox: lines judged and recorded, what passed applied, and that recorded too.

The order is law 2: nothing is applied before its REQUEST is durable, and no verdict is told before
its OUTCOME is. What passed is applied in as many transactions as whoever steps wants.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from ksz_router.codes import Code
from ksz_router.daemon.judging import Judged, judge
from ksz_router.daemon.mailbox_lines import Answered, change_in, further_of, refused
from ksz_router.daemon.mailbox_record import MailboxRecord
from ksz_router.daemon.opened import Exchange, Submission
from ksz_router.daemon.tables import Tables
from ksz_router.days import brussels_day
from ksz_router.decision import Forward
from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.directory.journal import Note
from ksz_router.directory.mailbox import LineIds, Mailbox
from ksz_router.directory.writer import Writer
from ksz_router.identifiers import Kbo
from ksz_router.ledger import Granted
from ksz_router.messages import Outcome, Reply, Request
from ksz_router.sdk.directory import REGISTER

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session


class Clocks(NamedTuple):
    """What tells the time, and what makes exchange ids."""

    monotonic_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    new_ids: Callable[[int], Sequence[bytes]]


class _Caller(NamedTuple):
    """Stands where a connection stands for what comes by the wire."""

    uri: str


class StepWork:
    """Does one, for one thread at a time.

    Args:
        mailbox: Before the step.
        is_again: The lines may have been under way at a kill: they are asked for under exchange
            ids of their own, as every retry, but delivered under the first ones.
        own: KBO number of the institution that keeps the directory.
        record: The slot of the privacy log, ready.
    """

    def __init__(
        self, mailbox: Mailbox, own: Kbo, record: MailboxRecord, clocks: Clocks, *, is_again: bool
    ) -> None:
        self._mailbox = mailbox
        self._is_again = is_again
        self._own = own
        self._record = record
        self._clocks = clocks
        self._exchanges: Mapping[int, Exchange] = {}
        self._answered: dict[int, Answered] = {}
        self._to_apply: list[tuple[int, Change]] = []
        self._results: list[Applied | Refused] = []
        """Of the first of those."""

    def judged(self, requests: Mapping[int, Request], tables: Tables) -> dict[int, Exchange]:
        """Judge lines as they would be online; nothing is recorded yet."""
        mailbox, is_again = self._mailbox, self._is_again
        wall_ns, id_of = self._clocks.wall_ns(), LineIds(mailbox)
        caller = cast("Session", _Caller(tables.uri_of(Kbo(mailbox.kbo))))
        batch = [(caller, request) for request in requests.values()]
        firsts = [id_of(line) for line in requests]
        ids = self._clocks.new_ids(len(firsts)) if is_again else firsts
        looked_up = tables.look_up(batch, wall_ns // 1_000_000)
        when = Judged(brussels_day(wall_ns), tables.generation, self._clocks.monotonic_ns())
        exchanges = judge(batch, looked_up, ids, when)
        recipients, again = (self._own,), frozenset({self._own}) if is_again else frozenset()
        for first, exchange in zip(firsts, exchanges, strict=True):
            if isinstance(exchange.verdict, Forward):
                # No ledger knows of it: the directory itself notes what it did for each line.
                held = Granted(first, mailbox.runs if is_again else 1, recipients, again, {})
                exchange.submission = Submission(b"", cast("bytes", None), held)
        return dict(zip(requests, exchanges, strict=True))

    @staticmethod
    def independent(exchanges: Mapping[int, Exchange]) -> int:
        """Return the first line that must be judged after others of the step; 0 where none must.

        The verdicts are then those of one line after the other, however a mailbox is cut into
        steps: what a register says of a number, and where the control asks for an own integration
        the lines too, is looked at by the control of what follows.
        """
        seen: set[str | None] = set()
        of_register: bool | None = None
        for line, exchange in exchanges.items():
            request, standing = exchange.request, exchange.facts.standing
            is_of_register = request.service == REGISTER
            if of_register is None:
                of_register = is_of_register
            asks_own = standing is not None and standing.own is not None
            if is_of_register is not of_register or (
                request.person in seen and (is_of_register or asks_own)
            ):
                return line
            seen.add(request.person)
        return 0

    def record(self, exchanges: Mapping[int, Exchange]) -> None:
        """Make durable that lines were asked for, and what became of those that do not pass.

        Raises:
            LogNotWritable: nothing more can be recorded, and nothing is to be answered.
        """
        self._exchanges = exchanges
        entries, recorder = self._record.entries, self._record.recorder
        for line, exchange in exchanges.items():
            entry, verdict = entries.request(exchange), exchange.verdict
            if isinstance(verdict, Forward):
                recorder.forward_after(entry, line)
                continue
            code = verdict.code
            recorder.release_after([entry, *entries.outcome(exchange, code, router_us=0)], line)
            self._answered[line] = Answered(code, code.name)
        passed, _ = recorder.commit()
        for line in passed.value:
            found = change_in(exchanges[line], self._own, self._clocks.monotonic_ns())
            if isinstance(found, Answered):
                self._answered[line] = found
            else:
                self._to_apply.append((line, found))

    def apply(self, writer: Writer, most: int) -> bool:
        """Apply at most so many of what is left, in one durable transaction; say if more is left.

        Raises:
            DirectoryError: it is not known what was applied.
        """
        done = len(self._results)
        changes = [change for _, change in self._to_apply[done : done + most]]
        self._results += writer.apply(changes, self._clocks.wall_ns() // 1000)
        return len(self._results) < len(self._to_apply)

    def settled(self, writer: Writer) -> dict[int, Answered]:
        """Make durable what became of all; return what is to be answered to each line.

        Raises:
            LogNotWritable: nothing more can be recorded, and nothing is to be answered.
            DirectoryError: it is not known what was applied before a kill.
        """
        entries, recorder, exchanges = self._record.entries, self._record.recorder, self._exchanges
        for line, answer in self._answered.items():
            if isinstance(exchanges[line].verdict, Forward):
                recorder.submit(entries.outcome(exchanges[line], answer.code, router_us=0))
        for (line, change), result in zip(self._to_apply, self._results, strict=True):
            self._answered[line] = answer = _answer_to(result)
            reply = _reply(exchanges[line], result, change.other)
            records = entries.outcome(exchanges[line], answer.code, router_us=0, reply=reply)
            recorder.release_after(records, line)
        if not recorder.is_empty:
            recorder.commit()
        return self._answered | (self._known(writer) if self._is_again else {})

    def _known(self, writer: Writer) -> dict[int, Answered]:
        """What was made before a kill stands, though the control would refuse it by now."""
        id_of, known = LineIds(self._mailbox), {}
        for line, exchange in self._exchanges.items():
            if not isinstance(exchange.verdict, Forward):
                note = writer.note_of(id_of(line))
                known[line] = self._answered[line] if note is None else _noted(note)
        return known


def _answer_to(verdict: Applied | Refused) -> Answered:
    if isinstance(verdict, Refused):
        return refused(verdict.reason.name)
    return Answered(Code.ANSWERED_WITH_DATA, version=verdict.version)


def _noted(note: Note) -> Answered:
    if note.reason is not None:
        return refused(note.reason.name)
    return Answered(Code.ANSWERED_WITH_DATA, version=note.version)


def _reply(exchange: Exchange, verdict: Applied | Refused, other: str) -> Reply | None:
    """Declare the further numbers that a change concerned, as its answer does online."""
    if isinstance(verdict, Refused):
        return None
    further = further_of(exchange, verdict.current, other)
    return Reply(id=0, outcome=Outcome.DATA, persons=further) if further else None
