"""Who asked what about whom: find exchanges in the write-ahead files, live ones too.

Two passes keep memory bounded: the first finds which exchanges fit, the earliest ``limit`` of
them; the second gathers their entries. Reading a live file stops at its tail. What is damaged is
named beside the rows, never left out in silence.
"""

import heapq
from pathlib import Path
from typing import TypeAlias

import msgspec

from ksz_router.days import brussels_midnight_ns, next_day
from ksz_router.identifiers import Insz, Kbo
from ksz_router.model import Day
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US, Entry, Kind, parse, parse_head
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing, Tokens
from ksz_router.privacylog.recovery import Visit
from ksz_router.privacylog.rows import Row, extend, new_row

LIMIT_MAX = 100_000
_FOREVER_US = 2**63

_Place: TypeAlias = tuple[str, int]
"""A record: slot and number."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a row must fit; what is left out fits all."""

    persons: tuple[Insz, ...] = ()
    """All numbers of one person, replaced ones too: as the number in use, as the number asked,
    and as a further person of an answer."""
    institution: Kbo | None = None
    """That asked, was acted for, is the final client, or was sent it."""
    user: str | None = None
    """Eleven digits of the user or application that asked or supplied the answer."""
    service: str | None = None
    """Name; of a reading, its verb."""
    from_day: Day | None = None
    to_day: Day | None = None
    verdict: int | None = None
    """0 for what was passed, else the code of the refusal."""
    violation: str | None = None
    """A logged violation of ``own``, ``source`` or ``recipient`` integration; ``any`` of them."""


class Found(msgspec.Struct, kw_only=True):
    """What a query found."""

    rows: list[Row]
    """In the order of time."""
    more: bool
    """There are later rows that fit; ask again from the day of the last one."""
    damaged: list[str]
    """What could not be read, and why: the rows may be incomplete."""


def query(folder: Path, keys_folder: Path, asked: Asked, *, limit: int = 1000) -> Found:
    """Return the earliest ``limit`` rows (1 to ``LIMIT_MAX``) that fit.

    Raises:
        PrivacyLogError: there is no log in ``folder``.
    """
    assert 1 <= limit <= LIMIT_MAX
    log = HotLog(folder, KeyRing(keys_folder))
    rule = _Rule(asked, log.tokens())
    choice = _Choice(rule, limit)
    for slot in log.slots:
        log.read(slot, rule.from_us, rule.to_us, choice.visit_of(slot.name))
    more = choice.cut_to_limit()
    rows = _Rows(choice, rule)
    for slot in log.slots:
        chosen_us = choice.earliest_us(slot.name)
        if chosen_us is not None:
            log.read(slot, chosen_us, _FOREVER_US, rows.visit_of(slot.name))
    return Found(rows=rows.fitting(), more=more, damaged=list(log.damaged))


class _Rule:
    """What is asked, put to entries.

    A REQUEST says everything but who supplied the answer and whom else it concerned: those an
    OUTCOME, a RECIPIENT and a FURTHER add. So a row fits if its first entry fits the rest, and any
    of its entries the person and the user.
    """

    def __init__(self, asked: Asked, tokens: list[Tokens]) -> None:
        self.from_us = 0 if asked.from_day is None else _begin_us(asked.from_day)
        self.to_us = _FOREVER_US if asked.to_day is None else _begin_us(next_day(asked.to_day))
        self._asked = asked
        self._persons = {t.person(number.digits) for t in tokens for number in asked.persons}
        self._users = set() if asked.user is None else {t.user(asked.user) for t in tokens}
        needles = self._persons | self._users
        if asked.user is not None:
            needles.add(asked.user.encode())
        elif asked.institution is not None and not asked.persons:
            needles = {asked.institution.encode()}
        elif asked.violation is not None and not asked.persons:
            needles = {b":log:"}
        self._needles = tuple(needles)

    def may_concern(self, record: bytes) -> bool:
        """Say whether a record holds, as it stands, what a fitting one must: skips most others."""
        if not self._needles:
            return not self._asked.persons
        return any(needle in record for needle in self._needles)

    def makes_candidate(self, entry: Entry) -> bool:
        """Say whether the exchange of this entry may give a row that fits."""
        if entry.kind in (Kind.REQUEST, Kind.READING):
            return self.fits_first(entry) and self.fits_person(entry) and self.fits_user(entry)
        if not self.from_us <= entry.at_us < self.to_us + OUTCOME_WITHIN_US:
            return False
        by_person = entry.kind == Kind.FURTHER and bool(self._asked.persons)
        by_user = entry.kind in (Kind.OUTCOME, Kind.RECIPIENT) and self._asked.user is not None
        return (by_person and self.fits_person(entry)) or (by_user and self.fits_user(entry))

    def fits_person(self, entry: Entry) -> bool:
        return not self._asked.persons or bool({entry.person, entry.asked} & self._persons)

    def fits_user(self, entry: Entry) -> bool:
        user = self._asked.user
        return user is None or entry.user in self._users or entry.application == user

    def fits_first(self, entry: Entry) -> bool:
        """Say whether the first entry of a row fits in all but person and user."""
        asked = self._asked
        if not self.from_us <= entry.at_us < self.to_us:
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


class _Choice:
    """The earliest exchanges that may give a row, at most one more than is asked for."""

    def __init__(self, rule: _Rule, limit: int) -> None:
        self._rule = rule
        self._limit = limit
        self._heap: list[tuple[int, int, bytes | _Place]] = []
        self._added = 0
        self._slots: dict[bytes | _Place, str] = {}

    def visit_of(self, slot: str) -> Visit:
        def visit(frame: Frame) -> None:
            for number, record in enumerate(frame.records, frame.first_record):
                if self._rule.may_concern(record):
                    entry = parse(record)
                    if self._rule.makes_candidate(entry):
                        self._add(entry.at_us, entry.exchange or (slot, number), slot)

        return visit

    def cut_to_limit(self) -> bool:
        """Drop the one too many; say whether there was one."""
        more = len(self._heap) > self._limit
        if more:
            del self._slots[heapq.heappop(self._heap)[2]]
        return more

    def earliest_us(self, slot: str) -> int | None:
        """Return when the earliest exchange chosen in a slot began, at the earliest."""
        times = [-at for at, _, key in self._heap if self._slots[key] == slot]
        return min(times) - OUTCOME_WITHIN_US if times else None

    def __contains__(self, key: bytes | _Place) -> bool:
        return key in self._slots

    def _add(self, at_us: int, key: bytes | _Place, slot: str) -> None:
        if key in self._slots:
            return
        self._slots[key] = slot
        self._added += 1
        heapq.heappush(self._heap, (-at_us, -self._added, key))
        if len(self._heap) > self._limit + 1:
            del self._slots[heapq.heappop(self._heap)[2]]


class _Draft:
    """A row that is being gathered, and what of the question it fits so far."""

    def __init__(self, rule: _Rule, entry: Entry) -> None:
        self.row = new_row(entry)
        self.fits = rule.fits_first(entry)
        self.fits_person = self.fits_user = False


class _Rows:
    """The rows of the exchanges chosen. A retry under the same exchange id is a row of its own."""

    def __init__(self, choice: _Choice, rule: _Rule) -> None:
        self._choice = choice
        self._rule = rule
        self._drafts: list[_Draft] = []
        self._last: dict[bytes, _Draft] = {}

    def visit_of(self, slot: str) -> Visit:
        def visit(frame: Frame) -> None:
            for number, record in enumerate(frame.records, frame.first_record):
                head = parse_head(record)
                if (head.exchange or (slot, number)) in self._choice:
                    self._take(parse(record))

        return visit

    def fitting(self) -> list[Row]:
        """Return the rows that fit, in the order of time."""
        fit = [d.row for d in self._drafts if d.fits and d.fits_person and d.fits_user]
        return sorted(fit, key=lambda row: row.at_us)

    def _take(self, entry: Entry) -> None:
        draft = None if entry.exchange is None else self._last.get(entry.exchange)
        if draft is not None and entry.kind != Kind.REQUEST:
            extend(draft.row, entry)
        else:
            draft = _Draft(self._rule, entry)
            self._drafts.append(draft)
            if entry.exchange is not None:
                self._last[entry.exchange] = draft
        draft.fits_person |= self._rule.fits_person(entry)
        draft.fits_user |= self._rule.fits_user(entry)


def _violates(entry: Entry, control: str) -> bool:
    controls = {violation.partition(":")[0] for violation in entry.violations}
    return control in controls or (control == "any" and bool(controls))


def _begin_us(day: Day) -> int:
    return brussels_midnight_ns(day) // 1000
