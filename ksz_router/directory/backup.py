"""A consistent copy of a directory while it is changed; and a directory made of one again.

A backup is a directory of its own, in the same layout, with its journal; so every verb works on
it. A restore copies it, checks every page before LMDB may map it, brings it forward by a journal
where one is given, checks every value, and only then points readers to it.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lmdb
from msgspec.structs import replace

from ksz_router.directory import folder, journal, marks, quarters
from ksz_router.directory.change import Operation
from ksz_router.directory.check import audit_pages, audit_values
from ksz_router.directory.lock import Lock
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.replay import FOREVER, Until, replay

Progress = Callable[[str, int, int], None]
"""Told now and then: what is being done, how much of it is done, how much there is."""

_COPIED_BYTES = 8 << 20


class BackedUp(NamedTuple):
    """What a backup holds."""

    version: int
    numbers: int
    lines: int
    bytes: int


class Restored(NamedTuple):
    """What a restore brought back."""

    version: int
    """Under which it serves: higher than any that was known here."""
    came_from: int
    """Whose content it has."""
    numbers: int
    lines: int


class Wanted(NamedTuple):
    """To which point a backup is brought forward."""

    journal_of: Path | None = None
    """A directory or a backup that recorded what came after; None: the backup as it is."""
    version_max: int = FOREVER
    until_us: int = FOREVER
    """What was recorded there later than either is left out."""
    above: int = 0
    """A version that is known to have served: the restored one is higher."""


AS_IT_IS = Wanted()


class RestoreRefusedError(DirectoryError):
    """What was to be restored is not sound; nothing was changed. Each problem is a sentence."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def back_up(target: Path, destination: Path) -> BackedUp:
    """Copy the version that serves, as one transaction sees it, while it is read and changed.

    ``destination`` gets its name when all is durable; it must not exist.

    Raises:
        DirectoryError: it exists, there is nothing to back up, or the disk does not take it.
    """
    source = folder.current(target)
    marks.check_mark(source)
    if destination.exists():
        raise DirectoryError(f"{destination}: exists already; give a backup a name of its own")
    try:
        with tempfile.TemporaryDirectory(
            prefix=f".{destination.name}-", dir=destination.parent
        ) as name:
            made = _copied(source, Path(name) / "backup")
            quarters.copy(target, Path(name) / "backup")
            (Path(name) / "backup").rename(destination)
            marks.sync_folder(destination.parent)
            return made
    except OSError as error:
        raise DirectoryError(
            f"{destination}: the backup failed, nothing is left of it: {error.strerror}"
        ) from error


def _copied(source: Path, backup: Path) -> BackedUp:
    writing = backup / "writing"
    writing.mkdir(parents=True, mode=0o700)
    environment = folder.open_environment(source, reads_all=True)
    try:
        environment.copy(str(writing))
    except lmdb.Error as error:
        raise DirectoryError(f"{source}: cannot be copied ({error}); see the disks") from error
    finally:
        environment.close()
    copy = folder.open_environment(writing)
    try:
        meta = folder.read_meta(writing, copy)
    finally:
        copy.close()
    (writing / "lock.mdb").unlink(missing_ok=True)
    mark = marks.make_mark(writing)
    marks.write_mark(writing, mark)
    named = folder.folder_of(backup, meta.version)
    writing.rename(named)
    folder.point_to(named)
    return BackedUp(meta.version, meta.numbers, meta.lines, mark.bytes)


def restore(
    backup: Path,
    target: Path,
    *,
    wanted: Wanted = AS_IT_IS,
    now_us: int = 0,
    progress: Progress | None = None,
) -> Restored:
    """Make the directory in ``backup`` the one that serves in ``target``, durably.

    Its version is higher than any that is known here: one that was stamped on verdicts never means
    two things. ``now_us`` is Unix time in microseconds, for the journal.

    Raises:
        RestoreRefusedError: the backup is not sound, or would not be with the journal.
        DirectoryError: it cannot be read, the journal does not join on, the target is being
            changed, or the disk does not take it.
    """
    tell = progress or (lambda _what, _done, _total: None)
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Lock(target):
            for stale in target.glob("restoring-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="restoring-", dir=target) as name:
                building = Path(name) / "building"
                _copy_in(folder.current(backup), building, tell)
                restored = _brought_forward(building, target, wanted, now_us, tell)
                quarters.copy(backup, target)
                folder.swap_in(building, target, restored.version)
                return restored
    except (OSError, lmdb.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DirectoryError(f"{target}: restore failed, nothing was changed: {reason}") from error


def _copy_in(source: Path, building: Path, tell: Progress) -> None:
    """Copy a data file, and see that it is what its mark says and sound in every page."""
    mark = marks.read_mark(source)
    building.mkdir()
    digest = hashlib.sha256()
    with (source / "data.mdb").open("rb") as original, (building / "data.mdb").open("wb") as copy:
        total = (source / "data.mdb").stat().st_size
        while chunk := original.read(_COPIED_BYTES):
            digest.update(chunk)
            copy.write(chunk)
            tell("copy", copy.tell(), total)
    if mark.sha256 and digest.hexdigest() != mark.sha256:
        raise RestoreRefusedError(
            [f"{source}: is not what was written there (SHA-256 differs); take another backup"]
        )
    if mark.live:
        raise RestoreRefusedError(
            [f"{source}: is open to be changed; take a backup of it first, and restore that"]
        )
    if problems := audit_pages(building / "data.mdb", tell):
        raise RestoreRefusedError(problems)


def _brought_forward(
    building: Path, target: Path, wanted: Wanted, now_us: int, tell: Progress
) -> Restored:
    newest = folder.newest_version(target)
    environment = folder.open_to_write(building, durable=False)
    try:
        meta = folder.read_meta(building, environment)
        if wanted.journal_of is not None:
            source = folder.current(wanted.journal_of)
            marks.check_mark(source)
            newest = max(newest, folder.newest_version(wanted.journal_of))
            until = Until(wanted.version_max, wanted.until_us)
            meta = replay(source, environment, meta, until, lambda *of: tell("replay", *of))
        came_from = meta.version
        meta = replace(meta, version=1 + max(newest, wanted.above, came_from))
        databases = folder.Databases(environment)
        with environment.begin(write=True) as transaction:
            row = journal.boundary(Operation.RESTORED, now_us, came_from)
            transaction.put(journal.key_of(meta.version), row, db=databases.changes)
            folder.write_state(transaction, databases.meta, meta)
        environment.sync(True)
        if problems := audit_values(building, environment, tell):
            raise RestoreRefusedError(problems)
    finally:
        environment.close()
    return Restored(meta.version, came_from, meta.numbers, meta.lines)
