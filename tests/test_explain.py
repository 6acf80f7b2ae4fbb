"""``explain`` shows the rules as the control tries them, and records who read before it reads."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ksz_router.cli import NOT_IN_ORDER, OK, USAGE, main
from ksz_router.days import to_date
from ksz_router.directory.loader import load
from ksz_router.directory.rows import COLUMNS
from ksz_router.privacylog import keys
from ksz_router.privacylog.verify import verify
from tests import sectoral_ground
from tests import worlds as w

NEXT = "00010199747"


class Desk(NamedTuple):
    """A store, a directory and a privacy log, and the command with its options."""

    folder: Path
    log: Path
    keys: Path
    explain: Callable[..., int]

    def records(self) -> int:
        return verify(self.log, self.keys).records


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    w.make_world(folder)
    rows = [",".join(COLUMNS), f"{w.PERSON},active,,,,,,,,,"]
    for line in w.LINES:
        kind = "" if line.type < 0 else str(line.type)
        role = f"{line.sector},{kind},{line.capacity},{line.phase}"
        rows.append(f"{w.PERSON},,,,{role},{to_date(line.begin)},,")
    rows.append(f"{NEXT},replaced,{w.PERSON},,,,,,,,")
    (folder / "persons.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    load(folder / "persons.csv", folder / "directory")
    return folder


@pytest.fixture
def desk(tables: Path, tmp_path: Path) -> Desk:
    log, key_folder = tmp_path / "log", tmp_path / "keys"
    log.mkdir()
    keys.make(key_folder, keys.quarter_of(time.time_ns()))

    def explain(*words: str, kbo: str = w.CENTRE, log: Path = log) -> int:
        return main([
            "explain", "--as", w.uri(kbo), "--purpose", "file 4711", "--today", str(w.TODAY),
            "--store", str(tables / "rulebook"), "--directory", str(tables / "directory"),
            "--log", str(log), "--keys", str(key_folder), *words,
        ])  # fmt: skip

    return Desk(tmp_path, log, key_folder, explain)


ASKED = ("--service", "UnemploymentData", "--service-version", "3", "--sector", "17",
         "--type", "1", "--capacity", "2", "--user", w.USER_A)  # fmt: skip


def test_a_request_that_passes_shows_each_rule_and_its_destination(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """All eight stages hold, the source is named, the person is not."""
    assert desk.explain(*ASKED, "--person", w.PERSON) == OK

    shown = capsys.readouterr().out
    assert shown.count("✓") == 8
    assert "✗" not in shown
    assert w.RVA in shown
    assert "ocmw-unemployment" in shown
    assert w.PERSON not in shown
    assert w.USER_A not in shown


def test_a_refusal_shows_the_broken_rule_and_what_to_do(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code name, official code, status, text and next action."""
    assert desk.explain(*ASKED, "--capacity", "6", "--person", w.PERSON) == NOT_IN_ORDER

    shown = capsys.readouterr().out
    assert shown.count("✓") == 3
    assert "✗ grant" in shown
    for part in ("CAPACITY_NOT_GRANTED", "MSG00013", "NO_RESULT", "ask for the right"):
        assert part in shown


def test_json_has_the_rules_and_the_outcome(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """For a pipe: one object."""
    assert desk.explain(*ASKED, "--person", NEXT, "--json") == NOT_IN_ORDER

    shown = capsys.readouterr().out
    table = json.loads(shown)
    assert [rule["stage"] for rule in table["rules"]][-1] == "PERSON"
    assert [rule["holds"] for rule in table["rules"]] == [True] * 5 + [False]
    assert table["outcome"]["code"] == "6002 PERSON_REPLACED"
    assert table["outcome"]["replaced"] == "by another INSZ"
    assert w.PERSON not in shown


def test_the_reading_is_recorded(desk: Desk) -> None:
    """One entry a number of the person, whatever the verdict; the user's rights are read too."""
    desk.explain(*ASKED, "--person", w.PERSON)
    assert desk.records() == 2
    desk.explain(*ASKED, "--person", w.PERSON, "--capacity", "6")
    assert desk.records() == 4
    desk.explain(*ASKED, "--person", "123")
    assert desk.records() == 5
    desk.explain("--service", "TestConnectionService")
    assert desk.records() == 5


def test_without_a_record_nothing_is_shown(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the entry cannot be written the person is not read: no verdict, no hint."""
    nowhere = desk.folder / "nowhere"
    assert desk.explain(*ASKED, "--person", w.PERSON, log=nowhere) == NOT_IN_ORDER

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no privacy log here" in shown.err


def test_the_numbers_come_from_stdin(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line is seen by everyone on the machine: "-" reads the user, then the person."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{w.USER_A}\n{w.PERSON}\n"))
    assert desk.explain(*ASKED[:-1], "-", "--person", "-") == OK


def test_a_request_file_is_read_and_options_win(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fields of a Request, as JSON."""
    request = {"service": "UnemploymentData", "version": 3, "ticket": "t", "user": w.USER_A,
               "sector": 17, "type": 1, "capacity": 6, "person": w.PERSON}  # fmt: skip
    file = desk.folder / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    assert desk.explain("--request", str(file)) == NOT_IN_ORDER
    assert desk.explain("--request", str(file), "--capacity", "2") == OK


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"servise": "Handi"}', "no field 'servise'"),
        ('{"service": "Handi", "version": "x"}', "version: Expected `int`"),
        ("[]", "is not a JSON object"),
        ('{"person": "00010199776"}', "name the service"),
    ],
)
def test_a_request_file_that_is_none_says_what_is_wrong(
    desk: Desk, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    """Unknown fields are refused: a misspelt one would explain another request."""
    file = desk.folder / "request.json"
    file.write_text(content, encoding="utf-8")
    assert desk.explain("--request", str(file)) == USAGE
    shown = capsys.readouterr().err
    assert said in shown
    assert w.PERSON not in shown


def test_an_inactive_store_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No generation, no explanation."""
    words = ["--store", "--directory", "--log", "--keys"]
    options = [part for word in words for part in (word, str(tmp_path))]
    asked = ["explain", "--as", "urn:x", "--purpose", "p", "--service", "Handi", *options]
    assert main(asked) == NOT_IN_ORDER
    assert "rulebook activate" in capsys.readouterr().err
    assert main([*asked[:-2]]) == USAGE


@pytest.mark.parametrize(
    ("says", "code", "exit_code"),
    [
        ((), "", OK),
        (("--keepers-say", "unknown"), "SOURCE_NOT_IN_SECTORAL_DIRECTORY", NOT_IN_ORDER),
        (("--keepers-say", "unavailable"), "SECTORAL_DIRECTORY_DOWN", NOT_IN_ORDER),
    ],
)
def test_nobody_is_asked_and_what_they_are_taken_to_say_is_shown(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    *, says: tuple[str, ...], code: str, exit_code: int,
) -> None:  # fmt: skip
    """Where the directory of the source's network is kept elsewhere."""
    world = w.make_world(tmp_path, more=sectoral_ground.text())
    asked = ("--service", "HealthCareInsurance", "--service-version", "1", *ASKED[4:])
    words = ("--store", str(world.store), "--person", w.PERSON, *says)
    assert desk.explain(*asked, *words) == exit_code
    shown = capsys.readouterr().out
    said = says[-1] if says else "known"
    assert f"{w.NIC} {said} at {w.NIC}" in shown
    assert code in shown
