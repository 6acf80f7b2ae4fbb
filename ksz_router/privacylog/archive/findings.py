"""What a verification of the archive found: faults with their places, and what was looked at."""

from pathlib import Path
from typing import Final

import msgspec

_SAID_MAX: Final = 20
"""Of the faults of one file and one text these are told singly; the rest is counted."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One place at which the archive is not what it must be."""

    file: Path
    what: str
    leaf: int | None = None
    row_group: int | None = None
    offset: int | None = None
    """Byte in the file."""


class Findings(msgspec.Struct, kw_only=True):
    """What was checked and what was found. A note is no fault, and worth knowing."""

    files: int = 0
    bytes: int = 0
    manifests: int = 0
    leaves: int = 0
    """Leaves whose record was hashed and compared with the tree."""
    tree_size: int = 0
    """Of the newest checkpoint whose signatures are right."""
    sealed_leaves: int = 0
    faults: list[Fault] = []
    notes: list[str] = []
    untold: int = 0
    """Faults beyond the first of their file and text."""
    _told: dict[tuple[Path, str], int] = {}

    def fault(
        self,
        file: Path,
        what: str,
        *,
        leaf: int | None = None,
        row_group: int | None = None,
        offset: int | None = None,
    ) -> None:
        """Report one. Of the same text in the same file only the first few are kept."""
        count = self._told[file, what] = self._told.get((file, what), 0) + 1
        if count > _SAID_MAX:
            self.untold += 1
            return
        self.faults.append(
            Fault(file=file, what=what, leaf=leaf, row_group=row_group, offset=offset)
        )

    def note(self, what: str) -> None:
        """Report what is no fault."""
        self.notes.append(what)

    @property
    def is_whole(self) -> bool:
        """Say whether nothing was found."""
        return not self.faults
