"""What may be wrong with a line, and which lines it is so of.

A finding is a reason to look at a line, not a proof: the institution that keeps the file judges.
All but ``EXPIRED`` are about lines in force after the last day of the quarter. Pure: columns in,
flags out.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum, unique
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ksz_router.days import to_date, to_day
from ksz_router.model import ANY_TYPE, PROVISIONAL, Day, NumberStatus
from ksz_router.report.directory_lines import Flags, Ints
from ksz_router.report.directory_persons import Persons

AGE_YEARS_MAX = 115
"""Nobody in Belgium is known to have lived longer."""

EXCLUDING = frozenset({(14, 10, 21), (17, 2, 3), (17, 20, 21), (19, 1, 2)})
"""Sector and two capacities that say the contrary of each other, by their official labels: with and
without a pension account; living wage and its equivalent for who has no right to it; a helper under
inquiry and a definitive one; a file that is active and one that is not."""


@unique
class Finding(IntEnum):
    """A reason to look at a line; the gravest first."""

    AFTER_DEATH = 0
    CANCELLED_NUMBER = 1
    REPLACED_NUMBER = 2
    SAME_TWICE = 3
    EXCLUDING_EACH_OTHER = 4
    PROVISIONAL_BESIDE = 5
    PROVISIONAL_TOO_LONG = 6
    WITHOUT_TYPE = 7
    UNKNOWN_CODE = 8
    IMPROBABLE_AGE = 9
    UNCHANGED = 10
    EXPIRED = 11


CONTRADICTORY = sum(1 << finding for finding in Finding if finding < Finding.PROVISIONAL_TOO_LONG)
"""Of the findings those in which the directory contradicts itself, as bits."""


class Terms(NamedTuple):
    """How long is too long."""

    provisional_days: int = 90
    unchanged_years: int = 10
    keep_years: int = 10


class KindFlags(NamedTuple):
    """What is so of every line of one kind (sector, type, capacity), one row for each kind."""

    without_type: Flags
    unknown_code: Flags
    suspect: Flags
    """A line of this kind can contradict another of the same person and sector."""


def years_before(day: Day, years: int) -> Day:
    """Return the same day so many years before; the 29th of February becomes the 28th."""
    earlier = day - years * 10_000
    if day % 10_000 == 229:
        earlier -= 1
    return earlier


def is_suspect(sector: int, type_: int, capacity: int) -> bool:
    """Say whether such a line can contradict another one of the same number and sector."""
    named = {(s, c) for s, *pair in EXCLUDING for c in pair}
    return type_ == ANY_TYPE or capacity == PROVISIONAL or (sector, capacity) in named


def find(
    persons: Persons, kind: Ints, kinds: KindFlags, in_force: Flags, *, last: Day, terms: Terms
) -> Ints:
    """Return the findings of each line, finding *f* as the bit ``1 << f``.

    Args:
        persons: Of a batch.
        kind: Of each line, a place in ``kinds``.
        kinds: What is known of the kinds.
        in_force: Whether the line is in force after the last day.
        last: The last day of the quarter.
        terms: How long is too long.
    """
    lines = persons.lines
    status, deceased = persons.status[persons.person], persons.deceased[persons.person]
    is_provisional = lines.capacity == PROVISIONAL
    said = np.where(lines.changed > 0, lines.changed, lines.begin)
    provisional_since = to_day(to_date(last) - timedelta(days=terms.provisional_days))
    number = persons.number[persons.person]
    found: dict[Finding, Flags] = {
        Finding.AFTER_DEATH: (deceased > 0) & (deceased <= last),
        Finding.CANCELLED_NUMBER: status == NumberStatus.CANCELLED,
        Finding.REPLACED_NUMBER: persons.under != number,
        Finding.PROVISIONAL_TOO_LONG: is_provisional & (lines.begin < provisional_since),
        Finding.WITHOUT_TYPE: kinds.without_type[kind],
        Finding.UNKNOWN_CODE: kinds.unknown_code[kind],
        Finding.IMPROBABLE_AGE: (deceased == 0) & _is_old(persons, last)[persons.person],
        Finding.UNCHANGED: said < years_before(last, terms.unchanged_years),
    }
    flags = np.zeros(kind.size, np.int64)
    for finding, is_so in found.items():
        flags |= (is_so & in_force).astype(np.int64) << int(finding)
    expired = lines.end < years_before(last, terms.keep_years)
    flags |= expired.astype(np.int64) << int(Finding.EXPIRED)
    _find_contradictions(persons, kinds.suspect[kind], in_force, flags)
    return flags


def _is_old(persons: Persons, last: Day) -> Flags:
    """Born, by the number, so long ago that nobody lives that long; 1900 or 2000 by its check."""
    body, check = persons.number // 100, persons.number % 100
    of_1900 = 97 - body % 97 == check
    oldest = years_before(last, AGE_YEARS_MAX) // 10_000 - 1_900
    is_old: Flags = of_1900 & (body // 10_000_000 < oldest)
    return is_old


def _find_contradictions(persons: Persons, suspect: Flags, in_force: Flags, flags: Ints) -> None:
    """Mark lines of one person and sector that contradict each other, in ``flags``.

    Columns only choose the few groups in which there may be such lines; those are judged one by
    one by :func:`contradictions`.
    """
    rows = np.flatnonzero(in_force)
    if not rows.size:
        return
    person, sector = persons.person[rows], persons.lines.sector[rows]
    is_first = np.ones(rows.size, bool)
    is_first[1:] = (person[1:] != person[:-1]) | (sector[1:] != sector[:-1])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.append(starts, rows.size))
    is_suspect = suspect[rows] | persons.has_others[person]
    chosen = np.flatnonzero((sizes > 1) & np.logical_or.reduceat(is_suspect, starts))
    for start, size in zip(starts[chosen].tolist(), sizes[chosen].tolist(), strict=True):
        places = rows[start : start + size]
        files = list(
            zip(
                persons.lines.type[places].tolist(),
                persons.lines.capacity[places].tolist(),
                strict=True,
            )
        )
        for place, finding in contradictions(int(sector[start]), files):
            flags[places[place]] |= 1 << finding


def contradictions(sector: int, files: Sequence[tuple[int, int]]) -> set[tuple[int, Finding]]:
    """Return which of a person's lines contradict another, all in force and of one sector.

    A line without type fits every type of its sector; lines of two different types are of two
    institutions, and do not contradict each other.

    Args:
        sector: Of all of them.
        files: Type and capacity of each line.
    """
    found = set()
    for (one, (type_, capacity)), (two, (other_type, other)) in combinations(enumerate(files), 2):
        if type_ != other_type and ANY_TYPE not in (type_, other_type):
            continue
        if capacity == other:
            found |= {(one, Finding.SAME_TWICE), (two, Finding.SAME_TWICE)}
        elif PROVISIONAL in (capacity, other):
            waiting = one if capacity == PROVISIONAL else two
            found.add((waiting, Finding.PROVISIONAL_BESIDE))
        elif (sector, min(capacity, other), max(capacity, other)) in EXCLUDING:
            pair = Finding.EXCLUDING_EACH_OTHER
            found |= {(one, pair), (two, pair)}
    return found
