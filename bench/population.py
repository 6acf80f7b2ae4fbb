"""A directory of many synthetic persons, made as an operator would, once for several benches.

Ten million take some five minutes and 2.3 GB, and 4 GB more meanwhile. They are those of
``ksz-router directory synthesise``: about ten lines a person.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.snapshot import Directory

PERSONS = 10_000_000
SEED = 1


def default_place(folder: Path | None, persons: int) -> Path:
    """Return where benches that are told nothing else keep a directory of so many persons."""
    return (folder or Path(tempfile.gettempdir())) / f"ksz-bench-{persons}-persons"


def made(directory: Path, persons: int) -> float:
    """Make the directory, or take it as it stands where it has about so many persons.

    Returns:
        The seconds that it took; 0 where it stood already.
    """
    if _holds(directory, persons):
        return 0.0
    print(f"making a directory of {persons:,} persons in {directory}", flush=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    text = directory.with_name(f"{directory.name}.parquet")
    began = time.monotonic()
    try:
        _run("synthesise", "--persons", persons, "--seed", SEED, "--out", text)
        _run("load", text, "--directory", directory)
    finally:
        text.unlink(missing_ok=True)
    return time.monotonic() - began


def _holds(directory: Path, persons: int) -> bool:
    """Say whether it has as many numbers as so many persons have: some have several."""
    try:
        with closing(Directory.open(directory)) as found:
            return persons <= found.numbers_count <= persons * 1.1
    except DirectoryError:
        return False


def _run(*words: object) -> None:
    line = [sys.executable, "-m", "ksz_router", "directory", *map(str, words)]
    subprocess.run(line, check=True)
