"""The SDK against a router that comes, goes and is slow: requests wait, or say why not."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.sdk import (
    Answer,
    Delivery,
    NotAnsweredError,
    NotConnectedError,
    Outcome,
    Provider,
    Supply,
)
from tests.integration.stands import (
    CENTRE,
    RVA,
    SERVICES,
    Source,
    Town,
    asking,
    connection_test,
    on_trio,
    providing,
    request,
    serving,
    town,
    until,
)

PORT = free_ports(1)[0]
WINDOW = 32


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("sdk") / "stand"
    with town(folder, endpoints={RVA: PORT}, options={"windows": {"connection": WINDOW}}) as made:
        made.start()
        yield made


@on_trio
async def test_a_client_finds_a_router_that_was_started_anew(stand: Town) -> None:
    """What is asked meanwhile waits for the connection, within its deadline."""
    async with asking(stand) as client:
        assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
        assert await trio.to_thread.run_sync(stand.stop) == 0
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await client.ask(connection_test(), deadline_s=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with pytest.raises(NotConnectedError):
                await client.ask(connection_test(), deadline_s=0.2)
            await trio.to_thread.run_sync(stand.start)
        assert [answer.code for answer in answers] == [Code.ANSWERED_WITH_DATA]


@on_trio
async def test_clients_that_lost_a_router_do_not_come_back_all_at_once(stand: Town) -> None:
    """Each waits a random while, longer after each failure; here nobody ever greets them."""
    dialled: list[float] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.setblocking(False)
        knocked = trio.socket.from_stdlib_socket(listener)
        configured, stand.port = stand.port, listener.getsockname()[1]
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(asking(stand))
            with trio.fail_after(10):
                while len(dialled) < 24:
                    sock, _ = await knocked.accept()
                    dialled.append(trio.current_time())
                    sock.close()
        stand.port = configured
    second, third = dialled[8:16], dialled[16:24]
    assert max(second) - min(second) > 0.02
    assert min(third) - dialled[0] > 0.2


@on_trio
async def test_thousands_in_flight_stay_within_the_window_that_the_router_offered(
    stand: Town,
) -> None:
    """They wait in the client, not in the router, and each gets its own answer."""
    busiest = busy = 0

    async def handler(delivery: Delivery) -> Supply:
        nonlocal busiest, busy
        busy += 1
        busiest = max(busiest, busy)
        await trio.lowlevel.checkpoint()
        busy -= 1
        return Supply(Outcome.DATA, payload=delivery.payload)

    got: dict[int, bytes] = {}
    async with providing(stand, PORT, handler), asking(stand) as client:

        async def ask(number: int) -> None:
            answer = await client.ask(request(payload=str(number).encode()), deadline_s=30)
            got[number] = answer.payload

        async with trio.open_nursery() as nursery:
            for number in range(2_000):
                nursery.start_soon(ask, number)
    assert got == {number: str(number).encode() for number in range(2_000)}
    assert 1 < busiest <= WINDOW
    assert stand.metric("ksz_router_rejected_total", reason="connection_window_full") == 0


@on_trio
async def test_a_deadline_ends_the_wait_with_an_error_that_says_what_is_known(
    stand: Town,
) -> None:
    """Sent and not answered is not the same as never sent; the router's own deadline is typed."""
    source = Source(is_open=False)
    async with providing(stand, PORT, source), asking(stand) as client:
        typed = await client.ask(request(deadline_ms=100), deadline_s=5)
        assert typed.code == Code.SOURCE_SILENT
        typed = await client.ask(request(), deadline_s=1.0)
        assert typed.code == Code.SOURCE_SILENT
        with pytest.raises(NotAnsweredError):
            await client.ask(request(), deadline_s=0.002)
        source.gate.set()
    assert CENTRE in {delivery.requester for delivery in source.asked}


@on_trio
async def test_what_is_taken_is_answered_whenever_it_is_known(stand: Town) -> None:
    """Many together, be it while the provider drains; a fault of the taker is a failed answer.

    What it does not know is not answered, and keeps nobody from ending.
    """
    held: list[tuple[Delivery, Callable[[Supply | None], None]]] = []
    answers: list[Answer] = []

    def take(delivery: Delivery, answer: Callable[[Supply | None], None]) -> None:
        assert delivery.payload != b"one that is not taken"
        if delivery.payload == b"one that is not known":
            answer(None)
        else:
            held.append((delivery, answer))

    provider = Provider(
        stand.identity(RVA), router_uris={ROUTER_URI}, services={}, takers={SERVICES[RVA]: take}
    )
    async with asking(stand) as client, serving(provider, PORT), trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            answers.append(await client.ask(request(payload=b"%d" % number)))

        for number in range(5):
            nursery.start_soon(ask, number)
        await until(lambda: len(held) == 5)
        failed = await client.ask(request(payload=b"one that is not taken"))
        assert failed.code == Code.SOURCE_FAILED
        silent = await client.ask(request(payload=b"one that is not known", deadline_ms=100))
        assert silent.code == Code.SOURCE_SILENT
        assert provider._inflight == len(held), "what is not known is settled"
        provider.drain()
        assert not answers
        for delivery, answer in held:
            answer(Supply(Outcome.DATA, payload=delivery.payload))
        await until(lambda: len(answers) == 5)
        await until(lambda: not provider._pumps)
    assert {answer.code for answer in answers} == {Code.ANSWERED_WITH_DATA}
    assert {answer.payload for answer in answers} == {b"%d" % number for number in range(5)}


@on_trio
async def test_a_provider_that_drains_answers_what_it_has_and_returns(stand: Town) -> None:
    """``serve`` ends by itself, and only once the last answer is out."""
    source = Source(is_open=False)
    answers: list[Answer] = []
    async with asking(stand) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await client.ask(request()))

        async with providing(stand, PORT, source) as provider:
            for _ in range(5):
                nursery.start_soon(ask)
            await until(lambda: len(source.asked) == 5)
            provider.drain()
            late = await client.ask(request(), deadline_s=5)
            assert late.code == Code.SOURCE_UNREACHABLE
            assert not answers
            source.gate.set()
            await until(lambda: len(answers) == 5)
            await until(lambda: not provider._pumps)
    assert {answer.code for answer in answers} == {Code.ANSWERED_WITH_DATA}
