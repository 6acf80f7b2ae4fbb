"""Pages that people look at: whole, self-contained, escaped, and their figures are plain sums."""

import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ksz_router.codes import Code
from ksz_router.privacylog.archive.statistics import Statistics, read_statistics
from ksz_router.report import plots
from ksz_router.report.page import Page, Section, Table, Tile, footer, render
from ksz_router.report.statistics_page import BY, share_text, statistics_page
from tests.pages import check_colours, check_form, check_needs_nothing, read
from tests.statistics_world import NODE, ORIGIN, ROOT, row, seal

MADE_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&$x$\x00\u202e"


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    """Two quarters, a month without an exchange, a hostile name, a slow month."""
    archive = tmp_path_factory.mktemp("archive")
    refused = {"code": int(Code.NO_GRANT), "outcome": int(Code.NO_GRANT), "destination": None}
    seal(
        archive,
        [
            row(202608, exchanges=970, over_1s=9, over_2s=2),
            row(202608, exchanges=30, **refused),
        ],
    )
    seal(archive, [row(202610, exchanges=5, over_1s=1, over_2s=1, service=HOSTILE)])
    return read_statistics(archive, BY)


@pytest.fixture(scope="module")
def page(counted: Statistics) -> str:
    return statistics_page(counted, made_at=MADE_AT)


def test_a_page_is_well_formed_and_its_plots_are_too(page: str) -> None:
    """Elements close in order, no id stands twice, and each plot is XML by itself."""
    assert check_form(page) == 6


def test_a_page_needs_nothing_else(page: str) -> None:
    """No script, nothing fetched, and a policy that would not let it."""
    check_needs_nothing(page)


def test_colours_are_those_of_the_style_sheet(page: str) -> None:
    """A plot follows the page into the dark: it has no colour of its own."""
    check_colours(page)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_lines_can_be_told_from_the_paper(page: str) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a plot is read by, in each theme."""
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in page.split(":root {")[1:]]
    assert len(themes) == 3
    for theme in themes:
        for paper in ("paper", "card"):
            for name in ("ink", "quiet", "good", "bad", "first", "second", "third", "target"):
                pair = sorted((luminance(theme[name]), luminance(theme[paper])))
                ratio = (pair[1] + 0.05) / (pair[0] + 0.05)
                assert ratio >= (3 if name in {"second", "third"} else 4.5), (name, paper)


def test_hostile_names_are_text(page: str) -> None:
    """In a table, a plot, a title and the footer."""
    reader = read(page)
    assert "script" not in reader.seen
    assert any("alert(1)" in text for text in reader.text)
    own = Page(
        HOSTILE, HOSTILE, [Section(HOSTILE, HOSTILE, (), [Table(HOSTILE, [HOSTILE], [[HOSTILE]])])],
        [(HOSTILE, HOSTILE)], [Tile(HOSTILE, HOSTILE, HOSTILE)],
    )  # fmt: skip
    assert "script" not in read(render(own)).seen
    for svg in (
        plots.flat_bars("a", HOSTILE, [HOSTILE], [1]),
        plots.stacked_bars("b", HOSTILE, [HOSTILE], [(HOSTILE, [1])]),
        plots.shares("c", HOSTILE, [HOSTILE], [("x", [None], 0.99)]),
    ):
        assert all("script" not in element.tag for element in ET.fromstring(str(svg)).iter())


def test_the_figures_are_plain_sums(page: str) -> None:
    """What stands on the page is what was sealed, added up by hand."""
    text = "\n".join(read(page).text)
    assert "1,005" in text
    assert "30 exchanges" in text
    assert share_text(30 / 1005) == "2.985 %"
    for figure in (share_text(30 / 1005), share_text(1 - 10 / 975), share_text(1 - 3 / 975)):
        assert figure in text
    assert "✗ the agreement asks 99 %" in text
    assert "✓ the agreement asks 99.5 %" in text
    assert "2026-09" in text, "a month without an exchange is a month too"
    assert "NO_GRANT" in text


def test_a_share_is_never_rounded_up_to_what_it_did_not_reach() -> None:
    """99 % is met or it is not."""
    assert share_text(0.989_999_9) == "98.999 %"
    assert share_text(1.0) == "100.000 %"
    assert share_text(None) == "-"


def test_a_page_says_what_it_rests_on(page: str) -> None:
    """When it was made, of which log, up to which leaf, under which checkpoint."""
    text = "\n".join(read(page).text)
    for word in (NODE, ORIGIN, ROOT, "0 to 199", "2026-11-22T12:00:00+00:00", "size 200"):
        assert word in text
    none = dict(
        footer(made_at=MADE_AT, node="n", log="o", leaves=(0, 0), manifest=0, checkpoint=(0, ""))
    )
    assert (none["Leaves"], none["Checkpoint"]) == ("none", "none lies in the archive")


def test_the_same_figures_give_the_same_page(counted: Statistics, page: str) -> None:
    """Byte for byte: a page can be compared with one that was made again."""
    assert statistics_page(counted, made_at=MADE_AT) == page


def test_a_page_of_one_month_without_refusals_stands(tmp_path: Path) -> None:
    """The least that there can be."""
    seal(tmp_path, [row(202611, code=0, outcome=None)])
    reader = read(statistics_page(read_statistics(tmp_path, BY), made_at=MADE_AT))
    text = "\n".join(reader.text)
    assert "Nothing was refused." in text
    assert "Use of the network, 2026-11" in text
    assert "nothing that passed has ended" in text
