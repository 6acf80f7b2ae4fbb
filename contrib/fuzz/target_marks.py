"""The small files that say which tables are in force: refused by name, or what they say."""

import hashlib
import shutil
from collections.abc import Iterator

import msgspec

from contrib.fuzz import targets
from ksz_router.directory.folder import current
from ksz_router.directory.marks import Mark, read_mark
from ksz_router.directory.packing import DirectoryError
from ksz_router.rulebook.activation import active
from ksz_router.rulebook.generation import (
    DATA,
    FORMAT,
    MANIFEST,
    Manifest,
    RulebookError,
    read_manifest,
)

_FOLDER = targets.scratch("marks")


def one_input(data: bytes) -> None:
    """First byte: which of the files holds the rest."""
    head, content = data[:1], data[1:]
    folder = _FOLDER / "one"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        match head[0] % 4 if head else 0:
            case 0:
                (folder / DATA).write_bytes(b"data")
                (folder / MANIFEST).write_bytes(content)
                assert isinstance(read_manifest(folder), Manifest)
            case 1:
                (folder / "complete").write_bytes(content)
                assert isinstance(read_mark(folder), Mark)
            case 2:
                (folder / "current").write_bytes(content)
                assert current(folder).parent == folder
            case _:
                (folder / "active").write_bytes(content)
                assert active(folder).isalnum()
    except (RulebookError, DirectoryError):
        return


def seeds() -> Iterator[bytes]:
    """A good file of each."""
    digest = hashlib.sha256(b"data").hexdigest()
    names = {field.name: field for field in msgspec.structs.fields(Manifest)}
    known: dict[str, object] = {"format": FORMAT, "name": "one", "data_sha256": digest}
    yield b"\0" + msgspec.json.encode({name: known.get(name, 1) for name in names})
    yield b"\1" + msgspec.json.encode(Mark(inode=1, bytes=2, modified_ns=3, sha256=digest))
    yield b"\2version-00000001\n"
    yield b"\3" + b"b2f6c01d" * 2


if __name__ == "__main__":
    targets.run(__file__)
