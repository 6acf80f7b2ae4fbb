"""Law 6: the checked person is the asked person, in what is sent and in what is let through."""

from collections.abc import Iterator
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.days import brussels_day
from ksz_router.limits import further_persons_max, payload_bytes_max
from ksz_router.messages import Delivery, Outcome
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, Ground, insz
from tests.daemon_parts import in_trio, parts
from tests.worlds import (
    CENTRE,
    DEPARTMENT,
    MANAGER,
    NIC,
    NOW_MS,
    PERSON,
    PROGRAM,
    RSZ,
    RVA,
    USER_A,
    USER_B,
    ask,
)

NOW_DAY = brussels_day(NOW_MS * 1_000_000)
MALFORMED = PERSON[:-1] + str((int(PERSON[-1]) + 1) % 10)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"person": NEIGHBOUR}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"person": NOBODY, "outcome": Outcome.NO_DATA}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"person": NEIGHBOUR, "outcome": Outcome.FAILED}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"person": None}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"person": ""}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"person": f" {PERSON}"}, Code.SOURCE_ANSWERED_FOR_ANOTHER),
        ({"persons": (MALFORMED,)}, Code.SOURCE_ANSWER_INVALID),
        ({"persons": (NEIGHBOUR, "")}, Code.SOURCE_ANSWER_INVALID),
        ({"persons": (NEIGHBOUR,) * (further_persons_max + 1)}, Code.SOURCE_ANSWER_INVALID),
        ({"persons": (MALFORMED,), "person": NEIGHBOUR}, Code.SOURCE_ANSWER_INVALID),
        ({"user": MALFORMED}, Code.SOURCE_ANSWER_INVALID),
        ({"application": "00901"}, Code.SOURCE_ANSWER_INVALID),
        ({"source_code": "é"}, Code.SOURCE_ANSWER_INVALID),
        ({"payload": bytes(payload_bytes_max + 1)}, Code.SOURCE_ANSWER_INVALID),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "+".join(value),
)
@in_trio
async def test_an_answer_that_is_not_for_the_asked_person_is_withheld(
    ground: Ground, changes: dict[str, Any], code: Code
) -> None:
    """The requester gets a typed failure without the payload, and the failure is recorded."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply(**({"payload": b"secret"} | changes))
        await p.until(lambda: caller.answers)

        (answer,) = caller.answers
        assert (answer.code, answer.payload, answer.persons) == (code, b"", ())
        request, outcome = p.entries_of(answer.exchange)
        assert (request.kind, request.person) == (Kind.REQUEST, ground.tokens.person(PERSON))
        assert (outcome.kind, outcome.code, outcome.answer_bytes) == (Kind.OUTCOME, code, 0)
        assert outcome.user is None


@in_trio
async def test_a_good_answer_passes_whole_and_each_further_person_gets_an_entry(
    ground: Ground,
) -> None:
    """The declared persons are told to the requester and stand in the log, one entry each."""
    further = tuple(insz(day) for day in range(5, 8))
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply(persons=further, user=USER_B, application=PROGRAM, source_code="OK-1")
        await p.until(lambda: caller.answers)

        (answer,) = caller.answers
        assert (answer.code, answer.payload) == (Code.ANSWERED_WITH_DATA, b"data")
        assert answer.persons == further
        assert answer.recipients[0].source_code == "OK-1"
        _, outcome, *rest = p.entries_of(answer.exchange)
        assert [entry.kind for entry in rest] == [Kind.FURTHER] * 3
        assert [entry.person for entry in rest] == [ground.tokens.person(n) for n in further]
        assert {entry.destinations for entry in rest} == {(RVA,)}
        assert (outcome.user, outcome.application) == (ground.tokens.user(USER_B), PROGRAM)
        assert outcome.answer_bytes == 4


@in_trio
async def test_a_replaced_person_is_asked_and_answered_under_the_new_number(
    ground: Ground,
) -> None:
    """What was checked is the new number: an answer for the old one is for another."""
    async with parts(ground) as p:
        source, caller = p.add_source(NIC), await p.connect()
        for number, person in enumerate((NEIGHBOUR, FORMER)):
            caller.ask(ask(id=number, service="HealthCareInsurance", version=1, person=FORMER))
            await p.until(lambda n=number: len(source.deliveries) == n + 1)
            assert source.last.person == NEIGHBOUR
            source.reply(person=person)
            await p.until(lambda n=number: len(caller.answers) == n + 1)

        assert caller.answer_to(0).code == Code.ANSWERED_WITH_DATA
        assert caller.answer_to(1).code == Code.SOURCE_ANSWERED_FOR_ANOTHER
        request, _ = p.entries_of(caller.answer_to(0).exchange)
        assert request.person == ground.tokens.person(NEIGHBOUR)
        assert request.asked == ground.tokens.person(FORMER)


@pytest.mark.parametrize(
    ("kbo", "source_kbo", "request_fields", "delivered"),
    [
        (
            CENTRE,
            NIC,
            {"service": "HealthCareInsurance", "version": 1, "begin": 20260101, "end": 20260331},
            {"capacity": 2, "sector": 17, "type": 1, "grant": "ocmw-insurance",
             "groups": ("insurability",), "begin": 20260101, "end": 20260331, "member": None},
        ),
        (
            MANAGER,
            RVA,
            {"member": CENTRE, "final_client": RSZ, "begin": 20260101},
            {"capacity": 2, "sector": 17, "type": 1, "grant": "ocmw-unemployment", "groups": (),
             "begin": 20260101, "end": None, "member": CENTRE, "final_client": RSZ},
        ),
        (
            DEPARTMENT,
            RSZ,
            {"service": "DmfaConsultationService", "version": 1, "level": 2, "capacity": None,
             "sector": None, "type": None, "legal_framework": "VO:WORK_PERMIT"},
            {"capacity": None, "sector": None, "legal_framework": "VO:WORK_PERMIT",
             "grant": "wse-dmfa", "groups": ("employer", "occupation"),
             "begin": NOW_DAY, "end": NOW_DAY},
        ),
    ],
    ids=["path A", "member", "path B"],
)  # fmt: skip
@in_trio
async def test_the_delivery_says_what_was_checked(
    ground: Ground,
    kbo: str,
    source_kbo: str,
    request_fields: dict[str, Any],
    delivered: dict[str, Any],
) -> None:
    """Person, capacity, period, grant and groups travel with the payload, as the control saw it."""
    request = ask(payload=b"question", user=USER_A, **request_fields)
    async with parts(ground) as p:
        source, caller = p.add_source(source_kbo), await p.connect(kbo)
        caller.ask(request)
        await p.until(lambda: source.deliveries or caller.answers)

        delivery: Delivery = source.last
        assert {name: getattr(delivery, name) for name in delivered} == delivered
        assert (delivery.person, delivery.payload) == (PERSON, b"question")
        assert (delivery.requester, delivery.service) == (kbo, request.service)
        assert not hasattr(delivery, "user"), "who asks inside the institution is not told"
        assert not hasattr(delivery, "ticket")
        (entry,) = p.entries_of(delivery.exchange)
        assert (entry.grant, entry.capacity) == (delivery.grant, delivery.capacity)
        assert (entry.begin, entry.end) == (delivery.begin, delivery.end)
        assert entry.destinations == (source_kbo,)
        assert entry.line is not None or kbo == DEPARTMENT
