"""What the routers of a test file share and never write: certificates, tables, keys, persons."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from ksz_router.cli.testpki import write_pki
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.tables import Tables
from ksz_router.directory.loader import load
from ksz_router.directory.rows import COLUMNS
from ksz_router.model import ANY_TYPE, OPEN, Line
from ksz_router.privacylog.keys import Tokens, make
from ksz_router.privacylog.keys import load as load_keys
from tests import worlds
from tests.worlds import LINES, PERSON, make_world, uri

CONNECTING = (
    worlds.RVA, worlds.NIC, worlds.HANDICAP, worlds.RSZ, worlds.REGISTER, worlds.POD_MI,
    worlds.PENSIONS, worlds.CENTRE, worlds.MANAGER, worlds.DEPARTMENT, worlds.STOPPED,
)  # fmt: skip


def insz(day: int) -> str:
    """A synthetic person born on that day of July 1985, with the practically unused counter 997."""
    body = 850700997 + day * 1000
    return f"{body:09}{97 - body % 97:02}"


NEIGHBOUR, NOT_INTEGRATED, NOBODY, FORMER = map(insz, (1, 2, 3, 4))
"""Known like ``PERSON``; known to the sources only; not in the directory; now ``NEIGHBOUR``."""


class Ground:
    """What the routers of a test file share: certificates, tables and keys. Opened once."""

    def __init__(
        self,
        folder: Path,
        *,
        more_text: Mapping[str, str] | None = None,
        more_connecting: Sequence[str] = (),
        more_rows: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.pki = folder / "pki"
        write_pki(self.pki, {kbo: uri(kbo) for kbo in (*CONNECTING, *more_connecting)})
        self.world = make_world(folder, more=more_text)
        self.directory = folder / "directory"
        load_directory(
            self.directory,
            {
                PERSON: LINES,
                NEIGHBOUR: LINES,
                NOT_INTEGRATED: [line for line in LINES if line.sector != 17],
            },
            {FORMER: NEIGHBOUR},
            more_rows,
        )
        self.quarter = "2026Q4"
        self.keys_folder = folder / "keys"
        make(self.keys_folder, self.quarter)
        self.tokens = Tokens(load_keys(self.keys_folder, self.quarter))
        self.entries = EntryMaker(self.tokens, lambda: 0)
        self.tables = Tables(self.world.store, self.world.name, self.directory, self.entries)
        self.logs = count()

    def close(self) -> None:
        """Give the tables back."""
        self.tables.close()


def load_directory(
    folder: Path,
    persons: Mapping[str, Sequence[Line]],
    replaced: Mapping[str, str],
    more_rows: Sequence[str] = (),
) -> None:
    """Load a directory of active persons with these lines, and of numbers that became others.

    ``more_rows`` are rows of the file as they stand.
    """
    rows = [",".join(COLUMNS), *more_rows]
    rows += [f"{old},replaced,{new}" + "," * (len(COLUMNS) - 3) for old, new in replaced.items()]
    for number, lines in persons.items():
        rows += rows_of(number, "active", lines)
    file = folder.with_suffix(".csv")
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    load(file, folder)


def rows_of(number: str, status: str, lines: Sequence[Line]) -> list[str]:
    """The rows of one number; ``status`` may hold the cells that go with it, such as the next."""
    rows = [f"{number},{status}" + "," * (len(COLUMNS) - 2 - status.count(","))]
    for line in lines:
        kind = "" if line.type == ANY_TYPE else line.type
        end = "" if line.end == OPEN else _iso(line.end)
        fields = (line.sector, kind, line.capacity, line.phase, _iso(line.begin), end, "")
        rows.append(f"{number},,,," + ",".join(map(str, fields)))
    return rows


def _iso(day: int) -> str:
    return f"{day // 10_000:04}-{day // 100 % 100:02}-{day % 100:02}"
