"""Distribution: everyone who fits and may receive gets it, each is told and recorded alone."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import astuple

from ksz_router.codes import Action, Code
from ksz_router.identifiers import Kbo
from ksz_router.limits import record_bytes_max
from ksz_router.messages import Outcome, Reply
from ksz_router.model import Line, Outage
from ksz_router.privacylog.entry import Entry, Kind, canonical
from tests.daemon_ground import Ground, insz
from tests.daemon_parts import Parts, in_trio, parts
from tests.kinds_ground import (
    CROWD,
    RECEIVED,
    UNSOURCED,
    audit,
    circulate,
    consult,
    kbo,
    make_ground,
    mutate,
    of_kind,
)
from tests.worlds import HANDICAP, NIC, NOW_MS, REGISTER, RVA, ask

W, N = Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA
CHILD, PARENT = insz(24), insz(25)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def ways(p: Parts, exchange: bytes) -> dict[str, int]:
    """How each recipient did, as the log has it: one entry each."""
    entries = of_kind(p.entries_of(exchange), Kind.RECIPIENT)
    found = {kbo: entry.code for entry in entries for kbo in entry.destinations}
    assert len(found) == len(entries)
    return found


@in_trio
async def test_every_recipient_that_fits_and_may_receive_gets_it_and_nobody_else(
    ground: Ground,
) -> None:
    """One answer with a status each, one entry per person and recipient, none for the sender."""
    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        others = [p.add_source(kbo) for kbo in (HANDICAP, REGISTER)]
        sender.ask(mutate(payload=b"moved"))
        await p.until(lambda: rva.deliveries and nic.deliveries)
        nic.reply(outcome=Outcome.NO_DATA, payload=b"", source_code="TAKEN")
        rva.reply(payload=b"a receipt")
        await p.until(lambda: sender.answers)

        (answer,) = sender.answers
        assert (answer.code, answer.payload, answer.action) == (W, b"", Action.NONE)
        assert {(s.kbo, s.code, s.source_code) for s in answer.recipients} == {
            (RVA, W, ""), (NIC, N, "TAKEN"),
        }  # fmt: skip
        for source in (rva, nic):
            assert len(source.deliveries) == 1
            got = source.last
            assert (got.requester, got.person, got.payload) == (REGISTER, RECEIVED, b"moved")
        assert not any(source.deliveries for source in others)
        request, *_, outcome = p.entries_of(answer.exchange)
        assert (request.destinations, request.basis) == ((RVA, NIC), "20/907")
        assert (outcome.kind, outcome.code) == (Kind.OUTCOME, W)
        assert ways(p, answer.exchange) == {RVA: W, NIC: N}
        (row,) = audit(p, RECEIVED, institution=NIC)
        assert (sorted(row.recipients), row.outcomes[0][0]) == ([(RVA, W), (NIC, N)], W)


@in_trio
async def test_who_does_not_know_the_person_or_may_not_receive_gets_nothing(
    ground: Ground,
) -> None:
    """Neither without a line that fits nor without a grant to receive, named or not."""
    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        centre = await p.connect()
        sender.ask(mutate(person=UNSOURCED), mutate(id=2, source=HANDICAP))
        centre.ask(consult("Closed"), consult("Closed", id=2, source=RVA))
        await p.until(lambda: len(nic.deliveries) == 2)
        nic.reply(0, payload=b"")
        nic.reply(1, payload=b"")
        await p.until(lambda: len(sender.answers) == len(centre.answers) == 2)
        for caller in (sender, centre):
            assert [status.kbo for status in caller.answer_to(1).recipients] == [NIC]
            assert ways(p, caller.answer_to(1).exchange) == {NIC: W}
        assert sender.answer_to(2).code == Code.NO_SOURCE_HAS_THE_DATA
        assert centre.answer_to(2).code == Code.NO_RECIPIENT_MAY_RECEIVE
        assert not rva.deliveries
        assert audit(p, UNSOURCED, institution=RVA) == []


@in_trio
async def test_the_sender_is_never_its_own_recipient(ground: Ground) -> None:
    """Who may send a service and receive it gets nothing of its own back."""
    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(RVA)
        sender.ask(ask(service="Mutual", version=1, sector=18, type=0, capacity=1))
        await p.until(lambda: nic.deliveries)
        nic.reply(payload=b"")
        await p.until(lambda: sender.answers)
        assert [status.kbo for status in sender.answers[0].recipients] == [NIC]
        assert p.entries_of(sender.answers[0].exchange)[0].destinations == (NIC,)
        assert not rva.deliveries


@in_trio
async def test_one_recipient_that_hangs_and_one_that_fails_hurt_no_other(ground: Ground) -> None:
    """Sixty-four of them: the others have it at once, and each is named with its own code."""
    hanging, broken, *well = CROWD[:64]
    async with parts(ground) as p:
        source, mute, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        p.endpoints |= dict.fromkeys(well, (source.endpoint,))  # many names at one place
        p.endpoints[hanging] = (mute.endpoint,)
        p.endpoints[broken] = (p.add_source(HANDICAP, listens=False).endpoint,)
        sender.ask(circulate(1))
        await p.until(lambda: len(source.deliveries) == 62 and mute.deliveries)
        for index in range(62):
            source.reply(index, payload=b"")
        await p.until(lambda: len(of_kind(p.durable, Kind.RECIPIENT)) == 63)
        assert sender.answers == []
        p.pass_time(10.01)
        await p.until(lambda: sender.answers)

        (answer,) = sender.answers
        codes = {status.kbo: status.code for status in answer.recipients}
        assert len(answer.recipients) == 64
        assert codes.pop(hanging) == Code.SOURCE_SILENT
        assert codes.pop(broken) == Code.SOURCE_UNREACHABLE
        assert codes == dict.fromkeys(well, W)
        assert (answer.code, answer.action) == (Code.ANSWERED_IN_PART, Action.RETRY_AT)
        assert (answer.retry_at_ms or 0) > p.wall_ns() // 1_000_000
        assert ways(p, answer.exchange) == {s.kbo: s.code for s in answer.recipients}
        (row,) = audit(p, RECEIVED, institution=well[-1])
        assert len(row.recipients) == len(row.destinations) == 64


@in_trio
async def test_more_recipients_than_fit_are_a_refusal_that_names_the_bound(ground: Ground) -> None:
    """Nobody gets it, so nobody is cut off in silence; one that is named by itself gets it."""
    async with parts(ground) as p:
        source, sender = p.add_source(RVA), await p.connect(REGISTER)
        p.endpoints |= dict.fromkeys(CROWD, (source.endpoint,))
        sender.ask(circulate(2))
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        assert (answer.code, answer.detail) == (
            Code.TOO_MANY_RECIPIENTS, {"field": "source", "limit": "64"},
        )  # fmt: skip
        request, outcome = p.entries_of(answer.exchange)
        assert (request.code, request.destinations) == (Code.TOO_MANY_RECIPIENTS, ())
        assert outcome.code == Code.TOO_MANY_RECIPIENTS
        assert not source.deliveries

        sender.ask(circulate(2, id=2, source=CROWD[64]))
        await p.until(lambda: source.deliveries)
        source.reply(payload=b"")
        await p.until(lambda: len(sender.answers) == 2)
        assert [status.kbo for status in sender.answer_to(2).recipients] == [CROWD[64]]


def test_an_entry_of_as_many_recipients_as_may_be_is_within_its_bound() -> None:
    """All of them in violation, and every text as long as it may be: an entry is never dropped."""
    line = Line(999, 999, 999, 999, 20260101, 20260101, 20260101)
    long, token, number = "é" * 64, bytes(range(16)), kbo(1)
    fields: dict[str, Any] = {
        **dict.fromkeys(("service", "legal_framework", "means", "grant", "basis"), long),
        **dict.fromkeys(("exchange", "user", "ticket", "person", "asked"), token),
        **dict.fromkeys(("requester", "acting", "final_client", "application"), number),
        **dict.fromkeys(("sector", "type", "capacity"), 999),
        **dict.fromkeys(("begin", "end"), 20260101),
        **dict.fromkeys(("service_version", "rights_version", "directory_version"), 1 << 31),
    }
    entry = Entry(
        kind=Kind.REQUEST, at_us=1 << 52, code=7004, stage=7, level=4, destinations=CROWD[:64],
        generation="f" * 32, line=line, request_bytes=1 << 20, digest=bytes(32),
        violations=("own:log:PERSON_NOT_INTEGRATED", *(f"recipient:log:{n}" for n in CROWD[:64])),
        **fields,
    )  # fmt: skip
    assert len(canonical(entry)) <= record_bytes_max


@in_trio
async def test_a_recipient_in_an_announced_outage_is_spared_told_and_recorded(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its status, and an entry of its own; where all are, the refusal says until when."""
    table = ground.tables._snapshot._tables["MutationsSender", 1]

    def announce(*numbers: Kbo) -> None:
        rows = [Outage(kbo=n, begin_ms=0, end_ms=NOW_MS + 60_000) for n in numbers]
        monkeypatch.setattr(table, "outages", tuple(rows))
        monkeypatch.setattr(ground.tables, "_remembered", {})

    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        announce(NIC)
        sender.ask(mutate())
        await p.until(lambda: rva.deliveries)
        rva.reply(payload=b"")
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        assert {s.kbo: s.code for s in answer.recipients} == {RVA: W, NIC: Code.ANNOUNCED_OUTAGE}
        assert (answer.code, answer.retry_at_ms) == (Code.ANSWERED_IN_PART, NOW_MS + 60_000)
        assert ways(p, answer.exchange) == {RVA: W, NIC: Code.ANNOUNCED_OUTAGE}
        assert p.entries_of(answer.exchange)[0].destinations == (RVA,)

        sender.ask(mutate(id=4))  # nothing is left to send, and still not everybody has it
        await p.until(lambda: len(sender.answers) == 2)
        again = sender.answer_to(4)
        assert {s.kbo: s.code for s in again.recipients} == {RVA: W, NIC: Code.ANNOUNCED_OUTAGE}
        assert (again.code, again.retry_at_ms) == (Code.ANSWERED_IN_PART, NOW_MS + 60_000)
        assert ways(p, bytes.fromhex(again.detail["retry"])) == {NIC: Code.ANNOUNCED_OUTAGE}

        announce(NIC, RVA)
        sender.ask(mutate(id=2))
        await p.until(lambda: len(sender.answers) == 3)
        refused = sender.answer_to(2)
        assert (refused.code, refused.retry_at_ms) == (Code.ANNOUNCED_OUTAGE, NOW_MS + 60_000)
        assert not nic.deliveries

        announce(RVA)  # it has it: what became of it there still holds
        sender.ask(mutate(id=3))
        await p.until(lambda: nic.deliveries)
        nic.reply(payload=b"")
        await p.until(lambda: len(sender.answers) == 4)
        retried = sender.answer_to(3)
        assert sorted((s.kbo, s.code) for s in retried.recipients) == [(RVA, W), (NIC, W)]
        assert (retried.code, retried.exchange) == (W, answer.exchange)
        assert ways(p, bytes.fromhex(retried.detail["retry"])) == {NIC: W}
        assert len(rva.deliveries) == 1


@in_trio
async def test_a_late_receipt_is_one_entry_and_repeats_no_other(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was spared stands in the log once, whoever answers after the deadline."""
    table = ground.tables._snapshot._tables["MutationsSender", 1]
    spared = Outage(kbo=Kbo(NIC), begin_ms=0, end_ms=NOW_MS + 60_000)
    monkeypatch.setattr(table, "outages", (spared,))
    monkeypatch.setattr(ground.tables, "_remembered", {})
    async with parts(ground) as p:
        rva, sender = p.add_source(RVA), await p.connect(REGISTER)
        sender.ask(mutate())
        await p.until(lambda: rva.deliveries)
        p.pass_time(10.01)
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        before = len(p.entries_of(answer.exchange))
        p.pass_time(2)
        rva.reply(payload=b"")
        await p.until(lambda: len(p.entries_of(answer.exchange)) > before)
        (late,) = p.entries_of(answer.exchange)[before:]
        assert (late.kind, late.code) == (Kind.OUTCOME, Code.ANSWER_DISCARDED)
        assert (late.destinations, late.generation) == ((RVA,), answer.generation)
        assert late.source_us >= 12_000_000 > late.router_us


@in_trio
async def test_a_receipt_is_not_held_until_the_last_recipient(ground: Ground) -> None:
    """Nobody gets it, and nothing would bound the memory that many of them take."""
    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        sender.ask(mutate())
        await p.until(lambda: rva.deliveries and nic.deliveries)
        (session,) = p.loop.sessions
        receipt = bytes(500_000)
        rva.reply(payload=receipt)
        exchange = session.inflight[1]
        assert exchange is not None
        await p.until(lambda: exchange.open_errands == 1)
        kept = [field for part in (exchange, *exchange.errands) for field in astuple(part)]
        assert Reply not in map(type, kept)
        assert receipt not in kept


@in_trio
async def test_further_persons_are_recorded_per_person_and_recipient(ground: Ground) -> None:
    """What a recipient declares is found under that person, and is not passed to the sender."""
    async with parts(ground) as p:
        rva, nic, sender = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        sender.ask(mutate())
        await p.until(lambda: rva.deliveries and nic.deliveries)
        rva.reply(payload=b"", persons=(CHILD, PARENT))
        nic.reply(payload=b"", persons=(CHILD,))
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        assert answer.persons == ()
        further = of_kind(p.entries_of(answer.exchange), Kind.FURTHER)
        token = ground.tokens.person
        assert sorted((entry.destinations[0], entry.person or b"") for entry in further) == sorted(
            [(RVA, token(CHILD)), (RVA, token(PARENT)), (NIC, token(CHILD))]
        )
        assert [row.exchange for row in audit(p, PARENT)] == [answer.exchange]


@in_trio
async def test_a_receipt_is_not_measured_against_the_sender_s_frames(ground: Ground) -> None:
    """It is not passed on, so its size is no reason to call a delivery failed."""
    async with parts(ground) as p:
        rva, sender = p.add_source(RVA), await p.connect(REGISTER)
        (session,) = p.loop.sessions
        session.link.connection.peer_frame_bytes_max = 4096
        sender.ask(mutate(source=RVA))
        await p.until(lambda: rva.deliveries)
        rva.reply(payload=bytes(100_000))
        await p.until(lambda: sender.answers)
        assert sender.answers[0].code == W
