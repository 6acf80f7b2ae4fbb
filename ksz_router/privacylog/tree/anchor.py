"""The last checkpoint that was signed, in a file outside of the archive: nothing else replaces it.

Whoever signs a checkpoint first puts it here, in the place of the one before, and only a tree that
continues that one is taken. So a copy of the archive that is set back cannot lead to a second tree
under the same name: it is smaller than what was signed, or other, and is refused.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import DISK, Disk, write_over
from ksz_router.privacylog.tree.checkpoint import Checkpoint, CheckpointRefused, parse_checkpoint
from ksz_router.privacylog.tree.note import NOTE_BYTES_MAX, VerifierKey


class AnchorRefused(PrivacyLogError):
    """The tree does not continue what was signed last. The message says what to do."""


class SequencerRuns(PrivacyLogError):
    """Another process signs checkpoints with this archive or this last checkpoint."""


def lock(file: Path) -> int:
    """Lock a file or a folder as long as the process lives; return its descriptor.

    Raises:
        SequencerRuns: another process has it.
        OSError: it cannot be opened.
    """
    if file.is_dir():
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SequencerRuns(f"{file}: another process signs the checkpoints of this log") from None
    return descriptor


class Anchor:
    """The last checkpoint of one log; locked until :meth:`close`.

    Args:
        file: Where it is; a file of that name and ``.lock`` beside it is locked.
        origin: Name of the log.
        vkeys: That its checkpoints are signed with.

    Raises:
        SequencerRuns: another process has it.
        AnchorRefused: what is there is no checkpoint of this log.
        OSError: it cannot be read or locked.
    """

    def __init__(
        self, file: Path, origin: str, vkeys: Sequence[VerifierKey], disk: Disk = DISK
    ) -> None:
        self._file = file
        self._origin = origin
        self._vkeys = vkeys
        self._disk = disk
        self._lock = lock(file.with_name(f"{file.name}.lock"))
        self.note = b""
        """The checkpoint as it was signed; empty where there never was one."""
        self.last: Checkpoint | None = None
        """What it says."""
        try:
            self.note = self._read()
            if self.note:
                self.last = self._parse(self.note)
        except BaseException:
            self.close()
            raise

    def begin(self, note: bytes) -> None:
        """Put the checkpoint of an empty tree where there never was one.

        Raises:
            AnchorRefused: there is one by now.
            OSError: it could not be written.
        """
        assert self.last is None
        self._put(note, self._parse(note))

    def swap(self, note: bytes, root_of: Callable[[int], bytes]) -> None:
        """Put a checkpoint in the place of the last; on return it may be shown to anybody.

        Args:
            note: The new checkpoint, signed.
            root_of: Root of the new tree at a size.

        Raises:
            AnchorRefused: it is smaller than the last or does not continue it, or another process
                has changed the file.
            OSError: it could not be written; the file has the one or the other.
        """
        assert self.last is not None
        new = self._parse(note)
        if new.size < self.last.size:
            raise AnchorRefused(
                f"{self._file}: a tree of {self.last.size} entries was signed, so none of "
                f"{new.size} may be: put back the newest copy of the archive"
            )
        self.check(root_of)
        if new.size == self.last.size and new.root != self.last.root:
            raise self._other(new.size)
        self._put(note, new)

    def check(self, root_of: Callable[[int], bytes]) -> None:
        """Check that a tree, at least as large, continues the last checkpoint.

        Raises:
            AnchorRefused: it does not.
        """
        assert self.last is not None
        if root_of(self.last.size) != self.last.root:
            raise self._other(self.last.size)

    def close(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _other(self, size: int) -> AnchorRefused:
        return AnchorRefused(
            f"{self._file}: the first {size} entries of the tree are not those that were signed: "
            "put back the newest copy of the archive"
        )

    def _parse(self, note: bytes) -> Checkpoint:
        try:
            found = parse_checkpoint(note, self._vkeys)
        except CheckpointRefused as error:
            raise AnchorRefused(f"{self._file}: {error}: put back the newest copy") from error
        if found.origin != self._origin:
            raise AnchorRefused(
                f"{self._file}: is the last checkpoint of {found.origin}, not of {self._origin}: "
                "set archive.origin or archive.last_checkpoint right"
            )
        return found

    def _read(self) -> bytes:
        try:
            with self._file.open("rb") as stream:
                return stream.read(NOTE_BYTES_MAX)
        except FileNotFoundError:
            return b""

    def _put(self, note: bytes, checkpoint: Checkpoint) -> None:
        if self._read() != self.note:
            raise AnchorRefused(
                f"{self._file}: was changed by another program: find out which, and start again"
            )
        write_over(self._file, note, disk=self._disk)
        self.note, self.last = note, checkpoint
