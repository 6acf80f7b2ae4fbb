"""The nouns of the router. No behaviour beyond what a noun needs.

Days are integers ``yyyymmdd`` (Brussels calendar days): they compare as they stand, read as they
stand, and are the same in files, tables, messages and the log. Both ends of a period count; an
open end is ``OPEN``.
"""

from enum import IntEnum, unique

import msgspec

from ksz_router.identifiers import Kbo
from ksz_router.keepers import Keeper

Day = int
"""A Brussels calendar day as ``yyyymmdd``."""

OPEN: Day = 99991231
"""The end of a period that has none."""

ANY_TYPE = -1
"""The institution type of a line or right that fits every type of its sector."""

INSCRIBE_SERVICE, REMOVE_SERVICE = "directory.inscribe", "directory.remove"
"""Services of the router's own institution by which the person directory is changed, version 1."""

PROVISIONAL = 902
"""The capacity of a provisional inscription (I605); counts only where a grant says so."""


class Role(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A sector and an institution type, 0..999 each; together what an institution acts as."""

    sector: int
    type: int


@unique
class Kind(IntEnum):
    """Kinds of service. ``TEST`` is answered by the router itself."""

    CONSULTATION = 1
    SUBMISSION = 2
    DISTRIBUTION = 3
    TEST = 4

    __hash__ = int.__hash__  # an Enum's own is written in Python


@unique
class Subject(IntEnum):
    """Whom a service is about."""

    NONE = 0
    PERSON = 1
    ENTERPRISE = 2


@unique
class Mode(IntEnum):
    """What a broken integration rule does: nothing, an entry in the log, a refusal."""

    NONE = 0
    LOG = 1
    BLOCK = 2


@unique
class Direction(IntEnum):
    """What a grant allows its holder to do with a service."""

    REQUEST = 1
    SEND = 2
    RECEIVE = 3


@unique
class Distribution(IntEnum):
    """Distribution code (verdelingscode) of a service that may go to several recipients."""

    NONE = 0
    MUTATION = 1
    """M: the owner of the data pushes it to all, and has reached its end when all have it."""
    SUBMISSION = 2
    """Z: it has reached its end when one recipient at least received it and gave an answer."""

    __hash__ = int.__hash__


@unique
class FilledBy(IntEnum):
    """Who names the destination: the sender, the directory, or whichever does."""

    EITHER = 0
    SENDER = 1
    DIRECTORY = 2


@unique
class Party(IntEnum):
    """Of a message that was forwarded: who sent it, or who received it."""

    SENDER = 0
    RECIPIENT = 1


@unique
class Inscription(IntEnum):
    """What an integration by business message does in the person directory."""

    INSCRIBE = 0
    REMOVE = 1


@unique
class NumberStatus(IntEnum):
    """The state of one INSZ."""

    ACTIVE = 0
    REPLACED = 1
    CANCELLED = 2
    DECEASED = 3


# What a rulebook holds. Periods are [begin, end], both days inclusive. Rows are frozen and hold no
# row that could hold them, so there is no circle for the collector to look for (``gc=False``): of a
# hundred thousand it would cost more than decoding them.


class Endpoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a source listens. ``uri`` is the SAN URI its certificate must carry."""

    host: str
    port: int
    uri: str


class Institution(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A legal person that may connect, be asked, or be acted for."""

    kbo: Kbo
    name: str
    uris: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    members: tuple[Kbo, ...] = ()
    """Institutions that this one manages and may ask for (beheersinstelling)."""
    secondary_network: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    begin: Day = 0
    end: Day = OPEN
    is_sectoral: bool = False
    """Its secondary network has a directory of its own; joined in when the rulebook is built."""
    keeper: Keeper | None = None
    """Who is asked for it; None where it is hosted here."""


class Integration(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A forwarded message inscribes the person for its sender or recipient, or removes them."""

    inscription: Inscription
    party: Party
    application: str
    """The program number under which the router's own institution sends the change."""
    capacity: int | None = None
    """None: that of the envelope for the sender, of the deciding line for a recipient."""
    phase: int = 0


class Service(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A kind of message in one version, as the rulebook declares it."""

    name: str
    version: int
    kind: Kind
    subject: Subject
    follow_replaced: bool = False
    """Follow a replaced INSZ to the current one; else refuse and name the new one."""
    refuse_deceased: bool = False
    payload_bytes_max: int = 65_536
    deadline_ms: int = 10_000
    """The longest a requester may wait; a shorter wish in the request wins."""
    distribution: Distribution = Distribution.NONE
    """Of a distribution ``MUTATION`` or ``SUBMISSION``, of anything else ``NONE``."""
    filled_by: FilledBy = FilledBy.EITHER
    integrations: tuple[Integration, ...] = ()
    any_number: bool = False
    """The number need not exist, nor be in use: for services that keep the numbers themselves."""


class Grant(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A row of the authorization table. ``role`` or ``kbo`` holds it; ``framework`` is path B."""

    id: str
    direction: Direction
    service: str
    version: int
    role: Role | None = None
    kbo: Kbo | None = None
    framework: str = ""
    capacities: frozenset[int] = frozenset()
    """Path A: the capacities that may be named. Path B: those of the own integration."""
    own_integration: bool = True
    """Path A always; path B where the deliberation asks for it."""
    phase: int = 0
    provisional: bool = False
    groups: tuple[str, ...] = ()
    """Data groups that may be answered with; empty: whatever the service answers."""
    begin: Day = 0
    end: Day = OPEN
    basis: str = ""
    """Number of the deliberation, or ``secondary-network``."""
    basis_begin: Day = 0
    basis_end: Day = OPEN
    own_mode: Mode = Mode.BLOCK


class Availability(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A row of the data availability table: this source has the data of this service."""

    service: str
    version: int
    kbo: Kbo
    role: Role
    capacities: frozenset[int] = frozenset()
    """Capacities in which the source knows whom it has data on; empty: any."""
    phase: int = 0
    order: int = 0
    """Where several sources fit a consultation or a submission, the lowest is asked."""
    begin: Day = 0
    end: Day = OPEN
    mode: Mode = Mode.BLOCK
    """Of the source or recipient integration; ``NONE`` for a register that holds everyone."""
    receive: tuple[Grant, ...] = ()
    """Grants of this role to receive the service; joined in when the rulebook is built."""
    secondary_network: str = ""
    """Of the institution; joined in when the rulebook is built."""
    data_begin: Day = 0
    data_end: Day = OPEN
    """Days of which the source holds data, both included."""
    changes_only: bool = False
    """The recipient subscribed to what is new, not to what is said again."""
    is_sectoral: bool = False
    """Its network has a directory of its own; joined in when the rulebook is built."""
    keeper: Keeper | None = None


class Outage(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """An announced unavailability, in Unix milliseconds, of one service of a source or of all."""

    kbo: Kbo
    service: str = ""
    begin_ms: int
    end_ms: int


class AccessRight(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """What one user or application may do for its institution, within the grants."""

    kbo: Kbo
    roles: tuple[Role, ...] = ()
    """Roles that may be acted for; empty: every role and the KBO number itself."""
    services: frozenset[str] = frozenset()
    """Service names; empty: all."""
    level: int = 0
    """Authentication level that is asked at least (0..4, eIDAS-like)."""
    begin: Day = 0
    end: Day = OPEN
    means: frozenset[str] = frozenset()
    """Authentication means of which one is asked, to the letter; empty: any."""


# What the person directory says.


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of the person directory, as form I605 lays it down."""

    sector: int
    type: int
    capacity: int
    phase: int
    begin: Day
    end: Day
    changed: Day = 0
