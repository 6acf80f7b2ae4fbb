"""Several requests in one envelope, through a whole worker: verdict, entries and answer each."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.config import Windows
from ksz_router.limits import envelope_requests_max, events_per_receive_max
from ksz_router.messages import Envelope, Item
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.wire import Throttle
from ksz_router.wire.envelopes import packed
from tests.daemon_ground import NEIGHBOUR, NOT_INTEGRATED, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller
from tests.worlds import CENTRE, PERSON, RVA, USER_A, ask

ASKED = Item(service="UnemploymentData", version=3, person=PERSON, payload=b"one")
TEST = Item(service="TestConnectionService", version=1)
NOT_AN_ITEM = msgspec.Raw(msgspec.msgpack.encode(["UnemploymentData", "3", PERSON]))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def changed(item: Item, **changes: Any) -> Item:
    return msgspec.structs.replace(item, **changes)


def send(caller: Caller, *items: Item | msgspec.Raw, **changes: Any) -> None:
    """Send an envelope of the centre whose items pass where the directory holds ``LINES``."""
    raws = tuple(packed(item) if isinstance(item, Item) else item for item in items)
    fields: dict[str, Any] = {
        "id": 10, "ticket": "shared", "user": USER_A, "sector": 17, "type": 1, "capacity": 2,
    }  # fmt: skip
    caller.link.send(Envelope(requests=raws, **(fields | changes)))
    caller.link.flush()


def recorded(p: Parts, caller: Caller, number: int) -> tuple[Entry, Entry]:
    """The two entries of one request of an envelope, and that the answer is the recorded one."""
    answer = caller.answer_to(number)
    request, outcome = p.entries_of(answer.exchange)
    assert (request.kind, outcome.kind) == (Kind.REQUEST, Kind.OUTCOME)
    assert outcome.code == answer.code
    return request, outcome


@in_trio
async def test_each_request_of_an_envelope_has_its_verdict_its_entries_and_its_answer(
    ground: Ground,
) -> None:
    """One is answered, one refused, one unknown, one no item at all; the ticket is shared."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        send(
            caller,
            ASKED,
            changed(ASKED, person=NOT_INTEGRATED),
            NOT_AN_ITEM,
            changed(ASKED, service="NoSuchService"),
            changed(ASKED, person="85073099735"),
            changed(ASKED, person=NEIGHBOUR, ticket="its own", payload=b"two"),
            TEST,
        )
        await p.until(lambda: len(source.deliveries) == 2)
        delivered = {delivery.person: delivery.payload for _, delivery in source.deliveries}
        assert delivered == {PERSON: b"one", NEIGHBOUR: b"two"}
        source.reply(1, payload=b"of the neighbour")
        source.reply(0, payload=b"of the person")
        await p.until(lambda: len(caller.answers) == 7)

        ok, bad = Code.ANSWERED_WITH_DATA, Code.FIELD_MALFORMED
        codes = [Code(caller.answer_to(number).code) for number in range(10, 17)]
        assert codes == [
            ok, Code.PERSON_NOT_INTEGRATED, bad, Code.SERVICE_UNKNOWN, Code.PERSON_MALFORMED,
            ok, ok,
        ]  # fmt: skip
        assert caller.answer_to(10).payload == b"of the person"
        assert caller.answer_to(15).payload == b"of the neighbour"
        assert caller.answer_to(12).detail == {"field": "service"}
        entries = [recorded(p, caller, number) for number in range(10, 17)]
        assert len({answer.exchange for answer in caller.answers}) == 7
        verdicts = [request.code for request, _ in entries]
        assert verdicts == [0 if code is ok else code for code in codes]
        tickets = [request.ticket for request, _ in entries]
        assert set(tickets[:5]) == {tickets[0]} == {tickets[6]}
        assert tickets[5] not in {tickets[0], None}
        services = [request.service for request, _ in entries]
        assert services[0] == "UnemploymentData"
        assert services[2] == ""
        shared = {(e.requester, e.user, e.sector, e.type, e.capacity) for e, _ in entries}
        assert shared == {(CENTRE, ground.tokens.user(USER_A), 17, 1, 2)}
        persons = [request.person for request, _ in entries]
        assert persons[0] == ground.tokens.person(PERSON)
        assert persons[2] is None
        assert p.admission.inflight == 0
        assert [session.inflight for session in p.loop.sessions] == [{}]


@in_trio
async def test_an_envelope_that_overruns_the_window_loses_only_the_excess(ground: Ground) -> None:
    """Each request counts singly: those that find a place go on, the others are turned away."""
    async with parts(ground, windows=Windows(connection=3)) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(id=1))
        send(caller, *[ASKED] * 6)
        await p.until(lambda: len(source.deliveries) == 3 and len(caller.answers) == 4)
        for answer in caller.answers:
            assert answer.code == Code.CONNECTION_WINDOW_FULL
            assert (answer.detail, answer.exchange) == ({"limit": "3"}, b"")
        assert sorted(answer.id for answer in caller.answers) == [12, 13, 14, 15]
        assert len([event for event in caller.events if isinstance(event, Throttle)]) == 1
        for index in range(3):
            source.reply(index)
        await p.until(lambda: len(caller.answers) == 7)
        for number in (1, 10, 11):
            assert recorded(p, caller, number)[1].code == Code.ANSWERED_WITH_DATA
        p.summarise()
        await p.until(lambda: p.durable[-1].kind is Kind.SUMMARY)
        assert p.durable[-1].counts == ((Code.CONNECTION_WINDOW_FULL, 4),)


@in_trio
async def test_an_id_in_flight_ends_the_connection_as_one_request_after_the_other_would(
    ground: Ground,
) -> None:
    """What came before it in the envelope counts and is recorded; nothing behind it does."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(id=12))
        await p.until(lambda: source.deliveries)
        send(caller, *[changed(ASKED, ticket=f"item {n}") for n in range(5)])
        caller.ask(ask(id=40))
        await p.until(lambda: caller.ended)
        assert caller.ended is not None
        assert caller.ended.code is Code.CORRELATION_REUSED
        await p.until(lambda: len(source.deliveries) == 3)
        for index in range(3):
            source.reply(index)
        await p.until(lambda: p.admission.inflight == 0 and p.recorder.is_empty)
        assert [entry.kind for entry in p.durable].count(Kind.REQUEST) == 3
        assert [entry.kind for entry in p.durable].count(Kind.OUTCOME) == 3
        assert caller.answers == []


@in_trio
async def test_sixty_four_requests_that_are_none_are_refused_one_by_one(ground: Ground) -> None:
    """Whatever stands in place of an item, the connection goes on and the log has all of it."""
    async with parts(ground) as p:
        caller = await p.connect()
        send(caller, *[msgspec.Raw(b"\xc0")] * 64, id=0xFFFF_FFFF - 63)
        await p.until(lambda: len(caller.answers) == 64)
        assert {answer.code for answer in caller.answers} == {Code.FIELD_MALFORMED}
        assert len(p.durable) == 128
        caller.ask(ask(id=1, service="TestConnectionService", version=1, person=None))
        await p.until(lambda: len(caller.answers) == 65)
        assert caller.answer_to(1).code == Code.ANSWERED_WITH_DATA


@in_trio
async def test_a_flood_of_envelopes_lets_others_have_their_turns(ground: Ground) -> None:
    """A few bytes that mean thousands of requests are taken in portions, and none is lost."""
    async with parts(ground) as p:
        flooding, good = await p.connect(), await p.connect()
        for number in range(40):
            flooding.link.send(Envelope(id=64 * number, requests=(msgspec.Raw(b"\xc0"),) * 64))
        flooding.link.flush()
        good.ask(ask(id=1, service="TestConnectionService", version=1, person=None))
        await p.until(lambda: good.answers)
        most = 2 * (events_per_receive_max + envelope_requests_max)
        assert len(flooding.answers) <= most < 40 * 64
        await p.until(lambda: len(flooding.answers) == 40 * 64)
        assert {answer.code for answer in flooding.answers} == {Code.FIELD_MALFORMED}
        assert len(p.durable) == 2 * (40 * 64 + 1)
