"""Where readings are recorded: a few slots, taken again and again, one process at a time."""

import os
from pathlib import Path

import pytest

from ksz_router.identifiers import Insz
from ksz_router.privacylog import reading
from ksz_router.privacylog.reading import ReadingRefused, record_reading
from ksz_router.privacylog.verify import verify
from ksz_router.privacylog.writer import Writer
from tests.privacylog_world import NEXT_QUARTER_NS, NOW_NS, PERSON, QUARTER, World, crash

FIRST, SECOND = (f"v-{os.getuid()}-{number}" for number in (0, 1))


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.log.mkdir()
    return made


def read(world: World, purpose: str = "audit", now_ns: int = NOW_NS) -> None:
    record_reading(
        world.log, world.keys, node="router-a", reader="dpo", purpose=purpose, verb="log query",
        now_ns=now_ns, persons=[Insz(PERSON)],
    )  # fmt: skip


def purposes(world: World, slot: str = FIRST) -> list[str]:
    return [entry.purpose for entry in world.entries(slot)]


def slots(world: World) -> list[str]:
    return sorted(folder.name for folder in world.log.iterdir())


def held(world: World, slot: str) -> Writer:
    """A slot as another process holds it at this moment."""
    return world.open(slot=slot)


def test_readings_one_after_the_other_share_a_slot_and_are_chained(world: World) -> None:
    """No folder a reading; and one reading cannot be taken away without a trace."""
    for number in range(5):
        read(world, f"audit {number}")
    assert slots(world) == [FIRST]
    assert purposes(world) == [f"audit {number}" for number in range(5)]
    assert verify(world.log, world.keys).faults == []
    world.files(FIRST)[2].unlink()
    assert verify(world.log, world.keys).faults


def test_readings_at_the_same_time_have_slots_of_their_own(world: World) -> None:
    """Nobody waits, and nobody writes into another's file."""
    other = held(world, FIRST)
    read(world)
    other.close()
    assert slots(world) == [FIRST, SECOND]
    assert purposes(world, SECOND) == ["audit"]
    read(world, "later")
    assert purposes(world) == ["later"]


def test_a_reading_that_was_killed_does_not_hold_the_next_up(world: World) -> None:
    """Its slot is taken again, and the log is whole."""
    crash(held(world, FIRST))
    read(world)
    assert slots(world) == [FIRST]
    assert purposes(world) == ["audit"]
    assert verify(world.log, world.keys).faults == []


def test_a_damaged_slot_is_left_as_it_is_and_another_taken(world: World) -> None:
    """Damage is for verification to name; it may not stop a data-protection officer."""
    read(world)
    (file,) = world.files(FIRST)
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    read(world, "after")
    assert purposes(world, SECOND) == ["after"]
    assert file.read_bytes() == data
    assert [fault.file for fault in verify(world.log, world.keys).faults] == [file]


def test_a_slot_of_a_quarter_that_was_destroyed_is_not_needed(world: World) -> None:
    """Expiry of an old quarter never ends the recording of new readings."""
    read(world)
    (world.keys / f"{QUARTER}.json").unlink()
    read(world, "next quarter", NEXT_QUARTER_NS)
    assert purposes(world, SECOND) == ["next quarter"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for another user")
def test_what_root_recorded_belongs_to_whom_the_log_belongs_to(world: World) -> None:
    """Else a router that starts after an administrator's query could not read its own log."""
    os.chown(world.log, 65_534, 65_534)
    read(world)
    read(world)
    made = [world.log / FIRST, *(world.log / FIRST).iterdir()]
    assert len(made) >= 3
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65_534, 65_534)}


def test_too_many_readings_at_once_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of slots is bounded; without a record nothing is read."""
    monkeypatch.setattr(reading, "READINGS_AT_ONCE_MAX", 2)
    writers = [held(world, slot) for slot in (FIRST, SECOND)]
    with pytest.raises(ReadingRefused, match="no slot"):
        read(world)
    for writer in writers:
        writer.close()
    read(world)
    assert purposes(world) == ["audit"]
