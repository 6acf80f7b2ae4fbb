"""Every metric of a worker: plain numbers on the hot path, exported when Prometheus asks.

Labels come from fixed sets (kinds of service, codes, stages), so a peer cannot add a series.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ksz_router import __version__
from ksz_router.codes import Code, Stage
from ksz_router.daemon.histogram import SECONDS, Histogram, family
from ksz_router.daemon.reasons import Reason
from ksz_router.daemon.sectoral_metrics import SectoralMetrics
from ksz_router.model import Kind

STAGE_SECONDS = (1e-6, 5e-6, 25e-6, 1e-4, 5e-4, 0.0025, 0.01, 0.05, 0.25, 1.0)
_NS = 1_000_000_000
RECORDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0)
_FOLDED_AFTER_RECORDS = 1_000
"""An exchange has at least as many records as it has times in any one histogram."""


Gauges: TypeAlias = "dict[str, tuple[str, Callable[[], float]]]"
"""Name → help, and a function that reads it at scrape time."""


class Metrics(Collector):
    """The numbers of one worker. Only its own task writes them."""

    def __init__(self) -> None:
        self.exchanges: defaultdict[tuple[Kind | None, int], int] = defaultdict(int)
        """By kind and code; a Counter would set each item in Python."""
        self.rejected: Counter[Code] = Counter()
        self.violations: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self.source_handshakes_refused: Counter[str] = Counter()
        self.router = {kind: Histogram(SECONDS, _NS) for kind in Kind}
        self.request_leg = Histogram(SECONDS, _NS)
        self.outcome_leg = Histogram(SECONDS, _NS)
        self.source = Histogram(SECONDS, _NS)
        self.decode = Histogram(STAGE_SECONDS, _NS)
        self.look_up = Histogram(STAGE_SECONDS, _NS)
        self.decide = Histogram(STAGE_SECONDS, _NS)
        self.commit = Histogram(SECONDS, _NS)
        self.commit_records = Histogram(RECORDS)
        self.records = 0
        self._noted = (
            *self.router.values(), self.request_leg, self.outcome_leg, self.source,
            self.commit, self.commit_records,
        )  # fmt: skip
        """Histograms that the hot path notes in."""
        self._folded_at_record = 0
        self.last_durable_seconds = 0.0
        self.loop_lag = Histogram(SECONDS)
        self.gc_pause = Histogram(SECONDS)
        self.handshake = Histogram(SECONDS)
        self.generation: Callable[[], str] = str
        """Reads which rulebook is in force."""
        self.sources: Callable[[], dict[str, int]] = dict
        """Reads how many sources are in each state."""
        self.gauges: Gauges = {}
        self.not_ready: Callable[[], Collection[str]] = tuple
        """Reads why the worker is not ready."""
        self.clock_jumps: Callable[[], int] = int
        """Reads how often the host's clock jumped."""
        self.next_file_failures = 0
        self.restarts: dict[str, int] = {}
        """By process, as the supervisor counts; every worker tells of all."""
        self.sectoral = SectoralMetrics()

    def checked(self, requests: int, look_up_ns: int, decide_ns: int) -> None:
        """A batch passed the control; times are of the whole batch."""
        self.look_up.observe(look_up_ns / requests, requests)
        self.decide.observe(decide_ns / requests, requests)

    def answered(self, kind: Kind | None, code: int, router_ns: int, outcome_leg_ns: int) -> None:
        """A requester got its answer. ``kind`` is None for a service that does not exist."""
        self.exchanges[kind, code] += 1
        if kind is not None:
            self.router[kind].note(router_ns)
        self.outcome_leg.note(outcome_leg_ns)

    def turned_away(self, code: Code) -> None:
        """Something was refused before the control."""
        self.rejected[code] += 1

    def violated(self, violations: Iterable[str]) -> None:
        """A request passed although integration rules in mode ``log`` are broken."""
        for violation in violations:
            self.violations[violation.partition(":")[0]] += 1

    def committed(self, commits: Iterable[tuple[int, int]], unix_seconds: float) -> None:
        """Groups of records became durable."""
        for records, duration_ns in commits:
            self.commit.note(duration_ns)
            self.commit_records.note(records)
            self.records += records
            self.last_durable_seconds = unix_seconds
        if self.records - self._folded_at_record >= _FOLDED_AFTER_RECORDS:
            self._folded_at_record = self.records
            for histogram in self._noted:
                histogram.fold()

    def collect(self) -> Iterator[Metric]:
        """Give Prometheus everything; called from the thread that serves it."""
        info = InfoMetricFamily("ksz_router_build", "The release that runs.")
        info.add_metric([], {"version": __version__})
        yield info
        rulebook = InfoMetricFamily("ksz_router_rulebook", "The rulebook in force.")
        rulebook.add_metric([], {"generation": self.generation()})
        yield rulebook
        sources = GaugeMetricFamily(
            "ksz_router_sources",
            "Sources that were asked, by state; which they are says the status.",
            labels=["state"],
        )
        for state, count in self.sources().items():
            sources.add_metric([state.replace(" ", "_")], count)
        yield sources
        yield from self._readiness()
        yield from self._counters()
        yield from self._histograms()
        yield from self.sectoral.collect()
        for name, (text, read) in self.gauges.items():
            yield GaugeMetricFamily(f"ksz_router_{name}", text, value=read())

    def _readiness(self) -> Iterator[Metric]:
        found = self.not_ready()
        yield GaugeMetricFamily(
            "ksz_router_ready", "1 where the worker takes requests, else 0.", value=not found
        )
        reasons = GaugeMetricFamily(
            "ksz_router_not_ready", "1 for each reason that stands in the way.", labels=["reason"]
        )
        for reason in Reason:
            reasons.add_metric([reason.value], reason.value in found)
        yield reasons

    def _counters(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily(
            "ksz_router_restarts", "How often a process was started again.", labels=["process"]
        )
        for process, count in self.restarts.items():
            restarts.add_metric([process], count)
        yield restarts
        requests = CounterMetricFamily(
            "ksz_router_requests",
            "Exchanges that ended, by kind of service, code and who is to act.",
            labels=["kind", "code", "stage", "blame"],
        )
        for (kind, number), count in list(self.exchanges.items()):
            code, name = Code(number), kind.name.lower() if kind is not None else "unknown"
            requests.add_metric([name, code.name, code.stage.name.lower(), blame(code)], count)
        yield requests
        rejected = CounterMetricFamily(
            "ksz_router_rejected", "Refused before the control, by reason.", labels=["reason"]
        )
        for code, count in list(self.rejected.items()):
            rejected.add_metric([code.name.lower()], count)
        yield rejected
        violations = CounterMetricFamily(
            "ksz_router_violations",
            "Integration rules that were broken, and only logged, by control.",
            labels=["control"],
        )
        for control in ("own", "sectoral", "source", "recipient"):
            violations.add_metric([control], self.violations[control])
        yield violations
        for name, text, counts in (
            ("handshakes", "TLS handshakes, by result.", self.handshakes),
            ("source_handshakes_refused", "Those dialled.", self.source_handshakes_refused),
        ):
            handshakes = CounterMetricFamily(f"ksz_router_{name}", text, labels=["result"])
            for result, count in list(counts.items()):
                handshakes.add_metric([result], count)
            yield handshakes
        yield CounterMetricFamily(
            "ksz_router_clock_jumps", "Jumps of the host's clock.", value=self.clock_jumps()
        )
        yield CounterMetricFamily(
            "ksz_router_privacy_log_next_file_failures",
            "Times that the next file could not be made ahead of its use.",
            value=self.next_file_failures,
        )
        yield CounterMetricFamily(
            "ksz_router_privacy_log_records", "Records that became durable.", value=self.records
        )
        yield GaugeMetricFamily(
            "ksz_router_privacy_log_last_durable_timestamp_seconds",
            "When a group of records last became durable.",
            value=self.last_durable_seconds,
        )

    def _histograms(self) -> Iterator[Metric]:
        yield family(
            "request_duration_seconds",
            "Time inside the router per exchange, source time taken off (article 7, 2° a).",
            "kind",
            {kind.name.lower(): histogram for kind, histogram in self.router.items()},
        )
        legs = {"request": self.request_leg, "outcome": self.outcome_leg}
        yield family("leg_duration_seconds", "Time inside the router per leg.", "leg", legs)
        stages = {
            "decode": self.decode,
            "look_up": self.look_up,
            "decide": self.decide,
            "commit": self.commit,
            "source": self.source,
            "answer": self.outcome_leg,
        }
        yield family(
            "stage_duration_seconds",
            "Time by stage: decode (with TLS), look_up, decide: a request's share of its batch; "
            "commit: a group's; source: a delivery's; answer: from the outcome to the answer.",
            "stage",
            stages,
        )
        yield family("source_duration_seconds", "Time sources take.", "", {"": self.source})
        yield family(
            "privacy_log_append_duration_seconds", "Time of a group commit.", "", {"": self.commit}
        )
        yield family(
            "privacy_log_batch_records", "Records in a group.", "", {"": self.commit_records}
        )
        yield family(
            "event_loop_lag_seconds", "How late a timer of the loop was.", "", {"": self.loop_lag}
        )
        yield family("gc_pause_seconds", "Collector pauses.", "", {"": self.gc_pause})
        yield family("handshake_duration_seconds", "TLS handshakes.", "", {"": self.handshake})


_ROUTER_S_OWN = frozenset(
    {Code.LOG_NOT_WRITABLE, Code.OUTCOME_UNKNOWN, Code.DEADLINE_PASSED, Code.LEDGER_FULL}
)
_REQUESTER_S_OWN = frozenset(
    {
        Code.TICKET_REUSED,
        Code.SUBMISSION_OPEN,
        Code.ANSWER_TOO_LARGE,
        Code.DELIVERY_TOO_LARGE,
    }
)
"""Settled after the record, and not by a source."""


def blame(code: Code) -> str:
    """Who is to act on an outcome: nobody, the requester, the source or the router."""
    if code in _ROUTER_S_OWN:
        return "router"
    if code in _REQUESTER_S_OWN:
        return "requester"
    if code.stage in (Stage.ANSWERED, Stage.SOURCE_INTEGRATION):
        return "none"
    return "source" if code.stage in (Stage.ROUTING, Stage.OUTAGE) else "requester"
