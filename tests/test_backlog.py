"""How much is not sequenced, as workers see it from the disk; and that they wait for it."""

from pathlib import Path

import pytest

from ksz_router.privacylog.header import PAGE
from ksz_router.privacylog.tree.backlog import Backlog
from tests.privacylog_world import NOW_NS, crash
from tests.sequence_ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_the_backlog_is_what_the_sequencer_has_not_ordered(ground: Ground) -> None:
    """Before it ever ran, while it runs, while it stands still, over several files and slots."""
    backlog = Backlog(ground.log, ground.archive / "order")
    assert backlog.bytes() == 0
    assert backlog.share() == 0
    writer = ground.open()
    assert backlog.bytes() == 0
    for _ in range(3):
        writer.commit(ground.records(1), NOW_NS)
    assert backlog.bytes() == 3 * PAGE
    sequencer = ground.sequencer()
    sequencer.cycle(NOW_NS)
    assert backlog.bytes() == 0
    other = ground.open(slot="w1")
    other.commit(ground.records(40), NOW_NS)
    sized = backlog.bytes()
    assert sized >= PAGE
    for _ in range(20):  # over into the next file, behind a last frame
        writer.commit(ground.records(1), NOW_NS)
    assert writer.file.name == "000002.wal"
    assert backlog.bytes() == sized + 21 * PAGE
    assert 0 < backlog.share() < 1
    sequencer.cycle(NOW_NS)
    assert backlog.bytes() == 0
    assert Backlog(ground.log, ground.archive / "order").bytes() == 0
    sequencer.close()


def test_a_renamed_slot_is_no_backlog(ground: Ground) -> None:
    """What was ordered under its old name stays ordered."""
    writer = ground.open()
    writer.commit(ground.records(3), NOW_NS)
    sequencer = ground.sequencer()
    sequencer.cycle(NOW_NS)
    writer.commit(ground.records(3), NOW_NS)
    crash(writer)
    ground.slot.rename(ground.log / "q-2026-11-22-w0")
    backlog = Backlog(ground.log, ground.archive / "order")
    assert [backlog.bytes(), backlog.bytes()] == [PAGE, PAGE]
    sequencer.cycle(NOW_NS)
    sequencer.close()
    assert backlog.bytes() == 0
