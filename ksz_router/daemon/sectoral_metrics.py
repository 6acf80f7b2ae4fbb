"""What a worker counts of the questions to keepers of sectoral directories."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from ksz_router.daemon.histogram import SECONDS, Histogram, family

RESULTS = {True: "known", False: "unknown", None: "unavailable"}


class SectoralMetrics:
    """Plain numbers. Only the worker's own task writes them."""

    def __init__(self) -> None:
        self.asked_count = 0
        self.results = dict.fromkeys(RESULTS.values(), 0)
        self.wait = Histogram(SECONDS, 1_000_000_000)
        """How long requests waited, all rounds of questions together."""

    def asked(self, questions: int) -> None:
        """So many questions were put."""
        self.asked_count += questions

    def answered(self, known: bool | None) -> None:  # noqa: FBT001 - what was said, not a switch
        """A question came to this; None: to nothing, whatever the reason."""
        self.results[RESULTS[known]] += 1

    def collect(self) -> Iterator[Metric]:
        """Give Prometheus everything."""
        yield CounterMetricFamily(
            "ksz_router_sectoral_questions",
            "Questions to managing institutions that keep a sectoral directory.",
            value=self.asked_count,
        )
        results = CounterMetricFamily(
            "ksz_router_sectoral_answers", "What came of these questions.", labels=["result"]
        )
        for result, count in self.results.items():
            results.add_metric([result], count)
        yield results
        yield family(
            "sectoral_wait_seconds",
            "How long requests waited for the answers.",
            "",
            {"": self.wait},
        )
