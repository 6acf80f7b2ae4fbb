"""What is kept of a quarter: once, in time, and told by every later page, whatever is removed."""

import csv
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from ksz_router import cli
from ksz_router.days import brussels_day, to_date
from ksz_router.directory import quarters
from ksz_router.directory.backup import back_up, restore
from ksz_router.directory.change import Applied, Change, Operation
from ksz_router.directory.quarters import Kept, KeptLines
from ksz_router.directory.writer import Writer
from ksz_router.model import OPEN, Line
from ksz_router.privacylog import keys
from ksz_router.report.quarter import Quarter
from tests import worlds as w
from tests.directory_files import line, loaded, number, person
from tests.pages import read

TODAY = brussels_day(time.time_ns())
LAST = Quarter(TODAY // 10_000, (TODAY // 100 % 100 + 2) // 3).before(1)
"""The quarter that ended last."""

ANNA, BERT = number(998), number(997)


def text_of(day: int) -> str:
    return to_date(day).isoformat()


@pytest.fixture(scope="module")
def rulebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rulebook")
    w.make_world(folder)
    return folder / "rulebook"


class Desk:
    """A directory of two persons, and the reports that are made of it."""

    def __init__(self, folder: Path, rulebook: Path) -> None:
        self.folder, self.directory = folder, folder / "directory"
        begin = text_of(LAST.first)
        loaded(
            folder,
            person(ANNA), line(ANNA, "18,0,1", begin=begin), line(ANNA, "17,1,2", begin=begin),
            person(BERT), line(BERT, "18,0,1", begin=begin),
        )  # fmt: skip
        (folder / "log").mkdir()
        keys.make(folder / "keys", keys.quarter_of(time.time_ns()))
        self.config = folder / "router.toml"
        self.config.write_text(
            f'[tables]\nrulebook = "{rulebook}"\ndirectory = "{self.directory}"\n'
            '[privacy_log]\npath = "log"\nkeys = "keys"\n',
            encoding="utf-8",
        )

    def report(self, quarter: Quarter = LAST, *words: str) -> int:
        given = ["report", "directory", "--quarter", str(quarter), "--config", str(self.config)]
        return cli.main([*given, "--out", str(self.folder / "out"), *words])

    def rows(self, sheet: str, quarter: Quarter = LAST) -> list[dict[str, str]]:
        file = self.folder / "out" / f"directory-{quarter}-{sheet}.csv"
        with file.open(encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def inscribed(self, of: Quarter, quarter: Quarter = LAST) -> dict[tuple[str, ...], list[str]]:
        """What a report says of a quarter: by role and capacity, lines inscribed and counted on."""
        return {
            (row["sector"], row["type"], row["capacity"]): [row["inscribed"], row["counted_on"]]
            for row in self.rows("evolution", quarter)
            if row["quarter"] == str(of)
        }

    def remove_all(self, insz: str, sector: int, type_: int) -> None:
        """Take out the lines of a role."""
        writer = Writer.open(self.directory)
        meant = Line(sector, type_, 0, 0, LAST.first, OPEN)
        change = Change(bytes([sector]) * 16, insz, Operation.REMOVE_ALL, line=meant)
        (made,) = writer.apply([change], time.time_ns() // 1000)
        writer.close()
        assert isinstance(made, Applied)


@pytest.fixture
def desk(tmp_path: Path, rulebook: Path) -> Desk:
    return Desk(tmp_path, rulebook)


def test_lines_that_are_removed_later_stay_in_the_quarter_that_was_counted(desk: Desk) -> None:
    """Also of a kind that has no line any more; the page says on which day it was counted."""
    assert desk.report() == cli.OK
    before = desk.inscribed(LAST)
    assert {kind: count for kind, (count, _) in before.items()} == {
        ("17", "1", "2"): "1", ("18", "0", "1"): "2",
    }  # fmt: skip
    desk.remove_all(ANNA, 17, 1)
    desk.remove_all(BERT, 18, 0)
    assert desk.report() == cli.OK
    today = text_of(TODAY)
    assert desk.inscribed(LAST) == {kind: [count, today] for kind, (count, _) in before.items()}
    index = desk.rows("index")[-1]
    assert (index["persons_known"], index["sectors_added_up"], index["counted_on"]) == (
        "2", "3", today,
    )  # fmt: skip
    (content,) = desk.rows("content")
    assert (content["sector"], content["lines"]) == ("18", "1"), "as the lines stand"

    running = LAST.before(-1)
    assert desk.report(running) == cli.OK
    assert desk.inscribed(LAST, running) == desk.inscribed(LAST)
    ends = Counter[str]()
    for row in desk.rows("evolution", running):
        ends[row["quarter"]] += int(row["in_force_at_end"])
    assert (ends[str(LAST)], ends[str(running)]) == (3, 1)
    words = read((desk.folder / "out" / f"directory-{running}.html").read_text("utf-8")).text
    assert today in words
    assert "today's lines" in words


def test_without_what_was_kept_the_past_shrinks_and_says_so(desk: Desk) -> None:
    """What the page told of every quarter before: only lines that are still there."""
    assert desk.report() == cli.OK
    (desk.directory / quarters.FOLDER / f"{LAST}.json").unlink()
    desk.remove_all(BERT, 18, 0)
    assert desk.report(LAST.before(-1)) == cli.OK
    assert desk.inscribed(LAST, LAST.before(-1)) == {
        ("17", "1", "2"): ["1", ""], ("18", "0", "1"): ["1", ""],
    }  # fmt: skip


def kept(desk: Desk) -> list[str]:
    folder = desk.directory / quarters.FOLDER
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def test_only_the_quarter_that_ended_last_is_kept_and_only_by_a_later_view(desk: Desk) -> None:
    """Not the one that runs, nor an older one, nor by a backup from before its end."""
    early, late = desk.folder / "early", desk.folder / "late"
    back_up(desk.directory, early)
    desk.remove_all(ANNA, 17, 1)
    back_up(desk.directory, late)
    for quarter in (LAST.before(-1), LAST.before(1)):
        assert desk.report(quarter) == cli.OK
    assert desk.report(LAST, "--directory", str(early)) == cli.OK
    assert kept(desk) == []
    assert desk.report(LAST, "--directory", str(late)) == cli.OK
    assert kept(desk) == [f"{LAST}.json"]
    assert not (late / quarters.FOLDER).exists()
    assert set(desk.inscribed(LAST)) == {("18", "0", "1")}


def test_backups_take_along_what_was_kept_and_a_restore_replaces_none(desk: Desk) -> None:
    """A lost disk loses no quarter; what stands here was counted first."""
    backup = desk.folder / "backup"
    assert desk.report() == cli.OK
    back_up(desk.directory, backup)
    (file,) = (backup / quarters.FOLDER).iterdir()
    assert quarters.read(backup) == quarters.read(desk.directory)
    other = msgspec.structs.replace(quarters.read(backup)[str(LAST)], quarter="2020Q1")
    assert quarters.keep(backup, other)
    file.write_bytes(file.read_bytes().replace(b'"deaths":0', b'"deaths":9'))
    restore(backup, desk.directory)
    found = quarters.read(desk.directory)
    assert (found["2020Q1"], found[str(LAST)].deaths) == (other, 0)
    restore(backup, desk.folder / "elsewhere")
    assert quarters.read(desk.folder / "elsewhere") == quarters.read(backup)


@pytest.mark.parametrize(
    "spoilt", [b"", b"\xff", b'{"quarter":"2020Q1"}', b'"format":2', b'"quarter":"2020Q2"']
)
def test_a_damaged_file_is_named_and_no_page_is_made(
    desk: Desk, spoilt: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would otherwise be told as today's lines tell it, which nobody would see."""
    kept_then = Kept("2020Q1", 20200403, 7, 1, 1, 0, (KeptLines(18, 0, 1, 0, 1, 0, 1, 0),))
    quarters.keep(desk.directory, kept_then)
    file = desk.directory / quarters.FOLDER / "2020Q1.json"
    good = file.read_bytes()
    was = {b'"format":2': b'"format":1', b'"quarter":"2020Q2"': b'"quarter":"2020Q1"'}
    file.write_bytes(good.replace(was[spoilt], spoilt) if spoilt in was else spoilt)
    assert file.read_bytes() != good
    assert desk.report() == cli.NOT_IN_ORDER
    shown = capsys.readouterr().err
    assert "2020Q1.json: is damaged" in shown
    assert not (desk.folder / "out").exists()


def test_what_is_kept_is_never_written_again(tmp_path: Path) -> None:
    """The first count stands, whole, and nothing is left of another."""
    first = Kept("2020Q1", 20200403, 7, 1, 1, 0, (KeptLines(18, -1, 1, 0, 1, 0, 1, 0),))
    assert quarters.keep(tmp_path, first)
    assert not quarters.keep(tmp_path, msgspec.structs.replace(first, version=8))
    assert quarters.read(tmp_path) == {"2020Q1": first}
    assert [file.name for file in (tmp_path / quarters.FOLDER).iterdir()] == ["2020Q1.json"]
