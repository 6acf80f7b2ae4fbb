"""What the checks share: the text by its keys, the findings so far, and the plain field checks."""

import datetime as dt
from datetime import timedelta

from ksz_router import official
from ksz_router.days import to_date, to_day
from ksz_router.identifiers import is_kbo
from ksz_router.model import OPEN, Day, Role
from ksz_router.rulebook.rows import (
    AvailabilityRow,
    DeliberationRow,
    Finding,
    GrantRow,
    InstitutionRow,
    Place,
    ServiceRow,
    Text,
    basis_period,
    period_of,
    role_of,
)

Period = tuple[Day, Day]

SOON_DAYS = 30
"""A deliberation, grant or right that ends within so many days is worth a warning."""

_LISTS = "the official lists are in ksz_router/data"


class Index:
    """The text by its keys. Later duplicates do not replace the first row."""

    def __init__(self, text: Text, today: Day | None) -> None:
        self.text = text
        self.today = today
        self.findings: list[Finding] = []
        self.institutions: dict[str, InstitutionRow] = {}
        self.services: dict[tuple[str, int], ServiceRow] = {}
        self.holders: dict[Role, set[str]] = {}
        for institution, _ in text.institutions:
            self.institutions.setdefault(institution.kbo, institution)
            for name in institution.roles:
                role = role_of(name)
                if role is not None:
                    self.holders.setdefault(role, set()).add(institution.kbo)
        for service, _ in text.services:
            self.services.setdefault((service.name, service.version), service)
        self.availability: dict[tuple[str, int], list[AvailabilityRow]] = {}
        for row, _ in text.availability:
            self.availability.setdefault((row.service, row.version), []).append(row)

    def error(self, place: Place, reason: str, mend: str) -> None:
        """Add a finding that refuses the text."""
        self.findings.append(Finding(True, place, reason, mend))

    def warn(self, place: Place, reason: str, mend: str) -> None:
        """Add a finding that does not."""
        self.findings.append(Finding(False, place, reason, mend))

    def check_kbo(self, place: Place, field: str, kbo: str) -> bool:
        """Say whether ``kbo`` is well formed and registered; else add why not."""
        if not is_kbo(kbo):
            mend = "give ten digits, 0 or 1 first, the last two 97 minus the rest modulo 97"
            self.error(place, f"{field}: {kbo!r} is not a KBO number", mend)
            return False
        if kbo not in self.institutions:
            self.error(place, f"{field}: {kbo} is no institution here", "add an [[institution]]")
            return False
        return True

    def check_role(self, place: Place, field: str, text: str) -> Role | None:
        """Return the role, or add why it is none."""
        role = role_of(text)
        if role is None:
            mend = 'write sector/type, such as "17/1"'
            self.error(place, f"{field}: {text!r} is not a role", mend)
            return None
        if not official.is_role(role.sector, role.type):
            reason = f"{field}: sector {role.sector} with type {role.type} does not exist"
            self.error(place, reason, _LISTS)
            return None
        return role

    def check_service(self, place: Place, name: str, version: int) -> ServiceRow | None:
        """Return the service, or add that there is none."""
        service = self.services.get((name, version))
        if service is None:
            reason = f"service {name!r} version {version} does not exist"
            self.error(place, reason, "declare it as [[service]], or mend the name or version")
        return service

    def check_capacities(self, place: Place, sectors: set[int], codes: tuple[int, ...]) -> None:
        """Add a finding for each code that is a capacity in none of the sectors."""
        named = ", ".join(str(sector) for sector in sorted(sectors))
        for code in codes:
            if code == official.REPLACED_MARK:
                mend = "leave it out: it marks a replaced INSZ"
                self.error(place, "999 is never a capacity", mend)
            elif not any(official.is_capacity(sector, code) for sector in sectors):
                self.error(place, f"capacity {code} does not exist in sector {named}", _LISTS)
        if len(set(codes)) < len(codes):
            self.error(place, "a capacity is named twice", "name it once")

    def check_number(self, place: Place, field: str, value: int, bounds: tuple[int, int]) -> None:
        """Add a finding where ``value`` is outside ``bounds``, both inclusive."""
        least, most = bounds
        if not least <= value <= most:
            reason = f"{field} = {value} is out of range"
            self.error(place, reason, f"give a value from {least} to {most}")

    def check_period(
        self, place: Place, begin: dt.date | None, end: dt.date | None, what: str = ""
    ) -> Period:
        """Return the period; add that it ends before it begins, or that it ends soon."""
        period = period_of(begin, end)
        if period[0] > period[1]:
            self.error(place, "the period ends before it begins", "mend begin or end")
        elif what and self.today is not None:
            self.warn_of_end(place, what, period[1])
        return period

    def warn_of_end(self, place: Place, what: str, end: Day) -> None:
        """Add a warning where ``end`` has passed or comes within 30 days."""
        if self.today is None or end == OPEN:
            return
        if end < self.today:
            self.warn(place, f"{what} ended on {end}", "remove it, or renew it")
        elif end <= to_day(to_date(self.today) + timedelta(days=SOON_DAYS)):
            left = (to_date(end) - to_date(self.today)).days
            self.warn(place, f"{what} ends in {left} days, on {end}", "renew it in time")

    def grant_holders(self, grant: GrantRow) -> set[str]:
        """Return the KBO numbers of the institutions that hold a grant."""
        if grant.kbo:
            return {grant.kbo} & self.institutions.keys()
        role = role_of(grant.role)
        return self.holders.get(role, set()) if role is not None else set()


def common_days(first: Period, *others: Period) -> Period | None:
    """Return the days that all periods share, or ``None``."""
    begin = max(period[0] for period in (first, *others))
    end = min(period[1] for period in (first, *others))
    return (begin, end) if begin <= end else None


def grant_days(grant: GrantRow, head: DeliberationRow) -> Period | None:
    """Return the days on which a grant and its deliberation are both in force."""
    return common_days(period_of(grant.begin, grant.end), basis_period(head))


def institution_days(row: InstitutionRow) -> Period:
    """Return the days on which an institution is active."""
    return period_of(row.begin, row.end)
