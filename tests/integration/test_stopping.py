"""How a router ends: told to, killed in part or whole. What was open is answered or recorded."""

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from contrib.stand import free_ports
from ksz_router.codes import Code
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.sdk import Answer, ConnectionLostError, SdkError, new_ticket
from tests.integration.stands import (
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

PORT = free_ports(1)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("stopping") / "stand"
    options = {"stop": {"drain_seconds": 1.0}}
    with town(folder, endpoints={RVA: PORT}, workers=2, options=options) as stand:
        yield stand


@pytest.fixture
def stand(made: Town) -> Town:
    """The stand of this module, running."""
    if made.process is None:
        made.start()
    return made


def outcomes(entries: list[Entry]) -> dict[bytes, list[int]]:
    """The outcomes of each exchange that passed the control."""
    found: dict[bytes, list[int]] = {
        entry.exchange: []
        for entry in entries
        if entry.kind is Kind.REQUEST and entry.exchange is not None and entry.code == 0
    }
    for entry in entries:
        if entry.kind is Kind.OUTCOME and entry.exchange in found:
            found[entry.exchange].append(entry.code)
    return found


@on_trio
async def test_a_stop_under_load_answers_everything_and_closes_the_log(stand: Town) -> None:
    """What is in flight is answered; what comes later is refused or goes to the next router."""
    source = Source()
    async with providing(stand, PORT, source), asking(stand) as one, asking(stand) as other:
        found = [Crowd(each, resend=True, deadline_s=40) for each in (one, other)]
        async with trio.open_nursery() as nursery:
            for crowd in found:
                nursery.start_soon(crowd.run)
                await crowd.grown(100)
            source.gate = trio.Event()  # from here on everything piles up
            await until(lambda: worker_of_open_requests(stand))
            stand.signal(signal.SIGTERM)
            await until(lambda: stand.events("stopping"))
            source.gate.set()
            assert await trio.to_thread.run_sync(stand.ended) == 0
            for crowd in found:
                crowd.stop()
            await trio.to_thread.run_sync(stand.start)  # who was refused asks this one
    for crowd in found:
        assert len(crowd.answers) == crowd.asked
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
    stand.verify_log()
    closed = outcomes(stand.entries())
    assert {code for codes in closed.values() for code in codes} == {Code.ANSWERED_WITH_DATA}
    assert all(len(codes) == 1 for codes in closed.values())
    assert not stand.events("worker_ended")


@on_trio
async def test_a_draining_router_says_so_and_refuses_what_is_new(stand: Town) -> None:
    """On the wire: a Drain, then ROUTER_DRAINING with a moment to come back at."""
    source = Source(is_open=False)
    async with providing(stand, PORT, source), asking(stand) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.ask, request())
            await until(lambda: source.asked)
            line = client._line
            assert line is not None
            stand.signal(signal.SIGTERM)
            await until(lambda: line.is_draining)
            late = await line.exchange(request(), trio.current_time() + 5)
            source.gate.set()
        assert late is not None
        assert (late.code, late.exchange) == (Code.ROUTER_DRAINING, b"")
        assert (late.retry_at_ms or 0) > 0
    assert await trio.to_thread.run_sync(stand.ended) == 0


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[None]:
    """Something listens where the source should, and never says a word."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", PORT))
        sock.listen()
        yield


@pytest.mark.parametrize("is_connected", [True, False])
@on_trio
async def test_when_the_time_to_drain_is_over_what_is_open_is_recorded(
    stand: Town, *, is_connected: bool
) -> None:
    """A source that hangs does not hold a stop up, and leaves no exchange without outcome."""
    before = outcomes(stand.entries()).keys()
    hanging = providing(stand, PORT, Source(is_open=False)) if is_connected else silent()
    async with hanging, asking(stand) as client:
        lost: list[SdkError] = []

        async def ask() -> None:
            with pytest.raises(SdkError) as caught:
                await client.ask(request(), deadline_s=9)
            lost.append(caught.value)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            await until(lambda: worker_of_open_requests(stand))
            stand.signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(stand.ended) == 0
    assert [type(error) for error in lost] == [ConnectionLostError] * 5
    assert not stand.events("worker_ended")
    stand.verify_log()
    found = outcomes(stand.entries())
    new = [codes for exchange, codes in found.items() if exchange not in before]
    expected = Code.SOURCE_CONNECTION_LOST if is_connected else Code.SOURCE_UNREACHABLE
    assert new == [[expected]] * 5


def worker_of_open_requests(stand: Town) -> int:
    """The process id of the worker that has something in flight."""
    for worker in stand.ask().workers:
        if worker.report is not None and worker.report.inflight:
            return worker.pid
    return 0


@on_trio
async def test_a_killed_worker_is_replaced_and_a_retry_gets_its_answer(stand: Town) -> None:
    """Its exchange is recorded as unknown; the other worker goes on; nobody is turned away."""
    source = Source(is_open=False)
    ticket = new_ticket()
    before = len(stand.events("worker_ended"))
    async with providing(stand, PORT, source), asking(stand) as client:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await client.ask(request(ticket=ticket), resend=True, deadline_s=20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: source.asked and worker_of_open_requests(stand))
            killed = worker_of_open_requests(stand)
            others = {w.pid for w in stand.ask().workers} - {killed}
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(source.asked) == 2)
            source.gate.set()
        assert [answer.code for answer in answers] == [Code.ANSWERED_WITH_DATA]
        await until(lambda: stand.is_ready)
        assert others < {worker.pid for worker in stand.ask().workers}
        for _ in range(20):
            async with asking(stand) as newcomer:
                assert (await newcomer.ask(request())).code == Code.ANSWERED_WITH_DATA
    (event,) = stand.events("worker_ended")[before:]
    assert (event["exit_code"], event["pause_seconds"]) == (-signal.SIGKILL, 0.1)
    entries = stand.entries()
    (hashed,) = {e.ticket for e in entries if e.exchange == answers[0].exchange and e.ticket}
    asked = [e.exchange for e in entries if e.kind is Kind.REQUEST and e.ticket == hashed]
    found = outcomes(entries)
    assert sorted(found[exchange][0] for exchange in asked if exchange) == [
        Code.OUTCOME_UNKNOWN,
        Code.ANSWERED_WITH_DATA,
    ]
    stand.verify_log()


@on_trio
async def test_a_killed_supervisor_takes_its_workers_along_and_a_new_one_takes_over(
    stand: Town,
) -> None:
    """Same port, same slots of the log; what was in flight was answered by the old workers."""
    source = Source(is_open=False)
    pids = stand.worker_pids()
    async with providing(stand, PORT, source), asking(stand) as client:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await client.ask(request()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: source.asked)
            stand.kill()
            await trio.to_thread.run_sync(lambda: stand.start(wait=False))
            source.gate.set()
        await trio.to_thread.run_sync(stand.wait_ready)
        assert [answer.code for answer in answers] == [Code.ANSWERED_WITH_DATA]
        assert not set(pids) & set(stand.worker_pids())
        await until(lambda: not any(map(is_running, pids)))
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
    found = outcomes(stand.entries())
    assert found[answers[0].exchange] == [Code.ANSWERED_WITH_DATA]
    stand.verify_log()


def is_running(pid: int) -> bool:
    """Say whether the process still does something."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return text.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
