"""A file system that is filled under a writer: ``python -m tests.directory_full FOLDER``.

The folder is one that may be filled. What came of each batch of changes is printed as JSON: the
version of the writer, the error that it raised if any, and how many of its changes are noted.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

from ksz_router.directory.change import Change, Operation
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line
from tests.daemon_ground import load_directory
from tests.directory_files import number
from tests.test_directory_services import NOW_MS, exchange
from tests.worlds import LINES

PERSONS = [number(counter) for counter in range(998, 698, -1)]


def batch(first: int) -> list[Change]:
    """One change for each person; the ids begin at ``first``."""
    line = Line(17, 1, 3 + first, 0, 20300101, OPEN)
    return [
        Change(exchange(first * 1_000 + place), insz, Operation.INSCRIBE, line)
        for place, insz in enumerate(PERSONS)
    ]


def came_of(writer: Writer, first: int) -> dict[str, object]:
    """Apply a batch, and say what came of it."""
    error = ""
    try:
        writer.apply(batch(first), NOW_MS * 1000)
    except DirectoryError as raised:
        error = f"{type(raised).__name__}: {raised}"
    found = [person for person in writer.look_up(PERSONS) if person is not None]
    noted = sum(writer.note_of(change.exchange) is not None for change in batch(first))
    held = sum(line.capacity == 3 + first for person in found for line in person.lines)
    return {"version": writer.version, "error": error, "noted": noted, "held": held}


def main(folder: Path) -> None:
    """Fill the file system, and make room again."""
    load_directory(folder / "directory", dict.fromkeys(PERSONS, LINES), {})
    writer, ballast = Writer.open(folder / "directory"), folder / "ballast"
    seen = [came_of(writer, 1)]
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
    # The pages that are free within the file are used up first.
    for first in range(2, 40):
        seen.append(came_of(writer, first))
        if seen[-1]["error"]:
            break
    seen.append(came_of(writer, first))
    ballast.unlink()
    seen.append(came_of(writer, first))
    writer.close()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
