"""The mark ``complete`` of a version: which very file may be served without a check in full."""

import hashlib
import os
from pathlib import Path

import msgspec

from ksz_router.directory.packing import DirectoryError

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What bytes that are not ours make the decoder raise; the last two are no MsgspecError."""


class NotCheckedError(DirectoryError):
    """The file was copied, restored or touched since it was written, and not checked since."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``complete``: which file was written, and what it held."""

    inode: int
    bytes: int
    modified_ns: int
    sha256: str
    """Of the file; empty once it was changed."""
    live: bool = False
    """A writer has it open or died: then the inode alone counts, and LMDB minds the rest."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_mark(folder: Path, *, takes_digest: bool = True) -> Mark:
    """Describe the data file as it lies there; for the digest it is read whole."""
    data = folder / "data.mdb"
    digest = digest_of(data) if takes_digest else ""
    state = data.stat()
    return Mark(
        inode=state.st_ino, bytes=state.st_size, modified_ns=state.st_mtime_ns, sha256=digest
    )


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mark_live(folder: Path) -> None:
    """Say durably that the file is about to be changed, before it is."""
    mark = read_mark(folder)
    write_mark(folder, msgspec.structs.replace(mark, sha256="", live=True))


def write_mark(folder: Path, mark: Mark) -> None:
    """Write ``complete``, durably and in one step."""
    new = folder / "complete.new"
    with new.open("wb") as file:
        file.write(msgspec.json.encode(mark) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / "complete")
    sync_folder(folder)


def read_mark(folder: Path) -> Mark:
    """Return the mark of a version.

    Raises:
        NotCheckedError: there is none, or it is not one of ours.
    """
    try:
        return msgspec.json.decode((folder / "complete").read_bytes(), type=Mark)
    except (OSError, *UNREADABLE) as error:
        raise NotCheckedError(
            f"{folder}: has no readable mark of completion; load the directory again, "
            "or restore the folder with all its files"
        ) from error


def check_mark(folder: Path) -> None:
    """See that the data file is the very one that was written or checked.

    Raises:
        NotCheckedError: it is not.
    """
    mark = read_mark(folder)
    try:
        state = (folder / "data.mdb").stat()
    except OSError as error:
        raise NotCheckedError(f"{folder}: has no data.mdb; load the directory again") from error
    is_same = state.st_ino == mark.inode and (
        mark.live or (state.st_size, state.st_mtime_ns) == (mark.bytes, mark.modified_ns)
    )
    if not is_same:
        raise NotCheckedError(
            f"{folder}: was copied, restored or touched since it was written; "
            "run `ksz-router directory check`, which admits it if it is sound"
        )
