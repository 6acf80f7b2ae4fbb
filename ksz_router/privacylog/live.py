"""Rows from what is not sealed: entries that are given, then the write-ahead files behind them.

Two passes keep memory bounded: the first finds which rows fit, the earliest of them; the second
gathers their entries. Reading a live file stops at its tail.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from ksz_router.privacylog.entry import (
    OUTCOME_WITHIN_US,
    Entry,
    Kind,
    parse,
    parse_head,
)
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.question import FOREVER_US, Order, Position, order_of
from ksz_router.privacylog.recovery import Visit
from ksz_router.privacylog.rows import Row, extend, may_be_followed, new_row
from ksz_router.privacylog.rule import BEGINS, Rule


class Given(NamedTuple):
    """An entry that comes before what the write-ahead files of its slot hold."""

    slot: str
    number: int
    """Of the record in its slot."""
    record: bytes


_WORDS_MAX = 16
"""That are looked for in a frame as it stands. With more each record is looked at."""

_Take: TypeAlias = Callable[[int, bytes], None]
"""The next record of a slot: its number, and its canonical form."""


class Live:
    """The part of a log that is not sealed."""

    def __init__(self, log: HotLog, given: Sequence[Given] = ()) -> None:
        self._log = log
        self._folders = {folder.name: folder for folder in log.slots}
        self._given: dict[str, list[Given]] = {}
        for each in given:
            self._given.setdefault(each.slot, []).append(each)

    def rows(self, rule: Rule, count: int, after: Position | None) -> list[Row]:
        """Return the earliest ``count`` rows that fit, from a position on, in no order."""
        choice = _Choice(rule, count, after)
        for slot in {*self._folders, *self._given}:
            words = self._concerned(slot, rule) if rule.takes_several else rule.words
            self._read(slot, rule.from_us, rule.to_us, _Slot(choice, slot).take, words)
        gathered: list[Row] = []
        for slot, begun in choice.by_slot().items():
            rows = _Rows({number for _, number in begun})
            words = {exchange for (_, exchange, *_), _ in begun}
            since_us = min(order[0] for order, _ in begun)
            self._read(slot, since_us, FOREVER_US, rows.take, words)
            gathered += rows.rows
        return gathered

    def extend(self, rows: Iterable[Row]) -> None:
        """Add to sealed rows what came of their exchanges since.

        Only where more can have come: left alone are rows that nothing follows, and those with an
        outcome that are older than the oldest file by more than an exchange may last.
        """
        since_us = self._log.begin_us - OUTCOME_WITHIN_US
        open_rows = {
            row.exchange: row
            for row in sorted(rows, key=order_of)
            if row.exchange is not None
            and may_be_followed(row)
            and (row.at_us >= since_us or not row.outcomes)
        }
        if open_rows:
            for slot in self._folders:
                self._read(slot, 0, FOREVER_US, _Rows(set(), open_rows).take, open_rows)

    def _concerned(self, slot: str, rule: Rule) -> set[bytes]:
        """Return what is in all entries of the exchanges that may fit."""
        words = set(rule.words)

        def take(_: int, record: bytes) -> None:
            if rule.may_concern(record) and (exchange := parse_head(record).exchange) is not None:
                words.add(exchange)

        self._read(slot, rule.from_us, rule.to_us, take, rule.words)
        return words

    def _read(
        self, slot: str, from_us: int, to_us: int, take: _Take, words: Collection[bytes]
    ) -> None:
        """Hand over what is given, and the frames of the slot with one of the words in them."""
        for each in self._given.get(slot, ()):
            take(each.number, each.record)
        if slot in self._folders:
            self._log.read(self._folders[slot], from_us, to_us, _visit_of(take, words))


def _visit_of(take: _Take, words: Collection[bytes]) -> Visit:
    looked_for = tuple(words) if 0 < len(words) <= _WORDS_MAX else (b"",)

    def visit(frame: Frame) -> None:
        held = b"".join(frame.records)
        for word in looked_for:  # no generator: this is asked of every frame
            if word in held:
                break
        else:
            return
        for number, record in enumerate(frame.records, frame.first_record):
            take(number, record)

    return visit


class _Choice:
    """The earliest rows that fit, by the place of their first entry."""

    def __init__(self, rule: Rule, count: int, after: Position | None) -> None:
        self.rule = rule
        self._count = count
        self._after = (0, b"") if after is None else after.key
        self._chosen: list[tuple[Order, str, int]] = []

    def add(self, entry: Entry, slot: str, number: int) -> None:
        order = order_of(entry)
        if order[:2] >= self._after:
            self._chosen.append((order, slot, number))
            if len(self._chosen) > 2 * self._count + 1000:
                self._cut()

    def by_slot(self) -> dict[str, list[tuple[Order, int]]]:
        """Return order and number of the first entry of each row, by slot."""
        self._cut()
        found: dict[str, list[tuple[Order, int]]] = {}
        for order, slot, number in self._chosen:
            found.setdefault(slot, []).append((order, number))
        return found

    def _cut(self) -> None:
        self._chosen.sort()
        del self._chosen[self._count :]


class _Begun(msgspec.Struct, gc=False):
    """A row that may still come to fit, while more entries of its exchange are read."""

    number: int
    at_us: int
    record: bytes
    fits_person: bool
    fits_user: bool
    is_chosen: bool = False
    first: Entry | None = None


class _Slot:
    """Finds the rows of one slot that fit, one entry after the other.

    Memory is bounded by the requests of ``OUTCOME_WITHIN_US``, and kept only where the question
    takes several entries to answer.
    """

    def __init__(self, choice: _Choice, slot: str) -> None:
        self._choice = choice
        self._rule = choice.rule
        self._slot = slot
        self._open: dict[bytes, _Begun] = {}

    def take(self, number: int, record: bytes) -> None:
        concerned = self._rule.may_concern(record)
        if not self._rule.takes_several:
            if concerned and parse_head(record).kind in BEGINS:
                entry = parse(record)
                if self._rule.fits_first(entry):
                    self._choice.add(entry, self._slot, number)
            return
        head = parse_head(record)
        if head.kind in BEGINS:
            begun = self._begin(number, record, head.at_us, head.exchange)
        else:
            found = None if head.exchange is None else self._open.get(head.exchange)
            if found is None:
                return
            begun = found
        if concerned and not begun.is_chosen:
            self._try(begun, record)

    def _begin(self, number: int, record: bytes, at_us: int, exchange: bytes | None) -> _Begun:
        asked = self._rule.asked
        begun = _Begun(number, at_us, record, not asked.persons, asked.user is None)
        if exchange is not None:
            self._open.pop(exchange, None)  # the newest comes last
            self._open[exchange] = begun
            while at_us - next(iter(self._open.values())).at_us > OUTCOME_WITHIN_US:
                del self._open[next(iter(self._open))]
        return begun

    def _try(self, begun: _Begun, record: bytes) -> None:
        entry = parse(record)
        if begun.first is None:
            begun.first = entry if record is begun.record else parse(begun.record)
        begun.fits_person |= self._rule.fits_person(entry)
        begun.fits_user |= self._rule.fits_user(entry, begun.first.destinations)
        if begun.fits_person and begun.fits_user:
            begun.is_chosen = True
            if self._rule.fits_first(begun.first):
                self._choice.add(begun.first, self._slot, begun.number)


class _Rows:
    """Gathers the rows of one slot. A retry under the same exchange id is a row of its own."""

    def __init__(self, numbers: set[int], sealed: Mapping[bytes, Row] | None = None) -> None:
        self.rows: list[Row] = []
        self._numbers = numbers
        self._last = dict(sealed or {})

    def take(self, number: int, record: bytes) -> None:
        if number in self._numbers:
            row = new_row(parse(record))
            self.rows.append(row)
            if row.exchange is not None:
                self._last[row.exchange] = row
            return
        head = parse_head(record)
        if head.exchange not in self._last:
            return
        if head.kind == Kind.REQUEST:
            del self._last[head.exchange]
        else:
            extend(self._last[head.exchange], parse(record))
