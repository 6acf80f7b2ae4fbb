"""Plots as SVG inside a page, in the page's colours: they follow it from light to dark.

Matplotlib draws in stand-in colours, each of which becomes a variable of the style sheet. Text
stays text, so it can be read out, searched and copied.
"""

import io
import re
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

_COLOURS: Final = {
    "#010101": "var(--ink)",
    "#020202": "var(--quiet)",
    "#030303": "var(--rule)",
    "#040404": "var(--first)",
    "#050505": "var(--second)",
    "#060606": "var(--third)",
    "#070707": "var(--target)",
}
INK, QUIET, RULE, FIRST, SECOND, THIRD, TARGET = _COLOURS

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "text.parse_math": False,  # a name with a dollar sign is a name
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_LABEL_CHARS_MAX = 36
_WIDTH_INCHES = 9.6


def stacked_bars(
    name: str, title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]
) -> Markup:
    """Return upright bars, one for each label, of one part for each series, two at most.

    Args:
        name: Of the plot within its page: letters only.
        title: What it shows, for who hears the page.
        labels: Of the bars, in their order.
        series: Name and one value for each label.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.4)
        base = [0] * len(labels)
        for (legend, values), colour in zip(series, (FIRST, SECOND), strict=False):
            axes.bar(
                range(len(labels)),
                values,
                bottom=base,
                color=colour,
                width=0.7,
                label=_clean(legend),
            )
            base = [low + value for low, value in zip(base, values, strict=True)]
        _mark_labels(axes, labels)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        return _inline(figure, name, title)


def flat_bars(name: str, title: str, labels: Sequence[str], values: Sequence[int]) -> Markup:
    """Return lying bars, the first on top, each with its value behind it."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(0.6 + 0.32 * max(1, len(labels)))
        places = range(len(labels))
        bars = axes.barh(places, values, color=FIRST, height=0.66)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=5, color=INK)
        axes.set_yticks(places, [_cut(label) for label in labels])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.16)
        axes.set_xlim(left=0)
        return _inline(figure, name, title)


def flow(
    name: str,
    title: str,
    labels: Sequence[str],
    up: tuple[str, Sequence[int]],
    down: tuple[str, Sequence[int]],
) -> Markup:
    """Return bars that stand for what came, and that hang for what went, one pair a label."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.4)
        places = range(len(labels))
        for (legend, values), sign, colour in ((up, 1, FIRST), (down, -1, SECOND)):
            axes.bar(
                places,
                [sign * value for value in values],
                color=colour,
                width=0.7,
                label=_clean(legend),
            )
        axes.axhline(0, color=QUIET, linewidth=0.8)
        shown = EngFormatter(sep="")
        axes.yaxis.set_major_formatter(lambda value, _: shown(abs(value)))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        _mark_labels(axes, labels)
        axes.spines["bottom"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        return _inline(figure, name, title)


def courses(
    name: str, title: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]
) -> Markup:
    """Return small plots beside each other, one a series, each with a scale of its own.

    Args:
        name: Of the plot within its page: letters only.
        title: What it shows, for who hears the page.
        labels: Of the points, in their order; the first and the last are shown.
        series: Name and one value for each label.
    """
    with mpl.rc_context(_STYLE):
        columns = 3
        rows = -(-len(series) // columns) or 1
        figure = Figure(figsize=(_WIDTH_INCHES, 0.2 + 1.5 * rows), layout="constrained")
        figure.set_layout_engine("constrained", hspace=0.14)
        figure.patch.set_alpha(0)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
            axes.patch.set_alpha(0)
        shown = EngFormatter(places=1, sep="")
        for axes, (legend, values) in zip(panels, series, strict=False):
            last = len(values) - 1
            axes.plot(range(len(values)), values, color=FIRST, linewidth=2)
            axes.plot([last], values[-1:], color=FIRST, marker="o", ms=5)
            axes.margins(x=0.04, y=0.35)
            axes.set_title(_cut(legend), loc="left", fontsize=11, color=INK)
            for place, side in ((0, "left"), (last, "right")):
                axes.annotate(
                    f"{shown(values[place])}  {_clean(labels[place])}",
                    (place, 0), xycoords=("data", "axes fraction"), ha=side, va="top",
                    xytext=(0, 2), textcoords="offset points", fontsize=9, color=QUIET,
                )  # fmt: skip
        return _inline(figure, name, title)


def shares(
    name: str,
    title: str,
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None], float]],
) -> Markup:
    """Return lines of shares, 0 to 1, each with what it must reach.

    Args:
        name: Of the plot within its page: letters only.
        title: What it shows, for who hears the page.
        labels: Of the points, in their order.
        series: Name, one share for each label (None: nothing to share), and the target.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(3.0)
        places = range(len(labels))
        lowest = 1.0
        for (legend, values, target), (colour, marker) in zip(
            series, ((FIRST, "o"), (THIRD, "s")), strict=False
        ):
            known = [float("nan") if value is None else 100 * value for value in values]
            lowest = min([lowest, target, *(value for value in values if value is not None)])
            axes.plot(places, known, color=colour, marker=marker, ms=5, label=_clean(legend))
            axes.axhline(100 * target, color=colour, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"at least {100 * target:g} %", (1, 100 * target), xytext=(6, 0), color=colour,
                xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                fontsize=9,
            )  # fmt: skip
        below = max(0.0, 100 * lowest - 0.35 * (100 - 100 * lowest) - 0.1)
        axes.set_ylim(below, 100 + 0.12 * (100 - below))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %" if value <= 100 else "")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _mark_labels(axes, labels)
        axes.margins(x=0.04)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        return _inline(figure, name, title)


def _axes(height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    return figure, axes


def _mark_labels(axes: Axes, labels: Sequence[str]) -> None:
    """At most a dozen labels below, however many there are."""
    step = -(-len(labels) // 12) or 1
    axes.set_xticks(range(0, len(labels), step), [_cut(label) for label in labels[::step]])
    axes.grid(axis="y")
    axes.spines["bottom"].set_color(QUIET)


def _cut(text: str) -> str:
    text = _clean(text)
    return text if len(text) <= _LABEL_CHARS_MAX else text[: _LABEL_CHARS_MAX - 1] + "…"


def _clean(text: str) -> str:
    """Text without what no XML can hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _inline(figure: Figure, name: str, title: str) -> Markup:
    """Return a figure as SVG without anything that a page does not need, its ids its own."""
    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(drawn.getvalue())  # noqa: S314 - of our own making
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("metadata", "}style")):
                parent.remove(child)
    used = set(re.findall(r"#(\w+)", drawn.getvalue()))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{name}-{identity}")
        linked = element.attrib.pop(f"{_XLINK}href", None)
        if linked is not None:
            element.set("href", f"#{name}-{linked[1:]}")
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", _clean(title))
    ET.register_namespace("", _SVG[1:-1])
    text = ET.tostring(root, encoding="unicode")
    for stand_in, variable in _COLOURS.items():
        text = text.replace(stand_in, variable)
    return Markup(text)  # noqa: S704 - ElementTree escaped what is in it
