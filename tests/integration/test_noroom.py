"""No room, for real: the kernel itself refuses a running router blocks, sizes and descriptors.

What a router cannot record it does not forward; it says so to who asks and to who watches, and
goes on by itself when there is room again.
"""

import contextlib
import functools
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trio

from contrib.stand import free_ports
from ksz_router.cli import NOT_IN_ORDER, OK
from ksz_router.codes import Action, Code
from ksz_router.limits import MIB
from ksz_router.messages import Answer
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.privacylog.verify import verify
from ksz_router.sdk import Client
from tests.integration.stands import (
    RVA,
    Crowd,
    Source,
    Town,
    asking,
    connection_test,
    on_trio,
    providing,
    request,
    town,
    until,
)

PORT = free_ports(1)[0]
FILE_BYTES = 2 * MIB
TMPFS = 'mount -t tmpfs -o size={size},mode=700 none "{folder}" && exec "$@"'


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    options = {"privacy_log": {"path": "privacylog", "file_bytes": FILE_BYTES}}
    with town(
        tmp_path_factory.mktemp("noroom") / "stand", endpoints={RVA: PORT}, options=options
    ) as made:
        made.log.mkdir()
        yield made


@contextlib.contextmanager
def running(stand: Town, **how: Any) -> Iterator[None]:
    stand.start(**how)
    try:
        yield
    finally:
        assert stand.process is not None
        stand.process.terminate()
        assert stand.ended() == 0


def limit(pid: int, what: int, soft: int | None) -> None:
    """Let the kernel allow a running process less; None: as much as ever."""
    hard = resource.prlimit(pid, what)[1]
    resource.prlimit(pid, what, (hard if soft is None else soft, hard))


def worker_pid(stand: Town) -> int:
    return stand.ask().workers[0].pid


async def status(stand: Town, code: int) -> None:
    """The command that operators and their scripts use, and what it must exit with."""
    command = functools.partial(stand.command, "status", "--config", stand.config, accept=(code,))
    await trio.to_thread.run_sync(command)


def limit_files(stand: Town, size: int | None) -> None:
    """No file of the router may grow beyond, those of workers to come included."""
    assert stand.process is not None
    for pid in (stand.process.pid, worker_pid(stand)):
        limit(pid, resource.RLIMIT_FSIZE, size)


def readiness(stand: Town) -> tuple[int, str]:
    """What ``/ready`` says, to a load balancer: status and words."""
    try:
        with urlopen(f"http://127.0.0.1:{stand.metrics_port}/ready") as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def assert_says_why(stand: Town, reason: str) -> None:
    """Everybody who asks how it is hears the same."""
    await until(lambda: stand.ask().workers[0].why_not == reason)
    assert not stand.is_ready
    await status(stand, NOT_IN_ORDER)
    assert readiness(stand) == (503, f"{reason}\n")
    assert stand.metric("ksz_router_ready") == 0
    assert stand.metric("ksz_router_not_ready", reason=reason) == 1
    assert stand.metric("ksz_router_not_ready") == 1
    await until(lambda: stand.events("readiness_changed")[-1]["not_ready"] == [reason])


async def assert_ready_again(stand: Town) -> None:
    """Nobody did anything but make room."""
    await until(lambda: stand.is_ready)
    await status(stand, OK)
    assert readiness(stand) == (200, "ready\n")
    assert stand.metric("ksz_router_ready") == 1
    assert stand.metric("ksz_router_not_ready") == 0


def assert_refused(answer: Answer) -> None:
    """Typed, without an exchange, and with a moment to come back."""
    assert (answer.code, answer.exchange) == (Code.LOG_NOT_WRITABLE, b"")
    assert answer.action == Action.RETRY_AT
    assert answer.retry_at_ms


def assert_nothing_unrecorded(entries: list[Entry], source: Source, answers: list[Answer]) -> None:
    """Each delivery has its request, and each answer its outcome, in the log."""
    passed = {e.exchange for e in entries if e.kind is Kind.REQUEST and e.code == 0}
    ended = {(e.exchange, e.code) for e in entries if e.kind is Kind.OUTCOME}
    assert {delivery.exchange for delivery in source.asked} <= passed
    assert {(answer.exchange, answer.code) for answer in answers if answer.exchange} <= ended
    assert passed <= {exchange for exchange, _ in ended}


async def ask_many(client: Client, count: int) -> list[Answer]:
    """Ask all at once; each gets its answer, once."""
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await client.ask(connection_test(), deadline_s=10.0))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return answers


@on_trio
async def test_what_the_disk_does_not_take_is_not_forwarded(stand: Town) -> None:
    """A commit fails under load: the worker ends, its successor refuses until there is room."""
    source = Source()
    with running(stand):
        async with providing(stand, PORT, source), asking(stand) as client:
            crowd = Crowd(client, resend=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crowd.run)
                await crowd.grown(100)
                limit_files(stand, 8192)
                await until(lambda: stand.events("worker_ended"))
                await assert_says_why(stand, "log_not_open")
                asked = len(source.asked)
                await crowd.grown(16)
                assert_refused(crowd.answers[-1])
                assert len(source.asked) == asked
                limit_files(stand, None)
                await assert_ready_again(stand)
                before = sum(answer.code == Code.ANSWERED_WITH_DATA for answer in crowd.answers)
                await crowd.grown(100)
                crowd.stop()
            after = sum(answer.code == Code.ANSWERED_WITH_DATA for answer in crowd.answers)
            assert after > before
            assert stand.ask().workers[0].restarts == 1, "it refuses, and does not start over"
    assert stand.events("worker_ended")[-1]["exit_code"] == 3
    assert {answer.code for answer in crowd.answers} == {
        Code.ANSWERED_WITH_DATA,
        Code.LOG_NOT_WRITABLE,
    }
    assert_nothing_unrecorded(stand.entries(), source, crowd.answers)
    stand.verify_log()


def may_mount(folder: Path) -> bool:
    line = ["unshare", "-Urm", "sh", "-c", TMPFS.format(size="1m", folder=folder), "sh", "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(line, check=False, capture_output=True).returncode == 0
    return False


@on_trio
async def test_a_disk_that_is_full_stops_the_router_and_room_lets_it_go_on(stand: Town) -> None:
    """A file system of its own, filled to the last byte; a worker that is killed then waits."""
    if not may_mount(stand.log):
        pytest.skip("this kernel lets no ordinary user mount a tmpfs in a namespace of his own")
    mount = TMPFS.format(size="16m", folder=stand.log)
    source, answers = Source(), []
    with running(stand, before=["unshare", "-Urm", "sh", "-c", mount, "sh"]):
        assert stand.process is not None
        log = Path(f"/proc/{stand.process.pid}/root{stand.log}")
        assert not list((stand.log).glob("w0/mine"))
        ballast = log / "ballast"
        async with providing(stand, PORT, source), asking(stand) as client:
            answers.append(await client.ask(request()))
            await until((log / "w0" / "prepared").exists)
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(65_536))
            await assert_says_why(stand, "log_disk_short")
            assert_refused(await client.ask(request(), deadline_s=10.0))
            os.kill(worker_pid(stand), signal.SIGKILL)
            await until(lambda: stand.events("worker_ended"))
            # It opens the file that was prepared, and there is no room for another one.
            await until(lambda: stand.ask().workers[0].restarts == 1)
            await assert_says_why(stand, "log_disk_short")
            assert_refused(await client.ask(request(), deadline_s=10.0, resend=True))
            ended = len(stand.events("worker_ended"))
            os.kill(worker_pid(stand), signal.SIGKILL)
            await until(lambda: len(stand.events("worker_ended")) > ended)
            await assert_says_why(stand, "log_not_open")
            assert "No space left on device" in stand.events("log_not_writable")[-1]["reason"]
            assert_refused(await client.ask(request(), deadline_s=10.0, resend=True))
            assert len(source.asked) == 1
            ballast.unlink()
            await assert_ready_again(stand)
            answers.append(await client.ask(request()))
        assert {answer.code for answer in answers} == {Code.ANSWERED_WITH_DATA}
        real, stand.log = stand.log, log
        assert_nothing_unrecorded(stand.entries(), source, answers)
        stand.log = real
        assert verify(log, stand.keys).faults == []


@on_trio
async def test_without_descriptors_the_log_and_the_metrics_go_on(stand: Town) -> None:
    """Who is connected is served and recorded; who is not waits, and descriptors are left."""
    source = Source()
    with running(stand, before=["sh", "-c", 'ulimit -n 80; exec "$@"', "sh"]):
        await until((stand.log / "w0" / "prepared").exists)
        files = len(list(stand.log.glob("w0/*.wal")))
        async with providing(stand, PORT, source), asking(stand) as client:
            answers = await ask_many(client, 1)
            with contextlib.ExitStack() as crowd:
                connect = functools.partial(socket.create_connection, ("127.0.0.1", stand.port))
                for _ in range(150):
                    crowd.enter_context(connect())
                while len(list(stand.log.glob("w0/*.wal"))) == files:
                    answers += await ask_many(client, 200)
                    assert len(answers) < 10_000
            await until(lambda: stand.is_ready)
            answers.append(await client.ask(request()))
            assert {answer.code for answer in answers} == {Code.ANSWERED_WITH_DATA}
        async with asking(stand) as another:
            assert (await another.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
        assert stand.ask().workers[0].restarts == 0
    assert_nothing_unrecorded(stand.entries(), source, answers)
    stand.verify_log()
