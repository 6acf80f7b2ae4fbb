"""What must be derived from entries, said in plain Python, one entry after the other. Pure.

Whoever verifies stands on this: it shares nothing with the sealer but the schema. Slow and short.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ksz_router.days import brussels_day
from ksz_router.privacylog.archive.schema import PERSON, ROLLUP, TRUTH
from ksz_router.privacylog.entry import Kind

Row: TypeAlias = dict[str, Any]
"""A row of a table, by the names of its columns. An entry is a row of ``TRUTH``."""


class Line:
    """The entries that make one line."""

    def __init__(self, first: Row) -> None:
        self.entries = [first]

    @property
    def first(self) -> Row:
        return self.entries[0]

    @property
    def begins(self) -> bool:
        """Whether the line says who asked."""
        return self.first["kind"] in (Kind.REQUEST, Kind.READING)

    def of_kind(self, kind: Kind) -> list[Row]:
        return [entry for entry in self.entries if entry["kind"] == kind]

    @property
    def outcome(self) -> Row | None:
        """The first outcome."""
        return next(iter(self.of_kind(Kind.OUTCOME)), None)

    @property
    def answered(self) -> bool:
        return self.first["code"] != 0 or self.outcome is not None

    def accepts_behind(self, entry: Row) -> bool:
        """Whether an entry directly behind it in its slot belongs to it, once answered."""
        if entry["exchange"] != self.first["exchange"]:
            return False
        lacks = entry["kind"] == Kind.OUTCOME and self.outcome is None
        return entry["kind"] == Kind.FURTHER or lacks


class Walk:
    """The lines of entries that come in the order of leaves.

    Attributes:
        over: Lines whose end was seen; whoever takes them empties it.
        open: By exchange, those whose end was not.
    """

    def __init__(self) -> None:
        self.over: list[Line] = []
        self.open: dict[bytes, Line] = {}
        self._behind: dict[str, Line] = {}
        """By slot: the answered line that its last entry belongs to."""

    def take(self, entry: Row) -> None:
        """Take the next entry."""
        slot, exchange, kind = entry["slot"], entry["exchange"], entry["kind"]
        before = self._behind.pop(slot, None)
        if before is not None and self.open.get(before.first["exchange"]) is before:
            if before.accepts_behind(entry):
                before.entries.append(entry)
                self._behind[slot] = before
                return
            self._end(before)
        if kind in (Kind.SUMMARY, Kind.SEALED):
            return
        if kind == Kind.READING:
            self.over.append(Line(entry))
            return
        line = self.open.get(exchange)
        if line is not None and not line.answered and kind != Kind.REQUEST:
            line.entries.append(entry)
        else:
            if line is not None:
                self._end(line)
            line = Line(entry)
            if kind != Kind.REQUEST:
                self.over.append(line)
                return
            self.open[exchange] = line
        if line.answered:
            self._behind[slot] = line

    def _end(self, line: Line) -> None:
        del self.open[line.first["exchange"]]
        self.over.append(line)


_SAME = [name for name in PERSON.names[4:] if name in TRUTH.names]


def rows_of(line: Line) -> dict[str, list[Row]]:
    """Return the rows of a line by person and by use, the place of the file left out."""
    row = row_of(line)
    return {
        "p": [{"person": token, **row} for token in persons_of(line)],
        "u": [
            {"institution": institution, "member": member, **row}
            for institution, member in uses_of(line)
        ],
    }


def row_of(line: Line) -> Row:
    """Return the columns that rows by person and by use share."""
    first, outcome = line.first, line.outcome
    recipients = [
        {"kbo": kbo, "code": entry["code"]}
        for entry in line.of_kind(Kind.RECIPIENT)
        for kbo in entry["destinations"]
    ]
    row = {name: first[name] for name in _SAME}
    if not line.begins:
        row |= {"code": 0, "user": None, "application": None}
    return row | {
        "replaced": first["asked"] is not None,
        "outcome": outcome and outcome["code"],
        "outcome_at_us": outcome and outcome["at_us"],
        "recipients": recipients or None,
        "further_persons": len(line.of_kind(Kind.FURTHER)),
    }


def persons_of(line: Line) -> set[bytes]:
    """Return the tokens of everybody whom a line concerns."""
    further = [entry["person"] for entry in line.of_kind(Kind.FURTHER)]
    return {line.first["person"], line.first["asked"], *further} - {None}


def uses_of(line: Line) -> set[tuple[str, bytes | None]]:
    """Return institutions and their users."""
    first = line.first
    asker = next(iter(_members(first)), None) if line.begins else None
    pairs: set[tuple[str, bytes | None]] = {(first["requester"] or "", asker)}
    others = (first["acting"], first["final_client"])
    pairs |= {(one, asker) for one in others if one is not None}
    pairs |= {(one, None) for one in first["destinations"]}
    for entry in [*line.of_kind(Kind.RECIPIENT), line.outcome]:
        if entry is not None:
            one_only = len(first["destinations"]) == 1
            to = first["destinations"] if one_only else entry["destinations"]
            pairs |= {(one, member) for one in to or ("",) for member in _members(entry)}
    named = {institution for institution, member in pairs if member is not None}
    return {pair for pair in pairs if pair[1] is not None or pair[0] not in named}


def _members(entry: Row) -> list[bytes]:
    """Return the user and the program that an entry names."""
    user, program = entry["user"], entry["application"]
    named = [] if user is None else [user]
    return named if program is None else [*named, b"APPL:" + program.encode()]


def keys_of(entry: Row) -> list[tuple[bytes, int]]:
    """Return the rows of an entry by key."""
    keys = [entry["exchange"], entry["ticket"] if entry["kind"] == Kind.REQUEST else None]
    return [(key, entry["seq"]) for key in keys if key is not None]


def rollup_of(lines: Iterable[Line]) -> Counter[tuple[Any, ...]]:
    """Return sums by what they are summed for: each sum under its name."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        first, outcome = line.first, line.outcome
        if first["kind"] != Kind.REQUEST:
            continue
        row = {name: first.get(name) for name in ROLLUP.names[3:-5]} | {
            "month": brussels_day(first["at_us"] * 1000) // 100,
            "destination": next(iter(first["destinations"]), None),
            "violation": bool(first["violations"]),
            "outcome": outcome and outcome["code"],
        }
        router_us = outcome["router_us"] if outcome else 0
        sums[*row.values(), "exchanges"] += 1
        sums[*row.values(), "router_us"] += router_us
        sums[*row.values(), "source_us"] += outcome["source_us"] if outcome else 0
        sums[*row.values(), "over_1s"] += router_us > 1_000_000
        sums[*row.values(), "over_2s"] += router_us > 2_000_000
    return +sums


def sums_in(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    """Return what rows of ``ROLLUP`` add up to, as :func:`rollup_of` says it."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        by = [row[name] for name in ROLLUP.names[3:-5]]
        for name in ROLLUP.names[-5:]:
            sums[*by, name] += row[name]
    return +sums
