"""Everything that may be reloaded, each good and bad, while connections are kept full.

Whatever is loaded: every request is answered once, with data, and the report says by part what
changed, what did not, and what was refused and why.
"""

import contextlib
import functools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.cli.testpki import Authority, issue, make_authority, make_revocations
from ksz_router.codes import Code
from ksz_router.daemon.admin import Status
from ksz_router.privacylog.entry import Kind
from ksz_router.rulebook.generation import SIGNATURE, folder_of
from tests.integration.pipelines import Pipeline
from tests.integration.stands import (
    CENTRE,
    FUND,
    RVA,
    STRANGER,
    Source,
    Town,
    on_trio,
    providing,
    town,
    until,
)

PORT = free_ports(1)[0]
GRANT = "capacities = [1, 2, 3]\nprovisional = true\nbegin = 2019-04-01"
CONNECTIONS = 4


class Place:
    """A running stand, the authority behind its certificates, and what a change may need."""

    def __init__(self, stand: Town, authority: Authority) -> None:
        self.stand = stand
        self.authority = authority
        self.tls = stand.folder / "tls"

    def write_certificate(self, name: str, uri: str) -> None:
        """Issue a certificate anew, for the router or an institution."""
        issued = issue(self.authority, name, uris=[uri], addresses=["127.0.0.1"])
        (self.tls / f"{name}.crt").write_bytes(issued.certificate)
        (self.tls / f"{name}.key").write_bytes(issued.key)

    def write_revocations(self, *revoked: str) -> None:
        """Revoke the certificates of these institutions, and of no other."""
        pems = [(self.tls / f"{name}.crt").read_bytes() for name in revoked]
        (self.tls / "revocations.pem").write_bytes(make_revocations(self.authority, pems))

    def configure(self, old: str, new: str) -> None:
        """Change the configuration in one place."""
        text = self.stand.config.read_text(encoding="utf-8")
        assert old in text
        self.stand.config.write_text(text.replace(old, new, 1), encoding="utf-8")

    def activate(self, name: str) -> str:
        """Activate a rulebook that differs in the name of an institution only."""
        file = self.stand.folder / "rulebook-text" / "institutions" / "requesters.toml"
        before, _, after = file.read_text(encoding="utf-8").partition('name = "')
        file.write_text(f'{before}name = "{name}"{after.partition(chr(34))[2]}', encoding="utf-8")
        return self.stand.activate_rulebook()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("reload-load") / "stand"
    options = {
        "tls": {"revocations": "tls/revocations.pem"},
        "windows": {"source": 1000},
        "stop": {"drain_seconds": 5.0},
    }
    with town(folder, endpoints={RVA: PORT}, workers=2, options=options) as stand:
        made = Place(stand, make_authority())
        (made.tls / "authorities.pem").write_bytes(made.authority.pem)
        made.write_certificate("router", ROUTER_URI)
        for kbo in (RVA, CENTRE, FUND, STRANGER):
            made.write_certificate(kbo, f"urn:kbo:{kbo}")
        made.write_revocations()
        stand.start()
        yield made


@contextlib.asynccontextmanager
async def load(stand: Town) -> AsyncIterator[list[Pipeline]]:
    """Connections that are kept full, and have been for a moment; all is answered at the end."""
    lines = [Pipeline(stand) for _ in range(CONNECTIONS)]
    async with providing(stand, PORT, Source()), trio.open_nursery() as nursery:
        for line in lines:
            nursery.start_soon(line.run)
        for line in lines:
            await line.grown(50)
        yield lines
        for line in lines:
            await line.grown(50)
        for line in lines:
            line.stop()


async def reload(stand: Town) -> Status:
    return await trio.to_thread.run_sync(stand.ask, "reload")


@contextlib.contextmanager
def kept(*files: Path) -> Iterator[None]:
    """Put the files back as they were."""
    contents = {file: file.read_bytes() for file in files}
    yield
    for file, content in contents.items():
        file.write_bytes(content)


def good_rulebook(place: Place) -> None:
    place.activate(f"Zandbergen {os.urandom(4).hex()}")


def good_certificates(place: Place) -> None:
    place.write_certificate("router", ROUTER_URI)


def good_revocations(place: Place) -> None:
    place.write_revocations(STRANGER)


def good_configuration(place: Place) -> None:
    place.configure("source = 1000", "source = 999")


GOOD: dict[str, list[Callable[[Place], None]]] = {
    "rulebook": [good_rulebook],
    "certificates": [good_certificates, good_revocations],
    "configuration": [good_configuration],
}


@pytest.mark.parametrize(
    ("part", "change"), [(part, change) for part, changes in GOOD.items() for change in changes]
)
@on_trio
async def test_what_is_good_is_in_force_at_once_and_no_request_is_lost(
    place: Place, part: str, change: Callable[[Place], None]
) -> None:
    """Under load, all answered once with data; this part changed, in every worker, and no other."""
    async with load(place.stand) as lines:
        await trio.to_thread.run_sync(change, place)
        status = await reload(place.stand)
        marks = [line.last_number for line in lines]
    outcomes = {name: each.outcome for name, each in status.reload.items()}
    assert outcomes == {**dict.fromkeys(GOOD, "unchanged"), part: "changed"}
    assert (status.failed, status.is_ready) == ({}, True)
    for line, mark in zip(lines, marks, strict=True):
        assert (line.faults, set(line.codes)) == ({}, {Code.ANSWERED_WITH_DATA})
        later = {answer.generation for answer in line.answers if answer.id > mark}
        assert later == {status.generation}
        assert line.dials == 1
    assert place.stand.events("reloaded")[-1]["outcomes"] == outcomes


def tampered_rulebook(place: Place) -> str:
    name = place.activate("Zandbergen, tampered")
    data = folder_of(place.stand.store, name) / "data.mdb"
    content = bytearray(data.read_bytes())
    content[5000:5064] = b"\xff" * 64
    data.write_bytes(content)
    return "data.mdb"


def unsigned_rulebook(place: Place) -> str:
    name = place.activate("Zandbergen, unsigned")
    (folder_of(place.stand.store, name) / SIGNATURE).unlink()
    return "not signed"


def missing_rulebook(place: Place) -> str:
    active = place.stand.store / "active"
    active.write_text("0" * len(active.read_text().strip()) + "\n")
    return "has no generation"


def no_key(place: Place) -> str:
    (place.tls / "router.key").write_bytes(b"no key\n")
    return "router.key"


def key_of_another(place: Place) -> str:
    (place.tls / "router.key").write_bytes((place.tls / f"{FUND}.key").read_bytes())
    return "router.key"


def no_certificate(place: Place) -> str:
    (place.tls / "router.crt").unlink()
    return "router.crt: no such file"


def no_authorities(place: Place) -> str:
    (place.tls / "authorities.pem").write_bytes(b"")
    return "authorities.pem"


def broken_revocations(place: Place) -> str:
    good = (place.tls / "revocations.pem").read_bytes()
    (place.tls / "revocations.pem").write_bytes(good[: len(good) // 2])
    return "revocations.pem"


def no_toml(place: Place) -> str:
    place.configure("[windows]", "[windows")
    return "router.toml: is not TOML"


def unknown_key(place: Place) -> str:
    place.configure("[windows]", "[windows]\nfurniture = 1")
    return "furniture"


def value_out_of_range(place: Place) -> str:
    place.configure("[windows]", "[windows]\nconnection = 100000")
    return "windows.connection = 100000: must be from 1 to"


def no_configuration(place: Place) -> str:
    place.stand.config.unlink()
    return "cannot be read"


BAD: dict[str, list[Callable[[Place], str]]] = {
    "rulebook": [tampered_rulebook, unsigned_rulebook, missing_rulebook],
    "certificates": [
        no_key, key_of_another, no_certificate, no_authorities, broken_revocations,
    ],
    "configuration": [no_toml, unknown_key, value_out_of_range, no_configuration],
}  # fmt: skip


@pytest.mark.parametrize("part", list(BAD))
@on_trio
async def test_what_is_bad_is_refused_whole_with_its_reason_and_no_request_is_lost(
    place: Place, part: str
) -> None:
    """Under load, one after the other; what was in force goes on, and so does every worker."""
    stand = place.stand
    before = stand.ask()
    files = [stand.config, stand.store / "active"]
    files += [place.tls / n for n in ("router.crt", "router.key", "authorities.pem")]
    async with load(stand) as lines:
        for spoil in BAD[part]:
            with kept(*files, place.tls / "revocations.pem"):
                reason = await trio.to_thread.run_sync(spoil, place)
                status = await reload(stand)
            outcomes = {name: each.outcome for name, each in status.reload.items()}
            assert outcomes == {**dict.fromkeys(BAD, "unchanged"), part: "refused"}
            assert reason in status.reload[part].reason
            assert (status.generation, status.is_ready) == (before.generation, True)
            event = stand.events("reload_refused")[-1]
            assert event["reasons"] == {part: status.reload[part].reason}
            newcomer = Pipeline(stand, width=4)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(newcomer.run)
                await newcomer.grown(4)
                newcomer.stop()
            assert newcomer.faults == {}
    for line in lines:
        assert (line.faults, set(line.codes)) == ({}, {Code.ANSWERED_WITH_DATA})
        assert {answer.generation for answer in line.answers} == {before.generation}
    assert [w.pid for w in stand.ask().workers] == [w.pid for w in before.workers]


@on_trio
async def test_what_lost_its_right_is_refused_from_the_next_message_under_load(
    place: Place,
) -> None:
    """The first request that is sent once the reload is reported done, on each open connection."""
    file = "deliberations/2019-901.toml"
    async with load(place.stand) as lines:
        place.stand.replace_text(file, GRANT, f"{GRANT}\nend = 2024-12-31")
        await trio.to_thread.run_sync(place.stand.activate_rulebook)
        status = await reload(place.stand)
        marks = [line.last_number for line in lines]
    place.stand.replace_text(file, f"{GRANT}\nend = 2024-12-31", GRANT)
    await trio.to_thread.run_sync(place.stand.activate_rulebook)
    assert (await reload(place.stand)).failed == {}
    assert status.reload["rulebook"].outcome == "changed"
    judged = [entry.code for entry in place.stand.entries() if entry.kind is Kind.REQUEST
              and entry.generation == status.generation]  # fmt: skip
    assert set(judged) == {Code.GRANT_NOT_IN_FORCE}
    for line, mark in zip(lines, marks, strict=True):
        assert (line.faults, line.dials) == ({}, 1)
        later = [answer for answer in line.answers if answer.id > mark]
        assert {answer.code for answer in later} == {Code.GRANT_NOT_IN_FORCE}
        assert min(answer.id for answer in later) == mark + 1


@on_trio
async def test_a_key_that_needs_a_restart_is_named_and_not_applied(place: Place) -> None:
    """Beside one that does not and is applied; a worker that starts anew goes by the same."""
    stand = place.stand
    with kept(stand.config):
        place.configure('name = "stand"', 'name = "another"')
        place.configure("[windows]", "[windows]\nconnection = 4\ninstitution = 4")
        place.configure("[tls]", '[tls]\ncertificate = "gone"')
        status = await reload(stand)
        part = status.reload["configuration"]
        assert part.outcome == "changed"
        assert part.needs_restart == ("node.name", "tls.certificate")
        assert stand.events("restart_needed")[-1]["keys"] == list(part.needs_restart)
        assert (status.failed, status.node) == ({}, "stand")
        killed = stand.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: stand.is_ready and killed not in stand.worker_pids(), seconds=60)
        lines = [Pipeline(stand, width=16) for _ in range(4)]
        async with providing(stand, PORT, Source()), trio.open_nursery() as nursery:
            for line in lines:
                nursery.start_soon(line.run)
            await until(lambda: sum(line.codes.total() for line in lines) > 200)
            for line in lines:
                line.stop()
    full = {Code.CONNECTION_WINDOW_FULL, Code.INSTITUTION_WINDOW_FULL}
    for line in lines:
        assert line.faults == {}
        assert full & set(line.codes), "each worker goes by the narrower window"
    status = await reload(stand)
    assert status.reload["configuration"] == msgspec.structs.replace(
        part, outcome="changed", needs_restart=()
    )


@on_trio
async def test_a_worker_whose_start_was_overtaken_by_a_reload_goes_by_the_new_state(
    place: Place,
) -> None:
    """Killed, started with the old rulebook, and five hang-ups before it is ready."""
    stand = place.stand
    name = await trio.to_thread.run_sync(place.activate, "Zandbergen, overtaken")
    before = stand.ask()
    killed = before.workers[0].pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: stand.ask().workers[0].pid not in (0, killed), seconds=60)
    for _ in range(5):
        stand.signal(signal.SIGHUP)
    await until(functools.partial(goes_by, stand, name), seconds=60)
    assert stand.ask().workers[1].pid == before.workers[1].pid
    assert len([e for e in stand.events("reloaded") if e["generation"] == name]) <= 5
    async with load(stand) as lines:
        assert stand.is_ready
    for line in lines:
        assert line.faults == {}
        assert {answer.generation for answer in line.answers} == {name}


def goes_by(stand: Town, generation: str) -> bool:
    """Every worker is ready and says that it goes by this generation."""
    status = stand.ask()
    found = {worker.report.generation for worker in status.workers if worker.report is not None}
    return status.is_ready and found == {generation}


@on_trio
async def test_a_stop_during_a_reload_ends_in_time_and_in_order(place: Place) -> None:
    """SIGHUP and SIGTERM at once: nothing hangs, and the log is closed."""
    stand = place.stand
    stand.activate_rulebook()
    stand.signal(signal.SIGHUP)
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0
    stand.verify_log()
    assert not stand.events("worker_killed")
