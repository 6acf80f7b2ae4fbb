"""``ksz-router log verify full``: whether every record is the one that the signed tree has."""

import argparse

from ksz_router.cli import UsageError
from ksz_router.cli.log_archive import add_archive, archive_of, print_findings
from ksz_router.cli.log_audit import needs_audit
from ksz_router.cli.log_notes import vkeys_of
from ksz_router.privacylog.keys import is_quarter

_EXAMPLES = """\
examples:
  # the configured archive, every record and every write-ahead file
  ksz-router log verify full

  # a copy, by who has the commit keys and no other: nobody is identified
  ksz-router log verify full --archive /mnt/copy/archive --vkeys vkeys --keys commit-keys

  # two processes, half each
  ksz-router log verify full --to-leaf 500000000
  ksz-router log verify full --from-leaf 500000000

exit status: 0 done and whole; 1 the archive is damaged; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_archive(parser)
    parser.add_argument("--from-leaf", type=int, metavar="N", help="check records from this leaf")
    parser.add_argument("--to-leaf", type=int, metavar="N", help="and before this one")
    parser.add_argument("--quarter", metavar="2026Q4", help="check the records of one quarter")


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    first, end, quarter = arguments.from_leaf, arguments.to_leaf, arguments.quarter
    if quarter is not None and (not is_quarter(quarter) or (first, end) != (None, None)):
        raise UsageError("--quarter: such as 2026Q4, without --from-leaf and --to-leaf")
    if (first or 0) < 0 or (end is not None and end <= (first or 0)):
        raise UsageError("--from-leaf, --to-leaf: leaves from 0 on, the first before the last")
    place, vkeys = archive_of(arguments), vkeys_of(arguments)
    with needs_audit():
        from tqdm import tqdm  # noqa: PLC0415  the audit side is installed on few machines

        from ksz_router.privacylog.archive.verify_fast import Place  # noqa: PLC0415
        from ksz_router.privacylog.archive.verify_full import (  # noqa: PLC0415
            Range,
            leaves_of,
            verify_full,
        )
    what = Place(
        archive=place.archive, vkeys=vkeys, anchor=place.anchor, commit_keys=place.keys,
        log=place.log,
    )  # fmt: skip
    wanted = Range(first or 0, end, quarter)
    with tqdm(
        total=leaves_of(place.archive, wanted), unit="leaf", unit_scale=True, disable=None, delay=1
    ) as bar:
        findings = verify_full(what, wanted, bar.update)
    return print_findings(findings, as_json=arguments.json)
