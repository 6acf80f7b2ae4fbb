"""Counts of durations and sizes per bucket, and how they are exported."""

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily, Metric

# 1 s and 2 s are the bounds of the agreement (article 7, 2° a), so they are exact buckets.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


class Histogram:
    """Counts per bucket; cheaper than a library's, and read only by the collector.

    Args:
        bounds: Upper ends of the buckets, in the unit in which they are exported.
        unit: How many of what is observed make one of that.
    """

    __slots__ = ("_ends", "_sum", "_unit", "bounds", "counts")

    def __init__(self, bounds: tuple[float, ...], unit: int = 1) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self._unit = unit
        self._ends = [bound * unit for bound in bounds]
        self._sum = 0.0

    @property
    def total(self) -> float:
        """The sum of all that was observed, in the exported unit."""
        return self._sum / self._unit

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, ``times`` over."""
        self.counts[bisect_left(self._ends, value)] += times
        self._sum += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts in Prometheus' form."""
        result, cumulated = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            cumulated += count
            result.append(("+Inf" if bound == float("inf") else str(bound), float(cumulated)))
        return result


def family(name: str, text: str, label: str, histograms: dict[str, Histogram]) -> Metric:
    """Export histograms under one name, by the values of a label, or the one of ``""`` without."""
    found = HistogramMetricFamily(f"ksz_router_{name}", text, labels=[label] if label else None)
    for value, histogram in histograms.items():
        found.add_metric([value] if label else [], histogram.buckets(), histogram.total)
    return found
