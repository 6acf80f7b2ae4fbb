"""Outages that sources announced in the rulebook: who is asked instead, and when to retry."""

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ksz_router.codes import Action, Code
from ksz_router.messages import Answer
from ksz_router.privacylog.entry import Kind
from ksz_router.rulebook.compile import build
from tests.daemon_ground import NOBODY, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.worlds import (
    CENTRE,
    HANDICAP,
    MUTATIONS_PROGRAM,
    NIC,
    NOW_MS,
    POD_MI,
    REGISTER,
    RVA,
    ask,
)

BRUSSELS_IN_WINTER = dt.timezone(dt.timedelta(hours=1))
SECOND_SOURCE = f"""
[[availability]]
service = "UnemploymentData"
version = 3
kbo = "{HANDICAP}"
role = "16/0"
capacities = [1]
order = 2
"""
SUBMISSION = {"service": "A036", "version": 1}
DISTRIBUTION: dict[str, Any] = {
    "service": "MutationsSender", "version": 1, "user": None, "capacity": None, "sector": None,
    "type": None, "application": MUTATIONS_PROGRAM, "legal_framework": "RR:MUTATIONS",
}  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    with (made.world.text / "availability" / "sources.toml").open("a", encoding="utf-8") as file:
        file.write(SECOND_SOURCE)
    yield made
    made.close()


def announce(ground: Ground, *rows: tuple[str, str, int, int]) -> None:
    """Put a rulebook in force with these outages: KBO number, service, begin and end.

    Begin and end are seconds from the moment at which each test begins.
    """
    text = "# announced\n"
    for kbo, service, *moments in rows:
        begin, end = (
            dt.datetime.fromtimestamp(NOW_MS // 1000 + moment, BRUSSELS_IN_WINTER).isoformat()
            for moment in moments
        )
        of_service = f'service = "{service}"\n' if service else ""
        text += f'[[outage]]\nkbo = "{kbo}"\n{of_service}begin = {begin}\nend = {end}\n'
    world = ground.world
    (world.text / "outages" / "announced.toml").write_text(text, encoding="utf-8")
    manifest, _ = build(world.text, world.store, now_ns=time.time_ns())
    ground.tables.adopt(ground.tables.open(manifest.name))


async def answered(p: Parts, kbo: str, **fields: Any) -> Answer:
    """Ask as an institution; return the answer, once every source that was asked replied."""
    caller = await p.connect(kbo)
    caller.ask(ask(**fields))

    def is_over() -> bool:
        for source in p.sources:
            if source.deliveries:
                source.reply()
                source.deliveries.clear()
        return bool(caller.answers)

    await p.until(is_over)
    return caller.answers[0]


@in_trio
async def test_a_consultation_passes_a_source_in_an_outage_by(ground: Ground) -> None:
    """The next source that has the data is asked; the log names only that one."""
    announce(ground, (RVA, "UnemploymentData", 0, 60))
    async with parts(ground) as p:
        p.add_source(RVA)
        p.add_source(HANDICAP)
        answer = await answered(p, CENTRE)
        assert answer.code == Code.ANSWERED_WITH_DATA
        assert [recipient.kbo for recipient in answer.recipients] == [HANDICAP]
        assert [e.destinations for e in p.entries_of(answer.exchange)] == [(HANDICAP,)] * 2


@in_trio
async def test_an_exchange_names_the_rulebook_that_decided_it(ground: Ground) -> None:
    """In its answer and in each entry, though another was put in force while it was open."""
    announce(ground)
    decided = ground.tables.generation
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        announce(ground, (POD_MI, "A036", 0, 60))
        assert ground.tables.generation != decided
        source.reply()
        await p.until(lambda: caller.answers)
        (answer,) = caller.answers
        assert answer.generation == decided
        assert [e.generation for e in p.entries_of(answer.exchange)] == [decided] * 2


@pytest.mark.parametrize("service", ["UnemploymentData", ""], ids=["one service", "all services"])
@in_trio
async def test_where_every_source_is_out_the_first_end_is_the_moment_to_retry(
    ground: Ground, service: str
) -> None:
    """Nothing is sent, the refusal is recorded, and from that moment on the request passes."""
    announce(ground, (RVA, service, -5, 90), (RVA, service, 30, 40), (HANDICAP, service, -5, 60))
    async with parts(ground) as p:
        p.add_source(RVA)
        second = p.add_source(HANDICAP)
        answer = await answered(p, CENTRE)
        assert (answer.code, answer.action) == (Code.ANNOUNCED_OUTAGE, Action.RETRY_AT)
        assert answer.retry_at_ms == NOW_MS // 1000 * 1000 + 60_000
        assert (answer.recipients, p.upstream.sources) == ((), {})
        entries = p.entries_of(answer.exchange)
        assert [(e.kind, e.code, e.destinations) for e in entries] == [
            (Kind.REQUEST, Code.ANNOUNCED_OUTAGE, ()),
            (Kind.OUTCOME, Code.ANNOUNCED_OUTAGE, ()),
        ]
        p.pass_time(59)
        assert (await answered(p, CENTRE)).code == Code.ANNOUNCED_OUTAGE
        p.pass_time(1)
        later = await answered(p, CENTRE)
        assert later.code == Code.ANSWERED_WITH_DATA
        assert [recipient.kbo for recipient in later.recipients] == [HANDICAP]
        assert len(second.links) == 1


@in_trio
async def test_a_submission_is_not_sent_into_an_outage(ground: Ground) -> None:
    """Its recipient is told nothing; the requester hears when to send it again."""
    announce(ground, (POD_MI, "A036", -5, 60))
    async with parts(ground) as p:
        p.add_source(POD_MI)
        answer = await answered(p, CENTRE, **SUBMISSION)
        assert (answer.code, answer.retry_at_ms) == (
            Code.ANNOUNCED_OUTAGE,
            NOW_MS // 1000 * 1000 + 60_000,
        )
        p.pass_time(60)
        again = await answered(p, CENTRE, **SUBMISSION)
        assert again.code == Code.ANSWERED_WITH_DATA


@in_trio
async def test_a_distribution_reaches_the_others_and_names_who_is_out(ground: Ground) -> None:
    """With a status of its own for who is out, and ANSWERED_IN_PART for the whole."""
    announce(ground, (NIC, "", -5, 60))
    async with parts(ground) as p:
        p.add_source(RVA)
        p.add_source(NIC)
        answer = await answered(p, REGISTER, **DISTRIBUTION)
        assert {recipient.kbo: recipient.code for recipient in answer.recipients} == {
            RVA: Code.ANSWERED_WITH_DATA,
            NIC: Code.ANNOUNCED_OUTAGE,
        }
        assert (answer.code, answer.action) == (Code.ANSWERED_IN_PART, Action.RETRY_AT)
        assert NIC not in p.upstream.sources

    announce(ground, (NIC, "", -5, 60), (RVA, "MutationsSender", -5, 30))
    async with parts(ground) as p:
        answer = await answered(p, REGISTER, **DISTRIBUTION)
        assert answer.code == Code.ANNOUNCED_OUTAGE
        assert answer.retry_at_ms == NOW_MS // 1000 * 1000 + 30_000


@in_trio
async def test_an_outage_tells_nothing_of_a_person_to_who_may_not_ask(ground: Ground) -> None:
    """It is the last rule: who has no grant, or asks about nobody, hears of that instead."""
    announce(ground, (RVA, "", -5, 60), (HANDICAP, "", -5, 60))
    async with parts(ground) as p:
        refused = await answered(p, CENTRE, capacity=6)
        assert refused.code == Code.CAPACITY_NOT_GRANTED
        unknown = await answered(p, CENTRE, person=NOBODY)
        assert unknown.code == Code.PERSON_NOT_INTEGRATED
