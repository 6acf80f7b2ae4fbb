"""How ``ksz-router log query`` shows what it found: for people, spreadsheets and programs."""

import csv
import json
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.rows import Row

_BRUSSELS = ZoneInfo("Europe/Brussels")

_COLUMNS = (
    "time (Brussels)", "exchange", "asked by", "for", "user", "service", "verdict", "sent to",
    "capacity", "grant", "outcome", "violations", "ms",
)  # fmt: skip

_FORMULA = frozenset("=+-@\t\r")


def print_json(rows: Sequence[Row]) -> None:
    """Print an object a line."""
    for row in rows:
        print(json.dumps(_as_json(row)))


def print_csv(rows: Sequence[Row]) -> None:
    """Print a line an exchange (RFC 4180), the columns of the table under a heading.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        cells = ("" if cell == "-" else cell for cell in _cells(row))
        writer.writerow([f"'{cell}" if cell[:1] in _FORMULA else cell for cell in cells])


def print_table(rows: Sequence[Row]) -> None:
    """Print a line an exchange, under a heading."""
    cells = [_COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(_COLUMNS))]
    for line in cells:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _as_json(row: Row) -> dict[str, object]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return fields | {
        "exchange": None if row.exchange is None else str(uuid.UUID(bytes=row.exchange)),
        "at": datetime.fromtimestamp(row.at_us / 1e6, UTC).isoformat(timespec="microseconds"),
        "kind": row.kind.name,
        "verdict": _code_name(row.code) if row.kind is Kind.REQUEST else None,
        "outcomes": [{"code": c, "name": _code_name(c), "at_us": at} for c, at in row.outcomes],
        "recipients": [{"kbo": kbo, "code": c, "name": _code_name(c)} for kbo, c in row.recipients],
        "duration_us": row.duration_us,
    }


def _cells(row: Row) -> tuple[str, ...]:
    at = datetime.fromtimestamp(row.at_us / 1e6, _BRUSSELS)
    reading = row.kind is Kind.READING
    acted_for = ",".join(filter(None, (row.acting, row.final_client)))
    return (
        at.strftime("%Y-%m-%d %H:%M:%S.%f")[:23],
        "-" if row.exchange is None else str(uuid.UUID(bytes=row.exchange)),
        f"reader {row.reader}" if reading else row.requester or "unknown",
        row.purpose if reading else acted_for or "-",
        "yes" if row.user else row.application or "no",
        f"{row.service}/{row.service_version}" if row.service_version else row.service,
        "read" if reading else _code_name(row.code),
        ",".join(row.destinations) or "-",
        "-" if row.capacity is None else str(row.capacity),
        row.grant or row.legal_framework or "-",
        ",".join(_code_name(code) for code, _ in row.outcomes) or "-",
        ",".join(row.violations) or "-",
        "-" if row.duration_us is None else f"{row.duration_us / 1000:.1f}",
    )


def _code_name(code: int) -> str:
    if code == 0:
        return "forward"
    return Code(code).name if code in set(Code) else str(code)
