"""What reaches a source and when: late answers, its window, its endpoints, its breaker's trial."""

import itertools
import socket
from collections.abc import Iterator

import pytest
import trio

from ksz_router.codes import Code, Stage
from ksz_router.config import Sources, Windows
from ksz_router.daemon import source as daemon_source
from ksz_router.daemon.opened import Errand
from ksz_router.daemon.source import SourceLink
from ksz_router.limits import (
    connection_outgoing_soft_bytes,
    frame_bytes_max,
    source_draining_links_max,
)
from ksz_router.model import Endpoint
from ksz_router.routing import Breaker
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import SourceSide, context_of
from tests.hostile_sources import DRAIN, WELCOME, Wire, framed
from tests.worlds import MANAGER, MEMBER, PENSIONS, RVA, ask, uri

LARGE = bytes(65_536)
"""A payload of which a few hundred are more than the kernel takes for one connection."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_late_answers_are_recorded_once_as_discarded_and_not_released(ground: Ground) -> None:
    """Ten replies after the deadline: the first has an entry of its exchange, the rest a count."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(deadline_ms=2_000))
        await p.until(lambda: source.deliveries)
        p.pass_time(2.01)
        await p.until(lambda: caller.answers)
        for _ in range(10):
            source.reply()
        await p.until(lambda: p.metrics.rejected[Code.ANSWER_DISCARDED] == 10)
        await p.until(lambda: p.recorder.is_empty)
        caller.ask(ask(id=2))
        await p.until(lambda: len(source.deliveries) == 2)
        source.reply()
        await p.until(lambda: len(caller.answers) == 2)

        silent, good = caller.answers
        assert (silent.code, good.code) == (Code.SOURCE_SILENT, Code.ANSWERED_WITH_DATA)
        entries = p.entries_of(silent.exchange)
        assert [e.code for e in entries] == [0, Code.SOURCE_SILENT, Code.ANSWER_DISCARDED]
        assert entries[2].destinations == (RVA,)
        assert (entries[2].person, entries[2].answer_bytes) == (entries[0].person, 0)


@in_trio
async def test_what_was_given_up_frees_its_place_at_the_source(ground: Ground) -> None:
    """A source that takes one at a time and swallows it still gets the next, at the deadline."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA, inflight_max=1), await p.connect()
        caller.ask(ask(id=1, deadline_ms=2_000), ask(id=2))
        await p.until(lambda: source.deliveries and p.recorder.is_empty)
        p.pass_time(2.01)
        await p.until(lambda: len(source.deliveries) == 2)
        source.reply()
        await p.until(lambda: len(caller.answers) == 2)
        assert caller.answer_to(2).code == Code.ANSWERED_WITH_DATA


@in_trio
async def test_what_waits_goes_to_a_new_connection_when_the_source_drains(ground: Ground) -> None:
    """Nobody has to ask again for that, nor wait for what is in flight on the old one."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA, inflight_max=1), await p.connect()
        caller.ask(ask(id=1))
        await p.until(lambda: source.deliveries)
        source.reply()
        await p.until(lambda: caller.answers)
        caller.ask(ask(id=2), ask(id=3))
        await p.until(lambda: len(source.deliveries) == 2 and p.recorder.is_empty)
        source.drain(source.links[0])
        await p.until(lambda: len(source.deliveries) == 3)
        source.reply(1)
        source.reply(2)
        await p.until(lambda: len(caller.answers) == 3)


@in_trio
async def test_who_hangs_on_one_institution_still_takes_from_another(ground: Ground) -> None:
    """One alone gets half of a source's window; the rest of its requests are refused, recorded."""
    async with parts(ground, windows=Windows(source=8)) as p:
        source = p.add_source(RVA)
        greedy, again, other = await p.connect(), await p.connect(), await p.connect(MANAGER)
        greedy.ask(*(ask(id=n) for n in range(4)))
        again.ask(*(ask(id=n) for n in range(4)))
        await p.until(lambda: len(greedy.answers) + len(again.answers) == 4)
        refused = [*greedy.answers, *again.answers]
        assert {answer.code for answer in refused} == {Code.SOURCE_WINDOW_FULL}
        assert all(answer.retry_at_ms == p.wall_ns() // 1_000_000 + 1_000 for answer in refused)
        assert [e.code for e in p.entries_of(refused[0].exchange)] == [0, Code.SOURCE_WINDOW_FULL]

        other.ask(ask(id=1, member=MEMBER), ask(id=2, member=MEMBER), ask(id=3, member=MEMBER))
        await p.until(lambda: len(other.answers) == 1 and len(source.deliveries) == 6)
        requesters = [delivery.requester for _, delivery in source.deliveries]
        assert requesters.count(MANAGER) == 2
        for index in range(6):
            source.reply(index)
        await p.until(lambda: len(other.answers) == 3)
        assert p.upstream.sources[RVA].inflight == 0
        assert p.upstream.sources[RVA]._taken == {}


async def mute(wire: Wire) -> None:
    await trio.sleep_forever()


@in_trio
async def test_a_mute_first_endpoint_delays_nothing(ground: Ground) -> None:
    """Both are dialled at once; what waits goes out on the one that opens."""
    async with parts(ground) as p:
        source = p.add_source(RVA)
        dead = p.add_hostile(RVA, mute, source.endpoint)
        caller = await p.connect()
        caller.ask(ask(id=1))
        await p.until(lambda: source.deliveries)
        for number in range(2, 30):
            caller.ask(ask(id=number))
        await p.until(lambda: len(source.deliveries) == 29)
        assert dead.connections == 1
        for index in range(29):
            source.reply(index)
        await p.until(lambda: len(caller.answers) == 29)
        assert {answer.code for answer in caller.answers} == {Code.ANSWERED_WITH_DATA}
        assert p.upstream.sources[RVA].breaker.failures == 0


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
@in_trio
async def test_a_host_that_is_none_is_a_source_that_cannot_be_reached(
    ground: Ground, host: str
) -> None:
    """Also where no DNS name can be so: the rulebook takes it, and no worker falls over it."""
    async with parts(ground) as p:
        p.endpoints[RVA] = (Endpoint(host, 1, uri(RVA)),)
        caller = await p.connect()
        caller.ask(ask())
        await p.until(lambda: caller.answers)
        assert caller.answers[0].code == Code.SOURCE_UNREACHABLE


@in_trio
async def test_an_endpoint_that_comes_back_takes_its_share_again(ground: Ground) -> None:
    """It is dialled anew with later requests, at most once a second, though the other is up."""
    async with parts(ground) as p:
        gone, source, caller = p.add_source(RVA, listens=False), p.add_source(RVA), None
        p.endpoints[RVA] = (gone.endpoint, source.endpoint)
        caller = await p.connect()
        numbers = itertools.count()
        caller.ask(ask(id=next(numbers)))
        await p.until(lambda: source.deliveries)
        await p.until(lambda: not p.upstream.sources[RVA].dialling)

        back = SourceSide(uri(RVA), context_of(ground.pki, RVA, serves=True), inflight_max=64)
        p.sources.append(back)
        p.nursery.start_soon(back.serve)
        p.endpoints[RVA] = (back.endpoint, source.endpoint)
        p.upstream.refresh()
        p.pass_time(1)
        caller.ask(ask(id=next(numbers)))
        await p.until(lambda: back.links and all(n.is_open for n in p.upstream.sources[RVA].links))
        caller.ask(ask(id=next(numbers)), ask(id=next(numbers)))
        await p.until(lambda: back.deliveries)


@in_trio
async def test_a_source_that_resets_each_connection_is_dialled_until_its_breaker_opens(
    ground: Ground,
) -> None:
    """Everything that waits is answered then, and says when to retry: no dial per request."""

    async def resets(wire: Wire) -> None:
        await wire.greet(inflight_max=1)
        await wire.delivery()
        await wire.reset()

    async with parts(ground, sources=Sources(breaker_failures=3)) as p:
        hostile, caller = p.add_hostile(RVA, resets), await p.connect()
        caller.ask(*(ask(id=n) for n in range(50)))

        def is_over() -> bool:
            p.now_ns += 100_000_000  # an endpoint that comes to nothing rests for a second
            return len(caller.answers) == 50

        await p.until(is_over)
        codes = [answer.code for answer in caller.answers]
        assert codes.count(Code.SOURCE_CONNECTION_LOST) == hostile.connections == 3
        assert codes.count(Code.SOURCE_BREAKER_OPEN) == 47
        assert all(len(p.entries_of(answer.exchange)) == 2 for answer in caller.answers)
        assert p.upstream.sources[RVA].inflight == 0


@in_trio
async def test_what_waits_for_a_connection_does_not_all_go_onto_it_at_once(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits when it opens: no more is queued once the soft bound is reached."""
    queued, really_send = [], SourceLink.send

    def send(link: SourceLink, errand: Errand, now_ns: int) -> None:
        queued.append(link.link.queued_bytes)
        really_send(link, errand, now_ns)

    monkeypatch.setattr(SourceLink, "send", send)
    monkeypatch.setattr(daemon_source, "connection_outgoing_soft_bytes", 100_000)
    async with parts(ground) as p:
        rva, callers = p.add_source(RVA), [await p.connect() for _ in range(4)]
        for number, caller in enumerate(callers * 3):
            caller.ask(ask(id=number, ticket=f"t{number}", payload=bytes(60_000)))
        await p.until(lambda: len(rva.deliveries) == 12)
    assert max(queued) < 100_000


@in_trio
async def test_a_source_that_drains_as_it_greets_is_not_dialled_on_and_on(ground: Ground) -> None:
    """Connections that end are bounded, and what waits is answered at its deadline."""

    async def drains_at_once(wire: Wire) -> None:
        await wire.frame()
        welcome = framed(WELCOME, 1, "hostile", frame_bytes_max, 64)
        await wire.tls.send_all(welcome + framed(DRAIN, 30))

    def is_still(p: Parts, inflight: int) -> bool:
        source = p.upstream.sources[RVA]
        drained = all(link.is_draining for link in source.links)
        return source.inflight == inflight and drained and not source.dialling

    async with parts(ground) as p:
        hostile, caller = p.add_hostile(RVA, drains_at_once), await p.connect()
        for number in range(20):
            caller.ask(ask(id=number, deadline_ms=2_000))
            await p.until(
                lambda n=number: RVA in p.upstream.sources and is_still(p, inflight=n + 1)
            )
        assert hostile.connections == source_draining_links_max
        p.pass_time(2.01)
        await p.until(lambda: len(caller.answers) == 20)
        assert {answer.code // 1000 for answer in caller.answers} == {Stage.ROUTING}


@in_trio
async def test_a_trial_that_its_requester_gave_up_early_is_still_due(ground: Ground) -> None:
    """Who waits for 100 ms only can neither open a breaker nor keep one open."""
    options = Sources(breaker_failures=1, breaker_open_seconds=10)
    async with parts(ground, sources=options) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number in range(3):
            caller.ask(ask(id=number, deadline_ms=100))
            await p.until(lambda n=number: len(source.deliveries) == n + 1)
            p.pass_time(0.11)
            await p.until(lambda n=number: len(caller.answers) == n + 1)
        assert {answer.code for answer in caller.answers} == {Code.SOURCE_SILENT}
        assert p.upstream.sources[RVA].breaker == Breaker()

        caller.ask(ask(id=3))
        await p.until(lambda: len(source.deliveries) == 4)
        p.pass_time(10.01)
        await p.until(lambda: len(caller.answers) == 4)
        p.pass_time(10)
        caller.ask(ask(id=4, deadline_ms=100))
        await p.until(lambda: len(source.deliveries) == 5)
        p.pass_time(0.11)
        await p.until(lambda: len(caller.answers) == 5)
        caller.ask(ask(id=5))
        await p.until(lambda: len(source.deliveries) == 6)
        source.reply()
        await p.until(lambda: len(caller.answers) == 6)
        assert p.upstream.sources[RVA].breaker == Breaker()


@in_trio
async def test_a_source_that_fails_every_second_time_is_left_in_peace(ground: Ground) -> None:
    """Never five in a row, and still half of twenty."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number in range(20):
            caller.ask(ask(id=number))
            await p.until(lambda n=number: len(source.deliveries) == n + 1)
            source.reply(person=None if number % 2 else source.last.person)
            await p.until(lambda n=number: len(caller.answers) == n + 1)
        caller.ask(ask(id=20))
        await p.until(lambda: len(caller.answers) == 21)
        assert caller.answer_to(20).code == Code.SOURCE_BREAKER_OPEN


@in_trio
async def test_deliveries_that_are_not_read_wait_in_bounds_and_harm_no_other(
    ground: Ground,
) -> None:
    """Not the connection's buffer grows but the queue, which its window and deadlines bound."""

    async def reads_nothing(wire: Wire) -> None:
        wire.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await wire.greet()

    async with parts(ground) as p:
        p.add_hostile(RVA, reads_nothing)
        well, caller, other = p.add_source(PENSIONS), await p.connect(), await p.connect()
        caller.ask(*(ask(id=n, payload=LARGE) for n in range(200)))
        await p.until(lambda: RVA in p.upstream.sources and p.upstream.sources[RVA].inflight == 200)
        await p.until(lambda: any(link.pending for link in p.upstream.sources[RVA].links))
        (link,) = p.upstream.sources[RVA].links
        await p.until(lambda: link.link.unsent_bytes)
        assert link.link.queued_bytes <= connection_outgoing_soft_bytes + frame_bytes_max
        assert len(p.upstream.sources[RVA].waiting) > 20

        other.ask(ask(id=1, service="PensionRegister", version=1))
        await p.until(lambda: well.deliveries)
        well.reply()
        await p.until(lambda: other.answers)
        assert other.answers[0].code == Code.ANSWERED_WITH_DATA
        p.housekeeping.tick()
        p.now_ns += 9_000_000_000
        p.housekeeping.tick()
        assert p.upstream.sources[RVA].links == [link]
        p.now_ns += 1_100_000_000
        p.housekeeping.tick()
        assert link not in p.upstream.sources[RVA].links
        assert [ended.code for _, ended in p.ended] == [Code.PEER_TOO_SLOW]
        await p.until(lambda: len(caller.answers) == 200)
        sent_or_not = {Code.SOURCE_CONNECTION_LOST, Code.SOURCE_UNREACHABLE}
        assert {answer.code for answer in caller.answers} == sent_or_not
        assert all(len(p.entries_of(answer.exchange)) == 2 for answer in caller.answers)


@in_trio
async def test_a_source_that_reads_slowly_gets_everything_in_the_end(ground: Ground) -> None:
    """What waited goes out as room comes free, without any other event to wake it."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA, inflight_max=1024), await p.connect()
        caller.ask(ask(id=0))
        await p.until(lambda: source.deliveries)
        source.reads = False
        caller.ask(*(ask(id=n, payload=LARGE) for n in range(1, 200)))
        await p.until(lambda: p.upstream.sources[RVA].inflight == 200)
        await p.until(lambda: p.upstream.sources[RVA].links[0].link.unsent_bytes)
        assert p.upstream.sources[RVA].waiting
        source.reads = True
        await p.until(lambda: len(source.deliveries) == 200)


@in_trio
async def test_metrics_and_status_tell_the_state_of_each_source(ground: Ground) -> None:
    """How many are in which of four states, and never which: that says the status."""
    options = Sources(breaker_failures=1)
    async with parts(ground, sources=options) as p:

        def states() -> dict[str, float]:
            family = next(m for m in p.metrics.collect() if m.name == "ksz_router_sources")
            assert all(sample.labels.keys() == {"state"} for sample in family.samples)
            return {sample.labels["state"]: sample.value for sample in family.samples}

        none = {"up": 0, "dialling": 0, "breaker_open": 0, "idle": 0}
        assert states() == none
        source, caller = p.add_source(RVA), await p.connect()
        dead = p.add_hostile(PENSIONS, mute)
        caller.ask(ask(id=1), ask(id=2, service="PensionRegister", version=1))
        await p.until(lambda: source.deliveries and dead.connections)
        assert states() == none | {"up": 1, "dialling": 1}
        p.pass_time(4.01)
        await p.until(lambda: caller.answers)
        assert states() == none | {"up": 1, "breaker_open": 1}
        assert p.upstream.sources[PENSIONS].state == "breaker open"
        source.lose(source.links[0])
        await p.until(lambda: len(caller.answers) == 2)
        assert states() == none | {"breaker_open": 2}
