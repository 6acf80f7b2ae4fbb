"""Hypothesis strategies for the control, drawn from a world so small that things coincide.

A case begins as one that passes, in one of many ways, and is then spoilt at most twice. Drawn
evenly, fewer than one case in a thousand would get past the first rules. What is drawn are whole
rows from stocks made once: a case costs some twenty draws, so that thousands are tried in seconds.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from ksz_router.decision import SECONDARY_NETWORK, Question
from ksz_router.keepers import Keeper
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    AccessRight,
    Availability,
    Direction,
    FilledBy,
    Grant,
    Institution,
    Kind,
    Line,
    Mode,
    NumberStatus,
    Outage,
    Subject,
)
from ksz_router.persons import Person, pack_lines
from tests.plain_case import (
    ASKED,
    ASKED_PERIODS,
    CALLER,
    FRAMEWORK,
    INSURERS,
    JOBS,
    KNOWN_DURING,
    LINES,
    MANAGING,
    MEMBER,
    NETWORK,
    NEWER,
    OTHER_SOURCE,
    PROGRAM,
    SOURCE,
    STRANGER,
    TODAY,
    TOMORROW,
    WELFARE,
    YESTERDAY,
    Case,
    Change,
    grant,
    line,
    plain_case,
)


def person_states() -> list[Person]:
    """A person in every state, mostly one that passes; without lines."""
    own = [Person(state, ASKED, state) for state in NumberStatus if state != 1]
    own = [replace(row, deceased=20260201 if row.status == 3 else 0) for row in own]
    replaced = [Person(NumberStatus.REPLACED, NEWER, row.status, b"", row.deceased) for row in own]
    return [own[0]] * 4 + own + replaced * 2


def source_rows() -> list[Availability]:
    """Sources that differ from the one that fits in one or two respects."""
    good = plain_case().facts.sources[0]
    receiving = [
        (),
        *(
            (grant("r2", Direction.RECEIVE, capacities=frozenset(codes), end=end), *more)
            for codes, end, more in product(((), (1,), (2,)), (OPEN, YESTERDAY), ((), good.receive))
        ),
    ]
    changes: list[dict[str, Any]] = [
        *({"receive": rows} for rows in receiving),
        *({"capacities": frozenset(codes)} for codes in ((1,), (2,), (2, PROVISIONAL), (3,))),
        *({"phase": phase} for phase in (2, 3)),
        *({"begin": day} for day in (TODAY, TOMORROW)),
        *({"end": day} for day in (TODAY, YESTERDAY)),
        *({"mode": mode} for mode in Mode),
        *({"kbo": kbo} for kbo in (OTHER_SOURCE, CALLER)),
        {"role": INSURERS},
        {"secondary_network": ""},
        *({"data_end": day} for day in (YESTERDAY, TODAY)),
        *({"data_begin": day} for day in (TODAY, TOMORROW)),
        {"changes_only": True},
        {"is_sectoral": True},
    ]
    once = [replace(good, **change) for change in changes]
    twice = [replace(row, **change) for row in once for change in changes[-20:]]
    return [row for row in twice if _is_possible(row)]


def _is_possible(row: Availability) -> bool:
    """Whether a rulebook can hold this row: it refuses the others."""
    is_kept = bool(row.secondary_network) or not row.is_sectoral
    return is_kept and row.data_begin <= row.data_end


def access_rights() -> list[AccessRight]:
    """Access rights that lack nothing or one or two things."""
    good = AccessRight(kbo=CALLER, roles=(WELFARE,), services=frozenset({"Jobs/get"}))
    changes: list[dict[str, Any]] = [
        {}, {"kbo": STRANGER}, {"end": YESTERDAY}, {"begin": TOMORROW}, {"begin": TODAY},
        {"end": TODAY}, {"roles": (MANAGING,)}, {"roles": ()}, {"services": frozenset()},
        {"services": frozenset({"Jobs/set"})}, {"level": 1}, {"level": 2},
    ]  # fmt: skip
    return [replace(good, **(one | two)) for one in changes for two in changes]


def grants() -> list[Grant]:
    """Grants that lack nothing or one or two things."""
    changes: list[dict[str, Any]] = [
        {}, *[{"capacities": frozenset({1})}] * 4, {"end": YESTERDAY}, {"begin": TOMORROW},
        {"begin": TODAY}, {"end": TODAY}, {"basis_end": YESTERDAY}, {"basis_begin": TOMORROW},
        {"basis_begin": TODAY}, {"basis_end": TODAY}, {"phase": 2}, {"provisional": True},
        {"basis": SECONDARY_NETWORK}, {"own_mode": Mode.LOG}, {"own_mode": Mode.NONE},
        {"own_integration": False},
    ]  # fmt: skip
    return [
        replace(grant("g2", capacities=frozenset({2}), phase=1), **(one | two))
        for one in changes
        for two in changes
    ]


lines = st.lists(st.sampled_from(LINES), max_size=2)
kinds = st.sampled_from(
    [
        {"kind": kind, "follow_replaced": follows, "refuse_deceased": refuses}
        for kind, follows, refuses in product(Kind, (True, False), (True, False))
    ]
    + [
        {"kind": kind, "follow_replaced": False, "refuse_deceased": False, "any_number": True}
        for kind in Kind
    ]
)
paths: st.SearchStrategy[Change] = st.sampled_from(
    [
        lambda case: case,
        lambda case: case,
        lambda case: path_b(case, own_integration=True),
        lambda case: path_b(case, own_integration=False),
        lambda case: path_b(case, own_integration=True).asking(sector=None, type=None),
    ]
)
actors: st.SearchStrategy[Change] = st.sampled_from(
    [
        lambda case: case,
        lambda case: case.asking(kbo=CALLER),
        lambda case: for_member(case).asking(member=MEMBER),
        lambda case: for_member(case).asking(member=MEMBER, kbo=MEMBER),
        lambda case: for_member(case).asking(kbo=MEMBER),
    ]
)
asked_periods = st.sampled_from(ASKED_PERIODS)
known_during = st.sampled_from(KNOWN_DURING)
states = st.sampled_from(person_states())
rows_of_sources = st.lists(st.sampled_from(source_rows()), max_size=2)
grant_modes = st.sampled_from(
    [
        {"provisional": provisional, "own_mode": mode}
        for provisional, mode in product((False, True), (*Mode, Mode.BLOCK))
    ]
)


def path_b(case: Case, *, own_integration: bool) -> Case:
    """Return the case on path B."""
    case = case.granting(framework=FRAMEWORK, own_integration=own_integration)
    return case.asking(capacity=None, legal_framework=FRAMEWORK)


def for_member(case: Case) -> Case:
    """Return the case with the row of the member that the caller manages."""
    network = case.facts.caller.secondary_network if case.facts.caller is not None else ""
    member = Institution(kbo=MEMBER, name="member", roles=(WELFARE,), secondary_network=network)
    return case.knowing(member=member)


@st.composite
def persons(draw: st.DrawFn) -> Person:
    """Persons in every state, known in many ways to the requester and the sources."""
    found = [
        *(line(WELFARE, 2, *period) for period in draw(known_during)),
        *(line(JOBS, 1, *period) for period in draw(known_during)),
        *draw(lines),
    ]
    return replace(draw(states), packed=pack_lines(found[:: draw(st.sampled_from([1, -1]))]))


@st.composite
def passing_cases(draw: st.DrawFn) -> Case:
    """Cases of every kind, path, subject and period; most of them pass."""
    case = draw(actors)(draw(paths)(plain_case().serving(**draw(kinds))))
    begin, end = draw(asked_periods)
    case = case.asking(begin=begin, end=end).granting(**draw(grant_modes))
    good = case.facts.sources[0]
    case = case.knowing(person=draw(persons()), sources=(*draw(rows_of_sources), good))
    is_test = case.facts.service is not None and case.facts.service.kind is Kind.TEST
    if is_test or draw(st.integers(0, 7)) == 0:
        case = case.serving(subject=Subject.NONE).asking(person=None)
    return case


def _changes(change: Callable[..., Case], field: str, values: Iterable[Any]) -> list[Change]:
    return [lambda case, value=value: change(case, **{field: value}) for value in values]  # type: ignore[misc]


def _caller(case: Case, **changes: Any) -> Case:
    caller = case.facts.caller
    return case.knowing(caller=None if caller is None else replace(caller, **changes))


def _member(case: Case, **changes: Any) -> Case:
    member = for_member(case).facts.member
    assert member is not None
    return case.knowing(member=replace(member, **changes))


def _service(case: Case, **changes: Any) -> Case:
    return case if case.facts.service is None else case.serving(**changes)


def _lines(case: Case, **changes: Any) -> Case:
    person = case.facts.person
    if person is None:
        return case
    changed = (replace(row, **changes) for row in person.lines)
    return case.with_lines(*(row for row in changed if row.begin <= row.end))


def _holding(case: Case, **changes: Any) -> Case:
    changed = case.supplying(**changes)
    return changed if all(map(_is_possible, changed.facts.sources)) else case


_KBO_WORDS = [None, CALLER, MEMBER, SOURCE, STRANGER, "rubbish"]
_REQUEST_WORDS: dict[str, list[Any]] = {
    "service": [""],
    "sector": [None, 18],
    "type": [None, 0, 7],
    "kbo": _KBO_WORDS,
    "member": _KBO_WORDS,
    "capacity": [None, 0, 1, PROVISIONAL, 998, 999, -1],
    "legal_framework": [None, FRAMEWORK, "", "x" * 64, "x" * 65, "a\nb"],
    "person": [None, "85493099738", "", "٨" * 11],
    "enterprise": [STRANGER, "rubbish"],
    "begin": [None, 20260230, 0, OPEN],
    "end": [TODAY, 20260230, YESTERDAY, OPEN],
    "user": [None, PROGRAM],
    "application": [PROGRAM, "x"],
    "ticket": ["", "t" * 36, "t" * 37, "é", "a\n"],
    "means": ["eID", "itsme", "m" * 32, "m" * 33, "é"],
    "level": [-1, 1, 4, 5],
    "final_client": [STRANGER, "rubbish"],
    "source": [SOURCE, OTHER_SOURCE, STRANGER, "rubbish"],
    "deadline_ms": [-1, 60_000, 60_001],
    "payload": [b"x" * 10, b"x" * 11, b"x" * 12],
    "unchanged": [True] * 3,
}
_OUTAGES = [
    tuple(Outage(kbo=kbo, begin_ms=0, end_ms=end_ms) for kbo, end_ms in rows)
    for rows in (
        [(SOURCE, 1)],
        [(SOURCE, 3), (OTHER_SOURCE, 2)],
        [(SOURCE, 2), (SOURCE, 5), (SOURCE, 3), (OTHER_SOURCE, 4)],
        [(OTHER_SOURCE, 1)],
    )
]

CHANGES_OF_REQUEST: list[Change] = [
    change
    for field, values in _REQUEST_WORDS.items()
    for change in _changes(Case.asking, field, values)
]
CHANGES_OF_FACTS: list[Change] = [
    *_changes(Case.knowing, "caller", [None]),
    *_changes(_caller, "begin", [TODAY, TOMORROW]),
    *_changes(_caller, "end", [TODAY, YESTERDAY]),
    *_changes(_caller, "roles", [()]),
    *_changes(_caller, "members", [()]),
    *_changes(_caller, "secondary_network", [""]),
    *_changes(Case.knowing, "member", [None]),
    *_changes(_member, "kbo", [STRANGER]),
    *_changes(_member, "begin", [TODAY, TOMORROW]),
    *_changes(_member, "end", [TODAY, YESTERDAY]),
    *_changes(Case.knowing, "service", [None] * 2),
    *_changes(_service, "subject", Subject),
    *_changes(_service, "filled_by", FilledBy),
    *_changes(_caller, "is_sectoral", [True] * 2),
    lambda case: case.supplying(is_sectoral=True, secondary_network=NETWORK),
    *_changes(Case.supplying, "changes_only", [True] * 3),
    *_changes(_holding, "data_end", [YESTERDAY] * 3),
    *_changes(_holding, "data_begin", [TOMORROW] * 2),
    *_changes(Case.knowing, "rights", [()]),
    *_changes(Case.permitting, "level", [1, 2]),
    *_changes(Case.permitting, "means", [frozenset({"eID"}), frozenset({"eID", "itsme"})]),
    *_changes(Case.knowing, "grants", [()] * 3),
    *_changes(Case.granting, "basis", [SECONDARY_NETWORK] * 2),
    *_changes(Case.granting, "phase", [2, 3]),
    *_changes(Case.knowing, "person", [None] * 3),
    *_changes(_lines, "phase", [0, 0, 0, 2]),
    *_changes(_lines, "sector", [17, 18]),
    *_changes(_lines, "type", [ANY_TYPE]),
    *_changes(_lines, "capacity", [1, 2, PROVISIONAL]),
    *_changes(_lines, "end", [YESTERDAY]),
    *_changes(Case.knowing, "sources", [()]),
    *_changes(Case.supplying, "receive", [()] * 4),
    *_changes(Case.supplying, "end", [YESTERDAY]),
    *_changes(Case.supplying, "phase", [3]),
    *_changes(Case.knowing, "outages", _OUTAGES * 2),
]
changes = st.sampled_from(CHANGES_OF_REQUEST + CHANGES_OF_FACTS * 2)
some_rights = st.lists(st.sampled_from(access_rights()), min_size=1, max_size=2)
some_grants = st.lists(st.sampled_from(grants()), min_size=1, max_size=2)
some_lines = st.lists(st.sampled_from(LINES), max_size=4)
counts = st.sampled_from([0, 1, 1, 2])


def in_network(case: Case, draw: st.DrawFn) -> Case:
    """Return the case where the network has a directory of its own, which holds much the same."""
    person = case.facts.person
    same = person.lines if person is not None else ()
    low = {NETWORK: tuple(replace(row, phase=0) for row in same)}
    late = {NETWORK: tuple(replace(row, begin=TOMORROW) for row in same if row.end >= TOMORROW)}
    held: list[Mapping[str, tuple[Line, ...]] | None] = [
        {NETWORK: same}, {NETWORK: same}, {NETWORK: ()}, {}, None, low, low, low, late, late, late,
        {NETWORK: tuple(row for row in same if row.sector == 17)},
        {NETWORK: tuple(row for row in same if row.sector != 17)},
    ]  # fmt: skip
    case = case.knowing(sectoral=draw(st.sampled_from(held)))
    if draw(st.integers(0, 3)):
        case = _caller(case, is_sectoral=True)
        member = case.facts.member
        if member is not None:
            case = case.knowing(member=replace(member, is_sectoral=True))
    if draw(st.booleans()):
        case = case.supplying(is_sectoral=True, secondary_network=NETWORK)
    return case


class Said(dict[Question, bool | None]):
    """What keepers say, by the institution they are asked about, whatever else is asked."""

    def __init__(self, *, own: bool | None, sources: Mapping[str, bool | None]) -> None:
        super().__init__()
        self.own, self.sources = own, sources

    def __contains__(self, _question: object) -> bool:
        return True

    def __getitem__(self, question: Question) -> bool | None:
        return self.own if question.is_whole else self.sources.get(question.institution, True)


KEEPER = Keeper(STRANGER, PROGRAM)
_ANSWERS = st.sampled_from([True, True, True, False, None])


def kept_elsewhere(case: Case, draw: st.DrawFn) -> Case:
    """Return the case where the directory of the network is asked for at its keeper."""
    case = _caller(case, keeper=KEEPER)
    member = case.facts.member
    if member is not None:
        case = case.knowing(member=replace(member, keeper=KEEPER))
    rows = [replace(n, keeper=KEEPER) if n.is_sectoral else n for n in case.facts.sources]
    said: dict[str, bool | None] = {
        SOURCE: draw(_ANSWERS),
        OTHER_SOURCE: draw(_ANSWERS),
        CALLER: draw(_ANSWERS),
    }
    return case.knowing(sources=tuple(rows), answers=Said(own=draw(_ANSWERS), sources=said))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case: one that mostly passes, with other rows in it or spoilt up to twice."""
    case = draw(passing_cases())
    match draw(st.integers(0, 9)):
        case 0:
            case = case.knowing(rights=tuple(draw(some_rights)))
        case 1:
            case = case.knowing(grants=tuple(draw(some_grants)))
        case 2:
            case = case.with_lines(*draw(some_lines))
        case 3:
            case = case.knowing(sources=tuple(draw(rows_of_sources)))
        case 4 | 5 | 7:
            case = in_network(case, draw)
        case 8 | 9:
            case = kept_elsewhere(in_network(case, draw), draw)
        case 6:
            case = case.supplying(changes_only=True).asking(unchanged=draw(st.booleans()))
    for _ in range(draw(counts)):
        case = draw(changes)(case)
    return case


@st.composite
def asking_cases(draw: st.DrawFn) -> Case:
    """Cases of which most cannot be decided on before a keeper was asked."""
    case = _caller(draw(passing_cases()), is_sectoral=True, secondary_network=NETWORK)
    member = case.facts.member
    if member is not None:
        case = case.knowing(member=replace(member, is_sectoral=True, secondary_network=NETWORK))
    rows = [
        replace(row, is_sectoral=draw(st.booleans()), secondary_network=NETWORK)
        for row in case.facts.sources
    ]
    case = kept_elsewhere(case.knowing(sources=tuple(rows)), draw)
    return draw(changes)(case) if draw(st.integers(0, 3)) == 0 else case
