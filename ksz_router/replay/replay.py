"""Replay exchanges out of a log: find their entries, open the generation they name, decide again.

Whoever calls this has recorded the reading before (design law 5): entries name persons by token,
and what is found here turns tokens into numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ksz_router.decision import Facts
from ksz_router.limits import clock_error_seconds_max
from ksz_router.messages import Request
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US, Entry, Kind, parse, parse_head
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import (
    KeyRing,
    KeysError,
    Tokens,
    quarter_after,
    quarter_before,
    quarter_of,
)
from ksz_router.privacylog.recovery import Visit
from ksz_router.replay.again import Replayed, State, decide_again
from ksz_router.replay.compare import Difference, code_name
from ksz_router.replay.recorded import PastRequest
from ksz_router.rights import Rights
from ksz_router.rulebook.archived import Archive
from ksz_router.rulebook.generation import (
    GenerationDamagedError,
    GenerationUnknownError,
    RulebookError,
)
from ksz_router.rulebook.snapshot import Snapshot

ALARMS_KEPT_MAX = 1_000
"""Of a stretch: those beyond are counted."""

_FOREVER_US = 2**63
_MARGIN_US = int(clock_error_seconds_max) * 1_000_000


class Conversation(NamedTuple):
    """The entries of one exchange."""

    exchange: bytes
    requests: list[Entry]
    """One, if the log is whole."""
    others: list[Entry]

    def take(self, record: bytes) -> None:
        """Take an entry of it, in its canonical form."""
        entry = parse(record)
        (self.requests if entry.kind == Kind.REQUEST else self.others).append(entry)


class Stretch(msgspec.Struct, kw_only=True):
    """What came of replaying everything in a stretch of time."""

    states: Counter[State]
    reasons: Counter[str]
    """Why some could not be decided."""
    alarms: list[Replayed]
    """The first ``ALARMS_KEPT_MAX``."""
    damaged: list[str]
    """What of the log could not be read."""


class Replay:
    """A log, its keys, and the store of generations. Opens each generation once.

    Raises:
        PrivacyLogError: there is no log in ``log``.
    """

    def __init__(self, log: Path, keys: Path, store: Path) -> None:
        self._ring = KeyRing(keys)
        self._log = HotLog(log, self._ring)
        self._archive = Archive(store)
        self._tokens: dict[str, Tokens] = {}

    @property
    def damaged(self) -> list[str]:
        """What of the log could not be read: what is not found may be there."""
        return list(self._log.damaged)

    def close(self) -> None:
        """Give the generations back."""
        self._archive.close()

    def find(self, exchanges: Sequence[bytes]) -> list[Conversation]:
        """Return the entries of exchanges in the write-ahead files, in the order asked.

        Without entries where there are none: look in the archive for these.
        """
        found = {exchange: Conversation(exchange, [], []) for exchange in exchanges}

        def visit(frame: Frame) -> None:
            for record in frame.records:
                known = found.get(parse_head(record).exchange or b"")
                if known is not None:
                    known.take(record)

        begins, ends = zip(*map(_span_us, exchanges), strict=True)
        for slot in self._log.slots:
            self._log.read(slot, min(begins), max(ends), visit)
        return list(found.values())

    def numbers(self, entry: Entry) -> PastRequest:
        """Return an entry with the numbers that its tokens stand for.

        Raises:
            KeysError: the keys of its quarter are not there.
        """
        wanted = [entry.user, entry.person, entry.asked]
        if wanted == [None, None, None]:
            return PastRequest(entry)
        quarter = quarter_of(entry.at_us * 1000)
        for near in (quarter, quarter_before(quarter), quarter_after(quarter)):
            try:
                return _with_numbers(entry, self._tokens_of(near))
            except KeysError:
                continue
        # Not found under a neighbour either: say what is wrong with its own quarter.
        return _with_numbers(entry, self._tokens_of(quarter))

    def again(self, recorded: PastRequest, others: Sequence[Entry] = ()) -> Replayed:
        """Decide again on one entry, under the generation that it names.

        Args:
            recorded: The entry of the request.
            others: The further entries of the exchange, where they are known.
        """
        entry = recorded.entry
        try:
            snapshot = self._archive.generation(entry.generation)
        except GenerationUnknownError:
            why = f"the generation {entry.generation!r} is not in the store"
            return Replayed(entry, State.NOT_DECIDED, why=why)
        except GenerationDamagedError as error:
            difference = Difference("generation", entry.generation, str(error))
            return Replayed(entry, State.DIFFERS, (difference,))
        except RulebookError as error:
            return Replayed(entry, State.NOT_DECIDED, why=str(error))
        replayed = decide_again(recorded, _look_up_in(snapshot, entry))
        contradicted = _contradicted(entry, others)
        if not contradicted:
            return replayed
        return replayed._replace(
            state=State.DIFFERS, differences=(*replayed.differences, *contradicted)
        )

    def stretch(
        self,
        from_us: int,
        to_us: int,
        *,
        sealed: Iterable[Sequence[bytes]] = (),
        sealed_up_to: Mapping[str, int] | None = None,
        tell: Callable[[int], object] = lambda _count: None,
    ) -> Stretch:
        """Decide again on every request of a stretch of time; memory does not grow with it.

        Args:
            from_us: Unix microseconds, included.
            to_us: Not included.
            sealed: The sealed requests of that time, in their canonical form.
            sealed_up_to: By slot, the number of its first record that is not sealed.
            tell: Is told how many more were decided on.
        """
        found = Stretch(states=Counter(), reasons=Counter(), alarms=[], damaged=[])

        def take(records: Sequence[bytes]) -> None:
            for record in records:
                self._count(parse(record), found)
            tell(len(records))

        for records in sealed:
            take(records)
        for slot in self._log.slots:
            first = (sealed_up_to or {}).get(slot.name, 0)
            self._log.read(slot, from_us, to_us, _visit_of(first, from_us, to_us, take))
        found.damaged = self.damaged
        return found

    def _count(self, entry: Entry, found: Stretch) -> None:
        try:
            replayed = self.again(self.numbers(entry))
        except KeysError as error:
            replayed = Replayed(entry, State.NOT_DECIDED, why=str(error))
        found.states[replayed.state] += 1
        if replayed.state is State.NOT_DECIDED:
            found.reasons[replayed.why] += 1
        elif replayed.state is State.DIFFERS and len(found.alarms) < ALARMS_KEPT_MAX:
            found.alarms.append(replayed)

    def _tokens_of(self, quarter: str) -> Tokens:
        if quarter not in self._tokens:
            self._tokens[quarter] = Tokens(self._ring.quarter(quarter))
        return self._tokens[quarter]


def _visit_of(first: int, from_us: int, to_us: int, take: Callable[[list[bytes]], None]) -> Visit:
    """Hand over the requests of a stretch of time, from record ``first`` of a slot on."""

    def visit(frame: Frame) -> None:
        records = []
        for number, record in enumerate(frame.records, frame.first_record):
            head = parse_head(record)
            if number >= first and head.kind == Kind.REQUEST and from_us <= head.at_us < to_us:
                records.append(record)
        take(records)

    return visit


def _look_up_in(snapshot: Snapshot, entry: Entry) -> Callable[[Request, int], Facts]:
    """The certificate is not in the entry, but whose it is: any of its names leads there."""
    requester = entry.requester or ""
    caller = snapshot.institution(requester)
    uri = caller.uris[0] if caller is not None and caller.uris else requester
    rights = Rights(snapshot)

    def look_up(request: Request, at_ms: int) -> Facts:
        return snapshot.look_up(request, uri, at_ms, find_rights=rights.find)

    return look_up


def _contradicted(entry: Entry, others: Sequence[Entry]) -> tuple[Difference, ...]:
    """What was refused ended with its refusal, under the same generation."""
    ends = [other for other in others if other.kind == Kind.OUTCOME]
    codes = dict.fromkeys(end.code for end in ends if entry.code and end.code != entry.code)
    names = dict.fromkeys(
        end.generation for end in ends if end.generation not in ("", entry.generation)
    )
    return (
        *(Difference("outcome", code_name(code), code_name(entry.code)) for code in codes),
        *(Difference("generation of the outcome", n, entry.generation) for n in names),
    )


def _with_numbers(entry: Entry, tokens: Tokens) -> PastRequest:
    return PastRequest(
        entry,
        user=None if entry.user is None else tokens.user_number(entry.user),
        person=None if entry.person is None else tokens.person_number(entry.person),
        asked=None if entry.asked is None else tokens.person_number(entry.asked),
    )


def _span_us(exchange: bytes) -> tuple[int, int]:
    """When the entries of an exchange were made: a UUIDv7 (RFC 9562) begins with milliseconds."""
    if len(exchange) != 16 or exchange[6] >> 4 != 7:
        return 0, _FOREVER_US
    at_us = int.from_bytes(exchange[:6], "big") * 1000
    return at_us - _MARGIN_US, at_us + _MARGIN_US + 2 * OUTCOME_WITHIN_US
