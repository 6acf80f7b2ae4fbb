"""``ksz-router log prove``: a file that proves to anyone that an entry stands in the log."""

import argparse
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.log_audit import needs_audit
from ksz_router.cli.log_place import add_place, place_of
from ksz_router.cli.reading import Reading, add_reading
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import write_new
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.privacylog.keys import KeyRing, Tokens, quarter_of
from ksz_router.privacylog.tree.checkpoint import verify_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hash
from ksz_router.privacylog.tree.proof import (
    Proof,
    ProofRefused,
    encode_proof,
    inclusion,
    verify_inclusion,
)

if TYPE_CHECKING:
    from ksz_router.privacylog.archive.find import Leaf

_EXAMPLES = """\
examples:
  # the request of an exchange, with its verdict, for a court
  ksz-router log prove --purpose "file 2026/118" --exchange 019a91e0-7a3b-7c11-9d52-0b7f6f3c2a10 \\
      --out request.tlog-proof

  # how it ended
  ksz-router log prove --purpose "file 2026/118" --exchange 019a91e0-7a3b-7c11-9d52-0b7f6f3c2a10 \\
      --entry outcome --out outcome.tlog-proof

The file holds the entry itself: whoever has it and the verifier keys needs nothing else to check it
(`log verify record`, contrib/verify_record.py). Persons and users stand in it as tokens.
The reading is recorded first, and again under the person's number before anything is shown.
exit status: 0 done; 1 there is no such entry, or it cannot be proved; 2 wrong usage.
"""

_KINDS = {"request": Kind.REQUEST, "outcome": Kind.OUTCOME}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_reading(parser)
    parser.add_argument("--exchange", required=True, metavar="ID", help="as log query shows it")
    parser.add_argument(
        "--entry",
        default="request",
        metavar="request|outcome|N",
        help="which of its entries: the first of a kind, or number N from 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="a new file (default: standard output)"
    )
    add_place(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    with needs_audit():
        from ksz_router.privacylog.archive.find import entries_of  # noqa: PLC0415
    exchange = _exchange(arguments.exchange)
    number = _number(arguments.entry)
    place = place_of(arguments)
    if place.archive is None:
        raise UsageError("give --archive with --log and --keys")
    keys = KeyRing(place.keys)
    reading = Reading(place.log, place.keys, place.node, "log prove", arguments)
    reading.record(())
    leaves = entries_of(exchange, archive=place.archive, log=place.log, keys=keys)
    leaf = _chosen(leaves, arguments.entry, number)
    entry = parse(leaf.record)
    reading.record(_persons(entry, keys), institution=entry.requester)
    data = _prove(leaf, place.archive)
    if arguments.out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return OK
    return _write(arguments.out, data)


def _exchange(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise UsageError("--exchange: an id such as log query shows") from None


def _number(text: str) -> int | None:
    if text in _KINDS:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise UsageError("--entry: request, outcome, or a number from 1")
    return int(text)


def _chosen(leaves: "Sequence[Leaf]", kind: str, number: int | None) -> "Leaf":
    if number is None:
        fitting = [leaf for leaf in leaves if parse(leaf.record).kind == _KINDS[kind]]
    else:
        fitting = list(leaves[number - 1 : number])
    if not fitting:
        raise PrivacyLogError(
            f"no such entry of this exchange has a leaf: {len(leaves)} have one; an entry gets its "
            "leaf about a second after it is written"
        )
    return fitting[0]


def _persons(entry: Entry, keys: KeyRing) -> list[str]:
    """Return the numbers of the persons whom an entry is about."""
    tokens = [token for token in (entry.person, entry.asked) if token is not None]
    if not tokens:
        return []
    quarter = Tokens(keys.quarter(quarter_of(entry.at_us * 1000)))
    return list(dict.fromkeys(map(quarter.person_number, tokens)))


def _prove(leaf: "Leaf", archive: Path) -> bytes:
    """Return the proof of a leaf under the newest checkpoint."""
    file = archive / "tree" / "checkpoint"
    try:
        note = file.read_bytes()
    except OSError as error:
        raise PrivacyLogError(f"{file}: cannot be read: {error.strerror}") from error
    checkpoint, _ = verify_checkpoint(note, ())
    if leaf.seq >= checkpoint.size:
        raise PrivacyLogError(f"{file}: does not cover the entry yet; try again in a second")
    levels = Levels.reading(archive / "tree")
    try:
        hashes = inclusion(levels, leaf.seq, checkpoint.size)
    finally:
        levels.close()
    made = leaf_hash(leaf.salt, leaf.record)
    try:
        verify_inclusion(made, leaf.seq, checkpoint.size, hashes, checkpoint.root)
    except ProofRefused as error:
        raise PrivacyLogError(
            f"leaf {leaf.seq} as it lies in the archive is not the one that was signed; "
            "`ksz-router log verify full` says where"
        ) from error
    return encode_proof(Proof(leaf.seq, tuple(hashes), note, leaf.salt, leaf.record))


def _write(file: Path, data: bytes) -> int:
    try:
        write_new(file, data)
    except FileExistsError:
        print(f"ksz-router: {file}: exists; it is not replaced", file=sys.stderr)
        return NOT_IN_ORDER
    except OSError as error:
        print(f"ksz-router: {file}: {error.strerror}", file=sys.stderr)
        return NOT_IN_ORDER
    print(file)
    return OK
