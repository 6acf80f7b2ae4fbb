"""What ``report directory`` does: record, count in one view, then write the page and its files."""

import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ksz_router.cli import NOT_IN_ORDER, OK, UsageError
from ksz_router.cli.reading import Reading
from ksz_router.config import Config, load
from ksz_router.days import brussels_day, to_date
from ksz_router.directory import quarters
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.scan import Scan
from ksz_router.model import INSCRIBE_SERVICE, Day, Role
from ksz_router.privacylog import PrivacyLogError
from ksz_router.report.directory_figures import Figures, read_figures
from ksz_router.report.directory_findings import Terms
from ksz_router.report.directory_owners import Granted, Owners, granted, held_roles
from ksz_router.report.directory_page import Source, directory_page
from ksz_router.report.directory_past import evolution, to_keep
from ksz_router.report.directory_tables import by_owner, sheets
from ksz_router.report.quarter import Quarter
from ksz_router.report.work_lists import WorkLists, WorkListsError
from ksz_router.rulebook.activation import active
from ksz_router.rulebook.generation import RulebookError
from ksz_router.rulebook.snapshot import Snapshot

_BOUNDS = {
    "provisional_days": (1, 3_660),
    "unchanged_years": (1, 100),
    "keep_years": (1, 100),
    "lines_max": (1, 100_000),
}


class _Counted(NamedTuple):
    """What was counted, and of which day it is."""

    figures: Figures
    as_of: Day
    """What serves is of today; a backup of the day of its last change, at least."""
    lists: WorkLists | None


class _Rulebook(NamedTuple):
    """What the active rulebook says that the figures need."""

    generation: str
    roles: frozenset[Role]
    owners: Owners
    grants: list[Granted]


def report(arguments: Namespace) -> int:
    """Do it and return the exit code.

    Raises:
        UsageError: the command line asks for what cannot be done.
    """
    quarter = _checked(arguments)
    config = load(arguments.config)
    try:
        rulebook = _read_rulebook(Path(config.tables.rulebook))
        home = _home(arguments, config)
        kept = quarters.read(home)
        counted = _count(arguments, config, quarter, rulebook)
        _write(arguments.out, config, counted, rulebook, kept)
        _keep(home, counted)
    except (DirectoryError, PrivacyLogError, RulebookError, WorkListsError) as error:
        print(f"ksz-router: {error}", file=sys.stderr)
        return NOT_IN_ORDER
    except OSError as error:
        print(f"ksz-router: {error.filename}: {error.strerror}", file=sys.stderr)
        return NOT_IN_ORDER
    return OK


def _checked(arguments: Namespace) -> Quarter:
    """See that what is asked makes sense, before anything is read."""
    try:
        quarter = Quarter.parse(arguments.quarter)
    except ValueError as error:
        raise UsageError(f"--quarter: {error}") from error
    if quarter.first > brussels_day(time.time_ns()):
        raise UsageError("--quarter: it has not begun")
    for name, (least, most) in _BOUNDS.items():
        if not least <= getattr(arguments, name) <= most:
            raise UsageError(f"--{name.replace('_', '-')}: from {least} to {most:,}")
    if (arguments.work_lists is None) != (arguments.purpose is None):
        raise UsageError("--work-lists: names persons, so state a --purpose; --purpose: only there")
    return quarter


def _read_rulebook(store: Path) -> _Rulebook:
    """Read who answers for what today: lists go to who can act on them now."""
    day = brussels_day(time.time_ns())
    snapshot = Snapshot.open(store, active(store))
    try:
        institutions = snapshot.institutions()
        keepers = frozenset(str(row.kbo) for row in snapshot.sources(INSCRIBE_SERVICE, 1))
        return _Rulebook(
            snapshot.generation,
            held_roles(institutions),
            Owners(institutions, day, keepers),
            granted(snapshot, day),
        )
    finally:
        snapshot.close()


def _home(arguments: Namespace, config: Config) -> Path:
    """Where figures of quarters are kept: beside what serves, or what is read where none does."""
    serving = Path(config.tables.directory)
    return serving if arguments.directory is None or serving.is_dir() else Path(arguments.directory)


def _count(arguments: Namespace, config: Config, quarter: Quarter, rulebook: _Rulebook) -> _Counted:
    """Count the directory; where work lists are asked for, record that first."""
    terms = Terms(arguments.provisional_days, arguments.unchanged_years, arguments.keep_years)
    target = arguments.directory or Path(config.tables.directory)
    lists = None
    with ExitStack() as open_:
        if arguments.work_lists is not None:
            log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
            reading = Reading(log, keys, config.node.name, "report directory", arguments)
            # Whom the lists will name is not known before everybody was read.
            reading.record((), begin=quarter.first, end=quarter.last)
            lists = WorkLists(arguments.work_lists, rulebook.owners, arguments.lines_max)
            open_.enter_context(lists)
        begun_us = time.time_ns() // 1000
        scan = open_.enter_context(Scan.open(target))
        as_of_us = begun_us if arguments.directory is None else scan.recorded_us
        if scan.live:
            print(
                f"ksz-router: {target} is being changed: it grows while this reads; "
                "better give a backup with --directory",
                file=sys.stderr,
            )
        bar = open_.enter_context(
            tqdm(total=scan.numbers, unit=" numbers", unit_scale=True, disable=None, delay=1)
        )
        figures = read_figures(
            scan, quarter, terms, rulebook.roles, listing=lists, advanced=bar.update
        )
    return _Counted(figures, brussels_day(as_of_us * 1000), lists)


def _keep(home: Path, counted: _Counted) -> None:
    """Keep the figures of a quarter that has just ended, for all later reports."""
    figures = counted.figures
    quarter, following = figures.quarter, figures.quarter.before(-1)
    if not following.first <= counted.as_of <= following.last:
        return
    if quarters.keep(home, to_keep(figures, counted.as_of)):
        print(f"{home / quarters.FOLDER}: the figures of {quarter} are kept for later reports")


def _write(
    out: Path,
    config: Config,
    counted: _Counted,
    rulebook: _Rulebook,
    kept: Mapping[str, quarters.Kept],
) -> None:
    figures, lists = counted.figures, counted.lists
    past = evolution(figures, kept)
    listed = {} if lists is None else lists.listed
    found = sheets(figures, past, rulebook.owners, rulebook.grants, listed)
    stem = f"directory-{figures.quarter}"
    files = {name: f"{stem}-{name}.csv" for name in found}
    source = Source(
        made_at=datetime.now(UTC),
        today=to_date(brussels_day(time.time_ns())),
        node=config.node.name,
        generation=rulebook.generation,
    )
    owned = by_owner(figures, rulebook.owners)
    page = directory_page(figures, past, found, owned, source, files=files)
    out.mkdir(parents=True, exist_ok=True)
    for name, sheet in found.items():
        (out / files[name]).write_text(sheet.text(), encoding="utf-8")
    (out / f"{stem}.html").write_text(page, encoding="utf-8")
    print(f"{out / f'{stem}.html'}: version {figures.version}, {len(files)} CSV files beside it")
    if lists is not None:
        print(f"work lists: {len(lists.listed)}, with {lists.listed.total()} lines")
