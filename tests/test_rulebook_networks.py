"""Each fault of a network whose directory is kept elsewhere is found, and said with its mend."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from ksz_router.keepers import KNOWN_SERVICE, Keeper
from ksz_router.rulebook.check import check
from ksz_router.rulebook.rows import Finding
from ksz_router.rulebook.snapshot import Snapshot
from ksz_router.rulebook.source import read
from tests.sectoral_ground import ASKS, text
from tests.worlds import EXAMPLE, FUND, NIC, RVA, TODAY, make_world

NETWORKS = "institutions/networks.toml"
SERVICE = "services/sectoral.toml"
GRANT = "deliberations/sectoral.toml"
RIGHT = "rights/sectoral.toml"

FAULTS = [
    (NETWORKS, f'at = "{NIC}"', "", "at: '' is not a KBO number"),
    (NETWORKS, f'at = "{NIC}"', 'at = "0999999922"', "0999999922 is no institution here"),
    (NETWORKS, f'at = "{NIC}"', f'at = "{FUND}"', f"{FUND} has no endpoint"),
    (NETWORKS, f'at = "{NIC}"', f'at = "{RVA}"', "is not in network ziekteverzekering"),
    (NETWORKS, f'at = "{NIC}"', f'at = "{RVA}"', f"{RVA} is no source of sectoral.known"),
    (NETWORKS, ASKS, "1", "application is not a program number"),
    (NETWORKS, ASKS, "00901000405", "has no access right for the application"),
    (NETWORKS, '"asked"', '"hosted"', "is hosted here, and asked for nowhere"),
    (NETWORKS, '"asked"', '"elsewhere"', "$.directory"),
    (NETWORKS, "[[network]]",
     '[[network]]\nname = "ziekteverzekering"\ndirectory = "hosted"\n\n[[network]]',
     "is both hosted here and asked for"),
    (SERVICE, "any_number = true", "", "under any number"),
    (SERVICE, 'source = "none"', 'source = "log"', "would have to know each person"),
    (SERVICE, 'source = "none"', 'source = "none"\nrole = "11/0"', "have to know each person"),
    (SERVICE, "sectoral.known", "sectoral.knows", "there is no service sectoral.known version 1"),
    (GRANT, "own_integration = false", "own_integration = true\ncapacities = [1]",
     "needs one grant, of the router's own institution"),
    (GRANT, 'direction = "request"', 'direction = "receive"', "needs one grant"),
    (SERVICE, "any_number = true", 'any_number = true\nfiled_by = "x"', "unknown field"),
    (SERVICE, "any_number = true", 'any_number = true\nfilled_by = "directory"',
     "the router names whom it asks"),
    ("availability/sectoral.toml", 'role = "11/0"', 'role = "11/0"\ndata_begin = 2020-01-01',
     "is no source of sectoral.known for all days"),
    (RIGHT, "services", "level = 2\nservices", "has no access right"),
    (RIGHT, "services", 'roles = ["25/0"]\nservices', "has no access right"),
    (RIGHT, '["sectoral.known"]', '["directory.number"]', "has no access right"),
    ("institutions/sources.toml", 'uris = ["urn:kbo:0999020618"]', "", "has no uris"),
    ("services/directory.toml", 'service = "directory.adjust"\nversion = 1\nown = "none"',
     'service = "directory.adjust"\nversion = 1\nown = "log"',
     f"lines of files for directory.adjust would have to ask at {NIC}"),
]  # fmt: skip


def findings(folder: Path, changed: Mapping[str, str] | None = None) -> list[Finding]:
    """What is wrong with the example, the network asked for at the NIC, and these files."""
    copy = folder / "text"
    shutil.copytree(EXAMPLE, copy)
    for name, words in (text() | dict(changed or {})).items():
        (copy / name).write_text(words, encoding="utf-8")
    rows, found = read(copy)
    return [finding for finding in found + check(rows, TODAY) if finding.is_error]


@pytest.mark.parametrize(("file", "old", "new", "reason"), FAULTS)
def test_each_fault_is_found(tmp_path: Path, file: str, old: str, new: str, reason: str) -> None:
    """Where the network is declared, or where the word is wrong."""
    words = text().get(file) or (EXAMPLE / file).read_text(encoding="utf-8")
    assert old in words
    found = findings(tmp_path, {file: words.replace(old, new)})
    assert [finding for finding in found if reason in finding.reason], found
    assert all(finding.mend for finding in found)


def test_a_second_grant_to_ask_is_one_too_many(tmp_path: Path) -> None:
    """It would be open whose the question is."""
    words = text()[GRANT]
    second = words[words.index("[[grant]]") :].replace("ksz-sectoral-known", "other")
    found = findings(tmp_path, {GRANT: words + second.replace("SECTORAL", "OTHER")})
    assert [finding for finding in found if "needs one grant" in finding.reason]


def test_without_fault_the_keeper_stands_with_institutions_and_sources(tmp_path: Path) -> None:
    """And no folder is looked for here."""
    assert findings(tmp_path) == []
    (tmp_path / "world").mkdir()
    world = make_world(tmp_path / "world", more=text())
    snapshot = Snapshot.open(world.store, world.name)
    try:
        fund, (row,) = snapshot.institution(FUND), snapshot.sources("HealthCareInsurance", 1)
        assert fund is not None
        assert fund.keeper == row.keeper == Keeper(NIC, ASKS)
        assert fund.is_sectoral
        assert snapshot.asks
        assert snapshot.sectoral_networks == ()
        assert snapshot.service(KNOWN_SERVICE, 1) is not None
    finally:
        snapshot.close()
