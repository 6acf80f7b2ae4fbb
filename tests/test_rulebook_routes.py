"""Faults in what the rulebook says of integrations, periods, subscriptions, codes and networks."""

from pathlib import Path
from typing import NamedTuple

import pytest

from ksz_router.rulebook.check import check
from ksz_router.rulebook.rows import Finding
from ksz_router.rulebook.source import read
from tests import integrations_ground, routes_ground
from tests.worlds import CENTRE, MEMBER, RVA, STOPPED, make_world


class Fault(NamedTuple):
    """One change of a text without errors, and what the check must say of it."""

    file: str
    old: str
    new: str
    reason: str


CHANGES = "services/integrations.toml"
SENDING = "deliberations/integrations.toml"
ROUTED, AVAILABLE = "services/routes.toml", "availability/routes.toml"
NETWORKS = "institutions/networks.toml"
INSCRIPTION = 'service = "Opened"\nversion = 1\ndoes'

FAULTS = [
    Fault(CHANGES, INSCRIPTION, 'service = "Closed"\nversion = 2\ndoes', "'Closed' version 2 does"),
    Fault(CHANGES, INSCRIPTION, 'service = "UnemploymentData"\nversion = 3\ndoes',
          "follows from a submission or distribution"),
    Fault(CHANGES, INSCRIPTION, 'service = "directory.remove"\nversion = 1\ndoes',
          "is what integrations are sent as"),
    Fault(CHANGES, 'does = "inscribe"', 'does = "adjust"', "$.does"),
    Fault(CHANGES, 'of = "sender"', 'of = "source"', "$.of"),
    Fault(CHANGES, "00901000303", "0090100030", "is not a program number"),
    Fault(CHANGES, "00901000303", "00901000304", "has no access right for the application"),
    Fault(CHANGES, "phase = 1", "phase = 1000", "phase = 1000 is out of range"),
    Fault(CHANGES, "capacity = 2", "capacity = 999", "999 is never a capacity"),
    Fault(CHANGES, 'of = "sender"', 'of = "recipient"', "no line says the capacity"),
    Fault(SENDING, 'role = "17/1"\ncapacities = [2]', 'role = "12/0"\ncapacities = [10]',
          "role 12/0 has no grant to send directory.inscribe"),
    Fault(SENDING, 'role = "17/1"\ncapacities = [2]',
          f'kbo = "{CENTRE}"\nframework = "X"\nown_integration = false', "names no role"),
    Fault(ROUTED, 'kind = "submission"', 'distribution = "Z"\nkind = "submission"',
          "a submission has no distribution code"),
    Fault(ROUTED, 'distribution = "Z"', 'distribution = "Y"', "$.distribution"),
    Fault(ROUTED, 'filled_by = "sender"', 'filled_by = "both"', "$.filled_by"),
    Fault(AVAILABLE, "data_end = 2019-12-31", "data_begin = 2020-01-01\ndata_end = 2019-12-31",
          "the period ends before it begins"),
    Fault(AVAILABLE, "order = 1", 'subscribes = "changes"', "nobody subscribes to a consultation"),
    Fault(AVAILABLE, 'subscribes = "changes"', 'subscribes = "some"', "$.subscribes"),
    Fault(NETWORKS, "ziekteverzekering", "kinderbijslag", "no institution is in the secondary"),
    Fault(NETWORKS, '"hosted"', '"elsewhere"', "$.directory"),
    Fault(NETWORKS, 'directory = "hosted"',
          'directory = "hosted"\n[[network]]\nname = "ziekteverzekering"\ndirectory = "hosted"',
          "stands here twice"),
]  # fmt: skip


def text_of(folder: Path, file: str) -> Path:
    """Write the text that a file belongs to, whole and without errors."""
    more = integrations_ground.text() if file in (CHANGES, SENDING) else routes_ground.text()
    return make_world(folder, more=more).text


def errors(folder: Path) -> list[Finding]:
    text, findings = read(folder)
    return [finding for finding in findings + check(text) if finding.is_error]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason[:50])
def test_a_fault_is_found_where_it_stands(tmp_path: Path, fault: Fault) -> None:
    """In its file, with what to do."""
    folder = text_of(tmp_path, fault.file)
    file = folder / fault.file
    content = file.read_text(encoding="utf-8")
    assert fault.old in content
    file.write_text(content.replace(fault.old, fault.new, 1), encoding="utf-8")
    found = [error for error in errors(folder) if fault.reason in error.reason]
    assert found, [str(error) for error in errors(folder)]
    told_of = CHANGES if fault.file == SENDING else fault.file  # the row that cannot be applied
    assert told_of in {error.place.file for error in found}
    assert all(error.mend for error in found)


def test_an_institution_that_is_not_managed_can_never_be_inscribed(tmp_path: Path) -> None:
    """The control would refuse each change: it is said when the text is checked."""
    folder = text_of(tmp_path, CHANGES)
    for members, told in (
        ((CENTRE, MEMBER, STOPPED), "does not manage"),
        ((MEMBER, STOPPED, RVA), "does not manage"),
    ):
        text = integrations_ground.sources_text(members=members)
        (folder / "institutions/sources.toml").write_text(text, encoding="utf-8")
        assert any(told in error.reason for error in errors(folder))


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("data_end = 2019-12-31", "data_begin = 2020-01-01", False),
        ("data_end = 2019-12-31", "data_begin = 2019-12-31", True),
        ("capacities = [1]", "capacities = [2]", False),
        ("capacities = [1]", "capacities = [1, 2]", True),
        ("capacities = [1]", "", True),
        ("end = 2019-12-31", "begin = 2020-01-01", False),
        ("", "", True),
    ],
)
def test_two_rows_of_a_source_share_no_day_of_data_and_no_capacity(
    tmp_path: Path, first: str, second: str, *, overlap: bool
) -> None:
    """Where they share a capacity, a day in force and a day of data, they are one row."""
    folder = text_of(tmp_path, AVAILABLE)
    head = f'[[availability]]\nservice = "Careers"\nversion = 1\nkbo = "{RVA}"\nrole = "18/0"\n'
    file = folder / AVAILABLE
    kept = file.read_text(encoding="utf-8").split("[[availability]]")
    others = [row for row in kept[1:] if '"Careers"' not in row]
    rows = [f"{head}{first}\n", f"{head}{second}\n", *("[[availability]]" + row for row in others)]
    file.write_text("".join(rows), encoding="utf-8")
    found = [error for error in errors(folder) if "overlaps another row" in error.reason]
    assert bool(found) is overlap
