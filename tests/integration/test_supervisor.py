"""The supervisor to the outside: systemd, signals, operators, and a second router by mistake."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from contrib.stand import ROOT
from ksz_router.cli import BAD_CONFIG, NOT_IN_ORDER
from ksz_router.codes import Code
from tests.integration.stands import Town, asking, connection_test, on_trio, town, until

AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "router"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("supervisor") / "stand", workers=2) as made:
        yield made


@contextlib.contextmanager
def notifications(folder: Path) -> Iterator[Callable[[], list[str]]]:
    """A socket such as systemd listens on; gives what came so far."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        path = folder / "notify"
        path.unlink(missing_ok=True)
        sock.bind(str(path))

        def collect() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.append(sock.recv(4096).decode())
            return heard

        yield collect
        path.unlink()


@on_trio
async def test_it_does_what_systemd_asks_of_a_service(stand: Town) -> None:
    """Serves on a socket that it inherits, says when it is ready, alive, reloading and stopping."""
    with notifications(stand.folder) as heard, socket.create_server(("127.0.0.1", 0)) as listener:
        configured, stand.port = stand.port, listener.getsockname()[1]
        fd = listener.fileno()
        environment = {"NOTIFY_SOCKET": str(stand.folder / "notify"), "WATCHDOG_USEC": "200000"}
        stand.start(
            before=[sys.executable, "-c", AS_SYSTEMD_DOES, str(fd)],
            environment=environment,
            pass_fds=[fd],
            wait=False,
        )
        await until(lambda: "READY=1" in heard())
        assert stand.is_ready
        async with asking(stand) as client:
            assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
        await until(lambda: heard().count("WATCHDOG=1") > 3)
        stand.signal(signal.SIGHUP)
        await until(lambda: heard().count("READY=1") == 2)
        stand.signal(signal.SIGINT)
        assert await trio.to_thread.run_sync(stand.ended) == 0
        assert any(word.endswith("STATUS=ready") for word in heard())
        told = [word for word in heard() if not word.startswith(("WATCHDOG", "STATUS", "EXTEND"))]
        told[1], _, moment = told[1].partition("\nMONOTONIC_USEC=")
        assert told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        assert 0 < int(moment) <= time.monotonic_ns() // 1000
        socket.create_connection(("127.0.0.1", stand.port)).close()  # the socket outlives it
    stand.port = configured


def is_full(address: Path) -> bool:
    """Nobody reads there, and nothing more is taken."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.sendto(b"", str(address))
        except BlockingIOError:
            return True
    return False


@on_trio
async def test_a_manager_that_does_not_listen_holds_nobody_up(stand: Town) -> None:
    """Its queue is full, or its socket is gone: the router serves all the same."""
    environment = {"NOTIFY_SOCKET": str(stand.folder / "notify"), "WATCHDOG_USEC": "20000"}
    with notifications(stand.folder):
        stand.start(environment=environment)
        await until(lambda: is_full(stand.folder / "notify"))
        assert stand.is_ready
    await until(lambda: stand.is_ready)
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ksz_router", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


def test_status_without_a_router_says_so_in_one_line(stand: Town) -> None:
    """Exit code 1 and the socket's name; a socket that was left behind changes nothing."""
    done = command("status", "--config", stand.config)
    assert done.returncode == NOT_IN_ORDER
    assert done.stderr.count("\n") == 1
    assert f"{stand.folder}/admin.sock: no router answers" in done.stderr


@pytest.mark.parametrize(
    ("part", "file", "words"),
    [
        ("certificates", "tls/router.key", "router.key: no such file"),
        ("certificates", "tls/authorities.pem", "authorities.pem"),
        ("rulebook", "rulebook/active", "rulebook activate"),
        ("rulebook", "keys/rulebook-signer.pub", "rulebook-signer.pub"),
        ("directory", "directory/current", "directory"),
        ("log keys", "keys/privacylog", "keys"),
        ("checkpoint keys", "keys/checkpoint/ed25519.pem", "keys checkpoint"),
    ],
)
def test_check_config_names_what_is_missing(stand: Town, part: str, file: str, words: str) -> None:
    """Every other part is fine, the exit code is 78, and the line says what to do."""
    (stand.folder / file).rename(stand.folder / "aside")
    try:
        done = command("check-config", "--config", stand.config)
    finally:
        (stand.folder / "aside").rename(stand.folder / file)
    assert done.returncode == BAD_CONFIG
    lines = done.stdout.splitlines()
    (line,) = [line for line in lines if "NOT OK" in line]
    assert line.startswith(part)
    assert words in line
    assert len([line for line in lines if "  ok  " in line]) == 8


def test_check_config_names_a_ledger_that_cannot_be_made(stand: Town) -> None:
    """Not at the first submission, and not only when the router starts."""
    bad = stand.folder / "no-ledger.toml"
    text = stand.config.read_text(encoding="utf-8")
    bad.write_text(text.replace('path = "ledger"', 'path = "router.toml/ledger"'), encoding="utf-8")
    done = command("check-config", "--config", bad)
    assert done.returncode == BAD_CONFIG
    (line,) = [line for line in done.stdout.splitlines() if "NOT OK" in line]
    assert line.startswith("ledger")
    assert "change ledger.path" in line


def test_a_router_that_cannot_start_says_why_and_is_not_tried_again(stand: Town) -> None:
    """Exit code 78, which systemd knows not to try again."""
    text = stand.config.read_text(encoding="utf-8")
    bad = stand.folder / "bad.toml"
    bad.write_text(text.replace("workers = 2", "workers = 0"), encoding="utf-8")
    for verb in ("check-config", "run"):
        done = command(verb, "--config", bad)
        assert done.returncode == BAD_CONFIG
        assert "node.workers = 0" in done.stderr
    (stand.store / "active").rename(stand.folder / "aside")
    done = command("run", "--config", stand.config)
    (stand.folder / "aside").rename(stand.store / "active")
    assert done.returncode == BAD_CONFIG
    assert "no active generation" in done.stderr


@pytest.fixture(scope="module")
def running(stand: Town) -> Iterator[Town]:
    """The stand with its router up; and the same router started once more, as ``twin``."""
    stand.start()
    yield stand
    stand.signal(signal.SIGTERM)
    assert stand.ended() == 0


@on_trio
async def test_every_worker_tells_how_often_programs_and_workers_were_started_again(
    running: Town,
) -> None:
    """Also of one that died before anybody could have asked it; a new worker knows of before."""

    def told(worker: int) -> dict[str, float]:
        pattern = r'^ksz_router_restarts_total\{process="([\w-]+)"\} (\S+)$'
        with contextlib.suppress(OSError):  # it starts
            found = re.findall(pattern, running.scrape(worker), re.MULTILINE)
            return {name: float(count) for name, count in found}
        return {}

    (sequencer,) = running.ask().programs
    before = sequencer.restarts
    os.kill(sequencer.pid, signal.SIGKILL)
    await until(lambda: running.ask().programs[0].pid not in (0, sequencer.pid))
    await until(lambda: all(told(n).get("sequencer") == before + 1 for n in (0, 1)))
    counts = [worker.restarts for worker in running.ask().workers]
    os.kill(running.worker_pids()[0], signal.SIGKILL)
    expected = {"sequencer": before + 1, "worker-0": counts[0] + 1, "worker-1": counts[1]}
    await until(lambda: told(0) == told(1) == expected)


@pytest.fixture(scope="module")
def twin(running: Town) -> Iterator[subprocess.Popen[str]]:
    """The same router once more, by mistake; it takes ten seconds to give up."""
    line = [sys.executable, "-m", "ksz_router", "run", "--config", str(running.config)]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def stranger(running: Town) -> Iterator[Town]:
    """A router with ports and an admin socket of its own, but the log folder of another."""
    other = Town(running.folder)
    other.config, other.output = running.folder / "other.toml", running.folder / "other.out"
    text = running.config.read_text(encoding="utf-8")
    for old, new in ((running.port, 0), (running.metrics_port, 0)):
        text = text.replace(f"port = {old}", f"port = {new}")
    text = text.replace("admin.sock", "other.sock") + "[stop]\ndrain_seconds = 0\n"
    other.config.write_text(text, encoding="utf-8")
    other.start(wait=False)
    yield other
    other.kill()


@pytest.mark.usefixtures("twin", "stranger")
def test_the_admin_socket_is_for_owner_and_group(running: Town) -> None:
    """Whatever the umask of who started it."""
    mode = (running.folder / "admin.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
    listed = command("status", "--config", running.config)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "stand: ready" in listed.stdout


@on_trio
async def test_a_second_router_on_the_same_log_waits_for_a_while_and_gives_up(
    running: Town, stranger: Town
) -> None:
    """As long as an earlier run may drain: then it ends with code 1, and says why."""
    slots = {f"{running.log / slot}: another process writes this slot" for slot in ("w0", "w1")}
    assert await trio.to_thread.run_sync(stranger.ended) == NOT_IN_ORDER
    lines = stranger.output.read_text(encoding="utf-8").splitlines()
    assert lines.pop() == f"ksz-router: {running.log}: another router writes it, and does not end"
    stranger.output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert {event["reason"] for event in stranger.events("waiting_for_slot")} == slots
    assert {event["reason"] for event in stranger.events("log_not_writable")} <= slots
    assert not stranger.events("worker_ready")
    assert running.is_ready
    async with asking(running) as client:
        assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA


def test_the_same_router_started_twice_gives_up_and_leaves_the_first_alone(
    running: Town, twin: subprocess.Popen[str]
) -> None:
    """The first keeps its port and its admin socket."""
    _, complaint = twin.communicate(timeout=20)
    assert twin.returncode == NOT_IN_ORDER
    assert f"cannot listen on 127.0.0.1, port {running.port}: Address already in use" in complaint
    assert running.is_ready
