"""A replay comes to what was decided, whatever was; and to nothing else than the rulebook says."""

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings

from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.opened import Exchange
from ksz_router.daemon.session import Session
from ksz_router.days import brussels_midnight_ns
from ksz_router.decision import Facts, Forward, Verdict, decide
from ksz_router.identifiers import Kbo, is_insz
from ksz_router.messages import Request
from ksz_router.model import Availability, Direction, Kind, Mode, Role
from ksz_router.privacylog.entry import WITHHELD, Entry, parse
from ksz_router.privacylog.keys import QuarterKeys, Tokens
from ksz_router.replay import again as again_module
from ksz_router.replay.again import Replayed, State, decide_again
from ksz_router.replay.recorded import PastRequest
from tests.plain_case import (
    JOBS,
    OTHER_SOURCE,
    SOURCE,
    TODAY,
    WELFARE,
    YESTERDAY,
    Case,
    grant,
    line,
    plain_case,
)
from tests.strategies import asking_cases, cases

KEYS = QuarterKeys(id="2026Q1-00000000", **{
    name: bytes([number]) * 32
    for number, name in enumerate(("frames", "store", "person", "user", "commit", "ticket"))
})  # fmt: skip
TOKENS = Tokens(KEYS)
often = settings(max_examples=5 * settings.default.max_examples)  # type: ignore[union-attr]


class Somebody:
    """The part of a session that an entry may look at."""

    uri = "urn:kbo:0999999999"


def entry_of(case: Case, verdict: Verdict) -> Entry:
    """The entry that the router makes of a case."""
    maker = EntryMaker(TOKENS, lambda: brussels_midnight_ns(case.today) // 1000 + 36_000_000_000)
    put_to = verdict.put_to if isinstance(verdict, Forward) else ()
    return parse(
        maker.request(
            Exchange(
                bytes(16), cast("Session", Somebody()), case.request, 0, 0, case.facts, verdict,
                "", tuple([found.kbo for found in put_to]),
            )
        )
    )  # fmt: skip


def recorded(entry: Entry) -> PastRequest:
    return PastRequest(
        entry,
        user=None if entry.user is None else TOKENS.user_number(entry.user),
        person=None if entry.person is None else TOKENS.person_number(entry.person),
        asked=None if entry.asked is None else TOKENS.person_number(entry.asked),
    )


def replayed(case: Case, entry: Entry) -> Replayed:
    def look_up(_request: Request, _at_ms: int) -> Facts:
        return msgspec.structs.replace(case.facts, person=None)

    return decide_again(recorded(entry), look_up)


@often
@given(cases() | asking_cases())
def test_whatever_was_decided_is_decided_again(case: Case) -> None:
    """No verdict raises a false alarm: there are facts under which each recorded one holds."""
    if case.request.person is None or not is_insz(case.request.person):
        case = case.knowing(person=None)  # as the directory does
    entry = entry_of(case, decide(*case))
    again = replayed(case, entry)
    assert again.state is State.SAME, (entry_text(entry), again.differences, again.why)


@pytest.mark.parametrize(
    ("after_ms", "state"), [(0, State.SAME), (4_900, State.SAME), (5_100, State.DIFFERS)]
)
def test_what_was_decided_just_before_midnight_may_be_recorded_just_after(
    after_ms: int, state: State
) -> None:
    """A grant that ended with the day; and not longer after than a turn may last."""
    case = plain_case().granting(end=YESTERDAY)._replace(today=YESTERDAY)
    entry = entry_of(case, decide(*case))
    assert entry.code == 0
    at_us = brussels_midnight_ns(TODAY) // 1000 + after_ms * 1000
    again = replayed(case, msgspec.structs.replace(entry, at_us=at_us))
    assert again.state is state


def test_a_search_that_finds_no_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as what it is: neither the same nor an alarm."""
    monkeypatch.setattr(again_module, "DECIDED_MAX", 1)
    case = plain_case()
    again = replayed(case, entry_of(case, decide(*case)))
    assert (again.state, again.differences) == (State.NOT_DECIDED, ())
    assert "no facts were found" in again.why


def test_what_was_withheld_is_looked_for_among_what_was_asked() -> None:
    """Means that hold as many digits as a number stand in no entry."""
    case = plain_case().permitting(means=frozenset({"token-123456789"}))
    case = case.asking(means="token-123456789")
    entry = entry_of(case, decide(*case))
    assert (entry.code, entry.means) == (0, WITHHELD)
    again = replayed(case, entry)
    assert again.state is State.SAME
    assert any("means were withheld" in note for note in again.taken)
    framework = msgspec.structs.replace(entry, legal_framework=WITHHELD, code=4001, stage=4)
    assert "legal framework was withheld" in replayed(case, framework).why


def supplied_by(case: Case, kind: Kind, *rows: Availability) -> Case:
    """The case with a service of a kind, and these sources."""
    receive = (grant("r", Direction.RECEIVE),)
    received = tuple(msgspec.structs.replace(row, receive=receive) for row in rows)
    return case.serving(kind=kind).knowing(sources=received)


def source(kbo: str, role: Role, *capacities: int) -> Availability:
    return Availability(
        service="Jobs/get", version=1, kbo=Kbo(kbo), role=role, capacities=frozenset(capacities)
    )


@pytest.mark.parametrize("kind", [Kind.CONSULTATION, Kind.SUBMISSION, Kind.DISTRIBUTION])
def test_a_line_is_sought_that_makes_nobody_else_a_destination(kind: Kind) -> None:
    """Two of one role: a line in a capacity that both take would lead to the other one first."""
    case = supplied_by(
        plain_case(), kind, source(SOURCE, JOBS, 1), source(OTHER_SOURCE, JOBS, 1, 2)
    ).with_lines(line(WELFARE, 2), line(JOBS, 2))
    entry = entry_of(case, decide(*case))
    assert entry.destinations == (OTHER_SOURCE,)
    again = replayed(case, entry)
    assert again.state is State.SAME
    assert not any("named" in note for note in again.taken), "nobody need have named it"


def test_a_line_is_sought_that_leaves_the_own_integration_broken() -> None:
    """The source has the requester's role: by most lines the requester would know the person."""
    case = supplied_by(plain_case(), Kind.CONSULTATION, source(SOURCE, WELFARE, 2, 5))
    case = case.granting(own_mode=Mode.LOG).with_lines(line(WELFARE, 5))
    entry = entry_of(case, decide(*case))
    assert entry.violations == ("own:log:PERSON_NOT_INTEGRATED",)
    assert replayed(case, entry).state is State.SAME


def entry_text(entry: Entry) -> dict[str, Any]:
    return msgspec.structs.asdict(entry)
