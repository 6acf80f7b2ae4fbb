"""Check the whole source text and return everything that is wrong with it, not the first fault.

Errors refuse the text; warnings do not, and most of them need ``today``. What a rule cannot find
here it can never find at run time: a text without errors compiles.
"""

import re
from datetime import timedelta
from zoneinfo import ZoneInfo

from ksz_router.identifiers import is_kbo
from ksz_router.limits import (
    deadline_ms_max,
    payload_bytes_max,
    recipients_max,
    service_chars_max,
)
from ksz_router.model import Day
from ksz_router.rulebook.check_grants import check_grants
from ksz_router.rulebook.check_integrations import check_integrations
from ksz_router.rulebook.check_networks import check_networks
from ksz_router.rulebook.check_rights import check_rights
from ksz_router.rulebook.index import Index, common_days, institution_days
from ksz_router.rulebook.rows import (
    AvailabilityRow,
    Finding,
    InstitutionRow,
    OutageRow,
    Place,
    Placed,
    Text,
    period_of,
)

_BRUSSELS = ZoneInfo("Europe/Brussels")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", re.ASCII)
_URI_CHARS_MAX = 256


def check(text: Text, today: Day | None = None) -> list[Finding]:
    """Return every finding, by file and line.

    Args:
        text: The rows as read.
        today: The Brussels day from which expiry is judged; without it there are no such warnings.
    """
    index = Index(text, today)
    _check_institutions(index)
    _check_services(index)
    check_networks(index)
    _check_controls(index)
    _check_availability(index)
    check_integrations(index)
    check_grants(index)
    for outage in text.outages:
        _check_outage(index, outage)
    check_rights(index)
    return sorted(set(index.findings), key=lambda finding: (finding.place, not finding.is_error))


def _check_institutions(index: Index) -> None:
    seen: set[str] = set()
    uris: dict[str, str] = {}
    for row, place in index.text.institutions:
        if not is_kbo(row.kbo):
            mend = "give ten digits, 0 or 1 first, the last two 97 minus the rest modulo 97"
            index.error(place, f"kbo: {row.kbo!r} is not a KBO number", mend)
        if row.kbo in seen:
            index.error(place, f"institution {row.kbo} stands here twice", "keep one of the rows")
        seen.add(row.kbo)
        if not row.name.strip():
            index.error(place, "name is empty", "give the name of the institution")
        if row.secondary_network and not _NAME.fullmatch(row.secondary_network):
            mend = "use letters, digits, '-', '_' and '.'"
            index.error(place, f"secondary_network {row.secondary_network!r} is no name", mend)
        index.check_period(place, row.begin, row.end)
        for role in row.roles:
            index.check_role(place, "roles", role)
        if len(set(row.roles)) < len(row.roles):
            index.error(place, "a role is named twice", "name it once")
        for member in row.members:
            if member == row.kbo:
                index.error(place, "the institution is its own member", "leave it out of members")
            else:
                index.check_kbo(place, "members", member)
        for uri in row.uris:
            _check_uri(index, place, uri)
            owner = uris.setdefault(uri, row.kbo)
            if owner != row.kbo or row.uris.count(uri) > 1:
                index.error(place, f"URI {uri} is used twice", "a URI names one institution")
        if not (row.uris or row.endpoint or _is_managed(index, row)):
            mend = "give uris, or an endpoint, or name it as a member"
            index.warn(place, "the institution can neither connect nor be reached", mend)
    for row, place in index.text.institutions:
        _check_endpoints(index, row, place, uris)


def _is_managed(index: Index, row: InstitutionRow) -> bool:
    return any(row.kbo in other.members for other in index.institutions.values())


def _check_endpoints(index: Index, row: InstitutionRow, place: Place, uris: dict[str, str]) -> None:
    for endpoint in row.endpoint:
        _check_uri(index, place, endpoint.uri)
        index.check_number(place, "endpoint port", endpoint.port, (1, 65_535))
        if not endpoint.host or not endpoint.host.isascii() or " " in endpoint.host:
            index.error(place, "endpoint host is not a host", "give a DNS name or an address")
        if uris.get(endpoint.uri, row.kbo) != row.kbo:
            reason = f"endpoint URI {endpoint.uri} is another institution's"
            index.error(place, reason, "give the URI in this institution's own certificate")


def _check_uri(index: Index, place: Place, uri: str) -> None:
    if len(uri) > _URI_CHARS_MAX or not _URI.fullmatch(uri):
        mend = 'write the exact SAN URI of the certificate, such as "urn:kbo:0999999922"'
        index.error(place, f"{uri!r} is not a URI", mend)


def _check_services(index: Index) -> None:
    seen: set[tuple[str, int]] = set()
    granted = {(g.row.service, g.row.version) for d in index.text.deliberations for g in d.grants}
    for row, place in index.text.services:
        if len(row.name) > service_chars_max or not _NAME.fullmatch(row.name):
            mend = f"use 1 to {service_chars_max} letters, digits, '-', '_' and '.'"
            index.error(place, f"service name {row.name!r} is not one", mend)
        if row.kind == "test" or row.name == "TestConnectionService":
            mend = "leave it out: TestConnectionService is in every rulebook"
            index.error(place, "a test service may not be declared", mend)
        if (row.name, row.version) in seen:
            reason = f"service {row.name} version {row.version} stands here twice"
            index.error(place, reason, "keep one of the rows")
        seen.add((row.name, row.version))
        index.check_number(place, "version", row.version, (1, 999_999_999))
        index.check_number(
            place, "payload_bytes_max", row.payload_bytes_max, (0, payload_bytes_max)
        )
        index.check_number(place, "deadline_ms", row.deadline_ms, (1, deadline_ms_max))
        if row.subject != "person" and (row.follow_replaced or row.refuse_deceased):
            reason = "follow_replaced and refuse_deceased need a person as subject"
            index.error(place, reason, "leave them out, or set subject")
        if row.any_number and (
            row.subject != "person" or row.follow_replaced or row.refuse_deceased
        ):
            reason = "any_number is for a person as subject, without the other rules on its number"
            index.error(place, reason, "leave out any_number, or the others")
        if (row.name, row.version) not in granted and row.kind != "test":
            index.warn(
                place, f"no grant allows {row.name} version {row.version}", "add a [[grant]]"
            )

        if row.distribution is not None and row.kind != "distribution":
            reason = f"a {row.kind} has no distribution code"
            index.error(place, reason, "leave distribution out, or set kind")


def _check_controls(index: Index) -> None:
    seen: set[tuple[str, int, str]] = set()
    for row, place in index.text.controls:
        service = index.check_service(place, row.service, row.version)
        if row.role:
            role = index.check_role(place, "role", row.role)
            if role is not None and role not in index.holders:
                reason = f"no institution holds role {row.role}"
                index.error(place, reason, "mend the role, or remove the row")
        if (row.service, row.version, row.role) in seen:
            index.error(place, "this control stands here twice", "keep one of the rows")
        seen.add((row.service, row.version, row.role))
        if row.own is None and row.source is None and row.recipient is None:
            index.error(place, "the control sets no mode", "give own, source or recipient")
        if service is None:
            continue
        if row.source is not None and service.kind != "consultation":
            reason = "source is for consultations only"
            index.error(place, reason, "use recipient for submissions and distributions")
        if row.recipient is not None and service.kind == "consultation":
            reason = "recipient is for submissions and distributions only"
            index.error(place, reason, "use source for consultations")


def _check_availability(index: Index) -> None:
    seen: dict[tuple[str, int, str, str], list[AvailabilityRow]] = {}
    for row, place in index.text.availability:
        service = index.check_service(place, row.service, row.version)
        role = index.check_role(place, "role", row.role)
        period = index.check_period(place, row.begin, row.end)
        index.check_period(place, row.data_begin, row.data_end)
        is_consultation = service is not None and service.kind == "consultation"
        if row.subscribes == "changes" and is_consultation:
            reason = "nobody subscribes to a consultation"
            index.error(place, reason, "leave subscribes out")
        index.check_number(place, "phase", row.phase, (0, 999))
        index.check_number(place, "order", row.order, (0, 999))
        if role is not None:
            index.check_capacities(place, {role.sector}, row.capacities)
        if index.check_kbo(place, "kbo", row.kbo):
            institution = index.institutions[row.kbo]
            if role is not None and row.kbo not in index.holders.get(role, ()):
                reason = f"{row.kbo} does not hold role {row.role}"
                index.error(place, reason, "add it to the institution's roles, or mend the role")
            if not institution.endpoint:
                reason = f"source {row.kbo} has no endpoint"
                index.error(place, reason, "add an [[institution.endpoint]] to it")
            if common_days(period, institution_days(institution)) is None:
                reason = "the source is never active in this period"
                index.error(place, reason, "mend the period of the row or of the institution")
        same = seen.setdefault((row.service, row.version, row.kbo, row.role), [])
        if any(_overlap(row, other) for other in same):
            index.error(place, "overlaps another row of this source", "join them in one row")
        same.append(row)
    for service, place in index.text.services:
        rows = index.availability.get((service.name, service.version), ())
        recipients = {recipient.kbo for recipient in rows}
        if service.kind == "distribution" and len(recipients) > recipients_max:
            reason = f"{service.name} has {len(recipients)} recipients"
            mend = f"a request that more than {recipients_max} fit is refused"
            index.warn(place, reason, mend)


def _overlap(row: AvailabilityRow, other: AvailabilityRow) -> bool:
    """On some day both are in force for a capacity, and hold data of a day in common."""
    in_force = common_days(period_of(row.begin, row.end), period_of(other.begin, other.end))
    data = common_days(
        period_of(row.data_begin, row.data_end), period_of(other.data_begin, other.data_end)
    )
    capacities = not (row.capacities and other.capacities) or bool(
        {*row.capacities} & {*other.capacities}
    )
    return bool(in_force and data and capacities)


def _check_outage(index: Index, placed: Placed[OutageRow]) -> None:
    row, place = placed
    is_known = index.check_kbo(place, "kbo", row.kbo)
    supplied = {a.service for a, _ in index.text.availability if a.kbo == row.kbo}
    if is_known and (row.service not in supplied if row.service else not supplied):
        what = f"of service {row.service}" if row.service else "of anything"
        index.error(place, f"{row.kbo} is not a source {what}", "mend kbo or service")
    for moment in (row.begin, row.end):
        if moment.tzinfo is None:
            mend = "add the offset of Brussels, such as 2027-01-31T22:00:00+01:00"
            index.error(place, "a moment without offset", mend)
            return
        offset = moment.astimezone(_BRUSSELS).utcoffset() or timedelta()
        if moment.utcoffset() != offset:
            hours = int(offset.total_seconds()) // 3600
            reason = f"{moment.isoformat()} has not the offset of Brussels at that moment"
            index.error(place, reason, f"use +{hours:02}:00 and check the hour")
    if row.end <= row.begin:
        index.error(place, "the outage ends before it begins", "mend begin or end")
