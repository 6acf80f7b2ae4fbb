"""The frame of every page: one file, no script, nothing fetched, everything put in is escaped."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


class Table(NamedTuple):
    """Rows under headings; the first cell of a row is its name."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = frozenset()
    """Of the columns behind the first, those that hold text and no figures, by place from 0."""

    @property
    def is_text(self) -> list[bool]:
        """Of each column, whether it is set to the left."""
        return [place == 0 or place in self.text_columns for place in range(len(self.columns))]


class Figure(NamedTuple):
    """A plot, and what it shows in words."""

    svg: Markup
    """Made by :mod:`ksz_router.report.plots`, which escapes what it is given."""
    caption: str


class Tile(NamedTuple):
    """One figure at the head of a page."""

    name: str
    value: str
    judged: str = ""
    is_good: bool | None = None
    """None: neither."""


class Section(NamedTuple):
    """A part of a page."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


class Page(NamedTuple):
    """What stands on a page."""

    title: str
    lead: str
    sections: Sequence[Section]
    footer: Sequence[tuple[str, str]]
    """What it was made of: see :func:`footer`."""
    tiles: Sequence[Tile] = ()


def footer(
    *,
    made_at: datetime,
    node: str,
    log: str,
    leaves: tuple[int, int],
    manifest: int,
    checkpoint: tuple[int, str],
) -> list[tuple[str, str]]:
    """Return what a page rests on, so that it can be checked.

    Args:
        made_at: When the page was made, with its time zone.
        node: Name of the router.
        log: Origin of its checkpoints.
        leaves: The first leaf that was looked at, and the one beyond the last.
        manifest: Number of the newest manifest.
        checkpoint: Size and root (Base64) of the newest one as it lies there; 0 where none does.
    """
    size, root = checkpoint
    signed = f"size {size}, root {root}" if size else "none lies in the archive"
    return [
        ("Made at", made_at.isoformat(timespec="seconds")),
        ("Router", node),
        ("Log", log),
        ("Leaves", f"{leaves[0]} to {leaves[1] - 1}" if leaves[1] > leaves[0] else "none"),
        ("Manifest", str(manifest)),
        ("Checkpoint", signed),
        ("To check it", "ksz-router log verify fast, then log verify checkpoint"),
    ]


def render(page: Page) -> str:
    """Return a page as HTML: one file that needs nothing else."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(page=page, style=Markup(style)).lstrip()  # noqa: S704 - our own style sheet
