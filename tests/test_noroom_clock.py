"""The clock of the host jumps: entries keep their order and quarter, and deadlines their length."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.codes import Code
from ksz_router.config import Tls
from ksz_router.daemon.clock import HostClock
from ksz_router.daemon.contexts import Contexts
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.limits import clock_error_seconds_max, clock_hold_seconds, clock_step_seconds_max
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing, make, quarter_begin_ns
from ksz_router.privacylog.verify import verify
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio, parts
from tests.nights import HOUR, SECOND, YEARS, Clocks, Night
from tests.worlds import RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@pytest.fixture
def night(tmp_path: Path, ground: Ground) -> Iterator[Night]:
    certificate, key, authorities = (
        str(ground.pki / name) for name in ("router.crt", "router.key", "authorities.pem")
    )
    made = Night(tmp_path, Contexts(Tls(certificate, key, authorities)))
    yield made
    made.stop()


@in_trio
async def test_an_hour_back_stops_the_router_until_it_is_known_to_be_right(night: Night) -> None:
    """Seen within a second; what is open ends; then it goes on by itself, and in order."""
    before = night.record()
    night.clocks.jump(-HOUR)
    await night.pass_time(1)
    assert not night.takes_requests
    assert night.keeping.reasons() == ("clock_jumped",)
    assert night.metrics.clock_jumps() == 1
    assert night.keeping.clock.offset_s == -HOUR
    open_then = night.record()
    assert abs(open_then - before - SECOND // 1000) < 10, "what was open ends by the old time"

    await night.pass_time(int(clock_hold_seconds) - 1)
    assert not night.takes_requests
    await night.pass_time(2)
    assert night.takes_requests
    assert night.keeping.reasons() == ()
    assert night.keeping.clock.now_ns() == night.clocks.wall
    later = [night.record() for _ in range(3)]
    assert later[0] > open_then
    assert later == sorted(set(later))
    await night.pass_time(HOUR)
    assert night.record() == night.clocks.wall // 1000, "it has come up to it"
    night.stop()
    assert night.times() == sorted(set(night.times()))
    assert verify(night.folder / "log", night.folder / "keys").faults == []


@in_trio
async def test_ten_years_on_stop_the_router_until_the_clock_is_right(night: Night) -> None:
    """Nothing is ever recorded with such a time, however long it stays."""
    before = night.record()
    night.clocks.jump(YEARS)
    await night.pass_time(1)
    assert not night.takes_requests
    assert night.keeping.reasons() == ("clock_jumped", "certificate_ended")
    await night.pass_time(3 * int(clock_hold_seconds))
    assert not night.takes_requests
    assert night.record() < before + 4 * clock_hold_seconds * 1_000_000

    night.clocks.jump(-YEARS)
    await night.pass_time(1)
    assert night.takes_requests
    assert night.keeping.reasons() == ()
    assert night.record() == night.clocks.wall // 1000
    assert night.metrics.clock_jumps() == 1


@in_trio
async def test_a_start_ten_years_on_waits_for_its_keys_and_ends_no_process(night: Night) -> None:
    """There are no keys of that quarter; once the clock is right the log opens by itself."""
    before = night.record()
    night.stop()
    night.clocks.jump(YEARS)
    night.start()
    assert not night.takes_requests
    assert night.keeping.reasons() == ("keys_missing", "certificate_ended")
    await night.pass_time(5)
    assert not night.takes_requests
    night.clocks.jump(-YEARS)
    await night.pass_time(1)
    assert night.takes_requests
    assert night.keeping.reasons() == ()
    assert night.record() > before


@in_trio
async def test_a_start_an_hour_back_goes_on_in_order_and_every_entry_is_found(night: Night) -> None:
    """Readers leave out files by their time: entries out of order would never be found."""
    times = [night.record()]
    for _ in range(3):
        night.stop()
        night.clocks.go_on(60)
        night.clocks.jump(-HOUR / 3)
        night.start()
        assert night.takes_requests
        times += [night.record(), night.record()]
    night.stop()
    assert night.times() == times == sorted(set(times))
    for at_us in times:
        assert night.query(at_us, at_us + 1) == [at_us]


@in_trio
async def test_a_log_that_is_hours_ahead_of_the_clock_is_not_written(night: Night) -> None:
    """It waits, says so, and goes on when the clock has come up to it."""
    before = night.record()
    night.stop()
    night.clocks.jump(-clock_error_seconds_max - 60)
    night.start()
    assert not night.takes_requests
    assert night.keeping.reasons() == ("clock_jumped",)
    await night.pass_time(61)
    assert night.takes_requests
    assert night.record() > before


@in_trio
async def test_a_quarter_without_keys_stops_the_router_until_they_are_there(night: Night) -> None:
    """What is open ends under the old keys; no worker ends; a quarter never comes back."""
    night.stop()
    night.clocks.wall = quarter_begin_ns("2027Q1") - 2 * SECOND
    night.start()
    first = night.record()
    await night.pass_time(3)
    assert not night.takes_requests
    assert night.keeping.reasons() == ("keys_missing",)
    second = night.record()
    make(night.folder / "keys", "2027Q1")
    await night.pass_time(1)
    assert night.takes_requests
    third = night.record()
    night.clocks.jump(-clock_step_seconds_max)
    await night.pass_time(1)
    fourth = night.record()
    night.stop()
    assert night.times() == [first, second, third, fourth] == sorted({first, second, third, fourth})
    assert verify(night.folder / "log", night.folder / "keys").faults == []
    assert set(quarters_of(night)) == {("2026Q4", 2), ("2027Q1", 2)}


def quarters_of(night: Night) -> list[tuple[str, int]]:
    """The quarter of each file, and how many entries it holds."""
    log = HotLog(night.folder / "log", KeyRing(night.folder / "keys"))
    found = []
    for file in log._files[log.slots[0]]:
        records: list[bytes] = []
        log._scan(file, lambda frame, records=records: records.extend(frame.records))  # type: ignore[misc]
        if records:
            found.append((file.quarter, len(records)))
    return found


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(-7_200, 7_200)), max_size=40))
def test_what_a_worker_goes_by_steps_only_when_it_says_so(steps: list[tuple[int, int]]) -> None:
    """Between two looks time passes as it does; a look moves it a little, or says that it waits."""
    clocks = Clocks()
    clock = HostClock(clocks.wall_ns, clocks.monotonic_ns)
    for seconds, jump in steps:
        before = clock.now_ns()
        clocks.jump(jump)
        assert clock.now_ns() == before
        clocks.go_on(seconds)
        assert clock.now_ns() == before + seconds * SECOND
        waited = clock.has_jumped
        clock.look()
        moved_s = (clock.now_ns() - before) / SECOND - seconds
        if clock.has_jumped:
            assert moved_s == 0
        else:
            assert clock.now_ns() == clocks.wall
            assert waited or abs(moved_s) <= clock_step_seconds_max


def test_exchange_ids_stay_unique_and_in_order_whatever_the_clock_does() -> None:
    """Their time never goes back; within one millisecond chance tells them apart."""
    clocks = Clocks()
    new_ids = ExchangeIds(clocks.wall_ns)
    ids = []
    for jump in (0, -HOUR, 0, YEARS, -YEARS, -HOUR):
        clocks.jump(jump)
        ids += new_ids(600)
    assert len(set(ids)) == len(ids)
    moments = [each[:6] for each in ids]
    assert moments == sorted(moments)


@in_trio
async def test_deadlines_know_nothing_of_the_clock(ground: Ground) -> None:
    """Set on by ten years nothing expires early; set back by an hour nothing waits longer."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        true_wall_ns, jump_s = p.wall_ns, YEARS
        p.exchanges._wall_ns = lambda: true_wall_ns() + jump_s * SECOND
        caller.ask(ask(id=1, deadline_ms=2_000))
        await p.until(lambda: source.deliveries)
        jump_s = -HOUR
        p.pass_time(1.9)
        assert not caller.answers
        p.pass_time(0.2)
        await p.until(lambda: caller.answers)
        assert caller.answers[0].code == Code.SOURCE_SILENT
