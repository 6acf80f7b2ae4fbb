"""Who changes a directory is alone: the writer, a load and a restore exclude one another."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import Self

from ksz_router.directory.packing import DirectoryError


class DirectoryBusy(DirectoryError):
    """Somebody else changes the directory at this moment."""


class Lock:
    """The lock ``write.lock`` of a directory, taken when this is made.

    The kernel frees it when the process ends, however it ends.

    Raises:
        DirectoryBusy: somebody else holds it.
        DirectoryError: there is no such folder, or it may not be written.
    """

    def __init__(self, target: Path) -> None:
        try:
            self._file = (target / "write.lock").open("w")
        except OSError as error:
            raise DirectoryError(
                f"{target}: cannot be locked ({error.strerror}); see that it exists and its rights"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DirectoryBusy(
                f"{target}: is being changed by a writer, a load or a restore; wait for its end, "
                "or stop the directory program first"
            ) from error

    @property
    def is_held(self) -> bool:
        """Whether it was not released."""
        return not self._file.closed

    def release(self) -> None:
        """Let others change the directory; the second time does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
