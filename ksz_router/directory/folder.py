"""The folder of a directory: its versions, the pointer to the one that serves, and the marks.

    directory/
      current             text: the name of the folder that serves
      load.lock           held by a load while it runs
      version-00000007/   data.mdb, lock.mdb and ``complete``, the mark of its writer

A version's folder is complete before it gets its name, and never written again. ``complete``
names the very file it was made for: a copied or restored one has another inode, and is refused
until it was checked in full, since a damaged LMDB file may end the process that reads it.
"""

import hashlib
import os
import re
from pathlib import Path

import lmdb
import msgspec

from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.limits import MIB

FORMAT = 1
"""Of keys and values; a change that an older reader would misread raises it."""

MAP_BYTES = 64 * 1024 * MIB
"""Address space, not memory or disk: ten times what 25 million persons take."""

READERS_MAX = 512
"""Slots of the lock table: 64 workers, during a change of version twice, and commands."""

PERSONS, META = b"persons", b"meta"

_VERSION = re.compile(r"version-([0-9]{8,})")


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What bytes that are not ours make the decoder raise; the last two are no MsgspecError."""


class NoDirectoryError(DirectoryError):
    """There is no directory here yet."""


class FormatError(DirectoryError):
    """The directory was written by another version of this program."""


class NotCheckedError(DirectoryError):
    """The file was copied, restored or touched since it was written, and not checked since."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment says of itself, under the key ``meta``; written last."""

    format: int
    version: int
    numbers: int
    lines: int


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``complete``: which file was written, and what it held."""

    inode: int
    bytes: int
    modified_ns: int
    sha256: str


def current(target: Path) -> Path:
    """Return the folder of the version that serves.

    Raises:
        NoDirectoryError: there is none.
        DirectoryError: the pointer is not one of ours.
    """
    pointer = target / "current"
    try:
        name = pointer.read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise NoDirectoryError(
            f"{target}: holds no directory; make one with `ksz-router directory load`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{pointer}: cannot be read; see its rights and its disk") from error
    if _VERSION.fullmatch(name) is None:
        raise DirectoryError(f"{pointer}: names no version; write the name of a version-* folder")
    return target / name


def serving(target: Path) -> Path | None:
    """Return the folder of the version that serves, or None where there is none yet."""
    try:
        return current(target)
    except DirectoryError:
        return None


def version_of(folder: Path) -> int:
    """Return the version number in the name of a version's folder; 0 for any other name."""
    match = _VERSION.fullmatch(folder.name)
    return int(match[1]) if match else 0


def folder_of(target: Path, version: int) -> Path:
    """Return where a version lies."""
    return target / f"version-{version:08}"


def point_to(folder: Path) -> None:
    """Make ``folder`` the version that serves, durably; readers see the old one or the new."""
    target = folder.parent
    new = target / "current.new"
    with new.open("w", encoding="ascii") as file:
        file.write(folder.name + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(target / "current")
    sync_folder(target)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_mark(folder: Path, sha256: str = "") -> Mark:
    """Describe the data file as it lies there; ``sha256`` spares reading it."""
    data = folder / "data.mdb"
    digest = sha256 or digest_of(data)
    state = data.stat()
    return Mark(
        inode=state.st_ino, bytes=state.st_size, modified_ns=state.st_mtime_ns, sha256=digest
    )


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    if (state.st_ino, state.st_size, state.st_mtime_ns) != (
        mark.inode,
        mark.bytes,
        mark.modified_ns,
    ):
        raise NotCheckedError(
            f"{folder}: was copied, restored or touched since it was written; "
            "run `ksz-router directory check`, which admits it if it is sound"
        )


def open_environment(folder: Path, *, readahead: bool = False) -> lmdb.Environment:
    """Open a version to read. The caller has checked its mark.

    Args:
        folder: Of the version.
        readahead: For who reads all of it in order; a look-up would read in vain.

    Raises:
        DirectoryError: LMDB refuses it.
    """
    try:
        return lmdb.open(
            str(folder),
            map_size=MAP_BYTES,
            max_readers=READERS_MAX,
            max_dbs=2,
            max_spare_txns=1,  # `begin` then renews the one transaction, as `abort` resets it
            readonly=True,
            create=False,
            readahead=readahead,
        )
    except lmdb.Error as error:
        raise DirectoryError(
            f"{folder}: LMDB cannot open it ({error}); see that this process may write lock.mdb "
            "and has it open once only, else run `ksz-router directory check`"
        ) from error


def read_meta(folder: Path, environment: lmdb.Environment) -> Meta:
    """Return what the environment says of itself.

    Raises:
        FormatError: it was written in another format.
        DamagedError: it says nothing that can be understood.
    """
    mend = "load the directory again, or restore it and run `ksz-router directory check`"
    try:
        with environment.begin(environment.open_db(META, create=False)) as transaction:
            meta = msgspec.json.decode(transaction.get(META, b""), type=Meta)
    except (lmdb.Error, *UNREADABLE) as error:
        raise DamagedError(
            f"{folder}: its own description is missing or damaged; {mend}"
        ) from error
    if meta.format != FORMAT:
        raise FormatError(
            f"{folder}: is in format {meta.format}, this program reads {FORMAT}; "
            "load the directory again with this program"
        )
    if meta.version != version_of(folder):
        raise DamagedError(f"{folder}: holds version {meta.version}; {mend}")
    return meta
