"""``ksz-router rulebook`` from text to active generation, and what it says when it refuses."""

import io
import json
from pathlib import Path

import pytest

from ksz_router.cli import NOT_IN_ORDER, OK, USAGE, main
from ksz_router.rights import user_key
from ksz_router.rulebook.activation import active
from tests.worlds import CENTRE, EXAMPLE, TODAY, USER_A, make_world, write_signer


def test_from_text_to_active_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check, build, activate, show: the whole road, with the commands of the README."""
    key, _ = write_signer(tmp_path)
    store = ["--store", str(tmp_path / "store")]
    assert main(["rulebook", "check", str(EXAMPLE)]) == OK
    capsys.readouterr()
    assert main(["rulebook", "build", str(EXAMPLE), *store, "--json"]) == OK
    name = json.loads(capsys.readouterr().out)["manifest"]["name"]
    assert main(["rulebook", "activate", name, *store, "--key", str(key)]) == OK
    assert active(tmp_path / "store") == name
    capsys.readouterr()

    assert main(["rulebook", "show", *store]) == OK
    assert capsys.readouterr().out == f"{name}  active\n"
    assert main(["rulebook", "show", name, *store]) == OK
    shown = capsys.readouterr().out
    assert "grant wse-dmfa: request by 0999018539, framework VO:WORK_PERMIT" in shown
    assert "grant podmi-a036: receive by 16/2" in shown
    assert main(["rulebook", "show", name, *store, "--json"]) == OK
    table = json.loads(capsys.readouterr().out)
    assert len(table["institutions"]) == 16


def test_check_tells_every_finding_and_refuses_on_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, line, kind, reason and mend, as an editor can jump to."""
    world = make_world(tmp_path)
    right = world.text / "rights" / "ocmw.toml"
    right.write_text(
        right.read_text(encoding="utf-8").replace("level = 3", "level = 7"), encoding="utf-8"
    )
    words = ["rulebook", "check", str(world.text), "--today", str(TODAY)]

    assert main(words) == NOT_IN_ORDER
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "20 files: 1 errors, 3 warnings"
    assert (
        "rights/ocmw.toml:13: error: level = 7 is out of range; give a value from 0 to 4" in lines
    )

    assert main([*words, "--json"]) == NOT_IN_ORDER
    table = json.loads(capsys.readouterr().out)
    assert [finding["error"] for finding in table["findings"]].count(True) == 1

    store = str(tmp_path / "other")
    assert main(["rulebook", "build", str(world.text), "--store", store]) == NOT_IN_ORDER
    shown = capsys.readouterr()
    assert "rights/ocmw.toml:13: error" in shown.out
    assert "the rulebook is refused: 1 error(s)" in shown.err


def test_warnings_alone_do_not_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    """The example ends with its three warnings and is in order."""
    assert main(["rulebook", "check", str(EXAMPLE), "--today", str(TODAY)]) == OK
    assert capsys.readouterr().out.count(": warning: ") == 3


def test_a_user_key_is_read_from_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is on no command line, in no history and in no message."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{USER_A}\n"))
    assert main(["rulebook", "user-key", "--institution", CENTRE]) == OK
    assert capsys.readouterr().out == user_key(CENTRE, USER_A) + "\n"

    monkeypatch.setattr("sys.stdin", io.StringIO("85073099735\n"))
    assert main(["rulebook", "user-key", "--institution", CENTRE]) == USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "85073099735" not in shown.err
    assert main(["rulebook", "user-key", "--institution", "1"]) == USAGE


def test_what_cannot_be_used_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong folder, a wrong name, a wrong day."""
    store = ["--store", str(tmp_path)]
    assert main(["rulebook", "check", str(tmp_path / "nowhere")]) == NOT_IN_ORDER
    assert main(["rulebook", "show", "f" * 32, *store]) == NOT_IN_ORDER
    assert main(["rulebook", "check", str(EXAMPLE), "--today", "20260230"]) == USAGE
    assert capsys.readouterr().err.count("ksz-router: ") == 3
