"""Law 4: everything is bounded; at a bound there is a typed refusal that names it, never a loss."""

import gc
from collections.abc import Iterator

import pytest

from ksz_router.codes import Action, Code
from ksz_router.config import Sources, Windows
from ksz_router.daemon.source import SourceLink
from ksz_router.limits import (
    connection_outgoing_hard_bytes,
    connection_outgoing_soft_bytes,
)
from ksz_router.messages import Answer
from ksz_router.privacylog.entry import Kind
from ksz_router.wire import Throttle
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio, parts
from tests.daemon_peers import Caller
from tests.worlds import CENTRE, MANAGER, PENSIONS, RVA, ask, uri


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def refused(caller: Caller) -> list[Answer]:
    """The answers that have no exchange: turned away before the control."""
    return [answer for answer in caller.answers if answer.exchange == b""]


@pytest.mark.parametrize(
    ("windows", "code", "bound"),
    [
        (Windows(connection=3), Code.CONNECTION_WINDOW_FULL, 3),
        (Windows(connection=4, institution=4), Code.INSTITUTION_WINDOW_FULL, 4),
        (Windows(connection=5, institution=5, router=5), Code.ROUTER_FULL, 5),
    ],
    ids=["connection", "institution", "router"],
)
@in_trio
async def test_a_full_window_is_a_refusal_that_names_its_bound(
    ground: Ground, windows: Windows, code: Code, bound: int
) -> None:
    """Beyond the window nothing is forwarded or lost: each gets a code, a limit and a moment."""
    async with parts(ground, windows=windows) as p:
        source = p.add_source(RVA)
        first = await p.connect()
        second = await p.connect(CENTRE if code is not Code.ROUTER_FULL else MANAGER)
        callers = [first] if code is Code.CONNECTION_WINDOW_FULL else [first, second]
        member = {} if code is not Code.ROUTER_FULL else {"member": CENTRE}
        first.ask(*(ask(id=number) for number in range(bound - 1)))
        await p.until(lambda: len(source.deliveries) == bound - 1)
        callers[-1].ask(*(ask(id=number, **member) for number in range(100, 104)))
        await p.until(lambda: len(refused(callers[-1])) == 3 and len(source.deliveries) == bound)

        for answer in refused(callers[-1]):
            assert (answer.code, answer.detail) == (code, {"limit": str(bound)})
            assert answer.action == Action.RETRY_AT
            assert answer.retry_at_ms == p.wall_ns() // 1_000_000 + 1_000
        notices = [event for event in callers[-1].events if isinstance(event, Throttle)]
        assert [(notice.code, notice.limit) for notice in notices] == [(code, bound)]
        for index in range(bound):
            source.reply(index)
        await p.until(lambda: p.admission.inflight == 0)
        callers[-1].ask(ask(id=200, **member))
        await p.until(lambda: len(source.deliveries) == bound + 1)

        p.summarise()
        await p.until(lambda: p.recorder.commits or p.durable[-1].kind is Kind.SUMMARY)
        assert p.durable[-1].counts == ((code, 3),)
        assert p.durable[-1].requester == callers[-1].uri


@in_trio
async def test_what_is_given_up_keeps_nothing_of_who_asked(ground: Ground) -> None:
    """A source that hangs for hours: neither payloads nor connections pile up behind it."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(payload=bytes(1_000)))
        await p.until(lambda: source.deliveries)
        (session,) = p.loop.sessions
        exchange = session.inflight[1]
        assert exchange is not None
        p.pass_time(10.01)
        await p.until(lambda: caller.answers)
        (link,) = p.upstream.sources[RVA].links
        assert len(link.late) == 1
        assert p.admission.held_bytes == 0
        reachable: list[object] = [link.late]
        for _ in range(4):
            reachable = gc.get_referents(*reachable)
            assert not any(found is session or found is exchange for found in reachable)


@in_trio
async def test_a_full_source_is_a_recorded_refusal_and_harms_no_other(ground: Ground) -> None:
    """The window of a source counts what is on its way there; other sources go on."""
    async with parts(ground, windows=Windows(source=4)) as p:  # of which one alone gets half
        source, caller = p.add_source(RVA), await p.connect()
        other = p.add_source(PENSIONS)
        caller.ask(*(ask(id=number) for number in range(4)))
        await p.until(lambda: len(caller.answers) == 2 and len(source.deliveries) == 2)
        assert {answer.code for answer in caller.answers} == {Code.SOURCE_WINDOW_FULL}
        assert [e.code for e in p.entries_of(caller.answers[0].exchange)] == [
            0,
            Code.SOURCE_WINDOW_FULL,
        ]
        caller.ask(ask(id=9, service="PensionRegister", version=1))
        await p.until(lambda: other.deliveries)
        source.reply(0)
        await p.until(lambda: len(caller.answers) == 3)
        caller.ask(ask(id=10))
        await p.until(lambda: len(source.deliveries) == 3)


@in_trio
async def test_a_source_gets_no_more_at_once_than_it_offered(ground: Ground) -> None:
    """What its Welcome does not allow waits here, in order, and is sent as answers come."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA, inflight_max=2), await p.connect()
        caller.ask(*(ask(id=number, ticket=f"t{number}") for number in range(5)))
        await p.until(lambda: len(source.deliveries) == 2 and p.recorder.is_empty)
        for answered in range(5):
            assert len(source.deliveries) == min(5, answered + 2)
            source.reply(answered)
            await p.until(
                lambda n=answered: (
                    len(caller.answers) == n + 1 and len(source.deliveries) == min(5, n + 3)
                )
            )
        assert [answer.id for answer in caller.answers] == [0, 1, 2, 3, 4]


@in_trio
async def test_an_open_breaker_refuses_with_the_moment_of_its_next_trial(ground: Ground) -> None:
    """A source that failed is left in peace; the refusal says for how long."""
    options = Sources(breaker_failures=2, breaker_open_seconds=10.0)
    async with parts(ground, sources=options) as p:
        p.add_source(RVA, listens=False)
        caller = await p.connect()
        for number in range(3):
            caller.ask(ask(id=number))
            await p.until(lambda n=number: len(caller.answers) == n + 1)
        codes = [answer.code for answer in caller.answers]
        assert codes == [*[Code.SOURCE_UNREACHABLE] * 2, Code.SOURCE_BREAKER_OPEN]
        assert caller.answers[-1].retry_at_ms == p.wall_ns() // 1_000_000 + 10_000
        p.pass_time(10)
        p.add_source(RVA)
        p.upstream.refresh()
        caller.ask(ask(id=3))
        await p.until(lambda: p.sources[0].deliveries)


@in_trio
async def test_a_reader_that_stops_is_no_longer_read_and_then_let_go(ground: Ground) -> None:
    """Over the soft bound its requests wait in the kernel; over the hard one it is closed."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        (session,) = p.loop.sessions
        caller.reads = False
        caller.ask(*(ask(id=number) for number in range(20)))
        await p.until(lambda: len(source.deliveries) == 20)
        sent = 0
        while session.link.unsent_bytes < connection_outgoing_soft_bytes:
            source.reply(sent, payload=bytes(900_000))
            sent += 1
            await p.until(lambda n=sent: len(session.inflight) == 20 - n)
        caller.ask(ask(id=100))
        source.reply(sent)
        await p.until(lambda n=sent: len(session.inflight) == 19 - n)
        assert 100 not in session.inflight, "it is not read any more"
        assert session.link in p.loop.peers
        for index in range(sent + 1, 20):
            if session.link.unsent_bytes <= connection_outgoing_hard_bytes:
                source.reply(index, payload=bytes(900_000))
                await p.until(
                    lambda n=index: (
                        session.link not in p.loop.peers or len(session.inflight) == 19 - n
                    )
                )
        await p.until(lambda: p.ended)
        assert [(peer, ended.code) for peer, ended in p.ended] == [(session, Code.PEER_TOO_SLOW)]


@in_trio
async def test_a_reader_that_goes_on_is_read_again(ground: Ground) -> None:
    """Back-pressure is not loss: what waited over the soft bound is answered in the end."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        (session,) = p.loop.sessions
        caller.reads = False
        caller.ask(*(ask(id=number) for number in range(6)))
        await p.until(lambda: len(source.deliveries) == 6)
        for index in range(6):
            source.reply(index, payload=bytes(900_000))
        await p.until(lambda: session.inflight == {})
        assert session.link.unsent_bytes > connection_outgoing_soft_bytes
        caller.ask(ask(id=100))
        caller.reads = True
        await p.until(lambda: len(source.deliveries) == 7 and len(caller.answers) == 6)
        source.reply()
        await p.until(lambda: len(caller.answers) == 7)


@in_trio
async def test_connections_that_come_and_go_leave_nothing_behind(ground: Ground) -> None:
    """Whoever hangs up in the middle of things is forgotten, and its exchanges still end."""
    async with parts(ground) as p:
        source = p.add_source(RVA)
        for number in range(5):
            caller = await p.connect()
            caller.ask(ask(), ask(id=2))
            await p.until(lambda n=number: len(source.deliveries) == 2 * n + 2)
            caller.close()
            caller.link.connection.receive_end()
        await p.until(lambda: not p.loop.sessions)
        for index in range(10):
            source.reply(index)
        await p.until(lambda: p.admission.inflight == 0 and p.recorder.is_empty)

        assert [type(peer) for peer in p.loop.peers.values()] == [SourceLink]
        assert p.exchanges.touched == set()
        assert p.exchanges.next_deadline_ns is None
        assert uri(CENTRE) not in p.admission._of_institution
        outcomes = [entry.code for entry in p.durable if entry.kind is Kind.OUTCOME]
        assert outcomes == [Code.ANSWERED_WITH_DATA] * 10
