"""Rulebook, certificates and directory change under load: nothing is lost, nothing half done."""

import contextlib
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from contrib.stand import ROOT, ROUTER_URI, free_ports
from ksz_router import tls
from ksz_router.cli import BAD_CONFIG
from ksz_router.cli.testpki import issue, make_authority
from ksz_router.codes import Code
from ksz_router.dial import dial
from ksz_router.directory.synthesise import landmarks
from ksz_router.privacylog.entry import Kind
from ksz_router.rulebook.generation import SIGNATURE, folder_of
from ksz_router.sdk import AuthenticationError, Identity
from ksz_router.wire import Connection, Side
from tests.integration.stands import (
    CENTRE,
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
RIGHT = 'user_key = "8a504b0e42e77932dd81c93801986144"'


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("reload") / "stand"
    with town(folder, endpoints={RVA: PORT}, workers=2) as made:
        made.start()
        yield made


@contextlib.asynccontextmanager
async def crowds(stand: Town, count: int = 3) -> AsyncIterator[list[Crowd]]:
    """Several connections with many requests in flight on each, as long as the context lasts."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(providing(stand, PORT, Source()))
        found = [Crowd(await stack.enter_async_context(asking(stand))) for _ in range(count)]
        async with trio.open_nursery() as nursery:
            for crowd in found:
                nursery.start_soon(crowd.run)
            for crowd in found:
                await crowd.grown(100)
            yield found
            for crowd in found:
                crowd.stop()


def rename(stand: Town, name: str) -> str:
    """Change the rulebook without changing a right; return the new generation's name."""
    file = stand.folder / "rulebook-text" / "institutions" / "requesters.toml"
    text = file.read_text(encoding="utf-8")
    before, _, after = text.partition('name = "')
    file.write_text(f'{before}name = "{name}"{after.partition(chr(34))[2]}', encoding="utf-8")
    return stand.activate_rulebook()


def goes_by(stand: Town, generation: str) -> bool:
    """Every worker says that it goes by this generation."""
    reports = [worker.report for worker in stand.ask().workers]
    return all(report is not None and report.generation == generation for report in reports)


@on_trio
async def test_a_hangup_brings_a_new_rulebook_in_without_losing_a_request(stand: Town) -> None:
    """Every answer rests on the old generation or the new one, and in the end on the new one."""
    old = stand.ask().generation
    async with crowds(stand) as found:
        handshakes = stand.metric("ksz_router_handshakes_total")
        new = await trio.to_thread.run_sync(rename, stand, "Zandbergen, renamed")
        stand.signal(signal.SIGHUP)
        await until(lambda: goes_by(stand, new))
        marks = [len(crowd.answers) + 16 for crowd in found]
        for crowd in found:
            await crowd.grown(100)
        assert stand.metric("ksz_router_handshakes_total") == handshakes
    for crowd, mark in zip(found, marks, strict=True):
        assert len(crowd.answers) == crowd.asked
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
        assert {answer.generation for answer in crowd.answers} == {old, new}
        assert {answer.generation for answer in crowd.answers[mark:]} == {new}
    assert stand.events("reloaded")[-1]["generation"] == new


@on_trio
async def test_a_right_that_a_new_rulebook_ended_is_refused_from_the_next_message_on(
    stand: Town,
) -> None:
    """On the same connection, and for the one who lost it only."""
    file = "rights/ocmw.toml"
    async with providing(stand, PORT, Source()), asking(stand) as client:
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
        stand.replace_text(file, RIGHT, f"{RIGHT}\nend = 2024-12-31")
        await trio.to_thread.run_sync(stand.activate_rulebook)
        status = await trio.to_thread.run_sync(stand.ask, "reload")
        refused = await client.ask(request())
        passed = await client.ask(request(user=None, application="00901000101"))
        assert (status.failed, refused.code) == ({}, Code.ACCESS_RIGHT_NOT_IN_FORCE)
        assert passed.code == Code.ANSWERED_WITH_DATA
        assert refused.generation == passed.generation == status.generation
        stand.replace_text(file, f"{RIGHT}\nend = 2024-12-31", RIGHT)
        await trio.to_thread.run_sync(stand.activate_rulebook)
        await trio.to_thread.run_sync(stand.ask, "reload")
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA


def unsigned(stand: Town) -> str:
    name = rename(stand, "Zandbergen, unsigned")
    (folder_of(stand.store, name) / SIGNATURE).unlink()
    return "not signed"


def damaged(stand: Town) -> str:
    name = rename(stand, "Zandbergen, damaged")
    with (folder_of(stand.store, name) / "data.mdb").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 64)
    return "data.mdb"


def unknown(stand: Town) -> str:
    (stand.store / "active").write_text("0" * len(stand.ask().generation) + "\n")
    return "has no generation"


@pytest.mark.parametrize("spoil", [unsigned, damaged, unknown])
@on_trio
async def test_a_bad_rulebook_is_refused_whole_and_the_running_one_goes_on(
    stand: Town, spoil: Callable[[Town], str]
) -> None:
    """The reason stands in the answer to the operator and in the log; nobody else notices."""
    running = stand.ask().generation
    async with crowds(stand, 1) as (crowd,):
        reason = await trio.to_thread.run_sync(spoil, stand)
        status = await trio.to_thread.run_sync(stand.ask, "reload")
        (stand.store / "active").write_text(f"{running}\n")
        await crowd.grown(50)
    assert list(status.failed) == ["rulebook"]
    assert reason in status.failed["rulebook"]
    assert stand.events("reload_refused")[-1]["reasons"]["rulebook"] == status.failed["rulebook"]
    assert (status.is_ready, status.generation) == (True, running)
    assert {answer.generation for answer in crowd.answers} == {running}
    assert [worker.restarts for worker in status.workers] == [0, 0]


def test_the_status_command_reloads_and_says_by_its_exit_code_whether_that_went_well(
    stand: Town,
) -> None:
    """0 where everything is in force, 1 with the reason where something was refused.

    A configuration that cannot be read does not say where the socket is: it may be named.
    """

    def reload(
        option: str = "--config", file: Path = stand.config
    ) -> subprocess.CompletedProcess[str]:
        words = ("ksz_router", "status", "--reload", option, str(file))
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )

    running = stand.ask().generation
    done = reload()
    assert (done.returncode, done.stderr) == (0, "")
    assert "ready" in done.stdout
    unknown(stand)
    refused = reload()
    (stand.store / "active").write_text(f"{running}\n")
    assert refused.returncode == 1
    assert "rulebook: refused: " in refused.stdout
    good = stand.config.read_bytes()
    stand.config.write_bytes(b"[nonsense")
    unread, refused = reload(), reload("--socket", stand.folder / "admin.sock")
    stand.config.write_bytes(good)
    assert (unread.returncode, unread.stdout) == (BAD_CONFIG, "")
    assert refused.returncode == 1
    assert "configuration: refused: " in refused.stdout


async def certificate_served(stand: Town, identity: Identity) -> bytes:
    """The certificate that a new connection sees, DER."""
    context = tls.client_context(
        certificate=identity.certificate, key=identity.key, authorities=identity.authorities
    )
    connection = Connection(Side.REQUESTER, agent="a test")
    link = await dial("127.0.0.1", stand.port, context, connection, ROUTER_URI)
    with contextlib.closing(link):
        return link.peer_certificate()


def roll_over(stand: Town) -> tuple[Path, Path]:
    """Give the router a certificate of another authority, and have both authorities accepted.

    Returns:
        The old authority alone, and both.
    """
    folder = stand.folder / "tls"
    alone = stand.folder / "old-authority.pem"
    shutil.copyfile(folder / "authorities.pem", alone)
    authority = make_authority("another")
    issued = issue(authority, "router", uris=[ROUTER_URI], addresses=["127.0.0.1"])
    (folder / "authorities.pem").write_bytes(alone.read_bytes() + authority.pem)
    (folder / "router.crt").write_bytes(issued.certificate)
    (folder / "router.key").write_bytes(issued.key)
    return alone, folder / "authorities.pem"


@on_trio
async def test_a_renewed_certificate_is_shown_to_newcomers_and_old_connections_live_on(
    stand: Town,
) -> None:
    """Rollover to another authority, on the side of requesters and on that of the source."""
    async with asking(stand) as client:
        await client.ask(connection_test())
        before = await certificate_served(stand, stand.identity(CENTRE))
        alone, both = roll_over(stand)
        assert (await trio.to_thread.run_sync(stand.ask, "reload")).failed == {}
        handshakes = stand.metric("ksz_router_handshakes_total", result="done")
        async with providing(stand, PORT, Source()):  # its authorities are both, from now on
            assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
        assert stand.metric("ksz_router_handshakes_total", result="done") == handshakes
        old, new = (
            msgspec.structs.replace(stand.identity(CENTRE), authorities=file)
            for file in (alone, both)
        )
        assert await certificate_served(stand, new) != before
        async with asking(stand, identity=old) as distrustful:
            with pytest.raises(AuthenticationError):
                await distrustful.ask(connection_test())


@on_trio
async def test_certificates_that_cannot_be_read_leave_the_old_ones_in_force(stand: Town) -> None:
    """A key that is none is refused with its file's name, and newcomers are still greeted."""
    key = stand.folder / "tls" / "router.key"
    good = key.read_bytes()
    key.write_bytes(b"no key\n")
    status = await trio.to_thread.run_sync(stand.ask, "reload")
    assert list(status.failed) == ["certificates"]
    assert str(key) in status.failed["certificates"]
    async with asking(stand) as client:
        assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
    key.write_bytes(good)
    assert (await trio.to_thread.run_sync(stand.ask, "reload")).failed == {}


@on_trio
async def test_a_worker_that_cannot_load_a_verified_rulebook_is_replaced(stand: Town) -> None:
    """Here it may not open one more file; it drains, and its successor can. No request is lost."""
    first, second = (worker.pid for worker in stand.ask().workers)
    async with crowds(stand) as found:
        new = await trio.to_thread.run_sync(rename, stand, "Zandbergen, once more")
        resource.prlimit(first, resource.RLIMIT_NOFILE, (1, 1024))
        status = await trio.to_thread.run_sync(stand.ask, "reload")
        assert list(status.failed) == ["rulebook in worker 0"]
        await until(lambda: goes_by(stand, new) and stand.is_ready)
        for crowd in found:
            await crowd.grown(50)
    replaced = stand.ask().workers
    assert replaced[0].pid != first
    assert replaced[1].pid == second
    for crowd in found:
        assert len(crowd.answers) == crowd.asked
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
        assert crowd.answers[-1].generation == new
    stand.verify_log()


def more_persons(stand: Town) -> Path:
    """The persons of the stand and as many others, in one file."""
    file = stand.folder / "more.csv"
    stand.command("directory", "synthesise", "--persons", 100, "--seed", 2, "--out", file)
    rows = file.read_text(encoding="utf-8").splitlines(keepends=True)[2:]
    text = (stand.folder / "persons.csv").read_text(encoding="utf-8")
    file.write_text(text + "".join(rows), encoding="utf-8")
    return file


@on_trio
async def test_a_directory_loaded_beside_is_taken_up_within_seconds(stand: Town) -> None:
    """Who is only in the new version is answered then, nobody loses a request meanwhile."""
    newcomer, file = landmarks(2)["answered"], more_persons(stand)
    async with crowds(stand, 2) as found, asking(stand) as client:
        assert (await client.ask(request(newcomer))).code == Code.PERSON_NOT_INTEGRATED
        await trio.to_thread.run_sync(
            lambda: stand.command("directory", "load", file, "--directory", stand.directory)
        )
        with trio.fail_after(5):
            while (await client.ask(request(newcomer))).code != Code.ANSWERED_WITH_DATA:
                await found[0].grown(1)
        await until(lambda: {e["version"] for e in stand.events("directory_loaded")} == {2})
    for crowd in found:
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
        assert len(crowd.answers) == crowd.asked
    written = [entry for entry in stand.entries() if entry.kind is Kind.REQUEST]
    assert {entry.directory_version for entry in written} == {1, 2}
    stand.verify_log()
