"""The page of ``log stats``: how the network was used, how much was refused, how fast it was."""

from collections.abc import Sequence
from datetime import datetime

from ksz_router.codes import MEANINGS, Code
from ksz_router.privacylog.archive.statistics import Group, Statistics, Totals, month_after
from ksz_router.report.page import Figure, Page, Section, Table, Tile, footer, render
from ksz_router.report.plots import flat_bars, shares, stacked_bars

WITHIN_1S, WITHIN_2S = 0.99, 0.995
"""The least share of exchanges that the agreement asks to be done in one second, and in two
(article 7, 2° a)."""

BY = ("month", "verdict", "requester", "destination", "service")
"""What the page needs."""

_TOP = 12
_ROWS_MAX = 200


def statistics_page(found: Statistics, *, made_at: datetime) -> str:
    """Return the page, as HTML in one file.

    Args:
        found: Counted by all of ``BY``.
        made_at: When this is made, with its time zone.
    """
    source, totals = found.source, found.totals
    first, last = month_text(source.first_month), month_text(source.last_month)
    months = first if first == last else f"{first} to {last}"
    return render(
        Page(
            title=f"Use of the network, {months}",
            lead=(
                f"Counted over the sealed privacy log of {source.node}: every entry below leaf "
                f"{source.leaves:,}, up to and including {day_text(source.last_day)}. What came "
                "later, and exchanges that were open then, are not counted. Nobody's number was "
                "read for it."
            ),
            tiles=_tiles(totals),
            sections=[
                _months(found.groups["month"]),
                _speed(found.groups["month"]),
                _refusals(found.groups["verdict"], totals),
                _top("services", "Services", "service", found.groups["service"]),
                _top("requesters", "Who asked", "institution", found.groups["requester"]),
                _top(
                    "destinations",
                    "Who was asked",
                    "institution",
                    [group for group in found.groups["destination"] if group.key],
                    "Of a distribution the first recipient alone.",
                ),
            ],
            footer=footer(
                made_at=made_at,
                node=source.node,
                log=source.origin,
                leaves=(0, source.leaves),
                manifest=source.manifest,
                checkpoint=(source.size, source.root),
            ),
        )
    )


def month_text(month: int) -> str:
    """Return a month such as ``2026-11``."""
    return f"{month // 100:04}-{month % 100:02}"


def day_text(day: int) -> str:
    """Return a day such as ``2026-11-22``."""
    return f"{month_text(day // 100)}-{day % 100:02}"


def verdict_text(code: str) -> str:
    """Return the name of a verdict that is given as a number."""
    if code == "0":
        return "forward"
    return Code(int(code)).name if code.isdigit() and int(code) in set(Code) else code


def share_text(part: float | None) -> str:
    """Return a share as a percentage that is not rounded up to what it did not reach."""
    if part is None:
        return "-"
    return f"{int(part * 100_000) / 1_000:.3f} %"


def _tiles(totals: Totals) -> list[Tile]:
    refused = totals.refused / totals.exchanges if totals.exchanges else None
    marked = f"{totals.violations:,} passed with a broken rule that is only logged"
    return [
        Tile("Exchanges", f"{totals.exchanges:,}", marked),
        Tile("Refused", share_text(refused), f"{totals.refused:,} exchanges"),
        _judged("Within one second", totals.within_1s, WITHIN_1S),
        _judged("Within two seconds", totals.within_2s, WITHIN_2S),
    ]


def _judged(name: str, part: float | None, target: float) -> Tile:
    if part is None:
        return Tile(name, "-", "nothing that passed has ended")
    is_met = part >= target
    asked = f"the agreement asks {100 * target:g} %"
    return Tile(name, share_text(part), f"{'✓' if is_met else '✗'} {asked}", is_met)


def _months(groups: Sequence[Group]) -> Section:
    groups = _without_gaps(groups)
    labels = [month_text(int(group.key)) for group in groups]
    passed = [group.totals.exchanges - group.totals.refused for group in groups]
    refused = [group.totals.refused for group in groups]
    plot = stacked_bars(
        "months", "Exchanges a month", labels, [("passed", passed), ("refused", refused)]
    )
    return Section(
        "Exchanges a month",
        figures=[Figure(plot, "Each bar a Brussels calendar month: what was passed, and refused.")],
        tables=[_table("Months", "month", groups, labels)],
    )


def _speed(groups: Sequence[Group]) -> Section:
    groups = _without_gaps(groups)
    plot = shares(
        "speed",
        "Share of exchanges within one and two seconds, by month",
        [month_text(int(group.key)) for group in groups],
        [
            ("within 1 s", [group.totals.within_1s for group in groups], WITHIN_1S),
            ("within 2 s", [group.totals.within_2s for group in groups], WITHIN_2S),
        ],
    )
    return Section(
        "Time inside the router",
        "Of exchanges that passed and ended, without the time that the source took. "
        "Agreement, article 7, 2° a: 99 % within one second, 99.5 % within two.",
        figures=[Figure(plot, "Dashed: what the agreement asks.")],
    )


def _refusals(groups: Sequence[Group], totals: Totals) -> Section:
    refused = [group for group in groups if group.key != "0"]
    if not refused:
        return Section("Refusals", "Nothing was refused.")
    names = [verdict_text(group.key) for group in refused]
    counts = [group.totals.exchanges for group in refused]
    plot = flat_bars("refusals", "Refusals by code", names[:_TOP], counts[:_TOP])
    rows = [
        (name, group.key, f"{count:,}", share_text(count / totals.refused), _meaning(group.key))
        for name, group, count in zip(names, refused, counts, strict=True)
    ]
    columns = ("refusal", "code", "exchanges", "share of refusals", "what it says")
    caption = "Refusals by code"
    return Section(
        "Refusals",
        figures=[Figure(plot, f"The {len(names[:_TOP])} that came most.")],
        tables=[Table(caption, columns, rows[:_ROWS_MAX], frozenset({4}))],
    )


def _top(name: str, title: str, column: str, groups: Sequence[Group], text: str = "") -> Section:
    if not groups:
        return Section(title, "None.")
    labels = [group.key for group in groups]
    counts = [group.totals.exchanges for group in groups]
    count = min(_TOP, len(groups))
    caption = title
    if len(groups) > _ROWS_MAX:
        caption = f"{title}: the first {_ROWS_MAX} of {len(groups):,}"
    return Section(
        title,
        text,
        figures=[
            Figure(
                flat_bars(name, f"{title}, by exchanges", labels[:count], counts[:count]),
                f"The {count} with the most exchanges.",
            )
        ],
        tables=[_table(caption, column, groups[:_ROWS_MAX], labels[:_ROWS_MAX])],
    )


def _table(caption: str, column: str, groups: Sequence[Group], names: Sequence[str]) -> Table:
    columns = (column, "exchanges", "refused", "marked", "within 1 s", "within 2 s", "router ms")
    rows = [
        (
            name,
            f"{totals.exchanges:,}",
            f"{totals.refused:,}",
            f"{totals.violations:,}",
            share_text(totals.within_1s),
            share_text(totals.within_2s),
            f"{totals.router_us / totals.timed / 1_000:.1f}" if totals.timed else "-",
        )
        for name, (_, totals) in zip(names, groups, strict=True)
    ]
    return Table(caption, columns, rows)


def _without_gaps(groups: Sequence[Group]) -> list[Group]:
    """A month without an exchange is a month too."""
    known = {int(group.key): group for group in groups}
    found, month = [], min(known)
    while month <= max(known):
        found.append(known.get(month, Group(str(month), Totals(*[0] * len(Totals._fields)))))
        month = month_after(month)
    return found


def _meaning(code: str) -> str:
    known = code.isdigit() and int(code) in set(Code)
    return MEANINGS[Code(int(code))].text if known else ""
