"""``ksz-router directory``: load the person directory, show a person, check it, make test data."""

import argparse
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ksz_router.cli import (
    NOT_IN_ORDER,
    OK,
    UsageError,
    add_config,
    directory_apply,
    directory_backup,
    directory_history,
)
from ksz_router.cli.progress import drawn
from ksz_router.cli.reading import Reading, add_reading, look_up
from ksz_router.config import load as load_config
from ksz_router.days import to_date
from ksz_router.directory.check import check
from ksz_router.directory.loader import load
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.synthesise import (
    PERSONS_MAX,
    PERSONS_MIN,
    landmarks,
    write_csv,
    write_parquet,
)
from ksz_router.identifiers import is_insz
from ksz_router.model import ANY_TYPE, OPEN, Day, Line
from ksz_router.official import capacity_label, sectors
from ksz_router.persons import Person
from ksz_router.privacylog import PrivacyLogError

_EXAMPLES = """examples:
  # a directory of a million persons who do not exist
  ksz-router directory synthesise --persons 1000000 --seed 7 --out persons.csv
  ksz-router directory load persons.csv --directory /var/lib/ksz-router/directory

  # 25 million in Parquet, a tenth of the size
  ksz-router directory synthesise --persons 25000000 --out persons.parquet

  # who is who among them: a person to ask about for each verdict
  ksz-router directory synthesise --seed 7 --landmarks

  # what the directory holds on one person; the number on standard input, where nobody sees it
  ksz-router directory show - --purpose "complaint 2026/118" < number

  # a file of changes that came from an institution; run it again where it was stopped
  ksz-router directory apply zandbergen-4711.csv --purpose "mailbox 4711, by courier"

  # a copy while it serves; and back, brought forward to a moment before a mistake
  ksz-router directory backup /backup/directory-monday
  ksz-router directory restore /backup/directory-monday \
      --journal-of /var/lib/ksz-router/directory --until-time 2026-11-23T14:02+01:00

  # after files were copied: check every byte, and admit the directory if it is sound
  ksz-router directory check

  # who changed what of a person, and when
  ksz-router directory history --person - --purpose "complaint 2026/118" < number

`show` and `history` write an entry to the privacy log first, and refuse if they cannot.
docs/directory-format.md describes the file. To load one takes ksz-router[audit].
exit status: 0 done; 1 refused, unknown or not in order; 2 wrong usage.
"""


def add(parser: ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("load", help="build a new version from a file and swap it in")
    action.add_argument("file", type=Path, metavar="FILE", help="CSV, or FILE.parquet")
    _add_place(action)

    action = actions.add_parser("show", help="show what the directory holds on one person")
    action.add_argument("insz", metavar="INSZ|-", help="the number; - reads it from stdin")
    add_reading(action)
    _add_place(action)
    _add_json(action)

    action = actions.add_parser("check", help="check every page and every value")
    _add_place(action)
    _add_json(action)

    directory_apply.add(actions, _add_json, add_config)
    directory_backup.add(actions, _add_place, _add_json)
    directory_history.add(actions, _add_place, _add_json)

    action = actions.add_parser("synthesise", help="write a file of persons who do not exist")
    action.add_argument("--persons", type=int, default=10_000, metavar="N", help="(%(default)s)")
    action.add_argument("--seed", type=int, default=1, metavar="S", help="(%(default)s)")
    action.add_argument("--out", type=Path, metavar="FILE", help="(default: CSV on stdout)")
    action.add_argument(
        "--landmarks",
        action="store_true",
        help="print the numbers of the persons with fixed properties as JSON, and no file",
    )


def _add_place(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="a directory other than the configured one"
    )


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for a program to read")


def run(arguments: Namespace) -> int:
    """Do it and return the exit code."""
    actions = {"load": _load, "show": _show, "check": _check, "synthesise": _synthesise}
    try:
        if arguments.action == "history":
            return directory_history.run(arguments)
        if arguments.action == "apply":
            return directory_apply.run(arguments)
        if arguments.action in directory_backup.ACTIONS:
            return directory_backup.run(arguments, _target(arguments))
        return actions[arguments.action](arguments)
    except (DirectoryError, PrivacyLogError) as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER


def _target(arguments: Namespace) -> Path:
    if arguments.directory is not None:
        return Path(arguments.directory)
    return Path(load_config(arguments.config).tables.directory)


def _load(arguments: Namespace) -> int:
    with drawn() as progress:
        loaded = load(
            arguments.file,
            _target(arguments),
            now_us=time.time_ns() // 1000,
            progress=progress,
        )
    print(f"version {loaded.version}: {loaded.numbers} numbers, {loaded.lines} lines")
    return OK


def _show(arguments: Namespace) -> int:
    given = sys.stdin.readline().strip() if arguments.insz == "-" else arguments.insz
    if not is_insz(given):
        raise UsageError("show: give one well-formed INSZ, or - and the number on stdin")
    config = load_config(arguments.config)
    log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
    reading = Reading(log, keys, config.node.name, "directory show", arguments)
    reading.record((given,))
    person, others, version = look_up(_target(arguments), given)
    if others:  # the same person is read under these too
        reading.record(others)
    if arguments.json:
        print(json.dumps(_described(person, len(others) + 1, version), ensure_ascii=False))
    else:
        _print_person(person, given, len(others) + 1, version)
    return OK if person is not None else NOT_IN_ORDER


def _described(person: Person | None, numbers: int, version: int) -> dict[str, object]:
    if person is None:
        return {"version": version, "status": "unknown"}
    return {
        "version": version,
        "status": person.status.name.lower(),
        "current": person.current,
        "current_status": person.current_status.name.lower(),
        "deceased": _written(person.deceased),
        "numbers": numbers,
        "lines": [
            {
                "sector": line.sector,
                "type": None if line.type == ANY_TYPE else line.type,
                "role": _role_label(line),
                "capacity": line.capacity,
                "label": capacity_label(line.sector, line.capacity),
                "phase": line.phase,
                "begin": _written(line.begin),
                "end": _written(line.end),
                "changed": _written(line.changed),
            }
            for line in person.lines
        ],
    }


def _print_person(person: Person | None, asked: str, numbers: int, version: int) -> None:
    if person is None:
        print(f"unknown in version {version}")
        return
    status = person.status.name.lower()
    if person.current != asked:
        status += f" by {person.current} ({person.current_status.name.lower()})"
    if person.deceased:
        status += f", died {_written(person.deceased)}"
    print(f"{status}; numbers: {numbers}; lines: {person.lines_count}; version {version}")
    for line in person.lines:
        kind = "*" if line.type == ANY_TYPE else str(line.type)
        period = f"{_written(line.begin)} .. {_written(line.end) or 'open':<10}"
        label = capacity_label(line.sector, line.capacity)
        print(
            f"  {line.sector:>3}/{kind:<3} {_role_label(line):<10} capacity {line.capacity:>3} "
            f"phase {line.phase}  {period}  {label}".rstrip()
        )


def _role_label(line: Line) -> str:
    kind = 0 if line.type == ANY_TYPE else line.type
    row = sectors().get((line.sector, kind))
    return row.abbr_nl if row is not None else ""


def _written(day: Day) -> str | None:
    return to_date(day).isoformat() if 0 < day < OPEN else None


def _check(arguments: Namespace) -> int:
    target = _target(arguments)
    remarks: list[str] = []
    with drawn() as progress:
        problems = check(target, progress=progress, remark=remarks.append)
    if arguments.json:
        found = {"directory": str(target), "problems": problems, "remarks": remarks}
        print(json.dumps(found))
    else:
        print("\n".join((*problems, *remarks)))
        if not problems:
            print(f"{target}: sound")
    return NOT_IN_ORDER if problems else OK


def _synthesise(arguments: Namespace) -> int:
    if arguments.landmarks:
        print(json.dumps(landmarks(arguments.seed), indent=2))
        return OK
    if not PERSONS_MIN <= arguments.persons <= PERSONS_MAX:
        raise UsageError(f"--persons: from {PERSONS_MIN} to {PERSONS_MAX}")
    if arguments.out is None:
        write_csv(sys.stdout, persons=arguments.persons, seed=arguments.seed)
        return OK
    try:
        if arguments.out.suffix == ".parquet":
            write_parquet(arguments.out, persons=arguments.persons, seed=arguments.seed)
        else:
            with arguments.out.open("w", encoding="ascii") as stream:
                write_csv(stream, persons=arguments.persons, seed=arguments.seed)
    except ImportError as error:
        raise UsageError(
            f"{arguments.out}: Parquet is written with ksz-router[audit]; install that extra"
        ) from error
    except OSError as error:
        raise UsageError(f"{arguments.out}: cannot be written: {error.strerror}") from error
    return OK
