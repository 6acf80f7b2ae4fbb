"""Why a directory takes no change, though nothing of it was applied and what it holds can be read.

LMDB tells a page that cannot be one from other failures. A transaction that meets one is aborted
whole; what other pages hold is as sound as before, but no page may be written on the word of this
one. So nothing is changed any more until the directory is restored.

Where there is no room, in the map or on the disk, the pages of a transaction did not all get there,
and the one page that would make them count was not written. The next one is tried anew.
"""

import errno
import os
from pathlib import Path

import lmdb

from ksz_router.directory.packing import DirectoryError
from ksz_router.limits import MIB

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.BadChecksumError, lmdb.PageFullError)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FREE_BYTES_MIN = 16 * MIB
"""With less than that left on the disk, a write that came out short found no room."""


class NotTakenError(DirectoryError):
    """No change is taken now, nothing was applied, and the directory can be read."""


class PageDamagedError(NotTakenError):
    """A page of the file is damaged: no change is taken until the directory is restored."""


class DirectoryFullError(NotTakenError):
    """The map or the disk is full: a change is taken again when there is room."""


def hindrance_of(version_folder: Path, error: lmdb.Error) -> NotTakenError | None:
    """Say what an aborted transaction failed for, where the directory is still to be read.

    None: nothing is known of what else is wrong, and it has to be opened anew.
    """
    if isinstance(error, _DAMAGE):
        return PageDamagedError(
            f"{version_folder}: a page is damaged ({error}); no change is made until the "
            "directory is restored (docs/runbook.md, DirectoryDamaged)"
        )
    if isinstance(error, lmdb.MapFullError):
        return DirectoryFullError(
            f"{version_folder}: the directory is full: it has the size that its map may have; no "
            "change is made until a load packs it anew (docs/runbook.md, DirectoryFull)"
        )
    code = getattr(error, "code", 0)
    if code in _NO_ROOM or (code == errno.EIO and _free_bytes(version_folder) < _FREE_BYTES_MIN):
        return DirectoryFullError(
            f"{version_folder}: the directory is full: its disk has no room left; no change is "
            "made until there is some (docs/runbook.md, DirectoryFull)"
        )
    return None


def _free_bytes(folder: Path) -> int:
    """LMDB says of a write that came out short that it failed; the disk says whether it is full."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return _FREE_BYTES_MIN
    return found.f_bavail * found.f_frsize
