"""The frozen log of format 1: whatever the router becomes, it must verify it and find in it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contrib.vectors_privacylog import FOLDER, make
from ksz_router.cli import main
from ksz_router.privacylog.archive.verify_derived import verify_derived
from ksz_router.privacylog.archive.verify_fast import Place, verify_fast
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.entry import parse
from ksz_router.privacylog.tree.note import read_vkeys
from ksz_router.privacylog.tree.proof import verify_record
from ksz_router.privacylog.verify import verify

ROOT = Path(__file__).parents[1]


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A copy: a query writes its reading first. Key files have lost their mode in the repository.

    As long as format 1 is not settled, what is made today stands in.
    """
    copy = tmp_path / "v1"
    if FOLDER.exists():
        shutil.copytree(FOLDER, copy)
    else:
        make(tmp_path, copy)
    for file in (copy / "keys").iterdir():
        file.chmod(0o600)
    return copy


def expected(frozen: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((frozen / "expected.json").read_text())
    return told


def place(frozen: Path) -> Place:
    return Place(
        archive=frozen / "archive",
        vkeys=read_vkeys(frozen / "vkeys"),
        anchor=frozen / "last-checkpoint",
        commit_keys=frozen / "keys",
        log=frozen / "log",
    )


def test_the_frozen_log_is_whole_to_every_verifier(frozen: Path) -> None:
    told = expected(frozen)
    fast, full = verify_fast(place(frozen)), verify_full(place(frozen))
    derived = verify_derived(frozen / "archive")
    assert fast.faults == full.faults == derived.faults == []
    assert derived.leaves == told["sealed_leaves"]
    assert full.leaves == full.tree_size == told["leaves"]
    assert full.sealed_leaves == told["sealed_leaves"]
    assert verify(frozen / "log", frozen / "keys").faults == []


def test_its_proof_proves_its_record(frozen: Path) -> None:
    proof = frozen / "request.tlog-proof"
    proved = verify_record(proof.read_bytes(), read_vkeys(frozen / "vkeys"))
    assert proved.checkpoint.root.hex() == expected(frozen)["root"]
    assert parse(proved.record).exchange
    script = ROOT / "contrib" / "verify_record.py"
    words = [sys.executable, "-I", str(script), str(proof), str(frozen / "vkeys")]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_person_is_found_in_it(frozen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = expected(frozen)
    words = [
        "log", "query", "--purpose", "the frozen log", "--person", str(told["person"]),
        "--no-directory", "--log", str(frozen / "log"), "--keys", str(frozen / "keys"),
        "--archive", str(frozen / "archive"), "--json",
    ]  # fmt: skip
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {str(row["exchange"]).replace("-", "") for row in rows if row.get("exchange")}
    assert found == set(told["exchanges"])  # type: ignore[call-overload]
