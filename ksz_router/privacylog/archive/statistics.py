"""What the rollups add up to: exchanges by month, service, institution and verdict.

Only sealed entries are counted, and no person is in what is read here: a rollup has none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from ksz_router.days import brussels_day, brussels_midnight_ns
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.places import file_of

Month = int
"""A Brussels calendar month as ``yyyymm``."""

BY: Final = {
    "month": "CAST(month AS VARCHAR)",
    "service": "service || ' v' || service_version",
    "requester": "requester",
    "destination": "coalesce(destination, '')",
    "verdict": "CAST(code AS VARCHAR)",
}
"""By what exchanges can be counted, and how a rollup gives it."""

MEMORY: Final = "512MB"
_THREADS: Final = 2

# Times count where a source was asked: what is refused takes the router no time worth the name.
_TIMED = "code = 0 AND outcome IS NOT NULL"
_SUMS = f"""
    sum(exchanges)::BIGINT,
    sum(CASE WHEN code <> 0 THEN exchanges ELSE 0 END)::BIGINT,
    sum(CASE WHEN violation THEN exchanges ELSE 0 END)::BIGINT,
    sum(CASE WHEN {_TIMED} THEN exchanges ELSE 0 END)::BIGINT,
    sum(CASE WHEN {_TIMED} THEN over_1s ELSE 0 END)::BIGINT,
    sum(CASE WHEN {_TIMED} THEN over_2s ELSE 0 END)::BIGINT,
    sum(CASE WHEN {_TIMED} THEN router_us ELSE 0 END)::BIGINT,
    sum(CASE WHEN {_TIMED} THEN source_us ELSE 0 END)::BIGINT
"""


class NothingSealed(PrivacyLogError):
    """There is no archive, or nothing in it yet."""


class Totals(NamedTuple):
    """Sums over exchanges."""

    exchanges: int
    refused: int
    violations: int
    """Passed with a broken integration rule that is only logged."""
    timed: int
    """Passed, and ended: those whose time counts."""
    over_1s: int
    """Of these, more than a second inside the router; ``over_2s``, more than two."""
    over_2s: int
    router_us: int
    source_us: int

    @property
    def within_1s(self) -> float | None:
        """Share of what was timed, 0 to 1; None where nothing was."""
        return 1 - self.over_1s / self.timed if self.timed else None

    @property
    def within_2s(self) -> float | None:
        """Share of what was timed, 0 to 1; None where nothing was."""
        return 1 - self.over_2s / self.timed if self.timed else None


class Group(NamedTuple):
    """What one month, service, institution or verdict adds up to."""

    key: str
    """``yyyymm``; name and version; KBO number (empty: sent to nobody); code, 0 for forward."""
    totals: Totals


class Source(NamedTuple):
    """What was counted, so that it can be checked."""

    node: str
    origin: str
    manifest: int
    leaves: int
    """Every leaf below this index was looked at; exchanges open then are not counted."""
    last_day: int
    """Brussels day of the last sealed entry, ``yyyymmdd``."""
    first_month: Month
    last_month: Month
    root: str
    """Of the newest checkpoint, in Base64, and its size: of what covers the log, unverified."""
    size: int


class Statistics(NamedTuple):
    """Counts of some months."""

    source: Source
    totals: Totals
    groups: dict[str, list[Group]]
    """By what was asked: months in their order, anything else the most first."""


def read_statistics(
    archive: Path,
    by: Sequence[str],
    *,
    from_month: Month | None = None,
    to_month: Month | None = None,
) -> Statistics:
    """Add up the rollups of some months.

    Args:
        archive: Folder of the archive.
        by: Names in ``BY``.
        from_month: The first; all from the beginning without it.
        to_month: The last one, included.

    Raises:
        NothingSealed: no month has exchanges that are sealed.
        ChainBroken: the manifests are damaged.
        PrivacyLogError: a rollup is missing or cannot be read.
    """
    manifest = newest(archive) if archive.is_dir() else None
    if manifest is None:
        raise NothingSealed(f"{archive}: nothing is sealed here yet")
    files, last_us = _rollups(archive, from_month, to_month)
    named = [str(file_of(archive, file.path)) for file in files]
    months = (from_month or 0, to_month or 999912)
    found = _counted(archive, by, (named, *months)) if named else None
    if found is None:
        raise NothingSealed(f"{archive}: no sealed exchange in these months")
    first, last, totals, groups = found
    size, root = _checkpoint(archive)
    source = Source(
        node=manifest.node,
        origin=manifest.origin,
        manifest=manifest.number,
        leaves=manifest.sealed_leaves,
        last_day=brussels_day((last_us - 1) * 1000),
        first_month=first,
        last_month=last,
        root=root,
        size=size,
    )
    return Statistics(source, totals, groups)


def _counted(
    archive: Path, by: Sequence[str], parameters: tuple[list[str], Month, Month]
) -> tuple[Month, Month, Totals, dict[str, list[Group]]] | None:
    """Return the first and last month that have exchanges, and what they add up to."""
    chosen = "FROM read_parquet(?) WHERE month BETWEEN ? AND ?"
    connection = duckdb.connect(config={"memory_limit": MEMORY, "threads": _THREADS})
    try:
        found = connection.execute(
            f"SELECT min(month), max(month), {_SUMS} {chosen}",
            parameters,
        ).fetchone()
        if found is None or found[0] is None:
            return None
        first, last, *sums = found
        groups = {name: _groups_of(connection, name, chosen, parameters) for name in by}
    except duckdb.Error as error:
        raise PrivacyLogError(
            f"{archive}: a rollup cannot be read ({type(error).__name__}); restore it, or have "
            "it checked with `ksz-router log verify fast`"
        ) from error
    finally:
        connection.close()
    return first, last, Totals(*sums), groups


def _groups_of(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    chosen: str,
    parameters: tuple[list[str], Month, Month],
) -> list[Group]:
    order = "key" if name == "month" else "sum(exchanges) DESC, key"
    found = connection.execute(
        f"SELECT {BY[name]} AS key, {_SUMS} {chosen} GROUP BY key ORDER BY {order}",
        parameters,
    )
    return [Group(str(key), Totals(*sums)) for key, *sums in found.fetchall()]


def month_after(month: Month) -> Month:
    """Return the month that follows."""
    return month + 1 if month % 100 < 12 else month + 89


def _rollups(
    archive: Path, from_month: Month | None, to_month: Month | None
) -> tuple[list[SealedFile], int]:
    """Return the rollups that may hold these months, and beyond which moment nothing is sealed."""
    begin_us = 0 if from_month is None else _begin_us(from_month)
    end_us = 2**63 if to_month is None else _begin_us(month_after(to_month))
    files, last_us = [], 1
    for quarter in quarters(archive):
        for file in catalog(archive, quarter, "r").files:
            last_us = max(last_us, file.end_us)
            if file.first_us < end_us and file.end_us > begin_us:
                files.append(file)
        ends = [file.end_us for file in catalog(archive, quarter, "t").files]
        last_us = max([last_us, *ends])
    return files, last_us


def _begin_us(month: Month) -> int:
    return brussels_midnight_ns(month * 100 + 1) // 1000


def _checkpoint(archive: Path) -> tuple[int, str]:
    """Return size and root of the newest checkpoint as it lies there; none: zero and nothing."""
    try:
        lines = (archive / "tree" / "checkpoint").read_text("utf-8").split("\n", 3)
        return int(lines[1]), lines[2]
    except (OSError, ValueError, IndexError):
        return 0, ""
