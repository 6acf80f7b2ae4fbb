"""Where an archive is and with what it is verified: the options of ``log verify fast|full``."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.log_notes import add_vkeys
from ksz_router.config import load

if TYPE_CHECKING:  # the audit side is imported where a verb runs
    from ksz_router.privacylog.archive.findings import Findings


class ArchivePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts are; None for what is not checked."""

    archive: Path
    anchor: Path | None
    keys: Path | None
    log: Path | None


def add_archive(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, and what stands in for it where a copy is verified elsewhere."""
    add_vkeys(parser)
    parser.add_argument("--archive", type=Path, metavar="DIR", help="an archive other than its own")
    parser.add_argument(
        "--last-checkpoint", type=Path, metavar="FILE", help="of that archive; goes with --archive"
    )
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="key files, of which the commit keys are enough"
    )
    parser.add_argument(
        "--log", type=Path, metavar="DIR", help="its write-ahead files, which take whole key files"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def archive_of(arguments: argparse.Namespace) -> ArchivePlace:
    """Return where things are: as configured, or as given for a copy.

    Raises:
        UsageError: a part is given without the others that it needs.
        ConfigError: the configuration cannot be used.
    """
    given = (arguments.last_checkpoint, arguments.keys, arguments.log)
    if arguments.archive is None:
        if any(each is not None for each in given):
            raise UsageError("--last-checkpoint, --keys and --log go with --archive")
        config = load(arguments.config)
        return ArchivePlace(
            archive=Path(config.archive.path),
            anchor=Path(config.archive.last_checkpoint),
            keys=Path(config.privacy_log.keys),
            log=Path(config.privacy_log.path),
        )
    if arguments.vkeys is None:
        raise UsageError("--archive goes with --vkeys: the keys its checkpoints are signed with")
    if arguments.log is not None and arguments.keys is None:
        raise UsageError("--log goes with --keys")
    anchor, keys, log = given
    return ArchivePlace(archive=arguments.archive, anchor=anchor, keys=keys, log=log)


def print_findings(findings: "Findings", *, as_json: bool) -> int:
    """Print faults, notes and counts; return the exit code."""
    for fault in findings.faults:
        told = msgspec.to_builtins(fault, enc_hook=str)
        place = {name: value for name, value in told.items() if value is not None}
        if as_json:
            print(json.dumps({"fault": place.pop("what"), **place}))
            continue
        names = {"leaf": "leaf", "row_group": "row group", "offset": "byte"}
        where = "".join(f", {text} {place[n]}" for n, text in names.items() if n in place)
        print(f"{fault.file}{where}: {fault.what}")
    for note in findings.notes:
        print(json.dumps({"note": note}) if as_json else f"note: {note}", file=sys.stdout)
    counts = {
        "files": findings.files,
        "bytes": findings.bytes,
        "manifests": findings.manifests,
        "leaves": findings.leaves,
        "sealed_leaves": findings.sealed_leaves,
        "tree_size": findings.tree_size,
    }
    faults = len(findings.faults) + findings.untold
    if as_json:
        print(json.dumps({**counts, "faults": faults}))
    else:
        of = findings.tree_size or findings.sealed_leaves
        print(
            f"{counts['files']} files, {counts['bytes']} bytes, {counts['manifests']} manifests, "
            f"{counts['leaves']} of {of} leaves checked: {faults or 'no'} faults"
        )
    return NOT_IN_ORDER if faults else OK
