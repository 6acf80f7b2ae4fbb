"""What is made of a bench's figures: stages, percentiles, the kept files and their chart."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import prometheus_client
import pytest

from bench import chart, kept, router, scrapes
from bench.runs import less_two_flushes, summary
from bench.soak import Sample, growth
from ksz_router.daemon.metrics import Metrics

_SHARES = (0.1, 0.5, 0.9)


def spread(value: float) -> dict[str, float]:
    """A figure as a result has it."""
    return {"median": value, "min": value * 0.9, "max": value * 1.3}


def result_of_router() -> dict[str, Any]:
    """A small result of ``bench-router``, made up."""
    sweep = {
        cell: {
            "saturation_per_s": most,
            "loads": [
                {
                    "share": share,
                    "offered_per_s": share * most,
                    "router_cpu_us": spread(12.5 / share + 3),
                    "latency_ms": {"p50": spread(0.7 + share), "p99": spread(4.4 + 30 * share**2)},
                }
                for share in _SHARES
            ],
        }
        for cell, most in zip(router.CELLS, (61_234, 47_000, 31_500, 27_800), strict=True)
    }
    return {
        "bench": "router",
        "date": "2026-01-02",
        "flush_p50_ms": 0.123,
        "sweep_rounds": 3,
        "machine": {"processors": 2, "processor": "Slow & Steady"},
        "versions": {"python": "3.11.2"},
        "sweep": sweep,
    }


def result_of_peers() -> dict[str, Any]:
    """A small result of ``bench-peers``, made up."""
    works = ("one_at_a_time", "pipelined_300", "pipelined_2k")
    per_s = {"router": (30_100, 71_200, 60_300), "haproxy": (47_400, 481_500, 200_600)}
    per_s["nats"] = (36_700, 83_800, 63_900)
    return {
        "bench": "peers",
        "per_s": {name: dict(zip(works, rates, strict=True)) for name, rates in per_s.items()},
        "cpu_us_per_exchange": {"router": dict(zip(works, (24.7, 11.8, 14.9), strict=True))},
    }


def words_of(svg: str) -> str:
    """Every text of a picture, one per line."""
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))


def test_the_chart_holds_the_figures() -> None:
    """The picture is XML and says what the results say: latency, processor time, peers."""
    words = words_of(chart.draw(result_of_router(), result_of_peers()))
    assert "p99: 28.7" in words  # 4.4 + 30 · 0.9², at the highest load
    assert "300 B: 16.9" in words  # 12.5 / 0.9 + 3
    assert "one at a time, 300 B: 31,500" in words
    assert "HAProxy  481.5 k" in words
    assert "ksz_router  71.2 k · 11.8 µs" in words
    assert "flush 0.123 ms" in words
    assert "Slow & Steady" in words


def test_the_chart_does_without_peers() -> None:
    """Where nobody has measured the peers, nothing of them is drawn."""
    words = words_of(chart.draw(result_of_router()))
    assert "HAProxy" not in words
    assert "p99: 28.7" in words


def test_labels_of_equal_figures_do_not_lie_on_each_other() -> None:
    """Curves that end at one point still have labels that can be read."""
    result = result_of_router()
    for cell in result["sweep"].values():
        for load in cell["loads"]:
            load["latency_ms"]["p50"] = load["latency_ms"]["p99"] = spread(5)
    root = ET.fromstring(chart.draw(result))
    labels = [node for node in root.iter() if (node.text or "").startswith(("p50", "p99"))]
    places = [(node.get("x"), node.get("y")) for node in labels]
    assert len(set(places)) == len(places) == 8


def test_the_newest_results_are_kept_and_drawn(tmp_path: Path) -> None:
    """A full run leaves a file of its bench and day, and the chart shows the newest of each."""
    old, new = result_of_router(), result_of_router() | {"date": "2026-01-03", "flush_p50_ms": 7.5}
    kept.keep(new, tmp_path)
    kept.keep(old, tmp_path)
    kept.keep(result_of_peers() | {"date": "2026-01-02"}, tmp_path)
    assert json.loads((tmp_path / "2026-01-03-router.json").read_text(encoding="utf-8")) == new
    assert len(list(tmp_path.glob("*.json"))) == 3
    words = words_of((tmp_path / "chart.svg").read_text(encoding="utf-8"))
    assert "flush 7.5 ms" in words
    assert "nats-server" in words


def test_no_chart_is_drawn_of_a_result_without_a_sweep(tmp_path: Path) -> None:
    """A result from before there was a sweep is no reason to fail."""
    old = {name: value for name, value in result_of_router().items() if name != "sweep"}
    kept.keep(old, tmp_path)
    assert not (tmp_path / "chart.svg").exists()


def test_two_flushes_are_taken_off() -> None:
    """What is left of a p99 is what the device did not take."""
    assert less_two_flushes(7.53, 0.15) == 7.23


def test_a_summary_has_the_median_of_the_rounds() -> None:
    """Each figure is the median over the rounds, beside the least and the most."""
    figures = ("per_s", "router_cpu_us", "source_cpu_us", "generator_cpu_us", "others_cpu")
    one: dict[str, Any] = dict.fromkeys((*figures, "late_p99_ms"), 1.0)
    one |= {"latency_ms": {"p99": 3.0}, "sessions": [1, 2], "sent": 5, "unsent": 0}
    one["codes"] = {"10001": 5}
    other, third = copy.deepcopy(one), copy.deepcopy(one)
    other["latency_ms"]["p99"], third["latency_ms"]["p99"] = 9.0, 4.0
    other["codes"] = {"10001": 4, "20001": 1}
    found = summary([one, other, third])
    assert found["latency_ms"]["p99"] == {"median": 4.0, "min": 3.0, "max": 9.0}
    assert found["codes"] == {"10001": 14, "20001": 1}
    assert found["sent"] == 15


def exposition(metrics: Metrics) -> str:
    """What a worker with these metrics shows."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    return prometheus_client.generate_latest(registry).decode()


def test_stages_are_what_both_workers_counted_between_two_readings() -> None:
    """Times before the first reading do not count; those of all workers do."""
    workers = Metrics(), Metrics()
    workers[0].checked(1_000, 10**9, 10**9)  # before
    before = scrapes.summed(map(exposition, workers))
    workers[0].checked(10, 40_000, 8_000)
    workers[1].checked(30, 40_000, 32_000)
    workers[1].committed([(2_000_000, 3_000_000), (2_000, 1_500_000)], 1.0)
    counted = scrapes.since(before, scrapes.summed(map(exposition, workers)))
    stages = scrapes.histograms(counted, "stage_duration_seconds", "stage")
    assert stages["look_up"].counted == 40
    assert stages["look_up"].mean == pytest.approx(2e-6)
    assert stages["decide"].mean == pytest.approx(1e-6)
    lines = scrapes.table_of_stages({"a run": counted})
    (stage_line, commit_line) = (line.split() for line in lines if line.startswith("a run"))
    columns = dict(zip(lines[1].split(), stage_line[2:], strict=True))
    assert columns == {
        "decode": "0.0", "look_up": "2.0", "decide": "1.0",
        "commit": "2250.0", "source": "0.0", "answer": "0.0",
    }  # fmt: skip
    assert commit_line[2:4] == ["2", "2.25"]


def test_every_stage_that_there_is_is_printed() -> None:
    """A stage that nobody thought of is a column too, behind those of the life of a message."""
    series = "ksz_router_stage_duration_seconds"
    text = f"# TYPE {series} histogram\n" + "".join(
        f'{series}_bucket{{stage="{stage}",le="+Inf"}} 4.0\n'
        f'{series}_count{{stage="{stage}"}} 4.0\n{series}_sum{{stage="{stage}"}} 0.002\n'
        for stage in ("answer", "brew", "decode")
    )
    header, row = scrapes.table_of_stages({"a run": scrapes.parse(text)})[1:3]
    assert header.split() == ["decode", "answer", "brew"]
    assert row.split()[2:] == ["500.0"] * 3


def test_the_share_of_a_histogram_is_told_by_its_bound() -> None:
    """A p99 is never told smaller than it may be."""
    histogram = scrapes.Histogram(0.0, 200, {0.001: 150, 0.01: 197, 0.1: 198, 1.0: 200})
    assert histogram.bound_of(0.5) == 0.001
    assert histogram.bound_of(0.99) == 0.1
    assert scrapes.Histogram(0.0, 0, {}).bound_of(0.99) == 0.0


def test_the_largest_of_a_gauge_is_over_the_workers_not_their_sum() -> None:
    """Two workers with a pause of 3 ms each have paused for 3 ms at most."""
    texts = [f"# TYPE ksz_router_x gauge\nksz_router_x {value}\n" for value in (0.003, 0.002)]
    assert scrapes.largest(texts, "x") == 0.003
    assert scrapes.largest(texts, "y") == 0.0


def test_growth_of_memory_is_between_windows_not_moments() -> None:
    """Warming up does not count, nor does one sample that is out of the way."""
    own = [20.0, 90.0, 100.0, 100.0, 180.0, 100.5, 104.0, 104.0, 103.0, 400.0]
    samples = [Sample(30.0 * n, mib, 2 * mib) for n, mib in enumerate(own)]
    found = growth(samples, 60.0)
    assert found["rss_growth_mib"] == 4.0  # from 100.0 at 60 to 90 s to 104.0 at 210 to 270 s
    assert found["resident_growth_mib"] == 8.0
