"""From a line of a mailbox to the request that it stands for, and to the verdict in its answer.

A line asks for what ``docs/directory-services.md`` lets one ask for online: it becomes that very
request, so that the control and the directory judge both alike.
"""

from functools import lru_cache
from typing import NamedTuple

from ksz_router.codes import Code
from ksz_router.daemon.directory_asked import REFUSALS, Broken, change_of
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.daemon.source import delivery_of
from ksz_router.decision import Forward
from ksz_router.directory.change import Change
from ksz_router.directory.mailbox import Mailbox
from ksz_router.directory.mailbox_form import RowMalformed, Work, row_of
from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import OPEN
from ksz_router.sdk.directory import (
    ADJUST,
    INSCRIBE,
    REGISTER,
    REMOVE,
    VERSION,
    Adjustment,
    Event,
    Inscription,
    Registration,
    Removal,
    What,
    encode,
)

HEADING = "line,outcome,code,reason,version\n"
"""Of an answer file."""

ROW_MALFORMED = "ROW_MALFORMED"
"""The line is no change: a cell is missing, too many, or out of range."""

_REMOVES = {
    Work.REMOVE_LINE: What.LINE,
    Work.REMOVE_PERIOD: What.PERIOD,
    Work.REMOVE_PERIOD_EVERYWHERE: What.PERIOD,
    Work.REMOVE_CAPACITY: What.CAPACITY,
    Work.REMOVE_ALL: What.ALL,
}


class Answered(NamedTuple):
    """What is answered to one line."""

    code: Code
    reason: str = ""
    version: int = 0
    """Of the directory, where a change was made."""

    def text(self, line: int) -> str:
        """The row of the answer file."""
        if self.version:
            return f"{line},applied,{self.code:d},,{self.version}\n"
        return f"{line},refused,{self.code:d},{self.reason},\n"


def request_of(mailbox: Mailbox, line: int, data: bytes) -> Request:
    """Return the request that a line stands for; its ticket is number and line, with a dot.

    Raises:
        RowMalformed: the line is no change.
    """
    row = row_of(data)
    service, payload = _asked(
        row.work, row.phase, row.line_begin, row.by, is_wide=row.is_sector_wide
    )
    return Request(
        id=0,
        service=service,
        version=VERSION,
        ticket=f"{mailbox.number}.{line}",
        application=mailbox.application,
        sector=mailbox.sector,
        type=mailbox.type,
        capacity=row.capacity,
        member=mailbox.member or None,
        person=row.insz,
        begin=row.begin or None,
        end=row.end if row.end != OPEN else None,
        payload=payload,
    )


@lru_cache(maxsize=16_384)
def _asked(
    work: Work, phase: int | None, line_begin: int, by: str, *, is_wide: bool
) -> tuple[str, bytes]:
    """Return service and payload.

    Raises:
        RowMalformed: a cell is filled in that does not belong to what is asked, or one is missing.
    """
    begin = line_begin or None
    removes = _REMOVES.get(work)
    is_inscribed, is_adjusted = work is Work.INSCRIBE, work is Work.ADJUST
    if is_inscribed and begin is None and not by:
        return INSCRIBE, encode(Inscription(phase=phase or 0, sector_wide=is_wide))
    if is_adjusted and phase is not None and not by:
        adjusted = Adjustment(phase=phase, line_begin=begin, sector_wide=is_wide)
        return ADJUST, encode(adjusted)
    if removes is not None and not by:
        is_everywhere = work is Work.REMOVE_PERIOD_EVERYWHERE
        removal = Removal(
            what=removes,
            line_begin=begin,
            phase=phase,
            every_capacity=is_everywhere,
            sector_wide=is_wide,
        )
        return REMOVE, encode(removal)
    is_of_register = not (is_inscribed or is_adjusted or removes)
    if is_of_register and phase is None and begin is None and not is_wide:
        return REGISTER, encode(Registration(event=Event(work.value), by=by))
    raise RowMalformed("a cell is filled in, or left empty, that must not be for this operation")


def change_in(exchange: Exchange, own: Kbo, now_ns: int) -> Change | Answered:
    """Return the change that a line asks for, after the control let it through.

    Args:
        exchange: Of the line.
        own: KBO number of the institution that keeps the directory.
        now_ns: Monotonic.
    """
    if exchange.destinations != (own,):
        return Answered(Code.SOURCE_UNREACHABLE, Code.SOURCE_UNREACHABLE.name)
    caller = exchange.facts.caller
    assert caller is not None, "it passed the control"
    try:
        return change_of(delivery_of(Errand(exchange, own, caller.kbo), now_ns))
    except Broken as broken:
        return refused(str(broken))


def refused(name: str) -> Answered:
    """Return the answer where a rule of the directory is broken."""
    assert name in REFUSALS, "every rule has its words"
    return Answered(Code.ANSWERED_WITHOUT_DATA, name)


def further_of(exchange: Exchange, current: str, other: str) -> tuple[str, ...]:
    """Return the numbers beside the one asked that a change concerned, as they are declared."""
    verdict = exchange.verdict
    assert isinstance(verdict, Forward)
    return tuple(number for number in (current, other) if number and number != verdict.person)
