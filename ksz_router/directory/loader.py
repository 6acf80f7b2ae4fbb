"""Build a new version of the directory from a file, beside the one that serves, and swap.

Memory stays flat: rows are judged block by block, sorted on disk and written in the order of the
keys. One bad row, and nothing changes. ``docs/directory-format.md`` describes the file.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb

from ksz_router.directory import folder
from ksz_router.directory.carrying import carry_over
from ksz_router.directory.families import Families
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.refusals import REASONS_MAX, LoadRefusedError, Progress, Refusals

__all__ = ["REASONS_MAX", "LoadRefusedError", "Loaded", "Progress", "load"]


class Loaded(NamedTuple):
    """What a load made."""

    version: int
    numbers: int
    lines: int


def load(file: Path, target: Path, *, now_us: int = 0, progress: Progress | None = None) -> Loaded:
    """Build the next version from a CSV or Parquet file and make it the one that serves, durably.

    Readers keep the version they have until they refresh; the version before stays on disk,
    older ones are removed. The journal goes on: ``now_us``, Unix time in microseconds, is when.

    Raises:
        LoadRefusedError: rows cannot be loaded.
        DirectoryError: a writer, a load or a restore is at work, a package is missing, or the disk
            does not take what is written.
    """
    tell = progress or (lambda _what, _done, _total: None)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with Lock(target), _scratch(target) as scratch:
            version = 1 + folder.newest_version(target)
            loaded = _build(
                file,
                scratch,
                version,
                tell,
                lambda environment: carry_over(target, environment, version, now_us),
            )
            tell("seal", 0, 1)
            folder.swap_in(scratch / "building", target, version)
            tell("seal", 1, 1)
            return loaded
    except ImportError as error:
        raise DirectoryError(
            f"{target}: {error.name} is missing; a directory is loaded with ksz-router[audit], "
            "install that extra here, or load where it is installed and restore a backup here"
        ) from error
    except (OSError, lmdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DirectoryError(f"{target}: load failed, nothing was changed: {reason}") from error


def _build(
    file: Path,
    scratch: Path,
    version: int,
    tell: Progress,
    carry: Callable[[lmdb.Environment], None],
) -> Loaded:
    # One road: a second one in pure Python would have to be kept the same in every rule.
    from ksz_router.directory.bulk.build import Build  # noqa: PLC0415  numpy is an extra

    refusals = Refusals(file)
    with Families(scratch / "families") as families:
        build = Build(file, scratch, families, refusals, tell)
        build.read()
        environment = lmdb.open(
            str(scratch / "building"),
            map_size=folder.MAP_BYTES,
            max_dbs=folder.DATABASES_MAX,
            sync=False,  # one flush at the end: a torn building folder is thrown away
            lib_version=0,  # the format of LMDB 0.9
        )
        try:
            numbers, lines = build.write(environment)
            meta = folder.Meta(format=folder.FORMAT, version=version, numbers=numbers, lines=lines)
            carry(environment)
            folder.write_meta(environment, meta)
            environment.sync(True)
        finally:
            environment.close()
    return Loaded(version, numbers, lines)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder on the same file system; what a killed load left behind is removed first."""
    for stale in target.glob("loading-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="loading-", dir=target) as name:
        yield Path(name)
