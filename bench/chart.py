"""One picture of the newest results: the sweep of ``bench-router``, and the peers beside it.

Its colours stand out on white and on black; the ground is left open.
"""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any, NamedTuple

_WIDTH, _COLUMN, _ROW = 960, 480, 300
_PLOT_LEFT, _PLOT_WIDTH, _PLOT_TOP, _PLOT_HEIGHT = 46, 326, 50, 200
_INK, _GRID = "#7b8794", "#7b8794"
_PATTERNS = {"64x1": ("one at a time", "#2f81c9"), "64x16": ("pipelined by 16", "#d9772b")}
_PAYLOADS = {"300 B": "", "2 kB": "5 3"}
_PERCENTILES = {"p50": "", "p99": "5 3"}
_PEERS = {"router": ("ksz_router", "#2a9d74"), "bare": ("its parts, no control", "#b5d8c7"),
          "nats": ("nats-server", "#9a6fc4"), "haproxy": ("HAProxy", "#8f99a5")}  # fmt: skip
_WORK = {
    "one_at_a_time": "one at a time, 300 B",
    "pipelined_300": "pipelined by 16, 300 B",
    "pipelined_2k": "pipelined by 16, 2 kB",
}
_LABEL_PIXELS = 13.0


class _Line(NamedTuple):
    """One curve."""

    label: str
    colour: str
    dashes: str
    points: list[tuple[float, dict[str, float]]]
    """Per cent of saturation → median, least and most."""


class _Axis(NamedTuple):
    """Of the figures, upwards."""

    least: float
    most: float
    is_logarithmic: bool

    def share(self, value: float) -> float:
        """Where in the plot a value stands, from 0 at the bottom to 1 at the top."""
        if not self.is_logarithmic:
            return min(1.0, value / self.most)
        value = min(max(value, self.least), self.most)
        return log10(value / self.least) / log10(self.most / self.least)

    def ticks(self) -> list[float]:
        """Values that get a line across the plot."""
        if self.is_logarithmic:
            return [10.0**n for n in range(round(log10(self.least)), round(log10(self.most)) + 1)]
        return [self.most * n / 4 for n in range(5)]


def draw(router: dict[str, Any], peers: dict[str, Any] | None = None) -> str:
    """Return an SVG document.

    Args:
        router: A result of ``bench-router`` with its sweep.
        peers: A result of ``bench-peers``; its part is left out where there is none.
    """
    sweep = router["sweep"]
    parts = [
        *_panel(0, 0, "Latency, 300 B: ms against % of saturation", _latency(sweep, "300 B")),
        *_panel(1, 0, "Latency, 2 kB: ms against % of saturation", _latency(sweep, "2 kB")),
        *_panel(
            0,
            1,
            "Router, µs of processor per exchange, against load",
            _cpu(sweep),
            is_logarithmic=False,
        ),
    ]
    if peers is not None:
        parts += _peers(peers)
    foot = 2 * _ROW + 14
    machine = router["machine"]
    told = (
        f"{router['date']} · {machine['processors']} x {machine['processor']}, load and source on "
        f"them too · flush {router['flush_p50_ms']} ms · Python {router['versions']['python']} · "
        f"medians of {router['sweep_rounds']} rounds, lines from least to most"
    )
    saturation = "100 % are, exchanges/s: " + ", ".join(
        f"{_PATTERNS[cell.split(', ')[0]][0]}, {cell.split(', ')[1]}: "
        f"{found['saturation_per_s']:,.0f}"
        for cell, found in sweep.items()
    )
    parts += [_text(12, foot, saturation, size=11), _text(12, foot + 17, told, size=11)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {foot + 30}" '
        f'font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif" '
        f'role="img" aria-label="Latency, processor time and throughput of ksz_router">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _latency(sweep: dict[str, Any], payload: str) -> list[_Line]:
    return [
        _Line(
            percentile,
            colour,
            dashes,
            [
                (100 * load["share"], load["latency_ms"][percentile])
                for load in sweep[f"{pattern}, {payload}"]["loads"]
            ],
        )
        for pattern, (_, colour) in _PATTERNS.items()
        if f"{pattern}, {payload}" in sweep
        for percentile, dashes in _PERCENTILES.items()
    ]


def _cpu(sweep: dict[str, Any]) -> list[_Line]:
    return [
        _Line(
            payload,
            colour,
            dashes,
            [
                (100 * load["share"], load["router_cpu_us"])
                for load in sweep[f"{pattern}, {payload}"]["loads"]
            ],
        )
        for pattern, (_, colour) in _PATTERNS.items()
        for payload, dashes in _PAYLOADS.items()
        if f"{pattern}, {payload}" in sweep
    ]


def _panel(
    column: int, row: int, title: str, lines: Sequence[_Line], *, is_logarithmic: bool = True
) -> list[str]:
    left, top = column * _COLUMN + _PLOT_LEFT, row * _ROW + _PLOT_TOP
    parts = [_text(left - 34, top - 28, title, weight="600")]
    dashed = [line.label for line in lines if line.dashes][:1]
    parts += _legend(left - 34, top - 12, "".join(f"dashed: {label}" for label in dashed))
    values = [value for line in lines for _, spread in line.points for value in spread.values()]
    if not values:
        return parts
    axis = _axis(values, is_logarithmic=is_logarithmic)
    for tick in axis.ticks():
        y = _height(top, axis, tick)
        parts.append(
            f'<path d="M{left} {y:.1f}h{_PLOT_WIDTH}" stroke="{_GRID}" stroke-opacity=".25"/>'
        )
        parts.append(_text(left - 6, y + 4, f"{tick:g}", size=11, anchor="end"))
    for per_cent in sorted({x for line in lines for x, _ in line.points}):
        x, y = _across(left, per_cent), top + _PLOT_HEIGHT + 16
        parts.append(_text(x, y, f"{per_cent:g}%", size=11, anchor="middle"))
    ends = []
    for line in lines:
        places = [(_across(left, x), spread) for x, spread in line.points]
        track = " ".join(f"{x:.1f},{_height(top, axis, v['median']):.1f}" for x, v in places)
        parts.append(
            f'<polyline points="{track}" fill="none" stroke="{line.colour}" stroke-width="2"'
            + (f' stroke-dasharray="{line.dashes}"/>' if line.dashes else "/>")
        )
        for x, spread in places:
            low, high = (_height(top, axis, spread[name]) for name in ("min", "max"))
            parts.append(
                f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{line.colour}" '
                f'stroke-opacity=".5"/><circle cx="{x:.1f}" '
                f'cy="{_height(top, axis, spread["median"]):.1f}" r="2.6" fill="{line.colour}"/>'
            )
        last = places[-1][1]["median"]
        ends.append((_height(top, axis, last) + 4, f"{line.label}: {_figure(last)}", line.colour))
    for y, text, colour in _apart(ends):
        parts.append(_text(left + _PLOT_WIDTH + 8, y, text, size=11, colour=colour))
    return parts


def _legend(x: float, y: float, more: str) -> list[str]:
    parts = []
    for name, colour in _PATTERNS.values():
        parts.append(f'<rect x="{x}" y="{y - 8}" width="9" height="9" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 14, y, name, size=11))
        x += 110
    parts.append(_text(x, y, more, size=11))
    return parts


def _peers(peers: dict[str, Any]) -> list[str]:
    left, top = _COLUMN + 12, _ROW + _PLOT_TOP
    title = "Beside peers: exchanges/s, and µs of processor per exchange"
    parts = [_text(left, top - 28, title, weight="600")]
    rates, cpu = peers["per_s"], peers["cpu_us_per_exchange"]
    most = max(_median(rate) for name in _PEERS for rate in rates.get(name, {}).values())
    y = top - 12.0
    for work, told in _WORK.items():
        parts.append(_text(left, y, told, size=11))
        y += 6
        for name, (label, colour) in _PEERS.items():
            if work not in rates.get(name, {}):
                continue
            rate = _median(rates[name][work])
            figures = f"{label}  {rate / 1e3:,.1f} k"
            if work in cpu.get(name, {}):
                figures += f" · {_median(cpu[name][work]):.1f} µs"
            width = max(1.0, 270 * rate / most)
            parts.append(
                f'<rect x="{left}" y="{y:.1f}" width="{width:.1f}" height="11" rx="2" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(left + width + 7, y + 9, figures, size=11))
            y += 15
        y += 18
    told = "HAProxy checks and records nothing, nats-server records nothing."
    parts.append(_text(left, y - 4, told, size=11))
    return parts


def _axis(values: Sequence[float], *, is_logarithmic: bool) -> _Axis:
    most = max(values)
    if is_logarithmic:
        least = max(0.01, min(values))
        return _Axis(10.0 ** floor(log10(least)), 10.0 ** max(1, ceil(log10(most))), True)
    step = 10.0 ** floor(log10(most))
    return _Axis(0.0, next(step * n for n in (1, 2, 4, 6, 8, 10) if step * n >= most), False)


def _across(left: float, per_cent: float) -> float:
    return left + _PLOT_WIDTH * per_cent / 100


def _height(top: float, axis: _Axis, value: float) -> float:
    return top + _PLOT_HEIGHT * (1 - axis.share(value))


def _apart(labels: Sequence[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Move labels down so far that none lies on another."""
    placed: list[tuple[float, str, str]] = []
    for y, text, colour in sorted(labels):
        least = placed[-1][0] + _LABEL_PIXELS if placed else y
        placed.append((max(y, least), text, colour))
    return placed


def _median(figure: Any) -> float:  # a number, or one with its spread
    return float(figure["median"] if isinstance(figure, dict) else figure)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _text(
    x: float, y: float, text: str, *, size: int = 13, colour: str = _INK, weight: str = "400",
    anchor: str = "start",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )
