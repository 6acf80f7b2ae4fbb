"""Workers that die: replaced, with longer and longer breaks, while the others go on."""

import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from ksz_router.codes import Code
from ksz_router.daemon.handle import Backoff
from ksz_router.daemon.worker_process import LOG_FAILED
from tests.integration.stands import Town, asking, connection_test, on_trio, town, until


def test_the_break_grows_to_a_bound_and_is_short_again_after_a_steady_run() -> None:
    """A worker that ran for more than a minute begins anew; a bad start does not."""
    backoff = Backoff()
    pauses = [backoff.pause_s(ran_s) for ran_s in (5.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 60.0)]
    assert pauses == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert [backoff.pause_s(60.1), backoff.pause_s(0.0)] == [0.1, 0.2]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("workers") / "stand", workers=2) as made:
        made.start()
        yield made


async def is_served(stand: Town) -> bool:
    async with asking(stand) as client:
        return (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA


@on_trio
async def test_a_worker_that_dies_at_every_start_is_tried_less_and_less_and_comes_back(
    stand: Town,
) -> None:
    """Its log is damaged: the reason is logged, status says so, the other serves; then mended."""
    first, second = stand.ask().workers
    damaged = stand.log / "w1" / "000900.wal"
    damaged.write_bytes(b"\xff" * 8192)
    os.kill(second.pid, signal.SIGKILL)
    await until(lambda: len(stand.events("worker_ended")) >= 3, seconds=90)
    status = stand.ask()
    assert (status.is_ready, status.workers[0].pid) == (False, first.pid)
    assert [w.is_ready for w in status.workers] == [True, False]
    assert status.workers[0].restarts == 0
    assert status.workers[1].restarts >= 3
    ended = stand.events("worker_ended")
    assert {event["worker"] for event in ended} == {1}
    assert [e["exit_code"] for e in ended[:3]] == [-signal.SIGKILL, LOG_FAILED, LOG_FAILED]
    assert [event["pause_seconds"] for event in ended[:3]] == [0.1, 0.2, 0.5]
    assert "000900.wal" in stand.events("log_not_writable")[0]["reason"]
    for _ in range(5):
        assert await is_served(stand)
    damaged.unlink()
    await until(lambda: stand.is_ready, seconds=60)
    assert stand.ask().workers[0].pid == first.pid
    stand.verify_log()


@on_trio
async def test_a_worker_waits_for_its_slot_and_serves_once_it_is_free(stand: Town) -> None:
    """Another process holds the slot for a while: it is started once, and nobody else waits."""
    before = stand.ask().workers[1]
    slot = os.open(stand.log / "w1", os.O_RDONLY | os.O_DIRECTORY)
    os.kill(before.pid, signal.SIGKILL)
    fcntl.flock(slot, fcntl.LOCK_EX)
    await until(lambda: stand.events("waiting_for_slot"), seconds=60)
    assert not stand.is_ready
    assert await is_served(stand)
    os.close(slot)
    await until(lambda: stand.is_ready, seconds=60)
    assert stand.ask().workers[1].restarts == before.restarts + 1
