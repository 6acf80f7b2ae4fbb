"""``ksz-router log verify checkpoint``: whether its log signed a checkpoint."""

import argparse

from ksz_router.cli import OK
from ksz_router.cli.log_notes import add_vkeys, read_bytes, text_of, time_of, vkeys_of
from ksz_router.privacylog.tree.checkpoint import KINDS, parse_checkpoint, verify_checkpoint

_EXAMPLES = """\
examples:
  # the newest checkpoint of the archive, with keys that were handed over when the log began
  ksz-router log verify checkpoint archive/tree/checkpoint --vkeys vkeys

exit status: 0 signed by the log; 1 not; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    parser.add_argument("note", metavar="NOTE", help="file of the checkpoint; - for standard input")
    add_vkeys(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    data, vkeys = read_bytes("NOTE", arguments.note), vkeys_of(arguments)
    print(text_of(parse_checkpoint(data, vkeys)))
    for key, at_s in verify_checkpoint(data, vkeys)[1]:
        at = "" if at_s is None else f" at {time_of(at_s)}"
        print(f"signed by {key.name} with {KINDS[key.type]}{at}")
    return OK
