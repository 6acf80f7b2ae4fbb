"""What the rules say of the requester and of whom it knows; ``control_table.py`` has the rest."""

from functools import cached_property

from ksz_router.codes import Code
from ksz_router.days import is_day
from ksz_router.decision import SECONDARY_NETWORK
from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.model import (
    ANY_TYPE,
    OPEN,
    PROVISIONAL,
    AccessRight,
    Availability,
    Day,
    Grant,
    Institution,
    Kind,
    Line,
    Mode,
    NumberStatus,
    Role,
    Subject,
)
from tests.plain_case import Case

CALENDAR = [
    *(20260000 + month * 100 + day for month in (1, 3) for day in range(1, 32)),
    *(20260200 + day for day in range(1, 29)),
    20260401,
    OPEN,
]
"""Every day on which a period of a case may begin or end, and one in each gap between them."""


def days_of(begin: Day, end: Day) -> set[Day]:
    return {day for day in CALENDAR if begin <= day <= end}


class Requester:
    """One case, and what the rules say of who asks, and of the person."""

    def __init__(self, case: Case) -> None:
        self.request, self.facts, self.today = case

    def in_force(self, row: Institution | Grant | AccessRight | Availability | None) -> bool:
        return row is not None and self.today in days_of(row.begin, row.end)

    # Who acts.

    @cached_property
    def named(self) -> str:
        """The institution named as acting, the caller where none is."""
        assert self.facts.caller is not None
        given = [self.request.member, self.request.kbo, self.facts.caller.kbo]
        return next(kbo for kbo in given if kbo is not None)

    @property
    def may_act_as(self) -> set[str | None]:
        assert self.facts.caller is not None
        return {None, self.facts.caller.kbo, *self.facts.caller.members}

    @cached_property
    def acting(self) -> Institution | None:
        """The row of who acts; None where there is none in force."""
        rows = [self.facts.caller, self.facts.member]
        found = [row for row in rows if row is not None and row.kbo == self.named]
        return next(filter(self.in_force, found), None)

    @cached_property
    def role(self) -> Role | None:
        sector, kind = self.request.sector, self.request.type
        return None if sector is None or kind is None else Role(sector, kind)

    # What is asked.

    @property
    def kind(self) -> Kind:
        assert self.facts.service is not None
        return self.facts.service.kind

    @cached_property
    def malformed(self) -> bool:
        r = self.request
        texts = {"ticket": (r.ticket, 1, 36), "means": (r.means, 0, 32)}
        return not (
            (r.sector is None) == (r.type is None)
            and all(
                least <= len(text) <= most and all(" " <= sign <= "~" for sign in text)
                for text, least, most in texts.values()
            )
            and (self.kind is Kind.TEST or {r.user, r.application} != {None})
            and (r.user is None or is_insz(r.user))
            and (r.application is None or is_application(r.application))
            and r.level in range(5)
            and (r.capacity is None or r.capacity in range(999))
            and (
                r.legal_framework is None
                or (0 < len(r.legal_framework) <= 64 and r.legal_framework.isprintable())
            )
            and all(kbo is None or is_kbo(kbo) for kbo in (r.final_client, r.enterprise, r.source))
            and r.deadline_ms in range(60_001)
        )

    @cached_property
    def path_is_not_one(self) -> bool:
        a, b = self.request.capacity is not None, self.request.legal_framework is not None
        return self.kind is not Kind.TEST and ({a, b} != {True, False} or (a and not self.role))

    @cached_property
    def subject_is_another(self) -> bool:
        assert self.facts.service is not None
        given = {
            Subject.PERSON: self.request.person is not None,
            Subject.ENTERPRISE: self.request.enterprise is not None,
        }
        return any(
            is_given != (subject is self.facts.service.subject)
            for subject, is_given in given.items()
        )

    @cached_property
    def period_is_not_sane(self) -> bool:
        begin, end = self.request.begin, self.request.end
        if end is None:
            return begin is not None and not is_day(begin)
        return begin is None or not is_day(begin) or not is_day(end) or begin > end

    @cached_property
    def period(self) -> tuple[Day, Day]:
        begin, end = self.request.begin, self.request.end
        if begin is None:
            return self.today, self.today
        return begin, OPEN if end is None else end

    # Rights and grants: what the nearest row lacks.

    def lacking_in_right(self, right: AccessRight) -> list[Code]:
        assert self.facts.caller is not None
        assert self.facts.service is not None
        rows = [
            (Code.NO_ACCESS_RIGHT, right.kbo == self.facts.caller.kbo),
            (Code.ACCESS_RIGHT_NOT_IN_FORCE, self.in_force(right)),
            (Code.ROLE_NOT_IN_ACCESS_RIGHT, self.role in right.roles or not right.roles),
            (
                Code.SERVICE_NOT_IN_ACCESS_RIGHT,
                self.facts.service.name in right.services or not right.services,
            ),
            (
                Code.AUTHENTICATION_TOO_WEAK,
                self.request.level >= right.level
                and self.request.means in (right.means or {self.request.means}),
            ),
        ]
        return [code for code, holds in rows if not holds]

    @cached_property
    def right_refusal(self) -> Code | None:
        lacking = [self.lacking_in_right(right) for right in self.facts.rights]
        if self.kind is Kind.TEST or [] in lacking:
            return None
        return max((codes[0] for codes in lacking), default=Code.NO_ACCESS_RIGHT)

    def lacking_in_grant(self, grant: Grant, capacity: int | None) -> list[Code]:
        rows = [
            (Code.CAPACITY_NOT_GRANTED, capacity is None or capacity in grant.capacities),
            (Code.GRANT_NOT_IN_FORCE, self.in_force(grant)),
            (
                Code.DELIBERATION_NOT_IN_FORCE,
                self.today in days_of(grant.basis_begin, grant.basis_end),
            ),
        ]
        return [code for code, holds in rows if not holds]

    @cached_property
    def grants(self) -> list[Grant]:
        """Those that may count: a network's grant is nobody's outside of every network."""
        assert self.acting is not None
        is_inside = self.acting.secondary_network != ""
        return [row for row in self.facts.grants if is_inside or row.basis != SECONDARY_NETWORK]

    @cached_property
    def grant_refusal(self) -> Code | None:
        if self.kind is Kind.TEST or self.grant is not None:
            return None
        lacking = [self.lacking_in_grant(row, self.request.capacity) for row in self.grants]
        return max((codes[0] for codes in lacking), default=Code.NO_GRANT)

    @cached_property
    def grant(self) -> Grant | None:
        """The first grant that lacks nothing."""
        if self.kind is Kind.TEST:
            return None
        capacity = self.request.capacity
        rows = (row for row in self.grants if not self.lacking_in_grant(row, capacity))
        return next(rows, None)

    # The person.

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.facts.person.lines if self.facts.person is not None else ()

    @cached_property
    def own_refusal(self) -> Code | None:
        """What the own integration lacks, whatever the control mode."""
        return self.own_lacking(self.lines)

    @cached_property
    def sectoral_refusal(self) -> Code | None:
        """The same of the directory of the network that the acting institution is in."""
        assert self.acting is not None
        if not (self.acting.is_sectoral and self.acting.secondary_network):
            return None
        if self.grant is None or self.grant.own_mode is Mode.NONE:
            return None
        held = (self.facts.sectoral or {}).get(self.acting.secondary_network)
        lacking = self.own_lacking(held or ())
        is_asked = self.own_lacking(()) is not None
        if is_asked and self.acting.keeper is not None:
            said = self.facts.answers.own if self.facts.person is not None else False  # type: ignore[union-attr]
            return {
                None: Code.SECTORAL_DIRECTORY_DOWN,
                False: Code.SECTORAL_NOT_INTEGRATED,
            }.get(said)
        return {
            (True, True): Code.SECTORAL_DIRECTORY_DOWN,
            (True, False): SECTORAL.get(lacking),
        }.get((is_asked, held is None))

    def own_lacking(self, lines: tuple[Line, ...]) -> Code | None:
        grant, request = self.grant, self.request
        is_asked = request.capacity is not None or (grant is not None and grant.own_integration)
        if grant is None or request.person is None or not is_asked:
            return None
        assert self.acting is not None
        roles = self.acting.roles if self.role is None else (self.role,)
        capacities = grant.capacities if request.capacity is None else {request.capacity}
        known = [
            line
            for line in lines
            if line.capacity in (capacities | {PROVISIONAL} if grant.provisional else capacities)
            and {(line.sector, line.type), (line.sector, ANY_TYPE)}
            & {(role.sector, kind) for role in roles for kind in (role.type, ANY_TYPE)}
            and any(fits(line, role) for role in roles)
        ]
        far = [line for line in known if line.phase >= grant.phase]
        held = set().union(*(days_of(line.begin, line.end) for line in far))
        if not known:
            return Code.PERSON_NOT_INTEGRATED
        if not far:
            return Code.PHASE_TOO_LOW
        return None if days_of(*self.period) <= held else Code.PERIOD_NOT_COVERED

    def own_is_refused_for(self, code: Code) -> bool:
        mode = self.grant.own_mode if self.grant is not None else Mode.NONE
        return mode is Mode.BLOCK and self.own_refusal is code

    @cached_property
    def own_violation(self) -> Code | None:
        """What is broken and only logged."""
        assert self.grant is None or self.grant.own_mode in Mode
        is_logged = self.grant is not None and self.grant.own_mode is Mode.LOG
        return self.own_refusal if is_logged else None

    @cached_property
    def sectoral_violation(self) -> Code | None:
        is_logged = self.grant is not None and self.grant.own_mode is Mode.LOG
        return self.sectoral_refusal if is_logged else None

    def sectoral_is_refused_for(self, code: Code) -> bool:
        mode = self.grant.own_mode if self.grant is not None else Mode.NONE
        return mode is Mode.BLOCK and self.sectoral_refusal is code

    def number_is(self, code: Code) -> bool:
        assert self.facts.service is not None
        person = self.facts.person
        service = self.facts.service
        if self.request.person is None or service.any_number:
            return False
        if person is None:
            return code is Code.PERSON_UNKNOWN
        return {
            Code.PERSON_REPLACED: person.status is NumberStatus.REPLACED
            and not service.follow_replaced,
            Code.PERSON_CANCELLED: person.current_status is NumberStatus.CANCELLED,
            Code.PERSON_DECEASED: person.current_status is NumberStatus.DECEASED
            and service.refuse_deceased,
        }.get(code, False)


def fits(line: Line, role: Role) -> bool:
    return line.sector == role.sector and line.type in {role.type, ANY_TYPE}


SECTORAL: dict[Code | None, Code | None] = {
    Code.PERSON_NOT_INTEGRATED: Code.SECTORAL_NOT_INTEGRATED,
    Code.PHASE_TOO_LOW: Code.SECTORAL_PHASE_TOO_LOW,
    Code.PERIOD_NOT_COVERED: Code.SECTORAL_PERIOD_NOT_COVERED,
}
