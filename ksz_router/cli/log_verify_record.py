"""``ksz-router log verify record``: whether a proof proves the record it holds."""

import argparse
import uuid

from ksz_router.cli import OK
from ksz_router.cli.log_notes import add_vkeys, read_bytes, text_of, time_of, vkeys_of
from ksz_router.privacylog.entry import parse
from ksz_router.privacylog.tree.proof import verify_record

_EXAMPLES = """\
examples:
  # offline: the proof and the verifier keys are all it takes
  ksz-router log verify record exchange.tlog-proof --vkeys vkeys

contrib/verify_record.py does the same without this program, and shows every field of the record.
exit status: 0 the record stands in the log; 1 that is not proved; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    parser.add_argument("proof", metavar="PROOF", help="a .tlog-proof file; - for standard input")
    add_vkeys(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    proved = verify_record(read_bytes("PROOF", arguments.proof), vkeys_of(arguments))
    entry = parse(proved.record)
    of = "" if entry.exchange is None else f" of {uuid.UUID(bytes=entry.exchange)}"
    print(text_of(proved.checkpoint))
    print(f"leaf {proved.index}: {entry.kind.name}{of} at {time_of(entry.at_us // 1_000_000)}")
    return OK
