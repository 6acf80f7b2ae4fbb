"""The figures of a directory as sheets, each one CSV file; the page is made of the same sums."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ksz_router.days import to_date
from ksz_router.model import ANY_TYPE, Day, NumberStatus
from ksz_router.official import capacity_label, sectors
from ksz_router.report.directory_figures import NUMBER_KINDS, QUARTERS, SPANS, Figures
from ksz_router.report.directory_findings import Finding
from ksz_router.report.directory_kinds import LineKind
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_owners import Granted, Owner, Owners, fits
from ksz_router.report.directory_past import FLOW, Evolution, flow

_ROLE = ("sector", "type", "capacity", "role", "label")

Row = tuple[str | int, ...]


class Sheet(NamedTuple):
    """A heading and its rows."""

    columns: tuple[str, ...]
    rows: list[Row]

    def text(self) -> str:
        """Return it as CSV (RFC 4180, but for line feeds alone)."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return written.getvalue()


def role_name(sector: int, type_: int) -> str:
    """Return the official short name of a role, or an empty text."""
    row = sectors().get((sector, 0 if type_ == ANY_TYPE else type_))
    return row.abbr_nl if row is not None else ""


def sheets(
    figures: Figures,
    past: Evolution,
    owners: Owners,
    grants: Sequence[Granted],
    listed: Mapping[Owner, int],
) -> dict[str, Sheet]:
    """Return every sheet by its name."""
    return {
        "content": _content(figures),
        "evolution": _evolution(past),
        "index": _index(past),
        "sectors": _sectors(figures),
        "numbers": _numbers(figures),
        "quality": _quality(figures),
        "institutions": _institutions(figures, owners, listed),
        "access": _access(figures, grants),
    }


def in_order(figures: Figures) -> list[int]:
    """Return the places of the kinds, by sector, type and capacity."""
    return sorted(range(len(figures.kinds)), key=figures.kinds.__getitem__)


def by_owner(figures: Figures, owners: Owners) -> dict[Owner, Ints]:
    """Return the kinds that each owner answers for, by place; each kind has one owner."""
    found: dict[Owner, list[int]] = {}
    for place in in_order(figures):
        kind = figures.kinds[place]
        found.setdefault(owners.of(kind.sector, kind.type), []).append(place)
    return {owner: np.array(found[owner], np.int64) for owner in sorted(found)}


def _named(kind: LineKind) -> Row:
    return (
        kind.sector,
        "" if kind.type == ANY_TYPE else kind.type,
        kind.capacity,
        role_name(kind.sector, kind.type),
        capacity_label(kind.sector, kind.capacity),
    )


def _content(figures: Figures) -> Sheet:
    before = figures.periods[:, :, :QUARTERS].sum(axis=(1, 2)).tolist()
    later = figures.periods[:, SPANS - 1, :].sum(axis=1).tolist()
    total = figures.periods.sum(axis=(1, 2)).tolist()
    rows_of = flow(figures, QUARTERS).tolist()
    rows: list[Row] = [
        (*_named(figures.kinds[at]), *rows_of[at], before[at], later[at], total[at])
        for at in in_order(figures)
    ]
    return Sheet((*_ROLE, *FLOW, "ended_before", "begins_later", "lines"), rows)


def _evolution(past: Evolution) -> Sheet:
    rows: list[Row] = []
    for quarter, flows, day in zip(past.quarters, past.flows, past.counted_on[1:], strict=True):
        rows += [
            (str(quarter), *_named(kind), *row, day_text(day))
            for kind, row in zip(past.kinds, flows.tolist(), strict=True)
            if any(row)
        ]
    return Sheet(("quarter", *_ROLE, *FLOW, "counted_on"), rows)


def _index(past: Evolution) -> Sheet:
    rows: list[Row] = []
    ends = [past.quarters[0].before(1), *past.quarters]
    for quarter, known, held, day in zip(
        ends, past.known, past.memberships, past.counted_on, strict=True
    ):
        mean = f"{held / known:.4f}" if known else ""
        rows.append((str(quarter), known, held, mean, day_text(day)))
    columns = ("end_of_quarter", "persons_known", "sectors_added_up", "mean_sectors", "counted_on")
    return Sheet(columns, rows)


def day_text(day: Day) -> str:
    """Return the day on which a quarter was counted; empty where today's lines tell of it."""
    return to_date(day).isoformat() if day else ""


def _sectors(figures: Figures) -> Sheet:
    counted = figures.sectors
    most = int(np.flatnonzero(counted.any(axis=0)).max(initial=0))
    statuses = [status for status in NumberStatus if status is not NumberStatus.REPLACED]
    rows: list[Row] = [
        (count, *(int(counted[status, count]) for status in statuses)) for count in range(most + 1)
    ]
    return Sheet(("sectors", *(f"persons_{each.name.lower()}" for each in statuses)), rows)


def _numbers(figures: Figures) -> Sheet:
    rows: list[Row] = [
        (status.name.lower(), kind, int(figures.numbers[status, at]))
        for status in NumberStatus
        for at, kind in enumerate(NUMBER_KINDS)
    ]
    return Sheet(("status", "kind", "numbers"), rows)


def _quality(figures: Figures) -> Sheet:
    rows: list[Row] = [
        (finding.name, *_named(figures.kinds[at]), int(figures.findings[finding, at]))
        for finding in Finding
        for at in in_order(figures)
        if figures.findings[finding, at]
    ]
    return Sheet(("finding", *_ROLE, "lines"), rows)


def _institutions(figures: Figures, owners: Owners, listed: Mapping[Owner, int]) -> Sheet:
    rows: list[Row] = []
    flows = flow(figures, QUARTERS)
    for owner, places in by_owner(figures, owners).items():
        rows.append(
            (
                owner.key,
                owner.name,
                int(figures.periods[places].sum()),
                *flows[places].sum(axis=0).tolist(),
                int(figures.to_look_at[places].sum()),
                int(figures.contradictory[places].sum()),
                listed.get(owner, 0),
                *figures.findings[:, places].sum(axis=1).tolist(),
            )
        )
    names = (finding.name.lower() for finding in Finding)
    fixed = ("owner", "name", "lines", *FLOW, "to_look_at", "contradictory", "listed")
    return Sheet((*fixed, *names), rows)


def _access(figures: Figures, grants: Sequence[Granted]) -> Sheet:
    in_force = figures.in_force(QUARTERS).tolist()
    rows: list[Row] = []
    for role, capacity, count in grants:
        lines = Counter[bool]()
        for kind, known in zip(figures.kinds, in_force, strict=True):
            lines[fits(kind, role, capacity)] += known
        named = _named(LineKind(role.sector, role.type, capacity))
        rows.append((*named, count, lines[True]))
    return Sheet((*_ROLE, "grants", "lines_in_force"), rows)
