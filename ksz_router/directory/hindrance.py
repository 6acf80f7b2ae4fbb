"""Why a directory takes no change, though nothing of it was applied and what it holds can be read.

LMDB tells a page that cannot be one from other failures. A transaction that meets one is aborted
whole; what other pages hold is as sound as before, but no page may be written on the word of this
one. So nothing is changed any more until the directory is restored.
"""

from pathlib import Path

import lmdb

from ksz_router.directory.packing import DirectoryError

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.BadChecksumError, lmdb.PageFullError)


class NotTakenError(DirectoryError):
    """No change is taken now, nothing was applied, and the directory can be read."""


class PageDamagedError(NotTakenError):
    """A page of the file is damaged: no change is taken until the directory is restored."""


def hindrance_of(version_folder: Path, error: lmdb.Error) -> NotTakenError | None:
    """Say what an aborted transaction failed for, where the directory is still to be read.

    None: nothing is known of what else is wrong, and it has to be opened anew.
    """
    if isinstance(error, _DAMAGE):
        return PageDamagedError(
            f"{version_folder}: a page is damaged ({error}); no change is made until the "
            "directory is restored (docs/runbook.md, DirectoryDamaged)"
        )
    return None
