"""``ksz-router log stats``: how the network was used, from the rollups of the sealed log."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError, add_config
from ksz_router.cli.log_days import parse_month
from ksz_router.config import load

if TYPE_CHECKING:
    from ksz_router.privacylog.archive.statistics import Group, Statistics

_BY = ("month", "service", "requester", "destination", "verdict")
_BAR_CHARS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"

_EXAMPLES = """\
examples:
  # month by month, all that is sealed
  ksz-router log stats

  # what was refused in a quarter, and why
  ksz-router log stats --from 2026-07 --to 2026-09 --by verdict

  # a page to look at, to print, to send: one file
  ksz-router log stats --html use.html

Counts hold no person, so nothing is recorded of who asks for them. Only what is sealed is counted:
the last line says up to which leaf and day.
exit status: 0 done; 1 nothing is sealed for these months, or it cannot be read; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    parser.add_argument("--from", dest="from_month", metavar="YYYY-MM", help="first Brussels month")
    parser.add_argument("--to", dest="to_month", metavar="YYYY-MM", help="last Brussels month")
    parser.add_argument("--by", choices=_BY, default="month", help="default: %(default)s")
    add_config(parser)
    parser.add_argument(
        "--archive", type=Path, metavar="DIR", help="an archive other than the configured"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="comma-separated, with a heading")
    form.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")


def run(arguments: argparse.Namespace) -> int:
    """Count, and show it."""
    first, last = arguments.from_month, arguments.to_month
    from_month = None if first is None else parse_month("--from", first)
    to_month = None if last is None else parse_month("--to", last)
    if from_month is not None and to_month is not None and to_month < from_month:
        raise UsageError("--to: comes before --from")
    try:
        from ksz_router.privacylog.archive.statistics import read_statistics  # noqa: PLC0415
        from ksz_router.report.statistics_page import BY, statistics_page  # noqa: PLC0415
    except ImportError:
        print(
            "ksz-router: the sealed log is read with ksz-router[audit]; install that extra",
            file=sys.stderr,
        )
        return NOT_IN_ORDER
    archive = arguments.archive or Path(load(arguments.config).archive.path)
    by = BY if arguments.html is not None else (arguments.by,)
    found = read_statistics(archive, by, from_month=from_month, to_month=to_month)
    if arguments.html is not None:
        page = statistics_page(found, made_at=datetime.now(UTC))
        try:
            arguments.html.write_text(page, encoding="utf-8")
        except OSError as error:
            print(f"ksz-router: {arguments.html}: {error.strerror}", file=sys.stderr)
            return NOT_IN_ORDER
        return OK
    groups = found.groups[arguments.by]
    if arguments.json or arguments.csv:
        _print_rows(arguments.by, groups, as_json=arguments.json)
    else:
        _print_table(arguments.by, groups)
    _print_source(found)
    return OK


def _print_rows(by: str, groups: Sequence["Group"], *, as_json: bool) -> None:
    rows = [{by: group.key, **group.totals._asdict()} for group in groups]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _print_table(by: str, groups: Sequence["Group"]) -> None:
    """Print a line a group, with a bar as long as its share of the longest."""
    from ksz_router.report.statistics_page import share_text  # noqa: PLC0415

    most = max((group.totals.exchanges for group in groups), default=0)
    head = (by, "exchanges", "refused", "marked", "within 1 s", "within 2 s")
    cells: list[tuple[str, ...]] = [head]
    for group in groups:
        totals = group.totals
        counts = (totals.exchanges, totals.refused, totals.violations)
        parts = (totals.within_1s, totals.within_2s)
        cells.append(
            (_name(by, group.key), *(f"{count:,}" for count in counts), *map(share_text, parts))
        )
    widths = [max(len(line[at]) for line in cells) for at in range(len(head))]
    bars = ["", *(bar_text(group.totals.exchanges, most) for group in groups)]
    for line, bar in zip(cells, bars, strict=True):
        shown = [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join([*shown, bar]).rstrip())


def bar_text(count: int, most: int) -> str:
    """Return a bar, as long as a count is beside the largest; none for nothing."""
    eighths = round(8 * _BAR_CHARS * count / most) if most else 0
    if count and not eighths:
        eighths = 1
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def _name(by: str, key: str) -> str:
    from ksz_router.report.statistics_page import month_text, verdict_text  # noqa: PLC0415

    if by == "month":
        return month_text(int(key))
    if by == "verdict":
        return verdict_text(key)
    return "".join(letter if letter.isprintable() else "?" for letter in key) or "(nobody)"


def _print_source(found: "Statistics") -> None:
    from ksz_router.report.statistics_page import day_text  # noqa: PLC0415

    source = found.source
    print(
        f"ksz-router: sealed entries of {source.node} below leaf {source.leaves}, up to "
        f"{day_text(source.last_day)}; later ones are not counted",
        file=sys.stderr,
    )
