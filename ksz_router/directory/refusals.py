"""Why a file is not loaded, and who is told how far a load is."""

from collections.abc import Callable
from pathlib import Path

from ksz_router.directory.packing import DirectoryError

Progress = Callable[[str, int, int], None]
"""Told now and then: what is being done, how much of it is done, how much there is."""

REASONS_MAX = 20
_FULL = "too many bad rows, the rest of the file was not read"


class LoadRefusedError(DirectoryError):
    """The file cannot be loaded; nothing was changed. Each reason reads ``file:line: why``."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


class Refusals:
    """Why one file is refused, up to a bound."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[str] = []

    def add(self, row: int, why: str) -> None:
        """Note that a row cannot be loaded."""
        if len(self._found) < REASONS_MAX:
            self._found.append(f"{self._file}:{row}: {why}")
        elif len(self._found) == REASONS_MAX:
            self._found.append(f"{self._file}: {_FULL}")

    def are_full(self) -> bool:
        """Say whether it makes no sense to go on."""
        return len(self._found) > REASONS_MAX

    def raise_any(self) -> None:
        """Refuse the file if there is a reason.

        Raises:
            LoadRefusedError: there is.
        """
        if self._found:
            raise LoadRefusedError(self._found)
