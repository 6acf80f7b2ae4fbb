"""CSV files and numbers for the tests of the person directory."""

from pathlib import Path

from ksz_router.directory.loader import Loaded, load
from ksz_router.directory.rows import COLUMNS

HEADING = ",".join(COLUMNS)


def number(counter: int, day: int = 850730) -> str:
    """Return a well-formed number of somebody born in the last century."""
    body = day * 1000 + counter
    return f"{body:09}{97 - body % 97:02}"


A, B, C, D = (number(counter) for counter in (998, 997, 996, 995))


def person(insz: str, status: str = "active", current: str = "", deceased: str = "") -> str:
    """Return a number row."""
    return f"{insz},{status},{current},{deceased},,,,,,,"


def line(
    insz: str,
    file: str = "17,1,2",
    *,
    begin: str = "2015-01-01",
    end: str = "",
    phase: str = "1",
    changed: str = "",
) -> str:
    """Return a line row; ``file`` is sector, type and capacity."""
    return f"{insz},,,,{file},{phase},{begin},{end},{changed}"


def written(folder: Path, *rows: str) -> Path:
    """Write a file with a heading and these rows."""
    file = folder / "persons.csv"
    file.write_text("\n".join((HEADING, *rows, "")), encoding="utf-8")
    return file


def loaded(folder: Path, *rows: str) -> Loaded:
    """Load these rows into ``folder/directory``."""
    return load(written(folder, *rows), folder / "directory")
