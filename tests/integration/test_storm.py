"""Broken and hostile peers against a router that runs, a good client alongside."""

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from contrib import vector_bytes as v
from contrib.fuzz import live, mutations
from contrib.stand import free_ports
from ksz_router import tls
from ksz_router.cli.testpki import issue, make_authority
from ksz_router.codes import Code, Stage
from ksz_router.sdk import Answer, Client, Request
from tests.integration.stands import (
    CENTRE,
    Source,
    Town,
    asking,
    on_trio,
    providing,
    request,
    town,
    until,
)

PORTS = free_ports(2)
MUTANTS = 400
EVIL = 'urn:x\x1b[2J\r\n"}{\x07\x7f' + live.USER
"""What a certificate may say: a name that a terminal would obey, with a person's number in it."""
RSS_GROWTH_KIB_MAX = 8 * 1024


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("storm") / "stand"
    endpoints = dict(zip((live.GOOD_SOURCE, live.HOSTILE_SOURCE), PORTS, strict=True))
    options, names = live.OPTIONS, live.INSTITUTIONS
    with town(folder, institutions=names, endpoints=endpoints, options=options) as made:
        certify(made, EVIL)
        made.start()
        yield made
        made.verify_log()
        live.judge_events(made.output)


def certify(stand: Town, uri: str) -> None:
    """Let the router know a second authority, which certifies whatever it is given."""
    authority = make_authority()
    issued = issue(authority, "evil", uris=[uri])
    folder = stand.folder / "tls"
    with (folder / "authorities.pem").open("ab") as file:
        file.write(authority.pem)
    (folder / "evil.crt").write_bytes(issued.certificate)
    (folder / "evil.key").write_bytes(issued.key)


def handles(stand: Town) -> int:
    """Open files of all workers."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in stand.worker_pids())


def open_things(stand: Town) -> tuple[int, int]:
    """Connections and requests in flight, over all workers."""
    reports = [worker.report for worker in stand.ask().workers if worker.report is not None]
    return sum(report.sessions for report in reports), sum(report.inflight for report in reports)


@on_trio
async def test_a_storm_of_mutants_leaves_the_good_client_its_answers_and_the_router_its_size(
    stand: Town,
) -> None:
    """As requesters and as a source; ``make fuzz`` does a hundred thousand of them."""
    before = handles(stand)
    storm = live.Storm(stand, count=MUTANTS, seed=20261122, ports=(PORTS[0], PORTS[1]))
    tally = await storm.run()

    assert tally.mutants == MUTANTS
    assert tally.good > 50
    assert len(tally.codes) > 8, "mutants must get as far as the control"
    assert len(tally.asked_of_hostile) > 2, "the hostile source must be asked, and be hostile"
    assert tally.rss_growth_kib < RSS_GROWTH_KIB_MAX
    await until(lambda: open_things(stand) == (0, 0))
    await until(lambda: handles(stand) <= before + 2)  # the two sources, still dialled or not


def tricked() -> Iterator[Request]:
    """The usual request with each trick in each field, as far as it is of the field's type."""
    usual = v.filled("Request", live.ASKED | {"id": 0})
    for field in usual:
        for trick in mutations.TRICKS:
            try:
                yield msgspec.convert([16, *(usual | {field: trick}).values()], Request)
            except msgspec.ValidationError:
                continue


@on_trio
async def test_every_trick_in_every_field_of_a_request_is_answered_typed(stand: Town) -> None:
    """What is of the right type goes through the control and into the log, whatever it says."""
    answers: list[Answer] = []

    async def ask(client: Client, one: Request) -> None:
        answers.append(await client.ask(one, deadline_s=20))

    async with providing(stand, PORTS[0], Source()), asking(stand, CENTRE) as client:
        await ask(client, request())
        async with trio.open_nursery() as nursery:
            for one in tricked():
                nursery.start_soon(ask, client, one)
    assert answers[0].code == Code.ANSWERED_WITH_DATA
    assert len(answers) > 400
    assert sum(answer.stage < Stage.ROUTING for answer in answers) > 300
    assert len({answer.code for answer in answers}) > 10
    assert all(len(answer.exchange) == 16 for answer in answers), "each was recorded"


@pytest.mark.parametrize(
    "line", [b'{"verb":"\xff"}', b'{"x":' + b"[" * 5_000, b"", b"GET / HTTP/1.1"], ids=range(4)
)
def test_a_line_that_asks_nothing_is_refused_and_the_supervisor_goes_on(
    stand: Town, line: bytes
) -> None:
    """The admin socket is for operators, whose fingers slip too."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(stand.folder / "admin.sock"))
        sock.sendall(line + b"\n")
        with sock.makefile("rb") as answer:
            assert "error" in msgspec.json.decode(answer.readline())
    assert stand.ask().is_ready


def test_a_name_in_a_certificate_breaks_no_line_and_names_nobody_in_the_log(stand: Town) -> None:
    """It is the one text of a peer that is logged; ``judge_events`` looks at every byte."""
    logged = len(stand.events("connection_ended"))
    identity = stand.identity("evil")
    context = tls.client_context(
        certificate=identity.certificate, key=identity.key, authorities=identity.authorities
    )
    with context.wrap_socket(socket.create_connection(("127.0.0.1", stand.port))) as peer:
        peer.sendall(v.message("Hello", v.HELLO) + bytes(4))  # a fault, so that it is logged
        while peer.recv(65_536):
            pass
    trio.run(until, lambda: len(stand.events("connection_ended")) > logged)
    assert "\x1b[2J\r\n" in stand.events("connection_ended")[-1]["uri"]
    live.judge_events(stand.output)
