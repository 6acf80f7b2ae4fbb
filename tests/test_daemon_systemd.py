"""What systemd hands over and hears, over real sockets and descriptors."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ksz_router.daemon.systemd import inherited_listener, notify, watchdog_seconds


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "WATCHDOG_USEC"):
        monkeypatch.delenv(name, raising=False)


def test_a_notice_reaches_the_socket_that_systemd_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One datagram a notice, exactly as said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        notify("STOPPING=1\nSTATUS=draining")
        manager.setblocking(False)
        assert manager.recv(4096) == b"READY=1"
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_an_abstract_socket_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): an address that begins with ``@`` is in the abstract namespace."""
    name = f"ksz-router-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("WATCHDOG=1")
        manager.setblocking(False)
        assert manager.recv(4096) == b"WATCHDOG=1"


def test_a_manager_that_is_not_there_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a manager, and with one that went away, a notice is nothing."""
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


def test_a_manager_that_does_not_listen_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its queue is full, a notice is dropped rather than waited for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(2_000):
            notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("text", "seconds"), [("20000000", 10.0), ("0", None), ("", None), ("soon", None)]
)
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None
) -> None:
    """sd_watchdog_enabled(3): notify every half of the time that systemd gives."""
    monkeypatch.setenv("WATCHDOG_USEC", text)
    assert watchdog_seconds() == seconds


CHILD = """
import os, sys
os.dup2(int(sys.argv[2]), 3)
from ksz_router.daemon.systemd import inherited_listener
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "mine" else "1"
found = inherited_listener()
print(found.getsockname()[1] if found else None)
"""


@pytest.mark.parametrize(("whose", "fds"), [("mine", "1"), ("another's", "1"), ("mine", "0")])
def test_the_listener_of_a_socket_unit_is_taken_over(whose: str, fds: str) -> None:
    """Descriptor 3, if it was opened for this very process (sd_listen_fds(3)); else none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, whose, str(listener.fileno())],
            env=os.environ | {"LISTEN_FDS": fds, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[listener.fileno()], capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
        port = listener.getsockname()[1]
    assert child.stdout.strip() == (str(port) if (whose, fds) == ("mine", "1") else "None")


def test_without_a_socket_unit_there_is_no_listener() -> None:
    """Started by hand, the router opens its own."""
    assert inherited_listener() is None
