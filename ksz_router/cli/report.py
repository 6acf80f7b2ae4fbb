"""``ksz-router report``: the dashboards that the agreement asks for each quarter."""

import argparse
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ksz_router.cli import NOT_IN_ORDER, add_config
from ksz_router.cli.log_audit import AuditNotInstalled, needs_audit
from ksz_router.cli.reading import add_reading

_EXAMPLES = """examples:
  # the dashboard of a quarter: a page, and its figures as CSV, in the folder q3
  ksz-router report directory --quarter 2026Q3 --out q3 --directory /srv/copy/directory

  # and of each institution the lines that it should look at; these name persons
  ksz-router report directory --quarter 2026Q3 --out q3 --work-lists q3-lists \\
      --purpose "quality round 2026Q3"

Counts hold no person. Work lists do: a run that writes them is recorded in the privacy log first,
and writes nothing if it cannot be. The page is made of one view of the directory; read a copy
(`--directory`) while the router takes changes: docs/operations.md, "Quarterly dashboards".
exit status: 0 done; 1 something cannot be read, recorded or written; 2 wrong usage.
"""


def add(parser: ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser(
        "directory", help="content, evolution and quality of the person directory in a quarter"
    )
    action.add_argument("--quarter", required=True, metavar="YYYYQn", help="such as 2026Q3")
    action.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the page and CSV files"
    )
    add_config(action)
    action.add_argument(
        "--directory", type=Path, metavar="DIR", help="a copy, instead of the configured one"
    )
    action.add_argument(
        "--provisional-days",
        type=int,
        default=90,
        metavar="N",
        help="a provisional inscription that began more days before is too old (%(default)s)",
    )
    action.add_argument(
        "--unchanged-years",
        type=int,
        default=10,
        metavar="N",
        help="a line in force that was last changed more years before is to be confirmed "
        "(%(default)s)",
    )
    action.add_argument(
        "--keep-years",
        type=int,
        default=10,
        metavar="N",
        help="a line that ended more years before is to be removed (%(default)s)",
    )
    lists = action.add_argument_group("work lists, which name persons")
    lists.add_argument(
        "--work-lists", type=Path, metavar="DIR", help="a new folder: one CSV file an institution"
    )
    lists.add_argument(
        "--lines-max",
        type=int,
        default=1_000,
        metavar="N",
        help="lines in each list for each finding, at most (%(default)s)",
    )
    add_reading(lists, required=False)


def run(arguments: Namespace) -> int:
    """Do it and return the exit code."""
    try:
        with needs_audit():
            from ksz_router.cli.report_directory import report  # noqa: PLC0415  numpy and all
    except AuditNotInstalled as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    return report(arguments)
