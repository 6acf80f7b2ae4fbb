"""Who asks for whom, under which basis, and how well authenticated: judged, delivered, recorded."""

from collections.abc import Iterator
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import NOT_INTEGRATED, Ground
from tests.daemon_parts import in_trio, parts
from tests.kinds_ground import ELSEWHERE, OUTSIDER, USER_C, audit, kbo, make_ground
from tests.worlds import (
    CENTRE,
    DEPARTMENT,
    FUND,
    MANAGER,
    MEMBER,
    NIC,
    PERSON,
    RSZ,
    RVA,
    USER_A,
    ask,
)

W = Code.ANSWERED_WITH_DATA


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@pytest.mark.parametrize(
    "named", [{"member": MEMBER}, {"kbo": MEMBER}, {"kbo": MEMBER, "member": MEMBER}]
)
@in_trio
async def test_a_managing_institution_asks_for_its_member(
    ground: Ground, named: dict[str, str]
) -> None:
    """By member, by KBO number or both: the member's role counts, and both stand everywhere."""
    async with parts(ground) as p:
        source, manager = p.add_source(RVA), await p.connect(MANAGER)
        manager.ask(ask(**named))
        await p.until(lambda: source.deliveries)
        delivery = source.last
        assert (delivery.requester, delivery.member) == (MANAGER, MEMBER)
        assert (delivery.sector, delivery.type, delivery.person) == (17, 1, PERSON)
        source.reply()
        await p.until(lambda: manager.answers)
        (answer,) = manager.answers
        assert answer.code == W
        for entry in p.entries_of(answer.exchange):
            assert (entry.requester, entry.acting) == (MANAGER, MEMBER)
        for number in (MANAGER, MEMBER):
            (row,) = audit(p, PERSON, institution=number)
            assert (row.requester, row.acting) == (MANAGER, MEMBER)


@pytest.mark.parametrize(
    ("who", "changes", "code"),
    [
        (MANAGER, {"member": RVA}, Code.MEMBER_NOT_MANAGED),
        (MANAGER, {"kbo": RVA}, Code.KBO_NOT_HELD),
        (CENTRE, {"member": MEMBER}, Code.MEMBER_NOT_MANAGED),
        (CENTRE, {"member": MANAGER}, Code.MEMBER_NOT_MANAGED),
        (MANAGER, {"kbo": MANAGER, "member": MEMBER}, Code.IDENTIFIERS_DISAGREE),
        (MANAGER, {"kbo": CENTRE, "member": MEMBER}, Code.IDENTIFIERS_DISAGREE),
        (MANAGER, {"member": MEMBER, "type": 0}, Code.ROLE_NOT_HELD),
        (MANAGER, {}, Code.ROLE_NOT_HELD),
        (MANAGER, {"member": MEMBER, "person": NOT_INTEGRATED}, Code.PERSON_NOT_INTEGRATED),
        (MANAGER, {"member": MEMBER, "user": USER_C}, Code.NO_ACCESS_RIGHT),
        (CENTRE, {"final_client": "0999012206"}, Code.FIELD_MALFORMED),
        (CENTRE, {"final_client": ""}, Code.FIELD_MALFORMED),
    ],
)  # fmt: skip
@in_trio
async def test_who_may_not_ask_for_another_is_refused_and_recorded(
    ground: Ground, who: str, changes: dict[str, Any], code: Code
) -> None:
    """Nothing is delivered; the entry names who asked, and for whom."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect(who)
        caller.ask(ask(**changes))
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert (answer.code, answer.payload) == (code, b"")
        request, outcome = p.entries_of(answer.exchange)
        named = changes.get("member") or changes.get("kbo")
        assert (request.code, request.requester) == (code, who)
        assert request.acting == (named if named != who else None)
        assert outcome.code == code
        assert not source.deliveries
        assert [row.code for row in audit(p, changes.get("person", PERSON))] == [code]


@in_trio
async def test_an_integrator_s_final_client_travels_to_the_source_and_the_log(
    ground: Ground,
) -> None:
    """Any well-formed KBO number, registered here or not; an auditor finds the exchange by it."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number, client in enumerate((RSZ, OUTSIDER, kbo(5)), 1):
            caller.ask(ask(id=number, final_client=client))
            await p.until(lambda n=number: len(source.deliveries) == n)
            assert (source.last.final_client, source.last.requester) == (client, CENTRE)
            source.reply()
            await p.until(lambda n=number: len(caller.answers) == n)
            exchange = caller.answer_to(number).exchange
            assert p.entries_of(exchange)[0].final_client == client
            assert [row.exchange for row in audit(p, institution=client)] == [exchange]


@in_trio
async def test_inside_a_secondary_network_no_deliberation_is_needed(ground: Ground) -> None:
    """The basis stands in the entry; only a source of the same network is asked."""
    fields: dict[str, Any] = {
        "service": "HealthCareInsurance", "version": 1, "sector": 11, "type": 1, "capacity": 1,
    }  # fmt: skip
    async with parts(ground) as p:
        inside, outside = p.add_source(NIC), p.add_source(ELSEWHERE)
        fund, outsider, centre = [await p.connect(who) for who in (FUND, OUTSIDER, CENTRE)]
        fund.ask(ask(**fields))
        await p.until(lambda: inside.deliveries)
        assert (inside.last.requester, inside.last.grant) == (FUND, "fund-insurance")
        inside.reply()
        await p.until(lambda: fund.answers)
        assert fund.answers[0].code == W
        request = p.entries_of(fund.answers[0].exchange)[0]
        assert (request.basis, request.grant) == ("secondary-network", "fund-insurance")
        assert request.destinations == (NIC,)
        (row,) = audit(p, PERSON, institution=FUND)
        assert row.basis == "secondary-network"

        fund.ask(ask(id=2, source=ELSEWHERE, **fields))
        await p.until(lambda: len(fund.answers) == 2)
        assert fund.answer_to(2).code == Code.NO_SOURCE_KNOWS_THE_PERSON
        outsider.ask(ask(**fields))
        outsider.ask(ask(id=2, **fields | {"person": NOT_INTEGRATED}))
        await p.until(lambda: len(outsider.answers) == 2)
        assert {answer.code for answer in outsider.answers} == {Code.NO_GRANT}
        assert {answer.detail.get("newSSIN") for answer in outsider.answers} == {None}
        assert not outside.deliveries

        centre.ask(ask(service="HealthCareInsurance", version=1))  # rests on a deliberation
        await p.until(lambda: outside.deliveries)
        assert len(inside.deliveries) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"means": "eID", "level": 2}, W),
        ({"means": "itsme", "level": 4}, W),
        ({"means": "eID", "level": 1}, Code.AUTHENTICATION_TOO_WEAK),
        ({"means": "password", "level": 4}, Code.AUTHENTICATION_TOO_WEAK),
        ({"means": "", "level": 4}, Code.AUTHENTICATION_TOO_WEAK),
        ({"means": "eid", "level": 2}, Code.AUTHENTICATION_TOO_WEAK),
        ({"means": "eID\n", "level": 2}, Code.FIELD_MALFORMED),
        ({"means": "eID", "level": 5}, Code.FIELD_MALFORMED),
        ({"means": "x" * 33, "level": 2}, Code.FIELD_MALFORMED),
    ],
)
@in_trio
async def test_an_access_right_demands_means_and_level_and_both_are_recorded(
    ground: Ground, changes: dict[str, Any], code: Code
) -> None:
    """What is too weak reaches nobody; what was stated stands in the entry either way."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(user=USER_C, **changes))
        await p.until(lambda: source.deliveries or caller.answers)
        assert len(source.deliveries) == (code == W)
        if source.deliveries:
            source.reply()
        await p.until(lambda: caller.answers)
        assert caller.answers[0].code == code
        request = p.entries_of(caller.answers[0].exchange)[0]
        assert request.user == ground.tokens.user(USER_C)
        assert request.kind == Kind.REQUEST
        assert (request.means, request.level) == (changes["means"][:32], changes["level"])


@in_trio
async def test_path_b_demands_its_level_too(ground: Ground) -> None:
    """The department's right asks for level 2; its user is the same person as elsewhere."""
    fields: dict[str, Any] = {
        "service": "DmfaConsultationService", "version": 1, "sector": None, "type": None,
        "capacity": None, "legal_framework": "VO:WORK_PERMIT", "user": USER_A,
    }  # fmt: skip
    async with parts(ground) as p:
        source, caller = p.add_source(RSZ), await p.connect(DEPARTMENT)
        caller.ask(ask(id=1, level=1, **fields), ask(id=2, level=2, **fields))
        await p.until(lambda: source.deliveries)
        source.reply()
        await p.until(lambda: len(caller.answers) == 2)
        assert caller.answer_to(1).code == Code.AUTHENTICATION_TOO_WEAK
        assert caller.answer_to(2).code == W
        assert len(source.deliveries) == 1
