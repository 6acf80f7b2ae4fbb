"""Build a directory of any size from CSV and from Parquet; measure time, memory and disk."""

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.world import BenchError
from ksz_router.directory import folder as layout
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.snapshot import Directory

SEED = 1
_KIB, _GIB = 1024, 1024**3
_MAP_LOCKED = 0x2000
"""Of Linux, mman.h; the standard library has no name for it."""
FORMS = ("csv", "parquet")


class Ground(NamedTuple):
    """Where the bench works, and on how much."""

    folder: Path
    persons: int
    persons_small: int

    @property
    def directory(self) -> Path:
        """The directory that is measured."""
        return self.folder / f"{self.persons}-persons"

    @property
    def directory_small(self) -> Path:
        """One to compare with, which small caches hold better."""
        return self.folder / f"{self.persons_small}-persons"


class Ran(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_s: float
    rss_mib: float


def measure_build(ground: Ground) -> dict[str, Any]:
    """Build from each form in turn; the worse of both counts. What the last one made stays."""
    taken: dict[str, dict[str, float]] = {}
    for form in FORMS:
        text = ground.folder / f"persons.{form}"
        shutil.rmtree(ground.directory, ignore_errors=True)
        try:
            made = _run("synthesise", "--persons", ground.persons, "--seed", SEED, "--out", text)
            mib = text.stat().st_size / 1024**2
            built = _run("load", text, "--directory", ground.directory)
        finally:
            text.unlink(missing_ok=True)
        taken[form] = {
            "minutes": round(built.seconds / 60, 2),
            "cpu_minutes": round(built.cpu_s / 60, 2),
            "rss_mib": round(built.rss_mib),
            "file_mib": round(mib),
            "synthesise_minutes": round(made.seconds / 60, 2),
        }
        print(f"from {form}: {taken[form]}", flush=True)
    return {
        "build_minutes": max(one["minutes"] for one in taken.values()),
        "build_rss_mib": max(one["rss_mib"] for one in taken.values()),
        "build": taken,
    }


def measure_size(ground: Ground) -> dict[str, Any]:
    """What the directory takes on disk, all of its files."""
    prepare(ground.directory, ground.persons)
    place = layout.current(ground.directory)
    blocks = sum(file.stat().st_blocks * 512 for file in place.iterdir())
    lines = lines_of(ground.directory)
    return {"size_gib": round(blocks / _GIB, 3), "bytes_per_line": round(blocks / lines, 1)}


def measure_check(ground: Ground) -> dict[str, Any]:
    """The full check that a restored directory needs, with the digest and every page."""
    prepare(ground.directory, ground.persons)
    checked = _run("check", "--directory", ground.directory)
    return {
        "full_check_minutes": round(checked.seconds / 60, 2),
        "full_check_cpu_minutes": round(checked.cpu_s / 60, 2),
        "full_check_rss_mib": round(checked.rss_mib),
    }


def prepare(directory: Path, persons: int) -> None:
    """Make the directory by way of Parquet, or take it as it stands there."""
    if lines_of(directory):
        return
    print(f"making a directory of {persons:,} persons in {directory}", flush=True)
    text = directory.with_suffix(".parquet")
    try:
        _run("synthesise", "--persons", persons, "--seed", SEED, "--out", text)
        _run("load", text, "--directory", directory)
    finally:
        text.unlink(missing_ok=True)


def lines_of(directory: Path) -> int:
    """How many lines a directory holds; 0 where there is none."""
    try:
        with closing(Directory.open(directory)) as found:
            return found.lines_count
    except DirectoryError:
        return 0


def _run(*words: object) -> Ran:
    """Run a verb of the directory and measure its process.

    Raises:
        BenchError: it failed; it said why.
    """
    line = [sys.executable, "-m", "ksz_router", "directory", *map(str, words)]
    began = time.monotonic()
    process = subprocess.Popen(line)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"directory {words[0]} ended with {process.returncode}")
    cpu_s = used.ru_utime + used.ru_stime
    return Ran(time.monotonic() - began, cpu_s, used.ru_maxrss / _KIB)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep the whole file in memory meanwhile, as a machine of its own would.

    Where this may not be asked for, or memory does not suffice, it is only brought there.
    """
    with (layout.current(directory) / "data.mdb").open("rb") as file:
        locked = mmap.MAP_SHARED | _MAP_LOCKED
        try:
            mapped = mmap.mmap(file.fileno(), 0, flags=locked, prot=mmap.PROT_READ)
        except OSError:
            print("the directory cannot be locked in memory", flush=True)
            warm(directory)
            yield
        else:
            with mapped:
                yield


def warm(directory: Path) -> None:
    """Bring the whole file into the page cache, if memory holds it."""
    with (layout.current(directory) / "data.mdb").open("rb") as file:
        while file.read(1 << 24):
            pass
