"""The bench of the privacy log at small sizes: what it makes is real, and its judges can fail."""

import gc
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import pytest

from bench import log_costs, parts, privacylog, ten_years
from bench.log_ground import Loaded, Watch
from bench.log_turns import Turns
from bench.sustained import checkpoint_delays_s
from bench.ten_years_truth import Patterns, Quarter, known_ticket, tokens_of, truth
from bench.traffic import NUMBERS, Traffic, insz, kbo, program
from bench.world import BenchError
from ksz_router.identifiers import is_application, is_insz, is_kbo
from ksz_router.privacylog.archive import chain
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.archive.segment import rows_of
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse
from ksz_router.privacylog.keys import QuarterKeys, Tokens, load, make
from ksz_router.privacylog.tree.order import Line, Order

QUARTER = "2025Q2"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> QuarterKeys:
    folder = tmp_path_factory.mktemp("keys")
    make(folder, QUARTER)
    return load(folder, QUARTER)


def entries_of(turns: Turns, groups: int) -> list[Entry]:
    made: list[bytes] = []
    for _ in range(groups):
        turns.draw()
        made += turns.entries()
    return list(map(parse, made + turns.rest()))


def test_the_traffic_is_of_whole_exchanges_in_the_shares_that_it_says(keys: QuarterKeys) -> None:
    """One in ten submitted, with digest and content; three in a hundred refused; all ended."""
    found = entries_of(Turns(Traffic(Tokens(keys), seed=1), 32), 150)
    kinds: dict[Kind, list[Entry]] = {kind: [] for kind in Kind}
    for entry in found:
        kinds[entry.kind].append(entry)
    requests = {entry.exchange: entry for entry in kinds[Kind.REQUEST]}
    assert Counter(list(requests)) == Counter(entry.exchange for entry in kinds[Kind.OUTCOME])
    submitted = [entry for entry in requests.values() if entry.content is not None]
    refused = [entry for entry in requests.values() if entry.code]
    assert all(entry.digest and entry.attempt == 1 for entry in submitted)
    assert 0.07 < len(submitted) / len(requests) < 0.13
    assert 0.015 < len(refused) / len(requests) < 0.05
    assert 0 < len(kinds[Kind.FURTHER]) < 0.03 * len(requests)
    assert len({entry.person for entry in requests.values()}) > 0.99 * len(requests)


def test_the_numbers_of_the_traffic_are_well_formed_and_each_is_another() -> None:
    persons = [insz(number) for number in range(0, NUMBERS, 9_973)]
    assert all(map(is_insz, persons))
    assert len(set(persons)) == len(persons)
    assert len({insz(number) for number in range(100_000)}) == 100_000
    assert all(is_application(program(number)) for number in (0, 60, 2_999))
    assert all(is_kbo(kbo(number)) for number in (0, 2_999, 5_600))


def test_truth_is_made_of_canonical_entries_in_their_order(keys: QuarterKeys) -> None:
    """By column, and yet what a writer would have written: tokens, times, whole exchanges."""
    quarter = Quarter(keys, first_leaf=5_000, exchanges=900, persons=40, seed=7)
    tables = list(truth(quarter, Patterns(keys, 256, 1), 1_000))
    assert [table.schema for table in tables] == [TRUTH] * 2
    seqs = [seq for table in tables for seq in table["seq"].to_pylist()]
    assert seqs == list(range(5_000, 6_800))
    entries = []
    for table in tables:
        records = to_records(table)
        assert records == [canonical(parse(record)) for record in records]
        entries += list(map(parse, records))
    assert [entry.at_us for entry in entries] == sorted(entry.at_us for entry in entries)
    tokens = Tokens(keys)
    persons = {tokens.person(insz(number)) for number in range(40)}
    requests = {entry.exchange: entry for entry in entries if entry.kind == Kind.REQUEST}
    outcomes = [entry for entry in entries if entry.kind == Kind.OUTCOME]
    assert {entry.person for entry in requests.values()} == persons
    assert len(requests) == len(outcomes) == 900
    for entry in outcomes:
        request = requests[entry.exchange]
        assert entry.service == ("" if request.code else request.service)
        assert entry.requester == request.requester
        assert entry.person == (None if request.code else request.person)
        assert entry.at_us >= request.at_us
    known = tokens.ticket(*known_ticket(QUARTER, 0))
    assert sum(request.ticket == known for request in requests.values()) == 1


def test_tokens_by_column_are_those_of_the_writers(keys: QuarterKeys) -> None:
    numbers = np.array([0, 1, 97_999, 24_999_999])
    made = tokens_of(numbers, keys.person)
    assert [cells.tobytes() for cells in made] == [
        Tokens(keys).person(insz(number)) for number in numbers.tolist()
    ]


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("years")
    assert ten_years.made(folder, SIZE) > 0
    return folder


SIZE = ten_years.SMALL._replace(
    quarters=2, exchanges=3_000, persons=200, recent_runs=2, recent_exchanges=200, patterns=256
)


def test_the_population_lists_every_part_and_holds_every_person_in_it(years: Path) -> None:
    """Whatever part a token falls into, the file of that name has all the rows of its person."""
    archive = years / "archive"
    names = chain.quarters(archive)
    parts = chain.catalog(archive, names[0], "p").files
    assert len(names) == SIZE.quarters + 1
    assert len(parts) == SIZE.person_parts
    assert all(file_of(archive, file.path).stat().st_size == file.bytes for file in parts)
    token = Tokens(load(years / "keys", names[0])).person(insz(3))
    fitting = [file for file in parts if file.min_key <= token.hex() <= file.max_key]
    assert len(fitting) == 1
    rows = [
        row
        for table in rows_of("p", file_of(archive, fitting[0].path))
        for row in table.filter(pc.equal(table["person"].cast("binary"), token)).to_pylist()
    ]
    of_truth = sum(
        pc.sum(
            pc.and_(
                pc.equal(table["person"].cast("binary"), token),
                pc.equal(table["kind"], int(Kind.REQUEST)),
            )
        ).as_py()
        for file in chain.catalog(archive, names[0], "t").files[:1]
        for table in rows_of("t", file_of(archive, file.path))
    )
    assert len(rows) == of_truth > 5


def test_a_population_that_stands_is_taken_and_one_that_was_broken_off_goes_on(
    years: Path,
) -> None:
    """A quarter that was made is not made again."""
    assert ten_years.made(years, SIZE) == 0
    before = {file: file.stat().st_mtime_ns for file in (years / "archive").rglob("t/0*.parquet")}
    (years / "population.json").unlink()
    next(iter(sorted((years / "made").iterdir()))).unlink()
    assert ten_years.made(years, SIZE) > 0
    after = {file: file.stat().st_mtime_ns for file in (years / "archive").rglob("t/0*.parquet")}
    quarters = {file.parts[-3] for file in before if after[file] != before[file]}
    assert before.keys() == after.keys()
    assert len(quarters) == 1


def line(slot: str, first_record: int, records: int, first_leaf: int) -> Line:
    return Line(slot, 1, "", 0, 0, 1, 1, 0, 0, first_record, records, first_leaf)


def loaded(**groups: list[tuple[int, int]]) -> Loaded:
    arrays = {
        slot: (np.array([ns for ns, _ in of]), np.array([last for _, last in of]))
        for slot, of in groups.items()
    }
    nothing = np.zeros(1, np.int64)
    return Loaded(0, 0.0, 0.0, nothing, nothing, nothing, arrays)


def delays(checkpoints: list[tuple[int, int]], done: Loaded) -> list[float]:
    lines = [line("w0", 0, 10, 0), line("w1", 0, 5, 10), line("w0", 10, 10, 15)]
    order = cast("Order", SimpleNamespace(lines=lambda _: iter(lines)))
    watch = cast("Watch", SimpleNamespace(checkpoints=checkpoints))
    return [round(delay, 3) for delay in checkpoint_delays_s(order, watch, done)]


def test_a_delay_counts_until_the_checkpoint_that_covers_the_last_record_of_a_group() -> None:
    """A checkpoint of 15 leaves covers the first ten of w0 and the five of w1, and no more."""
    s = 1_000_000_000
    done = loaded(w0=[(1 * s, 9), (2 * s, 10), (3 * s, 19)], w1=[(1 * s, 4)])
    assert delays([(2 * s, 15), (6 * s, 25)], done) == [1.0, 4.0, 3.0, 1.0]


def test_what_never_came_under_a_checkpoint_is_no_delay_but_an_error() -> None:
    with pytest.raises(BenchError, match="w0"):
        delays([(2, 15)], loaded(w0=[(1, 19)]))


def perfect() -> dict[str, float]:
    return {name: bound.value for name, bound in privacylog.FIGURES.items()}


def test_figures_at_their_bounds_are_good() -> None:
    assert parts.judged(privacylog.FIGURES, perfect()) == ([], [])
    assert not privacylog.failed(perfect())


@pytest.mark.parametrize("name", privacylog.FIGURES)
def test_each_figure_can_be_missed_and_can_be_missing(name: str) -> None:
    bound = privacylog.FIGURES[name]
    worse = bound.value + (-1 if bound.at_least else 1)
    assert parts.judged(privacylog.FIGURES, perfect() | {name: worse}) == ([name], [])
    without = perfect()
    del without[name]
    assert parts.judged(privacylog.FIGURES, without) == ([], [name])


@pytest.mark.parametrize("name", privacylog.NEVER)
def test_one_loss_fails_the_bench(name: str) -> None:
    assert privacylog.failed(perfect() | {name: 1})


class Counted:
    """A part that says how often it ran."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = 0

    def __call__(self, folder: Path, *, quick: bool) -> dict[str, Any]:
        assert list(folder.iterdir()) == []
        (folder / "left").touch()
        self.runs += 1
        return {self.name: self.runs, "quick_was": quick}


def test_parts_that_ran_are_taken_over_and_leave_nothing_behind(tmp_path: Path) -> None:
    first, second = Counted("seal_records_per_s"), Counted("own")
    privacylog.run(tmp_path, {"first": first}, quick=True, resume=False)
    both = {"first": first, "second": second}
    result = privacylog.run(tmp_path, both, quick=True, resume=True)
    assert (first.runs, second.runs) == (1, 1)
    assert (result["seal_records_per_s"], result["own"], result["quick_was"]) == (1, 1, True)
    assert list(result)[:2] == ["bench", "seal_records_per_s"]
    assert result["flush_p50_ms"] > 0
    assert {"date", "machine", "versions"} <= set(json.loads(json.dumps(result)))
    assert {path.name for path in tmp_path.iterdir()} == {"parts"}
    privacylog.run(tmp_path, both, quick=True, resume=False)
    assert (first.runs, second.runs) == (2, 2)


@pytest.fixture
def collector() -> Iterator[None]:
    """The costs set the collector as in a worker, and must set it back."""
    before = gc.get_threshold()
    yield
    assert gc.get_threshold() == before


@pytest.mark.usefixtures("collector")
def test_costs_are_told_apart_and_read_again(tmp_path: Path) -> None:
    """Entries and frames are the worker's, write and flush the disk's; the files can be read."""
    began = time.process_time()
    cost = log_costs.worker_cost(tmp_path, records=400, rounds=1)
    spent_us = (time.process_time() - began) * 1e6
    split = cost["worker_cpu_us"]["16"]
    assert split["worker"] == pytest.approx(split["entries"] + split["frames"], abs=0.02)
    assert 0 < cost["worker_cpu_us_per_record"] * 400 < spent_us
    replayed = log_costs.replay(tmp_path, rounds=1)
    assert replayed["replay_records_per_s"] > 0
    assert replayed["read_records_per_s"] > 0
