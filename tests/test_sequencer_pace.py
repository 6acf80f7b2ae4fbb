"""How the sequencer gives way: it works in short stretches, unless it is behind or at its end."""

from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from ksz_router.config import Config
from ksz_router.daemon.control import Channel, Stop, pair
from ksz_router.daemon.pacer import Pacer, Stretches
from ksz_router.daemon.sequencer_metrics import SequencerMetrics
from ksz_router.daemon.sequencer_process import SequencerProgram
from ksz_router.limits import MIB
from ksz_router.privacylog.tree import sequence
from tests.privacylog_world import NOW_NS
from tests.sequence_ground import Ground

LOG = structlog.get_logger()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


class Work:
    """Processor time of a thread, and how long it slept."""

    def __init__(self) -> None:
        self.worked_s = 0.0
        self.rests: list[float] = []
        self.stretches = Stretches(Pacer(lambda: self.worked_s), self.rests.append)

    def go_on(self, seconds: float) -> None:
        self.worked_s += seconds
        self.stretches()


def test_a_stretch_ends_after_a_millisecond_and_is_rested_for() -> None:
    """Three times as long as it was worked, from the rest before on."""
    work = Work()
    for seconds in (0.25, 0.5, 0.5, 0.5, 0.5):  # milliseconds
        work.go_on(seconds / 1e3)
    assert work.rests == pytest.approx([0.00375, 0.003])


def test_who_does_not_give_way_does_not_rest() -> None:
    work = Work()
    work.stretches.pacer.gives_way = False
    work.go_on(0.5)
    assert work.rests == []


def test_a_cycle_can_be_left_between_frames_and_between_leaves(ground: Ground) -> None:
    """And the leaves are the same ones, however many are added at once."""
    rests: list[int] = []
    sequencer = ground.sequencer(pause=lambda: rests.append(1))
    writer = ground.open(file_bytes=MIB)
    for _ in range(3):
        writer.commit(ground.records(700), NOW_NS)
    assert sequencer.cycle(NOW_NS).records == 2_100
    writer.close()
    sequencer.close()
    assert len(rests) == 3 + 3, "after each frame, and each thousand of leaves"
    assert ground.check() == 2_100


def test_it_hurries_while_it_is_behind_and_on_the_way_out(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound of a cycle was reached; or it was told to stop, and somebody waits for it."""
    monkeypatch.setattr(sequence, "sequence_records_max", 10)
    writer = ground.open()
    for _ in range(3):
        writer.commit(ground.records(10), NOW_NS)
    pacer, gave_way = Pacer(lambda: 0.0), list[bool]()
    sequencer = ground.sequencer(pause=lambda: gave_way.append(pacer.gives_way))
    metrics = SequencerMetrics(Config())

    async def main() -> None:
        here, supervisor = map(Channel, pair())
        program = SequencerProgram(sequencer, pacer, metrics, here, LOG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(program.run)
            while sum(metrics.cycle.counts) < 4:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert gave_way == [True, False, False]
            writer.commit(ground.records(1), NOW_NS)
            await supervisor.send(Stop())
        here.close()
        supervisor.close()

    trio.run(main, clock=trio.testing.MockClock())  # it stands: no other cycle is due
    assert gave_way[3:]
    assert not any(gave_way[3:])
    sequencer.close()
    writer.close()
    assert ground.check() == 31
