"""One step of a mailbox: lines judged and recorded, what passed applied, and that recorded too.

The order is law 2: nothing is applied before its REQUEST is durable, and no verdict is told before
its OUTCOME is.
"""

from collections.abc import Callable, Mapping
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
    new_id: Callable[[], bytes]


class _Caller(NamedTuple):
    """Stands where a connection stands for what comes by the wire."""

    uri: str


class StepWork:
    """Does it, for one thread at a time.

    Args:
        writer: Of the directory.
        record: The slot of the privacy log, ready.
        own: KBO number of the institution that keeps the directory.
    """

    def __init__(self, writer: Writer, record: MailboxRecord, own: Kbo, clocks: Clocks) -> None:
        self._writer = writer
        self._record = record
        self._own = own
        self._clocks = clocks

    def judged(
        self, mailbox: Mailbox, requests: Mapping[int, Request], tables: Tables, *, is_again: bool
    ) -> dict[int, Exchange]:
        """Judge lines as they would be online; nothing is recorded yet.

        What may have been under way at a kill ``is_again`` asked for: under exchange ids of its
        own, as every retry, but delivered under the first ones.
        """
        wall_ns, id_of = self._clocks.wall_ns(), LineIds(mailbox)
        caller = cast("Session", _Caller(tables.uri_of(Kbo(mailbox.kbo))))
        batch = [(caller, request) for request in requests.values()]
        firsts = [id_of(line) for line in requests]
        ids = [self._clocks.new_id() for _ in firsts] if is_again else firsts
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

    def settled(
        self, mailbox: Mailbox, exchanges: Mapping[int, Exchange], *, is_again: bool
    ) -> dict[int, Answered]:
        """Record, apply, record; return what is to be answered to each line.

        Raises:
            LogNotWritable: nothing more can be recorded, and nothing is to be answered.
            DirectoryError: it is not known what was applied.
        """
        entries, recorder = self._record.entries, self._record.recorder
        answered: dict[int, Answered] = {}
        for line, exchange in exchanges.items():
            entry, verdict = entries.request(exchange), exchange.verdict
            if isinstance(verdict, Forward):
                recorder.forward_after(entry, line)
                continue
            code = verdict.code
            recorder.release_after([entry, *entries.outcome(exchange, code, router_us=0)], line)
            answered[line] = Answered(code, code.name)
        passed, _ = recorder.commit()
        changes: dict[int, Change] = {}
        for recorded in passed:
            line = recorded.value
            found = change_in(exchanges[line], self._own, self._clocks.monotonic_ns())
            if isinstance(found, Answered):
                answered[line] = found
                recorder.submit(entries.outcome(exchanges[line], found.code, router_us=0))
            else:
                changes[line] = found
        results = self._writer.apply(list(changes.values()), self._clocks.wall_ns() // 1000)
        for (line, change), result in zip(changes.items(), results, strict=True):
            answered[line] = answer = _answer_to(result)
            reply = _reply(exchanges[line], result, change.other)
            records = entries.outcome(exchanges[line], answer.code, router_us=0, reply=reply)
            recorder.release_after(records, line)
        if not recorder.is_empty:
            recorder.commit()
        if is_again:
            answered |= self._known(mailbox, exchanges, answered)
        return answered

    def _known(
        self, mailbox: Mailbox, exchanges: Mapping[int, Exchange], answered: Mapping[int, Answered]
    ) -> dict[int, Answered]:
        """What was made before a kill stands, though the control would refuse it by now."""
        id_of, known = LineIds(mailbox), {}
        for line, exchange in exchanges.items():
            if not isinstance(exchange.verdict, Forward):
                note = self._writer.note_of(id_of(line))
                known[line] = answered[line] if note is None else _noted(note)
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
