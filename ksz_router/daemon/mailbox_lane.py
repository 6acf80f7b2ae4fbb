"""Mailboxes are applied a step at a time, each step durable before the next.

    judge         each line as the request it stands for, by the control
    record        a REQUEST each, durable
    apply         what passed, in durable transactions, under exchange ids that never change
    record        an OUTCOME each, durable
    answer        the verdicts appended, durable; then how far the mailbox is, durable

While the router serves, a transaction is small, and after each the machine is left to others: what
one writes, all over the directory, is on its way to the disk before anything the workers record.

Wherever this is stopped, the next run goes on at the first line without a durable answer: what of
that step stood already is known by its exchange id, and comes to the same verdict.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from ksz_router.codes import Code
from ksz_router.daemon.mailbox_files import Lines, append_answers
from ksz_router.daemon.mailbox_lines import HEADING, ROW_MALFORMED, Answered, request_of
from ksz_router.daemon.mailbox_record import MailboxRecord
from ksz_router.daemon.mailbox_step import Clocks, StepWork
from ksz_router.daemon.pacer import Pacer
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.traffic import Traffic
from ksz_router.directory.mailbox import Mailbox, State
from ksz_router.directory.mailbox_form import RowMalformed
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.limits import (
    mailbox_rests_hours_max,
    mailbox_step_lines_max,
    mailbox_step_lines_min,
    mailbox_step_seconds_alone,
    mailbox_step_seconds_beside,
    mailbox_transaction_lines_beside,
)
from ksz_router.messages import Request
from ksz_router.privacylog import PrivacyLogError
from ksz_router.rulebook.activation import active, verify
from ksz_router.rulebook.generation import RulebookError

_HOUR_MS = 3_600_000


class Step(NamedTuple):
    """What a turn came to, which is a step or a part of one."""

    mailbox: Mailbox
    """After it."""
    lines: int
    """That have their verdict by it; 0 before the last turn of a step."""
    seconds: float
    rest_s: float
    """How long the machine is to be left to others before the next one."""


class Rulebook(NamedTuple):
    """Where the rulebook and what goes with it is, and whom of it the directory belongs to."""

    store: Path
    signer: Path
    sectoral: Path
    """The directories of secondary networks."""
    own_uri: str
    """SAN URI of the institution that keeps the directory."""


class Manners(NamedTuple):
    """When a step is followed by a rest, and how long it is."""

    pacer: Pacer
    """Of the thread that does the steps."""
    traffic: Traffic


class MailboxLane:
    """Applies mailboxes. For one thread at a time, which uses the writer alone meanwhile.

    Args:
        mailboxes: That wait.
        writer: Of the directory.
        record: The slot of the privacy log.
        manners: Towards who is served meanwhile.
    """

    def __init__(
        self,
        mailboxes: Mailboxes,
        writer: Writer,
        record: MailboxRecord,
        rulebook: Rulebook,
        clocks: Clocks,
        *,
        manners: Manners,
    ) -> None:
        self._mailboxes = mailboxes
        self._writer = writer
        self._record = record
        self._rulebook = rulebook
        self._clocks = clocks
        self._manners = manners
        self._tables: Tables | None = None
        self._mailbox: Mailbox | None = None
        self._lines: Lines | None = None
        self._again_until = 0
        """Lines up to here may have been under way when an earlier run was stopped."""
        self._work: StepWork | None = None
        """The step that is under way: recorded, and not applied to its end."""
        self._answered: dict[int, Answered] = {}
        """Lines of it that were refused before the control."""
        self._step_lines = mailbox_step_lines_min
        self._step_s = 0.0
        self.changes_come = False
        """Online changes, which wait for a turn."""
        self.has_waited = False
        """Others wait, and have for so long that a whole step is due."""

    def step(self) -> Step | None:
        """Do the next turn; None where no mailbox waits. What it did is durable on return. Blocks.

        Raises:
            PrivacyLogError: nothing can be recorded now.
            RulebookError: no rulebook can be loaded.
            DirectoryError: the directory cannot be written or read.
            OSError: the files of the mailbox cannot be.
        """
        began_ns = self._clocks.monotonic_ns()
        self._manners.pacer.begin()
        mailbox = self._mailbox or self._mailboxes.next_waiting()
        if mailbox is None:
            return None
        self._look_around(mailbox)
        try:
            if self._work is None:
                mailbox, self._work = self._begin(mailbox)
            done = mailbox if self._goes_on(self._work) else self._end(mailbox, self._work)
        except BaseException:
            self.give_up()
            raise
        self._mailbox = done
        if done.state is State.DONE:
            self._leave(done)
        seconds = (self._clocks.monotonic_ns() - began_ns) / 1e9
        self._step_s += seconds
        lines = done.lines_done - mailbox.lines_done
        if self._work is None:
            self._pace(lines)
        return Step(done, lines, seconds, self._manners.pacer.due_s())

    @property
    def slot_folder(self) -> Path:
        """Where the entries of the lines are."""
        return self._record.folder

    def give_up(self) -> None:
        """Forget what was under way, as a kill does: the next step takes it up anew."""
        self._mailbox = None
        if self._lines is not None:
            self._lines.close()
        self._lines = self._work = None
        self._record.give_up()

    def close(self) -> None:
        """End between two steps: one that is under way is done. The rest is the caller's to close.

        Where it cannot be done it is left as by a kill, and the next run settles it.
        """
        self.has_waited = True
        with contextlib.suppress(PrivacyLogError, DirectoryError, OSError):
            if self._work is not None:
                self.step()
        if self._lines is not None:
            self._lines.close()
        self._record.close()
        if self._tables is not None:
            self._tables.close()

    def _look_around(self, mailbox: Mailbox) -> None:
        """Give way to whoever is served, unless the mailbox waits too long for it."""
        waited_ms = self._clocks.wall_ns() // 1_000_000 - mailbox.complete_ms
        may_rest = waited_ms < mailbox_rests_hours_max * _HOUR_MS
        self._manners.pacer.gives_way = may_rest and self._manners.traffic.is_there()

    def _up_to_date(self) -> Tables:
        """The tables, with the rulebook that is active now."""
        store = self._rulebook.store
        name = active(store)
        if self._tables is not None and self._tables.generation == name:
            return self._tables
        verify(store, name, self._rulebook.signer)
        if self._tables is None:
            self._tables = Tables(
                store, name, self._writer, self._record.entries, self._rulebook.sectoral
            )
        else:
            self._tables.adopt(self._tables.open(name))
        return self._tables

    def _take_up(self, mailbox: Mailbox) -> Mailbox:
        taken = self._mailboxes.take_up(mailbox, self._clocks.wall_ns() // 1_000_000)
        self._lines = Lines(self._mailboxes.lines_file(taken), taken.offset)
        # The step that a kill may have stopped was never larger than the largest.
        self._again_until = taken.lines_done + mailbox_step_lines_max if taken.runs > 1 else 0
        return taken

    def _begin(self, mailbox: Mailbox) -> tuple[Mailbox, StepWork]:
        """Judge and record the next lines, of the mailbox that is or is now taken up."""
        self._record.make_ready()
        tables = self._up_to_date()
        own = tables.kbo_of(self._rulebook.own_uri)
        if own is None:
            raise RulebookError(
                f"{self._rulebook.own_uri}: no institution of the rulebook has this SAN URI; "
                "see [directory] certificate"
            )
        if self._lines is None:
            mailbox = self._take_up(mailbox)
        assert self._lines is not None, "taken up"
        answered: dict[int, Answered] = {}
        requests: dict[int, Request] = {}
        found = self._lines.take(min(self._step_lines, mailbox.lines - mailbox.lines_done))
        for line, data in enumerate(found, mailbox.lines_done + 1):
            try:
                requests[line] = request_of(mailbox, line, data)
            except RowMalformed:
                answered[line] = Answered(Code.FIELD_MALFORMED, ROW_MALFORMED)
        is_again = mailbox.lines_done < self._again_until
        work = StepWork(mailbox, own, self._record, self._clocks, is_again=is_again)
        judged = work.judged(requests, tables)
        if waits := work.independent(judged):
            self._lines.keep(waits - mailbox.lines_done - 1)
            judged = {line: exchange for line, exchange in judged.items() if line < waits}
            answered = {line: answer for line, answer in answered.items() if line < waits}
        if answered:  # refused before the control, so counted, as on the wire
            counts = {Code.FIELD_MALFORMED: len(answered)}
            self._record.recorder.submit([self._record.entries.summary(mailbox.kbo, counts)])
        work.record(judged)
        self._answered = answered
        return mailbox, work

    def _goes_on(self, work: StepWork) -> bool:
        """Apply what belongs into a turn; say whether more is left to apply."""
        gives_way = self._manners.pacer.gives_way
        most = mailbox_transaction_lines_beside if gives_way else mailbox_step_lines_max
        is_left = work.apply(self._writer, most)
        while is_left and self.has_waited:
            is_left = work.apply(self._writer, most)
        return is_left

    def _end(self, mailbox: Mailbox, work: StepWork) -> Mailbox:
        answered = self._answered | work.settled(self._writer)
        self._work = None
        return self._answer(mailbox, [(line, answered[line]) for line in sorted(answered)])

    def _answer(self, mailbox: Mailbox, answered: list[tuple[int, Answered]]) -> Mailbox:
        assert self._lines is not None
        done = mailbox.lines_done + len(answered)
        text = "".join([answer.text(line) for line, answer in answered])
        if not mailbox.answer_bytes:
            text = HEADING + text
        is_last = done == mailbox.lines
        if is_last:
            text += f"end,{mailbox.lines}\n"
        file = self._mailboxes.answers_file(mailbox)
        applied = sum(1 for _, answer in answered if answer.version)
        return self._mailboxes.note(
            replace(
                mailbox,
                lines_done=done,
                offset=self._lines.offset,
                answer_bytes=append_answers(file, mailbox.answer_bytes, text),
                applied=mailbox.applied + applied,
                refused=mailbox.refused + len(answered) - applied,
                state=State.DONE if is_last else State.WAITING,
                done_ms=self._clocks.wall_ns() // 1_000_000 if is_last else 0,
            )
        )

    def _leave(self, mailbox: Mailbox) -> None:
        if self._lines is not None:
            self._lines.close()
        self._lines = self._mailbox = None
        self._mailboxes.forget_lines(mailbox)

    def _pace(self, lines: int) -> None:
        """Make the next step one of about the time that it may take; twice as large at most."""
        seconds, self._step_s = self._step_s, 0.0
        if lines < self._step_lines or seconds <= 0:
            return  # a last one says little of those that come
        is_beside = self.changes_come or self._manners.pacer.gives_way
        wanted = mailbox_step_seconds_beside if is_beside else mailbox_step_seconds_alone
        fitting = int(self._step_lines * min(2.0, wanted / seconds))
        self._step_lines = min(max(fitting, mailbox_step_lines_min), mailbox_step_lines_max)
