"""A real router and its sequencer: whatever is killed, every record comes under the checkpoint."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from contrib.stand import free_ports
from ksz_router.daemon.admin import ProgramStatus
from ksz_router.privacylog.tree.note import read_vkeys
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
from tests.sequence_ground import Sequenced

(PORT,) = free_ports(1)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Town]:
    with town(tmp_path / "stand", endpoints={RVA: PORT}, workers=2) as made:
        yield made


def sequenced(stand: Town) -> Sequenced:
    vkeys = read_vkeys(stand.checkpoint_keys / "vkeys")
    return Sequenced(stand.log, stand.keys, stand.archive, stand.last_checkpoint, vkeys)


def sequencer(stand: Town) -> ProgramStatus:
    (program,) = stand.ask().programs
    assert program.name == "sequencer"
    return program


def kill_sequencer(stand: Town) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(sequencer(stand).pid, signal.SIGKILL)


@on_trio
async def test_killed_under_load_everything_comes_under_the_checkpoint(stand: Town) -> None:
    """The sequencer three times, then the whole router; traffic does not notice the first."""
    stand.start()
    here = sequenced(stand)
    async with providing(stand, PORT, Source()), trio.open_nursery() as nursery:
        async with asking(stand) as client:
            crowd = Crowd(client)
            nursery.start_soon(crowd.run)
            await until(lambda: sequencer(stand).state)
            for _ in range(3):
                await crowd.grown()
                before = here.shown().size
                restarts = sequencer(stand).restarts
                kill_sequencer(stand)
                await until(lambda n=restarts: sequencer(stand).restarts > n)  # type: ignore[misc]
                # What was answered up to now comes under a checkpoint while more is answered.
                recorded = 2 * len(crowd.answers)
                await until(lambda n=recorded: here.shown().size >= n)  # type: ignore[misc]
                assert here.shown().size > before
            crowd.stop()
            await until(lambda: len(crowd.answers) == crowd.asked)
            assert {answer.code for answer in crowd.answers} == {10001}
            assert stand.is_ready
        stand.kill()
        await until(lambda: not _is_taken(stand))
        stand.start(wait=False)
        await until(lambda: stand.is_ready)
        async with asking(stand) as client:
            crowd = Crowd(client)
            nursery.start_soon(crowd.run)
            await crowd.grown(50)
            crowd.stop()
            await until(lambda: len(crowd.answers) == crowd.asked)
        assert stand.stop() == 0
        nursery.cancel_scope.cancel()
    assert here.check() == len(stand.entries())  # all of it, when the router is down
    assert not stand.events("cannot_sequence")


def _is_taken(stand: Town) -> bool:
    try:
        stand.ask()
    except OSError:
        return False
    return True


@on_trio
async def test_without_its_keys_the_router_serves_and_says_so(stand: Town) -> None:
    """And what was recorded meanwhile is sequenced once they are back."""
    keys = stand.checkpoint_keys
    keys.rename(stand.folder / "aside")
    stand.start()
    async with providing(stand, PORT, Source()), asking(stand) as client:
        await until(lambda: stand.events("cannot_sequence"))
        assert "keys checkpoint" in stand.events("cannot_sequence")[0]["reason"]
        answer = await client.ask(request())
        assert answer.code == 10001
        assert stand.is_ready
        (stand.folder / "aside").rename(keys)
        await until(lambda: sequencer(stand).state)
        await until(lambda: sequenced(stand).shown().size >= 2)
        # On the port behind those of the two workers.
        await until(lambda: "ksz_router_checkpoint_size 2.0" in stand.scrape(2))
        await until(lambda: "ksz_router_unsequenced_bytes 0.0" in stand.scrape(2))
    assert stand.stop() == 0
    assert sequenced(stand).check() == len(stand.entries())
