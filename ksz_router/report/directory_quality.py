"""Of the dashboard of the person directory what asks somebody to act: quality, by whom, access."""

from collections.abc import Mapping, Sequence

from ksz_router.report.directory_figures import Figures
from ksz_router.report.directory_findings import Finding
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_owners import Owner
from ksz_router.report.directory_tables import Sheet
from ksz_router.report.directory_words import cell_text, meaning, share
from ksz_router.report.page import Figure, Section, Table
from ksz_router.report.plots import flat_bars

_TOP = 12
_ROWS_MAX = 200


def quality_section(figures: Figures) -> Section:
    """Return what may be wrong with lines, and what to do about it."""
    counts = figures.findings.sum(axis=1).tolist()
    total = int(figures.periods.sum())
    words = [meaning(finding, figures.terms) for finding in Finding]
    plot = flat_bars("quality", "Lines by finding", [word.name for word in words], counts)
    rows = [
        (word.name, f"{count:,}", share(count, total), word.what, word.mend)
        for word, count in zip(words, counts, strict=True)
    ]
    looked = int(figures.to_look_at.sum())
    columns = ("finding", "lines", "of all", "what is so", "what to do")
    return Section(
        "Quality",
        f"{looked:,} lines ({share(looked, total)}) have a finding or several. A finding is a "
        "reason to look at a line, not a proof; the first six contradict what the directory "
        "itself says.",
        figures=[Figure(plot, "The gravest on top; a line may have several.")],
        tables=[Table("Findings", columns, rows, frozenset({3, 4}))],
    )


def institutions_section(figures: Figures, owned: Mapping[Owner, Ints], sheet: Sheet) -> Section:
    """Return the lines of each owner: ``owned`` are its kinds by place, ``sheet`` its figures."""
    wrong = {owner: int(figures.contradictory[places].sum()) for owner, places in owned.items()}
    ranked = sorted((owner for owner in wrong if wrong[owner]), key=lambda o: (-wrong[o], o))[:_TOP]
    rows = [(f"{row[0]} {row[1]}", *map(cell_text, (*row[2:7], *row[8:11]))) for row in sheet.rows]
    columns = ("answers for them", "lines", "at begin", "inscribed", "ended", "at end",
               "to look at", "contradictory", "listed")  # fmt: skip
    caption = "Lines by who answers for them"
    if len(rows) > _ROWS_MAX:
        caption += f"; the first {_ROWS_MAX} of {len(rows):,}"
    plots: Sequence[Figure] = ()
    if ranked:
        labels = [owner.name if "/" not in owner.key else owner.key for owner in ranked]
        bars = flat_bars("owners", "Contradictory lines", labels, [wrong[o] for o in ranked])
        plots = [Figure(bars, f"Contradictory lines; the {len(ranked)} with most.")]
    return Section(
        "Institutions",
        "Each line counts once: for the institution that alone holds its role in the rulebook, or "
        "manages all that do; else for the role. Listed: lines in the work list of this run.",
        figures=plots,
        tables=[Table(caption, columns, rows[:_ROWS_MAX])],
    )


def access_section(sheet: Sheet) -> Section:
    """Return the capacities that grants name and nobody is known in."""
    rows = [
        (f"{row[0]}/{row[1]} {row[3]}", str(row[2]), str(row[4]), cell_text(row[5]))
        for row in sheet.rows
        if row[6] == 0
    ]
    text = (
        "Capacities that grants ask the requester's own integration in. Where a role knows nobody "
        "in the capacity, the right cannot be used: it is one to take back (article 7, 4° c). "
    )
    if not rows:
        return Section("Access", text + "There is none: each is used by somebody known.")
    columns = ("role", "capacity", "", "grants that name it")
    table = Table("Granted, and nobody is known in it", columns, rows, frozenset({2}))
    return Section("Access", text, tables=[table])
