"""Every metric of the directory program."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ksz_router.daemon.histogram import SECONDS, Histogram
from ksz_router.daemon.metrics import RECORDS
from ksz_router.directory.change import Applied, Operation, Refused

NOTICE_OUTCOMES = ("told", "nobody", "failed", "given_up")
"""Everybody has it; there was nobody to tell; a recipient said that it failed; it is too old."""

HINDRANCES = ("damaged", "full")
"""A page is damaged; the map or the disk is full."""


class DirectoryMetrics(Collector):
    """The numbers of the directory program. Its own task and its writer's thread write them."""

    def __init__(self) -> None:
        self.version = 0
        self.waiting = 0
        self.turned_away = 0
        self.look_ups = 0
        self.hindrance = ""
        """Why no change is taken, one of :data:`HINDRANCES`; empty: they are."""
        self.answered_s = 0.0
        self.mailbox_lines = 0
        self.mailbox_seconds = 0.0
        self.notices_waiting = 0
        self.notice_oldest_s = 0.0
        self._notices: Counter[str] = Counter(dict.fromkeys(NOTICE_OUTCOMES, 0))
        self._changes: Counter[tuple[Operation, str]] = Counter()
        self._batch = Histogram(RECORDS)
        self._commit = Histogram(SECONDS)

    def committed(
        self,
        settled: Sequence[tuple[Operation, Applied | Refused]],
        *,
        look_ups: int,
        took_s: float,
    ) -> None:
        """A batch is durable."""
        self.answered_s = time.time()
        self.look_ups += look_ups
        if not settled:
            return
        self._batch.observe(len(settled))
        self._commit.observe(took_s)
        for operation, verdict in settled:
            outcome = "repeated" if verdict.repeated else type(verdict).__name__.lower()
            self._changes[operation, outcome] += 1

    def mailbox_step(self, lines: int, seconds: float) -> None:
        """So many lines of a mailbox have their verdicts."""
        self.mailbox_lines += lines
        self.mailbox_seconds += seconds

    def noticed(self, outcome: str) -> None:
        """A notice is settled."""
        self._notices[outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by Prometheus' client."""
        gauges = {
            "directory_written_version": ("Version of the last durable change.", self.version),
            "directory_waiting": ("Changes and look-ups that wait for the writer.", self.waiting),
            "directory_batch_timestamp_seconds": (
                "When a batch was last done; 0: none was in this run.",
                self.answered_s,
            ),
            "directory_notices_waiting": (
                "Notices of what became of a number that wait to be told.",
                self.notices_waiting,
            ),
            "directory_notice_oldest_timestamp_seconds": (
                "When the change was made whose notice waits longest; 0: none waits.",
                self.notice_oldest_s,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"ksz_router_{name}", text, value=value)
        refusing = GaugeMetricFamily(
            "ksz_router_directory_refusing",
            "Whether no change is taken, though the directory is read.",
            labels=["reason"],
        )
        for reason in HINDRANCES:
            refusing.add_metric([reason], reason == self.hindrance)
        yield refusing
        changes = CounterMetricFamily(
            "ksz_router_directory_changes",
            "Changes asked for, by what came of them.",
            labels=["operation", "outcome"],
        )
        for (operation, outcome), count in list(self._changes.items()):
            changes.add_metric([operation.name.lower(), outcome], count)
        yield changes
        yield CounterMetricFamily(
            "ksz_router_directory_look_ups", "Persons consulted.", value=self.look_ups
        )
        yield CounterMetricFamily(
            "ksz_router_directory_turned_away",
            "Changes and look-ups that found no room to wait.",
            value=self.turned_away,
        )
        yield CounterMetricFamily(
            "ksz_router_directory_mailbox_lines",
            "Lines of mailboxes that have their verdict.",
            value=self.mailbox_lines,
        )
        yield CounterMetricFamily(
            "ksz_router_directory_mailbox_seconds",
            "Time that they took.",
            value=self.mailbox_seconds,
        )
        yield from self._totals()

    def _totals(self) -> Iterator[Metric]:
        notices = CounterMetricFamily(
            "ksz_router_directory_notices",
            "Notices of what became of a number, by what came of them.",
            labels=["outcome"],
        )
        for outcome, count in list(self._notices.items()):
            notices.add_metric([outcome], count)
        yield notices
        sizes = HistogramMetricFamily("ksz_router_directory_batch_changes", "Changes of a batch.")
        sizes.add_metric([], self._batch.buckets(), self._batch.total)
        yield sizes
        commits = HistogramMetricFamily(
            "ksz_router_directory_commit_seconds", "Time of a batch, until it is durable."
        )
        commits.add_metric([], self._commit.buckets(), self._commit.total)
        yield commits
