"""The threat model says of each control which test holds it, and that test exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
HEADING = re.compile(r"^\| threat \| control \| test \|$", re.MULTILINE)


def rows() -> list[list[str]]:
    """The rows of every table of threats."""
    found = []
    for table in HEADING.split(TEXT)[1:]:
        for line in table.splitlines()[2:]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_a_named_test_exists(file: str, function: str) -> None:
    """A function of that name, at the top of that file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in names


def test_every_threat_has_a_control_and_every_control_a_test() -> None:
    """Or says in so many words that it is not held."""
    assert len(rows()) >= 25
    for threat, control, tests in rows():
        assert threat
        assert control
        if "**not held yet**" not in control:
            assert "`tests/" in tests, threat


def test_every_store_on_disk_is_in_the_table() -> None:
    """What the configuration names as a file or folder has its thief and its forger."""
    stores = TEXT.partition("## Each store")[2].partition("\n## ")[0]
    for word in ("privacy log", "key files", "rulebook store", "signing key", "person directory",
                 "access rights", "submission ledger", "TLS key", "revocation lists",
                 "configuration", "operational log", "sealed files", "order and tree",
                 "last checkpoint", "checkpoint keys"):  # fmt: skip
        assert word in stores, word
