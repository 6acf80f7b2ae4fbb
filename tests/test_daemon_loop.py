"""The loop by itself: what it flushes, whom it lets run between turns, and its alarm."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import trio
import trio.testing

from ksz_router.codes import Code
from ksz_router.daemon import loop
from ksz_router.wire import Ping, Pong
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller, SourceSide
from tests.worlds import RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_what_the_engine_says_by_itself_goes_out(ground: Ground) -> None:
    """A Ping is answered though nothing else happens: no request, no entry, no answer."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.link.send(Ping(7))
        caller.link.flush()
        await p.until(lambda: Pong(7) in caller.events)


@in_trio
async def test_others_run_between_turns_however_much_is_ready(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the loop works through a flood of 25 turns, another task runs all the time."""
    monkeypatch.setattr(loop, "requester_events_per_turn_max", 4)
    async with parts(ground) as p:
        p.add_source(RVA)
        caller = await p.connect()
        caller.ask(*(ask(id=number) for number in range(100)))
        (session,) = p.loop.sessions
        p.nursery.start_soon(p.loop.run)
        seen = {0}
        with trio.fail_after(5):
            while len(session.inflight) < 100:
                await trio.lowlevel.checkpoint()
                seen.add(len(session.inflight))
        steps = sorted({*seen, 100})
        assert max(more - less for less, more in pairwise(steps)) <= 8, "two turns at most"


@in_trio
async def test_what_the_directory_says_of_a_person_is_not_kept_while_a_source_is_asked(
    ground: Ground,
) -> None:
    """It may be the lines of eighty kilobytes, for each request in flight."""
    async with parts(ground) as p:
        source = p.add_source(RVA)
        caller = await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        (session,) = p.loop.sessions
        (exchange,) = session.inflight.values()
        assert exchange is not None
        assert exchange.request.person is not None
        assert exchange.facts.person is None


def test_the_alarm_goes_off_for_each_deadline_in_turn(ground: Ground) -> None:
    """The first deadline, a nearer one that came later, and a farther one after that."""
    clock = trio.testing.MockClock()
    trio.run(_settle_in_time, ground, clock, clock=clock)


async def _settle_in_time(ground: Ground, clock: trio.testing.MockClock) -> None:
    async with parts(ground) as p:
        source = p.add_source(RVA)
        caller = await p.connect()
        sides = caller, source
        p.nursery.start_soon(p.loop.run)
        for number, deadline_ms in enumerate((3_000, 1_000, 2_000)):
            caller.ask(ask(id=number, deadline_ms=deadline_ms))
            await _go_on(sides, lambda: source.deliveries)
            source.deliveries.clear()
        for number in (1, 2, 0):
            _pass_second(p, clock)
            await _go_on(sides, lambda: caller.answers)
            (answer,) = caller.answers
            assert (answer.id, answer.code) == (number, Code.SOURCE_SILENT)
            caller.answers.clear()


async def _go_on(sides: tuple[Caller, SourceSide], condition: Callable[[], object]) -> None:
    """Let everybody run until it is so. The clock stands still, so it is tries that are counted."""
    for _ in range(10_000):
        for side in sides:
            side.pump()
        if condition():
            return
        await trio.testing.wait_all_tasks_blocked()
    raise AssertionError("it never comes to be so")


def _pass_second(p: Parts, clock: trio.testing.MockClock) -> None:
    p.now_ns += 1_010_000_000  # deadlines are kept in ticks
    clock.jump(1.01)
