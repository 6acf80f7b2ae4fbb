"""A sectoral directory that is kept elsewhere, over real TLS: its keeper is asked before anything
is sent to the source, and what it says is a fact of the one control."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.config import Sources, Windows
from ksz_router.days import brussels_day
from ksz_router.messages import Outcome
from ksz_router.model import Role
from ksz_router.rulebook.snapshot import Snapshot
from tests.daemon_ground import FORMER, NEIGHBOUR, NOT_INTEGRATED, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller, SourceSide
from tests.integrations_ground import names_of
from tests.sectoral_ground import FRAMEWORK, by_centre, by_fund, make_ground, sought
from tests.worlds import BANK, CENTRE, FUND, NIC, NOW_MS, PERSON, ask, make_world

W = Code.ANSWERED_WITH_DATA
ASKED = "sectoral.known"
SAID = {True: Outcome.DATA, False: Outcome.NO_DATA}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


async def _delivered(p: Parts, source: SourceSide, service: str, count: int = 1) -> None:
    """Take turns until so many deliveries have come, and see that they are of this service."""
    await p.until(lambda: len(source.deliveries) == count)
    assert {delivery.service for _, delivery in source.deliveries} == {service}


def _say(source: SourceSide, *, known: bool, **changes: Any) -> None:
    """Answer what is asked, and forget it."""
    for index in range(len(source.deliveries)):
        source.reply(index, **({"outcome": SAID[known], "payload": b""} | changes))
    source.deliveries.clear()


@in_trio
async def test_the_keeper_is_asked_before_the_source_hears_of_it(ground: Ground) -> None:
    """First about the requester, then about the source; each recorded before it is asked."""
    async with parts(ground) as p:
        nic, fund = p.add_source(NIC), await p.connect(FUND)
        fund.ask(by_fund(begin=20260101, end=20261231))
        await _delivered(p, nic, ASKED)
        first = nic.last
        assert (first.requester, first.final_client, first.legal_framework) == (
            BANK, FUND, FRAMEWORK,
        )  # fmt: skip
        assert (first.person, first.begin, first.end) == (PERSON, 20260101, 20261231)
        about = sought(first)
        assert (about.institution, about.roles, about.capacities) == (FUND, (Role(11, 1),), (1,))
        assert (about.whole, about.phase, about.provisional) == (True, 0, False)
        assert names_of(p) == [("REQUEST", ASKED, 0)]
        recorded = p.durable[0]
        assert (recorded.exchange, recorded.destinations, recorded.final_client) == (
            first.exchange, (NIC,), FUND,
        )  # fmt: skip
        assert recorded.person == ground.tokens.person(PERSON)
        _say(nic, known=True)
        await _delivered(p, nic, ASKED)
        about = sought(nic.last)
        assert (about.institution, about.roles, about.whole) == (NIC, (Role(11, 0),), False)
        _say(nic, known=True)
        await _delivered(p, nic, "HealthCareInsurance")
        assert nic.last.exchange[:6] == first.exchange[:6]
        (message,) = [entry for entry in p.durable if entry.service == "HealthCareInsurance"]
        assert message.exchange == nic.last.exchange
        ticket = ground.tokens.ticket(BANK, nic.last.exchange.hex())
        assert [entry.ticket for entry in p.durable if entry.ticket] == [
            ticket, ticket, message.ticket,
        ]  # fmt: skip
        assert not fund.answers
        nic.reply(payload=b"insured")
        await p.until(lambda: fund.answers)
        (answer,) = fund.answers
        assert (answer.code, answer.payload) == (W, b"insured")
        assert names_of(p) == [
            ("REQUEST", ASKED, 0), ("OUTCOME", ASKED, W),
            ("REQUEST", ASKED, 0), ("OUTCOME", ASKED, W),
            ("REQUEST", "HealthCareInsurance", 0), ("OUTCOME", "HealthCareInsurance", W),
        ]  # fmt: skip
        assert p.admission.inflight == p.admission.held_bytes == 0
        assert p.metrics.sectoral.results == {"known": 2, "unknown": 0, "unavailable": 0}


async def _refused(p: Parts, caller: Caller, code: Code, number: int = 1) -> None:
    await p.until(lambda: any(answer.id == number for answer in caller.answers))
    assert caller.answer_to(number).code == code
    recorded = [entry for entry in p.durable if entry.service == "HealthCareInsurance"]
    assert recorded[-1].code == code
    assert all(entry.destinations == () for entry in recorded if entry.code == code)


@in_trio
async def test_unknown_there_is_refused_under_a_code_of_its_own(ground: Ground) -> None:
    """Of the requester and of the source; the source is never sent the message."""
    async with parts(ground) as p:
        nic, fund, centre = p.add_source(NIC), await p.connect(FUND), await p.connect(CENTRE)
        fund.ask(by_fund())
        await _delivered(p, nic, ASKED)
        _say(nic, known=False)
        await _refused(p, fund, Code.SECTORAL_NOT_INTEGRATED)
        centre.ask(by_centre())
        await _delivered(p, nic, ASKED)
        _say(nic, known=False)
        await _refused(p, centre, Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY)
        assert not nic.deliveries
        assert centre.answer_to(1).official == "MSG00021"
        assert p.admission.inflight == p.admission.held_bytes == 0


@in_trio
async def test_what_the_primary_directory_refuses_is_not_asked_elsewhere(ground: Ground) -> None:
    """Nor what concerns no such network."""
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        rva = p.add_source("0999010126")
        centre.ask(
            by_centre(person=NOT_INTEGRATED),
            by_centre(id=2, capacity=6),
            ask(id=3),
        )
        await p.until(lambda: rva.deliveries and len(centre.answers) == 2)
        assert [centre.answer_to(n).code for n in (1, 2)] == [
            Code.PERSON_NOT_INTEGRATED, Code.CAPACITY_NOT_GRANTED,
        ]  # fmt: skip
        assert not nic.deliveries
        assert not [entry for entry in p.durable if entry.service == ASKED]
        assert p.metrics.sectoral.asked_count == 0


@in_trio
async def test_a_keeper_that_is_down_is_not_a_person_who_is_unknown(ground: Ground) -> None:
    """MSG00002; and once it is back the same request passes."""
    async with parts(ground) as p:
        p.add_source(NIC, listens=False)
        centre = await p.connect(CENTRE)
        centre.ask(by_centre())
        await _refused(p, centre, Code.SECTORAL_DIRECTORY_DOWN)
        assert centre.answer_to(1).official == "MSG00002"
        assert names_of(p)[:2] == [
            ("REQUEST", ASKED, 0), ("OUTCOME", ASKED, Code.SOURCE_UNREACHABLE),
        ]  # fmt: skip
        nic = p.add_source(NIC)
        p.upstream.refresh()
        centre.ask(by_centre(id=2))
        await _delivered(p, nic, ASKED)
        _say(nic, known=True)
        await _delivered(p, nic, "HealthCareInsurance")
        nic.reply()
        await p.until(lambda: len(centre.answers) == 2)
        assert centre.answer_to(2).code == W
        assert p.metrics.sectoral.results == {"known": 1, "unknown": 0, "unavailable": 1}


@in_trio
async def test_a_keeper_that_is_slow_is_waited_for_half_of_the_time(ground: Ground) -> None:
    """Its late answer is dropped and recorded; nothing of it reaches the request."""
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(by_centre(deadline_ms=2_000))
        await _delivered(p, nic, ASKED)
        assert 0 < nic.last.deadline_ms <= 1_000
        p.pass_time(0.98)
        assert not centre.answers
        p.pass_time(0.03)
        await _refused(p, centre, Code.SECTORAL_DIRECTORY_DOWN)
        assert centre.answers[0].router_us < 100_000  # silence is the keeper's time
        _say(nic, known=True)
        await p.until(lambda: p.metrics.rejected[Code.ANSWER_DISCARDED])
        assert [entry.code for entry in p.durable if entry.service == ASKED] == [
            0, Code.SOURCE_SILENT, Code.ANSWER_DISCARDED,
        ]  # fmt: skip
        assert not nic.deliveries
        assert len(centre.answers) == 1
        assert p.admission.inflight == p.admission.held_bytes == 0
        # The service's own deadline bounds it too: it is 4 s, and half of ten are five.
        centre.ask(by_centre(id=2))
        await _delivered(p, nic, ASKED)
        assert 3_900 < nic.last.deadline_ms <= 4_000


@pytest.mark.parametrize(
    "says",
    [
        {"outcome": Outcome.FAILED},
        {"outcome": Outcome.IN_PART},
        {"outcome": Outcome.DATA, "person": NEIGHBOUR},
    ],
)
def test_what_is_neither_yes_nor_no_is_unavailable(ground: Ground, says: dict[str, Any]) -> None:
    """A fault there, an answer about somebody else."""

    @in_trio
    async def run() -> None:
        async with parts(ground) as p:
            nic, centre = p.add_source(NIC), await p.connect(CENTRE)
            centre.ask(by_centre())
            await _delivered(p, nic, ASKED)
            _say(nic, known=True, **says)
            await _refused(p, centre, Code.SECTORAL_DIRECTORY_DOWN)
            assert not nic.deliveries

    run()


@in_trio
async def test_a_batch_waits_and_goes_on_together(ground: Ground) -> None:
    """One read of many requests is one group of questions, and their answers one of deliveries."""
    count = 40
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(*(by_centre(id=n, ticket=f"t{n}") for n in range(1, count + 1)))
        await _delivered(p, nic, ASKED, count)
        asked = {delivery.exchange for _, delivery in nic.deliveries}
        assert len(asked) == count
        _say(nic, known=True)
        await _delivered(p, nic, "HealthCareInsurance", count)
        for index in range(count):
            nic.reply(index)
        await p.until(lambda: len(centre.answers) == count)
        assert {answer.code for answer in centre.answers} == {W}
        assert len({answer.exchange for answer in centre.answers}) == count
        groups = [records for records in p.metrics.commit_records.counts if records]
        assert sum(groups) <= 3 * 8  # a read takes 32 events: a few groups each way, not 40
        assert p.admission.inflight == p.admission.held_bytes == 0


@in_trio
async def test_a_full_window_is_told_at_once_and_bounds_what_waits(ground: Ground) -> None:
    """Who finds no room there is not told unknown; nobody's questions take the room of others."""
    async with parts(ground, windows=Windows(source=8)) as p:
        nic, centre, fund = p.add_source(NIC), await p.connect(CENTRE), await p.connect(FUND)
        centre.ask(*(by_centre(id=n, ticket=f"t{n}") for n in range(1, 11)))
        await _delivered(p, nic, ASKED, 4)
        await p.until(lambda: len(centre.answers) == 6)
        assert {answer.code for answer in centre.answers} == {Code.SECTORAL_DIRECTORY_DOWN}
        fund.ask(by_fund())
        await _delivered(p, nic, ASKED, 5)
        assert {delivery.requester for _, delivery in nic.deliveries} == {BANK}
        nic.deliveries.pop()
        _say(nic, known=True)
        await _delivered(p, nic, "HealthCareInsurance", 4)


@in_trio
async def test_a_requester_that_leaves_keeps_nothing_waiting(ground: Ground) -> None:
    """And a keeper that is lost in the midst lets the request go on, to its refusal."""
    async with parts(ground, sources=Sources(connections_per_endpoint=1)) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(by_centre())
        await _delivered(p, nic, ASKED)
        centre.close()
        centre.link.connection.receive_end()
        nic.lose(nic.deliveries[0][0])
        await p.until(lambda: p.admission.inflight == 0)
        codes = [entry.code for entry in p.durable if entry.service == "HealthCareInsurance"]
        assert codes == [Code.SECTORAL_DIRECTORY_DOWN]
        assert p.admission.held_bytes == 0


@in_trio
async def test_a_replaced_number_is_asked_about_under_the_one_in_use(ground: Ground) -> None:
    """The period is the day where none is named."""
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(by_centre(person=FORMER))
        await _delivered(p, nic, ASKED)
        day = brussels_day(NOW_MS * 1_000_000)
        assert (nic.last.person, nic.last.begin, nic.last.end) == (NEIGHBOUR, day, day)
        _say(nic, known=True)
        await _delivered(p, nic, "HealthCareInsurance")
        assert nic.last.person == NEIGHBOUR


@in_trio
async def test_a_router_that_ends_leaves_nothing_that_waits_unsaid(ground: Ground) -> None:
    """What waited for an answer has its verdict and its outcome in the log."""
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(by_centre())
        await _delivered(p, nic, ASKED)
        p.loop.close()
        p.loop.finish()
        assert [entry.code for entry in p.durable] == [
            0, Code.SOURCE_CONNECTION_LOST,
            Code.SECTORAL_DIRECTORY_DOWN, Code.SECTORAL_DIRECTORY_DOWN,
        ]  # fmt: skip
        assert p.admission.inflight == p.admission.held_bytes == 0


@in_trio
async def test_another_rulebook_in_the_midst_decides_on_what_waited(
    ground: Ground, tmp_path: Path
) -> None:
    """The network is hosted nowhere any more: what waits goes on without an answer."""
    other, own = make_world(tmp_path), ground.world
    async with parts(ground) as p:
        nic, centre = p.add_source(NIC), await p.connect(CENTRE)
        centre.ask(by_centre(deadline_ms=2_000))
        await _delivered(p, nic, ASKED)
        ground.tables.adopt(Snapshot.open(other.store, other.name))
        try:
            p.pass_time(1.02)
            await p.until(lambda: len(nic.deliveries) == 2)
            assert nic.last.service == "HealthCareInsurance"
            assert p.durable[-1].generation == other.name != p.durable[0].generation
        finally:
            ground.tables.adopt(Snapshot.open(own.store, own.name))
