"""``ksz-router directory history``: who changed what of a person, and when."""

import argparse
import json
import sys
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.log_audit import needs_audit
from ksz_router.cli.reading import Reading, add_reading, look_up
from ksz_router.codes import Code
from ksz_router.config import Config
from ksz_router.config import load as load_config
from ksz_router.directory.change import Change
from ksz_router.directory.history import Noted, noted
from ksz_router.identifiers import Insz, is_insz
from ksz_router.model import ANY_TYPE, OPEN
from ksz_router.privacylog.query import query
from ksz_router.privacylog.question import LIMIT_MAX, Asked, Found
from ksz_router.privacylog.rows import Row

_BRUSSELS = ZoneInfo("Europe/Brussels")
_CHANGING = frozenset(f"directory.{verb}" for verb in ("inscribe", "adjust", "remove", "register"))
_COLUMNS = (
    "time (Brussels)", "exchange", "asked by", "for", "user", "service", "role", "capacity",
    "outcome", "version", "change",
)  # fmt: skip


def add(
    actions: "argparse._SubParsersAction[ArgumentParser]",
    add_place: Callable[[ArgumentParser], None],
    add_json: Callable[[ArgumentParser], None],
) -> None:
    """Declare the action."""
    action = actions.add_parser("history", help="show who changed what of one person, and when")
    action.add_argument(
        "--person", required=True, metavar="INSZ|-", help="the number; - reads it from stdin"
    )
    add_reading(action)
    add_place(action)
    add_json(action)


def run(arguments: Namespace) -> int:
    """Record the reading, ask the log, then the directory; print and return the exit code."""
    given = sys.stdin.readline().strip() if arguments.person == "-" else arguments.person
    if not is_insz(given):
        raise UsageError("--person: give one well-formed INSZ, or - and the number on stdin")
    config = load_config(arguments.config)
    directory = arguments.directory or Path(config.tables.directory)
    log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
    reading = Reading(log, keys, config.node.name, "directory history", arguments)
    reading.record((given,))
    others = look_up(directory, given).others
    if others:  # the same person is read under these too
        reading.record(others)
    found = _asked_of_the_log(config, (given, *others))
    known = noted(directory, [row.exchange for row in found.rows if row.exchange is not None])
    rows = [row for row in found.rows if row.service in _CHANGING or row.exchange in known]
    show = _print_json if arguments.json else _print_table
    show([(row, known.get(row.exchange or b"")) for row in rows])
    if found.more is not None:
        text = f"only the first {LIMIT_MAX} exchanges about this person were looked at"
        print(f"ksz-router: incomplete: {text}", file=sys.stderr)
    for what in found.damaged:
        print(f"ksz-router: incomplete: {what}", file=sys.stderr)
    return NOT_IN_ORDER if found.damaged or found.more is not None else OK


def _asked_of_the_log(config: Config, numbers: Sequence[str]) -> Found:
    """Every exchange about the person: a change may come with a message of another service."""
    log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
    archive = Path(config.archive.path)
    asked = Asked(persons=tuple(map(Insz, numbers)))
    if not (archive / "manifest").is_dir():
        return query(log, keys, asked, limit=LIMIT_MAX, after=None)
    with needs_audit():
        from ksz_router.privacylog.archive.assemble import query as query_all  # noqa: PLC0415
    return query_all(log, keys, archive, asked, limit=LIMIT_MAX, after=None)


def _print_json(rows: Sequence[tuple[Row, Noted | None]]) -> None:
    for row, note in rows:
        print(json.dumps(_described(row, note)))


def _described(row: Row, note: Noted | None) -> dict[str, object]:
    change = note.change if note is not None else None
    line = change.line if change is not None else None
    return {
        "at": datetime.fromtimestamp(row.at_us / 1e6, UTC).isoformat(timespec="microseconds"),
        "exchange": str(uuid.UUID(bytes=row.exchange)) if row.exchange is not None else None,
        "requester": row.requester,
        "acting": row.acting,
        "user": row.user,
        "application": row.application,
        "service": row.service,
        "sector": row.sector,
        "type": row.type,
        "capacity": row.capacity,
        "outcomes": _outcome(row),
        "version": note.version if note is not None else None,
        "reason": note.reason.name if note is not None and note.reason is not None else None,
        "operation": change.operation.name.lower() if change is not None else None,
        "line": None if line is None else {
            name: getattr(line, name) for name in line.__struct_fields__ if name != "changed"
        },
    }  # fmt: skip


def _print_table(rows: Sequence[tuple[Row, Noted | None]]) -> None:
    cells = [_COLUMNS, *(_cells(row, note) for row, note in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _cells(row: Row, note: Noted | None) -> tuple[str, ...]:
    at = datetime.fromtimestamp(row.at_us / 1e6, _BRUSSELS)
    return (
        at.strftime("%Y-%m-%d %H:%M:%S.%f")[:23],
        "-" if row.exchange is None else str(uuid.UUID(bytes=row.exchange)),
        row.requester or "unknown",
        ",".join(filter(None, (row.acting, row.final_client))) or "-",
        "yes" if row.user else row.application or "no",
        row.service,
        "-" if row.sector is None else f"{row.sector}/{row.type}",
        "-" if row.capacity is None else str(row.capacity),
        _outcome(row),
        "-" if note is None or note.reason is not None else str(note.version),
        _change(note),
    )


def _outcome(row: Row) -> str:
    """The refusal of the control, else what became of it."""
    codes = [row.code] if row.code else [code for code, _ in row.outcomes]
    return ",".join(Code(code).name for code in codes) or "open"


def _change(note: Noted | None) -> str:
    if note is None:
        return "-"
    if note.reason is not None:
        return f"refused: {note.reason.name}"
    return "made; no longer in the journal" if note.change is None else _in_words(note.change)


def _in_words(change: Change) -> str:
    name, line = change.operation.name.lower().replace("_", " "), change.line
    if line is None:
        return f"{name} on {change.day}" if change.day else name
    kind = "*" if line.type == ANY_TYPE else str(line.type)
    end = "open" if line.end == OPEN else str(line.end)
    return (
        f"{name}: {line.sector}/{kind} capacity {line.capacity} phase {line.phase} "
        f"{line.begin}..{end}"
    )
