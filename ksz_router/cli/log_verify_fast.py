"""``ksz-router log verify fast``: whether an archive is what it says, up to the signed root."""

import argparse

from ksz_router.cli.log_archive import add_archive, archive_of, print_findings
from ksz_router.cli.log_audit import needs_audit
from ksz_router.cli.log_notes import vkeys_of

_EXAMPLES = """\
examples:
  # the configured archive, with its write-ahead files
  ksz-router log verify fast

  # a copy, with nothing but the verifier keys that were handed over when the log began
  ksz-router log verify fast --archive /mnt/copy/archive --vkeys vkeys

exit status: 0 done and whole; 1 the archive is damaged; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_archive(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    place, vkeys = archive_of(arguments), vkeys_of(arguments)
    with needs_audit():
        from tqdm import tqdm  # noqa: PLC0415  the audit side is installed on few machines

        from ksz_router.privacylog.archive.verify_fast import (  # noqa: PLC0415
            Place,
            bytes_to_hash,
            verify_fast,
        )
    what = Place(
        archive=place.archive, vkeys=vkeys, anchor=place.anchor, commit_keys=place.keys,
        log=place.log,
    )  # fmt: skip
    total = bytes_to_hash(place.archive)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None, delay=1) as bar:
        findings = verify_fast(what, bar.update)
    return print_findings(findings, as_json=arguments.json)
