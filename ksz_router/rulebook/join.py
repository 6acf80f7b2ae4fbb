"""Join the rows of a text without errors into the rows of a generation. Pure.

Joined in: the deliberation's period into its grants, control modes into grants and data
availability, grants to receive and secondary networks into data availability. So the control finds
everything about a service under one key.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from ksz_router.decision.case import SECONDARY_NETWORK
from ksz_router.identifiers import Kbo
from ksz_router.keepers import Keeper
from ksz_router.model import (
    AccessRight,
    Availability,
    Day,
    Direction,
    Distribution,
    Endpoint,
    FilledBy,
    Grant,
    Inscription,
    Institution,
    Integration,
    Kind,
    Mode,
    Outage,
    Party,
    Role,
    Service,
    Subject,
)
from ksz_router.rulebook.generation import ENCODER, RightRows, Rows, ServiceRows
from ksz_router.rulebook.rows import (
    Deliberation,
    GrantRow,
    Placed,
    RightRow,
    ServiceRow,
    Text,
    basis_period,
    period_of,
    role_of,
)

TEST_CONNECTION = Service(
    name="TestConnectionService", version=1, kind=Kind.TEST, subject=Subject.NONE
)
"""In every rulebook; the router answers it itself (the KSZ has a service of this name)."""


def join(text: Text) -> Rows:
    """Return the rows, each list sorted by its key."""
    institutions = sorted(_institutions(text), key=lambda row: row.kbo)
    by_kbo = {row.kbo: row for row in institutions}
    grants: dict[tuple[str, int], list[Grant]] = {}
    for deliberation in text.deliberations:
        for placed in deliberation.grants:
            grant = _grant(placed.row, deliberation, text)
            grants.setdefault((grant.service, grant.version), []).append(grant)
    services = [ServiceRows(TEST_CONNECTION)]
    for row, _ in text.services:
        service = _service(row, text)
        own = grants.get((service.name, service.version), [])
        asking = [g for g in own if g.direction is not Direction.RECEIVE]
        receiving = [g for g in own if g.direction is Direction.RECEIVE]
        sources = _sources(service, receiving, by_kbo, text)
        services.append(ServiceRows(service, tuple(sorted(asking, key=_holder)), tuple(sources)))
    return Rows(
        institutions=tuple(institutions),
        services=tuple(sorted(services, key=lambda r: (r.service.name, r.service.version))),
        outages=tuple(sorted(_outages(text), key=lambda r: (r.service, r.kbo, r.begin_ms))),
        rights=tuple(_rights(text.rights)),
    )


def _institutions(text: Text) -> Iterable[Institution]:
    keepers = {
        network.name: Keeper(Kbo(network.at), network.application) if network.at else None
        for network, _ in text.networks
    }
    for row, _ in text.institutions:
        begin, end = period_of(row.begin, row.end)
        yield Institution(
            kbo=Kbo(row.kbo),
            name=row.name,
            uris=row.uris,
            roles=_roles(row.roles),
            members=tuple(Kbo(member) for member in row.members),
            secondary_network=row.secondary_network,
            endpoints=tuple(Endpoint(e.host, e.port, e.uri) for e in row.endpoint),
            begin=begin,
            end=end,
            is_sectoral=row.secondary_network in keepers,
            keeper=keepers.get(row.secondary_network),
        )


def _grant(row: GrantRow, deliberation: Deliberation, text: Text) -> Grant:
    begin, end = period_of(row.begin, row.end)
    basis_begin, basis_end = basis_period(deliberation.head)
    is_receive = row.direction == "receive"
    return Grant(
        id=row.id,
        direction=Direction[row.direction.upper()],
        service=row.service,
        version=row.version,
        role=role_of(row.role),
        kbo=Kbo(row.kbo) if row.kbo else None,
        framework=row.framework,
        capacities=frozenset(row.capacities),
        own_integration=not is_receive and row.own_integration is not False,
        phase=row.phase,
        provisional=row.provisional,
        groups=row.groups,
        begin=begin,
        end=end,
        basis=deliberation.head.number or SECONDARY_NETWORK,
        basis_begin=basis_begin,
        basis_end=basis_end,
        own_mode=_mode(text, row.service, row.version, row.role, "own"),
    )


def _sources(
    service: Service, receiving: list[Grant], by_kbo: dict[Kbo, Institution], text: Text
) -> list[Availability]:
    side: Literal["source", "recipient"] = (
        "source" if service.kind is Kind.CONSULTATION else "recipient"
    )
    found = []
    for row, _ in text.availability:
        if (row.service, row.version) != (service.name, service.version):
            continue
        begin, end = period_of(row.begin, row.end)
        data_begin, data_end = period_of(row.data_begin, row.data_end)
        role, kbo = _roles((row.role,))[0], Kbo(row.kbo)
        institution = by_kbo[kbo]
        may_receive = [g for g in receiving if role == g.role or kbo == g.kbo]
        found.append(
            Availability(
                service=row.service,
                version=row.version,
                kbo=kbo,
                role=role,
                capacities=frozenset(row.capacities),
                phase=row.phase,
                order=row.order,
                begin=begin,
                end=end,
                mode=_mode(text, row.service, row.version, row.role, side),
                receive=tuple(sorted(may_receive, key=_holder)),
                secondary_network=institution.secondary_network,
                data_begin=data_begin,
                data_end=data_end,
                changes_only=row.subscribes == "changes",
                is_sectoral=institution.is_sectoral,
                keeper=institution.keeper,
            )
        )
    return sorted(found, key=_in_order)


def _in_order(row: Availability) -> tuple[int, Kbo, Role, Day, Day, list[int]]:
    return row.order, row.kbo, row.role, row.begin, row.data_begin, sorted(row.capacities)


def _service(row: ServiceRow, text: Text) -> Service:
    declared = msgspec.structs.asdict(row)
    declared["kind"] = kind = Kind[row.kind.upper()]
    declared["subject"] = Subject[row.subject.upper()]
    declared["filled_by"] = FilledBy[row.filled_by.upper()]
    code = row.distribution or ("M" if kind is Kind.DISTRIBUTION else "")
    declared["distribution"] = _DISTRIBUTIONS[code]
    declared["integrations"] = tuple(
        Integration(
            inscription=Inscription[found.does.upper()],
            party=Party[found.of.upper()],
            application=found.application,
            capacity=found.capacity,
            phase=found.phase,
        )
        for found, _ in text.integrations
        if (found.service, found.version) == (row.name, row.version)
    )
    return Service(**declared)


_DISTRIBUTIONS = {
    "": Distribution.NONE, "M": Distribution.MUTATION, "Z": Distribution.SUBMISSION
}  # fmt: skip


def _mode(
    text: Text, service: str, version: int, role: str, side: Literal["own", "source", "recipient"]
) -> Mode:
    """The control row of the role decides, else that of every role, else the rule blocks."""
    wanted = (role_of(role), None)
    rows = [row for row, _ in text.controls if (row.service, row.version) == (service, version)]
    for holder in wanted:
        for row in rows:
            mode: str | None = getattr(row, side)
            if role_of(row.role) == holder and mode is not None:
                return Mode[mode.upper()]
    return Mode.BLOCK


def _outages(text: Text) -> Iterable[Outage]:
    for row, _ in text.outages:
        begin_ms, end_ms = (round(t.timestamp() * 1000) for t in (row.begin, row.end))
        yield Outage(kbo=Kbo(row.kbo), service=row.service, begin_ms=begin_ms, end_ms=end_ms)


def _rights(placed: Iterable[Placed[RightRow]]) -> Iterable[RightRows]:
    found: dict[tuple[str, str], list[AccessRight]] = {}
    for row, _ in placed:
        holder = f"u{row.user_key}" if row.user_key else f"a{row.application}"
        begin, end = period_of(row.begin, row.end)
        right = AccessRight(
            kbo=Kbo(row.kbo),
            roles=tuple(sorted(_roles(row.roles))),
            services=frozenset(row.services),
            level=row.level,
            begin=begin,
            end=end,
            means=frozenset(row.means),
        )
        found.setdefault((row.kbo, holder), []).append(right)
    for (kbo, holder), rights in sorted(found.items()):
        yield RightRows(kbo, holder, tuple(sorted(rights, key=ENCODER.encode)))


def _roles(texts: Iterable[str]) -> tuple[Role, ...]:
    return tuple(role for text in texts if (role := role_of(text)) is not None)


def _holder(grant: Grant) -> tuple[str, str, Role, str]:
    return (grant.framework, grant.kbo or "", grant.role or Role(-1, -1), grant.id)
