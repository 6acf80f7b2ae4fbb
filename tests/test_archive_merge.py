"""Runs become one: same rows, in order, whatever the parts; cut short and begun again."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksz_router.privacylog.archive import segment
from ksz_router.privacylog.archive.exchange_rows import Derived, derive, narrowed
from ksz_router.privacylog.archive.manifest import Carried, SealedFile
from ksz_router.privacylog.archive.merge import forget, merge
from ksz_router.privacylog.archive.pieces import SegmentRefused, write
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.runs import FAN_IN, Merge, plan
from ksz_router.privacylog.archive.schema import SCHEMAS, SORTED_BY
from ksz_router.privacylog.archive.segment import encode
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import Entry, Kind
from tests.test_archive_rows import placed
from tests.test_archive_rows import segment as truth_of

QUARTER, KEY_ID = "2026Q4", "2026Q4-1f2e3d4c"
AT_US = 1_795_000_000_000_000


def exchanges(count: int, seed: int = 1) -> list[tuple[str, Entry]]:
    """A log of plain exchanges, of few persons, institutions and users, with some rare ones."""
    draw = random.Random(seed)
    tokens = [draw.randbytes(16) for _ in range(40)]
    log = []
    for number in range(count):
        shared: dict[str, Any] = {
            "exchange": draw.randbytes(16),
            "service": draw.choice(["pension.consult", "family.consult"]),
            "requester": draw.choice(["0206731645", "0206737484"]),
            "person": draw.choice(tokens),
            "destinations": ("0200881951",),
        }
        at_us, slot = AT_US + 1000 * number, draw.choice("ab")
        user = draw.choice([None, *tokens[:5]])
        request = Entry(
            kind=Kind.REQUEST, at_us=at_us, user=user, ticket=draw.randbytes(16), **shared
        )
        log.append((slot, request))
        log.append((slot, Entry(kind=Kind.OUTCOME, at_us=at_us + 500, code=10001, **shared)))
        if number % 20 == 0:
            further = msgspec.structs.replace(
                log[-1][1], kind=Kind.FURTHER, person=tokens[number % 40]
            )
            log.append((slot, further))
    return log


def runs(
    archive: Path, count: int, rows: int = 60, kinds: str = "pukr"
) -> tuple[list[SealedFile], list[Derived]]:
    """Derive so many runs of a log, and write them as the sealer does."""
    log = placed(exchanges(count * rows))
    carried: list[Carried] = []
    files, steps = [], []
    size = len(log) // count
    for at in range(count):
        part = log[at * size : (at + 1) * size]
        truth = truth_of(part)
        steps.append(derive([narrowed(truth)], carried))
        carried = steps[-1].carry(truth.take(pa.array(steps[-1].open)))
        leaves = part[0].seq, part[-1].seq + 1
        files += [put(archive, kind, getattr(steps[-1], kind), leaves) for kind in kinds]
    return files, steps


def put(archive: Path, kind: str, table: pa.Table, leaves: tuple[int, int]) -> SealedFile:
    first, end = leaves
    path = sealed_path(kind, QUARTER, first, end)
    written = write(file_of(archive, path), encode(kind, table), pause=lambda: None)
    return SealedFile(
        kind=kind, path=path, sha256=written.sha256, bytes=written.bytes, rows=len(table),
        quarter=QUARTER, key_id=KEY_ID, first_leaf=first, end_leaf=end,
        first_us=AT_US, end_us=AT_US + 10**9,
    )  # fmt: skip


def due_of(files: Sequence[SealedFile], kind: str) -> Merge:
    (due,) = [due for due in plan(files, lambda _: True) if due.kind == kind]
    return due


def read(archive: Path, files: Sequence[SealedFile]) -> list[dict[str, Any]]:
    tables = [pq.read_table(file_of(archive, file.path)) for file in files]
    return [row for table in tables for row in table.to_pylist()]


def keys(kind: str, rows: Sequence[dict[str, Any]]) -> list[Any]:
    return [tuple((row[name] is not None, row[name]) for name in SORTED_BY[kind]) for row in rows]


def without_part(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted(repr({name: row[name] for name in row if name != "b"}) for row in rows)


@pytest.mark.parametrize("kind", ["p", "u", "k"])
@pytest.mark.parametrize("part_rows_max", [10**6, 150])
def test_a_run_holds_the_rows_of_its_inputs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, part_rows_max: int
) -> None:
    """In one part and in many, from inputs of several row groups; every part says what is in it."""
    monkeypatch.setitem(segment.ROWS_OF_GROUP, kind, 16)
    files, steps = runs(tmp_path, 5, kinds=kind)
    made = merge(tmp_path, due_of(files, kind), part_rows_max=part_rows_max)
    rows = read(tmp_path, made)
    expected = [row for step in steps for row in getattr(step, kind).to_pylist()]
    assert without_part(rows) == without_part(expected)
    assert keys(kind, rows) == sorted(keys(kind, rows))
    total = len(expected)
    assert len(made) == -(-total // part_rows_max)
    for number, sealed in enumerate(made):
        own = read(tmp_path, [sealed])
        assert (sealed.part, sealed.parts, sealed.level) == (number, len(made), 1)
        assert {row["b"] for row in own} == {number}
        assert (sealed.rows, sealed.rows <= part_rows_max + 5 * 16) == (len(own), True)
        first, last = (own[at][SORTED_BY[kind][0]] for at in (0, -1))
        ends = (first.hex(), last.hex()) if isinstance(first, bytes) else (first, last)
        assert (sealed.min_key, sealed.max_key) == ends
        if kind != "k":
            times = [row["at_us"] for row in own]
            assert (sealed.first_us, sealed.end_us) == (min(times), max(times) + 1)


def test_parts_can_be_merged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in parts is an input like any other, and its order stands."""
    monkeypatch.setitem(segment.ROWS_OF_GROUP, "p", 16)
    files, steps = runs(tmp_path, 6, kinds="p")
    first = merge(tmp_path, due_of(files[:3], "p"), part_rows_max=60)
    assert len(first) > 2
    made = merge(tmp_path, due_of([*first, *files[3:]], "p"), part_rows_max=100)
    assert {sealed.level for sealed in made} == {2}
    rows = read(tmp_path, made)
    assert without_part(rows) == without_part([r for step in steps for r in step.p.to_pylist()])
    assert keys("p", rows) == sorted(keys("p", rows))


def test_merged_files_have_the_schema_and_what_duckdb_prunes_by(tmp_path: Path) -> None:
    """Statistics on the sorted columns; names are plain text for every reader."""
    files, _ = runs(tmp_path, 2)
    for kind in "pukr":
        (sealed,) = merge(tmp_path, due_of(files, kind))
        file = file_of(tmp_path, sealed.path)
        with pq.ParquetFile(file) as parquet:
            assert parquet.schema_arrow.names == SCHEMAS[kind].names
            assert pq.read_table(file).cast(SCHEMAS[kind]).num_rows == sealed.rows
            group = parquet.metadata.row_group(0)
            columns = {
                group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)
            }
            assert columns[SORTED_BY[kind][0]].statistics.has_min_max


class _Dies(Disk):
    """A disk that fails at one of its calls, before it or after it has taken effect."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left, self._after = at, after

    def _count(self) -> bool:
        self.left -= 1
        return self.left == 0

    def write(self, descriptor: int, data: Any, offset: int) -> None:
        dies = self._count()
        if not dies or self._after:
            super().write(descriptor, data, offset)
        if dies:
            raise OSError(5, "died")

    def replace(self, partial: Path, file: Path) -> None:
        dies = self._count()
        if not dies or self._after:
            super().replace(partial, file)
        if dies:
            raise OSError(5, "died")


@pytest.mark.parametrize("after", [False, True])
def test_cut_short_at_any_write_it_goes_on_and_makes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """What was finished is not made again; the run is the same to the byte."""
    monkeypatch.setitem(segment.ROWS_OF_GROUP, "p", 32)
    files, _ = runs(tmp_path, 3, kinds="p")
    due = due_of(files, "p")
    expected = merge(tmp_path, due, part_rows_max=100)
    assert len(expected) == 2
    for at in range(1, 4 * len(expected) + 1):
        for sealed in expected:
            file_of(tmp_path, sealed.path).unlink()
        forget(tmp_path, due)
        with pytest.raises(OSError, match="died"):
            merge(tmp_path, due, part_rows_max=100, disk=_Dies(at, after=after))
        noted = (at if after else at - 1) // 4  # a write and a name for the part and its note
        kept = [file_of(tmp_path, sealed.path) for sealed in expected[:noted]]
        stamps = [file.stat().st_mtime_ns for file in kept]
        assert merge(tmp_path, due, part_rows_max=100) == expected
        assert [file.stat().st_mtime_ns for file in kept] == stamps


def test_a_part_that_is_damaged_or_of_other_inputs_is_made_again(tmp_path: Path) -> None:
    """What stands there by its name alone proves nothing; nor does a note of another merge."""
    files, _ = runs(tmp_path, 3, kinds="p")
    due = due_of(files, "p")
    (expected,) = merge(tmp_path, due)
    file = file_of(tmp_path, expected.path)
    content = file.read_bytes()
    for at in range(0, len(content), 997):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert merge(tmp_path, due) == [expected]
        assert file.read_bytes() == content
    (note,) = file.parent.glob("*.parts")
    for other in (b"", note.read_bytes()[:-1], note.read_bytes().replace(b"made_of", b"made_if")):
        note.write_bytes(other)
        assert merge(tmp_path, due) == [expected]
    less = msgspec.structs.replace(due, runs=(*due.runs[:1], due.runs[-1]))
    assert merge(tmp_path, less)[0].path == expected.path
    assert merge(tmp_path, due) == [expected]
    forget(tmp_path, due)
    assert not list(file.parent.glob("*.parts"))


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    files, _ = runs(tmp_path, 2, kinds="k")
    file_of(tmp_path, files[1].path).unlink()
    with pytest.raises(SegmentRefused, match="missing or damaged"):
        merge(tmp_path, due_of(files, "k"))


def sealed_run(first: int, level: int = 0, parts: int = 1, **changed: Any) -> list[SealedFile]:
    one = SealedFile(
        kind="p", path="", sha256="", bytes=1, rows=1, level=level, quarter=QUARTER, key_id=KEY_ID,
        first_leaf=first, end_leaf=first + 10, first_us=0, end_us=1,
    )  # fmt: skip
    made = [msgspec.structs.replace(one, part=part, parts=parts) for part in range(parts)]
    path = f"{first}-{level}"
    return [msgspec.structs.replace(file, path=f"{path}-{file.part}", **changed) for file in made]


def firsts(due: Merge) -> list[int]:
    return [run[0].first_leaf for run in due.runs]


def test_eight_neighbours_of_a_level_are_due() -> None:
    """Neither seven, nor eight with one of another level between, nor those of another kind."""
    eight = [file for at in range(FAN_IN) for file in sealed_run(10 * at)]
    (due,) = plan(reversed(eight), lambda _: False)
    assert firsts(due) == [10 * at for at in range(FAN_IN)]
    assert (due.level, due.first_leaf, due.end_leaf) == (1, 0, 10 * FAN_IN)
    assert set(due.removed) == {file.path for file in eight}
    assert plan(eight[1:], lambda _: False) == []
    between = [*eight[:4], *sealed_run(35, level=1), *eight[4:]]
    assert plan(between, lambda _: False) == []
    others = [*eight[:7], *sealed_run(70, kind="u"), *sealed_run(80, key_id="2026Q4-2")]
    assert plan(others, lambda _: False) == []
    assert plan([msgspec.structs.replace(file, kind="t") for file in eight], lambda _: True) == []


def test_a_quarter_that_is_over_becomes_one_run() -> None:
    """Of all levels, parts in their order; one run alone stays as it is."""
    files = [*sealed_run(0, level=2, parts=3), *sealed_run(10, level=1), *sealed_run(20)]
    (due,) = plan(files, lambda quarter: quarter == QUARTER)
    assert (due.level, [len(run) for run in due.runs]) == (3, [3, 1, 1])
    assert [file.part for file in due.runs[0]] == [0, 1, 2]
    assert plan(files, lambda quarter: quarter != QUARTER) == []
    assert plan(sealed_run(0, level=3, parts=2), lambda _: True) == []


def test_a_log_that_goes_on_has_few_runs() -> None:
    """Of n runs fewer than eight a level are left, whatever n."""
    files: list[SealedFile] = []
    levels = Counter[int]()
    for at in range(200):
        files += sealed_run(10 * at)
        while due := plan(files, lambda _: False):
            for one in due:
                files = [file for file in files if file.path not in one.removed]
                files += sealed_run(one.first_leaf, one.level, end_leaf=one.end_leaf)
        levels = Counter(file.level for file in files)
        assert max(levels.values()) < FAN_IN
    assert sorted(levels.items()) == [(1, 1), (2, 3)]
