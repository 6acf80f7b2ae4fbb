"""What may be deleted, and what never: each condition alone keeps a write-ahead file."""

import uuid
from pathlib import Path

import msgspec
import pytest

from ksz_router.config import Archive, Config, Ledger, Node, PrivacyLog
from ksz_router.daemon.ledger_from_log import ready
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.archive.pieces import SegmentRefused
from ksz_router.privacylog.archive.places import file_of, sealed_path
from ksz_router.privacylog.archive.seal import SLOT
from ksz_router.privacylog.archive.sweep import Leftovers, Limits, sweep_log
from ksz_router.privacylog.entry import canonical, parse
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.slots import file_of as wal_of
from ksz_router.privacylog.verify import verify
from tests.archive_ground import Ground
from tests.privacylog_world import NOW_NS, crash

DAY_US = 86_400_000_000
LIMITS = Limits(keep_us=7 * DAY_US, window_us=DAY_US)


def day(ground: Ground, number: int, *records: bytes, slot: str = "w0") -> None:
    """One file with an exchange of that day, in a slot that is closed again."""
    ground.world.now_ns = NOW_NS + number * DAY_US * 1000
    writer = ground.world.open(slot=slot)
    exchange = uuid_of(ground)
    for record in records or (
        ground.world.request(exchange, attempt=0), ground.world.outcome(exchange)
    ):  # fmt: skip
        writer.commit([record], ground.world.now_ns)
    writer.close()


def uuid_of(ground: Ground) -> int:
    """An exchange id of now: its first 48 bits are milliseconds."""
    return (ground.now_us // 1000) << 80 | uuid.uuid4().int >> 48


@pytest.fixture(scope="module")
def ten_days(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A file a day, for ten days; all of it sealed, and the entries of that too."""
    ground = Ground(tmp_path_factory.mktemp("ten-days"))
    for number in range(10):
        day(ground, number)
        if number in {0, 1, 4, 8, 9}:
            ground.seal()
    ground.seal()
    return ground


@pytest.fixture
def ground(ten_days: Ground, tmp_path: Path) -> Ground:
    return ten_days.copied(tmp_path / "copy")


def numbers(ground: Ground, slot: str = "w0") -> list[int]:
    return [int(file.stem) for file in ground.world.files(slot)]


def sweep(ground: Ground, limits: Limits = LIMITS, **more: int) -> list[int]:
    gone = sweep_log(
        ground.archive, ground.world.log, ground.keys, limits,
        more.get("now_us", ground.now_us),
    )  # fmt: skip
    return [int(file.stem) for file in gone if file.parent.name == "w0"]


def test_what_is_sealed_and_old_goes(ground: Ground) -> None:
    """File 1 was followed by another on day 1, file 2 on day 2: seven days before day 9."""
    before = ground.truth()
    assert sweep(ground) == [1, 2]
    assert numbers(ground) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert sweep(ground) == []
    assert ground.truth() == before


def test_the_slot_goes_on_after_its_first_files_went(ground: Ground) -> None:
    sweep(ground)
    day(ground, 10)
    ground.seal()
    assert numbers(ground)[-1] == 11
    assert ground.truth()[-1] != b""
    sweep(ground)
    assert numbers(ground)[0] == 4


def test_the_newest_file_of_a_slot_stays(ground: Ground) -> None:
    ground.world.now_ns += 100 * DAY_US * 1000
    assert sweep(ground) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert numbers(ground) == [10]


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        (Limits(0, 0), [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (Limits(8 * DAY_US, 0), [1]),
        (Limits(9 * DAY_US, 0), []),
        (Limits(0, 6 * DAY_US), [1, 2, 3]),
    ],
)
def test_what_is_young_stays(ground: Ground, limits: Limits, gone: list[int]) -> None:
    assert sweep(ground, limits) == gone


def test_what_is_not_sealed_stays(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    day(ground, 0)
    day(ground, 1)
    ground.seal()
    day(ground, 2)
    day(ground, 3)
    ground.sequence()
    ground.world.now_ns += 100 * DAY_US * 1000
    assert sweep(ground) == []  # the entry that says it is sealed is not sealed itself
    ground.seal()
    assert sweep(ground) == [1]  # as far as the manifest says that this entry is of


def test_what_a_new_run_reads_stays(tmp_path: Path) -> None:
    """A run that was killed in its second file: what it left open stands in the first one too."""
    ground = Ground(tmp_path)
    world = ground.world
    writer = world.open()
    for number in range(20):
        writer.commit([world.request(number)], world.now_ns)
    crash(writer)
    assert numbers(ground) == [1, 2]
    for number in range(2):
        day(ground, number, slot="w1")
        ground.seal()
    assert sweep(ground, Limits(0, 0)) == []
    world.open().close()
    outcomes = [entry for entry in world.entries() if entry.code == 9010]
    assert len(outcomes) == 20


def test_another_file_of_that_name_stays(ground: Ground) -> None:
    """A slot that was renamed was begun anew: its files are not those that the cursors mean."""
    ground.world.slot.rename(ground.world.log / "q-2026-11-22-w0")
    for number in range(10, 13):
        day(ground, number)
    ground.world.now_ns += 100 * DAY_US * 1000
    assert numbers(ground) == [1, 2, 3]
    assert sweep(ground) == []
    for _ in range(3):
        day(ground, 113, slot="w1")
        ground.seal()
    assert sweep(ground) == [1, 2]
    assert numbers(ground) == [3]


def test_attempts_of_tickets_that_live_stay(ground: Ground) -> None:
    """A retry of day 9 names the exchange of day 2: the file of day 2 is kept, and what follows."""
    first = next(
        entry.exchange
        for entry in ground.world.entries()
        if entry.at_us >= NOW_NS // 1000 + 2 * DAY_US
    )
    assert first is not None
    retry = canonical(
        msgspec.structs.replace(
            parse(ground.world.request(uuid_of(ground))), first=first, attempt=2, content=bytes(16)
        )
    )
    day(ground, 10, retry)
    for _ in range(2):
        day(ground, 10, slot="w1")
        ground.seal()
    limits = Limits(keep_us=0, window_us=DAY_US)
    began_us = int.from_bytes(first[:6], "big") * 1000
    gone = sweep(ground, limits)
    assert gone == [1, 2][: sum(n * DAY_US + NOW_NS // 1000 <= began_us for n in (1, 2))]
    # Once no attempt of it is that young, it goes.
    ground.world.now_ns += 5 * DAY_US * 1000
    assert len(sweep(ground, limits)) > 3


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_nothing_goes_that_a_sealed_file_does_not_hold(ground: Ground, damage: str) -> None:
    file = file_of(ground.archive, ground.files("t")[1].path)
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    if damage == "missing":
        file.unlink()
    before = numbers(ground)
    with pytest.raises(SegmentRefused):
        sweep(ground)
    assert numbers(ground) == before


def test_a_gap_that_no_sweep_made_is_refused(ground: Ground) -> None:
    sweep(ground)
    wal_of(ground.world.slot, 10).rename(wal_of(ground.world.slot, 12))
    with pytest.raises(LogCorrupt):
        ground.world.open()


def test_verification_knows_what_was_swept(ground: Ground) -> None:
    """The first files may be gone as far as they are sealed; anywhere else they are missed."""
    world = ground.world
    sweep(ground)
    manifest = newest(ground.archive)
    assert manifest is not None
    assert verify(world.log, world.keys, manifest.slots).faults == []
    faults = verify(world.log, world.keys).faults
    assert [fault.file.parent.name for fault in faults] == ["s0", "w0"]
    assert all("missing, and not sealed" in fault.what for fault in faults)
    early = {**manifest.slots, "w0": msgspec.structs.replace(manifest.slots["w0"], file=2)}
    assert len(verify(world.log, world.keys, early).faults) == 1
    wal_of(world.slot, 5).unlink()
    assert any(
        "file 5" in each.what for each in verify(world.log, world.keys, manifest.slots).faults
    )


@pytest.mark.parametrize("gone", ["swept", "the middle", "not sealed"])
def test_the_ledger_is_made_of_what_was_left(ground: Ground, tmp_path: Path, gone: str) -> None:
    """Also where its window was widened since: what is sealed was old enough when it went."""
    sweep(ground)
    if gone == "the middle":
        wal_of(ground.world.slot, 6).unlink()
    elif gone == "not sealed":
        ground.world.slot.rename(ground.world.log / "w7")
    settings = Config(
        node=Node("router-a"),
        privacy_log=PrivacyLog(path=str(ground.world.log), keys=str(ground.world.keys)),
        archive=Archive(path=str(ground.archive)),
        ledger=Ledger(path=str(tmp_path / "ledger"), window_hours=24 * 30),
    )
    if gone == "swept":
        assert ready(settings, ground.world.now_ns) == 0
    else:
        with pytest.raises(LogCorrupt, match="missing, and not sealed"):
            ready(settings, ground.world.now_ns)


def test_the_sealer_sweeps_its_own_slot(ground: Ground) -> None:
    ground.world.now_ns += 100 * DAY_US * 1000
    before = numbers(ground, SLOT)
    sweep(ground)
    assert numbers(ground, SLOT)[-1] == before[-1]
    assert len(numbers(ground, SLOT)) < len(before)
    ground.seal()
    assert newest(ground.archive) is not None


def test_files_that_nobody_names_go_after_a_minute(ground: Ground) -> None:
    """What a killed run left, half or whole; never what a manifest names."""
    left = [
        file_of(ground.archive, sealed_path("t", "2026Q4", 1, 2)),
        file_of(ground.archive, sealed_path("p", "2026Q4", 0, 2, level=1)),
    ]
    left.append(left[0].with_name(f".{left[0].name}.partial"))
    for file in left:
        file.write_bytes(b"left")
    leftovers = Leftovers(ground.archive)
    assert leftovers.sweep(0) == []
    assert leftovers.sweep(59_999_999) == []
    assert set(leftovers.sweep(60_000_000)) >= set(left)
    assert leftovers.sweep(10**12) == []
    for kind in "tpukrc":
        for sealed in ground.files(kind):
            assert file_of(ground.archive, sealed.path).exists()


def test_a_file_that_is_named_after_all_stays(ground: Ground) -> None:
    """A killed merge left it, and the next one took it over as it was."""
    (like, *_) = ground.files("k")
    path = sealed_path("k", "2026Q4", like.first_leaf, like.end_leaf, level=1)
    file = file_of(ground.archive, path)
    file.write_bytes(file_of(ground.archive, like.path).read_bytes())
    leftovers = Leftovers(ground.archive)
    assert leftovers.sweep(0) == []
    writer = ground.open_slot()
    named = msgspec.structs.replace(like, path=path, level=1)
    ground.sealer(writer).record(ground.now_us, (named,), (like.path,))
    writer.close()
    leftovers.sweep(60_000_000)
    assert file.exists()


def test_merged_files_go_after_a_minute(ground: Ground) -> None:
    leftovers = Leftovers(ground.archive)
    leftovers.sweep(0)
    merged = ground.files("k")[0]
    writer = ground.open_slot()
    ground.sealer(writer).record(ground.now_us, (), (merged.path,))
    writer.close()
    file = file_of(ground.archive, merged.path)
    assert leftovers.sweep(10) == []
    assert file.exists()
    assert file in leftovers.sweep(60_000_010)
