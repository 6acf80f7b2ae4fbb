"""What the directory may have said of a person, so that the record holds. Pure.

An entry keeps the one line that decided on the own integration, and nothing of what the sources
knew. The search makes up as little as it can: of each destination one line under which it knows the
person, chosen so that nobody else comes to know them by it who is not to.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from ksz_router.codes import Code
from ksz_router.days import next_day
from ksz_router.decision import Forward, Refusal, Standing, Verdict
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    Availability,
    Day,
    Kind,
    Line,
    Mode,
    NumberStatus,
)
from ksz_router.persons import Person, pack_lines
from ksz_router.privacylog.entry import Entry
from ksz_router.replay.recorded import PastRequest

Lines = tuple[Line, ...]

Ask = Callable[[Lines, Sequence[Availability]], Verdict]
"""What the control says where the directory holds these lines, and these are all the sources."""

_NO_DAY: Day = 0
_OWN_CODES = {Code.PERSON_NOT_INTEGRATED, Code.PHASE_TOO_LOW, Code.PERIOD_NOT_COVERED}
_OWN = "own:log:"
_WITHHELD_CODES = {Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY, Code.SECTORAL_DIRECTORY_DOWN}
KNOWN_TO_ONE = _WITHHELD_CODES | {Code.NO_RECIPIENT_MAY_RECEIVE}
"""Codes of which some source knew the person, and does not stand in the entry."""
_ABSENT_CODES = {Code.NO_SOURCE_KNOWS_THE_PERSON, Code.NO_RECIPIENT_MAY_RECEIVE}


class Wish(Enum):
    """What is to come of a source or recipient."""

    KNOWN = auto()
    VIOLATED = auto()
    """Put to although it does not know the person: its control mode is ``log``."""
    THERE = auto()
    """Put to, in either way."""
    ABSENT = auto()
    """Not put to."""


Wishes = dict[str, Wish]
"""By KBO number, in the order of asking; of whom it does not matter, nothing."""


class Period(NamedTuple):
    """The period asked, both days included."""

    begin: Day
    end: Day


def person_with(recorded: PastRequest, lines: Lines) -> Person | None:
    """Return the person in the state of their number that the entry tells."""
    code, current = recorded.entry.code, recorded.person
    if current is None or code == Code.PERSON_UNKNOWN:
        return None
    status = current_status = NumberStatus.ACTIVE
    if code == Code.PERSON_CANCELLED:
        status = current_status = NumberStatus.CANCELLED
    elif code == Code.PERSON_DECEASED:
        status = current_status = NumberStatus.DECEASED
    if recorded.asked is not None or code == Code.PERSON_REPLACED:
        status = NumberStatus.REPLACED
    return Person(status, current, current_status, pack_lines(lines))


def own_lines(entry: Entry, standing: Standing, period: Period) -> Iterator[Lines]:
    """Return the lines under which the requester knew the person, or did not, as recorded."""
    own, grant = standing.own, standing.grant
    if entry.line is not None:
        yield _with_rest(entry.line, period.end)
        return
    if own is None or grant is None or entry.code == Code.PERSON_UNKNOWN:
        yield ()
        return
    broken = broken_own(entry)
    if not entry.code or broken == Code.PERSON_NOT_INTEGRATED:
        if broken in (None, Code.PERSON_NOT_INTEGRATED):
            yield ()
            return
    elif grant.own_mode is Mode.LOG and broken is None:
        yield ()  # it passed, known or not
    phase, days = grant.phase, period
    if broken == Code.PHASE_TOO_LOW:
        phase -= 1
    elif broken == Code.PERIOD_NOT_COVERED:
        days = Period(_NO_DAY, _NO_DAY)
    if phase >= 0:
        for sector, kind in sorted(own.files):
            for capacity in sorted(own.capacities or ()):
                yield (Line(sector, kind, capacity, phase, days.begin, days.end),)


def broken_own(entry: Entry) -> Code | None:
    """Return what the entry says was broken in the own integration, refused or logged."""
    if entry.code:
        return Code(entry.code) if entry.code in _OWN_CODES else None
    names = [name[len(_OWN) :] for name in entry.violations if name.startswith(_OWN)]
    return Code[names[0]] if names and names[0] in Code.__members__ else None


def wishes(
    entry: Entry, kind: Kind, kbos: Sequence[str], out: frozenset[str], acting: str
) -> Iterator[Wishes]:
    """Return what is to come of each source, in each way in which the entry may be meant.

    Args:
        entry: The record.
        kind: Of the service.
        kbos: Sources in force and in reach, in the order of asking.
        out: Those in an announced outage at that moment.
        acting: Who asks, and is never sent its own distribution.
    """
    code = entry.code
    if code in _WITHHELD_CODES:  # known to the primary directory: to one of them at least
        yield {}
        yield {kbo: Wish.THERE for kbo in kbos if kbo != acting}
        for one in kbos:
            yield {kbo: Wish.THERE if kbo == one else Wish.ABSENT for kbo in kbos}
    elif code in _ABSENT_CODES:
        yield dict.fromkeys(kbos, Wish.ABSENT)
    elif code == Code.TOO_MANY_RECIPIENTS:
        yield {kbo: Wish.THERE for kbo in kbos if kbo != acting}
    elif code == Code.ANNOUNCED_OUTAGE:
        yield {kbo: Wish.THERE if kbo in out else Wish.ABSENT for kbo in kbos if kbo != acting}
        for one in kbos:
            if one in out:
                yield {kbo: Wish.THERE if kbo == one else Wish.ABSENT for kbo in kbos}
    elif code:
        yield {}
    else:
        yield from _wishes_of_passed(entry, kind, kbos, out, acting)


def _wishes_of_passed(
    entry: Entry, kind: Kind, kbos: Sequence[str], out: frozenset[str], acting: str
) -> Iterator[Wishes]:
    violated = {
        name.rpartition(":")[2]
        for name in entry.violations
        if not name.startswith((_OWN, "sectoral:"))
    }
    sent = set(entry.destinations)
    wish = dict.fromkeys(sent, Wish.KNOWN) | dict.fromkeys(violated, Wish.VIOLATED)
    is_retry = is_told_elsewhere(entry)
    if kind is Kind.DISTRIBUTION:
        others = [kbo for kbo in kbos if kbo not in wish and kbo not in out and kbo != acting]
        if not is_retry:
            wish |= dict.fromkeys(others, Wish.ABSENT)
        yield {kbo: wish[kbo] for kbo in kbos if kbo in wish}
        if is_retry and not wish:
            yield from ({kbo: Wish.KNOWN} for kbo in others)
        return
    firsts = violated or (set(kbos) - out if is_retry else sent)
    for first in kbos:
        if first in firsts:
            before = kbos[: kbos.index(first)]
            found = {kbo: Wish.ABSENT for kbo in before if kbo not in out}
            found[first] = wish.get(first, Wish.KNOWN)
            # Where it went in an earlier attempt, which counts there.
            later = sent - {first}
            yield found | dict.fromkeys((k for k in kbos if k in later), Wish.THERE)


def is_told_elsewhere(entry: Entry) -> bool:
    """Say whether it is a submission whose recipients the ledger told, not the control alone."""
    return entry.content is not None and entry.attempt != 1


class Search:
    """Looks for lines of a person under which each source does as is wished.

    Args:
        ask: The control.
        rows: The sources in force and in reach, in the order of asking.
        own: What is to be broken in the own integration.
        period: The period asked.
    """

    def __init__(
        self, ask: Ask, rows: Sequence[Availability], own: Code | None, period: Period
    ) -> None:
        self._ask = ask
        self._own = own
        self._day = period.end
        self._rows: dict[str, list[Availability]] = {}
        for row in rows:
            self._rows.setdefault(row.kbo, []).append(row)
        taken = {capacity for row in rows for capacity in row.capacities}
        taken |= {c for row in rows for grant in row.receive for c in grant.capacities}
        self._free = next((c for c in range(PROVISIONAL) if c not in taken), 0)

    def lines(self, own: Lines, wished: Wishes) -> Lines:
        """Return these lines, and as many more as make the wishes come true where any do."""
        lines, met = own, {kbo for kbo in wished if self._is_met(kbo, wished[kbo], own)}
        for kbo, wish in wished.items():
            if kbo in met:
                continue
            for line in self._candidates(kbo):
                more = (*lines, line)
                if self._is_met(kbo, wish, more):
                    touched = [k for k in met if self._reaches(line, k)]
                    if all(self._is_met(k, wished[k], more) for k in touched):
                        lines, met = more, self._met(wished, more, met | {kbo}, line)
                        break
        return lines

    def one_more(self, lines: Lines) -> Iterator[Lines]:
        """Return these lines, then with each line under which some source may know the person."""
        yield lines
        for kbo in self._rows:
            yield from ((*lines, line) for line in self._candidates(kbo))

    def _met(self, wished: Wishes, lines: Lines, met: set[str], line: Line) -> set[str]:
        """One line may serve many: who share a role know the same persons."""
        more = {
            kbo
            for kbo, wish in wished.items()
            if kbo not in met and self._reaches(line, kbo) and self._is_met(kbo, wish, lines)
        }
        return met | more

    def _reaches(self, line: Line, kbo: str) -> bool:
        return any(row.role.sector == line.sector for row in self._rows.get(kbo, ()))

    def _is_met(self, kbo: str, wish: Wish, lines: Lines) -> bool:
        verdict = self._ask(lines, self._rows.get(kbo, ()))
        if isinstance(verdict, Refusal):
            return wish is Wish.ABSENT
        if wish is Wish.ABSENT or verdict.own_violation != self._own:
            return False
        return wish is Wish.THERE or _is_violated(verdict) is (wish is Wish.VIOLATED)

    def _candidates(self, kbo: str) -> Iterator[Line]:
        for row in self._rows.get(kbo, ()):
            received = {c for grant in row.receive for c in grant.capacities}
            capacities = sorted(row.capacities) or [self._free, *sorted(received), PROVISIONAL]
            for kind in (row.role.type, ANY_TYPE):
                for capacity in capacities:
                    yield Line(row.role.sector, kind, capacity, row.phase, self._day, self._day)


def _is_violated(verdict: Forward) -> bool:
    return bool(verdict.destinations) and verdict.destinations[0].violation


def _with_rest(line: Line, end: Day) -> Lines:
    """The deciding line holds the first day; other lines, not kept, may hold the days after it."""
    if line.end >= end:
        return (line,)
    rest = Line(
        line.sector, line.type, line.capacity, line.phase, next_day(line.end), min(end, OPEN)
    )
    return (line, rest)
