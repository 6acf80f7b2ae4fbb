"""The request as its entry has it, and in each way in which the entry leaves it open. Pure.

An entry holds no ticket in clear, no source that was named, nothing malformed, and of a refusal no
period: see ``daemon/entries.py`` and ``daemon/well_formed.py``. What is put in their place here is
such that it meets the same rule.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.identifiers import is_kbo
from ksz_router.limits import payload_bytes_max
from ksz_router.messages import Request
from ksz_router.model import OPEN, AccessRight
from ksz_router.privacylog.entry import WITHHELD, Entry

_MALFORMED = "?"
_TICKET = "replay"
_WITHHELD_DIGITS_MIN = 9


class PastRequest(NamedTuple):
    """An entry of kind REQUEST, with the numbers that its tokens stand for."""

    entry: Entry
    user: str | None = None
    person: str | None = None
    """In use, as far as it was followed."""
    asked: str | None = None
    """Where it is another."""

    def __repr__(self) -> str:
        return f"PastRequest({self.entry!r})"


class Variant(NamedTuple):
    """A request that may have been made."""

    request: Request
    taken: tuple[str, ...] = ()
    """What of it is not in the entry, and follows from the code alone."""

    def but(self, note: str, **changes: object) -> "Variant":
        """Return this one with other fields, and the reason."""
        changed = msgspec.structs.replace(self.request, **changes)
        return Variant(changed, (*self.taken, note))


def variants(recorded: PastRequest) -> Iterator[Variant]:
    """Return the requests that the entry may speak of, the likeliest first."""
    entry = recorded.entry
    plain = Variant(_request(recorded))
    code = entry.code
    as_kbo = plain.but("named as its KBO number, not as its member", member=None, kbo=entry.acting)
    if code == Code.MEMBER_NOT_MANAGED:
        yield plain
        yield plain.but("a malformed member was named", member=_MALFORMED)
    elif code == Code.KBO_NOT_HELD:
        yield as_kbo
        yield plain.but("a malformed KBO number was named", kbo=_MALFORMED)
    elif code == Code.IDENTIFIERS_DISAGREE:
        member = entry.acting or entry.requester
        yield plain.but("a KBO number was named that disagrees", member=member, kbo=_MALFORMED)
    elif code == Code.ROLE_NOT_HELD:
        yield plain
        yield plain.but(
            "a role was named whose numbers are out of range",
            sector=-1 if entry.sector is None else entry.sector,
            type=-1 if entry.type is None else entry.type,
        )
    else:
        yield from _malformed(plain, code)


def with_sources(variant: Variant, entry: Entry, kbos: tuple[str, ...]) -> Iterator[Variant]:
    """Return a variant without, then with each source that the requester may have named.

    Args:
        variant: A request.
        entry: What became of it.
        kbos: Who has the data of the service, in the order of asking.
    """
    yield variant
    if entry.code and Code(entry.code).stage < Stage.SOURCE_INTEGRATION:
        return
    if entry.code == Code.NO_SOURCE_HAS_THE_DATA:
        nobody = next(kbo for number in range(10_000) if (kbo := _kbo(number)) not in kbos)
        yield variant.but("a source was named that has no such data", source=nobody)
    elif entry.code:
        yield from (variant.but(f"the source {kbo} was named", source=kbo) for kbo in kbos)
    else:
        named = {violation.rpartition(":")[2] for violation in entry.violations}
        for kbo in kbos:
            if entry.destinations in ((), (kbo,)) or kbo in named:
                yield variant.but(f"the source {kbo} was named", source=kbo)


def with_withheld(
    variant: Variant, entry: Entry, rights: Sequence[AccessRight]
) -> Iterator[Variant]:
    """Return a variant, then with each text that it may have named where it was withheld."""
    yield variant
    if entry.means == WITHHELD:
        for means in sorted({means for right in rights for means in right.means}):
            if len(means) >= _WITHHELD_DIGITS_MIN:
                yield variant.but("the means were withheld, as too like a number", means=means)


def _malformed(plain: Variant, code: int) -> Iterator[Variant]:
    """What was malformed is not in an entry: something else that is stands for it."""
    yield plain
    if code == Code.FIELD_MALFORMED:
        yield plain.but("a field was malformed", ticket="")
    elif code in (Code.PERSON_MALFORMED, Code.SUBJECT_NOT_AS_DECLARED):
        if plain.request.person is None:
            yield plain.but("what was named as a person is no INSZ", person=_MALFORMED)
    elif code == Code.PERIOD_NOT_SANE:
        yield plain.but("the period was not sane", begin=1)


def _request(recorded: PastRequest) -> Request:
    entry = recorded.entry
    return Request(
        id=1,
        service=entry.service,
        version=entry.service_version,
        ticket=_TICKET,
        user=recorded.user,
        application=entry.application,
        means="" if entry.means == WITHHELD else entry.means,
        level=entry.level,
        sector=entry.sector,
        type=entry.type,
        capacity=entry.capacity,
        legal_framework=entry.legal_framework,
        member=entry.acting,
        final_client=entry.final_client,
        person=recorded.asked or recorded.person,
        enterprise=entry.enterprise,
        begin=entry.begin,
        end=None if entry.end == OPEN else entry.end,
        payload=bytes(min(max(0, entry.request_bytes), payload_bytes_max + 1)),
    )


def _kbo(number: int) -> str:
    text = f"0{number:07}{97 - number % 97:02}"
    assert is_kbo(text), "made by the rule that is checked"
    return text
