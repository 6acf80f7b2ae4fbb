"""The checks on deliberations and grants: that each rests on something and can fire."""

import re
from typing import NamedTuple

from ksz_router.limits import framework_chars_max, groups_max
from ksz_router.rulebook.index import Index, Period, common_days, grant_days, institution_days
from ksz_router.rulebook.rows import (
    Deliberation,
    GrantRow,
    Place,
    ServiceRow,
    basis_period,
    period_of,
    role_of,
)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,63}", re.ASCII)
_DIRECTIONS = {
    "consultation": ("request",),
    "submission": ("send", "receive"),
    "distribution": ("send", "receive"),
    "test": (),
}


class _Grant(NamedTuple):
    """A grant that stands on its own feet, for the checks that compare it with others."""

    row: GrantRow
    place: Place
    days: Period
    in_network: bool


def check_grants(index: Index) -> None:
    """Add a finding for everything that is wrong with deliberations and grants."""
    ids: dict[str, Place] = {}
    numbers: dict[str, Place] = {}
    sound: list[_Grant] = []
    for deliberation in index.text.deliberations:
        _check_head(index, deliberation, numbers)
        for row, place in deliberation.grants:
            if not _ID.fullmatch(row.id):
                mend = "use 1 to 64 letters, digits and any of _ . / : -"
                index.error(place, f"grant id {row.id!r} is not one", mend)
            if row.id in ids:
                first = ids[row.id]
                reason = f"grant id {row.id} is used at {first.file}:{first.line} too"
                index.error(place, reason, "give each grant an id of its own; never use one again")
            ids.setdefault(row.id, place)
            service = index.check_service(place, row.service, row.version)
            _check_holder(index, row, place)
            days = _check_days(index, row, place, deliberation)
            if service is not None:
                _check_path(index, row, place, service)
                if days is not None:
                    in_network = deliberation.head.basis != ""
                    sound.append(_Grant(row, place, days, in_network))
    _check_overlaps(index, sound)
    by_service: dict[tuple[str, int], list[_Grant]] = {}
    for grant in sound:
        by_service.setdefault((grant.row.service, grant.row.version), []).append(grant)
    for grant in sound:
        of_service = by_service[grant.row.service, grant.row.version]
        _check_fires(index, grant, of_service)
        if grant.in_network:
            _check_network(index, grant, of_service)


def _check_head(index: Index, deliberation: Deliberation, numbers: dict[str, Place]) -> None:
    head, place, grants = deliberation
    if head.basis:
        if head.number or head.date is not None:
            reason = "names both a deliberation and the basis secondary-network"
            index.error(place, reason, "keep one of the two")
        return
    if not head.number:
        mend = 'give number and date, or basis = "secondary-network"'
        index.error(place, "the grants rest on no deliberation", mend)
        return
    if not _ID.fullmatch(head.number):
        mend = "write it as published, without spaces"
        index.error(place, f"deliberation number {head.number!r} is not one", mend)
    if head.number in numbers:
        reason = f"deliberation {head.number} is in {numbers[head.number].file} too"
        index.error(place, reason, "keep one file per deliberation")
    numbers.setdefault(head.number, place)
    if head.date is None:
        index.error(place, "the deliberation has no date", "give the date it was taken")
    index.check_period(
        place, head.begin or head.date, head.end, f"deliberation {head.number}" if grants else ""
    )
    if not grants:
        index.warn(place, f"no grant rests on deliberation {head.number}", "add a [[grant]]")


def _check_holder(index: Index, row: GrantRow, place: Place) -> None:
    if bool(row.role) == bool(row.kbo):
        index.error(place, "the grant has not exactly one holder", "give role or kbo")
        return
    if row.kbo:
        if index.check_kbo(place, "kbo", row.kbo):
            roles = (role_of(text) for text in index.institutions[row.kbo].roles)
            sectors = {role.sector for role in roles if role is not None}
            index.check_capacities(place, sectors, row.capacities)
        return
    role = index.check_role(place, "role", row.role)
    if role is None:
        return
    if role not in index.holders:
        reason = f"can never fire: no institution holds role {row.role}"
        index.error(place, reason, "add the role to an institution, or remove the grant")
    index.check_capacities(place, {role.sector}, row.capacities)


def _check_days(
    index: Index, row: GrantRow, place: Place, deliberation: Deliberation
) -> Period | None:
    """Return the days on which the grant can be in force; add why there are none."""
    period = index.check_period(place, row.begin, row.end, f"grant {row.id}")
    if period[0] > period[1]:
        return None
    days = grant_days(row, deliberation.head)
    if days is None:
        reason = "can never fire: its period is outside its deliberation's"
        index.error(place, reason, "mend begin or end, or move it to the deliberation it rests on")
        return None
    holders = index.grant_holders(row)
    if holders and not any(
        common_days(days, institution_days(index.institutions[kbo])) for kbo in holders
    ):
        reason = "can never fire: no holder is active in its period"
        index.error(place, reason, "mend the period of the grant or of the institution")
        return None
    if period[1] > (basis_end := basis_period(deliberation.head)[1]) and row.end is not None:
        reason = f"the grant ends on {period[1]}, its deliberation on {basis_end}"
        index.warn(place, reason, "the earlier of the two counts")
    return days


def _check_path(index: Index, row: GrantRow, place: Place, service: ServiceRow) -> None:
    allowed = _DIRECTIONS[service.kind]
    if row.direction not in allowed:
        reason = f"can never fire: a {service.kind} has no direction {row.direction!r}"
        index.error(place, reason, f"use {' or '.join(allowed) or 'no grant at all'}")
    index.check_number(place, "phase", row.phase, (0, 999))
    if len(row.groups) > groups_max:
        index.error(place, "too many data groups", f"name at most {groups_max}")
    if row.direction == "receive":
        if row.framework or row.phase or row.provisional or row.own_integration is not None:
            reason = "a grant to receive has no framework, phase or own integration"
            index.error(place, reason, "leave them out; phases of sources are in [[availability]]")
    elif row.framework:
        _check_path_b(index, row, place, service)
    else:
        if row.kbo:
            reason = "path A goes by role, and this grant names a KBO number"
            index.error(place, reason, "give role, or a framework (path B)")
        if not row.capacities:
            reason = "can never fire: path A without capacities"
            index.error(place, reason, "give capacities, or a framework (path B)")
        if row.own_integration is False:
            reason = "path A always asks for the own integration"
            index.error(place, reason, "leave own_integration out, or set a control mode")


def _check_path_b(index: Index, row: GrantRow, place: Place, service: ServiceRow) -> None:
    if len(row.framework) > framework_chars_max or not row.framework.isprintable():
        mend = f"use 1 to {framework_chars_max} printable characters"
        index.error(place, "the framework is not a legal framework", mend)
    if row.own_integration is None:
        mend = "set it to true or false, as the deliberation says"
        index.error(place, "path B must say own_integration", mend)
    elif not row.own_integration:
        if row.capacities or row.phase or row.provisional:
            reason = "capacities, phase or provisional without own integration"
            index.error(place, reason, "leave them out, or set own_integration = true")
    elif service.subject != "person":
        reason = "own integration asked, and the service is about no person"
        index.error(place, reason, "set own_integration = false")
    elif not row.capacities:
        reason = "can never fire: own integration without capacities"
        index.error(place, reason, "give the capacities in which the person must be known")


def _check_overlaps(index: Index, grants: list[_Grant]) -> None:
    groups: dict[tuple[object, ...], list[_Grant]] = {}
    for grant in grants:
        row = grant.row
        holder = (row.direction, row.service, row.version, row.kbo, role_of(row.role))
        groups.setdefault((*holder, row.framework), []).append(grant)
    for same in groups.values():
        for position, grant in enumerate(same):
            for other in same[:position]:
                if common_days(grant.days, other.days) and _share_capacity(grant.row, other.row):
                    where = f"{other.place.file}:{other.place.line}"
                    reason = f"overlaps grant {other.row.id} at {where}"
                    index.error(grant.place, reason, "end one, or join them in one grant")


def _share_capacity(one: GrantRow, other: GrantRow) -> bool:
    """On path B the first grant in force decides, whatever its capacities."""
    if one.framework or not one.capacities or not other.capacities:
        return True
    return not set(one.capacities).isdisjoint(other.capacities)


def _check_fires(index: Index, grant: _Grant, of_service: list[_Grant]) -> None:
    """Somebody must supply or receive the service on a day the grant is in force."""
    row = grant.row
    key = (row.service, row.version)
    rows = index.availability.get(key, [])
    if row.direction == "receive":
        rows = [a for a in rows if a.kbo in index.grant_holders(row)]
        rows = [a for a in rows if row.kbo or role_of(a.role) == role_of(row.role)]
    if not any(common_days(grant.days, period_of(a.begin, a.end)) for a in rows):
        reason = "can never fire: no [[availability]] for the service in its period"
        index.error(grant.place, reason, "add the source or recipient, or remove the grant")
    elif row.direction == "send" and not any(
        other.row.direction == "receive" and common_days(grant.days, other.days)
        for other in of_service
    ):
        reason = "can never fire: nobody has a grant to receive the service"
        index.error(grant.place, reason, 'add a grant with direction = "receive"')


def _check_network(index: Index, grant: _Grant, of_service: list[_Grant]) -> None:
    """A grant without deliberation holds inside one secondary network only."""
    row = grant.row
    networks = {index.institutions[kbo].secondary_network for kbo in index.grant_holders(row)}
    if not networks - {""}:
        reason = "can never fire: no holder is in a secondary network"
        index.error(grant.place, reason, "set secondary_network, or name the deliberation")
        return
    key = (row.service, row.version)
    if row.direction == "receive":
        # The control confines the sender's grant to its network; a recipient's it cannot.
        if any(other.row.direction == "send" and not other.in_network for other in of_service):
            reason = "the service is also sent on a deliberation, from outside the network"
            index.error(grant.place, reason, "let the recipient's grant rest on a deliberation")
        return
    sources = {
        index.institutions[a.kbo].secondary_network
        for a in index.availability.get(key, ())
        if a.kbo in index.institutions
    }
    if not (sources & networks) - {""}:
        reason = "can never fire: no source is in the secondary network of a holder"
        index.error(grant.place, reason, "name the deliberation it rests on")
