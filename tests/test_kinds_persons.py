"""Persons: several in one answer; numbers that were replaced or cancelled; persons who died."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.limits import further_persons_max
from ksz_router.messages import Answer, Request
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, NOT_INTEGRATED, Ground, insz
from tests.daemon_parts import in_trio, parts
from tests.kinds_ground import (
    CANCELLED,
    DECEASED,
    FIRST,
    LAST,
    LEFT,
    MIDDLE,
    STRANGE_CANCELLED,
    STRANGE_DEAD,
    STRANGE_NEW,
    STRANGE_OLD,
    audit,
    make_ground,
    of_kind,
)
from tests.worlds import DEPARTMENT, PERSON, RVA, ask

W = Code.ANSWERED_WITH_DATA
CHILDREN = tuple(insz(day) for day in range(24, 27))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_each_further_person_of_an_answer_has_one_entry_and_is_found(ground: Ground) -> None:
    """Declared twice is recorded once; each is told to the requester, and found by its number."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply(persons=(*CHILDREN, CHILDREN[0]))
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert (answer.code, set(answer.persons)) == (W, set(CHILDREN))
        further = of_kind(p.entries_of(answer.exchange), Kind.FURTHER)
        assert [entry.person for entry in further] == list(map(ground.tokens.person, CHILDREN))
        for person in CHILDREN:
            (row,) = audit(p, person)
            assert (row.exchange, row.further_persons) == (answer.exchange, len(CHILDREN))
        assert len(audit(p, PERSON)) == 1
        assert audit(p, NEIGHBOUR) == []


@pytest.mark.parametrize("count", [further_persons_max, further_persons_max + 1])
@in_trio
async def test_an_answer_may_concern_so_many_further_persons_and_no_more(
    ground: Ground, count: int
) -> None:
    """One too many is a typed failure: the payload is withheld, and nothing is half recorded."""
    persons = tuple(f"{body:09}{97 - body % 97:02}" for body in range(850601997 - count, 850601997))
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply(persons=persons)
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        further = of_kind(p.entries_of(answer.exchange), Kind.FURTHER)
        if count == further_persons_max:
            assert (answer.code, answer.persons, len(further)) == (W, persons, count)
        else:
            assert (answer.code, answer.payload) == (Code.SOURCE_ANSWER_INVALID, b"")
            assert (answer.persons, further) == ((), [])


@pytest.mark.parametrize("asked", [FIRST, MIDDLE, LAST])
@in_trio
async def test_a_chain_of_replacements_counts_as_one_person_under_every_number(
    ground: Ground, asked: str
) -> None:
    """The centre knows the oldest number and the source the middle one: both rules hold, the
    source gets the number in use, and the entry has that and the asked one."""
    token = ground.tokens.person
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(service="Follow", version=1, person=asked))
        await p.until(lambda: source.deliveries)
        assert source.last.person == LAST
        source.reply()
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert answer.code == W
        request = p.entries_of(answer.exchange)[0]
        assert request.person == token(LAST)
        assert request.asked == (None if asked == LAST else token(asked))
        assert request.line is not None
        assert (request.line.sector, request.line.capacity) == (17, 2)
        for number in {asked, LAST}:
            (row,) = audit(p, number)
            assert row.replaced == (asked != LAST)
        assert len(audit(p, FIRST, MIDDLE, LAST)) == 1


@pytest.mark.parametrize("asked", [FIRST, MIDDLE])
@in_trio
async def test_a_service_that_does_not_follow_names_the_number_in_use_and_records_both(
    ground: Ground, asked: str
) -> None:
    """Who knows the person is told the newest number, and the log has what was told."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(person=asked))
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert answer.code == Code.PERSON_REPLACED
        assert answer.detail == {"field": "person", "newSSIN": LAST}
        request = p.entries_of(answer.exchange)[0]
        assert request.asked == ground.tokens.person(asked)
        assert request.person == ground.tokens.person(LAST)
        assert [row.exchange for row in audit(p, LAST)] == [answer.exchange]
        assert not source.deliveries


@pytest.mark.parametrize(
    ("service", "asked", "code", "detail"),
    [
        ("UnemploymentData", CANCELLED, Code.PERSON_CANCELLED, {}),
        ("Follow", CANCELLED, Code.PERSON_CANCELLED, {}),
        ("Follow", LEFT, Code.PERSON_CANCELLED, {}),
        ("Own-block", LEFT, Code.PERSON_REPLACED, {"newSSIN": CANCELLED}),
        ("Handi", DECEASED, Code.PERSON_DECEASED, {"deceaseDate": "20260201"}),
        ("UnemploymentData", DECEASED, W, {}),
        ("DmfaConsultationService", NOBODY, Code.PERSON_UNKNOWN, {}),
    ],
)
@in_trio
async def test_the_state_of_a_number_is_told_to_who_knows_the_person(
    ground: Ground, service: str, asked: str, code: Code, detail: dict[str, str]
) -> None:
    """Cancelled is refused also behind a replacement; deceased only where the service says so."""
    async with parts(ground) as p:
        source = p.add_source(RVA)
        request = ask(service=service, version=3 if service == "UnemploymentData" else 1)
        request = msgspec.structs.replace(request, person=asked)
        caller = await p.connect()
        if service == "DmfaConsultationService":
            caller = await p.connect(DEPARTMENT)
            request = msgspec.structs.replace(
                request, sector=None, type=None, capacity=None, level=2,
                legal_framework="VO:WORK_PERMIT",
            )  # fmt: skip
        caller.ask(request)
        await p.until(lambda: source.deliveries or caller.answers)
        if source.deliveries:
            source.reply()
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert answer.code == code
        assert {k: v for k, v in answer.detail.items() if k != "field"} == detail
        assert [row.code for row in audit(p, asked)] == [0 if code == W else code]


@pytest.mark.parametrize("service", ["UnemploymentData", "Handi", "Follow"])
@in_trio
async def test_who_does_not_know_the_person_learns_nothing_about_the_number(
    ground: Ground, service: str
) -> None:
    """In use, replaced, cancelled, dead or nobody's: byte by byte the same refusal."""
    asked = (NOT_INTEGRATED, STRANGE_OLD, STRANGE_NEW, STRANGE_CANCELLED, STRANGE_DEAD, NOBODY)
    version = 3 if service == "UnemploymentData" else 1
    async with parts(ground) as p:
        caller = await p.connect()
        for person in asked:
            caller.ask(ask(id=1, service=service, version=version, person=person))
            await p.until(lambda: p.recorder.is_empty and not p.loop.sessions[0].inflight)
        await p.until(lambda: len(caller.answers) == len(asked))
        told = {_without_exchange(answer) for answer in caller.answers}
        assert len(told) == 1
        assert {answer.code for answer in caller.answers} == {Code.PERSON_NOT_INTEGRATED}
        for person in asked:
            assert [row.code for row in audit(p, person)] == [Code.PERSON_NOT_INTEGRATED]


@pytest.mark.parametrize(
    "changes",
    [
        {"user": insz(27)},
        {"capacity": 6},
        {"sector": 17, "type": 0},
        {"service": "Nothing"},
        {"begin": 20260101, "end": 20250101},
        {"means": "x" * 33},
    ],
    ids="+".join,
)
@in_trio
async def test_what_concerns_the_requester_is_judged_before_the_number(
    ground: Ground, changes: dict[str, Any]
) -> None:
    """Who is not entitled gets one and the same refusal about every number there is."""
    asked = (PERSON, FORMER, CANCELLED, DECEASED, NOBODY, STRANGE_OLD)
    requests: list[Request] = [
        ask(id=number, person=person, **changes) for number, person in enumerate(asked)
    ]
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(*requests)
        await p.until(lambda: len(caller.answers) == len(asked))
        assert len({_without_exchange(answer) for answer in caller.answers}) == 1
        assert not source.deliveries
        for person in asked:
            assert len(audit(p, person)) == 1


def _without_exchange(answer: Answer) -> bytes:
    same = msgspec.structs.replace(answer, id=0, exchange=b"", router_us=0)
    return msgspec.msgpack.encode(same)
