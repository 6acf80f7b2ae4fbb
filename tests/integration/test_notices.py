"""What became of a number is told to who knows the person, once, whatever is killed in between."""

import contextlib
import functools
import json
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from contrib.stand import CROSSROADS_BANK, ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.directory.change import Applied, Change, Operation
from ksz_router.directory.synthesise import landmarks
from ksz_router.directory.writer import Writer
from ksz_router.messages import Delivery
from ksz_router.privacylog.entry import Kind
from ksz_router.sdk import Provider
from ksz_router.sdk import directory as d
from tests.integration.stands import (
    CENTRE,
    RVA,
    Source,
    Town,
    asking,
    on_trio,
    settled,
    town,
    until,
)
from tests.integration.test_directory import directory_pid, envelope, of_the_register, told

pytestmark = pytest.mark.xdist_group("integration-notices")

NIC, REGISTER = "0999010819", "0999012995"
RVA_PORT, NIC_PORT = free_ports(2)
PERSONS = landmarks(1)
TOLD = 'notices_total{outcome="told"}'
FIRST, SECOND, LAST = (PERSONS[f"chain_{name}"] for name in ("first", "second", "last"))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("notices") / "stand"
    with town(
        folder, endpoints={RVA: RVA_PORT, NIC: NIC_PORT}, workers=2, serves_directory=True,
        institutions=[RVA, NIC, CENTRE, REGISTER],
        options={"sources": {"breaker_open_seconds": 0.1}},
    ) as made:  # fmt: skip
        made.start()
        yield made


@contextlib.asynccontextmanager
async def receiving(stand: Town, *handlers: tuple[str, int, Source]) -> AsyncIterator[None]:
    """Institutions that are told what became of numbers."""
    async with trio.open_nursery() as nursery:
        for kbo, port, handler in handlers:
            provider = Provider(
                stand.identity(kbo), router_uris={ROUTER_URI}, services={(d.NUMBER, 1): handler}
            )
            serve = functools.partial(provider.serve, host="127.0.0.1", port=port)
            await nursery.start(serve)
        yield
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def both(stand: Town, *, is_open: bool = True) -> AsyncIterator[tuple[Source, Source]]:
    rva, nic = Source(is_open=is_open), Source(is_open=is_open)
    async with receiving(stand, (RVA, RVA_PORT, rva), (NIC, NIC_PORT, nic)):
        yield rva, nic


async def say(stand: Town, person: str, event: d.Event, **fields: Any) -> int:
    """Have the register say something; return the version that it made."""
    async with asking(stand, REGISTER) as register:
        asked = d.register(of_the_register(), person, event, **fields)
        answer = told(await settled(register, asked))
    assert answer.reason == ""
    return answer.version


def counted(stand: Town, name: str) -> float:
    """A number that the directory program tells Prometheus; -1 while it starts."""
    try:
        scraped = stand.scrape(2 + 2)
    except OSError:
        return -1
    name = re.escape(f"ksz_router_directory_{name}")
    return sum(map(float, re.findall(rf"^{name} (\S+)$", scraped, re.MULTILINE)))


async def all_told(stand: Town, notices: float) -> None:
    """Wait until so many notices were told since the program started, and none waits."""
    await until(lambda: counted(stand, TOLD) == notices)
    await until(lambda: counted(stand, "notices_waiting") == 0)


def news(source: Source) -> list[tuple[str, str, str, str, int]]:
    """What a recipient was told: the delivery's person, and what stands in the payload."""
    found: list[tuple[str, str, str, str, int]] = []
    for delivery in source.asked:
        notice = d.notice_of(delivery)
        found.append(
            (delivery.person or "", notice.event, notice.number, notice.current, notice.deceased)
        )
    return found


@on_trio
async def test_who_knows_the_person_is_told_what_became_of_each_number(stand: Town) -> None:
    """Over a chain of replacements, a death, a cancellation, and a number that is alone again."""
    new, other = PERSONS["bis"], PERSONS["any_type"]
    async with both(stand) as (rva, nic):
        versions = [
            await say(stand, LAST, d.Event.REPLACE, by=new),
            await say(stand, FIRST, d.Event.DECEASE, day=20261101),
            await say(stand, LAST, d.Event.REACTIVATE),
            await say(stand, other, d.Event.CANCEL),
            await say(stand, other, d.Event.REACTIVATE),
        ]
        await all_told(stand, 6)
    expected = {
        (new, d.Event.REPLACE, LAST, new, 0),
        (new, d.Event.DECEASE, FIRST, new, 20261101),
        (new, d.Event.REACTIVATE, LAST, LAST, 0),
        (other, d.Event.CANCEL, other, "", 0),
        (other, d.Event.REACTIVATE, other, other, 0),
    }
    assert set(news(rva)) == expected  # its file stands under the first number, and stays there
    assert set(news(nic)) == expected | {(LAST, d.Event.REACTIVATE, LAST, LAST, 0)}
    for recipient in (rva, nic):
        assert {d.notice_of(asked).version for asked in recipient.asked} == set(versions)
        assert {asked.requester for asked in recipient.asked} == {CROSSROADS_BANK}
        assert not any(asked.repeat for asked in recipient.asked)


@on_trio
async def test_who_does_not_know_the_person_is_not_told(stand: Town) -> None:
    """Nobody is a subscriber of this one: it is settled, and recorded, and reaches nobody."""
    person = PERSONS["no_source"]
    before = counted(stand, 'notices_total{outcome="nobody"}')
    async with both(stand) as (rva, nic):
        await say(stand, person, d.Event.DECEASE, day=20261101)
        await until(lambda: counted(stand, 'notices_total{outcome="nobody"}') == before + 1)
    assert not rva.asked
    assert not nic.asked


@on_trio
async def test_a_change_whose_program_died_before_it_told_anybody_is_told(stand: Town) -> None:
    """It is in the directory and nobody was told: the next start goes on from there."""
    old, new = PERSONS["adjacent"], PERSONS["phase_too_low"]
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0
    writer = Writer.open(stand.directory)
    change = Change(os.urandom(16), old, Operation.REPLACE, other=new)
    (applied,) = writer.apply([change], 1_795_300_000_000_000)
    writer.close()
    assert isinstance(applied, Applied)
    async with both(stand) as (rva, nic):
        stand.start()
        await all_told(stand, 1)
    assert news(rva) == news(nic) == [(new, d.Event.REPLACE, old, new, 0)]
    assert rva.asked[0].begin == rva.asked[0].end == 20261121


async def in_flight(stand: Town, person: str, rva: Source, nic: Source) -> int:
    """Have something to tell, and stop the program when both have got it and not answered."""
    await say(stand, person, d.Event.DECEASE, day=20261102)
    await until(lambda: rva.asked and nic.asked)
    pid = directory_pid(stand)
    os.kill(pid, signal.SIGSTOP)
    return pid


def told_of(stand: Town, asked: Delivery) -> list[int]:
    """The outcomes that the privacy log has of a delivery's exchange."""
    return [
        entry.code
        for entry in stand.entries()
        if entry.kind is Kind.OUTCOME and entry.exchange == asked.exchange and entry.code
    ]


@on_trio
@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_program_that_dies_after_it_told_everybody_tells_nobody_twice(
    stand: Town, *, is_answered: bool
) -> None:
    """Before the answer, or behind it and before the notice was removed: one delivery each."""
    person = PERSONS["answered" if is_answered else "not_integrated"]
    async with both(stand, is_open=False) as (rva, nic):
        pid = await in_flight(stand, person, rva, nic)
        if not is_answered:
            os.kill(pid, signal.SIGKILL)
        rva.gate.set()
        nic.gate.set()
        await until(lambda: told_of(stand, rva.asked[0]))
        if is_answered:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: directory_pid(stand) not in (0, pid))
        await all_told(stand, 1)
    assert len(rva.asked) == len(nic.asked) == 1
    assert told_of(stand, rva.asked[0]) == [Code.ANSWERED_WITH_DATA]


@on_trio
async def test_who_may_have_it_gets_it_again_as_a_repeat(stand: Town) -> None:
    """Workers that die on the way: the same exchange id, with the flag; so it counts once."""
    before = counted(stand, TOLD)
    async with both(stand, is_open=False) as (rva, nic):
        await say(stand, PERSONS["period_not_covered"], d.Event.DECEASE, day=20261103)
        await until(lambda: rva.asked and nic.asked)
        for pid in stand.worker_pids():
            os.kill(pid, signal.SIGKILL)
        rva.gate.set()
        nic.gate.set()
        await all_told(stand, before + 1)
    for recipient in (rva, nic):
        assert [asked.repeat for asked in recipient.asked] == [False, True]
        assert len({asked.exchange for asked in recipient.asked}) == 1


@on_trio
async def test_who_is_down_is_told_later_and_the_others_are_not_told_again(stand: Town) -> None:
    """The log has what came of each, the metric the age; the retry reaches who lacks it."""
    person, rva, nic = PERSONS["provisional"], Source(), Source()
    before = counted(stand, TOLD)
    async with receiving(stand, (RVA, RVA_PORT, rva)):
        await say(stand, person, d.Event.DECEASE, day=20261104)
        await until(lambda: rva.asked and told_of(stand, rva.asked[0]))
        assert told_of(stand, rva.asked[0])[0] == Code.ANSWERED_IN_PART
        await until(lambda: counted(stand, "notice_oldest_timestamp_seconds") > 0)
        async with receiving(stand, (NIC, NIC_PORT, nic)):
            await all_told(stand, before + 1)
    assert len(rva.asked) == len(nic.asked) == 1
    assert rva.asked[0].exchange == nic.asked[0].exchange
    assert {event["reason"] for event in stand.events("notice_waits")} >= {"ANSWERED_IN_PART"}
    assert person not in stand.output.read_text(encoding="utf-8")
    stand.verify_log()


@on_trio
async def test_a_chain_is_found_under_each_of_its_numbers(stand: Town) -> None:
    """The same lines by every service, and the same exchanges for an auditor, notices included."""
    former = PERSONS["bis"]
    before = counted(stand, TOLD)
    numbers = (FIRST, SECOND, former, LAST)
    answers = []
    async with both(stand) as (rva, _), asking(stand) as client:
        await say(stand, former, d.Event.REPLACE, by=LAST)
        await all_told(stand, before + 1)
        for number in numbers:
            answers.append(told(await settled(client, d.lines(envelope(), number))))
            integration = envelope(begin=20260301, end=20260331)
            others = d.others(integration, number, data_begin=20260101)
            answers.append(told(await settled(client, others)))
    assert [answer.current for answer in answers[::2]] == [LAST, LAST, LAST, ""]
    for of_one_service in (answers[::2], answers[1::2]):
        assert of_one_service[0].lines
        assert {frozenset(answer.lines) for answer in of_one_service} == {
            frozenset(of_one_service[0].lines)
        }
    seen = [await seen_by_auditor(stand, number) for number in numbers]
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert {d.REGISTER, d.NUMBER, d.LINES, d.OTHERS} <= set(seen[0].values())
    told_as = str(uuid.UUID(bytes=rva.asked[-1].exchange))
    assert d.REGISTER in (await seen_by_auditor(stand, former, "--no-directory")).values()
    replayed = await trio.to_thread.run_sync(
        stand.command, "log", "replay", "--exchange", told_as, "--purpose", "a test", "--config",
        stand.config,
    )  # fmt: skip
    assert "  forward  " in replayed
    assert "  same" in replayed
    assert "the number was in use" not in replayed  # nobody looked
    assert told_as in await seen_by_auditor(stand, LAST, "--no-directory")


async def seen_by_auditor(stand: Town, number: str, *words: str) -> dict[str, str]:
    """What a query of a person finds: exchange and service, but for readings."""
    printed = await trio.to_thread.run_sync(
        stand.command, "log", "query", "--person", number, "--purpose", "a test", "--json",
        "--config", stand.config, *words,
    )  # fmt: skip
    rows = [json.loads(line) for line in printed.splitlines()]
    return {row["exchange"]: row["service"] for row in rows if row["exchange"]}
