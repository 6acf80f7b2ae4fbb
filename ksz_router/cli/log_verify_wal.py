"""``ksz-router log verify wal``: whether the write-ahead files are whole."""

import argparse
import json

from ksz_router.cli import NOT_IN_ORDER, OK
from ksz_router.cli.log_place import add_place, place_of
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.verify import Report, verify

_EXAMPLES = """\
examples:
  # every byte of a copy of the log, with a copy of the keys
  ksz-router log verify --log /mnt/copy/privacylog --keys /mnt/copy/keys

exit status: 0 done and whole; 1 the log is damaged; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    place = place_of(arguments)
    # The first files of a slot may be gone where they are sealed.
    manifest = newest(place.archive) if place.archive is not None else None
    report = verify(place.log, place.keys, manifest.slots if manifest is not None else None)
    return _print_report(report, as_json=arguments.json)


def _print_report(report: Report, *, as_json: bool) -> int:
    for fault in report.faults:
        place = {"file": str(fault.file), "offset": fault.offset, "frame": fault.frame}
        if as_json:
            print(json.dumps({"fault": fault.what, **place}))
        else:
            print(f"{fault.file}: byte {fault.offset}, frame {fault.frame}: {fault.what}")
    counts = {"files": report.files, "frames": report.frames, "records": report.records}
    if as_json:
        print(json.dumps({**counts, "faults": len(report.faults)}))
    else:
        counted = ", ".join(f"{number} {name}" for name, number in counts.items())
        print(f"{counted}: {len(report.faults) or 'no'} faults")
    return NOT_IN_ORDER if report.faults else OK
