"""A question as conditions for the rows of ``p`` and ``u`` files: as ``rule`` for entries. Pure.

Conditions hold tokens: they are shown to nobody.
"""

from collections.abc import Sequence

from ksz_router.identifiers import is_insz
from ksz_router.privacylog.archive.engine import any_of, blob, text
from ksz_router.privacylog.archive.institutions import member_of
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.keys import Tokens
from ksz_router.privacylog.question import FOREVER_US, Asked, Position
from ksz_router.privacylog.rule import BEGINS

BEGIN = f"kind IN ({', '.join(str(int(kind)) for kind in BEGINS)})"
"""The row begins with its request, or is a reading."""


def fits_first(asked: Asked, after: Position | None) -> str:
    """Return the condition for what the first entry of a row says, but its user."""
    from_us, to_us = asked.from_us, asked.to_us
    if after is not None:
        from_us = max(from_us, after.at_us)
    found = [BEGIN]
    if from_us:
        found.append(f"at_us >= {from_us}")
    if to_us != FOREVER_US:
        found.append(f"at_us < {to_us}")
    if after is not None and after.key[1]:
        found.append(f"(at_us > {after.at_us} OR exchange >= {blob(after.key[1])})")
    if asked.institution is not None:
        kbo = text(asked.institution)
        found.append(f"({_asks_for(kbo)} OR list_contains(destinations, {kbo}))")
    if asked.service is not None:
        found.append(f"service = {text(asked.service)}")
    if asked.verdict is not None:
        found.append(f"kind = {int(Kind.REQUEST)} AND code = {asked.verdict}")
    if asked.violation == "any":
        found.append("len(violations) > 0")
    elif asked.violation is not None:
        controls = "list_transform(violations, lambda x: split_part(x, ':', 1))"
        found.append(f"list_contains({controls}, {text(asked.violation)})")
    return " AND ".join(found)


def asks(asked: Asked, tokens: Sequence[Tokens]) -> str:
    """Return the condition for rows that the user or program asked for, of the institution if any.

    It is true or false, and never null.
    """
    assert asked.user is not None
    found = f"application = {text(asked.user)}"
    if is_insz(asked.user):
        found = any_of('"user"', [blob(each.user(asked.user)) for each in tokens])
    if asked.institution is not None:
        found += f" AND {_asks_for(text(asked.institution))}"
    return f"coalesce({found}, false)"


def used(asked: Asked, tokens: Sequence[Tokens]) -> str:
    """Return the condition for ``u`` rows of the institution, of the user, or of anyone.

    It holds of several rows of an exchange where an institution has several members in it.
    """
    if asked.institution is not None:
        found = f"institution = {text(asked.institution)}"
        return found if asked.user is None else f"{found} AND {is_member(asked, tokens)}"
    return _OF_REQUESTER if asked.user is None else is_member(asked, tokens)


def is_member(asked: Asked, tokens: Sequence[Tokens]) -> str:
    """Return the condition for ``u`` rows of who asked or supplied.

    A program that is named beside a user is in the row of the request, and no member.
    """
    assert asked.user is not None
    if is_insz(asked.user):
        return any_of("member", [blob(each.user(asked.user)) for each in tokens])
    once = "" if asked.institution is not None else f" AND {_OF_REQUESTER}"
    return f"(member = {blob(member_of(asked.user))} OR ({asks(asked, tokens)}{once}))"


_OF_REQUESTER = "institution = coalesce(requester, '')"


def _asks_for(kbo: str) -> str:
    return f"{kbo} IN (requester, acting, final_client)"
