"""Look persons up: one short read transaction for a batch of them.

A value is copied out before it is unpacked: it is so small that a view of it costs more.

Opened by the process that uses it and by no other: an LMDB environment does not survive a fork.
Nothing here waits, so no read transaction is ever held across an ``await``.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import lmdb

from ksz_router.directory import folder, marks
from ksz_router.directory.packing import (
    HEADER_BYTES,
    KEY_BYTES,
    PLAIN_HEADER,
    DamagedError,
    DirectoryError,
    pack_key,
    unpack_others,
    unpack_parts,
)
from ksz_router.identifiers import is_insz
from ksz_router.model import NumberStatus
from ksz_router.persons import LINE_BYTES, Person

_ACTIVE = NumberStatus.ACTIVE


class Directory:
    """The version of the person directory that serves, open to be read.

    Not for several threads at once. Use :meth:`open`.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._process = os.getpid()
        self._pointer_file = str(target / "current")
        self._pointer = _identity(self._pointer_file)
        self._open(folder.current(target))

    @classmethod
    def open(cls, path: Path) -> "Directory":
        """Open the directory in the folder ``path``.

        Raises:
            NoDirectoryError: there is none.
            NotCheckedError: it was copied or restored, and not checked since.
            FormatError: it is in a format that this program does not read.
            DirectoryError: it cannot be read for another reason; the message says the mend.
        """
        return cls(path)

    def _open(self, version_folder: Path) -> None:
        marks.check_mark(version_folder)
        environment = folder.open_environment(version_folder)
        try:
            environment.reader_check()
            meta = folder.read_meta(version_folder, environment)
            persons = environment.open_db(folder.PERSONS, create=False)
            described = environment.open_db(folder.META, create=False)
        except lmdb.Error as error:
            environment.close()
            raise DirectoryError(
                f"{version_folder}: LMDB cannot read it ({error}); load the directory again"
            ) from error
        except DirectoryError:
            environment.close()
            raise
        self._folder = version_folder
        self._environment = environment
        self._persons = persons
        self._described = described
        self._version = meta.version

    @property
    def version(self) -> int:
        """The version that the last look-up saw; each change and each load makes the next."""
        return self._version

    @property
    def numbers_count(self) -> int:
        """How many numbers the directory knows now."""
        return folder.read_meta(self._folder, self._environment).numbers

    @property
    def lines_count(self) -> int:
        """How many lines the directory holds now."""
        return folder.read_meta(self._folder, self._environment).lines

    def refresh(self) -> bool:
        """Go over to a newer folder if one was loaded or restored; say whether that happened.

        Costs one ``stat`` where nothing changed; changes in place need no refresh. On any error
        the old version goes on serving.

        Raises:
            DirectoryError: the new version cannot be used.
        """
        pointer = _identity(self._pointer_file)
        if pointer == self._pointer:
            return False
        new = folder.current(self._target)
        changed = new != self._folder
        if changed:
            old = self._environment
            self._open(new)
            old.close()
        self._pointer = pointer
        return changed

    def clear_dead_readers(self) -> int:
        """Free the slots of readers that were killed; for a timer. Return how many."""
        return self._environment.reader_check()

    def look_up(self, numbers: Sequence[str | None]) -> list[Person | None]:
        """Return the person under each number, in one view of the directory.

        A replaced number is followed to the one in use; the lines are those of all the person's
        numbers. ``None``, text that is no number and a number that is not known give ``None``.

        Raises:
            DamagedError: a value is damaged; nothing that a peer sends causes it.
            DirectoryError: LMDB cannot read it.
        """
        assert os.getpid() == self._process, "opened before a fork"
        try:
            with self._environment.begin(self._persons) as transaction:
                get = transaction.get
                self._version = folder.version_in(get(folder.STATE, db=self._described))
                return look_up_in(numbers, get)
        except DamagedError as error:
            raise DamagedError(
                f"{self._folder}: {error}; run `ksz-router directory check` and load it again"
            ) from error
        except lmdb.Error as error:
            raise DirectoryError(
                f"{self._folder}: LMDB cannot read it ({error}); run `ksz-router directory check`"
            ) from error

    def other_numbers(self, number: str) -> tuple[str, ...]:
        """Return the other numbers of the person; empty where the number is not known.

        Raises:
            DamagedError: a value is damaged.
        """
        if not is_insz(number):
            return ()
        with self._environment.begin(self._persons, buffers=True) as transaction:
            value = transaction.get(pack_key(number))
            return unpack_others(value, unpack_parts(value)[1]) if value is not None else ()

    def close(self) -> None:
        """Close the environment; the second time does nothing."""
        self._environment.close()


def _identity(pointer_file: str) -> tuple[int, int]:
    """What changes with every swap of the pointer; zeroes where there is none yet."""
    try:
        state = os.stat(pointer_file)  # noqa: PTH116  a third of the time of Path.stat
    except OSError:
        return 0, 0
    return state.st_ino, state.st_mtime_ns


def look_up_in(
    numbers: Iterable[str | None], get: Callable[[bytes], bytes | None]
) -> list[Person | None]:
    """Return the person under each number, by the ``get`` of one read transaction.

    One loop, since most persons have one number, and a call for each costs a tenth of it all.
    """
    found: list[Person | None] = []
    add = found.append
    for number in numbers:
        if number is None or len(number) != 11 or not (number.isascii() and number.isdigit()):
            add(None)
            continue
        value = get(int(number).to_bytes(KEY_BYTES, "big"))
        if value is None:
            add(None)
            continue
        if value[:HEADER_BYTES] == PLAIN_HEADER and len(value) % LINE_BYTES == HEADER_BYTES:
            add(Person(_ACTIVE, number, _ACTIVE, value[HEADER_BYTES:]))
            continue
        status, others_count, deceased, packed = unpack_parts(value)
        person = Person(status, number, status, packed, deceased)
        add(_joined(person, unpack_others(value, others_count), get) if others_count else person)
    return found


def _joined(found: Person, others: tuple[str, ...], get: Callable[[bytes], bytes | None]) -> Person:
    """Add what lies under the other numbers of a person."""
    current = others[0] if found.status is NumberStatus.REPLACED else found.current
    current_status, packed, deceased = found.status, found.packed, found.deceased
    for other in others:
        value = get(pack_key(other))
        if value is None:
            raise DamagedError("a number names another one that is missing")
        other_status, _, other_deceased, theirs = unpack_parts(value)
        packed += theirs
        if other == current:
            current_status, deceased = other_status, other_deceased
    return Person(found.status, current, current_status, packed, deceased)
