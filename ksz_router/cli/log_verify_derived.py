"""``ksz-router log verify derived``: whether derived files say what the sealed entries say."""

import argparse
from pathlib import Path

from ksz_router.cli import UsageError, add_config
from ksz_router.cli.log_archive import print_findings
from ksz_router.cli.log_audit import needs_audit
from ksz_router.config import load

_EXAMPLES = """\
examples:
  # every row of the configured archive; takes no key
  ksz-router log verify derived

  # those of a hundred thousand leaves
  ksz-router log verify derived --from-leaf 4000000 --to-leaf 4100000

exit status: 0 done and right; 1 a row is missing, other or too many; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_config(parser)
    parser.add_argument("--archive", type=Path, metavar="DIR", help="an archive other than its own")
    parser.add_argument("--from-leaf", type=int, metavar="N", help="check rows from this leaf")
    parser.add_argument("--to-leaf", type=int, metavar="N", help="and before this one")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    first, end = arguments.from_leaf or 0, arguments.to_leaf
    if first < 0 or (end is not None and end <= first):
        raise UsageError("--from-leaf, --to-leaf: leaves from 0 on, the first before the last")
    archive: Path = arguments.archive or Path(load(arguments.config).archive.path)
    with needs_audit():
        from tqdm import tqdm  # noqa: PLC0415  the audit side is installed on few machines

        from ksz_router.privacylog.archive.verify_derived import (  # noqa: PLC0415
            Leaves,
            leaves_of,
            verify_derived,
        )
    wanted = Leaves(first, end)
    with tqdm(
        total=leaves_of(archive, wanted), unit="leaf", unit_scale=True, disable=None, delay=1
    ) as bar:
        findings = verify_derived(archive, wanted, bar.update)
    return print_findings(findings, as_json=arguments.json)
