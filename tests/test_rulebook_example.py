"""The example rulebook does what its README says: each request meets the outcome in the table."""

import re
from pathlib import Path
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.decision import Forward, decide
from ksz_router.identifiers import is_insz
from ksz_router.model import Line, NumberStatus
from ksz_router.persons import Person, pack_lines
from ksz_router.rights import Rights
from ksz_router.rulebook.check import check
from ksz_router.rulebook.snapshot import Snapshot
from ksz_router.rulebook.source import read
from tests import worlds as w

PATH_B = {"capacity": None, "sector": None, "type": None}
DMFA = {"service": "DmfaConsultationService", "version": 1, "legal_framework": "VO:WORK_PERMIT"}
TI = {
    "service": "RetrieveTIGroups",
    "version": 2,
    "legal_framework": "PCSA:SOCIAL_INQUIRY",
    "capacity": None,
}
HANDI = {"service": "Handi", "version": 1}
INSURANCE = {"service": "HealthCareInsurance", "version": 1}
MUTATIONS = {
    "service": "MutationsSender",
    "version": 1,
    "legal_framework": "RR:MUTATIONS",
    "user": None,
    "application": w.MUTATIONS_PROGRAM,
}

REMOVE = {"service": "directory.remove", "version": 1}
OTHERS = {"service": "directory.others", "version": 1}
REGISTRATION = {
    "service": "directory.register",
    "version": 1,
    "user": None,
    "application": w.MUTATIONS_PROGRAM,
}

NUMBER = {
    "service": "directory.number",
    "version": 1,
    "legal_framework": "KSZ:NUMBERS",
    "user": None,
    "application": "00901000303",
}


def person(status: NumberStatus = NumberStatus.ACTIVE, *lines: Line) -> Person:
    return Person(status, w.PERSON, status, pack_lines(lines or w.LINES))


def lines_but(sector: int, *instead: Line) -> Person:
    kept = tuple(line for line in w.LINES if line.sector != sector)
    return person(NumberStatus.ACTIVE, *kept, *instead)


REPLACED = Person(NumberStatus.REPLACED, w.PERSON, NumberStatus.ACTIVE, pack_lines(w.LINES))
CANCELLED = person(NumberStatus.CANCELLED)
DECEASED = person(NumberStatus.DECEASED)
LOW_PHASE = lines_but(17, Line(17, 1, 2, 0, 20200101, 99991231))
ENDED = lines_but(17, Line(17, 1, 2, 2, 20200101, 20251231))
PROVISIONAL = lines_but(17, Line(17, 1, 902, 0, 20200101, 99991231))

REFUSED: list[tuple[str, dict[str, Any], Person | None, Code]] = [
    ("9999999999", {}, w.KNOWN, Code.CERTIFICATE_NOT_REGISTERED),
    (w.STOPPED, {}, w.KNOWN, Code.INSTITUTION_NOT_ACTIVE),
    (w.CENTRE, {"member": w.MEMBER}, w.KNOWN, Code.MEMBER_NOT_MANAGED),
    (w.CENTRE, {"type": 0}, w.KNOWN, Code.ROLE_NOT_HELD),
    (w.CENTRE, {"version": 9}, w.KNOWN, Code.SERVICE_UNKNOWN),
    (w.CENTRE, {"person": None}, w.KNOWN, Code.SUBJECT_NOT_AS_DECLARED),
    (w.CENTRE, {"user": "00010199747"}, w.KNOWN, Code.NO_ACCESS_RIGHT),
    (w.CENTRE, {"user": w.USER_B, **INSURANCE}, w.KNOWN, Code.SERVICE_NOT_IN_ACCESS_RIGHT),
    (w.CENTRE, {"user": w.USER_B, **HANDI, "level": 2}, w.KNOWN, Code.AUTHENTICATION_TOO_WEAK),
    (w.CENTRE, {"capacity": 6}, w.KNOWN, Code.CAPACITY_NOT_GRANTED),
    (w.CENTRE, {**TI, "legal_framework": "X"}, w.KNOWN, Code.NO_GRANT),
    (w.RVA, {**INSURANCE, "sector": 18, "type": 0, "capacity": 1}, w.KNOWN,
     Code.GRANT_NOT_IN_FORCE),
    (w.NIC, {**HANDI, "sector": 11, "type": 0, "capacity": 1}, w.KNOWN,
     Code.DELIBERATION_NOT_IN_FORCE),
    (w.CENTRE, {}, lines_but(17), Code.PERSON_NOT_INTEGRATED),
    (w.CENTRE, HANDI, LOW_PHASE, Code.PHASE_TOO_LOW),
    (w.CENTRE, {}, ENDED, Code.PERIOD_NOT_COVERED),
    (w.CENTRE, {}, REPLACED, Code.PERSON_REPLACED),
    (w.CENTRE, {}, CANCELLED, Code.PERSON_CANCELLED),
    (w.CENTRE, {"service": "directory.inscribe", "version": 1}, CANCELLED, Code.PERSON_CANCELLED),
    (w.CENTRE, {**REMOVE, "user": w.USER_B}, w.KNOWN, Code.SERVICE_NOT_IN_ACCESS_RIGHT),
    (w.CENTRE, OTHERS, lines_but(17), Code.PERSON_NOT_INTEGRATED),
    (w.CENTRE, REGISTRATION, w.KNOWN, Code.NO_ACCESS_RIGHT),
    (w.REGISTER, {**NUMBER, **PATH_B}, w.KNOWN, Code.NO_ACCESS_RIGHT),
    (w.CENTRE, HANDI, DECEASED, Code.PERSON_DECEASED),
    (w.DEPARTMENT, {**DMFA, **PATH_B, "level": 2}, None, Code.PERSON_UNKNOWN),
    (w.CENTRE, {}, lines_but(18), Code.NO_SOURCE_KNOWS_THE_PERSON),
    (w.CENTRE, {"service": "SelfEmployed", "version": 2}, w.KNOWN, Code.ANNOUNCED_OUTAGE),
]  # fmt: skip

PASSES: list[tuple[str, dict[str, Any], Person, tuple[str, ...]]] = [
    (w.CENTRE, {}, w.KNOWN, (w.RVA,)),
    (w.CENTRE, {"user": None, "application": w.PROGRAM}, w.KNOWN, (w.RVA,)),
    (w.CENTRE, {}, PROVISIONAL, (w.RVA,)),
    (w.CENTRE, INSURANCE, REPLACED, (w.NIC,)),
    (w.CENTRE, {"user": w.USER_B, **HANDI, "level": 3}, w.KNOWN, (w.HANDICAP,)),
    (w.CENTRE, TI, lines_but(0), (w.REGISTER,)),
    (w.MANAGER, {"member": w.MEMBER}, w.KNOWN, (w.RVA,)),
    (w.DEPARTMENT, {**DMFA, **PATH_B, "level": 2}, w.KNOWN, (w.RSZ,)),
    (w.FUND, {**INSURANCE, "sector": 11, "type": 1, "capacity": 1}, w.KNOWN, (w.NIC,)),
    (w.CENTRE, {"service": "A036", "version": 1}, lines_but(16), (w.POD_MI,)),
    (w.CENTRE, {"service": "LivingWageGranted", "version": 1}, lines_but(17), (w.RVA,)),
    (w.CENTRE, {"service": "LivingWageEnded", "version": 1}, lines_but(18), (w.RVA,)),
    (w.REGISTER, {**MUTATIONS, **PATH_B}, w.KNOWN, (w.RVA, w.NIC)),
    (w.CENTRE, {"service": "PensionRegister", "version": 1}, w.KNOWN, (w.PENSIONS,)),
    (w.CENTRE, {"service": "OccupationalDisease", "version": 1}, w.KNOWN, (w.DISEASES,)),
    (w.CENTRE, {"service": "directory.inscribe", "version": 1}, lines_but(17), (w.BANK,)),
    (w.CENTRE, {"service": "directory.inscribe", "version": 1}, REPLACED, (w.BANK,)),
    (w.CENTRE, {**REMOVE, "user": None, "application": w.PROGRAM}, CANCELLED, (w.BANK,)),
    (w.CENTRE, {"service": "directory.lines", "version": 1}, lines_but(17), (w.BANK,)),
    (w.CENTRE, OTHERS, w.KNOWN, (w.BANK,)),
    (w.REGISTER, {**REGISTRATION, "sector": 0, "type": 0, "capacity": 0}, CANCELLED, (w.BANK,)),
    (w.BANK, {**NUMBER, **PATH_B}, w.KNOWN, (w.RVA, w.NIC)),
    (w.BANK, {**NUMBER, **PATH_B}, CANCELLED, (w.RVA, w.NIC)),
    (w.BANK, {**NUMBER, **PATH_B}, lines_but(11), (w.RVA,)),
    (w.CENTRE, {"service": "TestConnectionService", "version": 1, "person": None}, w.KNOWN, ()),
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    world = w.make_world(tmp_path_factory.mktemp("world"))
    return Snapshot.open(world.store, world.name)


def judge(snapshot: Snapshot, kbo: str, changes: dict[str, Any], known: Person | None) -> Any:
    request = w.ask(**changes)
    facts = snapshot.look_up(
        request, w.uri(kbo), w.NOW_MS, find_rights=Rights(snapshot).find, person=known
    )
    return decide(request, facts, w.TODAY)


@pytest.mark.parametrize(("kbo", "changes", "known", "code"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_request_of_the_table_is_refused_with_its_code(
    snapshot: Snapshot, kbo: str, changes: dict[str, Any], known: Person | None, code: Code
) -> None:
    """Every stage of the control can be met with the example, and for the stated reason."""
    assert judge(snapshot, kbo, changes, known).code is code


@pytest.mark.parametrize(("kbo", "changes", "known", "sources"), PASSES, ids=lambda v: str(v)[:40])
def test_a_request_of_the_table_goes_to_its_sources(
    snapshot: Snapshot, kbo: str, changes: dict[str, Any], known: Person, sources: tuple[str, ...]
) -> None:
    """The requests that pass, and whom they are put to."""
    verdict = judge(snapshot, kbo, changes, known)

    assert isinstance(verdict, Forward), verdict
    assert tuple(found.kbo for found in verdict.destinations) == sources


def test_a_number_that_does_not_exist_reaches_who_keeps_the_numbers(snapshot: Snapshot) -> None:
    """The register makes it known; a line under it can be asked for, and nobody is followed."""
    own = {**REGISTRATION, "sector": 0, "type": 0, "capacity": 0}
    for known in (None, REPLACED):
        verdict = judge(snapshot, w.REGISTER, own, known)
        assert (verdict.person, verdict.destinations[0].kbo) == (w.PERSON, w.BANK)


def test_a_recipient_that_does_not_know_the_person_is_a_logged_violation(
    snapshot: Snapshot,
) -> None:
    """The control row of the recipient's role says log: the submission passes, marked."""
    verdict = judge(snapshot, w.CENTRE, {"service": "A036", "version": 1}, lines_but(16))

    assert [found.violation for found in verdict.destinations] == [True]
    assert [found.receive for found in verdict.destinations] == ["podmi-a036"]


def test_the_stages_of_the_control_are_all_in_the_table() -> None:
    """A stage without an example row would leave the demo with a hole."""
    assert {code.stage for *_, code in REFUSED} == set(range(1, 9))


def test_the_readme_names_every_code_of_the_table() -> None:
    """The table in the README and the one above cannot drift apart."""
    readme = (w.EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert [code.name for *_, code in REFUSED if code.name not in readme] == []


def test_the_example_holds_no_insz() -> None:
    """Rights name a user by a key: the text people read and share holds no number of a person."""
    found = [
        word
        for file in w.EXAMPLE.rglob("*.toml")
        for word in re.findall(r"\b\d{11}\b", file.read_text(encoding="utf-8"))
        if is_insz(word)
    ]
    assert found == []


def test_the_example_of_the_document_builds(tmp_path: Path) -> None:
    """The text that a newcomer copies from docs/rulebook.md has no finding."""
    document = w.EXAMPLE.parents[1] / "docs" / "rulebook.md"
    block = document.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    for part in re.split(r"^(?=# \w+/)", block, flags=re.MULTILINE)[1:]:
        name, _, content = part.removeprefix("# ").partition("\n")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    text, findings = read(tmp_path)
    assert len(text.files) == 6
    assert [str(found) for found in findings + check(text)] == []
