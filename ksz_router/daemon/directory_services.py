"""The services of the directory: from a checked delivery to a change, and back to an answer.

What an institution may act as was settled by the control before: each change concerns lines of the
role in the delivery and of no other, and each consultation those that its grant lets be seen.
``docs/directory-services.md`` is the specification.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from ksz_router import limits
from ksz_router.daemon.directory_asked import (
    MALFORMED,
    REFUSALS,
    TOO_OLD,
    Broken,
    change_of,
    decoded,
    role_of,
)
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_jobs import Failure, Found, Verdict
from ksz_router.days import is_day
from ksz_router.directory.change import Applied, Change, Refused
from ksz_router.identifiers import is_insz
from ksz_router.messages import Delivery, Outcome
from ksz_router.model import ANY_TYPE, OPEN
from ksz_router.persons import Person
from ksz_router.sdk.directory import (
    ADJUST,
    INSCRIBE,
    LINES,
    OTHERS,
    REGISTER,
    REMOVE,
    VERSION,
    Consultation,
    Told,
    encode,
    group_of,
)
from ksz_router.sdk.provider import Supply, Taker

_FAILURES = {
    Failure.FULL: "DIR-FULL",
    Failure.TOO_LATE: "DIR-LATE",
    Failure.NO_ROOM: "DIR-NO-ROOM",
    Failure.DAMAGED: "DIR-DAMAGED",
}
"""Source codes where nothing was changed, and it is not the requester's to mend."""

_DAY_MS = 86_400_000

Answer: TypeAlias = Callable[[Supply | None], None]


class DirectoryServices:
    """Answers deliveries of the directory's services.

    Args:
        batches: Of the one writer.
        keep_days: How long it keeps what became of a change.
        wall_ms: Unix time in milliseconds.
    """

    def __init__(self, batches: Batches, keep_days: int, wall_ms: Callable[[], int]) -> None:
        self._batches = batches
        self._keep_ms = keep_days * _DAY_MS
        self._wall_ms = wall_ms

    def takers(self) -> dict[tuple[str, int], Taker]:
        """By service name and version, for a ``Provider``."""
        changes = dict.fromkeys((INSCRIBE, ADJUST, REMOVE, REGISTER), self._change)
        works = {**changes, LINES: self._lines, OTHERS: self._others}
        return {(name, VERSION): partial(_take, work) for name, work in works.items()}

    def _change(self, delivery: Delivery, answer: Answer) -> None:
        change = change_of(delivery)
        if made_ms(delivery.exchange) < self._wall_ms() - self._keep_ms:
            raise Broken(TOO_OLD)

        def done(verdict: Verdict) -> None:
            answer(_changed(delivery, change, verdict))

        self._batches.change(change, delivery.deadline_ms / 1000, done)

    def _lines(self, delivery: Delivery, answer: Answer) -> None:
        role = role_of(delivery)
        if delivery.payload:
            raise Broken(MALFORMED)

        def seen(person: Person, version: int) -> Supply:
            lines = tuple(
                line
                for line in person.lines
                if line.sector == role.sector and line.type in (role.type, ANY_TYPE)
            )
            found = Applied(version, lines, person.current)
            return _told(delivery, found) if lines else _nothing(version)

        self._look_up(delivery, seen, answer)

    def _others(self, delivery: Delivery, answer: Answer) -> None:
        role, asked = role_of(delivery), decoded(delivery, Consultation)
        begin, end = asked.begin, OPEN if asked.end is None else asked.end
        if not is_day(begin) or (end != OPEN and not is_day(end)) or end < begin:
            raise Broken(MALFORMED)

        def seen(person: Person, version: int) -> Supply:
            lines = tuple(
                line
                for line in person.lines
                if line.sector != role.sector
                and (not delivery.groups or group_of(line.sector) in delivery.groups)
                and line.begin <= end
                and line.end >= begin
            )
            return _told(delivery, Applied(version, lines, "")) if lines else _nothing(version)

        self._look_up(delivery, seen, answer)

    def _look_up(
        self, delivery: Delivery, seen: Callable[[Person, int], Supply], answer: Answer
    ) -> None:
        """Answer what ``seen`` makes of the person, at a version of the directory."""

        def done(found: Found | Failure) -> None:
            if isinstance(found, Failure):
                answer(_failed(delivery, found))
            elif found.person is None:
                answer(_nothing(found.version))
            else:
                answer(seen(found.person, found.version))

        self._batches.look_up(delivery.person or "", delivery.deadline_ms / 1000, done)


def _take(work: Callable[[Delivery, Answer], None], delivery: Delivery, answer: Answer) -> None:
    try:
        work(delivery, answer)
    except Broken as broken:
        answer(_refusal(str(broken)))


def made_ms(exchange: bytes) -> int:
    """When an exchange id was made, Unix milliseconds: a UUIDv7 begins with it (RFC 9562 5.7)."""
    return int.from_bytes(exchange[:6], "big")


def _changed(delivery: Delivery, change: Change, verdict: Verdict) -> Supply | None:
    """What is answered to a change, by what came of it."""
    if isinstance(verdict, Failure):
        return _failed(delivery, verdict)
    if isinstance(verdict, Refused):
        # The refusal says something of the other number: that it was asked gets its entry.
        further = tuple(n for n in (change.other,) if is_insz(n) and n != delivery.person)
        return _refusal(verdict.reason.name, repeated=verdict.repeated, further=further)
    if change.line is None:  # who keeps numbers need not learn which sectors know the person
        verdict = Applied(verdict.version, (), verdict.current, verdict.repeated)
    return _told(delivery, verdict, change.other)


def _told(delivery: Delivery, found: Applied, other: str = "") -> Supply:
    """What is answered where there is something to say; further numbers in it are declared."""
    current = found.current if found.current != delivery.person else ""
    lines_max = limits.directory_lines_told_max
    told = Told(
        version=found.version,
        lines=found.lines[:lines_max],
        more=len(found.lines) > lines_max,
        current=current,
        repeated=found.repeated,
    )
    further = tuple(dict.fromkeys(number for number in (current, other) if is_insz(number)))
    return Supply(Outcome.DATA, payload=encode(told), persons=further)


def _nothing(version: int) -> Supply:
    return Supply(Outcome.NO_DATA, payload=encode(Told(version=version)))


def _failed(delivery: Delivery, failure: Failure) -> Supply | None:
    """What is answered where nothing was done now; None: nothing is."""
    if delivery.repeat:  # it may stand since the first time: to say that it failed is final
        return None
    return Supply(Outcome.FAILED, source_code=_FAILURES[failure])


def _refusal(name: str, *, repeated: bool = False, further: tuple[str, ...] = ()) -> Supply:
    """What is answered where a rule is broken; it says nothing of the person."""
    code, why = REFUSALS[name]
    told = Told(version=0, repeated=repeated, reason=name, why=why)
    return Supply(Outcome.NO_DATA, payload=encode(told), persons=further, source_code=code)
