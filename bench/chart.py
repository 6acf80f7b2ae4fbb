"""One picture of a result of ``make bench-router``: throughput, processor time, latency."""

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Any

_WIDTH, _LEFT, _ROW = 780, 215, 26
_BAR = _WIDTH - _LEFT - 150
_INK, _PALE, _COLOURS = "#1f2933", "#9aa5b1", ("#2f6f9f", "#c46a2b", "#7a9a3a")
_PERCENTILES = ("p50", "p99", "p99_9")
_LATENCY_MS = (0.1, 1000.0)


def draw(result: dict[str, Any]) -> str:
    """Return an SVG document of the result's runs: medians, with a whisker from least to most."""
    runs = result["runs"]
    saturation = {name: run for name, run in runs.items() if name.startswith("saturation")}
    steady = {name: run for name, run in runs.items() if not name.startswith("saturation")}
    parts: list[str] = []
    y = _heading(parts, 24, "Saturation: exchanges a second")
    most = max((run["per_s"]["max"] for run in saturation.values()), default=1.0)
    for name, run in saturation.items():
        shares = [run["per_s"][key] / most for key in ("median", "min", "max")]
        y = _bar(
            parts, y, name, shares, value=f"{run['per_s']['median']:,.0f}/s", colour=_COLOURS[0]
        )
    y = _heading(parts, y + 22, "Router, all processes: µs of processor time per exchange")
    most = max(run["router_cpu_us"]["max"] for run in runs.values())
    for name, run in runs.items():
        shares = [run["router_cpu_us"][key] / most for key in ("median", "min", "max")]
        y = _bar(
            parts,
            y,
            name,
            shares,
            value=f"{run['router_cpu_us']['median']:.0f} µs",
            colour=_COLOURS[1],
        )
    y = _heading(parts, y + 22, "Open loop: time added by the router, ms, logarithmic")
    for name, run in steady.items():
        for percentile in _PERCENTILES:
            figures = run["latency_ms"][percentile]
            shares = [_log_share(figures[key]) for key in ("median", "min", "max")]
            label = f"{name}, {percentile.replace('_', '.')}"
            y = _bar(
                parts, y, label, shares, value=f"{figures['median']:.2f} ms", colour=_COLOURS[2]
            )
    machine = result["machine"]
    foot = (
        f"{result['date']} · {machine['processors']} x {machine['processor']} · Linux "
        f"{machine['kernel']} · {machine['file_system']}, flush p50 {result['flush_p50_ms']} ms · "
        f"Python {result['versions']['python']} · medians of {result['rounds']} rounds"
    )
    parts.append(_text(12, y + 20, foot, 10, _PALE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 34}" '
        f'font-family="system-ui, sans-serif">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _heading(parts: list[str], y: int, text: str) -> int:
    parts.append(_text(12, y, text, 14, _INK, weight="600"))
    return y + 12


def _bar(
    parts: list[str], y: int, label: str, shares: Sequence[float], *, value: str, colour: str
) -> int:
    """One bar; ``shares`` of the full length: median, least and most."""
    median, least, most = (_LEFT + max(0.0, share) * _BAR for share in shares)
    middle = y + _ROW / 2
    parts.append(_text(12, middle + 4, label, 11, _INK))
    parts.append(
        f'<rect x="{_LEFT}" y="{y + 5}" width="{median - _LEFT:.1f}" height="{_ROW - 10}" '
        f'fill="{colour}"/>'
    )
    parts.append(
        f'<path d="M{least:.1f} {middle}H{most:.1f}M{least:.1f} {middle - 4}v8'
        f'M{most:.1f} {middle - 4}v8" stroke="{_INK}" fill="none"/>'
    )
    parts.append(_text(max(median, most) + 8, middle + 4, value, 11, _INK))
    return y + _ROW


def _log_share(milliseconds: float) -> float:
    least, most = map(log10, _LATENCY_MS)
    return (log10(max(milliseconds, _LATENCY_MS[0])) - least) / (most - least)


def _text(x: float, y: float, text: str, size: int, colour: str, *, weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
