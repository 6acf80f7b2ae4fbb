"""One case that passes the control, in a world so small that things coincide."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

from msgspec.structs import replace

from ksz_router.codes import Code
from ksz_router.decision import Facts, Forward, Refusal, decide
from ksz_router.identifiers import Kbo, is_insz
from ksz_router.messages import Request
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    AccessRight,
    Availability,
    Day,
    Direction,
    Grant,
    Institution,
    Kind,
    Line,
    NumberStatus,
    Role,
    Service,
    Subject,
)
from ksz_router.persons import Person, pack_lines

TODAY: Day = 20260315
YESTERDAY: Day = 20260314
TOMORROW: Day = 20260316
BEGIN: Day = 20260101
CALLER, MEMBER, SOURCE, OTHER_SOURCE, STRANGER = map(
    Kbo, ("0566988259", "0999999922", "1000000021", "1999999943", "1000002197")
)
ASKED, NEWER, USER, PROGRAM = "85493099737", "85073099734", "01520599842", "00901234567"
WELFARE, MANAGING = Role(17, 1), Role(17, 0)
JOBS, INSURERS = Role(18, 0), Role(11, 1)
NETWORK = "welfare"
FRAMEWORK = "SOCIAL_INQUIRY"

PERIODS = [
    (BEGIN, OPEN), (BEGIN, TOMORROW), (TODAY, TODAY), (BEGIN, YESTERDAY), (TOMORROW, OPEN),
]  # fmt: skip
LINES = [
    Line(sector, kind, capacity, phase, *period)
    for sector, kind, capacity, phase, period in product(
        (17, 18, 11), (0, 1, ANY_TYPE), (1, 2, PROVISIONAL), (0, 1, 2), PERIODS
    )
]
KNOWN_DURING = [
    [(BEGIN, OPEN)],
    [(BEGIN, YESTERDAY), (TODAY, OPEN)],
    [(TODAY, OPEN), (BEGIN, TODAY)],
    [(BEGIN, TOMORROW)],
    [(TODAY, TODAY)],
    [(BEGIN, YESTERDAY), (TOMORROW, OPEN)],
]
"""Periods in which somebody knows a person; the last one leaves a gap today."""

ASKED_PERIODS = [
    (None, None), (TODAY, None), (TODAY, TODAY), (BEGIN, TODAY), (YESTERDAY, TOMORROW),
    (TODAY, 20260331), (BEGIN, None), (TOMORROW, None),
]  # fmt: skip


class Case(NamedTuple):
    """What :func:`decide` is given."""

    request: Request
    facts: Facts
    today: Day = TODAY

    def asking(self, **changes: Any) -> "Case":
        """Return this case with another request."""
        return self._replace(request=replace(self.request, **changes)).knowing()

    def knowing(self, **changes: Any) -> "Case":
        """Return this case with other facts; under what is no number no directory has anything."""
        number = self.request.person
        if number is not None and not is_insz(number):
            changes["person"] = None
        return self._replace(facts=replace(self.facts, **changes))

    def serving(self, **changes: Any) -> "Case":
        """Return this case with another service."""
        assert self.facts.service is not None
        return self.knowing(service=replace(self.facts.service, **changes))

    def granting(self, **changes: Any) -> "Case":
        """Return this case with every grant changed."""
        return self.knowing(grants=tuple(replace(row, **changes) for row in self.facts.grants))

    def supplying(self, **changes: Any) -> "Case":
        """Return this case with every source changed."""
        return self.knowing(sources=tuple(replace(row, **changes) for row in self.facts.sources))

    def permitting(self, **changes: Any) -> "Case":
        """Return this case with every access right changed."""
        return self.knowing(rights=tuple(replace(row, **changes) for row in self.facts.rights))

    def with_lines(self, *lines: Line) -> "Case":
        """Return this case with other lines of the person."""
        assert self.facts.person is not None
        return self.knowing(person=replace(self.facts.person, packed=pack_lines(lines)))


Change = Callable[[Case], Case]


def line(role: Role, capacity: int, begin: Day = BEGIN, end: Day = OPEN, phase: int = 1) -> Line:
    """Return a line of a role."""
    return Line(role.sector, role.type, capacity, phase, begin, end)


def grant(name: str, direction: Direction = Direction.REQUEST, **fields: Any) -> Grant:
    """Return a grant for the one service there is."""
    return Grant(id=name, direction=direction, service="Jobs/get", version=1, **fields)


def plain_case() -> Case:
    """Path A: a welfare centre asks the job office about a person both know; it passes."""
    row = grant("g1", role=WELFARE, capacities=frozenset({1, 2}), phase=1, basis="26/001")
    return Case(
        Request(
            id=1, service="Jobs/get", version=1, ticket="t", user=USER, sector=17, type=1,
            capacity=2, person=ASKED,
        ),
        Facts(
            caller=Institution(
                kbo=CALLER, name="centre", roles=(WELFARE, MANAGING), members=(MEMBER,),
                secondary_network=NETWORK,
            ),
            member=None,
            service=Service(
                name="Jobs/get", version=1, kind=Kind.CONSULTATION, subject=Subject.PERSON,
                payload_bytes_max=10,
            ),
            rights=(AccessRight(kbo=CALLER),),
            grants=(row,),
            person=Person(
                NumberStatus.ACTIVE, ASKED, NumberStatus.ACTIVE,
                pack_lines((line(WELFARE, 2), line(JOBS, 1))),
            ),
            sources=(
                Availability(
                    service="Jobs/get", version=1, kbo=SOURCE, role=JOBS,
                    receive=(grant("r1", Direction.RECEIVE),), secondary_network=NETWORK,
                ),
            ),
        ),
    )  # fmt: skip


def code_of(case: Case) -> Code | None:
    """The code of the refusal, or None where the case passes."""
    verdict = decide(*case)
    return verdict.code if isinstance(verdict, Refusal) else None


def forward(case: Case) -> Forward:
    verdict = decide(*case)
    assert isinstance(verdict, Forward), verdict
    return verdict
