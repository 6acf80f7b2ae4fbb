"""Questions put to ten years of log, through the product's own query.

Warm: one process, as a service would be, with the files in the page cache. Cold: a fresh process
for each question, after the kernel was told to forget every file (the host of a virtual machine may
still hold them). Answers are compared with what the files hold before anything is timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow.compute as pc

from bench import machine, ten_years
from bench.ten_years import LARGE, SMALL, TENTH, Size
from bench.ten_years_truth import TICKETS_PER_QUARTER, known_ticket
from bench.traffic import PERSONS, USERS, insz, kbo
from bench.world import BenchError
from ksz_router.identifiers import Insz, Kbo
from ksz_router.privacylog.archive import chain
from ksz_router.privacylog.archive.assemble import query
from ksz_router.privacylog.archive.engine import Engine
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.keys import Tokens, load, quarter_before, quarter_of
from ksz_router.privacylog.question import Asked, Found

FIRST_PAGE, WHOLE_PAGE = 100, 10_000
_COMPARED, _SEED = 2, 11
_READ_BYTES = 4 * 1024 * 1024


class Counts(NamedTuple):
    """How many questions of each kind are asked, and of which populations."""

    large: Size
    tenth: Size
    warm: int
    cold: int


WHOLE = Counts(LARGE, TENTH, 200, 40)
QUICK = Counts(SMALL, SMALL._replace(exchanges=2_000, persons=160), 40, 5)


class Place:
    """A population, and a service that answers questions about it."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.archive = folder / "archive"
        self.size = size
        self._engine = Engine(self.archive)

    def ask(self, asked: Asked, limit: int = WHOLE_PAGE) -> Found:
        """Ask through the product's query.

        Raises:
            BenchError: something could not be read.
        """
        found = query(
            self.folder / "log",
            self.folder / "keys",
            self.archive,
            asked,
            limit=limit,
            engine=self._engine,
        )
        if found.damaged:
            raise BenchError(f"an answer is not whole: {found.damaged[0]}")
        return found

    def read_through(self) -> None:
        """Bring the files that are asked into the page cache, each once whatever its names."""
        seen = set()
        for kind in "puk":
            for file in self.archive.glob(f"sealed/q=*/{kind}/*.parquet"):
                number = file.stat().st_ino
                if number not in seen:
                    seen.add(number)
                    with file.open("rb") as stream:
                        while stream.read(_READ_BYTES):
                            pass

    def close(self) -> None:
        """Ask no more."""
        self._engine.close()


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Make the populations, or take those that stand, and ask.

    Raises:
        BenchError: an answer is not what it must be.
    """
    counts = QUICK if quick else WHOLE
    names = "small", "smaller"
    if not quick:
        names = "large", "tenth"
    places = []
    seconds = 0.0
    for name, size in zip(names, (counts.large, counts.tenth), strict=True):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        seconds += ten_years.made(place, size)
        places.append(Place(place, size))
    large, tenth = places
    try:
        figures = _warm(large, tenth, counts)
    finally:
        for one in places:
            one.close()
    return {
        **figures,
        **_cold(large, counts),
        "population_records": counts.large.records,
        "population_made_s": round(seconds),
        "population_bytes": _bytes(large.archive),
        "bytes_per_record_ten_years": _per_record(large),
        "files_listed": sum(len(chain.catalog(large.archive, q, k).files)
                            for q in chain.quarters(large.archive) for k in "tpuk"),
    }  # fmt: skip


def _warm(large: Place, tenth: Place, counts: Counts) -> dict[str, Any]:
    chance = Random(_SEED)
    print("comparing answers with what the files hold", flush=True)
    for number in chance.sample(range(large.size.persons), _COMPARED):
        compare(large, number)
    for place in (large, tenth):
        place.read_through()
    persons = chance.sample(range(min(large.size.persons, tenth.size.persons)), counts.warm)
    of_large, of_tenth, rows = [], [], []
    for number in persons:
        asked = Asked(persons=(Insz(insz(number)),))
        began = time.perf_counter()
        tenth.ask(asked)
        of_tenth.append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        found = large.ask(asked)
        of_large.append((time.perf_counter() - began) * 1e3)
        rows.append(len(found.rows))
    _say("a person, warm", of_large)
    _say("a person, a tenth of the records", of_tenth)
    tickets = _tickets(large, counts.warm)
    by_ticket = [_ms(_one, large, one) for one in tickets]
    _say("a ticket", by_ticket)
    windows = [_window(chance, large.size) for _ in range(counts.warm)]
    by_user = [_ms(large.ask, one, FIRST_PAGE) for one in windows]
    _say("a user in a quarter, first page", by_user)
    return {
        "person_query_warm_ms": _p95(of_large),
        "person_query_warm": machine.spread(of_large),
        "person_rows": machine.spread(map(float, rows)),
        "ticket_query_ms": _p95(by_ticket),
        "ticket_query": machine.spread(by_ticket),
        "user_window_ms": _p95(by_user),
        "user_window": machine.spread(by_user),
        "growth_ratio": round(statistics.median(of_large) / statistics.median(of_tenth), 2),
    }


def compare(place: Place, number: int) -> None:
    """See that an answer has as many rows as the files behind it have of this person.

    Raises:
        BenchError: it has not, or finds none.
    """
    found = place.ask(Asked(persons=(Insz(insz(number)),)))
    held = 0
    for quarter in chain.quarters(place.archive):
        token = Tokens(load(place.folder / "keys", quarter)).person(insz(number))
        for file in chain.catalog(place.archive, quarter, "p").files:
            if file.min_key <= token.hex() <= file.max_key:
                for rows in rows_of("p", file_of(place.archive, file.path)):
                    held += pc.sum(pc.equal(rows["person"].cast("binary"), token)).as_py() or 0
    if len(found.rows) != held or not held:
        raise BenchError(f"a person has {held} rows, and {len(found.rows)} were found")


def _tickets(place: Place, count: int) -> list[Asked]:
    quarter, found = quarter_of(time.time_ns()), []
    for _ in range(place.size.quarters):
        quarter = quarter_before(quarter)
        for at in range(TICKETS_PER_QUARTER):
            requester, ticket = known_ticket(quarter, at)
            found.append(Asked(institution=Kbo(requester), ticket=ticket))
    Random(_SEED).shuffle(found)
    return found[:count]


def _one(place: Place, asked: Asked) -> None:
    rows = len(place.ask(asked).rows)
    if rows != 1:
        raise BenchError(f"a ticket gives {rows} rows")


def _window(chance: Random, size: Size) -> Asked:
    """A user of the institution that asks most, in one of the quarters."""
    quarter = quarter_of(time.time_ns())
    for _ in range(1 + chance.randrange(size.quarters)):
        quarter = quarter_before(quarter)
    year, number = int(quarter[:4]), int(quarter[5])
    return Asked(
        institution=kbo(0),
        user=insz(PERSONS + chance.randrange(USERS)),
        from_day=year * 10_000 + (3 * number - 2) * 100 + 1,
        to_day=year * 10_000 + 3 * number * 100 + (31 if number in (1, 4) else 30),
    )


def _cold(place: Place, counts: Counts) -> dict[str, Any]:
    chance = Random(_SEED + 1)
    inside, whole = [], []
    for number in chance.sample(range(place.size.persons), counts.cold):
        forget(place.folder)
        began = time.perf_counter()
        line = [sys.executable, "-m", "bench.ten_years_asked", str(place.folder), str(number)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        whole.append((time.perf_counter() - began) * 1e3)
        if done.returncode:
            raise BenchError(f"a fresh process does not answer: {done.stderr[-1000:]}")
        inside.append(json.loads(done.stdout)["ms"])
    _say("a person, cold", inside)
    return {
        "person_query_cold_ms": _p95(inside),
        "person_query_cold": machine.spread(inside),
        "person_query_cold_with_start": machine.spread(whole),
    }


def forget(folder: Path) -> None:
    """Ask the kernel to drop every file of a population from its page cache."""
    seen = set()
    for file in folder.rglob("*"):
        state = file.lstat()
        if not file.is_file() or state.st_ino in seen:
            continue
        seen.add(state.st_ino)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _ms(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - began) * 1e3


def _p95(values: Sequence[float]) -> float:
    return round(statistics.quantiles(values, n=20)[-1], 1)


def _say(what: str, values: Sequence[float]) -> None:
    print(
        f"{what}: {statistics.median(values):.1f} ms, p95 {_p95(values)}, most {max(values):.1f}",
        flush=True,
    )


def _bytes(archive: Path) -> int:
    """Of all files, each once however many names it has."""
    states = {(s.st_ino, s.st_size) for s in (file.stat() for file in archive.rglob("*.parquet"))}
    return sum(size for _, size in states)


def _per_record(place: Place) -> float:
    return round(_bytes(place.archive) / place.size.records, 1)


def main() -> int:
    """Ask about one person, as a process that was just started."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    arguments = parser.parse_args()
    began = time.perf_counter()
    place = Place(arguments.folder, SMALL)
    rows = len(place.ask(Asked(persons=(Insz(insz(arguments.number)),))).rows)
    print(json.dumps({"ms": (time.perf_counter() - began) * 1e3, "rows": rows}))
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
