"""Messages that change the person directory by themselves: the real program, over kills.

The living wages of the example: one message inscribes the person for who sent and who
received it, the other takes the lines away. However a process dies in between, the retry by the
ticket comes to both changes, made once.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer
from ksz_router.model import INSCRIBE_SERVICE, REMOVE_SERVICE
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.sdk import Provider, Request
from ksz_router.sdk import directory as d
from tests.integration.stands import (
    CENTRE,
    NOT_KNOWN,
    RVA,
    UNEMPLOYMENT,
    Source,
    Town,
    asking,
    on_trio,
    request,
    serving,
    settled,
    town,
    until,
)
from tests.integration.test_directory import directory_pid, envelope

pytestmark = pytest.mark.xdist_group("integration-integrations")

PORT = free_ports(1)[0]
PERSONS = landmarks(1)
GRANTED, ENDED = "LivingWageGranted", "LivingWageEnded"
_AGAIN = (*NOT_KNOWN, Code.ANSWERED_NOT_INTEGRATED)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("integrations") / "stand"
    with town(
        folder, endpoints={RVA: PORT}, institutions=[RVA, CENTRE], workers=2,
        serves_directory=True, options={"sources": {"breaker_open_seconds": 0.2}},
    ) as made:  # fmt: skip
        made.start()
        yield made


def message(service: str, person: str, year: int, **fields: Any) -> Request:
    """The centre tells the office of a living wage in a year."""
    period = {"begin": year * 10_000 + 101, "end": year * 10_000 + 1231}
    usual = {"service": service, "version": 1, "capacity": 3, "payload": b"a decision", **period}
    return request(person, **(usual | fields))


@contextlib.asynccontextmanager
async def receiving(stand: Town, source: Source) -> AsyncIterator[None]:
    """The office, which takes both messages and is asked about persons."""
    services = dict.fromkeys([(GRANTED, 1), (ENDED, 1), UNEMPLOYMENT], source)
    provider = Provider(stand.identity(RVA), router_uris={ROUTER_URI}, services=services)
    async with serving(provider, PORT):
        yield


def version_on_disk(stand: Town) -> int:
    """The version of the directory, whether its program runs or starts."""
    directory = Directory.open(stand.directory)
    try:
        return directory.version
    finally:
        directory.close()


def files(stand: Town, person: str, year: int) -> list[tuple[int, int, int, int]]:
    """Role, capacity and phase of the lines that lie in a year, as they are on disk."""
    directory = Directory.open(stand.directory)
    try:
        (found,) = directory.look_up([person])
    finally:
        directory.close()
    assert found is not None
    return [
        (line.sector, line.type, line.capacity, line.phase)
        for line in found.lines
        if line.begin == year * 10_000 + 101 and line.end == year * 10_000 + 1231
    ]


BOTH = [(17, 1, 3, 1), (18, 0, 4, 0)]
"""The lines of centre and office after a message that inscribes."""


def changes(stand: Town, service: str, year: int) -> list[Entry]:
    """The changes that were asked for on account of a year's messages, each attempt of each."""
    begin = year * 10_000 + 101
    asked = [entry for entry in stand.entries() if entry.kind is Kind.REQUEST]
    return [entry for entry in asked if (entry.service, entry.begin) == (service, begin)]


@on_trio
async def test_a_message_inscribes_and_another_one_removes(stand: Town) -> None:
    """For sender and recipient, one change each, made before the answer and judged by at once."""
    person, source, before = PERSONS["not_integrated"], Source(), version_on_disk(stand)
    known = request(person, capacity=3, begin=20240301, end=20240331)
    async with receiving(stand, source), asking(stand) as client:
        assert (await client.ask(known)).code == Code.PERSON_NOT_INTEGRATED
        # The worker reaches the directory program: a retry for its sake has no payload any more.
        await settled(client, d.lines(envelope(), person), _AGAIN)
        answer = await settled(client, message(GRANTED, person, 2024), _AGAIN)
        assert (answer.code, answer.payload) == (Code.ANSWERED_WITH_DATA, b"for a decision")
        assert files(stand, person, 2024) == BOTH
        assert version_on_disk(stand) == before + 2
        assert (await client.ask(known)).code == Code.ANSWERED_WITH_DATA

        answer = await settled(client, message(ENDED, person, 2024), _AGAIN)
        assert answer.code == Code.ANSWERED_WITH_DATA
        assert files(stand, person, 2024) == []
        assert version_on_disk(stand) == before + 4
        assert (await client.ask(known)).code == Code.PERSON_NOT_INTEGRATED
    assert [asked.service for asked in source.asked] == [GRANTED, UNEMPLOYMENT[0], ENDED]
    for service in (INSCRIBE_SERVICE, REMOVE_SERVICE):
        found = {(entry.acting, entry.capacity) for entry in changes(stand, service, 2024)}
        assert found == {(CENTRE, 3), (RVA, 4)}


@on_trio
async def test_what_its_recipient_did_not_get_changes_nothing(stand: Town) -> None:
    """Nobody listens there: no change is asked for; the ticket makes both when somebody does."""
    person, before = PERSONS["phase_too_low"], version_on_disk(stand)
    asked = message(GRANTED, person, 2023)
    async with asking(stand) as client:
        assert (await client.ask(asked)).code == Code.SOURCE_UNREACHABLE
        assert changes(stand, INSCRIBE_SERVICE, 2023) == []
        assert version_on_disk(stand) == before
        async with receiving(stand, Source()):
            assert (await settled(client, asked, _AGAIN)).code == Code.ANSWERED_WITH_DATA
    assert files(stand, person, 2023) == BOTH
    assert version_on_disk(stand) == before + 2


class Scene(NamedTuple):
    """A message that its recipient keeps waiting, before somebody dies."""

    stand: Town
    source: Source
    change: str
    """The service of its changes."""
    year: int
    before: int
    """The version of the directory."""

    async def stop_directory(self) -> int:
        """Let both changes be recorded and forwarded to a program that stands still."""
        await until(lambda: self.source.asked)
        directory = directory_pid(self.stand)
        os.kill(directory, signal.SIGSTOP)
        self.source.gate.set()
        await until(lambda: len(changes(self.stand, self.change, self.year)) == 2)
        self.stand.ask()  # answered in a later turn than the one in which they were forwarded
        return directory

    async def make_untold(self) -> tuple[int, list[int]]:
        """Have both changes made while the workers, who are returned, stand still."""
        directory, workers = await self.stop_directory(), self.stand.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        os.kill(directory, signal.SIGCONT)
        url = f"http://127.0.0.1:{self.stand.metrics_port + len(workers) + 2}/metrics"
        made = f"ksz_router_directory_written_version {self.before + 2}.0"
        await until(lambda: made in urlopen(url).read().decode())
        return directory, workers


async def workers_die_before_the_recipient_answers(scene: Scene) -> None:
    await until(lambda: scene.source.asked)
    for pid in scene.stand.worker_pids():
        os.kill(pid, signal.SIGKILL)
    scene.source.gate.set()


async def the_directory_dies_before_it_makes_them(scene: Scene) -> None:
    os.kill(await scene.stop_directory(), signal.SIGKILL)


async def workers_die_before_they_hear_of_it(scene: Scene) -> None:
    _, workers = await scene.make_untold()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


async def the_directory_dies_after_it_made_them(scene: Scene) -> None:
    directory, workers = await scene.make_untold()
    os.kill(directory, signal.SIGKILL)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)


KILLS = (
    workers_die_before_the_recipient_answers,
    the_directory_dies_before_it_makes_them,
    workers_die_before_they_hear_of_it,
    the_directory_dies_after_it_made_them,
)


@on_trio
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.__name__)
@pytest.mark.parametrize("service", [GRANTED, ENDED])
async def test_whoever_dies_both_changes_are_made_once(
    stand: Town, service: str, kill: Callable[[Scene], Awaitable[None]]
) -> None:
    """The retry by the ticket settles both; the recipient gets the message once, or as a repeat."""
    person, year = PERSONS["adjacent"], 2000 + 2 * KILLS.index(kill) + (service == ENDED)
    first, source = Source(), Source(is_open=False)
    answers: list[Answer] = []
    async with asking(stand) as client:
        if service == ENDED:
            async with receiving(stand, first):
                await settled(client, message(GRANTED, person, year), _AGAIN)
            assert files(stand, person, year) == BOTH
        # The worker is connected to the directory program, so that what it sends gets there.
        await settled(client, d.lines(envelope(), person), _AGAIN)
        change = REMOVE_SERVICE if service == ENDED else INSCRIBE_SERVICE
        scene = Scene(stand, source, change, year, version_on_disk(stand))
        async with receiving(stand, source), trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await settled(client, message(service, person, year), _AGAIN))

            nursery.start_soon(ask)
            await kill(scene)
    (answer,) = answers
    assert answer.code == Code.ANSWERED_WITH_DATA
    assert files(stand, person, year) == ([] if service == ENDED else BOTH)
    assert version_on_disk(stand) == scene.before + 2
    assert len({asked.exchange for asked in source.asked}) == 1
    assert all(asked.repeat for asked in source.asked[1:])
