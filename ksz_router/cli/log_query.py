"""``ksz-router log query``: who asked what about whom."""

import argparse
import sys
import uuid
from pathlib import Path

import msgspec

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.log_audit import needs_audit
from ksz_router.cli.log_days import parse_day
from ksz_router.cli.log_place import Place, add_place, place_of
from ksz_router.cli.log_table import print_csv, print_json, print_table
from ksz_router.cli.reading import Reading, add_reading, look_up
from ksz_router.codes import Code
from ksz_router.directory.packing import DirectoryError
from ksz_router.identifiers import Insz, is_application, is_insz, is_kbo, parse_kbo
from ksz_router.limits import person_numbers_max
from ksz_router.model import Day
from ksz_router.privacylog.query import query
from ksz_router.privacylog.question import LIMIT_MAX, Asked, Found, Position, PositionRefused

_EXAMPLES = """\
examples:
  # who saw this person this year; the directory adds the person's other numbers
  ksz-router log query --purpose "complaint 2026/118" --person - --from 2026-01-01 < number

  # what an institution was refused, for a program to read
  ksz-router log query --purpose "audit 7" --institution 0206731645 --verdict NO_GRANT --json

  # what passed although the requester does not know the person, where that is only logged
  ksz-router log query --purpose "audit 7" --violations own --from 2026-11-01

  # what one user of an institution did in a month, for a spreadsheet; with --institution it is fast
  ksz-router log query --purpose "audit 7" --institution 0206731645 --user - \\
      --from 2026-11-01 --to 2026-11-30 --csv < number > november.csv

  # what became of a requester's own reference, and all that is known of one exchange
  ksz-router log query --purpose "call 31" --institution 0206731645 --ticket D-2026-118
  ksz-router log query --purpose "call 31" --exchange 019a9c3e-8f00-7c3a-9d7e-1b2c3d4e5f60

A number on the command line can be seen by other users of the machine; a file or - cannot.
Every query writes its own entry first, with the reader and the purpose, and refuses if it cannot.
exit status: 0 done and whole; 1 the log is damaged or refuses; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.epilog = _EXAMPLES
    add_reading(parser)
    parser.add_argument(
        "--person",
        action="append",
        default=[],
        metavar="INSZ|FILE|-",
        help="a number, or where to read numbers of one person, one a line",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="where the person's other numbers are read (default: the configured directory)",
    )
    place.add_argument(
        "--no-directory", action="store_true", help="ask under the numbers given and no other"
    )
    parser.add_argument("--institution", metavar="KBO", help="asked, was acted for, or was sent it")
    parser.add_argument(
        "--user",
        metavar="NUMBER|FILE|-",
        help="a user or an application; with --institution one of its own, which is fast",
    )
    parser.add_argument("--exchange", metavar="UUID", help="all that is known of one exchange")
    parser.add_argument(
        "--ticket", metavar="TEXT", help="the requester's own reference; needs --institution"
    )
    parser.add_argument("--service", metavar="NAME")
    parser.add_argument("--from", dest="from_day", metavar="YYYY-MM-DD", help="first Brussels day")
    parser.add_argument("--to", dest="to_day", metavar="YYYY-MM-DD", help="last Brussels day")
    parser.add_argument("--verdict", metavar="forward|CODE", help="code by name or number")
    parser.add_argument(
        "--violations",
        nargs="?",
        const="any",
        choices=("any", "own", "sectoral", "source", "recipient"),
        help="what passed with a broken integration rule whose mode is log",
    )
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--cursor", metavar="WORD", help="go on behind the last row of the query that printed it"
    )
    add_place(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object a line")
    shape.add_argument("--csv", action="store_true", help="comma-separated, under a heading")


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    try:
        return _query(arguments, place_of(arguments))
    except DirectoryError as error:
        print(
            f"ksz-router: {error}; --no-directory asks under the numbers given only",
            file=sys.stderr,
        )
        return NOT_IN_ORDER


def _query(arguments: argparse.Namespace, place: Place) -> int:
    asked = _asked(arguments)
    if not 1 <= arguments.limit <= LIMIT_MAX:
        raise UsageError(f"--limit: from 1 to {LIMIT_MAX}")
    after = _position(arguments.cursor)
    reading = Reading(place.log, place.keys, place.node, "log query", arguments)

    def record(persons: tuple[str, ...]) -> None:
        reading.record(
            persons,
            user=asked.user if asked.user is not None and is_insz(asked.user) else None,
            institution=asked.institution,
            begin=asked.from_day,
            end=asked.to_day,
        )

    given = [number.digits for number in asked.persons]
    record(tuple(given))
    directory = None if arguments.no_directory else arguments.directory or place.directory
    if given and directory is not None:
        found = [other for number in given for other in look_up(directory, number).others]
        others = tuple(dict.fromkeys(other for other in found if other not in given))
        if others:
            record(others)
            print(f"ksz-router: asked under {len(others)} further numbers too", file=sys.stderr)
            asked = msgspec.structs.replace(asked, persons=asked.persons + tuple(map(Insz, others)))
    elif given and not arguments.no_directory:
        print("ksz-router: no directory: asked under the numbers given only", file=sys.stderr)
    return _print_found(_ask(place, asked, arguments.limit, after), arguments)


def _ask(place: Place, asked: Asked, limit: int, after: Position | None) -> Found:
    """Put the question to all of the log: what is sealed, and the write-ahead files."""
    archive = place.archive
    if archive is None or not (archive / "manifest").is_dir():
        return query(place.log, place.keys, asked, limit=limit, after=after)
    with needs_audit():
        from tqdm import tqdm  # noqa: PLC0415  the audit side is installed on few machines

        from ksz_router.privacylog.archive.assemble import query as query_all  # noqa: PLC0415
    with tqdm(unit=" files", leave=False, disable=None, delay=1) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return query_all(
            place.log, place.keys, archive, asked, limit=limit, after=after, progress=tell
        )


def _asked(arguments: argparse.Namespace) -> Asked:
    persons = [number for source in arguments.person for number in _numbers("--person", source)]
    if not all(map(is_insz, persons)) or len(persons) > person_numbers_max:
        raise UsageError(f"--person: 1 to {person_numbers_max} well-formed INSZ numbers")
    user = None
    if arguments.user is not None:
        users = _numbers("--user", arguments.user)
        if len(users) != 1 or not (is_insz(users[0]) or is_application(users[0])):
            raise UsageError("--user: one number of eleven digits")
        user = users[0]
    if arguments.institution is not None and not is_kbo(arguments.institution):
        raise UsageError("--institution: a KBO number of ten digits")
    if arguments.ticket is not None and arguments.institution is None:
        raise UsageError("--ticket: goes with --institution, the requester whose reference it is")
    return Asked(
        persons=tuple(map(Insz, persons)),
        institution=None if arguments.institution is None else parse_kbo(arguments.institution),
        user=user,
        service=arguments.service,
        from_day=_day("--from", arguments.from_day),
        to_day=_day("--to", arguments.to_day),
        verdict=_verdict(arguments.verdict),
        violation=arguments.violations,
        exchange=_exchange(arguments.exchange),
        ticket=arguments.ticket,
    )


def _numbers(option: str, source: str) -> list[str]:
    """Read numbers given directly, in a file, or on standard input. No message repeats one."""
    if is_insz(source) or is_application(source):
        return [source]
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{option}: neither a number nor a file that can be read") from None
    if not (words := text.split()):
        raise UsageError(f"{option}: no number there")
    return words


def _day(option: str, text: str | None) -> Day | None:
    return None if text is None else parse_day(option, text)


def _verdict(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "forward":
        return 0
    if text in Code.__members__:
        return Code[text]
    if text.isascii() and text.isdigit() and int(text) in set(Code):
        return int(text)
    raise UsageError("--verdict: forward, or a code by name or number, such as NO_GRANT or 4001")


def _exchange(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise UsageError("--exchange: an id such as a query prints") from None


def _position(word: str | None) -> Position | None:
    try:
        return None if word is None else Position.parse(word)
    except PositionRefused as error:
        raise UsageError(f"--cursor: {error}") from None


def _print_found(found: Found, arguments: argparse.Namespace) -> int:
    show = print_json if arguments.json else print_csv if arguments.csv else print_table
    show(found.rows)
    if found.more is not None:
        print(
            f"ksz-router: there are more: go on with --cursor {found.more.encode()}, "
            "or raise --limit",
            file=sys.stderr,
        )
    for what in found.damaged:
        print(f"ksz-router: incomplete: {what}", file=sys.stderr)
    return NOT_IN_ORDER if found.damaged else OK
