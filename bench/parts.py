"""A bench in parts: each one's figures are kept when it is done, and may be taken over later.

So a whole run can be put together from parts that were run one after the other, and one that was
interrupted goes on where it was.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench import machine
from bench.world import BenchError


class Bound(NamedTuple):
    """What a figure is to be: at least, or at most."""

    at_least: bool
    value: float

    def holds(self, figure: float) -> bool:
        return figure >= self.value if self.at_least else figure <= self.value


def least(value: float) -> Bound:
    return Bound(True, value)


def most(value: float) -> Bound:
    return Bound(False, value)


class Measured(NamedTuple):
    """What came of some parts."""

    figures: dict[str, Any]
    """Of all of them."""
    seconds: dict[str, int]
    """Of each that was run now."""
    flushes_ms: list[float]
    """Of the device, before each that was run now."""


def run(
    folder: Path, parts: Mapping[str, Callable[[], dict[str, Any]]], *, form: str, resume: bool
) -> Measured:
    """Run parts one after the other, but with ``resume`` those that ran before.

    Args:
        folder: Where their figures are kept; made where it is missing.
        parts: Each returns its figures and what explains them.
        form: Tells those of one size from those of another; may be empty.
        resume: Take over what ran before.

    Raises:
        BenchError: one cannot be run, or what it ran broke.
    """
    done = folder / "parts"
    done.mkdir(parents=True, exist_ok=True)
    found = Measured({}, {}, [])
    for name, part in parts.items():
        file = done / f"{name}{form and '-'}{form}.json"
        if resume and file.exists():
            print(f"{name}: as it was measured before", flush=True)
            found.figures.update(json.loads(file.read_text(encoding="utf-8")))
            continue
        print(f"{name} ...", flush=True)
        found.flushes_ms.extend(machine.flush_ms(folder))
        began = time.monotonic()
        figures = part()
        found.seconds[name] = round(time.monotonic() - began)
        print(f"{name}: {found.seconds[name]} s: {json.dumps(figures)}", flush=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(figures), encoding="utf-8")
        partial.replace(file)
        found.figures.update(figures)
    return found


def judged(bounds: Mapping[str, Bound], result: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the figures that are not what they are to be, and those that are not there."""
    missing = [name for name in bounds if name not in result]
    missed = [
        name for name, bound in bounds.items() if name in result and not bound.holds(result[name])
    ]
    return missed, missing


def check_room(folder: Path, bytes_needed: int) -> None:
    """Make the folder, and see that its disk has room.

    Raises:
        BenchError: it has not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < bytes_needed:
        raise BenchError(
            f"{folder} has {free / 1e9:.0f} GB free of the {bytes_needed / 1e9:.0f} GB that are "
            "needed: name a folder on another disk with --data"
        )
