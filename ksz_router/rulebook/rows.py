"""The rows of the rulebook's source text, as they stand in the TOML files.

Nothing is judged here beyond shape: a wrong type or an unknown key is refused by the reader,
everything else by ``check``. Days are TOML local dates, outages TOML offset date-times.
"""

import datetime as dt
from typing import Generic, Literal, NamedTuple, TypeVar

import msgspec

from ksz_router.days import to_day
from ksz_router.model import OPEN, Day, Role

Row = TypeVar("Row")


class Place(NamedTuple):
    """Where a row stands: the file, relative to the folder, and the line of its header."""

    file: str
    line: int


class Placed(NamedTuple, Generic[Row]):
    """A row and where it stands."""

    row: Row
    place: Place


class EndpointRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[institution.endpoint]]``: where a source listens, and the URI it must prove."""

    host: str
    port: int
    uri: str


class InstitutionRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[institution]]``."""

    kbo: str
    name: str
    uris: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    secondary_network: str = ""
    endpoint: tuple[EndpointRow, ...] = ()
    begin: dt.date | None = None
    end: dt.date | None = None


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[service]]``."""

    name: str
    version: int
    kind: Literal["consultation", "submission", "distribution", "test"]
    subject: Literal["person", "enterprise", "none"]
    follow_replaced: bool = False
    refuse_deceased: bool = False
    payload_bytes_max: int = 65_536
    deadline_ms: int = 10_000
    distribution: Literal["M", "Z"] | None = None
    filled_by: Literal["either", "sender", "directory"] = "either"
    any_number: bool = False


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[network]]``: a secondary network that keeps a directory of its own, and where.

    It is hosted here, or asked for ``at`` the managing institution; then ``application`` is the
    program number under which the router's own institution asks.
    """

    name: str
    directory: Literal["hosted", "asked"]
    at: str = ""
    application: str = ""


class IntegrationRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[integration]]``: a message, once forwarded, changes the person directory."""

    service: str
    version: int
    does: Literal["inscribe", "remove"]
    of: Literal["sender", "recipient"]
    application: str
    capacity: int | None = None
    phase: int = 0


ModeName = Literal["none", "log", "block"]


class ControlRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[control]]``: how a broken integration rule is treated; without role, for every role."""

    service: str
    version: int
    role: str = ""
    own: ModeName | None = None
    source: ModeName | None = None
    recipient: ModeName | None = None


class GrantRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[grant]]``."""

    id: str
    direction: Literal["request", "send", "receive"]
    service: str
    version: int
    role: str = ""
    kbo: str = ""
    framework: str = ""
    capacities: tuple[int, ...] = ()
    phase: int = 0
    provisional: bool = False
    own_integration: bool | None = None
    groups: tuple[str, ...] = ()
    begin: dt.date | None = None
    end: dt.date | None = None


class DeliberationRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of a file in ``deliberations``: a deliberation, or the basis that needs none."""

    number: str = ""
    title: str = ""
    date: dt.date | None = None
    begin: dt.date | None = None
    end: dt.date | None = None
    amended: tuple[dt.date, ...] = ()
    basis: Literal["", "secondary-network"] = ""


class Deliberation(NamedTuple):
    """A file in ``deliberations``: its head and the grants that rest on it."""

    head: DeliberationRow
    place: Place
    grants: tuple[Placed[GrantRow], ...]


class AvailabilityRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[availability]]``."""

    service: str
    version: int
    kbo: str
    role: str
    capacities: tuple[int, ...] = ()
    phase: int = 0
    order: int = 0
    begin: dt.date | None = None
    end: dt.date | None = None
    data_begin: dt.date | None = None
    data_end: dt.date | None = None
    subscribes: Literal["all", "changes"] = "all"


class OutageRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[outage]]``; without service, of every service of the source."""

    kbo: str
    service: str = ""
    begin: dt.datetime
    end: dt.datetime


class RightRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[right]]``; a user is named by a key that only the institution's own INSZ list yields."""

    kbo: str
    user_key: str = ""
    application: str = ""
    roles: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    level: int = 0
    means: tuple[str, ...] = ()
    begin: dt.date | None = None
    end: dt.date | None = None


class SourceFile(msgspec.Struct, frozen=True):
    """A file the text was read from."""

    path: str
    sha256: str


class Text(NamedTuple):
    """The whole source text."""

    institutions: tuple[Placed[InstitutionRow], ...]
    services: tuple[Placed[ServiceRow], ...]
    controls: tuple[Placed[ControlRow], ...]
    integrations: tuple[Placed[IntegrationRow], ...]
    networks: tuple[Placed[NetworkRow], ...]
    deliberations: tuple[Deliberation, ...]
    availability: tuple[Placed[AvailabilityRow], ...]
    outages: tuple[Placed[OutageRow], ...]
    rights: tuple[Placed[RightRow], ...]
    files: tuple[SourceFile, ...]


def role_of(text: str) -> Role | None:
    """Return ``sector/type`` as a role; ``None`` where the text is not two plain numbers."""
    sector, slash, kind = text.partition("/")
    parts = (sector, kind)
    if not slash or not all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts):
        return None
    return Role(int(sector), int(kind))


def period_of(begin: dt.date | None, end: dt.date | None) -> tuple[Day, Day]:
    """Return a period as days: no begin is always, no end is open."""
    return (0 if begin is None else to_day(begin), OPEN if end is None else to_day(end))


def basis_period(head: DeliberationRow) -> tuple[Day, Day]:
    """Return the days on which a deliberation is in force: from its date unless it says else."""
    return period_of(head.begin or head.date, head.end)


class Finding(NamedTuple):
    """Something about the text that is wrong, or will be. An error refuses the whole text."""

    is_error: bool
    place: Place
    reason: str
    mend: str

    def __str__(self) -> str:
        kind = "error" if self.is_error else "warning"
        return f"{self.place.file}:{self.place.line}: {kind}: {self.reason}; {self.mend}"
