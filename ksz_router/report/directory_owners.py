"""Whose lines they are: the institution that answers for a role, by the rulebook.

The directory knows roles (sector, type), not institutions. Where several institutions hold one
role, it cannot say which of them keeps the file on a person, and naming the person to all of them
would tell those who do not know them. So every line is attributed to exactly one *owner*: the
institution that holds the role alone, or the one that manages all its holders; else the role
itself, whose list is the crossroads bank's to divide.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ksz_router.model import ANY_TYPE, Day, Direction, Institution, Role
from ksz_router.report.directory_kinds import LineKind
from ksz_router.rulebook.snapshot import Snapshot


class Owner(NamedTuple):
    """Who answers for lines."""

    key: str
    """KBO number; ``17/1`` or ``17/*`` of a role that is shared or nobody's."""
    name: str


def held_roles(institutions: Iterable[Institution]) -> frozenset[Role]:
    """Return every role that somebody holds or held."""
    return frozenset(role for each in institutions for role in each.roles)


class Owners:
    """The owners of lines on one day."""

    def __init__(
        self,
        institutions: Iterable[Institution],
        day: Day,
        keepers: frozenset[str] = frozenset(),
    ) -> None:
        """Take in who answers for what.

        Args:
            institutions: All of the rulebook; those not active on ``day`` answer for none.
            day: The lists are for who can act on it.
            keepers: KBO numbers of who keeps the directory. They manage others only to send the
                changes that follow from messages, and answer for nobody's lines by that.
        """
        active = {each.kbo: each for each in institutions if each.begin <= day <= each.end}
        self._names = {str(kbo): each.name for kbo, each in active.items()}
        managers: dict[str, set[str]] = {}
        for each in (each for kbo, each in active.items() if kbo not in keepers):
            for member in each.members:
                managers.setdefault(str(member), set()).add(str(each.kbo))
        self._answering: dict[Role, set[str]] = {}
        for kbo, each in active.items():
            tops = managers.get(str(kbo)) or {str(kbo)}
            for role in each.roles:
                self._answering.setdefault(role, set()).update(tops)

    def of(self, sector: int, type_: int) -> Owner:
        """Return the owner of the lines of a sector and type (``ANY_TYPE``: of none)."""
        answering = {
            kbo
            for role, tops in self._answering.items()
            if role.sector == sector and type_ in (role.type, ANY_TYPE)
            for kbo in tops
        }
        if len(answering) == 1:
            (kbo,) = answering
            return Owner(kbo, self._names[kbo])
        shown = f"{sector}/{'*' if type_ == ANY_TYPE else type_}"
        if not answering:
            return Owner(shown, "nobody holds it in the rulebook")
        return Owner(shown, f"shared by {len(answering)} institutions that nobody manages")


class Granted(NamedTuple):
    """A capacity of a role in which the person must be known for some grants to be used."""

    role: Role
    capacity: int
    grants: int
    """How many grants name it."""


def granted(snapshot: Snapshot, day: Day) -> list[Granted]:
    """Return the capacities that grants ask the own integration in, on a day.

    The right to ask about persons in a capacity in which the role knows nobody is not needed
    (agreement, article 7, 4° c: a more selective management of access).
    """
    counts: dict[tuple[Role, int], set[str]] = {}
    for service in snapshot.services():
        for grant in snapshot.grants(service.name, service.version):
            is_used = grant.direction is not Direction.RECEIVE and grant.own_integration
            if grant.role is None or not is_used or not grant.begin <= day <= grant.end:
                continue
            for capacity in grant.capacities:
                counts.setdefault((grant.role, capacity), set()).add(grant.id)
    return [Granted(*key, len(ids)) for key, ids in sorted(counts.items())]


def fits(kind: LineKind, role: Role, capacity: int) -> bool:
    """Say whether a line of this kind makes a person known to a role in a capacity."""
    same = kind.sector == role.sector and kind.type in (role.type, ANY_TYPE)
    return same and kind.capacity == capacity
