"""Days and months on the command line of the ``log`` verbs."""

from ksz_router.cli import UsageError
from ksz_router.days import is_day
from ksz_router.model import Day

Month = int
"""A Brussels calendar month as ``yyyymm``."""


def parse_day(option: str, text: str) -> Day:
    """Return a day given as ``2026-11-22`` or ``20261122``.

    Raises:
        UsageError: it is no day.
    """
    digits = text.replace("-", "")
    if not (len(digits) == 8 and digits.isascii() and digits.isdigit() and is_day(int(digits))):
        raise UsageError(f"{option}: a day such as 2026-11-22")
    return int(digits)


def parse_month(option: str, text: str) -> Month:
    """Return a month given as ``2026-11`` or ``202611``.

    Raises:
        UsageError: it is no month.
    """
    digits = text.replace("-", "")
    is_month = len(digits) == 6 and digits.isascii() and digits.isdigit()
    if not (is_month and is_day(int(digits) * 100 + 1)):
        raise UsageError(f"{option}: a month such as 2026-11")
    return int(digits)
