"""The figures of a directory as sheets, each one CSV file; the page is made of the same sums."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ksz_router.model import ANY_TYPE, NumberStatus
from ksz_router.official import capacity_label, sectors
from ksz_router.report.directory_figures import NUMBER_KINDS, QUARTERS, SPANS, Figures
from ksz_router.report.directory_findings import Finding
from ksz_router.report.directory_kinds import LineKind
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_owners import Granted, Owner, Owners, fits

_ROLE = ("sector", "type", "capacity", "role", "label")
_FLOW = ("in_force_at_begin", "inscribed", "ended", "in_force_at_end", "changed")


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
    figures: Figures, owners: Owners, grants: Sequence[Granted], listed: Mapping[Owner, int]
) -> dict[str, Sheet]:
    """Return every sheet by its name."""
    return {
        "content": _content(figures),
        "evolution": _evolution(figures),
        "index": _index(figures),
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


def _flow(figures: Figures, span: int) -> list[list[int]]:
    """Of each kind what happened in a quarter, in the order of ``_FLOW``."""
    columns = (
        figures.in_force(span - 1),
        figures.inscribed(span),
        figures.ended(span),
        figures.in_force(span),
        figures.changed[:, span],
    )
    rows: list[list[int]] = np.stack(columns, axis=1).tolist()
    return rows


def _content(figures: Figures) -> Sheet:
    before = figures.periods[:, :, :QUARTERS].sum(axis=(1, 2)).tolist()
    later = figures.periods[:, SPANS - 1, :].sum(axis=1).tolist()
    total = figures.periods.sum(axis=(1, 2)).tolist()
    flow = _flow(figures, QUARTERS)
    rows: list[Row] = [
        (*_named(figures.kinds[at]), *flow[at], before[at], later[at], total[at])
        for at in in_order(figures)
    ]
    return Sheet((*_ROLE, *_FLOW, "ended_before", "begins_later", "lines"), rows)


def _evolution(figures: Figures) -> Sheet:
    rows: list[Row] = []
    for span, quarter in enumerate(figures.quarters, start=1):
        flow = _flow(figures, span)
        rows += [
            (str(quarter), *_named(figures.kinds[at]), *flow[at])
            for at in in_order(figures)
            if any(flow[at])
        ]
    return Sheet(("quarter", *_ROLE, *_FLOW), rows)


def _index(figures: Figures) -> Sheet:
    rows: list[Row] = []
    ends = [figures.quarter.before(QUARTERS), *figures.quarters]
    for quarter, known, held in zip(
        ends, figures.known.tolist(), figures.memberships.tolist(), strict=True
    ):
        rows.append((str(quarter), known, held, f"{held / known:.4f}" if known else ""))
    return Sheet(("end_of_quarter", "persons_known", "sectors_added_up", "mean_sectors"), rows)


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
    flow = np.array(_flow(figures, QUARTERS), np.int64).reshape(-1, len(_FLOW))
    for owner, places in by_owner(figures, owners).items():
        rows.append(
            (
                owner.key,
                owner.name,
                int(figures.periods[places].sum()),
                *flow[places].sum(axis=0).tolist(),
                int(figures.to_look_at[places].sum()),
                int(figures.contradictory[places].sum()),
                listed.get(owner, 0),
                *figures.findings[:, places].sum(axis=1).tolist(),
            )
        )
    names = (finding.name.lower() for finding in Finding)
    fixed = ("owner", "name", "lines", *_FLOW, "to_look_at", "contradictory", "listed")
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
