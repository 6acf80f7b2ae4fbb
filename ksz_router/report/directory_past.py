"""The evolution of eight quarters: each as it was counted when it had ended, where that was kept.

Of other quarters today's lines tell, which know nothing of a line that was taken out since. Every
row says which of the two it is.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ksz_router.directory.quarters import Kept, KeptLines
from ksz_router.model import Day
from ksz_router.report.directory_figures import QUARTERS, Figures
from ksz_router.report.directory_kinds import LineKind
from ksz_router.report.directory_lines import Ints
from ksz_router.report.quarter import Quarter

FLOW = ("in_force_at_begin", "inscribed", "ended", "in_force_at_end", "changed")
"""Of a kind of line in a quarter, in the order of the columns of :func:`flow`."""

_END = FLOW.index("in_force_at_end")


class Evolution(NamedTuple):
    """Quarter 0 is the one before the eight, of which the end is known; 8 the one asked for."""

    quarters: list[Quarter]
    """The eight."""
    kinds: list[LineKind]
    """In order; some may have no line today."""
    flows: Ints
    """By quarter 1 to 8 (from 0), kind and column of :data:`FLOW`."""
    in_force: Ints
    """Lines in force after the end of quarter 0 to 8, by kind."""
    known: list[int]
    """Persons with a line in force after the end of quarter 0 to 8."""
    memberships: list[int]
    """Different sectors of these persons, added up."""
    deaths: list[int]
    """In quarter 1 to 8 (from 0)."""
    counted_on: list[Day]
    """Of quarter 0 to 8: the day on which its figures were kept; 0: told by today's lines."""


def flow(figures: Figures, span: int) -> Ints:
    """Return of each kind what happened in a quarter, in the order of :data:`FLOW`."""
    columns = (
        figures.in_force(span - 1),
        figures.inscribed(span),
        figures.ended(span),
        figures.in_force(span),
        figures.changed[:, span],
    )
    return np.stack(columns, axis=1)


def to_keep(figures: Figures, counted_on: Day) -> Kept:
    """Return the figures of the quarter that was asked for, to be kept."""
    lines = [
        KeptLines(*kind, *row)
        for kind, row in zip(figures.kinds, flow(figures, QUARTERS).tolist(), strict=True)
        if any(row)
    ]
    return Kept(
        quarter=str(figures.quarter),
        counted_on=counted_on,
        version=figures.version,
        persons_known=int(figures.known[QUARTERS]),
        sectors_added_up=int(figures.memberships[QUARTERS]),
        deaths=int(figures.deaths[QUARTERS]),
        lines=tuple(sorted(lines)),
    )


def evolution(figures: Figures, kept: Mapping[str, Kept]) -> Evolution:
    """Return the eight quarters, each from what was kept of it, else from today's lines."""
    quarters = [figures.quarter.before(QUARTERS), *figures.quarters]
    past = [kept.get(str(quarter)) for quarter in quarters]
    of_past = {LineKind(*line[:3]) for each in past if each is not None for line in each.lines}
    kinds = sorted({*figures.kinds, *of_past})
    places = {kind: place for place, kind in enumerate(kinds)}
    today = [places[kind] for kind in figures.kinds]
    flows = np.zeros((QUARTERS + 1, len(kinds), len(FLOW)), np.int64)
    known, memberships = figures.known.tolist(), figures.memberships.tolist()
    deaths = figures.deaths.tolist()
    for span, each in enumerate(past):
        if each is not None:
            for line in each.lines:
                flows[span, places[LineKind(*line[:3])]] = line[3:]
            known[span], memberships[span] = each.persons_known, each.sectors_added_up
            deaths[span] = each.deaths
        elif span:
            flows[span, today] = flow(figures, span)
        else:
            flows[0, today, _END] = figures.in_force(0)
    return Evolution(
        quarters=quarters[1:],
        kinds=kinds,
        flows=flows[1:],
        in_force=flows[:, :, _END],
        known=known,
        memberships=memberships,
        deaths=deaths[1 : QUARTERS + 1],
        counted_on=[each.counted_on if each is not None else 0 for each in past],
    )
