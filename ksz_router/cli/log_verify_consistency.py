"""``ksz-router log verify consistency``: whether one checkpoint continues another."""

import argparse
from pathlib import Path

from ksz_router.cli import OK
from ksz_router.cli.log_notes import add_vkeys, read_bytes, text_of, vkeys_of
from ksz_router.config import load
from ksz_router.privacylog.tree.checkpoint import parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.proof import consistency, verify_consistency

_EXAMPLES = """\
examples:
  # nothing that the checkpoint kept last year vouches for was altered or taken away since
  ksz-router log verify consistency kept-2025.note archive/tree/checkpoint \\
      --vkeys vkeys --archive archive

exit status: 0 it continues it; 1 it does not, or a signature is wrong; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    parser.add_argument("old", metavar="OLD", help="file of the earlier checkpoint")
    parser.add_argument("new", metavar="NEW", help="file of the later one; - for standard input")
    add_vkeys(parser)
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="DIR",
        help="whose level files give the proof (default: the configured one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    vkeys = vkeys_of(arguments)
    old = parse_checkpoint(read_bytes("OLD", arguments.old), vkeys)
    new = parse_checkpoint(read_bytes("NEW", arguments.new), vkeys)
    archive: Path = arguments.archive or Path(load(arguments.config).archive.path)
    proof: list[bytes] = []
    if old.size < new.size:  # else there is nothing to prove, or nothing that could be
        levels = Levels.reading(archive / "tree")
        try:
            proof = consistency(levels, old.size, new.size)
        finally:
            levels.close()
    verify_consistency(old, new, proof)
    print(f"{text_of(new)}: continues the tree of {old.size} leaves")
    return OK
