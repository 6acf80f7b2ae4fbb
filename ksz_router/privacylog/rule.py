"""A question put to entries: which of them begin a row that fits. Pure."""

from collections.abc import Sequence

from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.privacylog.keys import Tokens
from ksz_router.privacylog.question import Asked

BEGINS = (Kind.REQUEST, Kind.READING)
"""Kinds of entries that a row begins with."""


class Rule:
    """What is asked, with the tokens of some quarters.

    A REQUEST says everything but who supplied the answer and whom else it concerned: those an
    OUTCOME, a RECIPIENT and a FURTHER add. So a row fits if its first entry fits the rest, and any
    of its entries the person and the user.
    """

    def __init__(self, asked: Asked, tokens: Sequence[Tokens]) -> None:
        self.asked = asked
        self.from_us, self.to_us = asked.from_us, asked.to_us
        self._persons = {t.person(number.digits) for t in tokens for number in asked.persons}
        self._users = set() if asked.user is None else {t.user(asked.user) for t in tokens}
        self._tickets = set[bytes]()
        if asked.ticket is not None:
            assert asked.institution is not None, "a ticket is its institution's"
            self._tickets = {t.ticket(asked.institution, asked.ticket) for t in tokens}
        self.takes_several = bool(asked.persons) or asked.user is not None
        """What a row must fit may lie in different entries of its exchange."""
        self.words = self._words()
        """A fitting record holds one of them, as it stands."""

    def _words(self) -> tuple[bytes, ...]:
        asked = self.asked
        if asked.exchange is not None:
            return (asked.exchange,)
        if asked.ticket is not None or self.takes_several:
            number = () if asked.user is None else (asked.user.encode(),)
            return (*self._tickets, *self._persons, *self._users, *number)
        if asked.institution is not None:
            return (asked.institution.encode(),)
        return (b":log:",) if asked.violation is not None else (b"",)

    def may_concern(self, record: bytes) -> bool:
        """Say whether a record holds, as it stands, what a fitting one must: skips most others."""
        # No generator: this is asked of every record.
        for needle in self.words:  # noqa: SIM110
            if needle in record:
                return True
        return False

    def fits_person(self, entry: Entry) -> bool:
        return not self.asked.persons or bool({entry.person, entry.asked} & self._persons)

    def fits_user(self, entry: Entry, sent: Sequence[str]) -> bool:
        """Say whether the user asked or supplied; ``sent``: destinations of the request."""
        asked = self.asked
        if asked.user is None:
            return True
        if entry.user not in self._users and entry.application != asked.user:
            return False
        if asked.institution is None:
            return True
        if entry.kind in BEGINS:
            return asked.institution in (entry.requester, entry.acting, entry.final_client)
        return asked.institution in (sent if len(sent) == 1 else entry.destinations)

    def fits_first(self, entry: Entry) -> bool:
        """Say whether the first entry of a row fits in all but person and user."""
        asked = self.asked
        if not self.from_us <= entry.at_us < self.to_us:
            return False
        if asked.exchange is not None and entry.exchange != asked.exchange:
            return False
        if asked.ticket is not None and entry.ticket not in self._tickets:
            return False
        if asked.institution is not None and asked.institution not in (
            entry.requester, entry.acting, entry.final_client, *entry.destinations,
        ):  # fmt: skip
            return False
        if asked.service is not None and entry.service != asked.service:
            return False
        if asked.violation is not None and not _violates(entry, asked.violation):
            return False
        if asked.verdict is None:
            return True
        return entry.kind == Kind.REQUEST and entry.code == asked.verdict


def _violates(entry: Entry, control: str) -> bool:
    controls = {violation.partition(":")[0] for violation in entry.violations}
    return control in controls or (control == "any" and bool(controls))
