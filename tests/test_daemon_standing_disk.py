"""A disk that does not answer for a while: nothing leaves, the loop is everybody else's, and on."""

from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from ksz_router.codes import Code
from ksz_router.limits import flush_seconds_max
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.taking import LogNotWritable
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller, SourceSide
from tests.worlds import POD_MI, RVA, ask


class StandingDisk(Disk):
    """Finishes so many of the flushes that are begun, and no more until it is let."""

    def __init__(self) -> None:
        self.lets = 1_000_000
        self.waits: list[float] = []
        self.stands_for = 0
        """So many more times it is asked in vain."""

    def begin_flush(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_flushed(self, wait_s: float) -> bool:
        self.waits.append(wait_s)
        if self.stands_for or not self.lets:
            self.stands_for = max(0, self.stands_for - 1)
            return False
        self.lets -= 1
        self.flush(self._descriptor)
        return True


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


async def _until(p: Parts, condition: Callable[[], object]) -> None:
    """Let the loop's own task run, and everybody's sockets, until it is so."""
    for _ in range(10_000):
        sides: tuple[Caller | SourceSide, ...] = (*p.callers, *p.sources)
        for side in sides:
            side.pump()
        if condition():
            return
        await trio.testing.wait_all_tasks_blocked()
    raise AssertionError("it never comes to be so")


@in_trio
async def test_while_the_disk_stands_nothing_leaves_and_others_run(ground: Ground) -> None:
    """Neither the delivery nor the answer; nobody is read; and it goes on by itself."""
    disk = StandingDisk()
    async with parts(ground, disk=disk) as p:
        source, caller = p.add_source(RVA), await p.connect()
        p.nursery.start_soon(p.loop.run)
        for count, left in ((1, lambda: source.deliveries), (2, lambda: caller.answers)):
            disk.lets = 0
            if count == 1:
                caller.ask(ask(id=1))
            else:
                source.reply()
            await _until(p, lambda: p.recorder.is_standing)
            caller.ask(ask(id=10 * count))
            (session,) = p.loop.sessions
            for _ in range(20):  # this task runs, and the loop looks at the disk again and again
                await trio.sleep(0.001)
                assert not left()
                assert 10 * count not in session.inflight
            assert len(p.durable) == count - 1 + (count - 1)
            disk.lets = 1_000_000
            await _until(p, left)
            if count == 1:
                await _until(p, lambda: len(source.deliveries) == 2)
                assert [entry.kind for entry in p.durable] == [Kind.REQUEST] * 2
        assert [answer.code for answer in caller.answers] == [Code.ANSWERED_WITH_DATA]


@in_trio
async def test_what_others_recorded_is_gone_on_with_though_no_link_has_news(
    ground: Ground,
) -> None:
    """The task of the loop waits for links; that a group stands it is told."""
    disk = StandingDisk()
    async with parts(ground, disk=disk) as p:
        await p.connect()
        p.nursery.start_soon(p.loop.run)
        await trio.testing.wait_all_tasks_blocked()
        disk.lets = 0
        (session,) = p.loop.sessions
        p.admission.count(session.uri, Code.CONNECTION_WINDOW_FULL)
        p.summarise()
        p.loop.finish()
        p.loop.finish()
        assert p.recorder.is_standing
        assert disk.waits[-2] > disk.waits[-1] == 0, "who comes while it stands does not wait"
        disk.lets = 1
        await _until(p, lambda: not p.recorder.is_standing)
        assert [entry.kind for entry in p.durable] == [Kind.SUMMARY]


@in_trio
async def test_a_disk_that_stands_too_long_ends_the_worker(ground: Ground) -> None:
    """As long as the supervisor waits for a worker that says nothing, and not for ever."""
    disk = StandingDisk()
    async with parts(ground, disk=disk) as p:
        p.add_source(RVA)
        caller = await p.connect()
        disk.lets = 0
        caller.ask(ask())
        try:
            with pytest.raises(LogNotWritable, match="did not answer for 20 s"):
                await _ends(p)
        finally:
            disk.lets = 1


async def _ends(p: Parts) -> None:
    """Run the loop until the disk stands, and then the time that it may."""
    with trio.move_on_after(0.02):
        await p.loop.run()
    assert p.recorder.is_standing
    p.now_ns += int(flush_seconds_max * 1e9)
    with trio.move_on_after(0.02):
        await p.loop.run()
    p.now_ns += 1
    with trio.fail_after(5):
        await p.loop.run()


@in_trio
async def test_an_end_waits_for_what_is_under_way(ground: Ground) -> None:
    """What was submitted while a group stood is written behind it, and durable on return."""
    disk = StandingDisk()
    async with parts(ground, disk=disk) as p:
        p.add_source(RVA)
        caller = await p.connect()
        disk.lets = 0
        caller.ask(ask(id=1))
        (session,) = p.loop.sessions
        await p.until(lambda: p.recorder.is_standing)
        p.admission.count(session.uri, Code.CONNECTION_WINDOW_FULL)
        p.summarise()
        assert not p.durable
        disk.lets, disk.stands_for = 2, 3
        p.loop.complete()
        assert [entry.kind for entry in p.durable] == [Kind.REQUEST, Kind.SUMMARY]
        assert p.recorder.is_empty
        disk.lets = 1_000_000


@in_trio
async def test_a_retry_sees_what_is_recorded_and_not_what_waits_behind_it(
    ground: Ground,
) -> None:
    """Law 2 for the ledger: the outcome of the group under way, not of the next one."""
    disk = StandingDisk()
    submission = {"service": "A036", "version": 1, "payload": b"submission"}
    async with parts(ground, disk=disk) as p:
        source, caller = p.add_source(POD_MI), await p.connect()
        for number in (1, 2):
            caller.ask(ask(id=number, ticket=f"ticket-{number}", **submission))
        await p.until(lambda: len(source.deliveries) == 2)
        disk.lets = 0
        source.reply(0)
        await p.until(lambda: p.recorder.is_standing)
        source.reply(1)
        await p.until(lambda: not p.recorder.is_empty)
        disk.lets = 1
        await p.until(lambda: p.recorder.is_empty)  # the first is recorded, the second under way
        for number in (1, 2):
            caller.ask(ask(id=10 + number, ticket=f"ticket-{number}", **submission))
        await p.until(lambda: not p.recorder.is_empty)
        disk.lets = 1_000_000
        await p.until(lambda: len(caller.answers) == 4)
        assert caller.answer_to(11).code == Code.ANSWERED_WITH_DATA
        assert caller.answer_to(12).code == Code.SUBMISSION_OPEN
        caller.ask(ask(id=22, ticket="ticket-2", **submission))
        await p.until(lambda: len(caller.answers) == 5)
        assert caller.answer_to(22).code == Code.ANSWERED_WITH_DATA
