"""Ten years of a country's log, laid out as forty thousand million entries are.

What one person's, ticket's or user's question reads of a quarter is real and of full size: of each
kind the part, one of some hundreds or thousands, into which it falls. The other parts are there by
name only, hard links of the real ones. Tokens of a real part go over the whole range, not only over
that of one part, so whichever part a token names, the file behind it has the rows that it is to
have.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bench import ten_years_truth
from bench.log_turns import Turns
from bench.ten_years_layout import key_cuts, parts_of, pieces
from bench.ten_years_truth import NODE, Patterns, Quarter
from bench.traffic import Traffic
from ksz_router.limits import log_file_bytes
from ksz_router.privacylog.archive import chain, segment
from ksz_router.privacylog.archive.exchange_rows import derive, narrowed
from ksz_router.privacylog.archive.manifest import Manifest, SealedFile
from ksz_router.privacylog.archive.merge import PART_ROWS_MAX
from ksz_router.privacylog.archive.pieces import write
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.schema import SORTED_BY
from ksz_router.privacylog.keys import (
    Tokens,
    load,
    make,
    quarter_after,
    quarter_before,
    quarter_begin_ns,
    quarter_of,
)
from ksz_router.privacylog.writer import Writer

ORIGIN = "bench.example/ten-years"
PROCESSES = 2
_MEMORY_BYTES = 5_000_000_000
"""That a process takes for a quarter."""
_LEVEL = 9
"""Of the one run that a quarter is merged into when it is over."""
_SEED = 5
_ROWS_OF_TRUTH = 262_144
_TAIL_SLOT = "w1"
"""Another than that of the sealed entries, so that their numbers do not meet."""


class Size(NamedTuple):
    """How much is made, and as what it is laid out."""

    quarters: int
    exchanges: int
    """Of a quarter, real ones."""
    persons: int
    leaves: int
    """Of a quarter, as it is laid out: a real entry stands for so many others."""
    person_parts: int
    use_parts: int
    key_parts: int
    recent_runs: int
    """Of the quarter that is not over: files that a question about a person opens in it."""
    recent_exchanges: int
    """Of one such run."""
    tail: int = 32_768
    """Entries that are not sealed yet: half of what the sealer waits for."""
    patterns: int = 16_384
    """Exchanges that the others take their pattern from."""

    @property
    def records(self) -> int:
        return 2 * (self.quarters * self.exchanges + self.recent_runs * self.recent_exchanges)


LARGE = Size(40, 1_250_000, 98_000, 1_000_000_000, 4_000, 500, 768, 16, 64_000)
TENTH = LARGE._replace(exchanges=125_000, recent_exchanges=6_400)
SMALL = Size(4, 20_000, 1_600, 1_000_000, 16, 8, 12, 3, 2_000, 500, 512)


class _Made(msgspec.Struct, frozen=True):
    """The real files of a quarter."""

    files: tuple[SealedFile, ...]


def made(folder: Path, size: Size) -> float:
    """Make the population, or take it as it stands; a quarter that is there is not made again.

    Returns:
        The seconds that it took; 0 where it stood already.
    """
    stands = folder / "population.json"
    wanted = json.dumps(size._asdict())
    if stands.exists() and stands.read_text(encoding="utf-8") == wanted:
        return 0.0
    began = time.monotonic()
    quarters = _quarters(size.quarters + 1)
    for name in quarters:
        if not (folder / "keys" / f"{name}.json").exists():
            make(folder / "keys", name)
    (folder / "made").mkdir(exist_ok=True)
    print(f"making {size.records:,} entries of {size.quarters} quarters", flush=True)
    with ProcessPoolExecutor(_processes(), get_context("spawn")) as pool:
        jobs = [(folder, size, number, name) for number, name in enumerate(quarters)]
        for number, _ in enumerate(pool.map(_quarter, jobs), 1):
            if not number % 10:
                print(f"{number} quarters in {time.monotonic() - began:.0f} s", flush=True)
    for part in ("manifest", "catalog"):
        shutil.rmtree(folder / "archive" / part, ignore_errors=True)
    _lay_out(folder, size, quarters)
    _write_tail(folder, size, quarters[-1])
    stands.write_text(wanted, encoding="utf-8")
    return time.monotonic() - began


def _processes() -> int:
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(PROCESSES, pages // _MEMORY_BYTES))


def _quarters(count: int) -> list[str]:
    """Return the names of so many quarters, the one that runs last."""
    names = [quarter_of(time.time_ns())]
    while len(names) < count:
        names.insert(0, quarter_before(names[0]))
    return names


def _quarter(job: tuple[Path, Size, int, str]) -> None:
    """Make the real files of a quarter, unless they are there."""
    folder, size, number, name = job
    stands = folder / "made" / f"{name}.msgpack"
    if stands.exists():
        return
    keys = load(folder / "keys", name)
    patterns = Patterns(keys, size.patterns, _SEED)
    first_leaf = number * size.leaves
    if number < size.quarters:
        quarter = Quarter(keys, first_leaf, size.exchanges, size.persons, _SEED + number)
        files = list(_whole_quarter(folder / "archive", quarter, patterns))
    else:
        files = []
        for run in range(size.recent_runs):
            begin = first_leaf + 2 * run * size.recent_exchanges
            quarter = Quarter(
                keys, begin, size.recent_exchanges, size.persons, _SEED + number + run
            )
            files += _run(folder / "archive", quarter, patterns)
    stands.write_bytes(msgspec.msgpack.encode(_Made(tuple(files))))


def _whole_quarter(archive: Path, quarter: Quarter, patterns: Patterns) -> Iterator[SealedFile]:
    """Write the truth of a quarter, and what is derived of it as when all its runs are merged."""
    tables = []
    for table in ten_years_truth.truth(quarter, patterns, _ROWS_OF_TRUTH):
        yield _write(archive, quarter, "t", table)
        tables.append(narrowed(table))
    derived = derive(tables, [])
    leaves = quarter.first_leaf, quarter.first_leaf + sum(map(len, tables))
    del tables
    for kind in "puk":
        rows = getattr(derived, kind)
        for part, (begin, end) in enumerate(pairwise(_cuts(kind, rows))):
            piece = rows.slice(begin, end - begin)
            yield _write(archive, quarter, kind, piece, level=_LEVEL, leaves=leaves, part=part)
    yield _write(archive, quarter, "r", derived.r, level=_LEVEL, leaves=leaves)


def _cuts(kind: str, rows: pa.Table) -> list[int]:
    """Return where the rows of a kind are cut into parts."""
    if kind == "k":
        return key_cuts(rows)
    if kind == "p":
        return pieces(len(rows), PART_ROWS_MAX["p"])
    return [0, len(rows) // 2, len(rows)]


def _run(archive: Path, quarter: Quarter, patterns: Patterns) -> Iterator[SealedFile]:
    """Write what one step of the sealer adds."""
    (table,) = ten_years_truth.truth(quarter, patterns, _ROWS_OF_TRUTH)
    derived = derive([narrowed(table)], [])
    leaves = quarter.first_leaf, quarter.first_leaf + len(table)
    yield _write(archive, quarter, "t", table)
    for kind in "pukr":
        yield _write(archive, quarter, kind, getattr(derived, kind), leaves=leaves)


def _write(
    archive: Path,
    quarter: Quarter,
    kind: str,
    rows: pa.Table,
    *,
    leaves: tuple[int, int] | None = None,
    level: int = 0,
    part: int = 0,
) -> SealedFile:
    """Write one file as the sealer and the merger do, and say what a catalog says of it."""
    if leaves is None:
        leaves = rows["seq"][0].as_py(), rows["seq"][-1].as_py() + 1
    path = sealed_path(kind, quarter.keys.quarter, *leaves, level=level, part=part)
    written = write(file_of(archive, path), segment.encode(kind, rows), pause=_no_pause)
    key = SORTED_BY[kind][0]
    name = quarter.keys.quarter
    return SealedFile(
        kind=kind,
        path=path,
        sha256=written.sha256,
        bytes=written.bytes,
        rows=len(rows),
        level=level,
        part=part,
        quarter=name,
        key_id=quarter.keys.id,
        first_leaf=leaves[0],
        end_leaf=leaves[1],
        first_us=_least(rows, name),
        end_us=_most(rows, name),
        min_key=_text(rows[key][0].as_py()),
        max_key=_text(rows[key][-1].as_py()),
    )


def _least(rows: pa.Table, quarter: str) -> int:
    if "at_us" in rows.column_names:
        return int(pc.min(rows["at_us"]).as_py())
    return quarter_begin_ns(quarter) // 1000


def _most(rows: pa.Table, quarter: str) -> int:
    if "at_us" in rows.column_names:
        return int(pc.max(rows["at_us"]).as_py()) + 1
    return quarter_begin_ns(quarter_after(quarter)) // 1000


def _text(value: bytes | str | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _no_pause() -> None:
    """Nobody commits meanwhile."""


def _lay_out(folder: Path, size: Size, quarters: Sequence[str]) -> None:
    """Give the parts that are not real their names, and write manifests and catalogs of all."""
    archive, previous = folder / "archive", ""
    for number, name in enumerate(quarters):
        real = msgspec.msgpack.decode(
            (folder / "made" / f"{name}.msgpack").read_bytes(), type=_Made
        )
        files = list(real.files)
        if number < size.quarters:
            files = list(parts_of(archive, size, files))
        manifest = Manifest(
            number=number + 1,
            previous=previous,
            origin=ORIGIN,
            node=NODE,
            made_at_us=files[-1].end_us,
            sealed_leaves=max(file.end_leaf for file in files),
            slots={},  # the write-ahead files that are there are all beyond this
            added=tuple(files),
        )
        previous = chain.append(archive, manifest).sha256
    chain.fold(archive)


def _write_tail(folder: Path, size: Size, quarter: str) -> None:
    """Write the entries of the last minutes, which no manifest knows."""
    shutil.rmtree(folder / "log", ignore_errors=True)
    writer = Writer.open(
        folder / "log",
        slot=_TAIL_SLOT,
        node=NODE,
        keys_folder=folder / "keys",
        now_ns=time.time_ns(),
        file_bytes=log_file_bytes,
    )
    turns = Turns(Traffic(Tokens(load(folder / "keys", quarter)), seed=_SEED), 16)
    written = 0
    while written < size.tail:
        turns.draw()
        made = turns.entries()
        writer.commit(made, time.time_ns())
        written += len(made)
    writer.commit(turns.rest(), time.time_ns())
    writer.close()
