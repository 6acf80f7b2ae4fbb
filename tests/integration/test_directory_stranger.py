"""A client that knows the document of the directory's services and nothing of ours."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contrib.stand import ROUTER_URI
from ksz_router.codes import Code
from ksz_router.directory.synthesise import landmarks
from tests.integration.stands import CENTRE, USER, Town, town

pytestmark = pytest.mark.xdist_group("integration-directory")

FILE = Path(__file__).parents[1] / "stranger_keeper.py"
NEWCOMER = landmarks(1)["not_integrated"]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("keeper") / "stand"
    with town(folder, endpoints={}, institutions=[CENTRE], serves_directory=True) as made:
        made.start()
        yield made


def test_a_stranger_keeps_its_lines_by_the_document_alone(stand: Town) -> None:
    """Inscribes, adjusts, splits, sees and removes, and is told what it did wrong."""
    identity = stand.identity(CENTRE)
    asking = {"user": USER, "sector": 17, "type": 1, "capacity": 2, "person": NEWCOMER}
    done = subprocess.run(
        [
            sys.executable, "-S", "-E", "-s", FILE, "--port", str(stand.port),
            "--certificate", identity.certificate, "--key", identity.key,
            "--authorities", identity.authorities, "--router-uri", ROUTER_URI,
            "--asking", json.dumps(asking),
        ],
        capture_output=True, text=True, check=True, timeout=30, cwd="/",
    )  # fmt: skip
    said: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        step = json.loads(line)
        said[step.pop("step")] = step

    def lines(step: str) -> list[tuple[int, ...]]:
        names = ("sector", "type", "capacity", "phase", "begin", "end")
        return [tuple(line[name] for name in names) for line in said[step]["lines"]]

    assert lines("inscribe") == [(17, 1, 2, 1, 20260301, 99991231)]
    overlap = said["overlap"]
    assert (overlap["reason"], overlap["source"]) == ("OVERLAPS", ["DIR-21"])
    assert (overlap["code"], overlap["version"]) == (Code.ANSWERED_WITHOUT_DATA, 0)
    assert lines("adjust") == [(17, 1, 2, 3, 20260201, 20261231)]
    assert said["others"]["code"] in (Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA)
    assert 17 not in {line["sector"] for line in said["others"]["lines"]}
    assert said["early"]["code"] == Code.PERIOD_NOT_COVERED
    halves = [(17, 1, 2, 3, 20260201, 20260531), (17, 1, 2, 3, 20260701, 20261231)]
    assert lines("split") == lines("lines") == halves
    assert said["misspelt"]["source"] == ["DIR-51"]
    assert (said["remove"]["code"], said["remove"]["lines"]) == (Code.ANSWERED_WITH_DATA, [])
    assert said["nothing"]["code"] == Code.ANSWERED_WITHOUT_DATA
    made = [said[step]["version"] for step in ("inscribe", "adjust", "split", "remove")]
    assert made == list(range(made[0], made[0] + 4))
    assert said["lines"]["version"] == made[2]


def test_the_keeper_imports_nothing_of_ours() -> None:
    """But the other half of the stranger, whose test holds the same of it."""
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert modules <= sys.stdlib_module_names | {"stranger", "stranger_bytes"}
