"""A table of named failures: each step of the disk fails, before it took effect or after.

Whichever it is, everything then starts anew in fresh objects on what is there and comes to the end
of its work, and all verifiers find it whole: nothing acknowledged is lost, nothing is there twice,
no size of the tree was signed with two roots.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.log_failures import Failures, Step

WRITER, OTHERS, NOBODY = ("LogNotWritable",), ("OSError",), ("",)
EITHER = WRITER + OTHERS


class Row(NamedTuple):
    """A step that fails, and who notices it; ``""`` where it is passed over."""

    call: str
    role: str
    before: tuple[str, ...]
    after: tuple[str, ...]


TABLE = [
    Row("mkdir", "folder of the log", WRITER, NOBODY),  # it is there, and that is all it takes
    Row("sync", "folder of the log", EITHER, EITHER),  # the sweep flushes it too
    Row("create", "next write-ahead file", WRITER, WRITER),
    Row("write", "next write-ahead file", WRITER, WRITER),
    Row("flush", "next write-ahead file", WRITER, WRITER),
    Row("rename", "next write-ahead file", NOBODY, NOBODY),  # made ahead; tried again
    Row("link", "write-ahead file", WRITER, WRITER),
    Row("unlink", "next write-ahead file", WRITER, WRITER),
    Row("unlink", "write-ahead file", OTHERS, OTHERS),  # the sweep of what is sealed
    Row("write", "write-ahead file", WRITER, WRITER),
    Row("flush", "write-ahead file", EITHER, EITHER),  # the sequencer flushes it too
    *(Row(call, "order", OTHERS, OTHERS) for call in ("create", "write", "flush", "rename")),
    *(Row(call, "leaves", OTHERS, OTHERS) for call in ("create", "write", "flush")),
    *(Row(call, "upper level", OTHERS, OTHERS) for call in ("create", "write", "flush")),
    Row("create", "lock", OTHERS, OTHERS),
    *(
        Row(call, role, OTHERS, OTHERS)
        for role in (
            "last checkpoint", "checkpoint", "kept checkpoint", "truth", "derived file", "carry",
            "catalog", "index of catalogs",
        )
        for call in ("create", "write", "flush", "rename")
    ),
    *(
        Row(call, "manifest", OTHERS, OTHERS)
        for call in ("create", "write", "flush", "link", "unlink")
    ),
    Row("mkdir", "folder of the archive", OTHERS, NOBODY),
    Row("sync", "folder of the archive", OTHERS, OTHERS),
    Row("unlink", "carry", OTHERS, OTHERS),
    Row("unlink", "derived file", OTHERS, OTHERS),
    Row("sync", "folder of the last checkpoint", OTHERS, OTHERS),
]  # fmt: skip


@pytest.fixture(scope="module")
def failures() -> Iterator[Failures]:
    """Where flushes cost nothing, if there is such a place: what fails here fails by the test."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Failures(Path(folder))


@pytest.fixture(scope="module")
def steps(failures: Failures) -> dict[tuple[str, str], int]:
    """How often the scenario takes each step."""
    found: dict[tuple[str, str], int] = {}
    for step in failures.steps():
        found[step.call, step.role] = step.occurrence
    return found


def test_every_step_of_the_disk_is_in_the_table(steps: dict[tuple[str, str], int]) -> None:
    """Who adds a write, a flush, a rename, a link or an unlink says what its failure does."""
    assert set(steps) == {(row.call, row.role) for row in TABLE}
    assert len(TABLE) == len(steps)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.call} {row.role}")
def test_a_step_that_fails_loses_nothing_and_doubles_nothing(
    failures: Failures, steps: dict[tuple[str, str], int], row: Row, when: str
) -> None:
    """The middle one of its kind; ``bench/log_faults.py`` takes each of them."""
    occurrence = (steps[row.call, row.role] + 1) // 2
    after = when == "after"
    noticed, verdict = failures.fail(Step(row.call, row.role, occurrence), after=after)
    assert noticed in (row.after if after else row.before)
    assert verdict.holds, verdict
