"""The directory's own services through whole routers: seen at once, exactly once, over kills."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any
from urllib.request import urlopen

import pytest
import trio

from contrib.stand import ROOT, ROUTER_URI, free_ports
from ksz_router.codes import Code
from ksz_router.directory.change import WHY, Reason
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer
from ksz_router.model import OPEN
from ksz_router.privacylog.entry import Kind
from ksz_router.sdk import Request, new_ticket
from ksz_router.sdk import directory as d
from tests.integration.stands import (
    CENTRE,
    RVA,
    USER,
    Source,
    Town,
    asking,
    connection_test,
    on_trio,
    providing,
    request,
    settled,
    town,
    until,
)

REGISTER = "0999012995"
PORT = free_ports(1)[0]
PERSONS = landmarks(1)
NEWCOMER = PERSONS["not_integrated"]
NOBODY_YET = "85073099635"
"""Not in the directory until a test makes it known."""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("directory") / "stand"
    with town(
        folder, endpoints={RVA: PORT}, institutions=[RVA, CENTRE, REGISTER], workers=2,
        serves_directory=True, options={"sources": {"breaker_open_seconds": 0.2}},
    ) as made:  # fmt: skip
        made.start()
        yield made


def envelope(**fields: Any) -> Request:
    """The centre, in capacity 2 unless ``fields`` differ."""
    usual: dict[str, Any] = {
        "id": 0, "service": "", "version": 0, "ticket": new_ticket(), "user": USER,
        "sector": 17, "type": 1, "capacity": 2,
    }  # fmt: skip
    return Request(**{**usual, **fields})


def of_the_register(**fields: Any) -> Request:
    """The register of numbers, by its program."""
    return envelope(
        user=None,
        application="00901000202",
        sector=0,
        type=0,
        capacity=0,
        **fields,
    )


def told(answer: Answer) -> d.Told:
    """What the directory said, which it must have."""
    found = d.told_of(answer)
    assert found is not None, Code(answer.code).name
    return found


def written(told_lines: d.Told) -> list[tuple[int, ...]]:
    return [(n.sector, n.type, n.capacity, n.phase, n.begin, n.end) for n in told_lines.lines]


def directory_pid(stand: Town) -> int:
    """The process of the directory program; 0 while it starts."""
    (program,) = [p for p in stand.ask().programs if p.name == "directory"]
    return program.pid


@on_trio
async def test_who_was_inscribed_is_known_to_every_worker_at_once(stand: Town) -> None:
    """Before: not integrated. Answered: through both workers, and the entry names the version."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(providing(stand, PORT, Source()))
        clients, workers = [], stand.worker_pids()
        for _ in workers:  # one connection to each: the others stand still meanwhile
            workers.append(workers.pop(0))
            for pid in workers[1:]:
                os.kill(pid, signal.SIGSTOP)
            clients.append(await stack.enter_async_context(asking(stand)))
            await clients[-1].ask(connection_test())
            for pid in workers[1:]:
                os.kill(pid, signal.SIGCONT)
        asked = request(NEWCOMER)
        assert (await clients[0].ask(asked)).code == Code.PERSON_NOT_INTEGRATED

        answer = await settled(clients[0], d.inscribe(envelope(), NEWCOMER, begin=20260101))
        for client in clients:
            assert (await client.ask(request(NEWCOMER))).code == Code.ANSWERED_WITH_DATA
        assert all(w.report is not None and w.report.sessions for w in stand.ask().workers)

    assert answer.code == Code.ANSWERED_WITH_DATA
    assert written(told(answer)) == [(17, 1, 2, 0, 20260101, OPEN)]
    version = told(answer).version
    later = [e for e in stand.entries() if e.exchange is not None and e.service == asked.service]
    assert {e.directory_version for e in later if e.code == 0 and e.directory_version} == {version}


@on_trio
async def test_lines_are_kept_true(stand: Town) -> None:
    """Adjust, split, remove, and see: own lines, and what other sectors know."""
    person = PERSONS["phase_too_low"]
    async with asking(stand) as client:

        async def lines_after(asked: Request) -> list[tuple[int, ...]]:
            answer = await settled(client, asked)
            assert told(answer).reason == "", told(answer).reason
            return written(told(answer))

        (before,) = await lines_after(d.lines(envelope(), person))
        begin = before[4]
        adjusted = d.adjust(envelope(), person, phase=3, begin=begin, end=20301231)
        assert await lines_after(adjusted) == [(17, 1, 2, 3, begin, 20301231)]
        days = d.Removal(what=d.What.PERIOD)
        split = d.remove(envelope(), person, days, begin=20260201, end=20260228)
        halves = [(17, 1, 2, 3, begin, 20260131), (17, 1, 2, 3, 20260301, 20301231)]
        assert await lines_after(split) == halves
        line = d.Removal(what=d.What.LINE)
        assert await lines_after(d.remove(envelope(), person, line, begin=begin)) == halves[1:]
        assert await lines_after(d.lines(envelope(), person)) == halves[1:]

        integration = envelope(begin=20260301, end=20260331)
        answer = await client.ask(d.others(integration, person, data_begin=20260101))
        assert {line.sector for line in told(answer).lines} == {11, 12, 18}
        before_it = envelope(begin=20260201, end=20260331)
        answer = await client.ask(d.others(before_it, person, data_begin=20260101))
        assert answer.code == Code.PERIOD_NOT_COVERED

        everything = d.Removal(what=d.What.ALL)
        assert await lines_after(d.remove(envelope(), person, everything)) == []
        assert (await client.ask(d.lines(envelope(), person))).code == Code.ANSWERED_WITHOUT_DATA


@on_trio
async def test_a_rule_that_is_broken_is_named(stand: Town) -> None:
    """Nothing changes; the answer has the rule, and its source code."""
    person = PERSONS["answered"]
    wide = d.inscribe(envelope(), person, begin=20260101, sector_wide=True)
    twice = d.inscribe(envelope(), person, begin=20260101)
    odd = d.remove(envelope(), person, d.Removal(what=d.What.LINE, phase=1), begin=20260101)
    async with asking(stand) as client:
        for asked, reason, code in (
            (twice, "OVERLAPS", "DIR-21"),
            (wide, "NOT_SECTOR_WIDE", "DIR-53"),
            (odd, "PAYLOAD_MALFORMED", "DIR-51"),
        ):
            answer = await client.ask(asked)
            assert (answer.code, told(answer).reason) == (Code.ANSWERED_WITHOUT_DATA, reason)
            assert answer.recipients[0].source_code == code
        foreign = envelope(sector=18, type=0, capacity=1)
        answer = await client.ask(d.inscribe(foreign, person, begin=20260101))
        assert answer.code == Code.ROLE_NOT_HELD


@on_trio
async def test_what_became_of_a_number_is_known_at_once(stand: Town) -> None:
    """New, replaced, cancelled, dead, alive again: each is what the control goes by then."""
    new, old, late = NOBODY_YET, PERSONS["any_type"], PERSONS["bis"]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(providing(stand, PORT, Source()))
        client = await stack.enter_async_context(asking(stand))
        register = await stack.enter_async_context(asking(stand, REGISTER))

        async def say(person: str, event: d.Event, **fields: Any) -> d.Told:
            asked = d.register(of_the_register(), person, event, **fields)
            return told(await settled(register, asked))

        assert (await say(new, d.Event.NEW)).reason == ""
        replaced = await say(old, d.Event.REPLACE, by=new)
        assert (replaced.current, replaced.reason) == (new, "")
        answer = await client.ask(request(old))
        assert (answer.code, answer.detail["newSSIN"]) == (Code.PERSON_REPLACED, new)
        assert (await client.ask(request(new))).code == Code.ANSWERED_WITH_DATA

        assert (await say(late, d.Event.CANCEL)).reason == ""
        assert (await client.ask(request(late))).code == Code.PERSON_CANCELLED
        assert (await say(late, d.Event.REACTIVATE)).reason == ""
        assert (await client.ask(request(late))).code == Code.ANSWERED_WITH_DATA
        answer = await register.ask(
            d.register(of_the_register(), late, d.Event.DECEASE, day=20260601)
        )
        assert told(answer).reason == ""


async def in_flight(stand: Town) -> None:
    """Wait until a worker has forwarded something: what it took it forwards in the same turn."""
    await until(lambda: sum(w.report.inflight for w in stand.ask().workers if w.report))


def written_version(stand: Town) -> int:
    """The version that the directory program made durable, as it tells Prometheus."""
    scraped = stand.scrape(len(stand.ask().workers) + 2)
    (line,) = re.findall(r"^ksz_router_directory_written_version (\S+)$", scraped, re.MULTILINE)
    return int(float(line))


@on_trio
async def test_a_change_whose_worker_died_before_the_answer_is_told_of_and_not_made_again(
    stand: Town,
) -> None:
    """It is durable, nobody knows: the retry gets its version from the directory, as a repeat."""
    answers: list[Answer] = []
    directory, before = directory_pid(stand), written_version(stand)
    async with asking(stand) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            asked = d.inscribe(envelope(capacity=5), NEWCOMER, begin=20260101)
            answers.append(await settled(client, asked))

        os.kill(directory, signal.SIGSTOP)
        nursery.start_soon(ask)
        await in_flight(stand)
        workers = stand.worker_pids()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        os.kill(directory, signal.SIGCONT)
        port = stand.metrics_port + len(workers) + 2
        made = f"ksz_router_directory_written_version {before + 1}.0"
        await until(lambda: made in urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    found = told(answers[0])
    assert (found.version, found.repeated) == (before + 1, True)
    assert (17, 1, 5, 0, 20260101, OPEN) in written(found)
    assert written_version(stand) == before + 1
    retried = {e.first for e in stand.entries() if e.kind is Kind.REQUEST and e.attempt > 1}
    assert answers[0].exchange in retried  # others may have been, while a program started


@on_trio
async def test_a_change_that_the_dead_directory_program_never_made_is_made_by_the_next(
    stand: Town,
) -> None:
    """It was delivered and not applied: the same exchange id makes it, once, and is no repeat."""
    answers: list[Answer] = []
    directory, before = directory_pid(stand), written_version(stand)
    async with asking(stand) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            asked = d.inscribe(envelope(capacity=6), NEWCOMER, begin=20260101)
            answers.append(await settled(client, asked))

        os.kill(directory, signal.SIGSTOP)
        nursery.start_soon(ask)
        await in_flight(stand)
        os.kill(directory, signal.SIGKILL)
    found = told(answers[0])
    assert (found.version, found.repeated) == (before + 1, False)
    assert written_version(stand) == before + 1


@on_trio
@pytest.mark.parametrize("victim", ["workers", "directory", "router"])
async def test_no_change_is_lost_or_made_twice_over_kills(stand: Town, victim: str) -> None:
    """Many at once, each told of exactly one version of its own; retries by ticket find it."""
    person = PERSONS["adjacent"]
    numbers = count(0)
    versions: dict[int, int] = {}
    is_over = False
    async with asking(stand) as client, trio.open_nursery() as nursery:
        first = told(await settled(client, d.remove(envelope(), person, d.Removal(
            what=d.What.ALL)))).version  # fmt: skip

        async def change() -> None:
            while not is_over:
                number = next(numbers)
                year = 1850 + number
                capacity = {"workers": 3, "directory": 4, "router": 7}[victim]
                asked = d.inscribe(
                    envelope(capacity=capacity), person,
                    begin=year * 10_000 + 101, end=year * 10_000 + 1231,
                )  # fmt: skip
                if year > 2150:
                    return
                answer = await settled(client, asked)
                assert answer.code == Code.ANSWERED_WITH_DATA, answer
                versions[year] = 1

        for _ in range(4):
            nursery.start_soon(change)
        for goal in (10, 30):
            await until(lambda goal=goal: len(versions) >= goal)  # type: ignore[misc]
            if victim == "router":  # told to stop, with all of it in flight
                stand.signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(stand.ended) == 0
                await trio.to_thread.run_sync(stand.start)
                continue
            await until(stand.worker_pids if victim == "workers" else partial(directory_pid, stand))
            pid = stand.worker_pids()[0] if victim == "workers" else directory_pid(stand)
            os.kill(pid, signal.SIGKILL)
        is_over = True
    async with asking(stand) as client:
        answer = await settled(client, d.lines(envelope(), person))
    years = [line.begin // 10_000 for line in told(answer).lines]
    assert sorted(years) == sorted(versions)
    # A change made twice would have been refused as an overlap, and made no version; a lost one
    # would leave a gap. Refusals make none.
    assert told(answer).version == first + len(versions)


@on_trio
async def test_the_history_of_a_person_is_told_and_itself_recorded(stand: Town) -> None:
    """Who, what and in which version; refused changes too, and what was made and never answered."""
    printed = await trio.to_thread.run_sync(
        lambda: stand.command(
            "directory", "history", "--person", NEWCOMER, "--purpose", "a test", "--reader", "me",
            "--json", "--config", stand.config,
        )
    )  # fmt: skip
    rows = [json.loads(line) for line in printed.splitlines()]
    assert {row["service"] for row in rows} == {d.INSCRIBE}
    assert {row["requester"] for row in rows} == {CENTRE}
    made = [row for row in rows if row["version"]]
    assert [row["line"]["capacity"] for row in made] == [2, 5, 6]
    assert made[1]["outcomes"] in ("OUTCOME_UNKNOWN", "SOURCE_CONNECTION_LOST")
    assert [row["version"] for row in made] == sorted({row["version"] for row in made})
    readings = [entry for entry in stand.entries() if entry.kind is Kind.READING]
    assert {(entry.service, entry.reader) for entry in readings} == {("directory history", "me")}


def test_the_example_of_a_keeper_inscribes_and_is_told_of_a_rule(stand: Town) -> None:
    """The program that the document shows, run as it is."""
    identity = stand.identity(CENTRE)
    person = PERSONS["no_source"]
    begin = "20260301"
    done = subprocess.run(
        [
            sys.executable, ROOT / "contrib" / "examples" / "keeper.py", "--day", begin,
            "--certificate", identity.certificate, "--key", identity.key,
            "--authorities", identity.authorities, "--port", str(stand.port),
            "--router-uri", ROUTER_URI,
        ],
        input=f"{USER}\n{NOBODY_YET}\n{person}\n", capture_output=True, text=True, check=True,
        timeout=30,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first.startswith("person 1: inscribed, version ")
    assert second == f"person 2: {WHY[Reason.OVERLAPS]}"
    assert person not in done.stdout + done.stderr


@on_trio
async def test_a_reload_renews_the_certificate_or_goes_on_with_the_old_one(stand: Town) -> None:
    """A file that does not do is told of by name; the services are answered all the while."""
    certificate = stand.folder / "tls" / "directory.crt"
    good = certificate.read_bytes()
    certificate.write_bytes(b"no certificate")
    try:
        await trio.to_thread.run_sync(stand.ask, "reload")
        await until(lambda: stand.events("certificate_not_renewed"))
    finally:
        certificate.write_bytes(good)
    (event,) = stand.events("certificate_not_renewed")
    assert "directory.crt" in event["reason"]
    async with asking(stand) as client:
        answer = await settled(client, d.lines(envelope(), NEWCOMER))
    assert answer.code == Code.ANSWERED_WITH_DATA


@on_trio
async def test_a_stop_leaves_a_clean_directory(stand: Town) -> None:
    """Everything ends in order, the log is whole, and what was changed is there after a start."""
    before = len(stand.events("program_killed"))
    stand.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(stand.ended) == 0
    assert len(stand.events("program_killed")) == before
    stand.command("directory", "check", "--directory", stand.directory)
    stand.verify_log()
    stand.start()
    async with asking(stand) as client:
        answer = await settled(client, d.lines(envelope(), NEWCOMER))
        assert (17, 1, 2, 0, 20260101, OPEN) in written(told(answer))
