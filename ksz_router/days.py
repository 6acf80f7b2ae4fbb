"""Arithmetic on days as ``yyyymmdd``. Pure; the clock is the caller's.

Most of the router only compares days. This module is for the few places that must know what a
calendar is: whether a number is a day, which day follows, whether periods join without a gap.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ksz_router.model import OPEN, Day

_BRUSSELS = ZoneInfo("Europe/Brussels")
_FIRST, _LAST = 18000101, 21991231


def is_day(day: int) -> bool:
    """Say whether ``day`` is a calendar day that a period may begin or end with."""
    if not _FIRST <= day <= _LAST:
        return False
    if 1 <= day % 100 <= 28:  # every month has these, and most days that are asked about are
        return 1 <= day // 100 % 100 <= 12
    try:
        date(day // 10_000, day // 100 % 100, day % 100)
    except ValueError:
        return False
    return True


def to_day(moment: date) -> Day:
    """Return a date as ``yyyymmdd``."""
    return moment.year * 10_000 + moment.month * 100 + moment.day


def to_date(day: Day) -> date:
    """Return ``day`` as a date.

    Raises:
        ValueError: it is no calendar day.
    """
    return date(day // 10_000, day // 100 % 100, day % 100)


def next_day(day: Day) -> Day:
    """Return the day after ``day``; after ``OPEN`` comes ``OPEN``."""
    if day >= OPEN:
        return OPEN
    if day % 100 < 28:
        return day + 1
    return to_day(to_date(day) + timedelta(days=1))


def day_before(day: Day) -> Day:
    """Return the day before ``day``, which is not ``OPEN``."""
    return day - 1 if day % 100 > 1 else to_day(to_date(day) - timedelta(days=1))


def brussels_day(unix_ns: int) -> Day:
    """Return the Brussels calendar day of a moment in Unix nanoseconds."""
    return to_day(datetime.fromtimestamp(unix_ns // 1_000_000_000, _BRUSSELS))


def brussels_midnight_ns(day: Day) -> int:
    """Return the Unix nanoseconds at which the Brussels day ``day`` begins."""
    moment = to_date(day)
    start = datetime(moment.year, moment.month, moment.day, tzinfo=_BRUSSELS)
    return int(start.astimezone(UTC).timestamp()) * 1_000_000_000


def covers(periods: Iterable[tuple[Day, Day]], begin: Day, end: Day) -> bool:
    """Say whether the union of ``periods`` holds every day from ``begin`` to ``end``.

    Adjacent days are continuous: a period up to the 31st and one from the 1st leave no gap.
    """
    wanted = begin
    for first, last in sorted(periods):
        if first > wanted:
            return False
        if last >= end:
            return True
        if last >= wanted:
            wanted = next_day(last)
    return False
