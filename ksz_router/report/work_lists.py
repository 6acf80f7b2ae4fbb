"""Work lists: of each owner the lines that it should look at, as CSV; they name persons.

Rows are written as they are met, so memory stays flat; each list is bounded by finding, and the
figures say how many lines there are besides. The folder gets its name when every list is whole.
"""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ksz_router.days import to_date
from ksz_router.model import ANY_TYPE, OPEN, Day
from ksz_router.official import capacity_label
from ksz_router.report.directory_findings import Finding
from ksz_router.report.directory_kinds import LineKind
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_owners import Owner, Owners
from ksz_router.report.directory_persons import Persons

COLUMNS = (
    "findings", "insz", "current", "deceased",
    "sector", "type", "capacity", "label", "phase", "begin", "end", "changed",
)  # fmt: skip

_ALL = (1 << len(Finding)) - 1


class WorkListsError(Exception):
    """The lists cannot be written. The message names the folder and the mend."""


class WorkLists:
    """The lists of one run; leaving the block by an error removes them."""

    def __init__(self, folder: Path, owners: Owners, lines_max: int) -> None:
        """Make the folder.

        Args:
            folder: Where the lists will lie; it must not exist yet.
            owners: Of the lines.
            lines_max: Lines in each list for each finding, the first by number.

        Raises:
            WorkListsError: the folder is there already, or cannot be made.
        """
        self._folder = folder
        self._partial = folder.with_name(f"{folder.name}.partial")
        if folder.exists():
            raise WorkListsError(f"{folder}: is there already; name a folder that is not")
        try:
            self._partial.mkdir(mode=0o700)
        except OSError as error:
            raise WorkListsError(
                f"{self._partial}: cannot be made ({error.strerror}); remove what a killed run left"
            ) from error
        self._owners, self._lines_max = owners, lines_max
        self._known: dict[Owner, int] = {}
        self._owner_of = np.zeros(0, np.int64)
        self._open = np.zeros(0, np.int64)
        self._counts: list[Counter[Finding]] = []
        self.listed: Counter[Owner] = Counter()
        """How many lines stand in each list."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        try:
            self._partial.rename(self._folder)
        except OSError as failed:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise WorkListsError(f"{self._folder}: cannot be made ({failed.strerror})") from failed

    def take(self, persons: Persons, kind: Ints, kinds: Sequence[LineKind], flags: Ints) -> None:
        """Write the lines of a batch that have findings, as far as there is room for them.

        Raises:
            WorkListsError: the disk refuses.
        """
        self._meet(kinds)
        rows = np.flatnonzero(flags)
        owner = self._owner_of[kind[rows]]
        wanted = (flags[rows] & self._open[owner]) > 0
        found: dict[int, list[tuple[object, ...]]] = {}
        for row, whose in zip(rows[wanted].tolist(), owner[wanted].tolist(), strict=True):
            if self._has_room(whose, int(flags[row])):
                line = kinds[int(kind[row])]
                found.setdefault(whose, []).append(_shown(persons, row, line, int(flags[row])))
        for owner_known, place in self._known.items():
            if place in found:
                self._write(owner_known, found[place])

    def _meet(self, kinds: Sequence[LineKind]) -> None:
        new = []
        for line in kinds[len(self._owner_of) :]:
            owner = self._owners.of(line.sector, line.type)
            if owner not in self._known:
                self._known[owner] = len(self._known)
                self._open = np.append(self._open, _ALL)
                self._counts.append(Counter())
            new.append(self._known[owner])
        if new:
            self._owner_of = np.append(self._owner_of, np.array(new, np.int64))

    def _has_room(self, whose: int, flags: int) -> bool:
        """Take a place for a line, if one of its findings has one left."""
        if not flags & int(self._open[whose]):
            return False
        counts = self._counts[whose]
        for finding in Finding:
            if flags >> finding & 1:
                counts[finding] += 1
                if counts[finding] == self._lines_max:
                    self._open[whose] &= ~(1 << finding)
        return True

    def _write(self, owner: Owner, rows: list[tuple[object, ...]]) -> None:
        file = self._partial / file_name(owner)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123  of a descriptor
                writer = csv.writer(stream, lineterminator="\n")
                if not self.listed[owner]:
                    writer.writerow(COLUMNS)
                writer.writerows(rows)
        except OSError as error:
            raise WorkListsError(f"{file}: cannot be written ({error.strerror})") from error
        self.listed[owner] += len(rows)


def file_name(owner: Owner) -> str:
    """Return the name of an owner's list: ``0999016460.csv``, ``role-17-1.csv``."""
    if "/" not in owner.key:
        return f"{owner.key}.csv"
    return f"role-{owner.key.replace('/', '-').replace('*', 'any')}.csv"


def _shown(persons: Persons, row: int, kind: LineKind, flags: int) -> tuple[object, ...]:
    person = int(persons.person[row])
    under, current = int(persons.under[row]), int(persons.number[person])
    lines = persons.lines
    return (
        " ".join(finding.name for finding in Finding if flags >> finding & 1),
        f"{under:011}",
        f"{current:011}" if current != under else "",
        _written(int(persons.deceased[person])),
        kind.sector,
        "" if kind.type == ANY_TYPE else kind.type,
        kind.capacity,
        capacity_label(kind.sector, kind.capacity),
        int(lines.phase[row]),
        _written(int(lines.begin[row])),
        _written(int(lines.end[row])),
        _written(int(lines.changed[row])),
    )


def _written(day: Day) -> str:
    """A day as ISO 8601; nothing for none, or for a value that is no day."""
    try:
        return to_date(day).isoformat() if 0 < day < OPEN else ""
    except ValueError:
        return ""
