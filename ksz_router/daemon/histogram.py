"""Counts of durations and sizes per bucket, and how they are exported."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable

import msgspec
from prometheus_client.core import HistogramMetricFamily, Metric

# 1 s and 2 s are the bounds of the agreement (article 7, 2° a), so they are exact buckets.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class _Counted(msgspec.Struct, eq=False):
    counts: list[int]
    total: float = 0.0
    noted: list[float] = []
    """Observed, and not in the others yet."""


class Histogram:
    """Counts per bucket; cheaper than a library's, and read only by the collector.

    One thread observes. The collector's is another: what it reads at once hangs together, and no
    count of it ever goes back.

    Args:
        bounds: Upper ends of the buckets, in the unit in which they are exported.
        unit: How many of what is observed make one of that.
    """

    __slots__ = ("_counted", "_ends", "_unit", "bounds", "note")

    def __init__(self, bounds: tuple[float, ...], unit: int = 1) -> None:
        self.bounds = bounds
        self._unit = unit
        self._ends = [bound * unit for bound in bounds]
        self._counted: _Counted
        self.note: Callable[[float], None]
        """Count a value at the cost of an append; whoever does has it folded in, by and by."""
        self._begin(_Counted([0] * (len(bounds) + 1)))

    @property
    def counts(self) -> list[int]:
        """How many were observed, by bucket."""
        return self._folded().counts

    @property
    def total(self) -> float:
        """The sum of all that was observed, in the exported unit."""
        return self._folded().total / self._unit

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` over."""
        counted = self._counted
        counted.counts[bisect_left(self._ends, value)] += times
        counted.total += value * times

    def fold(self) -> None:
        """Put what was noted into the counts."""
        if self._counted.noted:
            self._begin(self._folded())

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts in Prometheus' form."""
        result, cumulated = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            cumulated += count
            result.append(("+Inf" if bound == float("inf") else str(bound), float(cumulated)))
        return result

    def _begin(self, counted: _Counted) -> None:
        self._counted = counted  # as one, for the collector's thread may read meanwhile
        self.note = counted.noted.append

    def _folded(self) -> _Counted:
        counted = self._counted
        values = sorted(counted.noted)
        ends = [0, *[bisect_right(values, end) for end in self._ends], len(values)]
        counts = [
            count + end - begin
            for count, begin, end in zip(counted.counts, ends, ends[1:], strict=False)
        ]
        return _Counted(counts, counted.total + sum(values))


def family(name: str, text: str, label: str, histograms: dict[str, Histogram]) -> Metric:
    """Export histograms under one name, by the values of a label, or the one of ``""`` without."""
    found = HistogramMetricFamily(f"ksz_router_{name}", text, labels=[label] if label else None)
    for value, histogram in histograms.items():
        found.add_metric([value] if label else [], histogram.buckets(), histogram.total)
    return found
