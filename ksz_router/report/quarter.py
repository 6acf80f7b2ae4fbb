"""A quarter of a year, its days, and the quarters before it. Pure."""

import re
from datetime import date
from typing import NamedTuple, Self

from ksz_router.days import to_date, to_day
from ksz_router.model import Day

_TEXT = re.compile(r"([12][0-9]{3})Q([1-4])")


class Quarter(NamedTuple):
    """Three calendar months, such as 2026Q3."""

    year: int
    number: int
    """1 to 4."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the quarter that is written as ``2026Q3``.

        Raises:
            ValueError: nothing is written so.
        """
        match = _TEXT.fullmatch(text)
        if match is None or not 1900 <= int(match[1]) <= 2199:
            raise ValueError("a quarter is written as 2026Q3, from 1900Q1 to 2199Q4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.year}Q{self.number}"

    @property
    def first(self) -> Day:
        """Its first day."""
        return self.year * 10_000 + (3 * self.number - 2) * 100 + 1

    @property
    def last(self) -> Day:
        """Its last day."""
        return to_day(date.fromordinal(to_date(self.before(-1).first).toordinal() - 1))

    def before(self, count: int) -> "Quarter":
        """Return the quarter that many before this one; after it where negative."""
        quarters = self.year * 4 + self.number - 1 - count
        return Quarter(quarters // 4, quarters % 4 + 1)
