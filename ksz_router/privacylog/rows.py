"""One line per request that was made: the request, its outcomes and its further persons. Pure."""

from typing import Final

import msgspec

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Entry, Kind


class Row(msgspec.Struct, kw_only=True):
    """An exchange as people read it. Holds no token: whom it is about is in the question."""

    exchange: bytes | None
    at_us: int
    kind: Kind
    """REQUEST or READING; another kind where the request itself was not found."""
    requester: str | None
    acting: str | None
    final_client: str | None
    sector: int | None
    type: int | None
    capacity: int | None
    legal_framework: str | None
    user: bool
    """A user, not only an application, asked."""
    application: str | None
    service: str
    service_version: int
    code: int
    """The verdict: 0 for Forward, else the refusal."""
    replaced: bool
    """The number asked was replaced by the one in use."""
    destinations: tuple[str, ...]
    generation: str
    grant: str
    basis: str
    violations: tuple[str, ...]
    outcomes: tuple[tuple[int, int], ...] = ()
    """Code and Unix microseconds of each outcome."""
    recipients: tuple[tuple[str, int], ...] = ()
    """KBO number and code of each recipient of a distribution."""
    further_persons: int = 0
    reader: str = ""
    purpose: str = ""

    @property
    def duration_us(self) -> int | None:
        """From the request to its first outcome."""
        return self.outcomes[0][1] - self.at_us if self.outcomes else None


_ANSWERED: Final = (Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA)
_SHARED = tuple(
    name for name in Row.__struct_fields__ if name in Entry.__struct_fields__ and name != "user"
)


def new_row(entry: Entry) -> Row:
    """Return the row that begins with this entry."""
    shared = {name: getattr(entry, name) for name in _SHARED}
    row = Row(user=entry.user is not None, replaced=entry.asked is not None, **shared)
    if entry.kind not in (Kind.REQUEST, Kind.READING):
        row.code = 0
        extend(row, entry)
    return row


def extend(row: Row, entry: Entry) -> None:
    """Add an outcome, a recipient or a further person to the row of its exchange."""
    if entry.kind == Kind.OUTCOME:
        row.outcomes = (*row.outcomes, (entry.code, entry.at_us))
    elif entry.kind == Kind.RECIPIENT:
        row.recipients += tuple((kbo, entry.code) for kbo in entry.destinations)
    elif entry.kind == Kind.FURTHER:
        row.further_persons += 1


def may_be_followed(row: Row) -> bool:
    """Say whether more than its first outcome may be known of an exchange.

    After an answer nothing comes: the source or the deadline failed it, or it has recipients.
    """
    if row.kind is not Kind.REQUEST or row.code:
        return False
    return bool(row.recipients) or not any(code in _ANSWERED for code, _ in row.outcomes)
