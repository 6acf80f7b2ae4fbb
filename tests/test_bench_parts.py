"""A bench in parts: what ran is kept, and taken over by who asks for it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench import directory, parts
from bench.directory_built import Ground
from bench.world import BenchError


def test_a_part_that_fails_costs_none_that_ran_before(tmp_path: Path) -> None:
    """What was done is on the disk by then, and the next run goes on from there."""
    ran: list[str] = []

    def of(name: str) -> Any:
        def part() -> dict[str, Any]:
            ran.append(name)
            return {name: len(ran)}

        return part

    def fails() -> dict[str, Any]:
        raise BenchError("no")

    with pytest.raises(BenchError):
        parts.run(tmp_path, {"a": of("a"), "b": fails}, form="9", resume=False)
    found = parts.run(tmp_path, {"a": of("a"), "b": of("b")}, form="9", resume=True)
    assert (found.figures, ran) == ({"a": 1, "b": 2}, ["a", "b"])
    assert list(found.seconds) == ["b"]
    assert len(found.flushes_ms) > 0
    assert json.loads((tmp_path / "parts" / "b-9.json").read_text()) == {"b": 2}


def test_a_part_of_another_size_is_not_taken_over(tmp_path: Path) -> None:
    """Nor is one that ran before, by who does not ask for it."""
    for form, resume, figure in (("9", True, 1), ("", True, 2), ("9", False, 3)):
        found = parts.run(tmp_path, {"a": lambda: {"a": figure}}, form=form, resume=resume)  # noqa: B023
        assert found.figures == {"a": figure}


def test_a_directory_is_measured_in_parts_of_one_size(tmp_path: Path) -> None:
    """What is left tells the persons, so that a tenth is never taken for the whole."""
    ran: list[int] = []

    def size(ground: Ground) -> dict[str, Any]:
        ran.append(ground.persons)
        return {"size_gib": ground.persons}

    for persons in (10, 20, 10):
        ground = Ground(tmp_path, persons, 5)
        result = directory.run(ground, {"size": size}, resume=True)
        assert (result["size_gib"], result["persons"]) == (persons, persons)
        assert list(result)[:4] == ["bench", "persons", "lines", "size_gib"]
    assert ran == [10, 20]


def test_a_disk_without_room_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    parts.check_room(tmp_path / "here", 0)
    with pytest.raises(BenchError, match="--data"):
        parts.check_room(tmp_path, state.f_blocks * state.f_frsize + 1)
