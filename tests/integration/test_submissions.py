"""Submissions exactly once, through whole routers that are killed and lose their memory."""

import contextlib
import functools
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.messages import Answer
from ksz_router.sdk import ConnectionLostError, Provider, Request
from tests.integration.stands import (
    CENTRE,
    OPEN,
    Source,
    Town,
    asking,
    on_trio,
    request,
    settled,
    town,
    until,
)

RECIPIENT = "0999013688"
PORT = free_ports(1)[0]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("submissions") / "stand"
    with town(
        folder, endpoints={RECIPIENT: PORT}, workers=2, institutions=[RECIPIENT, CENTRE]
    ) as made:
        made.start()
        yield made


@contextlib.asynccontextmanager
async def receiving(stand: Town, source: Source) -> AsyncIterator[None]:
    """The recipient of the example's submissions."""
    provider = Provider(
        stand.identity(RECIPIENT), router_uris={ROUTER_URI}, services={("A036", 1): source}
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(provider.serve, host="127.0.0.1", port=PORT))
        yield
        nursery.cancel_scope.cancel()


def submission(**fields: Any) -> Request:
    return request(**{"service": "A036", "version": 1, "payload": b"a decision", **fields})


@on_trio
async def test_a_submission_that_a_killed_worker_left_open_is_repeated(stand: Town) -> None:
    """Across connections, workers and kill -9: the same exchange id, with the repeat flag."""
    source, asked = Source(is_open=False), submission()
    async with receiving(stand, source), asking(stand) as client:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ConnectionLostError):
                    await client.ask(asked)

            nursery.start_soon(ask)
            await until(lambda: source.asked)
            for pid in stand.worker_pids():
                os.kill(pid, signal.SIGKILL)
        source.gate.set()
        answer = await settled(client, asked, OPEN)
        assert answer.code == Code.ANSWERED_WITH_DATA
        assert [d.repeat for d in source.asked] == [False, True]
        assert {d.exchange for d in source.asked} == {answer.exchange}
        again = await settled(client, asked, OPEN)
        assert (again.code, again.exchange, again.payload) == (answer.code, answer.exchange, b"")
    assert len(source.asked) == 2


@on_trio
@pytest.mark.parametrize("is_clean", [True, False])
async def test_the_ledger_is_made_from_the_log_when_memory_is_lost(
    stand: Town, *, is_clean: bool
) -> None:
    """A known outcome stays known, an open one is unknown, however everything ended."""
    source = Source()
    known, left = submission(), submission()
    async with receiving(stand, source), asking(stand) as client:
        first = await client.ask(known)
        source.gate = trio.Event()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with contextlib.suppress(ConnectionLostError):
                    await client.ask(left)

            nursery.start_soon(ask)
            await until(lambda: len(source.asked) == 2)
            if is_clean:
                stand.signal(signal.SIGTERM)
                source.gate.set()
                assert await trio.to_thread.run_sync(stand.ended) == 0
            else:
                pids = stand.worker_pids()
                stand.kill()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(stand.folder / "ledger")
        source.gate.set()
        before = len(stand.events("ledger_made"))
        stand.start()
        (made,) = stand.events("ledger_made")[before:]
        assert made["tickets"] >= 2
        again, last = await settled(client, known, OPEN), await settled(client, left, OPEN)
    assert (again.exchange, again.code, again.payload) == (first.exchange, first.code, b"")
    assert "payloadDigest" in again.detail
    assert last.code == Code.ANSWERED_WITH_DATA
    assert [d.repeat for d in source.asked[1:]] == ([False] if is_clean else [False, True])
    assert len({d.exchange for d in source.asked[1:]}) == 1
    stand.verify_log()


@on_trio
async def test_a_restart_keeps_the_ledger(stand: Town) -> None:
    """It outlives the router; only another boot, or a loss, has it made anew."""
    source, asked = Source(), submission()
    async with receiving(stand, source), asking(stand) as client:
        first = await client.ask(asked)
        stand.signal(signal.SIGTERM)
        await trio.to_thread.run_sync(stand.ended)
        count = len(stand.events("ledger_made"))
        stand.start()
        again = await settled(client, asked, OPEN)
    assert again.exchange == first.exchange
    assert len(source.asked) == 1
    assert len(stand.events("ledger_made")) == count


@on_trio
async def test_one_ticket_a_thousand_times_is_one_delivery(stand: Town) -> None:
    """Over two workers and many connections at once; the others are told, or told to wait."""
    source, asked = Source(), submission()
    answers: list[Answer] = []
    async with receiving(stand, source), trio.open_nursery() as nursery:

        async def ask() -> None:
            async with asking(stand) as client:
                while len(answers) < 1_000:
                    answers.append(await client.ask(asked))

        for _ in range(10):
            nursery.start_soon(ask)
    assert len(source.asked) == 1
    assert len(answers) >= 1_000
    assert {a.code for a in answers} <= {Code.ANSWERED_WITH_DATA, Code.SUBMISSION_OPEN}
    assert len([a for a in answers if a.payload]) == 1
