"""What an auditor finds about a person, with the commands of the day, beside a router that runs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from contrib.stand import free_ports
from ksz_router.codes import Code
from ksz_router.directory.synthesise import landmarks
from ksz_router.sdk import Delivery, Outcome, Request, Supply
from tests.integration.stands import (
    CENTRE,
    PERSONS,
    RVP,
    SERVICES,
    USER,
    Town,
    asking,
    on_trio,
    providing,
    request,
    town,
)

PORT = free_ports(1)[0]
CHAIN = [PERSONS[name] for name in ("chain_first", "chain_second", "chain_last")]
FURTHER = landmarks(2)["answered"]
FAMILY = tuple(f"{body:09}{97 - body % 97:02}" for body in range(850601900, 850601965))
NAME, VERSION = SERVICES[RVP]
LOGGED = f"""
[[control]]
service = "{NAME}"
version = {VERSION}
own = "log"
"""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("auditor") / "stand"
    with town(folder, institutions=[RVP, CENTRE], endpoints={RVP: PORT}) as made:
        (folder / "rulebook-text" / "services" / "logged.toml").write_text(LOGGED, "utf-8")
        made.activate_rulebook()
        made.start()
        yield made


def pension(person: str, **fields: Any) -> Request:
    """A service that follows a replaced number, and whose own integration is only logged."""
    return request(person, service=NAME, version=VERSION, **fields)


def found(stand: Town, *words: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    printed = stand.command(
        "log", "query", "--config", stand.config, "--purpose", "complaint 7", "--json", *words
    )
    return [json.loads(line) for line in printed.splitlines()]


def exchanges(rows: list[dict[str, Any]]) -> list[str]:
    return [row["exchange"].replace("-", "") for row in rows if row["kind"] == "REQUEST"]


@on_trio
async def test_an_exchange_is_found_under_every_number_of_the_person(stand: Town) -> None:
    """Asked under the oldest, answered under the newest, and sought under the one between."""
    asked: list[str | None] = []

    async def handler(delivery: Delivery) -> Supply:
        asked.append(delivery.person)
        return Supply(Outcome.DATA)

    async with asking(stand) as client, providing(stand, PORT, handler, kbo=RVP):
        answer = await client.ask(pension(CHAIN[0]))
        refused = await client.ask(request(CHAIN[0]))
    assert (answer.code, asked) == (Code.ANSWERED_WITH_DATA, [CHAIN[2]])
    assert refused.detail["newSSIN"] == CHAIN[2]
    wanted = [answer.exchange.hex(), refused.exchange.hex()]
    assert exchanges(found(stand, "--person", CHAIN[1], "--no-directory")) == []
    rows: list[dict[str, Any]] = []
    for number in CHAIN:
        rows = found(stand, "--person", number)
        assert exchanges(rows) == wanted
        assert [row["replaced"] for row in rows[:2]] == [True, True]
    readings = [row for row in rows if row["kind"] == "READING"]
    assert len(readings) == 1 + 3 * len(CHAIN), "each query is recorded under every number it asks"
    for name in ("person", "asked"):
        assert name not in rows[0], "a row holds no number, not even as a token"


@on_trio
async def test_a_logged_violation_is_counted_explained_and_found(stand: Town) -> None:
    """The metric, the query, the table for people, and ``explain`` all name the same."""
    async with (
        asking(stand) as client,
        providing(stand, PORT, lambda _: _supply(), kbo=RVP),
    ):
        before = stand.metric("ksz_router_violations_total")
        answer = await client.ask(pension(PERSONS["not_integrated"]))
    assert answer.code == Code.ANSWERED_WITH_DATA
    assert stand.metric("ksz_router_violations_total", control="own") == before + 1
    assert stand.metric("ksz_router_violations_total") == before + 1
    (row,) = found(stand, "--violations", "own")
    assert exchanges([row]) == [answer.exchange.hex()]
    assert row["violations"] == ["own:log:PERSON_NOT_INTEGRATED"]
    assert found(stand, "--violations") == [row]
    assert found(stand, "--violations", "recipient") == []
    words = ("--config", stand.config, "--purpose", "complaint 7")
    table = stand.command("log", "query", *words, "--violations")
    assert "own:log:PERSON_NOT_INTEGRATED" in table
    shown = stand.command(
        "explain", *words, "--as", f"urn:kbo:{CENTRE}", "--service", NAME, "--sector", 17,
        "--type", 1, "--capacity", 2, "--user", USER,
        "--person", PERSONS["not_integrated"],
    )  # fmt: skip
    assert "own:log:PERSON_NOT_INTEGRATED" in shown


@on_trio
async def test_a_further_person_is_found_although_nobody_asked_about_them(stand: Town) -> None:
    """The SDK declares each once; what it cannot declare it does not send."""
    declared = [(FURTHER, FURTHER, PERSONS["answered"]), (FURTHER[:-1],), FAMILY[:64], FAMILY]

    async def handler(delivery: Delivery) -> Supply:
        return Supply(Outcome.DATA, payload=b"x", persons=declared[int(delivery.payload)])

    async with asking(stand) as client, providing(stand, PORT, handler, kbo=RVP):
        good, malformed, full, many = [
            await client.ask(pension(PERSONS["answered"], payload=b"%d" % number))
            for number in range(4)
        ]
    assert (good.code, good.persons) == (Code.ANSWERED_WITH_DATA, (FURTHER,))
    assert (malformed.code, malformed.payload) == (Code.SOURCE_FAILED, b"")
    assert malformed.recipients[0].source_code == "PERSON-MALFORMED"
    assert (full.code, full.persons) == (Code.ANSWERED_WITH_DATA, FAMILY[:64])
    assert (many.code, many.recipients[0].source_code) == (Code.SOURCE_FAILED, "TOO-MANY-PERSONS")
    (row, *_) = found(stand, "--person", FURTHER)
    assert (exchanges([row]), row["further_persons"]) == ([good.exchange.hex()], 1)
    rows = found(stand, "--person", FAMILY[0])
    assert (exchanges(rows), rows[0]["further_persons"]) == ([full.exchange.hex()], 64)
    stand.verify_log()


async def _supply() -> Supply:
    return Supply(Outcome.DATA)
