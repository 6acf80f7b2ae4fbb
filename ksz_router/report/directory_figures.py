"""Count a whole directory for one quarter: content, evolution, sectors, numbers, findings.

A line tells of the past only what stands in it today: lines that were taken out since are in no
figure, and a line whose period was changed counts with the period that it has now.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ksz_router.directory.packing import DamagedError
from ksz_router.directory.scan import Scan
from ksz_router.model import ANY_TYPE, NumberStatus, Role
from ksz_router.official import is_capacity, sectors
from ksz_router.report.directory_findings import (
    CONTRADICTORY,
    Finding,
    KindFlags,
    Terms,
    find,
    is_suspect,
)
from ksz_router.report.directory_kinds import Kinds, LineKind
from ksz_router.report.directory_lines import Flags, Heads, Ints
from ksz_router.report.directory_persons import Persons, read_persons
from ksz_router.report.quarter import Quarter

QUARTERS = 8
"""Of which the evolution is shown; the asked one is the last."""

SPANS = QUARTERS + 2
"""Where a day lies: 0 before them, 1 to 8 in one of them, 9 after the last."""

SECTORS_COUNTED = 1_001
"""Sectors that a person may be known to, 0 to 1 000."""

NUMBER_KINDS = ("national register", "bis, sex unknown", "bis, sex known")
"""Of an INSZ by its month: as it is, or raised by 20 or 40 (royal decree of 8 February 1991)."""

BATCH_NUMBERS = 16_384


class Listing(Protocol):
    """What is shown the lines with findings of each batch."""

    def take(self, persons: Persons, kind: Ints, kinds: Sequence[LineKind], flags: Ints) -> None:
        """Hear of a batch: of each line its kind (a place in ``kinds``) and its findings."""


class Figures(NamedTuple):
    """What was counted. The kinds are the rows of every array that is by kind."""

    quarter: Quarter
    version: int
    """Of the directory."""
    terms: Terms
    kinds: list[LineKind]
    periods: Ints
    """By kind, span of the first day, span of the last day."""
    changed: Ints
    """By kind and span of the day of the last change; span 0 also where none is known."""
    findings: Ints
    """By finding and kind."""
    to_look_at: Ints
    """By kind: lines with a finding, however many each has."""
    contradictory: Ints
    """By kind: lines with one of the findings that contradict what the directory itself says."""
    numbers: Ints
    """By status of the number and :data:`NUMBER_KINDS`."""
    deaths: Ints
    """By span of the day of death."""
    sectors: Ints
    """Persons by status of the number in use, and in how many sectors lines are in force."""
    known: Ints
    """Persons with a line in force, at the end of quarter 0 (before the first) to 8."""
    memberships: Ints
    """Different sectors of these persons, added up, at the same moments."""

    @property
    def quarters(self) -> list[Quarter]:
        """The quarters of the evolution, the asked one last."""
        return [self.quarter.before(count) for count in reversed(range(QUARTERS))]

    def in_force(self, span: int) -> Ints:
        """Return the lines in force after the end of a quarter, by kind; 0: before the first."""
        return _added(self.periods[:, : span + 1, span + 1 :])

    def inscribed(self, span: int) -> Ints:
        """Return the lines that begin in a quarter, by kind."""
        return _added(self.periods[:, span : span + 1, :])

    def ended(self, span: int) -> Ints:
        """Return the lines whose last day lies in a quarter, by kind."""
        return _added(self.periods[:, :, span : span + 1])


class Count:
    """Adds up batches."""

    def __init__(
        self, quarter: Quarter, terms: Terms, roles: frozenset[Role], listing: Listing | None
    ) -> None:
        """``roles`` are those that the rulebook gives to institutions, beside the official ones."""
        self._quarter, self._terms, self._listing = quarter, terms, listing
        self._roles = roles | {Role(*each) for each in sectors()}
        self._types = Counter(role.sector for role in self._roles)
        self._kinds = Kinds(self._meet)
        self._kind_flags = KindFlags(*(np.zeros(0, bool) for _ in KindFlags._fields))
        # The first days of the eight quarters, and of the one that follows.
        edges = [quarter.before(count).first for count in range(QUARTERS - 1, -2, -1)]
        self._edges = np.array(edges, np.int64)
        begin, end = np.divmod(np.arange(SPANS * SPANS), SPANS)
        self._moments = np.zeros(SPANS * SPANS, np.int64)
        for q in range(QUARTERS + 1):  # bit q: in force after the end of quarter q
            self._moments |= ((begin <= q) & (end > q)).astype(np.int64) << q
        self._periods = np.zeros((0, SPANS * SPANS), np.int64)
        self._changed = np.zeros((0, SPANS), np.int64)
        self._findings = np.zeros((0, len(Finding)), np.int64)
        self._to_look_at = np.zeros((0,), np.int64)
        self._contradictory = np.zeros((0,), np.int64)
        self._numbers = np.zeros(len(NumberStatus) * len(NUMBER_KINDS), np.int64)
        self._deaths = np.zeros(SPANS, np.int64)
        self._sectors = np.zeros(len(NumberStatus) * SECTORS_COUNTED, np.int64)
        self._known = np.zeros(QUARTERS + 1, np.int64)
        self._memberships = np.zeros(QUARTERS + 1, np.int64)

    def add(self, heads: Heads, persons: Persons) -> None:
        """Count one batch."""
        self._add_numbers(heads)
        kind = self._kinds.of(persons.lines)
        self._grow()
        spans = self._span(persons.lines.begin) * SPANS + self._span(persons.lines.end)
        _tally(self._periods, kind * (SPANS * SPANS) + spans)
        _tally(self._changed, kind * SPANS + self._span(persons.lines.changed))
        moments = self._moments[spans]
        in_force = (moments >> QUARTERS) > 0
        flags = find(
            persons, kind, self._kind_flags, in_force, last=self._quarter.last, terms=self._terms
        )
        _tally(self._to_look_at, kind[flags > 0])
        _tally(self._contradictory, kind[(flags & CONTRADICTORY) > 0])
        for finding in Finding:
            self._findings[:, finding] += np.bincount(
                kind[(flags >> finding) & 1 > 0], minlength=len(self._findings)
            )
        self._add_sectors(persons, moments)
        if self._listing is not None:
            self._listing.take(persons, kind, self._kinds.known, flags)

    def figures(self, version: int) -> Figures:
        """Return what was counted, of this version of the directory."""
        return Figures(
            quarter=self._quarter,
            version=version,
            terms=self._terms,
            kinds=self._kinds.known,
            periods=self._periods.reshape(-1, SPANS, SPANS),
            changed=self._changed,
            findings=self._findings.T,
            to_look_at=self._to_look_at,
            contradictory=self._contradictory,
            numbers=self._numbers.reshape(-1, len(NUMBER_KINDS)),
            deaths=self._deaths,
            sectors=self._sectors.reshape(-1, SECTORS_COUNTED),
            known=self._known,
            memberships=self._memberships,
        )

    def _span(self, days: Ints) -> Ints:
        return np.searchsorted(self._edges, days, side="right").astype(np.int64)

    def _meet(self, kind: LineKind) -> None:
        role = Role(kind.sector, kind.type)
        is_known = role in self._roles or (kind.type == ANY_TYPE and self._types[kind.sector] > 0)
        so = KindFlags(
            without_type=np.array([kind.type == ANY_TYPE and self._types[kind.sector] > 1]),
            unknown_code=np.array([not (is_known and is_capacity(kind.sector, kind.capacity))]),
            suspect=np.array([is_suspect(*kind)]),
        )
        pairs = zip(self._kind_flags, so, strict=True)
        self._kind_flags = KindFlags(*(np.concatenate(pair) for pair in pairs))

    def _grow(self) -> None:
        """Make room for kinds that were met for the first time."""
        more = len(self._kinds.known) - len(self._periods)
        if more:
            room = ((0, more), (0, 0))
            self._periods = np.pad(self._periods, room)
            self._changed = np.pad(self._changed, room)
            self._findings = np.pad(self._findings, room)
            self._to_look_at = np.pad(self._to_look_at, room[:1])
            self._contradictory = np.pad(self._contradictory, room[:1])

    def _add_numbers(self, heads: Heads) -> None:
        month = heads.number // 10_000_000 % 100
        raised = (month >= 20).astype(np.int64) + (month >= 40)
        _tally(self._numbers, heads.status * len(NUMBER_KINDS) + raised)
        _tally(self._deaths, self._span(heads.deceased[heads.deceased > 0]))

    def _add_sectors(self, persons: Persons, moments: Ints) -> None:
        """Count in how many sectors each person is known, at each moment."""
        rows = np.flatnonzero(moments)
        person, sector = persons.person[rows], persons.lines.sector[rows]
        starts = np.flatnonzero(_is_new(person) | _is_new(sector))
        counts = np.zeros(len(persons.number), np.int64)
        if starts.size:
            held = np.bitwise_or.reduceat(moments[rows], starts)  # of one person and sector
            whose = person[starts]
            first = np.flatnonzero(_is_new(whose))
            for q in range(QUARTERS + 1):
                is_held = (held >> q) & 1
                known = np.add.reduceat(is_held, first)
                self._memberships[q] += int(is_held.sum())
                self._known[q] += int(np.count_nonzero(known))
                if q == QUARTERS:
                    counts[whose[first]] = known
        _tally(self._sectors, persons.status * SECTORS_COUNTED + counts)


def read_figures(
    scan: Scan,
    quarter: Quarter,
    terms: Terms,
    roles: frozenset[Role],
    *,
    listing: Listing | None = None,
    advanced: Callable[[int], object] | None = None,
) -> Figures:
    """Count the whole of a directory.

    Args:
        scan: A view of it, from its beginning.
        quarter: The last one that is counted.
        terms: How long is too long.
        roles: Those that the rulebook gives to institutions, beside the official ones.
        listing: Is shown the lines of each batch with their findings.
        advanced: Called with how many numbers were read since the last call.

    Raises:
        DamagedError: a value is damaged, or the numbers of a person do not name each other.
        DirectoryError: see :meth:`Kinds.of`.
    """
    count = Count(quarter, terms, roles, listing)
    for items in scan.batches(BATCH_NUMBERS):
        heads, persons = read_persons(items, scan.value)
        count.add(heads, persons)
        if advanced is not None:
            advanced(len(items))
    found = count.figures(scan.version)
    if (int(found.numbers.sum()), int(found.periods.sum())) != (scan.numbers, scan.lines):
        raise DamagedError(
            "not as many numbers and lines were met as the directory says it holds; "
            "run `ksz-router directory check`"
        )
    return found


def _added(periods: Ints) -> Ints:
    """The lines of each kind in a part of the periods."""
    lines: Ints = periods.sum(axis=(1, 2))
    return lines


def _tally(counts: Ints, places: Ints) -> None:
    """Add one to each of these places of an array, counted through all its dimensions."""
    counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)


def _is_new(column: Ints) -> Flags:
    """Say of each row whether it differs from the one before; of the first that it does."""
    is_new = np.ones(column.size, bool)
    is_new[1:] = column[1:] != column[:-1]
    return is_new
