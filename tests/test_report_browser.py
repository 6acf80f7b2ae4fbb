"""The dashboard of the person directory in a browser: light and dark, wide and narrow.

Run by ``make test`` on a machine with Chromium, not in continuous integration.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ksz_router import cli
from ksz_router.directory.loader import load
from ksz_router.directory.synthesise import write_csv
from tests import worlds as w

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here"),
    pytest.mark.skipif("CI" in os.environ, reason="a browser is no part of .ci/run"),
]

# A page of its own looks at the dashboard in a frame: the dashboard itself allows no script.
LOOK = """<!DOCTYPE html><html style="color-scheme: light dark"><body style="margin:0">
<iframe id="f" src="PAGE" style="border:0;width:WIDTHpx;height:900px"></iframe><pre id="seen"></pre>
<script>
const frame = document.getElementById("f");
function box(element) {
  const r = element.getBoundingClientRect();
  return {left: r.left, right: r.right, top: r.top, bottom: r.bottom};
}
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const style = view.getComputedStyle(page.body);
  const seen = {
    scroll: page.documentElement.scrollWidth, width: view.innerWidth,
    paper: style.backgroundColor, ink: style.color,
    fetched: view.performance.getEntriesByType("resource").length,
    plots: [...page.querySelectorAll("svg")].map(svg => ({
      name: svg.getAttribute("aria-label"), box: box(svg),
      texts: [...svg.querySelectorAll("text")].filter(t => t.textContent.trim()).map(
        t => ({...box(t), text: t.textContent, colour: view.getComputedStyle(t).fill})),
    })),
    tiles: [...page.querySelectorAll(".tile")].map(box),
    cells: [...page.querySelectorAll("th, td")].filter(
      c => c.scrollWidth > c.clientWidth + 1).length,
  };
  document.getElementById("seen").textContent = "SEEN" + JSON.stringify(seen) + "END";
});
</script></body></html>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard")
    w.make_world(folder)
    with (folder / "persons.csv").open("w", encoding="utf-8") as stream:
        write_csv(stream, persons=2_000, seed=3)
    load(folder / "persons.csv", folder / "directory")
    config = folder / "router.toml"
    config.write_text(
        '[tables]\nrulebook = "rulebook"\ndirectory = "directory"\n', encoding="utf-8"
    )
    words = ["report", "directory", "--quarter", "2016Q3", "--config", str(config)]
    assert cli.main([*words, "--out", str(folder)]) == cli.OK
    return folder / "directory-2016Q3.html"


def look(page: Path, tmp_path: Path, *, width: int, is_dark: bool) -> Any:
    """What the browser laid out, in pixels of the screen."""
    assert CHROMIUM is not None
    watcher = page.with_name(f"look-{width}.html")
    text = LOOK.replace("PAGE", page.name).replace("WIDTH", str(width))
    watcher.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,1200",
            f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
            "--virtual-time-budget=10000", "--dump-dom", watcher.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    found = re.search(r"SEEN(\{.*\})END", done.stdout)
    assert found is not None, done.stderr[-2_000:]
    return json.loads(found[1])


@pytest.mark.parametrize(("width", "is_dark"), [(1_200, False), (390, True)])
def test_a_reader_sees_every_plot_whole(
    page: Path,
    tmp_path: Path,
    width: int,
    is_dark: bool,  # noqa: FBT001  drawn by pytest
) -> None:
    """Nothing is fetched, cut off or laid over something else, and the colours are the theme's."""
    seen = look(page, tmp_path, width=width, is_dark=is_dark)
    assert seen["width"] == width
    assert seen["scroll"] <= width, "the page does not move sideways; wide tables do"
    assert seen["fetched"] == 0
    assert seen["paper"] == ("rgb(20, 24, 30)" if is_dark else "rgb(251, 251, 249)")
    assert seen["cells"] == 0, "a cell holds what it shows"
    assert len(seen["plots"]) == 7
    for plot in seen["plots"]:
        outer = plot["box"]
        assert outer["right"] - outer["left"] >= 500, plot["name"]
        assert len(plot["texts"]) >= 5, plot["name"]
        for text in plot["texts"]:
            where = f"{text['text']} in {plot['name']}"
            assert outer["left"] - 1 <= text["left"] < text["right"] <= outer["right"] + 1, where
            assert outer["top"] - 1 <= text["top"] < text["bottom"] <= outer["bottom"] + 1, where
        for at, one in enumerate(plot["texts"]):
            for two in plot["texts"][at + 1 :]:
                assert not overlap(one, two), f"{one['text']} over {two['text']}"
    tiles = seen["tiles"]
    assert len(tiles) == 4
    assert len({tile["top"] for tile in tiles}) == (1 if width > 1_000 else 4)


def overlap(one: dict[str, float], two: dict[str, float]) -> bool:
    """Whether boxes share more than their edges."""
    across = min(one["right"], two["right"]) - max(one["left"], two["left"])
    down = min(one["bottom"], two["bottom"]) - max(one["top"], two["top"])
    return across > 1 and down > 2
