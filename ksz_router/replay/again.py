"""Decide again on one entry, and say where the verdict differs. Pure."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.days import brussels_day
from ksz_router.decision import Facts, Verdict, decide, stand
from ksz_router.messages import Request
from ksz_router.model import OPEN, Availability, Day
from ksz_router.privacylog.entry import Entry
from ksz_router.replay.asked import KNOWN, said
from ksz_router.replay.compare import Difference, differences, insufficient, problem, taken_from
from ksz_router.replay.persons import (
    KNOWN_TO_ONE,
    Lines,
    Period,
    Search,
    broken_own,
    own_lines,
    person_with,
    wishes,
)
from ksz_router.replay.recorded import (
    PastRequest,
    Variant,
    variants,
    with_sources,
    with_withheld,
)
from ksz_router.replay.seldom import sectoral, with_periods

LookUp: TypeAlias = Callable[[Request, int], Facts]
"""What the archived rulebook said at a moment (Unix milliseconds), without the person."""

JUDGED_WITHIN_MS = 5_000
"""An entry bears the moment at which it was made; it was decided on this long before at most. Only
where a day, or an outage, begins or ends in between does that make a difference."""

DECIDED_MAX = 20_000
"""How often the control is asked for one entry, before a replay gives up."""


class State(Enum):
    """What came of a replay."""

    SAME = "same"
    DIFFERS = "differs"
    """The alarm: the archived rulebook does not come to what is recorded."""
    NOT_DECIDED = "not decided"
    """The record or the archive does not hold what a replay needs."""


class Replayed(NamedTuple):
    """What came of the replay of one entry."""

    entry: Entry
    state: State
    differences: tuple[Difference, ...] = ()
    taken: tuple[str, ...] = ()
    """What was taken from the record, or follows from its code alone."""
    why: str = ""
    """Why it could not be decided."""

    def __repr__(self) -> str:
        return f"Replayed({self.state.name}, {len(self.differences)} differences)"


class _GaveUpError(Exception):
    pass


class _Found(NamedTuple):
    differences: tuple[Difference, ...]
    taken: tuple[str, ...]


def decide_again(recorded: PastRequest, look_up: LookUp) -> Replayed:
    """Decide again on what an entry of kind REQUEST records.

    Args:
        recorded: The entry, and the numbers that its tokens stand for.
        look_up: The generation that the entry names.
    """
    entry = recorded.entry
    if (impossible := problem(entry)) is not None:
        return Replayed(entry, State.DIFFERS, (impossible,))
    if reason := insufficient(entry):
        return Replayed(entry, State.NOT_DECIDED, why=reason)
    best: _Found | None = None
    at_ms = entry.at_us // 1000
    try:
        control = _Control()
        for moment in (at_ms, at_ms - JUDGED_WITHIN_MS):
            for found in _attempts(recorded, look_up, moment, control):
                if not found.differences:
                    return Replayed(entry, State.SAME, taken=found.taken)
                if best is None or len(found.differences) < len(best.differences):
                    best = found
    except _GaveUpError:
        reason = f"no facts were found under which it holds, in {DECIDED_MAX} tries"
        return Replayed(entry, State.NOT_DECIDED, why=reason)
    assert best is not None, "there is one attempt at least"
    return Replayed(entry, State.DIFFERS, best.differences, best.taken)


class _Control:
    """The control, and how often it was asked."""

    def __init__(self) -> None:
        self._left = DECIDED_MAX

    def decide(self, request: Request, facts: Facts, today: Day) -> Verdict:
        if not self._left:
            raise _GaveUpError
        self._left -= 1
        return decide(request, facts, today)


def _attempts(
    recorded: PastRequest, look_up: LookUp, at_ms: int, control: _Control
) -> Iterator[_Found]:
    entry, today = recorded.entry, brussels_day(at_ms * 1_000_000)
    for first in variants(recorded):
        facts = look_up(first.request, at_ms)
        kbos = tuple(dict.fromkeys(row.kbo for row in facts.sources))
        for plain in with_withheld(first, entry, facts.rights):
            for variant in with_sources(plain, entry, kbos):
                for likely in with_periods(variant, entry, facts.sources):
                    for attempted in _with_persons(recorded, likely, facts, today, control):
                        verdict = control.decide(likely.request, attempted, today)
                        taken = (*likely.taken, *taken_from(entry, verdict))
                        yield _Found(differences(entry, verdict), taken)


def _with_persons(
    recorded: PastRequest, variant: Variant, facts: Facts, today: Day, control: _Control
) -> Iterator[Facts]:
    """The facts of the rulebook, with what the directory may have said."""
    entry, request, service = recorded.entry, variant.request, facts.service
    is_early = entry.code and Code(entry.code).stage < Stage.OWN_INTEGRATION
    standing = None if is_early or recorded.person is None else stand(request, facts, today)
    if standing is None or service is None or not standing.is_clear:
        yield facts
        return
    period = Period(today, today)
    if request.begin is not None:
        period = Period(request.begin, OPEN if request.end is None else request.end)
    rows = [source.row for source in standing.sources]
    rows = [row for row in rows if request.source in (None, row.kbo)]
    out = frozenset(outage.kbo for outage in facts.outages)

    def ask(lines: Lines, sources: Sequence[Availability]) -> Verdict:
        asked = msgspec.structs.replace(
            facts,
            sources=tuple(sources),
            outages=(),
            person=person_with(recorded, lines),
            sectoral=dict.fromkeys(standing.networks, lines),
            answers=KNOWN,
        )
        return control.decide(request, asked, today)

    search = Search(ask, rows, broken_own(entry), period)
    kbos = list(dict.fromkeys(row.kbo for row in rows))
    # Where no facts can be such as is recorded, one attempt says in what it differs.
    for own in list(own_lines(entry, standing, period)) or [()]:
        for wished in list(wishes(entry, service.kind, kbos, out, standing.acting.kbo)) or [{}]:
            lines = search.lines(own, wished)
            is_unheard = entry.code in KNOWN_TO_ONE
            for tried in search.one_more(lines) if is_unheard else (lines,):
                person = person_with(recorded, tried)
                for held in sectoral(entry, standing, tried):
                    plain = msgspec.structs.replace(
                        facts, person=person, sectoral=held, standing=standing
                    )
                    for answers in said(entry, standing, rows):
                        yield msgspec.structs.replace(plain, answers=answers)
