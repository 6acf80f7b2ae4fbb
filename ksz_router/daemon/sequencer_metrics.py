"""Every metric of the sequencer, and how far the sealer is behind it: it may be what stands."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ksz_router.config import Config
from ksz_router.daemon.histogram import SECONDS, Histogram
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.chain import newest
from ksz_router.privacylog.tree.backlog import Backlog
from ksz_router.privacylog.tree.sequence import Cycle


class SequencerMetrics(Collector):
    """The numbers of the sequencer. Its cycle writes them; the disk is looked at when asked."""

    def __init__(self, settings: Config) -> None:
        self._archive = Path(settings.archive.path)
        self._backlog = Backlog(Path(settings.privacy_log.path), self._archive / "order")
        self._lock = threading.Lock()  # several may ask at once
        self.size = 0
        """Leaves under the last checkpoint."""
        self.signed_s = 0.0
        self.cycled_s = 0.0
        self.records = 0
        self.stalled = 0
        self.cycle = Histogram(SECONDS)

    def cycled(self, found: Cycle, size: int, took_s: float) -> None:
        """A cycle is over."""
        self.cycled_s = time.time()
        if size != self.size:
            self.signed_s = self.cycled_s
        self.size = size
        self.records += found.records
        self.stalled = len(found.stalled)
        self.cycle.observe(took_s)

    def not_ready(self) -> list[str]:
        """Why not everything is sequenced; none where it is."""
        return ["slot_stalled"] if self.stalled else []

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by Prometheus' client."""
        for name, (text, value) in self.gauges().items():
            yield GaugeMetricFamily(f"ksz_router_{name}", text, value=value())
        yield CounterMetricFamily(
            "ksz_router_sequenced_records", "Records that became leaves.", value=self.records
        )
        cycles = HistogramMetricFamily(
            "ksz_router_sequencer_cycle_seconds", "Time of a cycle: read, order, sign."
        )
        cycles.add_metric([], self.cycle.buckets(), self.cycle.total)
        yield cycles

    def gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        """Name, text and reader of each gauge."""
        return {
            "checkpoint_size": ("Leaves under the last checkpoint.", lambda: self.size),
            "checkpoint_timestamp_seconds": (
                "When this run last signed a checkpoint; 0: it did not.",
                lambda: self.signed_s,
            ),
            "sequencer_cycle_timestamp_seconds": (
                "When the last cycle was over.",
                lambda: self.cycled_s,
            ),
            "sequencer_stalled_slots": (
                "Slots of the log that cannot be read on.",
                lambda: self.stalled,
            ),
            "unsequenced_bytes": (
                "Of write-ahead files, not under a checkpoint.",
                lambda: _or_nan(self._unsequenced),
            ),
            "sealed_leaves": ("Leaves that are sealed.", lambda: _or_nan(self._sealed)),
            "unsealed_leaves": (
                "Leaves under a checkpoint that are not sealed.",
                lambda: self.size - _or_nan(self._sealed),
            ),
            "archive_free_share": (
                "Share of the archive's disk that is free.",
                lambda: _or_nan(self._free_share),
            ),
        }

    def _unsequenced(self) -> float:
        with self._lock:
            return self._backlog.bytes()

    def _sealed(self) -> float:
        sealed = newest(self._archive)
        return sealed.sealed_leaves if sealed is not None else 0

    def _free_share(self) -> float:
        state = os.statvfs(self._archive)
        return state.f_bavail / state.f_blocks


def _or_nan(read: Callable[[], float]) -> float:
    try:
        return read()
    except (OSError, PrivacyLogError):
        return math.nan
