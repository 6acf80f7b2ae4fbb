"""The page of ``report directory``: content, evolution and quality of the person directory."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import NamedTuple

from ksz_router.days import to_date
from ksz_router.model import ANY_TYPE, NumberStatus
from ksz_router.report.directory_figures import QUARTERS, Figures
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_owners import Owner
from ksz_router.report.directory_past import FLOW, Evolution
from ksz_router.report.directory_quality import (
    access_section,
    institutions_section,
    quality_section,
)
from ksz_router.report.directory_tables import Sheet, day_text, role_name
from ksz_router.report.directory_words import DASH, cell_text, share
from ksz_router.report.page import Figure, Page, Section, Table, Tile, render
from ksz_router.report.plots import courses, flat_bars, flow, stacked_bars

TODAYS = "today's lines"
"""Of a quarter of which nothing was kept."""

_TOP = 12
_ROWS_MAX = 200


class Source(NamedTuple):
    """What the figures rest on."""

    made_at: datetime
    """With its time zone."""
    today: date
    """In Brussels."""
    node: str
    generation: str
    """Of the rulebook that says who holds which role."""


def directory_page(
    figures: Figures,
    past: Evolution,
    found: Mapping[str, Sheet],
    owned: Mapping[Owner, Ints],
    source: Source,
    *,
    files: Mapping[str, str],
) -> str:
    """Return the page, as HTML in one file.

    Args:
        figures: What was counted.
        past: The eight quarters.
        found: The sheets of it.
        owned: Of each owner its kinds, by place.
        source: What the figures rest on.
        files: The name of the CSV file of each sheet.
    """
    quarter = figures.quarter
    return render(
        Page(
            title=f"The person directory, {quarter}",
            lead=_lead(figures, past, source),
            tiles=_tiles(figures, past),
            sections=[
                _evolution(past),
                _sectors(past),
                _capacities(found["content"]),
                _index(past, found["sectors"]),
                _numbers(figures),
                quality_section(figures),
                institutions_section(figures, owned, found["institutions"]),
                access_section(found["access"]),
                _files(found, files),
            ],
            footer=[
                ("Made at", source.made_at.isoformat(timespec="seconds")),
                ("Router", source.node),
                ("Directory", f"version {figures.version}"),
                ("Holds", f"{figures.numbers.sum():,} numbers, {figures.periods.sum():,} lines"),
                ("Rulebook", source.generation),
                ("Quarter", f"{to_date(quarter.first)} to {to_date(quarter.last)}"),
                ("To check it", "ksz-router directory check, then this report again"),
            ],
        )
    )


def _lead(figures: Figures, past: Evolution, source: Source) -> str:
    quarter = figures.quarter
    text = (
        f"Content, evolution and quality of the person directory in the quarter that ends on "
        f"{to_date(quarter.last)} (agreement, article 7, 3° d), counted over every line that the "
        "directory holds. No person stands on this page."
    )
    if past.counted_on[QUARTERS]:
        text += (
            f" The evolution tells of this quarter as it was counted on "
            f"{to_date(past.counted_on[QUARTERS])}; everything else as the lines stand now."
        )
    if source.today <= to_date(quarter.last):
        text += f" The quarter has not ended: this is what was known on {source.today}."
    return text


def _tiles(figures: Figures, past: Evolution) -> list[Tile]:
    before, in_force = past.in_force[-2:].sum(axis=1).tolist()
    former, known = past.known[-2:]
    formerly, held = past.memberships[-2:]
    counted, wrong = int(figures.in_force(QUARTERS).sum()), int(figures.contradictory.sum())
    mean, mean_before = held / known if known else 0, formerly / former if former else 0
    return [
        Tile("Lines in force", f"{in_force:,}", _change(in_force, before)),
        Tile("Persons known to a sector", f"{known:,}", _change(known, former)),
        Tile(
            "Sectors a person, on average",
            f"{mean:.2f}",
            f"{mean - mean_before:+.2f} in the quarter",
        ),
        Tile(
            "Contradictory lines",
            f"{wrong:,}",
            f"{share(wrong, counted)} of those in force",
            None if not counted else wrong == 0,
        ),
    ]


def _change(now: int, before: int) -> str:
    more = f"{now - before:+,} in the quarter"
    return f"{more} ({100 * (now - before) / before:+.1f} %)" if before else more


def _evolution(past: Evolution) -> Section:
    labels = [str(quarter) for quarter in past.quarters]
    sums = past.flows.sum(axis=1).tolist()
    rows = [
        (label, *(f"{count:,}" for count in counts), f"{deaths:,}", day_text(day) or TODAYS)
        for label, counts, deaths, day in zip(
            labels, sums, past.deaths, past.counted_on[1:], strict=True
        )
    ]
    columns = ("quarter", "in force at begin", "inscribed", "ended", "in force at end",
               "last changed", "deaths", "counted on")  # fmt: skip
    plot = flow(
        "evolution",
        "Lines inscribed and ended, by quarter",
        labels,
        ("inscribed", [row[FLOW.index("inscribed")] for row in sums]),
        ("ended", [row[FLOW.index("ended")] for row in sums]),
    )
    return Section(
        "Evolution",
        "Inscribed: the first day lies in the quarter. Ended: the last day does. In force at an "
        "end: begun by then, with a last day behind it. Counted on: a quarter whose figures were "
        "kept when it had ended is told as it was counted on that day, with the lines that were "
        "taken out since; any other as today's lines tell it, without them. Where an end and the "
        "next begin differ, lines were changed with effect in the past.",
        figures=[Figure(plot, "Standing: inscribed. Hanging: ended.")],
        tables=[Table("Lines by quarter", columns, rows, frozenset({7}))],
    )


def _sectors(past: Evolution) -> Section:
    places: dict[int, list[int]] = {}
    for place, kind in enumerate(past.kinds):
        places.setdefault(kind.sector, []).append(place)
    courses_of = {
        sector: past.in_force[:, at].sum(axis=1).tolist() for sector, at in places.items()
    }
    ranked = sorted(places, key=lambda sector: (-courses_of[sector][-1], sector))
    if not ranked:
        return Section("Sectors", "The directory holds no line.")
    names = {sector: f"{sector} {role_name(sector, ANY_TYPE)}".strip() for sector in ranked}
    ends = [str(quarter) for quarter in (past.quarters[0].before(1), *past.quarters)]
    top = ranked[:_TOP]
    bars = flat_bars(
        "sectors", "Lines in force by sector", [names[s] for s in top],
        [courses_of[s][-1] for s in top],
    )  # fmt: skip
    small = courses(
        "courses", "Lines in force by sector, over eight quarters", ends,
        [(names[s], courses_of[s]) for s in top],
    )  # fmt: skip
    return Section(
        "Sectors",
        figures=[
            Figure(bars, f"Lines in force at the end of the quarter; the {len(top)} with most."),
            Figure(small, "Each with a scale of its own, which does not begin at nothing."),
        ],
    )


def _capacities(content: Sheet) -> Section:
    rows = [
        (
            f"{row[0]}/{'*' if row[1] == '' else row[1]} {row[3]}",
            *map(str, (row[2], row[4])),
            *map(cell_text, row[5:]),
        )
        for row in content.rows
    ]
    columns = ("role", "capacity", "", "at begin", "inscribed", "ended", "at end", "changed",
               "ended before", "begins later", "all")  # fmt: skip
    caption = "Lines by sector, institution type and capacity; *: the line says no type"
    if len(rows) > _ROWS_MAX:
        caption += f"; the first {_ROWS_MAX} of {len(rows):,}"
    table = Table(caption, columns, rows[:_ROWS_MAX], frozenset({2}))
    return Section("Content by capacity", tables=[table])


def _index(past: Evolution, spread: Sheet) -> Section:
    counts = [sum(map(int, row[1:])) for row in spread.rows]
    plot = stacked_bars(
        "spread", "Persons by number of sectors", [str(row[0]) for row in spread.rows],
        [("persons", counts)],
    )  # fmt: skip
    ends = (past.quarters[0].before(1), *past.quarters)
    rows = [
        (str(quarter), f"{known:,}", f"{held:,}", f"{held / known:.3f}" if known else DASH,
         day_text(day) or TODAYS)
        for quarter, known, held, day in zip(
            ends, past.known, past.memberships, past.counted_on, strict=True
        )
    ]  # fmt: skip
    columns = ("end of", "persons known", "sectors added up", "sectors a person", "counted on")
    return Section(
        "Sectors a person",
        "In how many different sectors a person has a line in force, over all of the person's "
        "numbers. The mean is over those who are known to one at least.",
        figures=[Figure(plot, "Persons by the number of sectors that know them; 0: nobody does.")],
        tables=[Table("Mean by quarter", columns, rows, frozenset({4}))],
    )


def _numbers(figures: Figures) -> Section:
    total = int(figures.numbers.sum())
    names = [status.name.lower() for status in NumberStatus]
    counts = figures.numbers.sum(axis=1).tolist()
    rows = [
        (
            name,
            f"{sum(kinds):,}",
            share(sum(kinds), total),
            f"{kinds[1] + kinds[2]:,}",
            share(kinds[1] + kinds[2], sum(kinds)),
        )
        for name, kinds in zip(names, figures.numbers.tolist(), strict=True)
    ]
    columns = ("status", "numbers", "share", "of these BIS", "share that is BIS")
    return Section(
        "Numbers",
        figures=[
            Figure(flat_bars("numbers", "Numbers by status", names, counts), "Numbers by status.")
        ],
        tables=[Table("Numbers by status", columns, rows)],
    )


def _files(found: Mapping[str, Sheet], files: Mapping[str, str]) -> Section:
    rows = [(files[name], f"{len(sheet.rows):,}", ", ".join(sheet.columns))
            for name, sheet in found.items()]  # fmt: skip
    table = Table("The figures as CSV", ("file", "rows", "columns"), rows, frozenset({2}))
    return Section("Files", "Beside this page; docs/operations.md explains them.", tables=[table])
