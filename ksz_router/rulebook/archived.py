"""Open a generation of long ago, by the name that an entry of the privacy log gives it.

A name is the hash of the rows (:func:`ksz_router.rulebook.generation.name_of`), so whoever has the
name can tell the rows from any others without a signer's key, which may be gone after ten years.
The hash is taken over the rows as they lie there, not as this version would write them again.
"""

import hashlib
from collections import OrderedDict
from pathlib import Path

import lmdb
import msgspec

from ksz_router.rulebook.generation import (
    ENCODER,
    FORMAT,
    NAME_CHARS,
    GenerationDamagedError,
    RulebookError,
    damaged_rows,
    folder_of,
    read_manifest,
)
from ksz_router.rulebook.snapshot import DAMAGE, Snapshot


class Archive:
    """The generations of a store, each checked against its name when it is first asked for.

    Args:
        store: The folder of the generations.
        open_max: How many stay open; what was not asked for longest is closed.
    """

    def __init__(self, store: Path, open_max: int = 8) -> None:
        assert open_max >= 1
        self._store = store
        self._open_max = open_max
        self._open: OrderedDict[str, Snapshot] = OrderedDict()

    def generation(self, name: str) -> Snapshot:
        """Return a generation, open; it may be closed when others were asked for.

        Raises:
            GenerationUnknownError: the store does not have it.
            GenerationDamagedError: its rows are not those that the name stands for.
            RulebookError: the system refuses to open it.
        """
        found = self._open.get(name)
        if found is not None:
            self._open.move_to_end(name)
            return found
        folder = folder_of(self._store, name)
        read_manifest(folder)
        if _name_of_rows(folder) != name:
            raise GenerationDamagedError(
                f"{folder}: its rows are not those that its name stands for: they were changed "
                "after the name was given; restore the generation from a copy"
            )
        if len(self._open) >= self._open_max:
            self._open.popitem(last=False)[1].close()
        found = self._open[name] = Snapshot.open(self._store, name)
        return found

    def close(self) -> None:
        """Give all mappings back."""
        while self._open:
            self._open.popitem()[1].close()


def _name_of_rows(folder: Path) -> str:
    try:
        environment = lmdb.open(
            str(folder), readonly=True, create=False, lock=False, max_dbs=4, lib_version=0
        )
        try:
            with environment.begin() as transaction:
                rows = [
                    [
                        (bytes(key), bytes(value))
                        for key, value in transaction.cursor(
                            environment.open_db(table, txn=transaction, create=False)
                        )
                    ]
                    for table in (b"institutions", b"services", b"outages", b"rights")
                ]
        finally:
            environment.close()
        institutions, services, outages, rights = rows
        services.sort(key=lambda row: _service_order(row[0]))
        content = [
            *([msgspec.Raw(value) for _, value in table] for table in (institutions, services)),
            *(msgspec.Raw(value) for _, value in outages),
            [msgspec.Raw(value) for _, value in rights],
        ]
    except (*DAMAGE, ValueError) as error:
        raise damaged_rows(folder, error) from error
    except (lmdb.Error, OSError) as error:
        raise RulebookError(
            f"{folder}: cannot be opened ({error}); each process opens a generation once"
        ) from error
    return hashlib.sha256(ENCODER.encode([FORMAT, content])).hexdigest()[:NAME_CHARS]


def _service_order(key: bytes) -> tuple[str, int]:
    name, _, version = key.decode().rpartition("\0")
    return name, int(version)
