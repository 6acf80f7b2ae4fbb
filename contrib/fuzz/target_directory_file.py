"""The CSV file of a directory: refused by row, or loaded into a directory that checks out."""

import shutil
from collections.abc import Iterator
from io import StringIO

from contrib.fuzz import targets
from ksz_router.directory.check import check
from ksz_router.directory.loader import LoadRefusedError, load
from ksz_router.directory.rows import COLUMNS
from ksz_router.directory.synthesise import PERSONS_MIN, write_csv

_FOLDER = targets.scratch("directory_file")
_HEADING = (",".join(COLUMNS) + "\n").encode()


def one_input(data: bytes) -> None:
    """As it is, unless it only lacks the heading."""
    file, target = _FOLDER / "persons.csv", _FOLDER / "directory"
    file.write_bytes(data if data.startswith(b"insz") else _HEADING + data)
    shutil.rmtree(target, ignore_errors=True)
    try:
        load(file, target)
    except LoadRefusedError as error:
        assert len(str(error)) < 20_000
        return
    assert check(target) == []


def seeds() -> Iterator[bytes]:
    """Every fixed person of the synthesiser, and single rows of it."""
    text = StringIO()
    write_csv(text, persons=PERSONS_MIN, seed=1)
    rows = text.getvalue().splitlines(keepends=True)
    yield "".join(rows).encode()
    for row in rows[2:12]:
        yield row.encode()


if __name__ == "__main__":
    targets.run(__file__)
