"""What must be derived from entries, said in plain Python, one entry after the other.

Shares nothing with the sealer but the schema: tests compare both.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ksz_router.days import brussels_day
from ksz_router.privacylog.archive.schema import PERSON, ROLLUP
from ksz_router.privacylog.entry import Entry, Kind

Row = dict[str, Any]


class Placed(NamedTuple):
    """An entry, its leaf, and its place in its slot."""

    seq: int
    slot: str
    number: int
    entry: Entry


class Line:
    """The entries that make one line."""

    def __init__(self, first: Placed) -> None:
        self.all = [first]

    @property
    def first(self) -> Entry:
        return self.all[0].entry

    def of_kind(self, kind: Kind) -> list[Entry]:
        return [placed.entry for placed in self.all if placed.entry.kind == kind]

    @property
    def answered(self) -> bool:
        return self.first.code != 0 or bool(self.of_kind(Kind.OUTCOME))

    def accepts_behind(self, entry: Entry) -> bool:
        """Whether an entry directly behind it in its slot belongs to it, once answered."""
        if entry.exchange != self.first.exchange:
            return False
        lacks = entry.kind == Kind.OUTCOME and not self.of_kind(Kind.OUTCOME)
        return entry.kind == Kind.FURTHER or lacks


def lines_of(log: Sequence[Placed]) -> tuple[list[Line], list[Line]]:
    """Return the lines that are over and those that are open."""
    over: list[Line] = []
    current: dict[bytes, Line] = {}
    behind: dict[str, Line] = {}  # by slot: the answered line that its last entry belongs to

    def end(line: Line | None) -> None:
        if line is not None and current.get(line.first.exchange or b"") is line:
            del current[line.first.exchange or b""]
            over.append(line)

    for placed in log:
        entry, before = placed.entry, behind.pop(placed.slot, None)
        if before is not None and current.get(before.first.exchange or b"") is not before:
            before = None
        if before is not None and before.accepts_behind(entry):
            before.all.append(placed)
            behind[placed.slot] = before
            continue
        end(before)
        if entry.kind in (Kind.SUMMARY, Kind.SEALED):
            continue
        if entry.kind == Kind.READING:
            over.append(Line(placed))
            continue
        assert entry.exchange is not None
        line = current.get(entry.exchange)
        if line is not None and not line.answered and entry.kind != Kind.REQUEST:
            line.all.append(placed)
        else:
            end(line)
            line = Line(placed)
            if entry.kind != Kind.REQUEST:
                over.append(line)
                continue
            current[entry.exchange] = line
        if line.answered:
            behind[placed.slot] = line
    return over, list(current.values())


_SAME = [name for name in PERSON.names[4:] if name in Entry.__struct_fields__]


def row_of(line: Line) -> Row:
    """Return the columns that rows by person and by use share."""
    first, begins = line.first, line.first.kind in (Kind.REQUEST, Kind.READING)
    outcomes = line.of_kind(Kind.OUTCOME)
    recipients = [
        {"kbo": kbo, "code": entry.code}
        for entry in line.of_kind(Kind.RECIPIENT)
        for kbo in entry.destinations
    ]
    row = {name: getattr(first, name) for name in _SAME}
    row |= {"destinations": list(first.destinations), "violations": list(first.violations)}
    if not begins:
        row |= {"code": 0, "user": None, "application": None}
    return row | {
        "kind": int(first.kind),
        "seq": line.all[0].seq,
        "replaced": first.asked is not None,
        "outcome": outcomes[0].code if outcomes else None,
        "outcome_at_us": outcomes[0].at_us if outcomes else None,
        "recipients": recipients or None,
        "further_persons": len(line.of_kind(Kind.FURTHER)),
    }


def persons_of(line: Line) -> set[bytes]:
    """Return the tokens of everybody whom a line concerns."""
    further = [entry.person for entry in line.of_kind(Kind.FURTHER)]
    return {token for token in (line.first.person, line.first.asked, *further) if token is not None}


def uses_of(line: Line) -> set[tuple[str, bytes | None]]:
    """Return institutions and their users."""
    first = line.first
    begins = first.kind in (Kind.REQUEST, Kind.READING)
    asker = members(first)[0] if begins and members(first) else None
    pairs: set[tuple[str, bytes | None]] = {(first.requester or "", asker)}
    pairs |= {(one, asker) for one in (first.acting, first.final_client) if one is not None}
    pairs |= {(one, None) for one in first.destinations}
    for entry in [*line.of_kind(Kind.RECIPIENT), *line.of_kind(Kind.OUTCOME)[:1]]:
        to = first.destinations if len(first.destinations) == 1 else entry.destinations
        pairs |= {(one, member) for one in to or ("",) for member in members(entry)}
    named = {institution for institution, member in pairs if member is not None}
    return {pair for pair in pairs if pair[1] is not None or pair[0] not in named}


def members(entry: Entry) -> list[bytes]:
    """Return the user and the program that an entry names."""
    program = [] if entry.application is None else [b"APPL:" + entry.application.encode()]
    return [*([] if entry.user is None else [entry.user]), *program]


def rollup_of(lines: Sequence[Line]) -> Counter[tuple[Any, ...]]:
    """Return sums by what they are summed for: each sum under its name."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        first, outcomes = line.first, line.of_kind(Kind.OUTCOME)[:1]
        if first.kind != Kind.REQUEST:
            continue
        row = {name: getattr(first, name, None) for name in ROLLUP.names[3:-5]} | {
            "month": brussels_day(first.at_us * 1000) // 100,
            "destination": first.destinations[0] if first.destinations else None,
            "violation": bool(first.violations),
            "outcome": outcomes[0].code if outcomes else None,
        }
        router_us = sum(entry.router_us for entry in outcomes)
        sums[*row.values(), "exchanges"] += 1
        sums[*row.values(), "router_us"] += router_us
        sums[*row.values(), "source_us"] += sum(entry.source_us for entry in outcomes)
        sums[*row.values(), "over_1s"] += router_us > 1_000_000
        sums[*row.values(), "over_2s"] += router_us > 2_000_000
    return +sums
