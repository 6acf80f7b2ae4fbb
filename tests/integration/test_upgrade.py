"""Restart and upgrade under load, the listening socket held by the parent as systemd holds it.

Nobody is refused a connection, and every request is answered once: by the old router, or by the
new one after the old one said that it drains.
"""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from contrib.stand import ROOT, free_ports
from ksz_router import __version__
from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind
from tests.integration.pipelines import Pipeline
from tests.integration.stands import (
    RVA,
    Crowd,
    Source,
    Town,
    asking,
    on_trio,
    providing,
    town,
    until,
)

PORT = free_ports(1)[0]
NEXT = f"{__version__}.1"
AS_SYSTEMD_DOES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.chdir(sys.argv[2])
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "router"}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Held:
    """A stand whose listening socket outlives its routers."""

    def __init__(self, stand: Town, listener: socket.socket) -> None:
        self.stand = stand
        self._fd = listener.fileno()
        stand.port = listener.getsockname()[1]

    def start(self, folder: Path = ROOT) -> None:
        """Start the program that lies in ``folder`` on the socket."""
        before = [sys.executable, "-c", AS_SYSTEMD_DOES, str(self._fd), str(folder)]
        self.stand.start(before=before, pass_fds=[self._fd], wait=False)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("upgrade") / "stand"
    options = {"stop": {"drain_seconds": 5.0}}
    with (
        town(folder, endpoints={RVA: PORT}, workers=2, options=options) as stand,
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
    ):
        yield Held(stand, listener)


@pytest.fixture(autouse=True)
def _nothing_left_running(held: Held) -> Iterator[None]:
    yield
    held.stand.kill()


async def come_and_go(stand: Town, found: list[Pipeline], until_set: trio.Event) -> None:
    """One connection after the other, a few requests on each."""
    while not until_set.is_set():
        newcomer = Pipeline(stand, width=2)
        found.append(newcomer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(newcomer.run)
            await newcomer.grown(2)
            newcomer.stop()


def settled_once(stand: Town) -> bool:
    """Every exchange that passed the control has one outcome, with data."""
    found: dict[bytes, list[int]] = {}
    for entry in stand.entries():
        if entry.exchange is not None and (entry.kind is Kind.OUTCOME or entry.code == 0):
            codes = found.setdefault(entry.exchange, [])
            if entry.kind is Kind.OUTCOME:
                codes.append(entry.code)
    return all(codes == [Code.ANSWERED_WITH_DATA] for codes in found.values())


def copy_of_the_program(folder: Path) -> Path:
    """The same program as another release, in a folder of its own."""
    shutil.copytree(ROOT / "ksz_router", folder / "ksz_router")
    init = folder / "ksz_router" / "__init__.py"
    text = init.read_text(encoding="utf-8")
    assert f'"{__version__}"' in text
    init.write_text(text.replace(f'"{__version__}"', f'"{NEXT}"'), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["restart", "upgrade that overlaps"])
@on_trio
async def test_under_load_nobody_is_refused_and_every_request_is_answered_once(
    held: Held, tmp_path: Path, kind: str
) -> None:
    """Connections that stay, others that come and go, and the SDK without asking it to resend."""
    stand = held.stand
    program = ROOT if kind == "restart" else copy_of_the_program(tmp_path)
    held.start()
    old = stand.process
    assert old is not None
    lines, newcomers, over = [Pipeline(stand) for _ in range(3)], list[Pipeline](), trio.Event()
    async with providing(stand, PORT, Source()), asking(stand) as client:
        crowd = Crowd(client, askers=4, deadline_s=40)
        async with trio.open_nursery() as nursery:
            for line in lines:
                nursery.start_soon(line.run)
            nursery.start_soon(crowd.run)
            nursery.start_soon(come_and_go, stand, newcomers, over)
            for line in lines:
                await line.grown(50)
            old.send_signal(signal.SIGTERM)
            if kind == "restart":
                assert await trio.to_thread.run_sync(old.wait) == 0
            held.start(program)
            await trio.to_thread.run_sync(stand.wait_ready)
            for line in lines:
                await line.grown(50, seconds=60)
            await crowd.grown(10)
            over.set()
            crowd.stop()
            for line in lines:
                line.stop()
    assert await trio.to_thread.run_sync(old.wait) == 0
    for line in [*lines, *newcomers]:
        assert (line.faults, set(line.codes)) == ({}, {Code.ANSWERED_WITH_DATA})
    assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
    assert len(crowd.answers) == crowd.asked
    version = __version__ if kind == "restart" else NEXT
    for line in lines:
        assert line.agents[0].startswith(f"ksz-router/{__version__} ")
        assert line.agents[-1].startswith(f"ksz-router/{version} ")
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0
    assert not stand.events("worker_ended")
    stand.verify_log()
    assert settled_once(stand)


@on_trio
async def test_a_program_that_was_exchanged_under_a_running_router_starts_no_worker(
    held: Held, tmp_path: Path
) -> None:
    """The worker that is to be replaced says what to do; the others go on; a restart mends it."""
    stand, folder = held.stand, copy_of_the_program(tmp_path)
    init = folder / "ksz_router" / "__init__.py"
    new = init.read_text(encoding="utf-8")
    init.write_text(new.replace(NEXT, __version__), encoding="utf-8")
    held.start(folder)
    await trio.to_thread.run_sync(stand.wait_ready)
    init.write_text(new, encoding="utf-8")
    os.kill(stand.worker_pids()[0], signal.SIGKILL)
    await until(lambda: stand.events("cannot_start"), seconds=60)
    reason = stand.events("cannot_start")[0]["reason"]
    assert reason == f"this is version {NEXT}, the supervisor {__version__}: restart the router"
    assert not stand.is_ready
    newcomer = Pipeline(stand, width=2)
    async with providing(stand, PORT, Source()), trio.open_nursery() as nursery:
        nursery.start_soon(newcomer.run)
        await newcomer.grown(10)
        newcomer.stop()
    assert newcomer.faults == {}
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0
