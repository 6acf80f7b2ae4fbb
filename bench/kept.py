"""The results that are kept: one file per bench and day, and one chart of the newest."""

import json
import sys
from pathlib import Path
from typing import Any

from bench import chart

FOLDER = Path(__file__).with_name("results")
CHART = "chart.svg"


def keep(result: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Write a full run's result, named by its ``date`` and ``bench``; draw the chart anew."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{result['date']}-{result['bench']}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"kept in {file}", file=sys.stderr)
    draw(folder)
    return file


def newest(bench: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return the newest result of a bench; None where it has none."""
    files = sorted(folder.glob(f"????-??-??-{bench}.json"))
    return dict(json.loads(files[-1].read_text(encoding="utf-8"))) if files else None


def draw(folder: Path = FOLDER) -> None:
    """Draw the chart from the newest results, once there is one with a sweep."""
    router = newest("router", folder)
    if router is not None and router.get("sweep"):
        svg = chart.draw(router, newest("peers", folder))
        (folder / CHART).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    draw()
