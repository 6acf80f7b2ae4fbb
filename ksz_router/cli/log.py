"""``ksz-router log``: who asked what about whom, and whether the privacy log is whole."""

import argparse
import getpass
import json
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError, add_config
from ksz_router.codes import Code
from ksz_router.config import load
from ksz_router.days import is_day
from ksz_router.identifiers import Insz, is_application, is_insz, is_kbo, parse_kbo
from ksz_router.limits import person_numbers_max
from ksz_router.model import Day
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.query import LIMIT_MAX, Asked, Found, query
from ksz_router.privacylog.reading import record_reading
from ksz_router.privacylog.rows import Row
from ksz_router.privacylog.verify import Report, verify

_BRUSSELS = ZoneInfo("Europe/Brussels")

_EXAMPLES = """\
examples:
  # who saw this person this year: all numbers of the person, one a line, on standard input
  ksz-router log query --purpose "complaint 2026/118" --person - --from 2026-01-01 < numbers

  # what an institution was refused, for a program to read
  ksz-router log query --purpose "audit 7" --institution 0206731645 --verdict NO_GRANT --json

  # every byte of a copy of the log, with a copy of the keys
  ksz-router log verify --log /mnt/copy/privacylog --keys /mnt/copy/keys

A number on the command line can be seen by other users of the machine; a file or - cannot.
Every query writes its own entry first, with the reader and the purpose, and refuses if it cannot.
exit status: 0 done and whole; 1 the log is damaged or refuses; 2 wrong usage.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare arguments and examples."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="log_verb", required=True, metavar="query|verify")
    find = verbs.add_parser("query", help="find exchanges by person, institution, user, service")
    find.add_argument("--purpose", required=True, metavar="TEXT", help="why; it is recorded")
    find.add_argument("--reader", metavar="NAME", help="who reads (default: the login name)")
    find.add_argument(
        "--person",
        action="append",
        default=[],
        metavar="INSZ|FILE|-",
        help="a number, or where to read numbers, one a line; name all numbers of one person",
    )
    find.add_argument("--institution", metavar="KBO", help="asked, was acted for, or was sent it")
    find.add_argument("--user", metavar="NUMBER|FILE|-", help="of a user or an application")
    find.add_argument("--service", metavar="NAME")
    find.add_argument("--from", dest="from_day", metavar="YYYY-MM-DD", help="first Brussels day")
    find.add_argument("--to", dest="to_day", metavar="YYYY-MM-DD", help="last Brussels day")
    find.add_argument("--verdict", metavar="forward|CODE", help="code by name or number")
    find.add_argument("--limit", type=int, default=1000, metavar="N", help="default %(default)s")
    check = verbs.add_parser("verify", help="check every byte against the format")
    for sub in (find, check):
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.epilog = _EXAMPLES
        add_config(sub)
        sub.add_argument("--log", type=Path, metavar="DIR", help="a log other than the configured")
        sub.add_argument("--keys", type=Path, metavar="DIR", help="its keys; goes with --log")
        sub.add_argument("--json", action="store_true", help="one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    node, log, keys = _place(arguments)
    try:
        if arguments.log_verb == "verify":
            return _print_report(verify(log, keys), as_json=arguments.json)
        asked = _asked(arguments)
        if not 1 <= arguments.limit <= LIMIT_MAX:
            raise UsageError(f"--limit: from 1 to {LIMIT_MAX}")
        user = asked.user
        record_reading(
            log,
            keys,
            node=node,
            reader=arguments.reader or getpass.getuser(),
            purpose=arguments.purpose,
            verb="log query",
            now_ns=time.time_ns(),
            persons=asked.persons,
            user=Insz(user) if user is not None and is_insz(user) else None,
            institution=asked.institution,
            begin=asked.from_day,
            end=asked.to_day,
        )
        return _print_found(query(log, keys, asked, limit=arguments.limit), arguments.json)
    except PrivacyLogError as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER


def _place(arguments: argparse.Namespace) -> tuple[str, Path, Path]:
    if (arguments.log is None) != (arguments.keys is None):
        raise UsageError("give --log and --keys together, or neither and a --config")
    if arguments.log is not None:
        return "copy", arguments.log, arguments.keys
    config = load(arguments.config)
    return config.node.name, Path(config.privacy_log.path), Path(config.privacy_log.keys)


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
    return Asked(
        persons=tuple(map(Insz, persons)),
        institution=None if arguments.institution is None else parse_kbo(arguments.institution),
        user=user,
        service=arguments.service,
        from_day=_day("--from", arguments.from_day),
        to_day=_day("--to", arguments.to_day),
        verdict=_verdict(arguments.verdict),
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
    if text is None:
        return None
    digits = text.replace("-", "")
    if not (len(digits) == 8 and digits.isascii() and digits.isdigit() and is_day(int(digits))):
        raise UsageError(f"{option}: a day such as 2026-11-22")
    return int(digits)


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


def _print_found(found: Found, as_json: bool) -> int:  # noqa: FBT001
    if as_json:
        for row in found.rows:
            print(json.dumps(_as_json(row)))
    else:
        _print_table(found.rows)
    if found.more:
        print("ksz-router: there are more: go on with --from, or raise --limit", file=sys.stderr)
    for what in found.damaged:
        print(f"ksz-router: incomplete: {what}", file=sys.stderr)
    return NOT_IN_ORDER if found.damaged else OK


def _as_json(row: Row) -> dict[str, object]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return fields | {
        "exchange": None if row.exchange is None else str(uuid.UUID(bytes=row.exchange)),
        "at": datetime.fromtimestamp(row.at_us / 1e6, UTC).isoformat(timespec="microseconds"),
        "kind": row.kind.name,
        "verdict": _code_name(row.code) if row.kind is Kind.REQUEST else None,
        "outcomes": [{"code": c, "name": _code_name(c), "at_us": at} for c, at in row.outcomes],
        "duration_us": row.duration_us,
    }


_COLUMNS = (
    "time (Brussels)", "exchange", "asked by", "for", "user", "service", "verdict", "sent to",
    "capacity", "grant", "outcome", "ms",
)  # fmt: skip


def _print_table(rows: Sequence[Row]) -> None:
    cells = [_COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    at = datetime.fromtimestamp(row.at_us / 1e6, _BRUSSELS)
    reading = row.kind is Kind.READING
    return (
        at.strftime("%Y-%m-%d %H:%M:%S.%f")[:23],
        "-" if row.exchange is None else str(uuid.UUID(bytes=row.exchange)),
        f"reader {row.reader}" if reading else row.requester or "unknown",
        row.purpose if reading else row.acting or "-",
        "yes" if row.user else row.application or "no",
        f"{row.service}/{row.service_version}" if row.service_version else row.service,
        "read" if reading else _code_name(row.code),
        ",".join(row.destinations) or "-",
        "-" if row.capacity is None else str(row.capacity),
        row.grant or row.legal_framework or "-",
        ",".join(_code_name(code) for code, _ in row.outcomes) or "-",
        "-" if row.duration_us is None else f"{row.duration_us / 1000:.1f}",
    )


def _code_name(code: int) -> str:
    if code == 0:
        return "forward"
    return Code(code).name if code in set(Code) else str(code)


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
