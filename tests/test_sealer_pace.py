"""How the sealer gives way to commits: what it worked it rests for, as long as entries come."""

import pytest

from ksz_router.daemon.pacer import Pacer
from ksz_router.daemon.sealer import HandedOver, SealerPace


class Times:
    """The processor time of a process, and how long it slept."""

    def __init__(self) -> None:
        self.worked_s = 0.0
        self.rests: list[float] = []

    def pace(self) -> SealerPace:
        return SealerPace(Pacer(lambda: self.worked_s), self.rests.append)


def test_it_rests_fifteen_times_as_long_as_it_worked() -> None:
    """Since the rest before, and not since it began."""
    times = Times()
    pace = times.pace()
    for worked_s in (0.5, 0.0, 0.25):
        times.worked_s += worked_s
        pace()
    assert times.rests == [7.5, 0.002, 3.75]


def test_a_rest_is_bounded() -> None:
    """A merge may work for minutes between two pieces that are written."""
    times = Times()
    pace = times.pace()
    times.worked_s = 100.0
    pace()
    assert times.rests == [10.0]


@pytest.mark.parametrize(
    ("leaves_later", "waiting", "rested_s"),
    [
        (2_000, 12_000_000, 7.5),
        (2_000, 12_000_001, 1.5),
        (2_000, 16_000_000, 1.5),
        (2_000, 16_000_001, 0.002),  # behind: what waits must not outgrow the disk
        (101, 101, 7.5),
        (100, 100, 0.002),  # nobody commits
        (0, 3_000_000, 0.002),
    ],
)
def test_it_gives_way_while_entries_come_and_it_is_not_far_behind(
    leaves_later: int, waiting: int, rested_s: float
) -> None:
    """Entries that came in one second, and all that wait."""
    times = Times()
    pace = times.pace()
    pace.look(10_000_000, 3_000_000, 5_000_000)
    pace.look(10_000_000 + leaves_later, waiting, 6_000_000)
    times.worked_s = 0.5
    pace()
    assert times.rests == [rested_s]
    assert pace.is_behind is (waiting > 16_000_000)


def test_far_behind_it_leaves_the_idle_class_at_the_next_rest() -> None:
    """Its thread cannot, so what is under way ends there; outside that class it goes on."""
    times = Times()
    pace = times.pace()
    pace.count(16_000_001)
    pace()
    pace.in_idle_class = True
    with pytest.raises(HandedOver):
        pace()
    pace.count(16_000_000)
    pace()
    assert len(times.rests) == 2


def test_it_gives_way_before_it_knows_whether_entries_come() -> None:
    """After a start, and where the clock stands still."""
    times = Times()
    pace = times.pace()
    pace.look(1_000_000, 13_000_000, 5_000_000)
    pace.look(1_000_000, 13_000_000, 5_000_000)
    times.worked_s = 0.5
    pace()
    assert times.rests == [1.5]
