"""The preventive control once more, as a table of what is broken, for the tests to compare with.

Written from the rules and not from the code: sets of days instead of arithmetic on periods, sets
of names instead of branches. It is slow and simple.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

from ksz_router.codes import Code
from ksz_router.decision import SECONDARY_NETWORK, Destination
from ksz_router.identifiers import is_insz
from ksz_router.model import (
    PROVISIONAL,
    Availability,
    FilledBy,
    Kind,
    Line,
    Mode,
)
from tests.control_requester import SECTORAL, Requester, days_of, fits
from tests.strategies import Said


class World(Requester):
    """One case, and what the rules say of it."""

    # Sources and recipients.

    @cached_property
    def destination_is_not_named(self) -> bool:
        """By who is to name it, or by both."""
        service = self.facts.service
        assert service is not None
        allowed = {FilledBy.SENDER: {False}, FilledBy.DIRECTORY: {True}}
        return (self.request.source is None) not in allowed.get(service.filled_by, {True, False})

    @cached_property
    def supplying(self) -> list[Availability]:
        """The rows that are in force, of the source that is named where one is."""
        wanted = {self.request.source} if self.request.source is not None else None
        rows = filter(self.in_force, self.facts.sources)
        return [
            row for row in rows if (wanted is None or row.kbo in wanted) and self.is_in_reach(row)
        ]

    @cached_property
    def in_force_at_all(self) -> list[Availability]:
        wanted = {self.request.source} if self.request.source is not None else None
        rows = filter(self.in_force, self.facts.sources)
        return [row for row in rows if wanted is None or row.kbo in wanted]

    @cached_property
    def subscribed(self) -> list[Availability]:
        """Who wants to hear it."""
        if self.kind is Kind.CONSULTATION or not self.request.unchanged:
            return self.supplying
        return [row for row in self.supplying if not row.changes_only]

    @cached_property
    def rows(self) -> list[Availability]:
        """Who holds data of the period asked; of a consultation those first who hold all of it."""
        asked = days_of(*self.period)
        held = {id(row): days_of(row.data_begin, row.data_end) for row in self.subscribed}
        found = [row for row in self.subscribed if held[id(row)] & asked]
        if self.kind is not Kind.CONSULTATION:
            return found
        whole = [row for row in found if asked <= held[id(row)]]
        return whole + [row for row in found if not asked <= held[id(row)]]

    def is_in_reach(self, row: Availability) -> bool:
        """Of a grant inside a network, that network alone."""
        assert self.acting is not None
        if self.grant is None or self.grant.basis != SECONDARY_NETWORK:
            return True
        networks = {self.acting.secondary_network, row.secondary_network}
        return len(networks) == 1 and networks != {""}

    def lines_known_by(self, row: Availability) -> list[Line]:
        """In the primary directory, where that of its network says so too."""
        found = self.lines_fitting(row, self.lines)
        if not row.is_sectoral or not row.secondary_network:
            return found
        if row.keeper is not None:
            return found if self.said_of(row) else []
        held = (self.facts.sectoral or {}).get(row.secondary_network, ())
        return found if self.lines_fitting(row, held) else []

    def said_of(self, row: Availability) -> bool | None:
        """What the keeper of its network's directory says, drawn by its number."""
        assert isinstance(self.facts.answers, Said)
        return self.facts.answers.sources.get(row.kbo, True)

    @cached_property
    def tried(self) -> list[Availability]:
        """Of several sources, no keeper is asked about one that stands behind one that will do."""
        found, will_do = [], False
        for row in self.rows:
            is_asked = row.keeper and row.mode is not Mode.NONE and self.request.person is not None
            if will_do and is_asked and self.kind is not Kind.DISTRIBUTION:
                continue
            found.append(row)
            takes = self.kind is Kind.CONSULTATION or bool(self.receiving(row))
            will_do = will_do or (self.knows(row) and takes and row.kbo not in self.down)
        return found

    def lines_fitting(self, row: Availability, lines: tuple[Line, ...]) -> list[Line]:
        provisional_counts = self.grant is not None and self.grant.provisional
        return [
            line
            for line in lines
            if fits(line, row.role)
            and (line.capacity in row.capacities or not row.capacities)
            and (line.capacity != PROVISIONAL or row.capacities or provisional_counts)
            and line.phase >= row.phase
            and days_of(line.begin, line.end) & days_of(*self.period)
        ]

    def knows(self, row: Availability) -> bool:
        """The row is of a source that may be asked, as far as integration goes."""
        assert self.acting is not None
        if self.kind is Kind.DISTRIBUTION and row.kbo == self.acting.kbo:
            return False
        judged = self.request.person is not None and row.mode is Mode.BLOCK
        return not judged or bool(self.lines_known_by(row))

    @cached_property
    def sectoral_faults(self) -> set[Code]:
        """What the directories of networks withhold of what the primary one says."""
        assert self.acting is not None
        judged = self.request.person is not None
        rows = [
            row
            for row in self.rows
            if judged
            and row.is_sectoral
            and row.secondary_network
            and row.mode is not Mode.NONE
            and self.lines_fitting(row, self.lines)
            and not self.lines_known_by(row)
            and not (self.kind is Kind.DISTRIBUTION and row.kbo == self.acting.kbo)
        ]
        held = self.facts.sectoral or {}
        return {
            Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY
            if (self.said_of(row) is False if row.keeper else row.secondary_network in held)
            else Code.SECTORAL_DIRECTORY_DOWN
            for row in rows
        }

    def sources_are_refused_for(self, code: Code | None) -> bool:
        """Where none is left, the gravest says why; a distribution leaves nobody out unsaid."""
        if self.kind is Kind.TEST:
            return False
        gravest = max(self.sectoral_faults, default=None)
        none_knows = not any(self.knows(row) for row in self.rows)
        if code is Code.SECTORAL_DIRECTORY_DOWN and self.kind is Kind.DISTRIBUTION:
            return code in self.sectoral_faults
        return none_knows and gravest is code

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
        knowing = [row for row in self.tried if self.knows(row)]
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
    (Code.FIELD_MALFORMED, lambda w: w.destination_is_not_named),
    *((code, lambda w, code=code: w.right_refusal is code) for code in Code if code.stage == 3),
    *((code, lambda w, code=code: w.grant_refusal is code) for code in Code if code.stage == 4),
    *((code, lambda w, code=code: w.own_is_refused_for(code)) for code in Code if code.stage == 5),
    *(
        (code, lambda w, code=code: w.sectoral_is_refused_for(code))
        for code in (*SECTORAL.values(), Code.SECTORAL_DIRECTORY_DOWN)
        if code is not None
    ),
    *((code, lambda w, code=code: w.number_is(code)) for code in Code if code.stage == 6),
    (Code.NO_SOURCE_HAS_THE_DATA, lambda w: w.kind is not Kind.TEST and not w.in_force_at_all),
    (Code.NO_SOURCE_KNOWS_THE_PERSON, lambda w: w.kind is not Kind.TEST and not w.supplying),
    (Code.NO_RECIPIENT_SUBSCRIBED, lambda w: w.kind is not Kind.TEST and not w.subscribed),
    (Code.NO_SOURCE_HOLDS_THE_PERIOD, lambda w: w.kind is not Kind.TEST and not w.rows),
    *(
        (code, lambda w, code=code: w.sources_are_refused_for(code))
        for code in (Code.SECTORAL_DIRECTORY_DOWN, Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY)
    ),
    (Code.NO_SOURCE_KNOWS_THE_PERSON, lambda w: w.sources_are_refused_for(None)),
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
