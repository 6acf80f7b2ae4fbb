"""One entry of the privacy log and its one canonical form. Pure.

An entry is a MessagePack array in fixed order, the version first, ``nil`` for what is absent;
integers in their shortest form, no floats, no maps. A later version may append fields; it may not
move, re-use or drop one. The same entry always gives the same bytes, and only those are accepted.

Persons, users and tickets appear as 16-byte tokens (``keys.Tokens``) under the keys of the
quarter of ``at_us``, never in clear.
"""

from enum import IntEnum, unique

import msgspec

from ksz_router.limits import deadline_ms_max, record_bytes_max
from ksz_router.model import Line
from ksz_router.privacylog import PrivacyLogError

VERSION = 1

OUTCOME_WITHIN_US = 2 * deadline_ms_max * 1000
"""An exchange has its outcome this long after its request at the latest, or never in this run of
its writer; a further outcome (a late answer discarded) comes this long after the first at most."""

WITHHELD = "(withheld)"
"""Stands in an entry for text of a peer that may hold somebody's number."""

_TEXT_BYTES_MAX = 64
_TEXT_FROM_PEERS = (
    "service", "final_client", "legal_framework", "application", "means", "enterprise", "reader",
    "purpose",
)  # fmt: skip


class EntryMalformed(PrivacyLogError):
    """The bytes are not the canonical form of an entry. The message never contains them."""


@unique
class Kind(IntEnum):
    """What an entry records."""

    REQUEST = 1
    """A request with its verdict."""
    OUTCOME = 2
    """How an exchange ended."""
    SUMMARY = 3
    """Refusals before the control, counted per institution and minute."""
    READING = 4
    """A local verb, on behalf of a reader, read a person."""
    FURTHER = 5
    """A further person whom an answer concerned, as its source declared."""
    RECIPIENT = 6
    """How one recipient of a distribution did; the OUTCOME follows when all are settled."""
    SEALED = 7
    """A manifest of sealed files was written; ``digest`` is the SHA-256 of its file."""


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One entry. ``service`` to ``acting`` and the person are repeated in each of an exchange.

    Shapes: tokens, tickets and exchange ids are 16 bytes, ``digest`` 32; days are ``yyyymmdd``.
    """

    version: int = VERSION
    kind: Kind
    at_us: int
    """Unix microseconds; never goes back within one writer."""
    exchange: bytes | None = None
    """UUIDv7."""
    code: int = 0
    """REQUEST: 0 where the verdict is Forward, else the refusal. OUTCOME: the outcome."""
    stage: int = 0
    service: str = ""
    """READING: the verb."""
    service_version: int = 0
    requester: str | None = None
    """KBO number that the certificate stands for."""
    acting: str | None = None
    """KBO number of the member acted for, where it is not the requester."""
    final_client: str | None = None
    sector: int | None = None
    type: int | None = None
    capacity: int | None = None
    legal_framework: str | None = None
    user: bytes | None = None
    """Token. On an OUTCOME, of the user that supplied the answer."""
    application: str | None = None
    means: str = ""
    level: int = 0
    ticket: bytes | None = None
    """Keyed hash of the requester's own reference."""
    person: bytes | None = None
    """Token of the number in use."""
    asked: bytes | None = None
    """Token of the number asked, where it was replaced."""
    enterprise: str | None = None
    """READING: the institution that was asked about."""
    begin: int | None = None
    end: int | None = None
    destinations: tuple[str, ...] = ()
    """KBO numbers of the institutions to which it was sent."""
    generation: str = ""
    rights_version: int = 0
    directory_version: int = 0
    grant: str = ""
    basis: str = ""
    """Deliberation under the grant."""
    line: Line | None = None
    """The directory line that decided."""
    violations: tuple[str, ...] = ()
    """Broken rules whose control mode is ``log``, such as ``own:log``."""
    request_bytes: int = 0
    answer_bytes: int = 0
    digest: bytes | None = None
    """SHA-256 of the payload; on the OUTCOME of a submission, of the payload answered."""
    router_us: int = 0
    source_us: int = 0
    counts: tuple[tuple[int, int], ...] = ()
    """SUMMARY: code and number of times."""
    reader: str = ""
    purpose: str = ""
    attempt: int = 0
    """REQUEST of a submission that goes out: the how-manieth time under its ticket, from 1."""
    first: bytes | None = None
    """REQUEST of a retry: the exchange id of the first attempt, under which it is delivered."""
    content: bytes | None = None
    """REQUEST of a submission: keyed hash of all that was submitted, 16 bytes."""

    def __repr__(self) -> str:
        return f"Entry({self.kind.name}, code={self.code}, service={self.service!r})"


class Head(msgspec.Struct, array_like=True, gc=False):
    """The first fields of an entry, read without the rest: for scans over millions."""

    version: int
    kind: int
    at_us: int
    exchange: bytes | None
    code: int


_HEAD = b"\xdc" + len(Entry.__struct_fields__).to_bytes(2, "big")
_HEAD_BYTES = len(_HEAD)
_SHORT_MAX = 15
"""So many elements has an array whose head is one byte."""
_UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode


def canonical(entry: Entry) -> bytes:
    """Return the one form of ``entry``, at most ``record_bytes_max`` long.

    A request that was refused early carries text that nobody checked. Where that makes the entry
    too long, each text that comes from outside is cut to 64 bytes: an entry is never dropped.
    """
    data = _encode(entry)
    if len(data) > record_bytes_max:
        data = _encode(_with_short_text(entry))
        assert len(data) <= record_bytes_max, "lists of an entry are bounded by the caller"
    return data


def begin(kind: Kind) -> msgspec.Raw:
    """Return what every entry of a kind begins with, for :func:`canonical_parts`."""
    return msgspec.Raw(_HEAD + _encode(VERSION) + _encode(kind))


def run(*fields: object) -> msgspec.Raw:
    """Return fields in a row that are the same for many entries, encoded once."""
    assert len(fields) <= _SHORT_MAX
    return msgspec.Raw(_encode(fields)[1:])


def canonical_parts(parts: tuple[object, ...]) -> bytes:
    """Return the one form of an entry that is given as its fields in their order.

    For entries that are made by the thousand: to make an :class:`Entry` of the fields first would
    cost more than all else about it. The first part is a :func:`begin`; a :func:`run` may stand
    for the fields that it holds. Of parts there are more than fifteen: fewer have a shorter head.
    """
    data = _encode(parts)[_HEAD_BYTES:]
    return data if len(data) <= record_bytes_max else canonical(_decode(data))


def parse(data: bytes) -> Entry:
    """Return the entry whose canonical form is ``data``.

    Raises:
        EntryMalformed: it is no entry, of another version, or not in canonical form.
    """
    try:
        entry = _decode(data)
    except _UNDECODABLE as error:
        raise EntryMalformed("not an entry") from error
    if entry.version != VERSION:
        raise EntryMalformed(f"an entry of version {entry.version}; {VERSION} is known")
    if _encode(entry) != data:
        raise EntryMalformed("an entry that is not in canonical form")
    return entry


def parse_head(data: bytes) -> Head:
    """Return the first fields only, unchecked against the canonical form.

    Raises:
        EntryMalformed: it does not begin like an entry.
    """
    try:
        return _decode_head(data)
    except _UNDECODABLE as error:
        raise EntryMalformed("not an entry") from error


def _with_short_text(entry: Entry) -> Entry:
    short = {}
    for name in _TEXT_FROM_PEERS:
        text = getattr(entry, name)
        if text is not None:
            short[name] = text.encode()[:_TEXT_BYTES_MAX].decode(errors="ignore")
    return msgspec.structs.replace(entry, **short)
