"""The checks on access rights: whom they name, and that each is within the institution's grants."""

import re

from ksz_router.identifiers import is_application, is_insz
from ksz_router.limits import means_chars_max
from ksz_router.model import Role
from ksz_router.rulebook.index import Index, Period, common_days, grant_days
from ksz_router.rulebook.rows import Place, RightRow, period_of, role_of

_USER_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)


def check_rights(index: Index) -> None:
    """Add a finding for everything that is wrong with access rights."""
    seen: set[RightRow] = set()
    names = {name for name, _ in index.services}
    grants = _grants_by_holder(index)
    for row, place in index.text.rights:
        if row in seen:
            index.error(place, "this right stands here twice", "keep one of the rows")
        seen.add(row)
        _check_right_holder(index, row, place)
        index.check_number(place, "level", row.level, (0, 4))
        _check_means(index, row, place)
        index.check_period(place, row.begin, row.end, "the access right")
        for service in row.services:
            if service not in names:
                reason = f"service {service!r} does not exist"
                index.error(place, reason, "declare it as [[service]], or mend the name")
        if not index.check_kbo(place, "kbo", row.kbo):
            continue
        who = {row.kbo, *index.institutions[row.kbo].members}
        for text in row.roles:
            role = index.check_role(place, "roles", text)
            if role is not None and who.isdisjoint(index.holders.get(role, ())):
                reason = f"neither {row.kbo} nor a member it manages holds role {text}"
                index.error(place, reason, "mend the role")
        held = _held(index, row, who, grants)
        period = period_of(row.begin, row.end)
        outside = [name for name in row.services if not _is_granted(held, name, period)]
        if outside or not _is_granted(held, None, period):
            what = ", ".join(outside) or "anything"
            reason = f"no grant of the institution allows {what} in this role and period"
            index.error(place, reason, "ask for the grant, or narrow the right")


def _check_right_holder(index: Index, row: RightRow, place: Place) -> None:
    # Texts are not repeated here: somebody may have put an INSZ where a key belongs.
    if bool(row.user_key) == bool(row.application):
        index.error(place, "names not exactly one holder", "give user_key or application")
    elif row.user_key and not _USER_KEY.fullmatch(row.user_key):
        mend = "make it with `ksz-router rulebook user-key --institution KBO`"
        index.error(place, "user_key is not 32 hexadecimal digits", mend)
    elif row.application and is_insz(row.application):
        mend = "remove it; a person is named by user_key, and no program has such a number"
        index.error(place, "application is a well-formed INSZ", mend)
    elif row.application and not is_application(row.application):
        index.error(place, "application is not a program number", "give eleven digits")


def _check_means(index: Index, row: RightRow, place: Place) -> None:
    for means in row.means:
        if not 0 < len(means) <= means_chars_max or not (means.isascii() and means.isprintable()):
            mend = f"use 1 to {means_chars_max} printable ASCII characters"
            index.error(place, "means holds one that no request can name", mend)
    if len(set(row.means)) < len(row.means):
        index.error(place, "a means is named twice", "name it once")


_Granted = dict[str, list[Period]]


def _grants_by_holder(index: Index) -> dict[Role | str, _Granted]:
    """Return, by the role or KBO number that holds them, the days each service is granted."""
    found: dict[Role | str, _Granted] = {}
    for deliberation in index.text.deliberations:
        for grant, _ in deliberation.grants:
            days = grant_days(grant, deliberation.head)
            holder = grant.kbo or role_of(grant.role)
            if days is not None and holder is not None and grant.direction != "receive":
                found.setdefault(holder, {}).setdefault(grant.service, []).append(days)
    return found


def _held(
    index: Index, right: RightRow, who: set[str], grants: dict[Role | str, _Granted]
) -> list[_Granted]:
    """Return what the institution and its members hold, in the roles that the right names."""
    wanted = {role_of(text) for text in right.roles}
    holders: set[Role | str] = set(who)
    for kbo in who & index.institutions.keys():
        roles = {role_of(text) for text in index.institutions[kbo].roles}
        holders.update(r for r in roles if r is not None and (not wanted or r in wanted))
    return [grants[holder] for holder in holders if holder in grants]


def _is_granted(held: list[_Granted], service: str | None, period: Period) -> bool:
    """Say whether the service, or any where it is ``None``, is granted on a day of the period."""
    return any(
        common_days(days, period)
        for granted in held
        for periods in ((granted.get(service, []),) if service else granted.values())
        for days in periods
    )
