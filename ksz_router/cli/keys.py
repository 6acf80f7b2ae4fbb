"""``ksz-router keys``: make keys for the privacy log and its tree, for rulebooks, for tests."""

import argparse
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.testpki import write_pki
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.commit_keys import extract
from ksz_router.privacylog.durable import write_new
from ksz_router.privacylog.keys import is_quarter, load, make, quarter_after, quarter_of
from ksz_router.privacylog.tree.checkpoint import make_keys

_EXAMPLES = """\
examples:
  # the keys of the privacy log for this quarter and the next; those that exist are kept
  ksz-router keys quarter --folder keys/privacylog

  # what an auditor needs to verify a quarter, and no more: nobody can be found with it
  ksz-router keys commit --folder keys/privacylog --quarter 2026Q4 --out commit-keys/2026Q4.json

  # the keys that sign the checkpoints of a log, under the name it has for ever: archive.origin
  ksz-router keys checkpoint --folder keys/checkpoint --origin log.example/router-a

  # a pair to sign rulebooks with: the private half, and the public one for the routers
  ksz-router keys signer --out keys/rulebook-signer

  # certificates to try things out with, on this machine only
  ksz-router keys testpki tls --institution nsso=urn:example:nsso --institution cpas=urn:example:cpas

Keep key files readable by their owner only; whoever has a quarter's keys can read its log.
Give the file `vkeys` of the checkpoint keys to all who are to verify the log; it holds no secret.
"""  # noqa: E501


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="keys_verb", required=True, metavar="VERB")
    quarter = verbs.add_parser("quarter", help="make the privacy-log keys of a quarter")
    quarter.add_argument("--folder", type=Path, required=True, metavar="DIR")
    quarter.add_argument(
        "--quarter", metavar="2026Q4", help="default: this one and the next, where missing"
    )
    commit = verbs.add_parser("commit", help="copy of a quarter's keys the one that verifies")
    commit.add_argument("--folder", type=Path, required=True, metavar="DIR")
    commit.add_argument("--quarter", required=True, metavar="2026Q4")
    commit.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="named after the quarter"
    )
    checkpoint = verbs.add_parser("checkpoint", help="make the keys that sign checkpoints")
    checkpoint.add_argument("--folder", type=Path, required=True, metavar="DIR")
    checkpoint.add_argument(
        "--origin", required=True, metavar="NAME", help="of the log, such as log.example/router-a"
    )
    signer = verbs.add_parser("signer", help="make an Ed25519 pair that signs rulebooks")
    signer.add_argument("--out", type=Path, required=True, metavar="PATH", help="and PATH.pub")
    pki = verbs.add_parser("testpki", help="make a test authority and certificates; test only")
    pki.add_argument("folder", type=Path, metavar="DIR")
    pki.add_argument(
        "--institution",
        action="append",
        default=[],
        metavar="NAME=URI",
        help="a certificate NAME.crt with this SAN URI; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    try:
        if arguments.keys_verb == "quarter":
            _make_quarters(arguments.folder, arguments.quarter)
        elif arguments.keys_verb == "commit":
            _extract_commit_key(arguments.folder, arguments.quarter, arguments.out)
        elif arguments.keys_verb == "checkpoint":
            print(*make_keys(arguments.folder, arguments.origin), sep="\n")
        elif arguments.keys_verb == "signer":
            _make_signer(arguments.out)
        else:
            _make_test_pki(arguments.folder, arguments.institution)
    except FileExistsError as error:
        print(f"ksz-router: {error.filename}: exists; it is not replaced", file=sys.stderr)
        return NOT_IN_ORDER
    except OSError as error:
        print(f"ksz-router: {error.filename}: {error.strerror}", file=sys.stderr)
        return NOT_IN_ORDER
    except PrivacyLogError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    return OK


def _make_quarters(folder: Path, quarter: str | None) -> None:
    if quarter is not None:
        if not is_quarter(quarter):
            raise UsageError("--quarter: a year and a quarter, such as 2026Q4")
        print(make(folder, quarter))
        return
    current = quarter_of(time.time_ns())
    for each in (current, quarter_after(current)):
        if (folder / f"{each}.json").exists():
            load(folder, each)
            print(f"{folder / f'{each}.json'}: exists and is in order")
        else:
            print(make(folder, each))


def _extract_commit_key(folder: Path, quarter: str, file: Path) -> None:
    if not is_quarter(quarter):
        raise UsageError("--quarter: a year and a quarter, such as 2026Q4")
    if file.name != f"{quarter}.json":
        raise UsageError(f"--out: name it {quarter}.json, as who verifies looks for it")
    extract(folder, quarter, file)
    print(file)


def _make_signer(file: Path) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public_file = file.with_name(f"{file.name}.pub")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(file, private)
    write_new(public_file, public, mode=0o644)
    print(file, public_file, sep="\n")


def _make_test_pki(folder: Path, wishes: list[str]) -> None:
    institutions = {}
    for wish in wishes:
        name, _, uri = wish.partition("=")
        if not name.replace("-", "").isalnum() or name == "router" or ":" not in uri:
            raise UsageError("--institution: NAME=URI, such as nsso=urn:example:nsso")
        institutions[name] = uri
    for file in write_pki(folder, institutions):
        print(file)
