"""``ksz-router directory``: load, show with its entry first, check, synthesise."""

import io
import json
import time
from pathlib import Path

import msgspec
import pytest

from ksz_router.cli import main
from ksz_router.config import load
from ksz_router.directory.synthesise import landmarks
from ksz_router.privacylog import keys
from ksz_router.privacylog.query import query
from ksz_router.privacylog.question import LIMIT_MAX, Asked


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose directory, log and keys lie in a folder of their own."""
    file = tmp_path / "router.toml"
    file.write_text(
        '[tables]\ndirectory = "directory"\n[privacy_log]\npath = "log"\nkeys = "keys"\n',
        encoding="utf-8",
    )
    (tmp_path / "log").mkdir()
    keys.make(tmp_path / "keys", keys.quarter_of(time.time_ns()))
    csv = tmp_path / "persons.csv"
    assert main(["directory", "synthesise", "--persons", "50", "--out", str(csv)]) == 0
    assert main(["directory", "load", str(csv), "--config", str(file)]) == 0
    return file


def show(config: Path, insz: str, *words: str, purpose: str = "file 7") -> int:
    return main(["directory", "show", insz, "--purpose", purpose, "--config", str(config), *words])


def readings(config: Path) -> list[str]:
    """The purposes of the readings that the log holds."""
    settings = load(config).privacy_log
    found = query(Path(settings.path), Path(settings.keys), Asked(), limit=LIMIT_MAX)
    return [row.purpose for row in found.rows]


def test_a_person_is_shown_with_the_official_labels(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status, count of numbers, and each line in words."""
    assert show(config, landmarks(1)["answered"]) == 0
    shown = capsys.readouterr().out
    assert "active; numbers: 1; lines: " in shown
    assert "version 1" in shown
    assert "17/1" in shown
    assert "Leefloon" in shown
    assert readings(config) == ["file 7"]


def test_a_replaced_number_shows_the_one_in_use_and_every_number_is_recorded(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One entry a number, before anything is shown."""
    marks = landmarks(1)
    assert show(config, marks["chain_first"], "--json") == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (shown["status"], shown["current"]) == ("replaced", marks["chain_last"])
    assert shown["numbers"] == 3
    assert {"Leefloon", "GECONTROLEERDE WERKLOZE"} <= {row["label"] for row in shown["lines"]}
    assert len(readings(config)) == 3


def test_the_number_may_come_from_standard_input(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where other users of the machine do not see it."""
    monkeypatch.setattr("sys.stdin", io.StringIO(landmarks(1)["deceased"] + "\n"))
    assert show(config, "-") == 0


def test_an_unknown_number_is_an_answer_and_is_recorded(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking whether somebody is there is reading too."""
    assert show(config, landmarks(1)["unknown"], "--json") == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "unknown"
    assert readings(config) == ["file 7"]


@pytest.mark.parametrize("hindrance", ["no log", "no keys", "no purpose"])
def test_what_cannot_be_recorded_is_not_shown(
    config: Path, capsys: pytest.CaptureFixture[str], hindrance: str
) -> None:
    """Not even whether the number is known."""
    capsys.readouterr()
    if hindrance != "no purpose":
        folder = config.parent / hindrance.removeprefix("no ")
        folder.rename(folder.with_name("moved"))
    assert show(config, landmarks(1)["answered"], purpose=hindrance[11:] or " ") == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert landmarks(1)["answered"] not in written.err


def test_what_is_no_number_is_wrong_usage(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is not repeated."""
    assert show(config, "85073099735") == 2
    assert "85073099735" not in capsys.readouterr().err


def test_a_sound_directory_is_sound_and_a_damaged_one_is_not(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people and for programs."""
    assert main(["directory", "check", "--config", str(config)]) == 0
    assert "sound" in capsys.readouterr().out
    data = config.parent / "directory/version-00000001/data.mdb"
    data.write_bytes(data.read_bytes() + b"\0")
    assert main(["directory", "check", "--directory", str(config.parent / "directory")]) == 1
    assert "SHA-256" in capsys.readouterr().out
    assert main(["directory", "check", "--config", str(config), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1


def test_a_refused_file_is_named_with_its_rows(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and the version that serves stays."""
    bad = config.parent / "bad.csv"
    bad.write_text("insz\n", encoding="utf-8")
    assert main(["directory", "load", str(bad), "--config", str(config)]) == 1
    assert f"{bad}:1: " in capsys.readouterr().err


def test_synthesise_writes_to_standard_output_and_lists_its_landmarks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The landmarks are JSON, for the demo and the benches."""
    assert main(["directory", "synthesise", "--persons", "20", "--seed", "3"]) == 0
    assert capsys.readouterr().out.startswith("# SYNTHETIC: 20 persons")
    assert main(["directory", "synthesise", "--seed", "3", "--landmarks"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out) == landmarks(3)
    assert main(["directory", "synthesise", "--persons", "1"]) == 2
