"""What goes into the control and what comes out of it: facts, verdicts, and the case between."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from ksz_router.codes import Code
from ksz_router.identifiers import Kbo
from ksz_router.keepers import Keeper
from ksz_router.messages import Request
from ksz_router.model import (
    OPEN,
    AccessRight,
    Availability,
    Day,
    Grant,
    Institution,
    Kind,
    Line,
    Outage,
    Role,
    Service,
)
from ksz_router.persons import Fitting, Person

SECONDARY_NETWORK = "secondary-network"
"""Basis of a grant inside one secondary network, where no deliberation is needed."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What the keeper of a secondary network's directory is asked about one institution of it.

    Whether the directory knows the person for that institution, in one of the roles and of the
    capacities, in the phase or a later one. It is a key, too: the same question has one answer.
    """

    keeper: Keeper
    institution: Kbo
    roles: tuple[Role, ...]
    capacities: tuple[int, ...]
    """Empty: any."""
    provisional: bool
    """Of any capacity, whether a provisional one counts."""
    phase: int
    is_whole: bool
    """On every day of the period; else on one of them at least."""
    person: str
    """The INSZ in use."""
    begin: Day
    end: Day

    def __repr__(self) -> str:
        return f"Question({self.keeper.kbo} about {self.institution})"


# Made by the thousand a second, and never part of a cycle: the collector need not look at them.


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What the tables say about one request. ``None`` and empty mean: the table has nothing."""

    caller: Institution | None
    """The institution whose certificate it is."""
    member: Institution | None = None
    """The institution named as member, or under another KBO number than the caller's."""
    service: Service | None = None
    rights: tuple[AccessRight, ...] = ()
    """Rows for the caller and the user; for the application where no user is named."""
    grants: tuple[Grant, ...] = ()
    """Rows for the service, the path and direction asked, and who acts; the narrower first."""
    person: Person | None = None
    sources: tuple[Availability, ...] = ()
    """Rows of the data availability table for the service, in their order."""
    outages: tuple[Outage, ...] = ()
    """Announced outages that hold at this moment for this service."""
    sectoral: Mapping[str, tuple[Line, ...]] | None = None
    """Lines in the directories of secondary networks; of one that is down there is nothing."""
    answers: Mapping[Question, bool | None] | None = None
    """What keepers of sectoral directories said: known there, not known, or (None) nothing in time.

    Of a question that is not here none was asked; to the control it is as one without answer.
    """
    standing: "Standing | None" = None
    """What was settled before on these rows, for a request that agrees in ``STANDING_FIELDS``."""


class Destination(msgspec.Struct, frozen=True, gc=False):
    """An institution the request is put to, and the line that makes it fit, if one does."""

    kbo: Kbo
    role: Role
    line: Line | None = None
    receive: str = ""
    """Id of the grant to receive, for a submission or a distribution."""
    violation: bool = False
    """The integration rule is broken and its control mode is ``log``."""
    data_begin: Day = 0
    data_end: Day = OPEN
    """Days of which it holds data."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The request does not pass; nothing is forwarded."""

    code: Code
    field: str = ""
    """The field to mend."""
    grant: str = ""
    replaced_by: str = ""
    deceased: Day = 0
    retry_at_ms: int = 0
    limit: int = 0
    """The bound that was met, where one was."""

    def __repr__(self) -> str:
        return f"Refusal({self.code.name}, field={self.field!r})"


class Source(msgspec.Struct, frozen=True, gc=False):
    """A row of the data availability table, and which lines show that it knows a person."""

    row: Availability
    fitting: Fitting


class Standing:
    """What the control says of the requester, whoever the request is about: the same every time.

    Made by :func:`ksz_router.decision.stand`, for one day and one version of the tables. Each
    refusal is None where its rule holds; what comes after a broken rule is not settled.
    """

    __slots__ = (
        "acting", "asks", "caller", "grant", "identity", "is_clear", "is_plain", "networks",
        "no_grant", "no_right", "noted", "own", "own_network", "path", "role", "service",
        "sources", "syntax", "today",
    )  # fmt: skip

    def __init__(self, today: Day) -> None:
        self.today = today
        self.is_clear = False
        """Nothing about the requester stands in the way."""
        self.is_plain = False
        """And no rule is to be tried that few services ask for; so it is for most requests."""
        self.own_network = ""
        """The secondary network whose own directory must know the person for the requester."""
        self.networks: tuple[str, ...] = ()
        """Those whose directories are here and looked into: the requester's, those of sources."""
        self.asks = False
        """One that is kept elsewhere may have to be asked for, the requester's or a source's."""
        self.identity: Refusal | None = None
        self.syntax: Refusal | None = None
        """Of the service and of the fields that say who asks, and as what."""
        self.path: Refusal | None = None
        """Of the fields that say under which path."""
        self.no_right: Refusal | None = None
        self.no_grant: Refusal | None = None
        self.role: Role | None = None
        self.grant: Grant | None = None
        self.own: Fitting | None = None
        """Which lines show that the requester knows a person; None where nothing asks for one."""
        self.sources: tuple[Source, ...] = ()
        """Rows of the data availability table that are in force, and in reach of the grant."""
        self.noted: Any = None
        """What entries say of the requester, for who makes them; no rule looks at it."""
        self.caller: Institution
        self.acting: Institution
        self.service: Service


class Forward(msgspec.Struct, frozen=True, gc=False):
    """The request passes. Put it to ``destinations``: all for a distribution, else the first.

    A test-connection request passes with none: the router answers it.
    """

    acting: Kbo
    service: Service
    role: Role | None
    begin: Day
    end: Day
    grant: Grant | None
    line: Line | None
    person: str | None
    """The INSZ in use, which differs from the asked one where a replacement was followed."""
    destinations: tuple[Destination, ...]
    in_outage: tuple[Kbo, ...] = ()
    own_violation: Code | None = None
    """What is broken in the own integration, where its control mode is ``log``."""
    sectoral_violation: Code | None = None
    """The same of the directory of the requester's secondary network."""

    is_spotless: bool = True
    """No integration rule is broken, in mode ``log`` either."""

    @property
    def put_to(self) -> tuple[Destination, ...]:
        """All destinations of a distribution, of anything else the first."""
        found = self.destinations
        if len(found) > 1 and self.service.kind is not Kind.DISTRIBUTION:
            return found[:1]
        return found

    @property
    def violations(self) -> tuple[str, ...]:
        """Integration rules that are broken in mode ``log``, as the entry names them.

        Control, mode, and what is broken or whose: ``own:log:PHASE_TOO_LOW``,
        ``sectoral:log:SECTORAL_DIRECTORY_DOWN``, ``recipient:log:0999013688``.
        """
        if self.is_spotless:
            return ()
        own, sectoral, put_to = self.own_violation, self.sectoral_violation, self.put_to
        control = "source" if self.service.kind is Kind.CONSULTATION else "recipient"
        return (
            *((f"own:log:{own.name}",) if own is not None else ()),
            *((f"sectoral:log:{sectoral.name}",) if sectoral is not None else ()),
            *[f"{control}:log:{found.kbo}" for found in put_to if found.violation],
        )

    def __repr__(self) -> str:
        return f"Forward({self.service.name!r}, destinations={len(self.destinations)})"


Verdict: TypeAlias = Forward | Refusal


class Case(msgspec.Struct, eq=False, gc=False):
    """One request on its way through the rules: what came in, and what they settled so far."""

    request: Request
    facts: Facts
    standing: Standing
    begin: Day
    end: Day
    """The period asked; today until the request was seen to name one."""
    line: Line | None = None
    person: str | None = None
    destinations: tuple[Destination, ...] = ()
    in_outage: tuple[Kbo, ...] = ()
    own_violation: Code | None = None
    sectoral_violation: Code | None = None
    sectoral_fault: Code | None = None
    """What kept a source that the primary directory names from being one."""
    is_spotted: bool = False
    """A rule is broken whose control mode is ``log``, for a destination at least."""


class Asking(Case, eq=False, gc=False):
    """A request that is judged to learn what is to be asked before it can be decided on."""

    unasked: dict[Question, None] = {}
    """Questions that the rules came upon, and to which the facts hold no answer."""
