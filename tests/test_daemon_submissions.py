"""Submissions through a worker: once per ticket, and what a retry is told."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from ksz_router.codes import Code
from ksz_router.config import Sources
from ksz_router.messages import Answer, Outcome
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import NEIGHBOUR, Ground
from tests.daemon_parts import LEDGER_WINDOW_US, Parts, in_trio, parts
from tests.daemon_peers import Caller, SourceSide
from tests.worlds import CENTRE, MUTATIONS_PROGRAM, NIC, POD_MI, REGISTER, RVA, ask

SUBMISSION: dict[str, Any] = {"service": "A036", "version": 1, "payload": b"submission"}
MUTATION: dict[str, Any] = {
    "service": "MutationsSender", "version": 1, "user": None, "capacity": None, "sector": None,
    "type": None, "application": MUTATIONS_PROGRAM, "legal_framework": "RR:MUTATIONS",
}  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


class Talk:
    """A caller that submits, retries, and is answered; a number for each request."""

    def __init__(self, p: Parts, caller: Caller) -> None:
        self.p = p
        self.caller = caller
        self.number = 0

    def submit(self, **changes: Any) -> int:
        self.number += 1
        self.caller.ask(ask(id=self.number, **{**SUBMISSION, **changes}))
        return self.number

    async def answer(self, number: int) -> Answer:
        await self.p.until(lambda: any(answer.id == number for answer in self.caller.answers))
        return self.caller.answer_to(number)

    async def answered(self, **changes: Any) -> Answer:
        """Submit something that the router answers by itself."""
        return await self.answer(self.submit(**changes))

    async def delivered(self, source: SourceSide, **changes: Any) -> int:
        """Submit something that reaches a source."""
        count = len(source.deliveries) + 1
        number = self.submit(**changes)
        await self.p.until(lambda: len(source.deliveries) == count)
        return number


@in_trio
async def test_a_retry_gets_the_first_outcome_and_no_payload(ground: Ground) -> None:
    """On another connection of the institution too; each retry is recorded, none delivered."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        number = await talk.delivered(source)
        source.reply(payload=b"receipt")
        first = await talk.answer(number)

        other = Talk(p, await p.connect())
        for retry in (await talk.answered(), await other.answered(level=4, deadline_ms=9)):
            assert (retry.code, retry.stage) == (first.code, first.stage)
            assert (retry.exchange, retry.payload) == (first.exchange, b"")
            assert retry.detail["payloadDigest"] == hashlib.sha256(b"receipt").hexdigest()
            assert [status.kbo for status in retry.recipients] == [POD_MI]
            request, outcome = p.entries_of(bytes.fromhex(retry.detail["retry"]))
            assert (request.first, request.attempt, request.destinations) == (first.exchange, 0, ())
            assert (outcome.code, outcome.kind) == (first.code, Kind.OUTCOME)
        assert len(source.deliveries) == 1


@in_trio
async def test_a_ticket_stands_for_one_content(ground: Ground) -> None:
    """Another person, period or payload is another submission; another user is not."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        number = await talk.delivered(source)
        source.reply()
        await talk.answer(number)
        for change in ({"payload": b"submissioN"}, {"person": NEIGHBOUR}, {"begin": 20260101}):
            answer = await talk.answered(**change)
            assert answer.code == Code.TICKET_REUSED
            assert answer.detail == {}
        assert len(source.deliveries) == 1


@in_trio
async def test_while_the_first_is_under_way_a_retry_waits(ground: Ground) -> None:
    """Both in one frame, or on two connections: one is delivered, the other told when to come."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        talk.caller.ask(ask(id=1, **SUBMISSION), ask(id=2, **SUBMISSION))
        talk.number = 2
        answer = await talk.answer(2)
        assert answer.code == Code.SUBMISSION_OPEN
        assert answer.retry_at_ms is not None
        again = await Talk(p, await p.connect()).answered()
        assert again.code == Code.SUBMISSION_OPEN
        source.reply()
        assert (await talk.answer(1)).code == Code.ANSWERED_WITH_DATA
        assert len(source.deliveries) == 1


@in_trio
async def test_an_unknown_outcome_is_repeated_under_the_first_id(ground: Ground) -> None:
    """Silence, or a lost connection: the recipient may have it, and is told that it may."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        number = await talk.delivered(source)
        assert not source.last.repeat
        p.pass_time(10.01)
        first = await talk.answer(number)
        assert first.code == Code.SOURCE_SILENT

        number = await talk.delivered(source)
        source.lose(source.links[-1])
        lost = await talk.answer(number)
        number = await talk.delivered(source)
        source.reply(payload=b"as before")
        last = await talk.answer(number)

        assert [d.repeat for _, d in source.deliveries] == [False, True, True]
        assert {d.exchange for _, d in source.deliveries} == {first.exchange}
        assert (lost.code, last.code) == (Code.SOURCE_CONNECTION_LOST, Code.ANSWERED_WITH_DATA)
        assert first.exchange == lost.exchange == last.exchange
        assert last.payload == b"as before"
        request, outcome = p.entries_of(bytes.fromhex(last.detail["retry"]))
        assert (request.first, request.attempt) == (first.exchange, 3)
        assert outcome.code == Code.ANSWERED_WITH_DATA


@in_trio
async def test_what_never_left_the_router_is_a_first_delivery(ground: Ground) -> None:
    """Nobody listened: the retry is no repeat, and keeps the exchange id."""
    async with parts(ground, sources=Sources(breaker_failures=1000)) as p:
        talk = Talk(p, await p.connect())
        p.add_source(POD_MI, listens=False)
        first = await talk.answered()
        assert first.code == Code.SOURCE_UNREACHABLE
        p.upstream.sources.clear()
        source = p.add_source(POD_MI)
        number = await talk.delivered(source)
        source.reply()
        assert (await talk.answer(number)).code == Code.ANSWERED_WITH_DATA
        assert (source.last.repeat, source.last.exchange) == (False, first.exchange)


@in_trio
async def test_a_retry_that_the_control_refuses_learns_nothing(ground: Ground) -> None:
    """Only who may still submit is told what became of it; a failed one is settled too."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        number = await talk.delivered(source)
        source.reply(outcome=Outcome.FAILED, source_code="E1", payload=b"")
        assert (await talk.answer(number)).code == Code.SOURCE_FAILED
        refused = await talk.answered(user=None, application="00000000199")
        assert refused.code == Code.NO_ACCESS_RIGHT
        assert (refused.detail, refused.recipients) == ({}, ())
        assert (await talk.answered()).code == Code.SOURCE_FAILED
        assert len(source.deliveries) == 1


@in_trio
async def test_institutions_share_no_tickets_and_consultations_need_none(ground: Ground) -> None:
    """The same word in another's mouth is another ticket; a consultation is asked anew."""
    async with parts(ground) as p:
        source, asked = p.add_source(POD_MI), p.add_source(RVA)
        talk = Talk(p, await p.connect(CENTRE))
        number = await talk.delivered(source)
        source.reply()
        await talk.answer(number)
        consultation = {"service": "UnemploymentData", "version": 3, "payload": b""}
        for _ in range(2):
            number = await talk.delivered(asked, **consultation)
            asked.reply()
            assert (await talk.answer(number)).code == Code.ANSWERED_WITH_DATA
        assert p.ledger.rows == 1


@in_trio
async def test_a_ticket_is_forgotten_after_its_time(ground: Ground) -> None:
    """The window counts from the latest attempt; then it is new."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        for _ in range(2):
            number = await talk.delivered(source)
            source.reply()
            await talk.answer(number)
            p.now_ns += LEDGER_WINDOW_US * 1000 + 1_000_000_000
        assert len({delivery.exchange for _, delivery in source.deliveries}) == 2


@in_trio
async def test_a_retried_distribution_reaches_who_lacks_it(ground: Ground) -> None:
    """Who has it gets nothing; who was silent gets a repeat; the answer names them all."""
    async with parts(ground) as p:
        rva, nic = p.add_source(RVA), p.add_source(NIC)
        talk = Talk(p, await p.connect(REGISTER))
        number = await talk.delivered(rva, **MUTATION)
        rva.reply(outcome=Outcome.NO_DATA, payload=b"")
        await p.until(lambda: nic.deliveries)
        p.pass_time(10.01)
        assert (await talk.answer(number)).code == Code.ANSWERED_IN_PART

        number = await talk.delivered(nic, **MUTATION)
        nic.reply(outcome=Outcome.NO_DATA, payload=b"")
        whole = await talk.answer(number)
        assert whole.code == Code.ANSWERED_WITHOUT_DATA
        assert {status.kbo for status in whole.recipients} == {RVA, NIC}
        assert (await talk.answered(**MUTATION)).code == Code.ANSWERED_WITHOUT_DATA
        assert [d.repeat for _, d in nic.deliveries] == [False, True]
        assert len(rva.deliveries) == 1


@in_trio
async def test_a_full_ledger_is_a_typed_refusal(ground: Ground) -> None:
    """Nothing goes out that could not be told from its retry."""
    async with parts(ground) as p:
        source, talk = p.add_source(POD_MI), Talk(p, await p.connect())
        p.ledger.rows_max = 1
        number = await talk.delivered(source)
        source.reply()
        await talk.answer(number)
        full = await talk.answered(ticket="another")
        assert full.code == Code.LEDGER_FULL
        assert full.retry_at_ms is not None
        assert len(source.deliveries) == 1
