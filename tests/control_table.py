"""The preventive control once more, as a table of what is broken, for the tests to compare with.

Written from the rules and not from the code: sets of days instead of arithmetic on periods, sets
of names instead of branches. It is slow and simple.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

from ksz_router.codes import Code
from ksz_router.days import is_day
from ksz_router.decision import SECONDARY_NETWORK, Destination
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
from tests.strategies import Case

CALENDAR = [
    *(20260000 + month * 100 + day for month in (1, 3) for day in range(1, 32)),
    *(20260200 + day for day in range(1, 29)),
    20260401,
    OPEN,
]
"""Every day on which a period of a case may begin or end, and one in each gap between them."""


def days_of(begin: Day, end: Day) -> set[Day]:
    return {day for day in CALENDAR if begin <= day <= end}


class World:
    """One case, and what the rules say of it."""

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
        grant, request = self.grant, self.request
        is_asked = request.capacity is not None or (grant is not None and grant.own_integration)
        if grant is None or request.person is None or not is_asked:
            return None
        assert self.acting is not None
        roles = self.acting.roles if self.role is None else (self.role,)
        capacities = grant.capacities if request.capacity is None else {request.capacity}
        known = [
            line
            for line in self.lines
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

    # Sources and recipients.

    @cached_property
    def rows(self) -> list[Availability]:
        wanted = {self.request.source} if self.request.source is not None else None
        rows = filter(self.in_force, self.facts.sources)
        return [row for row in rows if wanted is None or row.kbo in wanted]

    def lines_known_by(self, row: Availability) -> list[Line]:
        provisional_counts = self.grant is not None and self.grant.provisional
        return [
            line
            for line in self.lines
            if fits(line, row.role)
            and (line.capacity in row.capacities or not row.capacities)
            and (line.capacity != PROVISIONAL or row.capacities or provisional_counts)
            and line.phase >= row.phase
            and days_of(line.begin, line.end) & days_of(*self.period)
        ]

    def knows(self, row: Availability) -> bool:
        """The row is of a source that may be asked, as far as integration goes."""
        assert self.acting is not None
        if self.grant is not None and self.grant.basis == SECONDARY_NETWORK:
            networks = {self.acting.secondary_network, row.secondary_network}
            if len(networks) != 1 or networks == {""}:
                return False
        if self.kind is Kind.DISTRIBUTION and row.kbo == self.acting.kbo:
            return False
        judged = self.request.person is not None and row.mode is Mode.BLOCK
        return not judged or bool(self.lines_known_by(row))

    def receiving(self, row: Availability) -> set[str]:
        """Ids of the grants by which this recipient may receive; empty: it may not."""
        capacities: set[int | None] = {line.capacity for line in self.lines_known_by(row)}
        if self.request.person is None or row.mode is Mode.NONE or not capacities:
            capacities = {None}
        return {
            grant.id
            for grant in row.receive
            for capacity in capacities
            if not self.lacking_in_grant(grant, capacity if grant.capacities else None)
        }

    @cached_property
    def destinations(self) -> list[Availability]:
        if self.kind is Kind.TEST:
            return []
        knowing = [row for row in self.rows if self.knows(row)]
        if self.kind is Kind.CONSULTATION:
            return knowing
        return [row for row in knowing if self.receiving(row)]

    @cached_property
    def down(self) -> dict[str, int]:
        """Who is in an outage, and until when its last one lasts."""
        rows = self.facts.outages
        return {row.kbo: max(o.end_ms for o in rows if o.kbo == row.kbo) for row in rows}

    @cached_property
    def reachable(self) -> list[Availability]:
        return [row for row in self.destinations if row.kbo not in self.down]

    def is_fair(self, row: Availability, found: Destination) -> bool:
        """Say whether a destination of a verdict is this row, for reasons that hold."""
        lines = self.lines_known_by(row)
        integration = self.request.person is not None and row.mode is not Mode.NONE
        return (
            (found.kbo, found.role) == (row.kbo, row.role)
            and (found.line in lines if integration and lines else found.line is None)
            and found.violation == (integration and not lines)
            and (
                found.receive == ""
                if self.kind is Kind.CONSULTATION
                else found.receive in self.receiving(row)
            )
        )


def fits(line: Line, role: Role) -> bool:
    return line.sector == role.sector and line.type in {role.type, ANY_TYPE}


TABLE: list[tuple[Code, Callable[[World], object]]] = [
    (Code.CERTIFICATE_NOT_REGISTERED, lambda w: w.facts.caller is None),
    (Code.INSTITUTION_NOT_ACTIVE, lambda w: not w.in_force(w.facts.caller)),
    (Code.MEMBER_NOT_MANAGED, lambda w: w.request.member not in w.may_act_as),
    (
        Code.KBO_NOT_HELD,
        lambda w: w.request.member is None and w.request.kbo not in w.may_act_as,
    ),
    (Code.INSTITUTION_NOT_ACTIVE, lambda w: w.acting is None),
    (Code.IDENTIFIERS_DISAGREE, lambda w: w.request.kbo not in {None, w.named}),
    (Code.ROLE_NOT_HELD, lambda w: w.acting and w.role and w.role not in w.acting.roles),
    (Code.FIELD_MALFORMED, lambda w: not w.request.service),
    (Code.SERVICE_UNKNOWN, lambda w: w.facts.service is None),
    (Code.FIELD_MALFORMED, lambda w: w.malformed),
    (Code.PATH_NOT_EXACTLY_ONE, lambda w: w.path_is_not_one),
    (Code.SUBJECT_NOT_AS_DECLARED, lambda w: w.subject_is_another),
    (Code.PERSON_MALFORMED, lambda w: w.request.person and not is_insz(w.request.person)),
    (Code.PERSON_MALFORMED, lambda w: w.request.person == ""),
    (Code.PERIOD_NOT_SANE, lambda w: w.period_is_not_sane),
    (
        Code.PAYLOAD_TOO_LARGE,
        lambda w: w.facts.service and len(w.request.payload) > w.facts.service.payload_bytes_max,
    ),
    *((code, lambda w, code=code: w.right_refusal is code) for code in Code if code.stage == 3),
    *((code, lambda w, code=code: w.grant_refusal is code) for code in Code if code.stage == 4),
    *((code, lambda w, code=code: w.own_is_refused_for(code)) for code in Code if code.stage == 5),
    *((code, lambda w, code=code: w.number_is(code)) for code in Code if code.stage == 6),
    (Code.NO_SOURCE_HAS_THE_DATA, lambda w: w.kind is not Kind.TEST and not w.rows),
    (
        Code.NO_SOURCE_KNOWS_THE_PERSON,
        lambda w: w.kind is not Kind.TEST and not any(w.knows(row) for row in w.rows),
    ),
    (
        Code.NO_RECIPIENT_MAY_RECEIVE,
        lambda w: w.kind is not Kind.TEST and not w.destinations,
    ),
    (
        Code.TOO_MANY_RECIPIENTS,
        lambda w: w.kind is Kind.DISTRIBUTION and len({row.kbo for row in w.destinations}) > 64,
    ),
    (Code.ANNOUNCED_OUTAGE, lambda w: w.destinations and not w.reachable),
]


def broken(world: World) -> Iterator[Code]:
    """The codes of the rules that are broken, in their order."""
    return (code for code, is_broken in TABLE if is_broken(world))
