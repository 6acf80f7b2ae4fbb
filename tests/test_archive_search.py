"""Questions to a log that is not sealed, sealed in part, whole, and merged: the same rows."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ksz_router.cli import NOT_IN_ORDER, OK, main
from ksz_router.identifiers import Insz
from ksz_router.privacylog.archive import assemble, taken
from ksz_router.privacylog.archive.chain import files
from ksz_router.privacylog.archive.engine import Engine, SearchFailed
from ksz_router.privacylog.archive.merge import merge
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.query import query as query_live
from ksz_router.privacylog.question import Asked, Found, Position
from ksz_router.privacylog.rows import Row
from tests.archive_ground import Ground
from tests.archive_log import BEGIN_US, RandomLog, some_question
from tests.privacylog_world import NSSO, OTHER, PERSON, QUARTER, RENUMBERED, USER


def ask(ground: Ground, asked: Asked, **how: Any) -> Found:
    return assemble.query(ground.world.log, ground.world.keys, ground.archive, asked, **how)


def pages(ground: Ground, asked: Asked, limit: int, engine: Engine) -> list[Row]:
    """All rows, page by page, as a command line goes on."""
    rows: list[Row] = []
    after: Position | None = None
    while True:
        found = ask(ground, asked, limit=limit, after=after, engine=engine)
        assert found.damaged == []
        assert len(found.rows) == limit or found.more is None
        rows += found.rows
        if found.more is None:
            return rows
        after = Position.parse(found.more.encode())


def merge_all(ground: Ground) -> int:
    """Merge all runs of each quarter and kind; return how many were made."""
    writer = ground.open_slot()
    sealer = ground.sealer(writer)
    due = plan([f for kind in "pukr" for f in files(ground.archive, kind)], lambda _: True)
    for each in due:
        added = merge(ground.archive, each, pause=lambda: None)
        sealer.record(ground.now_us, added, each.removed)
        for path in each.removed:
            file_of(ground.archive, path).unlink()
    writer.close()
    return len(due)


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    cut=st.integers(0, 80),
    leaves_max=st.sampled_from((8, 30, 1 << 18)),
)
@example(seed=1002, cut=30, leaves_max=8)  # two readings of one moment, one of a user's
def test_what_is_sealed_and_what_is_not_answer_as_one(seed: int, cut: int, leaves_max: int) -> None:
    """Whatever is asked, wherever the log is cut: nothing twice, nothing missed, all in order."""
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        log = RandomLog(ground.world, seed)
        log.go_on(cut)
        ground.seal(leaves_max=leaves_max)
        log.go_on(80 - cut)
        questions = [some_question(log.random) for _ in range(12)]
        log.close()
        engine = Engine(ground.archive)
        expected = [
            query_live(ground.world.log, ground.world.keys, asked).rows for asked in questions
        ]
        for step in (lambda: None, ground.seal, lambda: merge_all(ground)):
            step()
            for asked, rows in zip(questions, expected, strict=True):
                assert pages(ground, asked, 1000, engine) == rows, asked
        engine.close()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A log of which two thirds are sealed, in several runs."""
    ground = Ground(tmp_path_factory.mktemp("sealed"))
    log = RandomLog(ground.world, 7)
    for _ in range(2):
        log.go_on(60)
        ground.seal(leaves_max=20)
    log.go_on(60)
    log.close()
    return ground


QUESTIONS = {
    "all": Asked(),
    "a person": Asked(persons=(Insz(PERSON), Insz(RENUMBERED))),
    "a person and who supplied": Asked(persons=(Insz(OTHER),), user=USER),
    "an institution": Asked(institution=NSSO),
    "a user": Asked(user=USER),
    "a ticket": Asked(institution=NSSO, ticket="T-1"),
}


@pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("limit", [1, 4])
def test_pages_make_the_whole(sealed: Ground, asked: Asked, limit: int) -> None:
    """Also where moments are shared by the rows on both sides of a page's end."""
    engine = Engine(sealed.archive)
    whole = ask(sealed, asked, engine=engine)
    assert len(whole.rows) > 3
    assert whole.more is None
    some = whole.rows[: 5 * limit + 1]
    after: Position | None = None
    rows: list[Row] = []
    while len(rows) < len(some):
        found = ask(sealed, asked, limit=limit, after=after, engine=engine)
        rows += found.rows
        if (after := found.more) is None:
            break
    assert rows[: len(some)] == some
    engine.close()


def test_a_person_of_many_rows_is_asked_for_by_a_query(
    sealed: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are spread over many row groups are not taken out, and found all the same."""
    asked = QUESTIONS["a person"]
    expected = ask(sealed, asked)
    monkeypatch.setattr(taken, "GROUPS_MAX", 0)
    assert ask(sealed, asked) == expected


def test_pages_go_on_where_the_log_was_sealed_and_merged_meanwhile(tmp_path: Path) -> None:
    """A cursor is printed before, and used after."""
    ground = Ground(tmp_path)
    log = RandomLog(ground.world, 11)
    log.go_on(80)
    log.close()
    whole = ask(ground, Asked()).rows
    after, rows = None, list[Row]()
    for step in (lambda: None, lambda: ground.seal(leaves_max=25), lambda: merge_all(ground)):
        step()
        found = ask(ground, Asked(), limit=len(whole) // 3 - 1, after=after)
        rows += found.rows
        after = found.more
        assert after is not None
    assert rows + ask(ground, Asked(), after=after).rows == whole


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
        return
    if how == "cut":
        del data[-1:]
    else:  # the length of the footer, which Parquet puts before its last four bytes
        data[-8:-4] = b"\xff\xff\xff\x7f"
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "cut", "broken"])
@pytest.mark.parametrize(
    ("kind", "question"),
    [("p", "a person"), ("u", "an institution"), ("k", "a ticket"), ("c", "all")],
)
def test_a_damaged_file_is_named_and_the_others_answer(
    sealed: Ground, kind: str, question: str, how: str
) -> None:
    """Never silence, and never an answer that is taken for the whole."""
    asked = QUESTIONS[question]
    known = ask(sealed, asked).rows
    lost = 0
    for each in files(sealed.archive, kind):
        file = file_of(sealed.archive, each.path)
        data = file.read_bytes()
        damage(file, how)
        found = ask(sealed, asked)
        file.write_bytes(data)
        lost += len(known) - len(found.rows)
        if found.rows != known:
            assert [str(file) in what for what in found.damaged] == [True]
            assert {row.exchange for row in found.rows} <= {row.exchange for row in known}
    assert lost


def test_a_quarter_without_keys_is_named_and_the_others_answer(tmp_path: Path) -> None:
    """Its tokens cannot be made again; its rows by institution still stand there."""
    ground = Ground(tmp_path)
    log = RandomLog(ground.world, 5)
    log.go_on(100)
    log.close()
    whole = ask(ground, QUESTIONS["an institution"]).rows
    ground.seal()
    for slot in ("w0", "w1"):
        ground.world.files(slot)[0].unlink()
    (ground.world.keys / f"{QUARTER}.json").unlink()
    found = ask(ground, QUESTIONS["a person"])
    assert [QUARTER in what and "gone" in what for what in found.damaged] == [True]
    assert found.rows
    assert min(row.at_us for row in found.rows) > BEGIN_US
    assert ask(ground, QUESTIONS["an institution"]).rows == whole


Step = Callable[[Ground], object]


@pytest.mark.parametrize("step", [Ground.seal, merge_all], ids=["sealed", "merged"])
def test_a_step_of_the_sealer_in_between_is_met_by_beginning_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    """What was tail becomes sealed, or files make way for others, just while a question is put."""
    ground = Ground(tmp_path)
    log = RandomLog(ground.world, 13)
    log.go_on(60)
    ground.seal(leaves_max=10)
    log.go_on(60)
    log.close()
    some = ("a person", "a ticket")
    whole = {name: ask(ground, QUESTIONS[name]).rows for name in some}
    steps = iter([step])
    for part in ("HotLog", "Sealed"):
        made = getattr(assemble, part)

        def interrupted(*args: Any, made: Any = made, **named: Any) -> Any:
            for pending in steps:
                pending(ground)
            return made(*args, **named)

        monkeypatch.setattr(assemble, part, interrupted)
    for name in some:
        steps = iter([step])
        found = ask(ground, QUESTIONS[name])
        assert (found.rows, found.damaged) == (whole[name], []), name


@pytest.mark.parametrize("field", ["service", "violation"])
def test_a_text_is_a_value_and_no_part_of_the_question(sealed: Ground, field: str) -> None:
    """Whatever it contains."""
    found = ask(sealed, Asked(**{field: "x' OR '1'='1"}))  # type: ignore[arg-type]
    assert (found.rows, found.damaged) == ([], [])


def test_the_engine_reads_nothing_but_what_is_sealed(sealed: Ground, tmp_path: Path) -> None:
    """No other file, no pattern, no extension; and its settings stay."""
    other = tmp_path / "other.parquet"
    other.write_bytes(file_of(sealed.archive, files(sealed.archive, "p")[0].path).read_bytes())
    engine = Engine(sealed.archive)
    for refused in (
        f"SELECT * FROM read_parquet('{other}')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(Exception, match="Error"):
            engine._connection.execute(refused)
    engine.close()
    with pytest.raises(SearchFailed):
        Engine(tmp_path / "a*b")


def test_the_command_asks_what_is_sealed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reading is recorded first and found behind; without the packages it says what to do."""
    ground = Ground(tmp_path)
    log = RandomLog(ground.world, 17)
    log.go_on(60)
    log.close()
    expected = query_live(ground.world.log, ground.world.keys, QUESTIONS["a person"]).rows
    ground.seal()
    for slot in ("w0", "w1"):
        for file in ground.world.files(slot):
            file.unlink()
    words = ["log", "query", "--log", str(ground.world.log), "--keys", str(ground.world.keys),
             "--archive", str(ground.archive), "--purpose", "complaint 7", "--person", PERSON,
             "--person", RENUMBERED, "--no-directory", "--json"]  # fmt: skip
    assert main(words) == OK
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    own = [row for row in rows if row["purpose"] == "complaint 7"]
    assert len(own) == 2
    assert [row["at_us"] for row in rows if row not in own] == [row.at_us for row in expected]
    assert err == ""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for module in ("assemble", "engine"):
        monkeypatch.delitem(sys.modules, f"ksz_router.privacylog.archive.{module}")
    assert main(words) == NOT_IN_ORDER
    out, err = capsys.readouterr()
    assert out == ""
    assert "ksz-router[audit]" in err


def test_an_outcome_is_found_however_late_it_came(tmp_path: Path) -> None:
    """A router that stood still for ten days writes what became of the exchange when it starts."""
    ground = Ground(tmp_path)
    world = ground.world
    number = (world.now_ns // 1_000_000 << 80) | (7 << 76) | (2 << 62)  # UUIDv7
    writer = world.open(slot="w0")
    at_us = world.now_ns // 1000
    writer.commit([world.request(number, at_us=at_us)], world.now_ns)
    ground.seal()
    world.now_ns += 10 * 24 * 3600 * 1_000_000_000
    late_us = world.now_ns // 1000
    ground.seal()  # also what the step before recorded ten days ago
    writer.commit([world.outcome(number, 9004, at_us=late_us)], world.now_ns)
    writer.close()
    ground.seal()
    (row,) = ask(ground, Asked(exchange=number.to_bytes(16, "big"))).rows
    assert row.outcomes == ((9004, late_us),)


def test_what_follows_a_sealed_row_is_added_from_the_live_log(tmp_path: Path) -> None:
    """The deadline ended an exchange, it was sealed, and then its source answered after all."""
    ground = Ground(tmp_path)
    world = ground.world
    writer = world.open(slot="w0")
    answered, failed, last = ((world.now_ns // 1_000_000 << 80) + n for n in (1, 2, 3))
    for number, code in ((answered, 10001), (failed, 9004), (last, 10001)):
        writer.commit([world.request(number), world.outcome(number, code)], world.now_ns)
    ground.seal()
    late_us = world.now_ns // 1000 + 7_000_000
    person = world.tokens.person(PERSON)
    writer.commit([world.outcome(failed, at_us=late_us, person=person)], world.now_ns)
    writer.close()
    asked = Asked(persons=(Insz(PERSON),))
    expected = query_live(world.log, world.keys, asked).rows
    assert [len(row.outcomes) for row in expected] == [1, 2, 1]
    assert ask(ground, asked).rows == expected
    ground.seal()
    assert ask(ground, asked).rows == expected
