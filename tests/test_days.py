"""Days and periods: against sets of days, and over the changes of the clock in Brussels."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksz_router.days import (
    brussels_day,
    brussels_midnight_ns,
    covers,
    is_day,
    next_day,
    to_date,
    to_day,
)
from ksz_router.model import OPEN

FIRST, LAST = date(1800, 1, 1), date(2199, 12, 31)
BRUSSELS = ZoneInfo("Europe/Brussels")

dates = st.dates(FIRST, LAST)
near = st.integers(0, 12).map(lambda n: date(2024, 2, 24) + timedelta(days=n))
periods = st.lists(st.tuples(near, near), max_size=5)


def days_of(begin: date, end: date) -> set[date]:
    return {begin + timedelta(days=n) for n in range((end - begin).days + 1)}


@given(periods, near, near, st.randoms())
def test_covering_is_what_sets_of_days_say(
    held: list[tuple[date, date]], begin: date, end: date, random: Random
) -> None:
    """The union holds every day asked; both ends count, the order does not, a leap day is one."""
    held = [(min(pair), max(pair)) for pair in held]
    begin, end = min(begin, end), max(begin, end)
    union = set().union(*(days_of(*pair) for pair in held))
    asked = [(to_day(first), to_day(last)) for first, last in random.sample(held, len(held))]
    assert covers(asked, to_day(begin), to_day(end)) == (days_of(begin, end) <= union)


@pytest.mark.parametrize(
    ("held", "is_covered"),
    [
        ([(20200101, OPEN)], True),
        ([(20200101, 20231231), (20240101, OPEN)], True),
        ([(20240101, OPEN), (20200101, 20231231)], True),
        ([(20200101, 20231230), (20240101, OPEN)], False),
        ([(20200101, 21991231)], False),
        ([(20200102, OPEN)], False),
        ([], False),
    ],
)
def test_only_an_open_period_covers_an_open_one(
    held: list[tuple[int, int]],
    is_covered: bool,  # noqa: FBT001  a parameter of the table above
) -> None:
    """Adjacent days are continuous, over the turn of a year too."""
    assert covers(held, 20200101, OPEN) is is_covered


@given(dates)
@example(date(2024, 2, 28))
@example(date(1900, 2, 28))
@example(date(2023, 12, 31))
def test_the_next_day_is_the_next_day(day: date) -> None:
    """As the calendar has it."""
    assert next_day(to_day(day)) == to_day(day + timedelta(days=1))


def test_after_open_comes_open() -> None:
    """An open end does not run over."""
    assert next_day(OPEN) == OPEN


@given(dates)
def test_a_date_is_a_day_and_comes_back(day: date) -> None:
    """Days compare as dates do."""
    assert is_day(to_day(day))
    assert to_date(to_day(day)) == day
    assert to_day(day) == int(day.strftime("%Y%m%d"))


@given(st.integers(-(2**63), 2**64 - 1) | st.integers(17991201, 22000131))
@example(20230229)
@example(20240230)
@example(20241301)
@example(20240001)
@example(20240100)
@example(OPEN)
@example(17991231)
@example(22000101)
def test_no_other_integer_is_a_day(day: int) -> None:
    """And none makes it raise."""
    text = str(day)
    try:
        is_date = len(text) == 8 and FIRST <= datetime.strptime(text, "%Y%m%d").date() <= LAST  # noqa: DTZ007
    except ValueError:
        is_date = False
    assert is_day(day) == is_date


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-01-14T22:59:59.999999", 20260114),
        ("2026-01-14T23:00:00", 20260115),
        ("2026-07-14T21:59:59.999999", 20260714),
        ("2026-07-14T22:00:00", 20260715),
        ("2026-03-28T22:59:59", 20260328),
        ("2026-03-28T23:00:00", 20260329),
        ("2026-03-29T21:59:59", 20260329),
        ("2026-03-29T22:00:00", 20260330),
        ("2026-10-24T21:59:59", 20261024),
        ("2026-10-24T22:00:00", 20261025),
        ("2026-10-25T22:59:59", 20261025),
        ("2026-10-25T23:00:00", 20261026),
        ("2025-12-31T23:00:00", 20260101),
    ],
)
def test_a_day_in_brussels_begins_at_midnight_there(moment: str, day: int) -> None:
    """Winter, summer, and the two days of 23 and 25 hours. Moments are UTC."""
    unix = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    assert brussels_day(int(unix * 1_000_000) * 1_000) == day


@given(st.dates(date(1970, 1, 2), date(2100, 1, 1)))
def test_midnight_is_the_first_nanosecond_of_its_day(day: date) -> None:
    """One nanosecond before, it is still the day before."""
    midnight = brussels_midnight_ns(to_day(day))
    assert brussels_day(midnight) == to_day(day)
    assert brussels_day(midnight - 1) == to_day(day - timedelta(days=1))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_the_brussels_day_is_that_of_the_zone(moment: datetime) -> None:
    """For any moment, seconds and below included."""
    there = moment.replace(tzinfo=UTC)
    micros = (there - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert brussels_day(micros * 1_000) == to_day(there.astimezone(BRUSSELS).date())
