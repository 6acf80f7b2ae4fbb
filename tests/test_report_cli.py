"""``ksz-router report directory``: its files, the sums that must agree, lists that name persons."""

import csv
import os
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec
import pytest

from ksz_router import cli
from ksz_router.directory import folder, marks, packing
from ksz_router.directory.loader import load
from ksz_router.directory.packing import pack_key
from ksz_router.directory.synthesise import landmarks, write_csv
from ksz_router.identifiers import Kbo, is_insz
from ksz_router.model import ANY_TYPE, OPEN, Institution, Role
from ksz_router.privacylog import keys
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing
from ksz_router.report import directory_figures
from ksz_router.report.directory_findings import Finding
from ksz_router.report.directory_owners import Owner, Owners
from ksz_router.report.directory_tables import Sheet
from tests import worlds as w
from tests.directory_files import line, number, person
from tests.pages import check_colours, check_form, check_needs_nothing, read

PERSONS = 400
SHEETS = ("access", "content", "evolution", "index", "institutions", "numbers", "quality",
          "sectors")  # fmt: skip
FLOW = ("in_force_at_begin", "inscribed", "ended", "in_force_at_end", "changed")


class Desk(NamedTuple):
    """A rulebook, a directory, a log, and where the report goes."""

    folder: Path
    config: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def lists(self) -> Path:
        return self.folder / "lists"

    def report(self, *words: str, quarter: str = "2016Q3") -> int:
        given = ["report", "directory", "--quarter", quarter, "--config", str(self.config)]
        return cli.main([*given, "--out", str(self.out), *words])

    def list_lines(self, *words: str) -> int:
        asked = ("--work-lists", str(self.lists), "--purpose", "quality round", "--reader", "dpo")
        return self.report(*asked, *words)

    def rows(self, sheet: str, quarter: str = "2016Q3") -> list[dict[str, str]]:
        with (self.out / f"directory-{quarter}-{sheet}.csv").open(encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def listed(self) -> dict[str, list[dict[str, str]]]:
        found = {}
        for file in sorted(self.lists.iterdir()):
            with file.open(encoding="utf-8") as stream:
                found[file.name] = list(csv.DictReader(stream))
        return found

    def readings(self) -> list[tuple[object, ...]]:
        """Verb, reader, purpose and days of each entry, as they lie in the log."""
        found: list[Entry] = []

        def visit(frame: Frame) -> None:
            found.extend(map(parse, frame.records))

        log = HotLog(self.folder / "log", KeyRing(self.folder / "keys"))
        for slot in log.slots:
            log.read(slot, 0, 2**63, visit)
        assert all(entry.kind is Kind.READING and entry.person is None for entry in found)
        return [(e.service, e.reader, e.purpose, e.begin, e.end) for e in found]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's rulebook, and persons of whom one is inscribed under two numbers."""
    folder = tmp_path_factory.mktemp("tables")
    w.make_world(folder)
    file = folder / "persons.csv"
    old, new = number(998, 110730), number(997, 110730)
    with file.open("w", encoding="utf-8") as stream:
        write_csv(stream, persons=PERSONS, seed=5)
        stream.write(f"{person(old, 'replaced', new)}\n{person(new)}\n")
        for each in (old, new):
            stream.write(f"{line(each, '18,0,1')}\n{line(each, '77,3,0')}\n")
    load(file, folder / "directory")
    return folder


@pytest.fixture
def desk(tables: Path, tmp_path: Path) -> Desk:
    config = tmp_path / "router.toml"
    config.write_text(
        f'[tables]\nrulebook = "{tables}/rulebook"\ndirectory = "{tables}/directory"\n'
        '[privacy_log]\npath = "log"\nkeys = "keys"\n',
        encoding="utf-8",
    )
    (tmp_path / "log").mkdir()
    keys.make(tmp_path / "keys", keys.quarter_of(time.time_ns()))
    return Desk(tmp_path, config)


def test_a_page_and_its_figures_are_written_and_nobody_stands_in_them(desk: Desk) -> None:
    """One page that needs nothing else, eight files; counts hold no person, so none is recorded."""
    assert desk.report() == cli.OK
    names = {"directory-2016Q3.html"} | {f"directory-2016Q3-{name}.csv" for name in SHEETS}
    assert {file.name for file in desk.out.iterdir()} == names
    page = (desk.out / "directory-2016Q3.html").read_text(encoding="utf-8")
    assert check_form(page) == 7
    check_needs_nothing(page)
    check_colours(page)
    text = "".join(file.read_text(encoding="utf-8") for file in desk.out.iterdir())
    assert not any(each in text for each in landmarks(5).values())
    words = read(page).text
    for expected in ("In force after death", "Beheersinstelling OCMW (synthetic)", "11 NIC"):
        assert any(expected in each for each in words), expected
    assert list((desk.folder / "log").iterdir()) == []
    assert not desk.lists.exists()


def test_the_sums_of_the_files_agree(desk: Desk) -> None:
    """Each line once; what came and went makes the difference; every sheet tells of the same."""
    assert desk.report() == cli.OK
    content, evolution = desk.rows("content"), desk.rows("evolution")
    institutions, quality = desk.rows("institutions"), desk.rows("quality")
    numbers, spread, index = desk.rows("numbers"), desk.rows("sectors"), desk.rows("index")
    total = sum(int(row["lines"]) for row in content)
    assert total == sum(int(row["lines"]) for row in institutions)
    for row in (*content, *evolution, *institutions):
        begin, inscribed, ended, end, _ = (int(row[name]) for name in FLOW)
        assert begin + inscribed - ended == end
    for row in content:
        parts = ("ended_before", "in_force_at_begin", "inscribed", "begins_later")
        assert sum(int(row[name]) for name in parts) == int(row["lines"])
    for name in FLOW:
        asked = [row for row in evolution if row["quarter"] == "2016Q3"]
        sums = {sum(int(row[name]) for row in rows) for rows in (content, asked, institutions)}
        assert len(sums) == 1, name
    ends = Counter[str]()
    for row in evolution:
        ends[row["quarter"]] += int(row["in_force_at_end"])
    quarters = sorted(ends)
    assert len(quarters) == 8
    assert quarters[-1] == "2016Q3"
    for finding in Finding:
        by_kind = sum(int(row["lines"]) for row in quality if row["finding"] == finding.name)
        assert by_kind == sum(int(row[finding.name.lower()]) for row in institutions)
    in_use = sum(int(row["numbers"]) for row in numbers if row["status"] != "replaced")
    persons = {row["sectors"]: sum(int(row[n]) for n in list(row)[1:]) for row in spread}
    assert in_use == sum(persons.values())
    assert int(index[-1]["persons_known"]) == in_use - persons["0"]
    held = sum(int(count) * persons[count] for count in persons)
    assert int(index[-1]["sectors_added_up"]) == held
    assert float(index[-1]["mean_sectors"]) == pytest.approx(held / (in_use - persons["0"]), 1e-4)


def test_the_same_directory_gives_the_same_figures(desk: Desk) -> None:
    """Byte for byte: a report can be compared with one that was made again."""
    desk.report()
    before = {file.name: file.read_bytes() for file in desk.out.glob("*.csv")}
    desk.report()
    assert {file.name: file.read_bytes() for file in desk.out.glob("*.csv")} == before


def test_work_lists_name_each_line_with_a_finding_once(desk: Desk) -> None:
    """For who answers for it, in a file of mode 0600, after one entry that says who and why."""
    assert desk.list_lines("--lines-max", "100000") == cli.OK
    assert desk.readings() == [("report directory", "dpo", "quality round", 20160701, 20160930)]
    assert stat.S_IMODE(desk.lists.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in desk.lists.iterdir())
    listed = desk.listed()
    rows = [row for found in listed.values() for row in found]
    places = Counter((r["insz"], r["sector"], r["type"], r["capacity"], r["begin"]) for r in rows)
    assert set(places.values()) == {1}
    assert all(is_insz(row["insz"]) for row in rows)
    for shown in desk.rows("institutions"):
        key = shown["owner"]
        name = f"{key}.csv" if "/" not in key else f"role-{key.replace('/', '-')}.csv"
        mine = listed.get(name.replace("*", "any"), [])
        assert len(mine) == int(shown["to_look_at"]) == int(shown["listed"])
        counts = Counter(finding for row in mine for finding in row["findings"].split())
        assert counts == +Counter({f.name: int(shown[f.name.lower()]) for f in Finding})
    assert f"{w.RVA}.csv" in listed
    assert f"{w.MANAGER}.csv" in listed, "manages all that hold 17/1"
    assert f"{w.CENTRE}.csv" not in listed, "is managed"
    assert "role-77-3.csv" in listed, "nobody holds it"


def test_a_work_list_says_what_to_look_at(desk: Desk) -> None:
    """The line as it stands, the number in use where it is another, the day of death."""
    desk.list_lines()
    rows = [row for found in desk.listed().values() for row in found]
    marks = landmarks(5)
    old, new = number(998, 110730), number(997, 110730)
    twice = [row for row in rows if row["insz"] in (old, new) and row["sector"] == "18"]
    assert [(row["insz"], row["current"]) for row in twice] == [(new, ""), (old, new)]
    assert all("SAME_TWICE" in row["findings"].split() for row in twice)
    assert twice[1]["findings"].split() == ["REPLACED_NUMBER", "SAME_TWICE"]
    cancelled = [r for r in rows if r["insz"] == marks["cancelled"] and r["sector"] == "17"]
    (leefloon,) = cancelled
    assert (leefloon["label"], leefloon["begin"], leefloon["end"]) == ("Leefloon", "2015-01-01", "")
    dead = [row for row in rows if row["insz"] == marks["deceased"]]
    assert dead == [], "lived on the last day of that quarter"


def test_work_lists_are_bounded(desk: Desk) -> None:
    """So many lines for each finding, the first by number; the figures tell of the rest."""
    assert desk.list_lines("--lines-max", "2") == cli.OK
    for rows in desk.listed().values():
        counts = Counter(finding for row in rows for finding in row["findings"].split())
        firsts: Counter[str] = Counter()
        for row in rows:  # a line stands there for a finding that had room for it
            assert any(firsts[finding] < 2 for finding in row["findings"].split())
            firsts.update(row["findings"].split())
        assert counts
    shown = desk.rows("institutions")
    assert sum(int(row["listed"]) for row in shown) == sum(map(len, desk.listed().values()))
    assert sum(int(row["listed"]) for row in shown) < sum(int(row["to_look_at"]) for row in shown)


@pytest.mark.parametrize("hindrance", ["no log", "no keys", "blank", "person", "in the way"])
def test_what_cannot_be_recorded_or_written_is_not_listed(
    desk: Desk, capsys: pytest.CaptureFixture[str], hindrance: str
) -> None:
    """Nothing is read, nothing is there, and one clear word."""
    purpose = {"blank": " ", "person": number(998)}.get(hindrance, "quality round")
    if hindrance.startswith("no "):
        folder = desk.folder / hindrance.removeprefix("no ")
        folder.rename(folder.with_name("moved"))
    if hindrance == "in the way":
        desk.lists.mkdir()
    assert desk.list_lines("--purpose", purpose) == cli.NOT_IN_ORDER
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("ksz-router: ")) == ("", 1)
    assert number(998) not in shown.err
    assert not desk.out.exists()
    assert [file.name for file in desk.folder.glob("lists*/*")] == []


@contextmanager
def changing(directory: Path) -> Iterator["lmdb.Cursor[bytes]"]:
    """Change values behind the back of the writer, and mark the file as checked."""
    version = folder.current(directory)
    with lmdb.open(
        str(version), map_size=folder.MAP_BYTES, max_dbs=folder.DATABASES_MAX
    ) as environment:
        persons = environment.open_db(folder.PERSONS, create=False)
        with environment.begin(persons, write=True) as transaction, transaction.cursor() as cursor:
            yield cursor
    marks.write_mark(version, marks.make_mark(version))


def test_numbers_of_a_person_that_do_not_name_each_other_are_no_smaller_count(
    desk: Desk, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines that no person has would be left out, and the figures believed."""
    copy = copied(tables / "directory", desk.folder / "copy")
    with changing(copy) as cursor:
        assert cursor.set_key(pack_key(number(997, 110730)))
        kept = packing.unpack(cursor.value())
        cursor.put(cursor.key(), packing.pack(msgspec.structs.replace(kept, others=())))
    assert desk.report("--directory", str(copy)) == cli.NOT_IN_ORDER
    assert "not as many numbers and lines" in capsys.readouterr().err
    assert not desk.out.exists()


def copied(directory: Path, where: Path) -> Path:
    shutil.copytree(directory, where)
    return where


def test_a_run_that_fails_leaves_no_list_behind(
    desk: Desk, tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a list would be taken for a whole one. The entry is there all the same."""
    monkeypatch.setattr(directory_figures, "BATCH_NUMBERS", 50)
    copy = copied(tables / "directory", desk.folder / "copy")
    with changing(copy) as cursor:
        assert cursor.last()
        cursor.put(cursor.key(), cursor.value() + b"\0")
    assert desk.list_lines("--directory", str(copy)) == cli.NOT_IN_ORDER
    shown = capsys.readouterr()
    assert (shown.out, "cut off" in shown.err) == ("", True)
    assert list(desk.folder.glob("lists*")) == []
    assert len(desk.readings()) == 1


def test_a_directory_that_cannot_be_read_is_said(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """No page at all, and no list."""
    assert desk.list_lines("--directory", str(desk.folder / "none")) == cli.NOT_IN_ORDER
    assert "holds no directory" in capsys.readouterr().err
    assert not desk.out.exists()
    assert list(desk.folder.glob("lists*")) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--quarter", "2026"), ("--quarter", "2199Q4"), ("--provisional-days", "0"),
        ("--keep-years", "101"), ("--lines-max", "0"), ("--purpose", "because"),
        ("--work-lists", "lists"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_wrong_usage(desk: Desk, words: tuple[str, str]) -> None:
    """Before anything is read; persons are not named without a purpose."""
    assert desk.report(*words) == cli.USAGE
    assert not desk.out.exists()


def test_an_empty_directory_and_a_quarter_that_runs_have_a_page(desk: Desk, tmp_path: Path) -> None:
    """The least that there can be."""
    file = tmp_path / "one.csv"
    file.write_text(
        "insz,status,current,deceased,sector,type,capacity,phase,begin,end,changed\n"
        f"{person(number(998))}\n",
        encoding="utf-8",
    )
    load(file, tmp_path / "one")
    now = time.gmtime()
    quarter = f"{now.tm_year}Q{(now.tm_mon + 2) // 3}"
    assert desk.report("--directory", str(tmp_path / "one"), quarter=quarter) == cli.OK
    page = (desk.out / f"directory-{quarter}.html").read_text(encoding="utf-8")
    check_form(page)
    text = "\n".join(read(page).text)
    assert "The directory holds no line." in text
    assert "The quarter has not ended" in text


def test_without_the_extra_the_verb_says_what_to_install(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and no traceback."""
    monkeypatch.delitem(sys.modules, "ksz_router.cli.report_directory", raising=False)
    for name in list(sys.modules):
        if name.startswith("ksz_router.report"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert desk.report() == cli.NOT_IN_ORDER
    assert "install ksz-router[audit]" in capsys.readouterr().err


def institution(
    kbo: str, *roles: str, members: tuple[str, ...] = (), end: int = OPEN
) -> Institution:
    held = tuple(Role(*map(int, role.split("/"))) for role in roles)
    return Institution(
        kbo=Kbo(kbo), name=f"N{kbo}", roles=held, members=tuple(map(Kbo, members)), end=end
    )


def test_a_line_has_one_owner() -> None:
    """Who holds the role alone, who manages all its holders, else the role; never all of them."""
    owners = Owners(
        [
            institution("1", "17/1"), institution("2", "17/1"),
            institution("3", "17/0", members=("1", "2")),
            institution("4", "11/1"), institution("5", "11/1", "11/2"),
            institution("6", "18/0"), institution("7", "18/0", end=20200101),
        ],
        20260930,
    )  # fmt: skip
    for role, key in (((17, 1), "3"), ((17, 0), "3"), ((17, ANY_TYPE), "3"), ((11, 2), "5"),
                      ((18, 0), "6"), ((18, ANY_TYPE), "6")):  # fmt: skip
        assert owners.of(*role) == Owner(key, f"N{key}")
    assert owners.of(11, 1).key == "11/1"
    assert owners.of(11, ANY_TYPE).key == "11/*"
    assert owners.of(18, 4) == Owner("18/4", "nobody holds it in the rulebook")


def test_who_keeps_the_directory_does_not_answer_for_the_lines_of_its_members() -> None:
    """It manages them so that messages can change their lines; the lists are still theirs."""
    institutions = [institution("1", "18/0"), institution("9", "25/0", members=("1",))]
    assert Owners(institutions, 20260930).of(18, 0).key == "9"
    assert Owners(institutions, 20260930, frozenset({"9"})).of(18, 0).key == "1"


def test_grants_that_nobody_can_use_are_told(desk: Desk) -> None:
    """A capacity of a role in which nobody is known, though a grant asks for it."""
    desk.report()
    rows = desk.rows("access")
    assert rows
    content = desk.rows("content")
    for row in rows:
        lines = sum(
            int(each["in_force_at_end"])
            for each in content
            if each["sector"] == row["sector"]
            and each["type"] in ("", row["type"])
            and each["capacity"] == row["capacity"]
        )
        assert int(row["lines_in_force"]) == lines
        assert int(row["grants"]) >= 1
    assert {"0"} < {row["lines_in_force"] for row in rows}


def test_the_document_explains_every_file_and_finding() -> None:
    """Under the names that stand in the files."""
    text = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    chapter = text[text.index("## Quarterly dashboards") : text.index("## Events")]
    for name in (*SHEETS, *(finding.name for finding in Finding)):
        assert f"| `{name}` |" in chapter, name


def test_a_sheet_is_csv() -> None:
    """Names with commas and quotes come back as they were."""
    sheet = Sheet(("a", "b"), [('x, "y"', 1)])
    assert list(csv.reader(sheet.text().splitlines())) == [["a", "b"], ['x, "y"', "1"]]
    assert os.linesep == "\n"
