"""Each fault in a rulebook's text is found, in its file, at its line, with what to do."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from ksz_router.rulebook.check import check
from ksz_router.rulebook.generation import RulebookError
from ksz_router.rulebook.rows import Finding
from ksz_router.rulebook.source import read
from tests.worlds import EXAMPLE, TODAY

INSTITUTIONS = "institutions/requesters.toml"
SOURCES = "institutions/sources.toml"
SERVICES = "services/social-inquiry.toml"
OTHER = "services/other.toml"
INQUIRY = "deliberations/2019-901.toml"
WORK = "deliberations/2021-914.toml"
SENDING = "deliberations/2020-907.toml"
NETWORK = "deliberations/network-ziekteverzekering.toml"
AVAILABLE = "availability/sources.toml"
RECIPIENTS = "availability/recipients.toml"
OUTAGES = "outages/announced.toml"
RIGHTS = "rights/ocmw.toml"


class Fault(NamedTuple):
    """One change of the example, and what the check must say of it."""

    file: str
    old: str
    new: str
    reason: str


FAULTS = [
    Fault(INSTITUTIONS, 'kbo = "0999016460"', 'kbo = "0999016461"', "'0999016461' is not a KBO"),
    Fault(INSTITUTIONS, 'kbo = "0999017153"', 'kbo = "0999016460"', "0999016460 stands here twice"),
    Fault(INSTITUTIONS, 'name = "OCMW Zandbergen (synthetic)"', 'name = " "', "name is empty"),
    Fault(INSTITUTIONS, '["17/0"]', '["17/9"]', "sector 17 with type 9 does not exist"),
    Fault(INSTITUTIONS, '["17/0"]', '["99/0"]', "sector 99 with type 0 does not exist"),
    Fault(INSTITUTIONS, '["17/0"]', '["17-0"]', "'17-0' is not a role"),
    Fault(INSTITUTIONS, '["17/0"]', '["17/0", "17/0"]', "a role is named twice"),
    Fault(INSTITUTIONS, '"0999017153"]', '"0999999922"]', "0999999922 is no institution here"),
    Fault(INSTITUTIONS, '"0999017153"]', '"0999017846"]', "its own member"),
    Fault(INSTITUTIONS, "urn:kbo:0999019232", "urn:kbo:0999018539", "is used twice"),
    Fault(INSTITUTIONS, "urn:kbo:0999018539", "urn kbo", "is not a URI"),
    Fault(INSTITUTIONS, 'network = "z', 'network = "!z', "is no name"),
    Fault(INSTITUTIONS, "end = 2024-12-31", "begin = 2025-01-01\nend = 2024-12-31",
          "the period ends before it begins"),
    Fault(INSTITUTIONS, "end = 2024-12-31", "ends = 2024-12-31", "unknown field `ends`"),
    Fault(INSTITUTIONS, "end = 2024-12-31", 'end = "2024"', "$.end"),
    Fault(SOURCES, 'port = 7801\nuri = "urn:kbo:0999010126"',
          'port = 7801\nuri = "urn:kbo:0999018539"', "is another institution's"),
    Fault(SOURCES, "port = 7801", "port = 0", "endpoint port = 0 is out of range"),
    Fault(SOURCES, 'host = "127.0.0.1"', 'host = ""', "endpoint host is not a host"),
    Fault(SERVICES, 'name = "Handi"', 'name = "Han di"', "'Han di' is not one"),
    Fault(SERVICES, 'name = "Handi"', 'name = "UnemploymentData"\nversion = 3\n#',
          "Cannot overwrite a value"),
    Fault(SERVICES, 'kind = "consultation"\nsubject = "person"',
          'kind = "test"\nsubject = "person"', "a test service may not be declared"),
    Fault(SERVICES, "deadline_ms = 2000", "deadline_ms = 60001", "deadline_ms = 60001"),
    Fault(SERVICES, "deadline_ms = 2000", "payload_bytes_max = 1048576", "payload_bytes_max ="),
    Fault(SERVICES, 'subject = "person"\nfollow_replaced = true\nrefuse',
          'subject = "none"\nfollow_replaced = true\nrefuse', "need a person as subject"),
    Fault(SERVICES, 'subject = "person"\nfollow_replaced = true\nrefuse',
          'subject = "person"\nany_number = true\nrefuse', "any_number is for a person"),
    Fault(SERVICES, 'source = "none"', 'recipient = "none"', "recipient is for submissions"),
    Fault(SERVICES, 'source = "none"', "", "the control sets no mode"),
    Fault(SERVICES, 'source = "none"', 'source = "off"', "$.source"),
    Fault(OTHER, 'recipient = "log"', 'source = "log"', "source is for consultations only"),
    Fault(OTHER, 'role = "16/2"', 'role = "16/6"', "no institution holds role 16/6"),
    Fault(INQUIRY, 'number = "19/901"', "", "the grants rest on no deliberation"),
    Fault(WORK, 'number = "21/914"', 'number = "20/907"', "deliberation 20/907 is in"),
    Fault(INQUIRY, "date = 2019-03-05", "", "the deliberation has no date"),
    Fault(INQUIRY, "date = 2019-03-05", "date = 2019-03-05\nend = 2019-01-01", "ends before it"),
    Fault(INQUIRY, 'id = "ocmw-pension"', 'id = "ocmw-handi"', "ocmw-handi is used at"),
    Fault(INQUIRY, 'id = "ocmw-handi"', 'id = "o h"', "grant id 'o h' is not one"),
    Fault(INQUIRY, 'direction = "request"', 'direction = "send"', "has no direction 'send'"),
    Fault(INQUIRY, 'service = "Handi"', 'service = "Hendi"', "service 'Hendi' version 1 does not"),
    Fault(INQUIRY, 'role = "17/1"\ncapacities = [2, 3]\nphase', "capacities = [2, 3]\nphase",
          "not exactly one holder"),
    Fault(INQUIRY, 'role = "17/1"\ncapacities = [2, 3]\nphase',
          'kbo = "0999016460"\ncapacities = [2, 3]\nphase', "path A goes by role"),
    Fault(INQUIRY, 'role = "17/1"\ncapacities = [2, 3]\nphase',
          'role = "17/3"\ncapacities = [2, 3]\nphase', "no institution holds role 17/3"),
    Fault(INQUIRY, "capacities = [2, 3]\nphase", "capacities = [2, 10]\nphase",
          "capacity 10 does not exist in sector 17"),
    Fault(INQUIRY, "capacities = [2, 3]\nphase", "capacities = [2, 999]\nphase", "999 is never"),
    Fault(INQUIRY, "capacities = [2, 3]\nphase", "capacities = [2, 2]\nphase", "named twice"),
    Fault(INQUIRY, "capacities = [2, 3]\nphase = 1", "phase = 1", "path A without capacities"),
    Fault(INQUIRY, "phase = 1", "phase = 1000", "phase = 1000 is out of range"),
    Fault(INQUIRY, "phase = 1", "own_integration = false", "path A always asks for the own"),
    Fault(INQUIRY, "begin = 2019-04-01", "end = 2019-01-01", "outside its deliberation's"),
    Fault(INQUIRY, "own_integration = true\ncapacities = [1, 2, 3, 4]", "own_integration = true",
          "own integration without capacities"),
    Fault(INQUIRY, "own_integration = true", "own_integration = false",
          "capacities, phase or provisional without own integration"),
    Fault(INQUIRY, "own_integration = true", "", "path B must say own_integration"),
    Fault(INQUIRY, 'service = "HealthCareInsurance"\nversion = 1\nrole = "17/1"\ncapacities = [2',
          'service = "UnemploymentData"\nversion = 3\nrole = "17/1"\ncapacities = [2',
          "overlaps grant ocmw-unemployment at deliberations/2019-901.toml:"),
    Fault(WORK, 'kbo = "0999018539"', 'kbo = "0999999922"', "0999999922 is no institution"),
    Fault(WORK, "VO:WORK_PERMIT", "VO" * 33, "is not a legal framework"),
    Fault(SENDING, 'service = "A036"\nversion = 1\nrole = "16/2"',
          'service = "MutationsSender"\nversion = 1\nrole = "16/2"', "no [[availability]] for the"),
    Fault(SENDING, 'role = "16/2"', 'role = "16/2"\nphase = 1', "a grant to receive has no"),
    Fault(NETWORK, 'role = "11/1"\ncapacities = [1]', 'role = "17/1"\ncapacities = [1]',
          "no holder is in a secondary network"),
    Fault(NETWORK, 'service = "HealthCareInsurance"\nversion = 1', 'service = "Handi"\nversion = 1',
          "no source is in the secondary network of a holder"),
    Fault(NETWORK, 'basis = "secondary-network"', 'basis = "secondary-network"\nnumber = "1/1"',
          "names both a deliberation and"),
    Fault(AVAILABLE, 'kbo = "0999010126"\nrole = "18/0"', 'kbo = "0999018539"\nrole = "18/0"',
          "does not hold role 18/0"),
    Fault(AVAILABLE, 'kbo = "0999010126"\nrole = "18/0"', 'kbo = "0999018539"\nrole = "40/6"',
          "source 0999018539 has no endpoint"),
    Fault(AVAILABLE, "capacities = [10]", "capacities = [11]", "capacity 11 does not exist"),
    Fault(RECIPIENTS, 'role = "18/0"', 'role = "18/0"\nphase = -1', "phase = -1 is out of range"),
    Fault(OUTAGES, 'kbo = "0999014381"', 'kbo = "0999010126"', "is not a source of service"),
    Fault(OUTAGES, "+01:00\nend", "\nend", "a moment without offset"),
    Fault(OUTAGES, "2026-01-01T00:00:00+01:00", "2026-07-01T00:00:00+01:00", "not the offset of"),
    Fault(OUTAGES, "2099-01-01", "2025-01-01", "the outage ends before it begins"),
    Fault(RIGHTS, 'application = "00901000101"', "", "names not exactly one holder"),
    Fault(RIGHTS, 'application = "00901000101"', 'user_key = "AB"', "not 32 hexadecimal digits"),
    Fault(RIGHTS, 'application = "00901000101"', 'application = "9"', "is not a program number"),
    Fault(RIGHTS, "level = 3", "level = 5", "level = 5 is out of range"),
    Fault(RIGHTS, "level = 3", 'means = ["eID", ""]', "means holds one that no request can name"),
    Fault(RIGHTS, "level = 3", 'means = ["é"]', "means holds one that no request can name"),
    Fault(RIGHTS, "level = 3", 'means = ["eID", "eID"]', "a means is named twice"),
    Fault(RIGHTS, 'services = ["Handi"]', 'services = ["Hendi"]', "service 'Hendi' does not exist"),
    Fault(RIGHTS, 'services = ["Handi"]', 'services = ["MutationsSender"]',
          "no grant of the institution allows MutationsSender"),
    Fault(RIGHTS, 'roles = ["17/1"]\nservices = ["Handi"]',
          'roles = ["40/6"]\nservices = ["Handi"]',
          "nor a member it manages holds role 40/6"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "text"))


def findings_of(folder: Path, today: int | None = None) -> list[Finding]:
    text, findings = read(folder)
    return findings + check(text, today)


def header_line(content: str, position: int) -> int:
    """The line of the table header that a place in a file stands under."""
    lines = content[:position].splitlines()
    headers = [n for n, line in enumerate(lines, 1) if line.startswith("[[") and "." not in line]
    return headers[-1] if headers else 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason[:50])
def test_a_fault_is_found_where_it_stands(folder: Path, fault: Fault) -> None:
    """Every fault gives an error in its file, under its row's header, with what to do."""
    file = folder / fault.file
    content = file.read_text(encoding="utf-8")
    assert fault.old in content, "the example changed: mend this row"

    file.write_text(content.replace(fault.old, fault.new, 1), encoding="utf-8")

    found = [f for f in findings_of(folder) if fault.reason in f.reason and f.is_error]
    assert found, [str(f) for f in findings_of(folder)]
    assert fault.file in {f.place.file for f in found}
    if "Cannot overwrite" not in fault.reason:
        assert header_line(content, content.index(fault.old)) in {f.place.line for f in found}
    assert all(f.mend for f in found)


def test_the_example_has_no_error(folder: Path) -> None:
    """The faults above are the changes' doing."""
    assert findings_of(folder) == []


def test_all_faults_are_told_at_once(folder: Path) -> None:
    """An author mends a text once, not once per fault."""
    for fault in (FAULTS[0], FAULTS[18], FAULTS[33], FAULTS[-1]):
        file = folder / fault.file
        content = file.read_text(encoding="utf-8")
        file.write_text(content.replace(fault.old, fault.new, 1), encoding="utf-8")
    (folder / "outages" / "broken.toml").write_text("x = [", encoding="utf-8")

    files = {finding.place.file for finding in findings_of(folder) if finding.is_error}

    assert {INSTITUTIONS, SERVICES, INQUIRY, RIGHTS, "outages/broken.toml"} <= files


@pytest.mark.parametrize("place", ["deliberation/a.toml", "a.toml", "rights/more/a.toml"])
def test_a_file_in_an_unknown_place_is_refused(folder: Path, place: str) -> None:
    """A misnamed folder would be grants or rights that silently do not exist."""
    file = folder / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("", encoding="utf-8")
    assert [f.place.file for f in findings_of(folder)] == [place]


def test_a_table_in_the_wrong_file_is_refused(folder: Path) -> None:
    """A grant among the rights is not a right, and not a grant."""
    with (folder / RIGHTS).open("a", encoding="utf-8") as file:
        file.write('[[grant]]\nid = "x"\n')
    found = findings_of(folder)
    assert [(f.place.file, f.reason) for f in found] == [(RIGHTS, "unknown key 'grant'")]
    assert (
        found[0].place.line == len((folder / RIGHTS).read_text(encoding="utf-8").splitlines()) - 1
    )


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    """Latin-1 is a finding, not a crash."""
    (folder / RIGHTS).write_bytes(b"# caf\xe9\n")
    assert "is not UTF-8" in {f.reason for f in findings_of(folder)}


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    """A wrong path is told apart from a wrong text."""
    with pytest.raises(RulebookError, match="no such folder"):
        read(tmp_path / "nowhere")


def test_expiry_is_a_warning_and_needs_a_day(folder: Path) -> None:
    """An ended deliberation, grant or right does not stop a build; history stays in the text."""
    reasons = {f.reason for f in findings_of(folder, TODAY) if not f.is_error}
    assert reasons == {
        "deliberation 15/918 ended on 20240630",
        "grant rva-insurance ended on 20231231",
        "the access right ended on 20241231",
    }


@pytest.mark.parametrize(("today", "told"), [(20240530, False), (20240531, True), (20240630, True)])
def test_a_deliberation_that_ends_within_thirty_days_is_told(
    folder: Path, today: int, *, told: bool
) -> None:
    """The warning begins thirty days before the last day, and not a day sooner."""
    reasons = [f.reason for f in findings_of(folder, today)]
    assert any("15/918 ends in" in reason for reason in reasons) is told


@pytest.mark.parametrize(("begin", "found"), [("2021-10-05", 1), ("2026-01-01", 0)])
def test_two_grants_under_one_framework_overlap_whatever_their_capacities(
    folder: Path, begin: str, found: int
) -> None:
    """On path B the first in force decides, so that a second never fires; one after it may."""
    file = folder / WORK
    content = file.read_text(encoding="utf-8").replace(
        "own_integration = false", "own_integration = true\ncapacities = [0]\nend = 2025-12-31"
    )
    second = content[content.index("[[grant]]") :].replace("wse-dmfa", "wse-second")
    second = second.replace("[0]\nend = 2025-12-31", f"[902]\nbegin = {begin}")
    file.write_text(f"{content}\n{second}", encoding="utf-8")
    reasons = [f.reason for f in findings_of(folder)]
    assert len([r for r in reasons if r.startswith("overlaps grant wse-dmfa")]) == found
    assert len(reasons) == found


def test_a_recipient_without_deliberation_does_not_open_a_service_to_outsiders(
    folder: Path,
) -> None:
    """A grant to receive inside a network may not serve a sender outside it."""
    content = (folder / SENDING).read_text(encoding="utf-8")
    grant = (
        '[[grant]]\nid = "nic-mutations"'
        + content.split('id = "nic-mutations"')[1].split("[[grant]]")[0]
    )
    assert grant in content
    (folder / SENDING).write_text(content.replace(grant, ""), encoding="utf-8")
    with (folder / NETWORK).open("a", encoding="utf-8") as file:
        file.write("\n" + grant)
    reasons = [f.reason for f in findings_of(folder)]
    assert reasons == ["the service is also sent on a deliberation, from outside the network"]


def test_a_person_named_as_application_is_told_without_the_number(folder: Path) -> None:
    """Somebody may paste an INSZ where a program number belongs; nothing repeats it."""
    number = "85073099734"
    content = (folder / RIGHTS).read_text(encoding="utf-8")
    (folder / RIGHTS).write_text(content.replace("00901000101", number), encoding="utf-8")
    found = findings_of(folder)
    assert [f.reason for f in found if "a well-formed INSZ" in f.reason]
    assert number not in str(found)
