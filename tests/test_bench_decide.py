"""The bench of decisions: its rules are a rulebook, and who judges otherwise is found."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from bench.decide import Engines, check_agreement, opened
from bench.population import made
from bench.questions import REFUSALS, DecideError, mixed, persons
from bench.ruleset import GRANTS, write_text
from ksz_router.rulebook.compile import build

ROOT = Path(__file__).parents[1]
PERSONS, REQUESTS = 3_000, 256


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, made as the large one is."""
    place = tmp_path_factory.mktemp("bench") / "persons"
    assert made(place, PERSONS) > 0
    return place


def test_a_directory_is_made_once_for_each_size(directory: Path) -> None:
    """One of another size is another's, and is not measured in its place."""
    assert made(directory, PERSONS) == 0
    assert made(directory, PERSONS // 2) > 0
    assert made(directory, PERSONS) > 0


def test_the_rules_are_a_rulebook_without_errors(tmp_path: Path) -> None:
    """All of them: none was left out on the way."""
    write_text(tmp_path / "text")
    manifest, findings = build(tmp_path / "text", tmp_path / "store", now_ns=0)
    assert manifest.counts["grants"] == len(GRANTS)
    assert findings == []


class _LetsEverythingPass:
    batch = 64

    def prepare(self, question: object) -> object:
        return question

    def judge(self, questions: Sequence[Any]) -> list[bool]:
        return [True] * len(questions)


def test_an_engine_that_judges_otherwise_is_found(tmp_path: Path, directory: Path) -> None:
    """Else a bench would compare a control with something that does less."""
    numbers = persons(directory, REQUESTS)
    with opened(tmp_path, directory) as tables:
        batches, refused = mixed(tables, numbers, REQUESTS)
        assert set(refused) >= {code.name for code in REFUSALS}
        lax = cast("Engines", {"lax": _LetsEverythingPass()})
        with pytest.raises(DecideError, match="lax disagrees"):
            check_agreement(tables, [one for batch in batches for one in batch], lax)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("cedarpy", "casbin")),
    reason="cedarpy and pycasbin are installed by `make bench-decide` only",
)
def test_a_small_run_ends_with_its_figures(directory: Path) -> None:
    """All engines agree, on what passes and on every kind of refusal."""
    words = ["--quick", "--persons", PERSONS, "--requests", REQUESTS, "--directory", directory]
    line = [sys.executable, "-m", "bench.decide", *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bench"] == "decide"
    assert result["agreed"] >= REQUESTS
    assert min(result[name] for name in ("ours_per_s", "vs_cedar", "vs_casbin")) > 0
