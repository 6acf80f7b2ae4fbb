"""What the metrics of all workers say, read as Prometheus reads them, and between two readings."""

import urllib.request
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "ksz_router_"
_SECONDS_MAX = 10.0

Figures: TypeAlias = "dict[tuple[str, frozenset[tuple[str, str]]], float]"
"""Name and labels of a series → its value."""


class Histogram(NamedTuple):
    """One histogram of Prometheus."""

    total: float
    counted: float
    at_most: dict[float, float]
    """Bound → how many values were not above it."""

    @property
    def mean(self) -> float:
        """Mean of the values; 0 without one."""
        return self.total / self.counted if self.counted else 0.0

    def bound_of(self, share: float) -> float:
        """Least bound that at least this share of the values is not above; 0 without a value."""
        return min(
            (bound for bound, count in self.at_most.items() if count >= share * self.counted),
            default=0.0,
        )


def read(ports: Iterable[int]) -> list[str]:
    """Return what each worker shows, as text."""
    texts = []
    for port in ports:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=_SECONDS_MAX) as answer:
            texts.append(answer.read().decode())
    return texts


def parse(text: str) -> Figures:
    """Return every series of one worker."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def summed(texts: Iterable[str]) -> Figures:
    """Return the series of all workers, added up: right for counters and histograms."""
    return added(parse(text) for text in texts)


def added(several: Iterable[Figures]) -> Figures:
    """Return the figures of several, added up."""
    total: Figures = {}
    for figures in several:
        for key, value in figures.items():
            total[key] = total.get(key, 0.0) + value
    return total


def since(before: Figures, after: Figures) -> Figures:
    """Return what was counted between two readings; what is new began at 0."""
    return {key: value - before.get(key, 0.0) for key, value in after.items()}


def largest(texts: Iterable[str], name: str) -> float:
    """Return the largest value of a gauge over the workers; 0 where none shows it."""
    key = (_PREFIX + name, frozenset[tuple[str, str]]())
    return max((parse(text).get(key, 0.0) for text in texts), default=0.0)


def histograms(figures: Figures, name: str, label: str = "") -> dict[str, Histogram]:
    """Return the histograms of one name, by the value of their label, in the order of the labels.

    Without a label there is one, under the empty name; with no such series at all there is none.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (series, labels), value in figures.items():
        family, _, part = series.removeprefix(_PREFIX).rpartition("_")
        if family != name or part not in ("sum", "count", "bucket"):
            continue
        named = dict(labels)
        parts = found.setdefault(named.get(label, ""), {})
        parts.setdefault(part, {})[named.get("le", "")] = value
    return {value: _histogram(parts) for value, parts in sorted(found.items())}


def _histogram(parts: Mapping[str, Mapping[str, float]]) -> Histogram:
    buckets = {float(bound): count for bound, count in parts["bucket"].items()}
    return Histogram(parts["sum"][""], parts["count"][""], dict(sorted(buckets.items())))


_ORDER = ("decode", "look_up", "decide", "commit", "source", "answer")


def table_of_stages(runs: Mapping[str, Figures]) -> list[str]:
    """Return lines to print: for each run the microseconds of a request in each stage, and commits.

    Args:
        runs: Name of a run → what was counted in it.
    """
    stages = {
        name: histograms(figures, "stage_duration_seconds", "stage")
        for name, figures in runs.items()
    }
    every = {stage for found in stages.values() for stage in found}
    columns = [stage for stage in _ORDER if stage in every] + sorted(every - set(_ORDER))
    lines = ["µs in each stage (mean): per request, of a commit per group"]
    lines.append(f"{'':28}" + "".join(f"{column:>10}" for column in columns))
    for name, found in stages.items():
        means = (f"{found[column].mean * 1e6:10.1f}" for column in columns if column in found)
        lines.append(f"{name:28}" + "".join(means))
    lines.append(
        "group commits: how many, ms and records in one (mean), and how many took how long"
    )
    for name, figures in runs.items():
        times = histograms(figures, "privacy_log_append_duration_seconds").get("")
        records = histograms(figures, "privacy_log_batch_records").get("")
        if times is None or records is None or not times.counted:
            continue
        shares = "  ".join(
            f"≤ {bound * 1e3:g} ms {100 * count / times.counted:.1f} %"
            for bound, count in times.at_most.items()
            if count > 0 and bound <= times.bound_of(0.999)
        )
        lines.append(
            f"{name:28}{times.counted:10,.0f}{times.mean * 1e3:10.2f}{records.mean:10.1f}  {shares}"
        )
    return lines
