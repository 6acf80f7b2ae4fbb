"""The systemd units: systemd itself accepts them, and finds little that they leave open."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ksz_router.cli import BAD_CONFIG

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "systemd"
SERVICE = UNITS / "ksz-router.service"
SOCKET = UNITS / "ksz-router.socket"
COMMAND = "/opt/ksz-router/bin/ksz-router"

EXPOSURE_TENTHS_MAX = 11

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def settings(unit: Path) -> dict[str, list[str]]:
    """Every setting of a unit with all its values, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def copied(folder: Path) -> list[Path]:
    """Copies whose command exists on this machine: ``verify`` asks for one that does."""
    copies = []
    for unit in (SERVICE, SOCKET):
        text = unit.read_text(encoding="utf-8")
        copy = folder / unit.name
        copy.write_text(text.replace(COMMAND, sys.executable), encoding="utf-8")
        copies.append(copy)
    return copies


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """No setting is misspelt or misplaced: systemd says so in words only, not by its exit code."""
    verdict = run("systemd-analyze", "verify", "--man=no", *copied(tmp_path))
    said = [line for line in verdict.stderr.splitlines() if "ksz-router" in line]
    assert (verdict.returncode, said) == (0, [])


@needs_systemd
def test_a_misspelt_setting_would_be_seen(tmp_path: Path) -> None:
    """The test above can fail."""
    service, _ = copied(tmp_path)
    text = service.read_text(encoding="utf-8").replace("PrivateTmp=", "PrivatTmp=")
    service.write_text(text, encoding="utf-8")
    assert "Unknown key 'PrivatTmp'" in run("systemd-analyze", "verify", service).stderr


@needs_systemd
def test_the_service_is_exposed_little() -> None:
    """At most 1.1 of 10 on systemd's own scale; its threshold counts tenths."""
    verdict = run(
        "systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}",
        SERVICE,
    )  # fmt: skip
    assert verdict.returncode == 0, verdict.stdout[-300:] + verdict.stderr


@pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None or os.geteuid() != 0,
    reason="needs systemd-sysusers and systemd-tmpfiles, and root to give folders to the user",
)
def test_user_and_folders_are_made_closed_to_others(tmp_path: Path) -> None:
    """On an empty machine both files apply, and nobody else can look into a folder."""
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    for command in (
        ("systemd-sysusers", root, UNITS / "ksz-router.sysusers.conf"),
        ("systemd-tmpfiles", "--create", root, UNITS / "ksz-router.tmpfiles.conf"),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr

    user = (tmp_path / "etc/passwd").read_text(encoding="utf-8").split(":")
    assert user[0] == "ksz-router"
    state = tmp_path / "var/lib/ksz-router"
    configuration = tmp_path / "etc/ksz-router"
    assert state.stat().st_uid == int(user[2])
    assert configuration.stat().st_uid == 0
    for folder in (state, configuration, *state.iterdir(), *configuration.iterdir()):
        assert folder.stat().st_mode & 0o007 == 0, folder


def test_systemd_waits_longer_than_a_router_drains() -> None:
    """Else open exchanges are cut off at every restart."""
    text = (ROOT / "config/router.toml").read_text(encoding="utf-8")
    drain_seconds = tomllib.loads(text)["stop"]["drain_seconds"]
    (stop,) = settings(SERVICE)["TimeoutStopSec"]
    of_workers, of_each_program = 10, 5  # after the drain; see control.py and companion.py
    assert int(stop.removesuffix("s")) >= drain_seconds + of_workers + 2 * of_each_program + 5


def test_systemd_listens_where_the_configuration_says() -> None:
    """The handed-over socket has the port and backlog that a router would open itself."""
    text = (ROOT / "config/router.toml").read_text(encoding="utf-8")
    listen = tomllib.loads(text)["listen"]
    socket = settings(SOCKET)
    assert socket["ListenStream"] == [str(listen["port"])]
    assert socket["Backlog"] == [str(listen["backlog"])]
    assert socket["FileDescriptorName"] == ["router"]


def test_every_command_of_the_unit_may_be_executed() -> None:
    """With ``NoExecPaths=/`` a reload fails when its command is not named."""
    service = settings(SERVICE)
    assert service["NoExecPaths"] == ["/"]
    allowed = [word.removeprefix("-") for line in service["ExecPaths"] for word in line.split()]
    for name in ("ExecStartPre", "ExecStart", "ExecReload"):
        (command,) = service[name]
        path = Path(command.split()[0])
        assert any(path.is_relative_to(prefix) for prefix in allowed), f"{name}: {path}"


def test_a_bad_configuration_is_not_tried_again() -> None:
    """The exit code of a bad configuration is the one that stops the restarts."""
    assert settings(SERVICE)["RestartPreventExitStatus"] == [str(BAD_CONFIG)]


_GROUPS_TAKEN = {"setpriority", "nice", "sched_setscheduler", "sched_setaffinity", "sched_setparam"}
"""Of ``os``, in the system call groups that the unit takes away (``@resources``)."""


def test_what_the_router_calls_is_not_filtered() -> None:
    """A call that a whole group is taken away with is given back by name, after that."""
    called = {
        ast.unparse(node.func).removeprefix("os.")
        for path in (ROOT / "ksz_router").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("os.")
    }
    needed = {name.replace("nice", "setpriority") for name in called & _GROUPS_TAKEN}
    lines = settings(SERVICE)["SystemCallFilter"]
    taken = next(n for n, line in enumerate(lines) if "@resources" in line)
    given = {name for line in lines[taken + 1 :] for name in line.split()}
    assert needed == given
