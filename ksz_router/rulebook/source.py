"""Read the rulebook's source text: a folder of TOML files into rows that know where they stand.

The reader never stops at the first fault: whatever cannot be read becomes a finding, so that the
author sees all of them at once. It refuses what it does not know (a key, a table, a folder), since
a misspelt word would otherwise be a rule that silently does not exist.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ksz_router.rulebook.generation import RulebookError
from ksz_router.rulebook.rows import (
    AvailabilityRow,
    ControlRow,
    Deliberation,
    DeliberationRow,
    Finding,
    GrantRow,
    InstitutionRow,
    IntegrationRow,
    NetworkRow,
    OutageRow,
    Place,
    Placed,
    RightRow,
    ServiceRow,
    SourceFile,
    Text,
)

Row = TypeVar("Row", bound=msgspec.Struct)
Table = dict[str, Any]

_TABLES: dict[str, dict[str, type[msgspec.Struct]]] = {
    "institutions": {"institution": InstitutionRow, "network": NetworkRow},
    "services": {"service": ServiceRow, "control": ControlRow, "integration": IntegrationRow},
    "deliberations": {"grant": GrantRow},
    "availability": {"availability": AvailabilityRow},
    "outages": {"outage": OutageRow},
    "rights": {"right": RightRow},
}
"""Folder, then the tables its files may hold."""

_SEE = "see docs/rulebook.md for the format"


def read(folder: Path) -> tuple[Text, list[Finding]]:
    """Read every file of a rulebook folder.

    Returns:
        The rows that could be read, and a finding for everything that could not.

    Raises:
        RulebookError: there is no such folder.
    """
    if not folder.is_dir():
        raise RulebookError(f"{folder}: no such folder; name the folder of the rulebook's text")
    reader = _Reader()
    for file in sorted(folder.rglob("*.toml")):
        reader.read(file, file.relative_to(folder))
    if not reader.files:
        place = Place(str(folder), 1)
        reader.findings.append(Finding(True, place, "no TOML file in the folder", _SEE))
    return reader.text(), reader.findings


class _Reader:
    """Gathers rows and findings, file by file."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.files: list[SourceFile] = []
        self.rows: dict[type[msgspec.Struct], list[Placed[Any]]] = {}
        self.deliberations: list[Deliberation] = []

    def read(self, file: Path, relative: Path) -> None:
        name = relative.as_posix()
        kinds = _TABLES.get(relative.parts[0]) if len(relative.parts) == 2 else None
        if kinds is None:
            folders = ", ".join(_TABLES)
            self._refuse(Place(name, 1), "is not in a folder of the rulebook", f"use {folders}")
            return
        try:
            data = file.read_bytes()
            content = data.decode("utf-8")
            table = tomllib.loads(content)
        except OSError as error:
            self._refuse(Place(name, 1), f"cannot be read: {error.strerror}", "mend the file")
            return
        except UnicodeDecodeError:
            self._refuse(Place(name, 1), "is not UTF-8", "save it as UTF-8")
            return
        except (ValueError, RecursionError) as error:  # beyond all bounds, or not TOML at all
            line = re.search(r"at line (\d+)", str(error))
            place = Place(name, int(line[1]) if line else 1)
            self._refuse(place, f"is not TOML: {error}", "mend the syntax (https://toml.io)")
            return
        self.files.append(SourceFile(name, hashlib.sha256(data).hexdigest()))
        head = {key: value for key, value in table.items() if key not in kinds}
        found: dict[type[msgspec.Struct], list[Placed[Any]]] = {}
        for key, kind in kinds.items():
            found[kind] = list(self._placed(table.get(key, []), key, kind, name, content))
        if relative.parts[0] == "deliberations":
            place = Place(name, 1)
            row = self._row(head, DeliberationRow, place)
            grants = tuple(found[GrantRow])
            if row is not None:
                self.deliberations.append(Deliberation(row, place, grants))
            return
        for key in head:
            known = ", ".join(f"[[{kind}]]" for kind in kinds)
            self._refuse(
                Place(name, _line_of_key(content, key)), f"unknown key {key!r}", f"use {known}"
            )
        for kind, placed in found.items():
            self.rows.setdefault(kind, []).extend(placed)

    def _placed(
        self, rows: object, key: str, kind: type[Row], name: str, content: str
    ) -> Iterator[Placed[Row]]:
        if not isinstance(rows, list):
            self._refuse(Place(name, 1), f"{key!r} is not an array of tables", f"write [[{key}]]")
            return
        header = re.compile(rf"^\s*\[\[\s*{key}\s*\]\]", re.MULTILINE)
        lines, line, end = [], 1, 0
        for hit in header.finditer(content):
            line, end = line + content.count("\n", end, hit.end()), hit.end()
            lines.append(line)
        for index, raw in enumerate(rows):
            place = Place(name, lines[index] if len(lines) == len(rows) else 1)
            row = self._row(raw, kind, place)
            if row is not None:
                yield Placed(row, place)

    def _row(self, raw: object, kind: type[Row], place: Place) -> Row | None:
        try:
            return msgspec.convert(raw, kind)
        except msgspec.ValidationError as error:
            self._refuse(place, str(error), _SEE)
            return None

    def _refuse(self, place: Place, reason: str, mend: str) -> None:
        self.findings.append(Finding(True, place, reason, mend))

    def text(self) -> Text:
        def rows(kind: type[Row]) -> tuple[Placed[Row], ...]:
            return tuple(self.rows.get(kind, ()))

        return Text(
            institutions=rows(InstitutionRow),
            services=rows(ServiceRow),
            controls=rows(ControlRow),
            integrations=rows(IntegrationRow),
            networks=rows(NetworkRow),
            deliberations=tuple(self.deliberations),
            availability=rows(AvailabilityRow),
            outages=rows(OutageRow),
            rights=rows(RightRow),
            files=tuple(self.files),
        )


def _line_of_key(content: str, key: str) -> int:
    is_key: Callable[[str], object] = re.compile(rf"^\s*\[*\s*\"?{re.escape(key)}\b").match
    return next((n for n, line in enumerate(content.splitlines(), 1) if is_key(line)), 1)
