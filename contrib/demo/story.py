"""What is asked in the demonstration, by whom, and what must come of it.

Institutions, services and refusals are those of ``config/rulebook-example``; the persons are the
landmarks of the synthetic directory. Every step states what it expects, down to the number that a
source may be asked for, so that nothing can go wrong unseen.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from contrib.demo.cast import (
    CENTRE,
    DEPARTMENT,
    DISEASES,
    FUND,
    HANDICAP,
    MANAGER,
    MEMBER,
    NIC,
    NOBODY,
    PENSIONS,
    POD_MI,
    REGISTER,
    RSZ,
    RVA,
    STOPPED,
    Chapter,
    Step,
)
from contrib.demo.keeping import kept
from ksz_router.codes import Code
from ksz_router.messages import Request
from ksz_router.sdk import new_ticket

_USER_A, _USER_B = "85073099734", "85073099833"  # published test numbers, given to nobody
_BATCH, _MUTATIONS = "00901000101", "00901000202"


def _request(**fields: Any) -> Request:
    return Request(id=0, ticket=new_ticket(), **fields)


def _centre(service: str, version: int, person: str | None, **fields: Any) -> Request:
    """Zandbergen asks as a centre for social welfare, in the capacity of the social inquiry."""
    usual = {"user": _USER_A, "sector": 17, "type": 1, "capacity": 2, "person": person}
    return _request(service=service, version=version, **(usual | fields))


def chapters(persons: Mapping[str, str], of_fund: str) -> Iterator[Chapter]:
    """Yield the story.

    Args:
        persons: The landmarks, name to number.
        of_fund: A person with an open line of sector 11 without type, in capacity 1.
    """
    known = persons["answered"]
    yield Chapter(
        "Requests that pass",
        "Access right, grant and files on both sides are in order, so the source is asked.\n"
        "The first request of a worker to a source also waits for the connection to it.",
        tuple(_passing(known, of_fund)),
    )
    yield Chapter(
        "By number and legal framework",
        "Path B: no capacity is named, but a legal framework that a deliberation allows.",
        tuple(_frameworks(known, persons)),
    )
    yield Chapter(
        "Sending instead of asking",
        "A submission has one recipient; a distribution goes to all who know the person.\n"
        "Sent again with its ticket, a submission is not delivered again: its outcome is told.",
        tuple(_sendings(known)),
    )
    yield Chapter(
        "Several requests in one envelope",
        "Each has a verdict, an entry and an answer of its own; a bad one hurts no other.",
        tuple(_enclosed(known)),
        in_one_envelope=True,
    )
    yield Chapter(
        "Numbers that were replaced",
        "Each service says whether a replaced number is followed or refused.",
        tuple(_replacements(persons)),
    )
    yield Chapter(
        "Refused, stage by stage",
        "The first broken rule is the answer. What is refused is recorded, and reaches no source.",
        (*_refused_for_who_asks(known), *_refused_for_what_is_known(persons)),
    )
    unknown_here = _centre("UnemploymentData", 3, persons["not_integrated"])
    replaced = _centre("UnemploymentData", 3, persons["any_type"])
    yield from kept(unknown_here, replaced, persons["unknown"])
    yield Chapter(
        "Sources that fail",
        "Checked, recorded, passed; then the source is down, or hangs. The answer comes in time.",
        tuple(_failures(known)),
    )


def _passing(known: str, of_fund: str) -> Iterator[Step]:
    unemployment = _centre("UnemploymentData", 3, known)
    yield Step(
        who=CENTRE, about="test of the connection; the router answers",
        request=_request(service="TestConnectionService", version=1),
        expected=Code.ANSWERED_WITH_DATA,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a known person", request=unemployment,
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a known person, asked by a program",
        request=_centre("UnemploymentData", 3, known, user=None, application=_BATCH),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a known person, user logged in at level 3",
        request=_centre("Handi", 1, known, user=_USER_B, means="eid", level=3),
        expected=Code.ANSWERED_WITH_DATA, went_to=(HANDICAP,),
    )  # fmt: skip
    yield Step(
        who=MANAGER, about="a known person, for its member OCMW Waterhoek",
        request=_centre("UnemploymentData", 3, known, member=MEMBER),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=FUND, about="its own member, inside the secondary network",
        request=_request(
            service="HealthCareInsurance", version=1, user=_USER_A, sector=11, type=1,
            capacity=1, person=of_fund,
        ),
        expected=Code.ANSWERED_WITH_DATA, went_to=(NIC,),
    )  # fmt: skip


def _frameworks(known: str, persons: Mapping[str, str]) -> Iterator[Step]:
    yield Step(
        who=DEPARTMENT, about="a known person, for a work permit",
        request=_work_permit(known), expected=Code.ANSWERED_WITH_DATA, went_to=(RSZ,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a person without sources, for a social inquiry",
        request=_registry("PCSA:SOCIAL_INQUIRY", persons["no_source"]),
        expected=Code.ANSWERED_WITH_DATA, went_to=(REGISTER,),
    )  # fmt: skip


def _sendings(known: str) -> Iterator[Step]:
    submission = _centre("A036", 1, known, payload=b"decision")
    other = msgspec.structs.replace(submission, payload=b"another decision")
    yield Step(
        who=CENTRE, about="submission: living wage for a known person",
        request=submission, expected=Code.ANSWERED_WITH_DATA, went_to=(POD_MI,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="the same again, with its ticket",
        request=submission, expected=Code.ANSWERED_WITH_DATA, went_to=(POD_MI,), told_again=True,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="another decision under that ticket",
        request=other, expected=Code.TICKET_REUSED,
    )  # fmt: skip
    yield Step(
        who=REGISTER, about="distribution: a known person has moved",
        request=_request(
            service="MutationsSender", version=1, application=_MUTATIONS,
            legal_framework="RR:MUTATIONS", person=known, payload=b"mutation",
        ),
        expected=Code.ANSWERED_WITH_DATA, went_to=(RVA, NIC),
    )  # fmt: skip


def _enclosed(known: str) -> Iterator[Step]:
    yield Step(
        who=CENTRE, about="a known person",
        request=_centre("UnemploymentData", 3, known), expected=Code.ANSWERED_WITH_DATA,
        went_to=(RVA,),
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a number with wrong check digits",
        request=_centre("UnemploymentData", 3, _misspelt(known)), expected=Code.PERSON_MALFORMED,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="the known person, of another source",
        request=_centre("HealthCareInsurance", 1, known), expected=Code.ANSWERED_WITH_DATA,
        went_to=(NIC,),
    )  # fmt: skip


def _replacements(persons: Mapping[str, str]) -> Iterator[Step]:
    yield Step(
        who=CENTRE, about="a replaced number; the source gets the new one",
        request=_centre("HealthCareInsurance", 1, persons["replaced"]),
        expected=Code.ANSWERED_WITH_DATA, went_to=(NIC,), delivered=persons["replacement"],
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a number that was replaced twice",
        request=_centre("HealthCareInsurance", 1, persons["chain_first"]),
        expected=Code.ANSWERED_WITH_DATA, went_to=(NIC,), delivered=persons["chain_last"],
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a replaced number; the answer has the new one",
        request=_centre("UnemploymentData", 3, persons["replaced"]),
        expected=Code.PERSON_REPLACED, detail={"newSSIN": persons["replacement"]},
    )  # fmt: skip


def _refused_for_who_asks(known: str) -> Iterator[Step]:
    def step(who: str, about: str, expected: Code, request: Request) -> Step:
        return Step(who=who, about=about, expected=expected, request=request)

    usual = _centre("UnemploymentData", 3, known)
    as_rva = _centre("HealthCareInsurance", 1, known, sector=18, type=0, capacity=1)
    as_nic = _centre("Handi", 1, known, sector=11, type=0, capacity=1)
    yield step(NOBODY, "its certificate is nobody's", Code.CERTIFICATE_NOT_REGISTERED, usual)
    yield step(STOPPED, "the institution ended in 2024", Code.INSTITUTION_NOT_ACTIVE, usual)
    yield step(CENTRE, "for a centre it does not manage", Code.MEMBER_NOT_MANAGED,
               _centre("UnemploymentData", 3, known, member=MEMBER))  # fmt: skip
    yield step(CENTRE, "a version that does not exist", Code.SERVICE_UNKNOWN,
               _centre("UnemploymentData", 9, known))  # fmt: skip
    yield step(CENTRE, "a number with wrong check digits", Code.PERSON_MALFORMED,
               _centre("UnemploymentData", 3, _misspelt(known)))  # fmt: skip
    yield step(CENTRE, "no person named", Code.SUBJECT_NOT_AS_DECLARED,
               _centre("UnemploymentData", 3, None))  # fmt: skip
    yield step(CENTRE, "by a user without any access right", Code.NO_ACCESS_RIGHT,
               _centre("UnemploymentData", 3, known, user=known))  # fmt: skip
    yield step(CENTRE, "by a user who may use Handi only", Code.SERVICE_NOT_IN_ACCESS_RIGHT,
               _centre("UnemploymentData", 3, known, user=_USER_B))  # fmt: skip
    yield step(CENTRE, "user logged in at level 1, 3 is asked", Code.AUTHENTICATION_TOO_WEAK,
               _centre("Handi", 1, known, user=_USER_B, level=1))  # fmt: skip
    yield step(CENTRE, "in a capacity that no grant names", Code.CAPACITY_NOT_GRANTED,
               _centre("UnemploymentData", 3, known, capacity=6))  # fmt: skip
    yield step(CENTRE, "under a legal framework without a grant", Code.NO_GRANT,
               _registry("PCSA:OTHER", known))  # fmt: skip
    yield step(RVA, "its grant ended in 2023", Code.GRANT_NOT_IN_FORCE, as_rva)
    yield step(NIC, "the deliberation ended in 2024", Code.DELIBERATION_NOT_IN_FORCE, as_nic)


def _refused_for_what_is_known(persons: Mapping[str, str]) -> Iterator[Step]:
    def step(about: str, expected: Code, service: str, version: int, person: str) -> Step:
        request = _centre(service, version, persons[person])
        return Step(who=CENTRE, about=about, expected=expected, request=request)

    yield step("a person the OCMW has no file on", Code.PERSON_NOT_INTEGRATED,
               "UnemploymentData", 3, "not_integrated")  # fmt: skip
    yield step("a person whose file has not begun its phase 1", Code.PHASE_TOO_LOW,
               "Handi", 1, "phase_too_low")  # fmt: skip
    yield step("a person whose file was closed in 2019", Code.PERIOD_NOT_COVERED,
               "UnemploymentData", 3, "period_not_covered")  # fmt: skip
    yield Step(
        who=DEPARTMENT, about="a number that was given to nobody", expected=Code.PERSON_UNKNOWN,
        request=_work_permit(persons["unknown"]),
    )  # fmt: skip
    yield step("a number that was cancelled", Code.PERSON_CANCELLED,
               "UnemploymentData", 3, "cancelled")  # fmt: skip
    yield step("a person who died", Code.PERSON_DECEASED, "Handi", 1, "deceased")
    yield step("a person no source has a file on", Code.NO_SOURCE_KNOWS_THE_PERSON,
               "UnemploymentData", 3, "no_source")  # fmt: skip
    yield step("a known person, source in an announced outage", Code.ANNOUNCED_OUTAGE,
               "SelfEmployed", 2, "answered")  # fmt: skip


def _failures(known: str) -> Iterator[Step]:
    yield Step(
        who=CENTRE, about="a known person; nothing listens at the source",
        request=_centre("PensionRegister", 1, known), expected=Code.SOURCE_UNREACHABLE,
        went_to=(PENSIONS,), within_s=4.5,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a known person; the source never answers",
        request=_centre("OccupationalDisease", 1, known), expected=Code.SOURCE_SILENT,
        went_to=(DISEASES,), within_s=3.5,
    )  # fmt: skip
    yield Step(
        who=CENTRE, about="a known person; nobody else noticed",
        request=_centre("UnemploymentData", 3, known), expected=Code.ANSWERED_WITH_DATA,
        went_to=(RVA,),
    )  # fmt: skip


def _misspelt(known: str) -> str:
    return f"{known[:9]}{int(known[9:]) % 97 + 1:02}"


def _work_permit(person: str) -> Request:
    return _request(
        service="DmfaConsultationService", version=1, kbo=DEPARTMENT, user=_USER_A, level=2,
        legal_framework="VO:WORK_PERMIT", person=person,
    )  # fmt: skip


def _registry(framework: str, person: str) -> Request:
    return _centre("RetrieveTIGroups", 2, person, capacity=None, legal_framework=framework)
