"""The checks on secondary networks that keep a directory of their own: that it can be looked into.

A directory that is kept at the managing institution is asked by a consultation of the router's own
institution, which passes the control like any other. What it would always be refused for is found
here.
"""

from ksz_router.identifiers import is_application
from ksz_router.keepers import KNOWN_SERVICE
from ksz_router.model import INSCRIBE_SERVICE, REMOVE_SERVICE
from ksz_router.rulebook.index import Index
from ksz_router.rulebook.rows import ControlRow, GrantRow, InstitutionRow, NetworkRow, Place

_ASKED = (KNOWN_SERVICE, 1)
_IN_FILES = (INSCRIBE_SERVICE, "directory.adjust", REMOVE_SERVICE, "directory.register")
"""Services whose messages come as lines of files too, which are judged where nobody is asked."""


def check_networks(index: Index) -> None:
    """Add a finding for everything that is wrong with them."""
    used = {row.secondary_network for row, _ in index.text.institutions}
    seen: dict[str, NetworkRow] = {}
    for row, place in index.text.networks:
        before = seen.setdefault(row.name, row)
        if before.directory != row.directory:
            reason = f"the directory of network {row.name} is both hosted here and asked for"
            index.error(place, reason, "keep one of the rows")
        elif before is not row:
            index.error(place, f"network {row.name} stands here twice", "keep one of the rows")
        if row.name not in used:
            reason = f"no institution is in the secondary network {row.name!r}"
            index.error(place, reason, "mend the name, or set secondary_network")
        if row.directory == "asked":
            _check_asked(index, row, place)
        elif row.at or row.application:
            reason = f"the directory of network {row.name} is hosted here, and asked for nowhere"
            index.error(place, reason, 'leave at and application out, or set directory = "asked"')


def _check_asked(index: Index, row: NetworkRow, place: Place) -> None:
    if not is_application(row.application):
        index.error(place, "application is not a program number", "give eleven digits")
    if not index.check_kbo(place, "at", row.at):
        return
    keeper = index.institutions[row.at]
    if not keeper.endpoint:
        reason = f"can never be asked: {row.at} has no endpoint"
        index.error(place, reason, "add an [[institution.endpoint]] to it")
    if keeper.secondary_network != row.name:
        reason = f"{row.at} is not in network {row.name}, and keeps no directory of it"
        index.error(place, reason, "name the network's managing institution")
    if _ASKED not in index.services:
        reason = f"can never be asked: there is no service {KNOWN_SERVICE} version 1"
        index.error(place, reason, "declare it as docs/rulebook.md says")
        return
    _check_service(index, row, place)
    _check_asker(index, row, place)
    for service in _IN_FILES:
        if (service, 1) in index.services and _modes(index, (service, 1), "own") != {"none"}:
            reason = f"lines of files for {service} would have to ask at {row.at}"
            index.error(place, reason, 'set own = "none" in its [[control]] rows')


def _check_service(index: Index, row: NetworkRow, place: Place) -> None:
    service = index.services[_ASKED]
    if (service.kind, service.subject, service.any_number) != ("consultation", "person", True):
        reason = f"{KNOWN_SERVICE} is not a consultation about a person under any number"
        mend = 'set kind = "consultation", subject = "person" and any_number = true'
        index.error(place, reason, mend)
    if service.filled_by == "directory":
        reason = f"the router names whom it asks, and {KNOWN_SERVICE} does not let it"
        index.error(place, reason, "leave filled_by out")
    sources = [s for s in index.availability.get(_ASKED, ()) if s.kbo == row.at]
    if not any(source.data_begin is source.data_end is None for source in sources):
        reason = f"can never be asked: {row.at} is no source of {KNOWN_SERVICE} for all days"
        index.error(place, reason, "add an [[availability]] row for it, without data period")
    if _modes(index, _ASKED, "source") != {"none"}:
        reason = f"the primary directory would have to know each person for {row.at}"
        index.error(place, reason, f'add a [[control]] for {KNOWN_SERVICE} with source = "none"')


def _check_asker(index: Index, row: NetworkRow, place: Place) -> None:
    """The router's own institution holds the one grant, under a legal framework, and may use it."""
    grants = [
        grant
        for deliberation in index.text.deliberations
        for grant, _ in deliberation.grants
        if (grant.service, grant.version) == _ASKED
    ]
    own = _own(index, grants)
    if own is None:
        reason = f"{KNOWN_SERVICE} needs one grant, of the router's own institution and nobody else"
        mend = "add one with kbo and framework, and own_integration = false"
        index.error(place, reason, mend)
        return
    if not own.uris:
        reason = f"can never be asked: {own.kbo}, which holds the grant to ask, has no uris"
        index.error(place, reason, "give the URI of the router's own institution")
    rights = [right for right, _ in index.text.rights if right.kbo == own.kbo]
    if not any(
        right.application == row.application
        and KNOWN_SERVICE in (right.services or _ASKED)
        and not (right.roles or right.level or right.means)
        for right in rights
    ):
        reason = f"can never be asked: {own.kbo} has no access right for the application"
        mend = f"add a [[right]] with this application and {KNOWN_SERVICE}, and no roles or level"
        index.error(place, reason, mend)


def _own(index: Index, grants: list[GrantRow]) -> InstitutionRow | None:
    if len(grants) != 1:
        return None
    (grant,) = grants
    is_plain = grant.direction == "request" and grant.own_integration is False
    return index.institutions.get(grant.kbo) if is_plain and grant.framework else None


def _modes(index: Index, service: tuple[str, int], side: str) -> set[str]:
    """The control modes of a side: of the row for every role, and of those for one."""
    rows: list[ControlRow] = [
        row for row, _ in index.text.controls if (row.service, row.version) == service
    ]
    common = [getattr(row, side) or "block" for row in rows if not row.role] or ["block"]
    return {*common, *[mode for row in rows if row.role and (mode := getattr(row, side))]}
