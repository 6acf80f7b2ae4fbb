"""A network's directory at its managing institution: whole routers, the SDK on both sides."""

import contextlib
import datetime as dt
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.messages import Answer
from ksz_router.sdk import (
    Asked,
    Client,
    ConnectionLostError,
    Delivery,
    Outcome,
    Provider,
    Supply,
)
from tests.integration.stands import (
    CENTRE,
    FBZ,
    OPEN,
    PERSONS,
    RVA,
    UNEMPLOYMENT,
    Source,
    Town,
    asking,
    on_trio,
    request,
    serving,
    settled,
    town,
    until,
)
from tests.sectoral_ground import text
from tests.worlds import BANK

RVA_PORT, FBZ_PORT = free_ports(2)
REPORTED = ("Reported", 1)
SUBMISSION = {
    "services/reported.toml": """
[[service]]
name = "Reported"
version = 1
kind = "submission"
subject = "person"
""",
    "availability/reported.toml": f"""
[[availability]]
service = "Reported"
version = 1
kbo = "{RVA}"
role = "18/0"
""",
    "deliberations/reported.toml": """
number = "26/004"
date = 2026-01-06

[[grant]]
id = "s-reported"
direction = "send"
service = "Reported"
version = 1
role = "17/1"
capacities = [2]

[[grant]]
id = "r-reported"
direction = "receive"
service = "Reported"
version = 1
role = "18/0"
""",
}
"""A submission to the job office."""

DOWN = Code.SECTORAL_DIRECTORY_DOWN
DAY = dt.timedelta(days=1)
W = Code.ANSWERED_WITH_DATA


class Keeper:
    """The institution that keeps the network's directory, as the test wants it."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.knows = True
        self.gate = trio.Event()
        self.gate.set()

    async def __call__(self, question: Asked) -> bool:
        self.asked.append(question)
        await self.gate.wait()
        return self.knows


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The job office is in a network whose directory another institution keeps."""
    folder = tmp_path_factory.mktemp("sectoral") / "stand"
    sources = {"breaker_failures": 1_000, "connect_seconds": 0.5}
    with town(
        folder,
        institutions=[RVA, FBZ, CENTRE],
        endpoints={RVA: RVA_PORT, FBZ: FBZ_PORT},
        options={"sources": sources},
    ) as made:
        for kbo in (RVA, FBZ):
            uris = f'uris = ["urn:kbo:{kbo}"]'
            made.replace_text(
                "institutions/sources.toml", uris, f'{uris}\nsecondary_network = "arbeid"'
            )
        for name, words in (text("arbeid", FBZ, "6/0") | SUBMISSION).items():
            (folder / "rulebook-text" / name).write_text(words, encoding="utf-8")
        made.activate_rulebook()
        made.start()
        yield made
        made.verify_log()


@contextlib.asynccontextmanager
async def keeping(stand: Town, keeper: Keeper) -> AsyncIterator[None]:
    """The directory is served, in a few lines."""
    provider = Provider(stand.identity(FBZ), router_uris={ROUTER_URI}, services={}, sectoral=keeper)
    async with serving(provider, FBZ_PORT):
        yield


@contextlib.asynccontextmanager
async def supplying(stand: Town, source: Source) -> AsyncIterator[None]:
    """The job office, which is always there."""
    services = {UNEMPLOYMENT: source, REPORTED: source}
    provider = Provider(stand.identity(RVA), router_uris={ROUTER_URI}, services=services)
    async with serving(provider, RVA_PORT):
        yield


async def tried(client: Client) -> set[int]:
    """Ask until it passes; return how else it went before."""
    codes = set()
    with trio.fail_after(15):
        while (code := (await client.ask(request())).code) != W:
            codes.add(code)
            await trio.sleep(0.05)
    return codes


@on_trio
async def test_known_unknown_down_slow_and_back(stand: Town) -> None:
    """Each under its own code, and the source hears of a person only where they are known."""
    rva, keeper = Source(), Keeper()
    async with supplying(stand, rva), asking(stand) as client:
        down = await client.ask(request())
        assert (down.code, down.official) == (DOWN, "MSG00002")
        async with keeping(stand, keeper):
            await tried(client)
            assert len(rva.asked) == 1
            (question,) = {asked.sought for asked in keeper.asked}
            assert (question.institution, question.whole) == (RVA, False)
            assert {asked.person for asked in keeper.asked} == {PERSONS["answered"]}
            assert {asked.client for asked in keeper.asked} == {CENTRE}
            keeper.knows = False
            unknown = await client.ask(request())
            assert unknown.code == Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY
            keeper.knows, keeper.gate = True, trio.Event()
            slow = await client.ask(request(deadline_ms=1_000), deadline_s=10)
            assert slow.code == DOWN
            keeper.gate.set()
        assert len(rva.asked) == 1
        lost = len(stand.events("source_ended"))
        async with keeping(stand, keeper):
            assert await tried(client) <= {DOWN}
            assert len(rva.asked) == 2
        await until(lambda: len(stand.events("source_ended")) > lost)
    known = stand.metric("ksz_router_sectoral_answers_total", result="known")
    assert known == 2
    assert stand.metric("ksz_router_sectoral_answers_total", result="unknown") == 1
    assert stand.metric("ksz_router_sectoral_answers_total", result="unavailable") >= 2
    asked = stand.metric("ksz_router_sectoral_questions_total")
    assert asked == stand.metric("ksz_router_sectoral_wait_seconds_count")
    _replays(stand, unknown, slow)


def _replays(stand: Town, *answers: Answer) -> None:
    """Everything in the log is decided again, and the disclosure stands there by the person."""
    words = ("--purpose", "a test", "--config", stand.config)
    for answer in answers:
        told = stand.command("log", "replay", "--exchange", answer.exchange.hex(), *words)
        assert "  same" in told
        assert Code(answer.code).name in told
        question = stand.command(
            "log",
            "query",
            "--institution",
            BANK,
            "--ticket",
            answer.exchange.hex(),
            "--json",
            *words,
        )
        assert json.loads(question)["service"] == "sectoral.known"
    now = dt.datetime.now(tz=dt.UTC)
    days = ("--from", str((now - DAY).date()), "--to", str((now + DAY).date()))
    found = stand.command("log", "replay", *days, *words)
    assert re.search(r"[1-9]\d* same, 0 differs, 0 not decided", found), found
    entries = [entry for entry in stand.entries() if entry.service == "sectoral.known"]
    assert entries
    assert all(entry.destinations == (FBZ,) for entry in entries)
    assert {entry.final_client for entry in entries if entry.stage} >= {CENTRE}


@on_trio
async def test_a_worker_killed_between_question_and_message_sends_it_once(stand: Town) -> None:
    """The question is recorded as unknown; the retry by its ticket asks again, and then sends."""
    rva, keeper = Source(), Keeper()
    keeper.gate = trio.Event()
    message = request(service="Reported", version=1, payload=b"a decision")
    async with supplying(stand, rva), keeping(stand, keeper), asking(stand) as client:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ConnectionLostError):
                    await client.ask(message)

            nursery.start_soon(ask)
            await until(lambda: keeper.asked)
            for pid in stand.worker_pids():
                os.kill(pid, signal.SIGKILL)
        assert not rva.asked
        keeper.gate.set()
        answer = await settled(client, message, OPEN)
        assert answer.code == W
        assert len(keeper.asked) == 2
        assert len({question.exchange for question in keeper.asked}) == 2
        again = await settled(client, message, OPEN)
        assert (again.exchange, again.payload) == (answer.exchange, b"")
    assert [delivery.repeat for delivery in rva.asked] == [False]
    lost = keeper.asked[0].exchange
    codes = [entry.code for entry in stand.entries() if entry.exchange == lost]
    assert codes == [0, Code.OUTCOME_UNKNOWN]


@on_trio
async def test_a_keeper_whose_program_fails_is_unavailable(stand: Town) -> None:
    """And one that says more than yes or no is heard for that alone."""
    rva = Source()

    async def faulty(_: Asked) -> bool:
        raise RuntimeError("its database is gone")

    async def talkative(_: Delivery) -> Supply:
        return Supply(Outcome.DATA, payload=b"all we know of this person")

    async with supplying(stand, rva), asking(stand) as client:
        provider = Provider(
            stand.identity(FBZ), router_uris={ROUTER_URI}, services={}, sectoral=faulty
        )
        async with serving(provider, FBZ_PORT):
            assert (await client.ask(request())).code == DOWN
        provider = Provider(
            stand.identity(FBZ), router_uris={ROUTER_URI},
            services={("sectoral.known", 1): talkative},
        )  # fmt: skip
        async with serving(provider, FBZ_PORT):
            assert await tried(client) <= {DOWN}
    assert len(rva.asked) == 1
    assert b"all we know" not in rva.asked[0].payload
