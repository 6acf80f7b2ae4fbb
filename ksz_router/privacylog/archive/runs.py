"""Which runs of derived files are merged, and when. Pure.

A run is what one step derived, sorted as a whole, in one file or in parts. A query looks into
every run of a quarter, so there must be few: eight of a level become one of the next, and all of a
quarter that is over become one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from ksz_router.privacylog.archive.manifest import SealedFile

FAN_IN: Final = 8
_Run: TypeAlias = tuple[SealedFile, ...]
_DERIVED = ("p", "u", "k", "r")


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one kind, quarter and key that become one."""

    kind: str
    quarter: str
    key_id: str
    level: int
    """Of the run that is made."""
    runs: tuple[_Run, ...]
    """In the order of their leaves; each in the order of its parts."""

    @property
    def first_leaf(self) -> int:
        return min(run[0].first_leaf for run in self.runs)

    @property
    def end_leaf(self) -> int:
        return max(run[0].end_leaf for run in self.runs)

    @property
    def removed(self) -> tuple[str, ...]:
        """The files that the new ones stand in for."""
        return tuple(file.path for run in self.runs for file in run)


def plan(files: Iterable[SealedFile], quarter_over: Callable[[str], bool]) -> list[Merge]:
    """Return the merges that are due; none of them needs what another makes.

    Args:
        files: Of the catalogs; those of other kinds are left alone.
        quarter_over: Says of a quarter such as ``2026Q4`` that nothing more comes under its keys.
    """
    runs: dict[tuple[str, str, str], list[_Run]] = defaultdict(list)
    for run in _runs(files):
        runs[run[0].quarter, run[0].key_id, run[0].kind].append(run)
    due = []
    for (quarter, key_id, kind), some in sorted(runs.items()):
        due += [
            Merge(
                kind=kind,
                quarter=quarter,
                key_id=key_id,
                level=max(run[0].level for run in group) + 1,
                runs=tuple(group),
            )
            for group in _due(some, over=quarter_over(quarter))
        ]
    return due


def _runs(files: Iterable[SealedFile]) -> list[_Run]:
    """Return the derived files by run, in the order of leaves."""
    runs: dict[tuple[str, str, str, int, int], list[SealedFile]] = defaultdict(list)
    for file in files:
        if file.kind in _DERIVED:
            key = (file.quarter, file.key_id, file.kind, file.first_leaf, file.level)
            runs[key].append(file)
    return [
        tuple(sorted(run, key=lambda file: file.part))
        for _, run in sorted(runs.items(), key=lambda item: item[0])
    ]


def _due(runs: list[_Run], *, over: bool) -> list[list[_Run]]:
    """Return which of the runs of one kind, quarter and key become one."""
    if over:
        return [runs] if len(runs) > 1 else []
    found, stretch = [], list[_Run]()
    for run in runs:
        if stretch and stretch[0][0].level != run[0].level:
            stretch = []
        stretch.append(run)
        if len(stretch) == FAN_IN:
            found.append(stretch)
            stretch = []
    return found
