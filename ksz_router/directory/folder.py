"""The folder of a directory: its versions, the pointer to the one that serves, and the marks.

    directory/
      current             text: the name of the folder that serves
      write.lock          held by who changes the directory
      version-00000007/   data.mdb, lock.mdb and ``complete``, the mark of its writer

A version's folder is complete before it gets its name, which tells the version that it began
with; the writer changes it in place from then on. ``complete`` names the very file it was made
for: a copied or restored one has another inode, and is refused until it was checked in full, since
a damaged LMDB file may end the process that reads it.
"""

import os
import re
import shutil
import struct
from pathlib import Path

import lmdb
import msgspec

from ksz_router.directory import marks
from ksz_router.directory.marks import UNREADABLE
from ksz_router.directory.packing import DamagedError, DirectoryError
from ksz_router.limits import MIB

FORMAT = 2
"""Of keys and values; a change that an older reader would misread raises it."""

MAP_BYTES = 64 * 1024 * MIB
"""Address space, not memory or disk: ten times what 25 million persons take."""

READERS_MAX = 512
"""Slots of the lock table: 64 workers, during a change of version twice, and commands."""

PERSONS, META, CHANGES, APPLIED = b"persons", b"meta", b"changes", b"applied"
NOTICES = b"notices"
DATABASES_MAX = 5

STATE = b"state"
"""The key in ``meta`` of what each transaction changes: version, numbers, lines."""

FORGOTTEN = b"forgotten"
"""The key in ``meta`` of the moment up to which changes were forgotten before their time."""

_STATE = struct.Struct(">QQQ")
_MOMENT = struct.Struct(">Q")
_VERSION = re.compile(r"version-([0-9]{8,})")


class NoDirectoryError(DirectoryError):
    """There is no directory here yet."""


class FormatError(DirectoryError):
    """The directory was written by another version of this program."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment says of itself."""

    format: int
    version: int
    numbers: int
    lines: int


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    """The part of it that never changes, under the key ``meta``; written last by a load."""

    format: int


class Databases:
    """The databases of an environment that is open to be written."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self.persons = environment.open_db(PERSONS)
        self.meta = environment.open_db(META)
        self.changes = environment.open_db(CHANGES)
        self.applied = environment.open_db(APPLIED)
        self.notices = environment.open_db(NOTICES)


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
    marks.sync_folder(target)


def swap_in(building: Path, target: Path, version: int) -> None:
    """Mark a version that was built, name it and let it serve, each step durably.

    The version that served before stays, older ones are removed.
    """
    (building / "lock.mdb").unlink(missing_ok=True)
    marks.write_mark(building, marks.make_mark(building))
    former = serving(target)
    new = folder_of(target, version)
    building.rename(new)
    marks.sync_folder(target)
    point_to(new)
    for child in target.glob("version-*"):
        if child not in (new, former):  # a reader may be about to open the one before
            shutil.rmtree(child, ignore_errors=True)


def open_environment(folder: Path, *, reads_all: bool = False) -> lmdb.Environment:
    """Open a version to read, from end to end if ``reads_all``. The caller has checked its mark.

    Raises:
        DirectoryError: LMDB refuses it.
    """
    return _open(folder, readonly=True, readahead=reads_all)


def open_to_write(folder: Path, *, durable: bool = True) -> lmdb.Environment:
    """Open a version to change it. The caller holds the lock.

    Without ``durable`` transactions, for what nobody sees before ``sync``, as a restore.

    Raises:
        DirectoryError: LMDB refuses it.
    """
    return _open(folder, readonly=False, durable=durable)


def _open(
    folder: Path, *, readonly: bool, readahead: bool = False, durable: bool = True
) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(folder),
            map_size=MAP_BYTES,
            max_readers=READERS_MAX,
            max_dbs=DATABASES_MAX,
            max_spare_txns=1,  # `begin` then renews the one transaction, as `abort` resets it
            readonly=readonly,
            create=False,
            readahead=readahead,
            sync=durable,
        )
    except lmdb.Error as error:
        raise DirectoryError(
            f"{folder}: LMDB cannot open it ({error}); see that this process may write lock.mdb "
            "and has it open once only, else run `ksz-router directory check`"
        ) from error


def write_meta(environment: lmdb.Environment, meta: Meta) -> None:
    """Write what a new environment says of itself; the databases that a writer needs, too."""
    databases = Databases(environment)
    with environment.begin(write=True) as transaction:
        description = _Description(format=meta.format)
        transaction.put(META, msgspec.json.encode(description), db=databases.meta)
        write_state(transaction, databases.meta, meta)


def write_state(
    transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", meta: Meta
) -> None:
    """Write the part that a transaction changes."""
    transaction.put(STATE, _STATE.pack(meta.version, meta.numbers, meta.lines), db=database)


def write_forgotten(
    transaction: "lmdb.Transaction[bytes]", database: "lmdb._Database", moment_us: int
) -> None:
    """Note that what became of older changes is not kept any more, for there are too many."""
    transaction.put(FORGOTTEN, _MOMENT.pack(moment_us), db=database)


def forgotten_in(value: bytes | None) -> int:
    """Return the moment in the value of ``FORGOTTEN``, in Unix microseconds; 0 without one.

    Raises:
        DamagedError: it is none.
    """
    if value is None:
        return 0
    if len(value) != _MOMENT.size:
        raise DamagedError("the description of the directory is damaged")
    return int(_MOMENT.unpack(value)[0])


def version_in(state: bytes | memoryview | None) -> int:
    """Return the version in the value of ``STATE``.

    Raises:
        DamagedError: it is none.
    """
    if state is None or len(state) != _STATE.size:
        raise DamagedError("the description of the directory is damaged")
    return int.from_bytes(state[:8], "big")


def counts_in(state: bytes | memoryview) -> tuple[int, int]:
    """Return how many numbers and lines the value of ``STATE`` tells of."""
    _, numbers, lines = _STATE.unpack(state)
    return numbers, lines


def read_meta(folder: Path, environment: lmdb.Environment) -> Meta:
    """Return what the environment says of itself.

    Raises:
        FormatError: it was written in another format.
        DamagedError: it says nothing that can be understood.
    """
    mend = "load the directory again, or restore it and run `ksz-router directory check`"
    try:
        with environment.begin(environment.open_db(META, create=False)) as transaction:
            description = msgspec.json.decode(transaction.get(META, b""), type=_Description)
            state = transaction.get(STATE, b"")
            if description.format != FORMAT:
                raise FormatError(
                    f"{folder}: is in format {description.format}, this program reads {FORMAT}; "
                    "load the directory again with this program"
                )
            version, numbers, lines = _STATE.unpack(state)
    except (lmdb.Error, struct.error, *UNREADABLE) as error:
        raise DamagedError(
            f"{folder}: its own description is missing or damaged; {mend}"
        ) from error
    if version < version_of(folder):
        raise DamagedError(f"{folder}: holds version {version}; {mend}")
    return Meta(format=FORMAT, version=version, numbers=numbers, lines=lines)


def newest_version(target: Path) -> int:
    """Return the highest version that any folder here holds, as far as that can be told; or 0."""
    newest = 0
    for folder in target.glob("version-*"):
        newest = max(newest, version_of(folder))
        try:
            marks.check_mark(folder)
            environment = open_environment(folder)
        except DirectoryError:
            continue
        try:
            newest = max(newest, read_meta(folder, environment).version)
        except DirectoryError:
            continue
        finally:
            environment.close()
    return newest
