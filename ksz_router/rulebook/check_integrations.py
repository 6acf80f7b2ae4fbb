"""The checks on integrations by business message: that each change can be sent, and is allowed.

A change is a submission of the router's own institution to the directory's services, and passes
the control like any other. What it would always be refused for is found here.
"""

from collections.abc import Iterable

from ksz_router.identifiers import is_application
from ksz_router.model import INSCRIBE_SERVICE, REMOVE_SERVICE, Role
from ksz_router.rulebook.index import Index
from ksz_router.rulebook.rows import GrantRow, IntegrationRow, Place, role_of

_CHANGES = {"inscribe": INSCRIBE_SERVICE, "remove": REMOVE_SERVICE}


def check_integrations(index: Index) -> None:
    """Add a finding for everything that is wrong with them."""
    seen: set[IntegrationRow] = set()
    for row, place in index.text.integrations:
        if row in seen:
            index.error(place, "this integration stands here twice", "keep one of the rows")
        seen.add(row)
        service = index.check_service(place, row.service, row.version)
        index.check_number(place, "phase", row.phase, (0, 999))
        if not is_application(row.application):
            index.error(place, "application is not a program number", "give eleven digits")
        if service is None:
            continue
        if row.service in _CHANGES.values():
            reason = f"{row.service} is what integrations are sent as"
            index.error(place, reason, "name the message that they follow from")
        elif service.kind == "consultation" or service.subject != "person":
            reason = "an integration follows from a submission or distribution on a person"
            index.error(place, reason, "name such a service")
        else:
            _check_capacity(index, row, place)
            _check_allowed(index, row, place)


def _check_capacity(index: Index, row: IntegrationRow, place: Place) -> None:
    """A capacity that is not given must be known whenever the message was forwarded."""
    if row.capacity is not None:
        sectors = {role.sector for role, _ in _parties(index, row)}
        if sectors:
            index.check_capacities(place, sectors, (row.capacity,))
        return
    controls = [c for c, _ in index.text.controls if (c.service, c.version) == _key(row)]
    if row.of == "recipient" and any(c.recipient not in (None, "block") for c in controls):
        reason = "a recipient need not know the person, so that no line says the capacity"
        index.error(place, reason, "give capacity, or let the control of recipients block")


def _check_allowed(index: Index, row: IntegrationRow, place: Place) -> None:
    change = _CHANGES[row.does]
    own = next((a.kbo for a in index.availability.get((change, 1), ())), None)
    if own is None or own not in index.institutions:
        reason = f"can never be applied: no [[availability]] for {change} version 1"
        index.error(place, reason, "add the directory's services, as docs/rulebook.md says")
        return
    institution = index.institutions[own]
    if not institution.uris:
        reason = f"can never be applied: {own}, whose {change} is, has no uris"
        index.error(place, reason, "give the URI of the router's own institution")
    rights = [right for right, _ in index.text.rights if right.kbo == own]
    if not any(right.application == row.application for right in rights):
        reason = f"can never be applied: {own} has no access right for the application"
        index.error(place, reason, "add a [[right]] with this application")
    if row.of == "sender" and any(g.framework for g in _sending(index, row)):
        reason = "who sends under a legal framework names no role that could be inscribed"
        index.error(place, reason, "let the grants to send name a role and capacities (path A)")
    granted = {role_of(g.role) for g in _sending(index, row, change, 1)}
    for role, holders in _parties(index, row):
        name = f"{role.sector}/{role.type}"
        if role not in granted:
            reason = f"can never be applied: role {name} has no grant to send {change}"
            index.error(place, reason, 'add a [[grant]] with direction = "send"')
        strange = sorted(set(holders) - {own, *institution.members})
        if strange:
            reason = f"can never be applied: {own} does not manage {strange[0]}"
            if len(strange) > 1:
                reason += f" and {len(strange) - 1} more that hold role {name}"
            index.error(place, reason, f"add it to the members of {own}")


def _parties(index: Index, row: IntegrationRow) -> Iterable[tuple[Role, Iterable[str]]]:
    """The roles that may be inscribed, and who holds them."""
    if row.of == "sender":
        roles = {role_of(grant.role) for grant in _sending(index, row)}
        return [(r, index.holders.get(r, ())) for r in sorted(r for r in roles if r is not None)]
    found: dict[Role, set[str]] = {}
    for available in index.availability.get(_key(row), ()):
        role = role_of(available.role)
        if role is not None:
            found.setdefault(role, set()).add(available.kbo)
    return sorted(found.items())


def _sending(
    index: Index, row: IntegrationRow, service: str = "", version: int = 0
) -> list[GrantRow]:
    """The grants to send the message, or another service."""
    wanted = (service, version) if service else _key(row)
    return [
        grant
        for deliberation in index.text.deliberations
        for grant, _ in deliberation.grants
        if (grant.service, grant.version) == wanted and grant.direction == "send"
    ]


def _key(row: IntegrationRow) -> tuple[str, int]:
    return row.service, row.version
