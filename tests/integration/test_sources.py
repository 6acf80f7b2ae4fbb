"""Sources as they are: down, hanging, slow, restarted, half down, or somebody else."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from contrib.stand import free_ports
from ksz_router.codes import Code
from ksz_router.sdk import Answer, Client, Delivery, Outcome, Supply
from tests.integration.stands import (
    FUND,
    RVA,
    Crowd,
    Source,
    Town,
    asking,
    on_trio,
    providing,
    request,
    town,
    until,
)

PORT, SECOND_PORT = free_ports(2)
SOURCES = {"breaker_failures": 3, "breaker_open_seconds": 1.0, "connect_seconds": 0.5}
ENDPOINT = f"""
[[institution.endpoint]]
host = "127.0.0.1"
port = {PORT}
uri = "urn:kbo:{RVA}"
"""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("sources") / "stand"
    with town(folder, endpoints={RVA: PORT}, options={"sources": SOURCES}) as made:
        second = ENDPOINT + ENDPOINT.replace(str(PORT), str(SECOND_PORT))
        made.replace_text("institutions/sources.toml", ENDPOINT, second)
        made.activate_rulebook()
        made.start()
        yield made


@contextlib.asynccontextmanager
async def well(stand: Town) -> AsyncIterator[Client]:
    """A requester whose source was well a moment ago, and is down now."""
    async with asking(stand) as client:
        async with providing(stand, PORT, Source()):
            await tried(client)
            ended = len(stand.events("source_ended"))
        await until(lambda: len(stand.events("source_ended")) > ended)
        yield client


async def tried(client: Client) -> set[int]:
    """Ask until the source answers; return how else it went before."""
    codes = set()
    with trio.fail_after(10):
        while (code := (await client.ask(request())).code) != Code.ANSWERED_WITH_DATA:
            codes.add(code)
            await trio.sleep(0.05)
    return codes


def state(stand: Town) -> str:
    """How the one worker sees the source."""
    (worker,) = stand.ask().workers
    return worker.report.sources.get(RVA, "idle") if worker.report is not None else ""


def written(stand: Town, answer: Answer) -> list[int]:
    """The codes in the log under the exchange of an answer: verdict, then outcomes."""
    return [entry.code for entry in stand.entries() if entry.exchange == answer.exchange]


@on_trio
async def test_a_source_that_is_down_is_named_so_and_then_left_in_peace(stand: Town) -> None:
    """After some failures the breaker answers at once, until one request may try again."""
    async with well(stand) as client:
        down = [await client.ask(request()) for _ in range(3)]
        spared = await client.ask(request())  # at once: it is not left in peace for long
        assert {answer.code for answer in down} == {Code.SOURCE_UNREACHABLE}
        assert written(stand, down[0]) == [0, Code.SOURCE_UNREACHABLE]
        assert spared.code == Code.SOURCE_BREAKER_OPEN
        assert (spared.retry_at_ms or 0) > 0
        assert spared.router_us < 1_000_000
        assert written(stand, spared) == [0, Code.SOURCE_BREAKER_OPEN]
        await until(lambda: state(stand) == "breaker open")
        assert stand.metric("ksz_router_sources", state="breaker_open") == 1
        assert [event["source"] for event in stand.events("source_left_alone")] == [RVA]
        assert not stand.events("source_well_again")
        async with providing(stand, PORT, Source()):
            await tried(client)
            await until(lambda: state(stand) == "up")
        assert [event["source"] for event in stand.events("source_well_again")] == [RVA]


@on_trio
async def test_a_source_that_hangs_is_given_up_at_the_deadline_and_its_late_answer_discarded(
    stand: Town,
) -> None:
    """The requester hears SOURCE_SILENT in time; the log keeps that an answer came all the same."""
    source = Source()

    async def heedless(delivery: Delivery) -> Supply:
        with trio.CancelScope(shield=True):  # else the SDK says at the deadline that it failed
            return await source(delivery)
        raise AssertionError("a shield lets nothing through")

    async with well(stand) as client, providing(stand, PORT, heedless):
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
        source.gate = trio.Event()
        try:
            answer = await client.ask(request(deadline_ms=1_000), deadline_s=10)
        finally:
            source.gate.set()
        await until(lambda: len(written(stand, answer)) == 3)
    assert written(stand, answer) == [0, Code.SOURCE_SILENT, Code.ANSWER_DISCARDED]
    assert answer.code == Code.SOURCE_SILENT
    assert answer.source_us > answer.router_us  # silence is the source's time


@on_trio
async def test_a_slow_source_holds_nobody_else_up(stand: Town) -> None:
    """Its time is told apart from the router's, and other answers pass it."""

    gate = trio.Event()

    async def handler(delivery: Delivery) -> Supply:
        if delivery.payload == b"slow":
            await gate.wait()
            return Supply(Outcome.DATA)
        return Supply(Outcome.NO_DATA)

    async with well(stand) as client, providing(stand, PORT, handler):
        slow: list[Answer] = []

        async def ask() -> None:
            slow.append(await client.ask(request(payload=b"slow")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await client.ask(request())
            begin = trio.current_time()
            for _ in range(20):
                assert (await client.ask(request())).code == Code.ANSWERED_WITHOUT_DATA
            waited_us = int((trio.current_time() - begin) * 1e6)
            assert not slow
            gate.set()
    assert slow[0].code == Code.ANSWERED_WITH_DATA
    assert slow[0].source_us > slow[0].router_us
    assert slow[0].source_us + slow[0].router_us >= waited_us


@on_trio
async def test_a_source_that_is_started_anew_is_found_again(stand: Town) -> None:
    """What was open there is told to be unknown; the next request opens a new connection."""
    source = Source(is_open=False)
    async with well(stand) as client:
        lost: list[Answer] = []

        async def ask() -> None:
            lost.append(await client.ask(request()))

        async with trio.open_nursery() as nursery, providing(stand, PORT, source):
            nursery.start_soon(ask)
            await until(lambda: source.asked)
        assert [answer.code for answer in lost] == [Code.SOURCE_CONNECTION_LOST]
        async with providing(stand, PORT, Source()):
            assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA


@on_trio
async def test_one_endpoint_of_two_is_enough(stand: Town) -> None:
    """Where both are up both are used; where one is down or mute the other has it all."""
    one, two = Source(), Source()
    async with well(stand) as client, providing(stand, SECOND_PORT, two):
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
        assert (len(one.asked), len(two.asked)) == (0, 1)
    async with well(stand) as client, mute(PORT), providing(stand, SECOND_PORT, two):
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
    async with (
        well(stand) as client,
        providing(stand, PORT, one),
        providing(stand, SECOND_PORT, two),
    ):
        crowd = Crowd(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.run)
            await until(lambda: len(one.asked) > 50 and len(two.asked) > 50)
            crowd.stop()
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}


@contextlib.asynccontextmanager
async def mute(port: int) -> AsyncIterator[None]:
    """Something accepts connections there, and never says a word."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        yield


@on_trio
async def test_a_source_with_the_certificate_of_another_institution_gets_nothing(
    stand: Town,
) -> None:
    """Issued by the right authority, and still not the one the rulebook names."""
    impostor = Source()
    async with (
        well(stand) as client,
        providing(stand, PORT, impostor, identity=stand.identity(FUND)),
    ):
        assert (await client.ask(request())).code == Code.SOURCE_UNREACHABLE
    assert not impostor.asked


@on_trio
async def test_a_source_that_drains_loses_nothing(stand: Town) -> None:
    """Deliveries on their way when it says so are answered; the rest goes to its other endpoint."""
    one, two = Source(), Source()
    async with well(stand) as client, providing(stand, SECOND_PORT, two):
        crowd = Crowd(client, askers=64)
        async with trio.open_nursery() as nursery:
            async with providing(stand, PORT, one) as provider:
                nursery.start_soon(crowd.run)
                await until(lambda: len(one.asked) > 200 and len(two.asked) > 200)
                provider.drain()
                await until(lambda: not provider._pumps)
                asked = len(one.asked)
            await crowd.grown()
            crowd.stop()
        assert len(one.asked) == asked
    assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
    assert len(crowd.answers) == crowd.asked
