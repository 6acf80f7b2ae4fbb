"""No room for bytes: what is held is bounded, for requests, for answers and for all together."""

import socket
from collections.abc import Iterator

import pytest

from ksz_router.codes import Action, Code
from ksz_router.config import Windows
from ksz_router.daemon.session import Session
from ksz_router.limits import MIB, connection_outgoing_hard_bytes
from ksz_router.wire import Throttle
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller
from tests.worlds import CENTRE, MANAGER, PENSIONS, RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


LARGE, BOUND = 60_000, 100_000


@in_trio
async def test_requests_whose_bytes_do_not_fit_are_refused_and_fit_again(ground: Ground) -> None:
    """The refusal names the bound; nothing is forwarded, and an answer or a deadline makes room."""
    async with parts(ground, windows=Windows(bytes=BOUND)) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number in (1, 2):
            caller.ask(ask(id=number, payload=bytes(LARGE)))
        await p.until(lambda: caller.answers and source.deliveries)
        assert len(source.deliveries) == 1
        (refused,) = caller.answers
        assert (refused.code, refused.detail) == (Code.ROUTER_FULL, {"limit": str(BOUND)})
        assert refused.action == Action.RETRY_AT
        assert [n.limit for n in caller.events if isinstance(n, Throttle)] == [BOUND]
        caller.ask(ask(id=3, payload=b"small"))
        await p.until(lambda: len(source.deliveries) == 2)
        assert p.admission.all_bytes == LARGE + 5

        source.reply(0)
        await p.until(lambda: len(caller.answers) == 2)
        caller.ask(ask(id=4, payload=bytes(LARGE), deadline_ms=1_000))
        await p.until(lambda: len(source.deliveries) == 3)
        p.pass_time(1.1)
        await p.until(lambda: len(caller.answers) == 3)
        assert caller.answers[-1].code == Code.SOURCE_SILENT
        assert p.admission.all_bytes == 5, "what is overdue is not held for a late answer"
        source.reply(1)
        source.reply(2)
        await p.until(lambda: len(caller.answers) == 4)
        assert p.admission.all_bytes == 0


@in_trio
async def test_who_leaves_gives_back_what_was_held_for_him(ground: Ground) -> None:
    """However an exchange ends, refused or abandoned, its bytes are counted off once."""
    async with parts(ground, windows=Windows(bytes=4 * BOUND)) as p:
        source = p.add_source(RVA)
        for _ in range(3):
            caller = await p.connect()
            caller.ask(ask(id=1, payload=bytes(LARGE)), ask(id=2, service="None", payload=b"x"))
            await p.until(lambda c=caller: c.answers)
            caller.close()
            caller.link.connection.receive_end()
        await p.until(lambda: not p.loop.sessions)
        assert p.admission.all_bytes == 3 * LARGE
        p.pass_time(61)
        await p.until(lambda: p.admission.inflight == 0)
        assert p.admission.all_bytes == 0
        assert len(source.deliveries) == 3


def deaf(p: Parts, caller: Caller) -> Session:
    """A caller that reads nothing any more; what it asked for stays with the router."""
    caller.reads = False
    session = p.loop.sessions[-1]
    session.link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    return session


@in_trio
async def test_answers_that_nobody_reads_stay_within_the_bound(ground: Ground) -> None:
    """Each may hold its fair share of a full memory; who reads what it asked for is spared."""
    bound = 4 * MIB
    async with parts(ground, windows=Windows(bytes=bound)) as p:
        source, pensions = p.add_source(RVA), p.add_source(PENSIONS)
        good = await p.connect()
        sessions = []
        for _ in range(6):
            caller = await p.connect()
            sessions.append(deaf(p, caller))
            caller.ask(*(ask(id=number) for number in range(4)))
        await p.until(lambda: len(source.deliveries) == 24)
        most = 0
        for index in range(24):
            source.reply(index, payload=bytes(900_000))
            await p.until(lambda n=index: p.admission.inflight == 23 - n)
            most = max(most, p.admission.all_bytes)
            good.ask(ask(id=index, service="PensionRegister", version=1))
            await p.until(
                lambda n=index: (
                    len(good.answers) == n + 1 or len(pensions.deliveries) > _passed(good, n)
                )
            )
            if len(good.answers) == index:
                pensions.reply(len(pensions.deliveries) - 1)
                await p.until(lambda n=index: len(good.answers) == n + 1)
        assert most <= bound + 2 * 900_000
        assert p.admission.all_bytes <= bound
        codes = {answer.code for answer in good.answers}
        assert codes <= {Code.ANSWERED_WITH_DATA, Code.ROUTER_FULL}
        assert Code.ANSWERED_WITH_DATA in codes
        let_go = [peer for peer, ended in p.ended if ended.code is Code.PEER_TOO_SLOW]
        assert let_go
        assert all(peer in sessions for peer in let_go), "only who does not read"
        held = sum(session.link.unsent_bytes for session in p.loop.sessions)
        assert p.admission.all_bytes == held <= bound


def _passed(caller: Caller, asked: int) -> int:
    return sum(answer.code == Code.ANSWERED_WITH_DATA for answer in caller.answers[:asked])


@in_trio
async def test_with_room_a_slow_reader_keeps_its_own_bound(ground: Ground) -> None:
    """Memory that is not short is not shared out."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect(MANAGER)
        session = deaf(p, caller)
        caller.ask(*(ask(id=number, member=CENTRE) for number in range(6)))
        await p.until(lambda: len(source.deliveries) == 6)
        for index in range(6):
            source.reply(index, payload=bytes(900_000))
        await p.until(lambda: session.inflight == {})
        assert 4 * MIB < session.link.unsent_bytes < connection_outgoing_hard_bytes
        assert p.admission.all_bytes == session.link.unsent_bytes
        caller.reads = True
        await p.until(lambda: len(caller.answers) == 6)
        assert p.admission.all_bytes == 0
