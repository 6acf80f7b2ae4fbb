"""What is seen from outside: who is let in, the metrics, the operational log. Never a person."""

import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator

import pytest
import trio

from contrib.stand import ROOT, free_ports
from ksz_router.codes import Code
from ksz_router.privacylog.entry import Kind
from ksz_router.sdk import AuthenticationError, Delivery, Identity, Outcome, Supply
from ksz_router.tls import ALPN
from tests.integration.stands import (
    PERSONS,
    RVA,
    STRANGER,
    USER,
    Town,
    asking,
    connection_test,
    on_trio,
    providing,
    request,
    town,
    until,
)

PORT = free_ports(1)[0]
NAMES = (
    "ksz_router_build_info",
    "ksz_router_requests_total",
    "ksz_router_request_duration_seconds_bucket",
    "ksz_router_leg_duration_seconds_bucket",
    "ksz_router_source_duration_seconds_bucket",
    "ksz_router_stage_duration_seconds_bucket",
    "ksz_router_rejected_total",
    "ksz_router_violations_total",
    "ksz_router_handshakes_total",
    "ksz_router_connections",
    "ksz_router_inflight_messages",
    "ksz_router_event_loop_lag_seconds_bucket",
    "ksz_router_gc_pause_seconds_bucket",
    "ksz_router_gc_pause_max_seconds",
    "ksz_router_privacy_log_records_total",
    "ksz_router_privacy_log_append_duration_seconds_bucket",
    "ksz_router_privacy_log_batch_records_bucket",
    "ksz_router_privacy_log_last_durable_timestamp_seconds",
    "ksz_router_privacy_log_free_share",
    "ksz_router_sources",
    "ksz_router_privacy_log_next_file_failures_total",
    "ksz_router_ready",
    "ksz_router_not_ready",
    "ksz_router_held_bytes",
    "ksz_router_clock_jumps_total",
    "ksz_router_clock_offset_seconds",
    "ksz_router_directory_version",
    "ksz_router_directory_numbers",
    "ksz_router_rulebook_loaded_timestamp_seconds",
    "ksz_router_certificate_not_after_timestamp_seconds",
    "ksz_router_crl_next_update_timestamp_seconds",
    "process_start_time_seconds",
)
DOCUMENT = ROOT / "docs" / "operations.md"
LOGGED = re.compile(r'(?:log\.(?:debug|info|warning|error|critical)|tally\.add)\(\s*"(\w+)"')


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("observed") / "stand"
    with town(folder, endpoints={RVA: PORT}, workers=2) as made:
        made.start()
        yield made


@on_trio
async def test_a_certificate_that_nobody_registered_is_refused_by_name_and_recorded(
    stand: Town,
) -> None:
    """The connection stands, each request gets the same typed refusal, each has its entry."""
    async with asking(stand, STRANGER) as client:
        for asked in (request(), connection_test()):
            answer = await client.ask(asked)
            assert answer.code == Code.CERTIFICATE_NOT_REGISTERED
            assert answer.official == "MSG00013"
            written = [e for e in stand.entries() if e.exchange == answer.exchange]
            assert [(e.kind, e.code) for e in written] == [
                (Kind.REQUEST, Code.CERTIFICATE_NOT_REGISTERED),
                (Kind.OUTCOME, Code.CERTIFICATE_NOT_REGISTERED),
            ]
            assert {e.requester for e in written} == {f"urn:kbo:{STRANGER}"}


@on_trio
async def test_a_certificate_of_another_authority_is_an_authentication_error(stand: Town) -> None:
    """The SDK says so at once, and does not try again for ever."""
    other = stand.folder / "other-tls"
    stand.command("keys", "testpki", other, "--institution=stranger=urn:kbo:0999016460")
    ours = stand.identity(RVA).authorities
    identity = Identity(
        certificate=other / "stranger.crt", key=other / "stranger.key", authorities=ours
    )
    async with asking(stand, identity=identity) as client:
        with pytest.raises(AuthenticationError):
            await client.ask(connection_test())
    await until(lambda: stand.events("handshake_refused"))
    assert stand.events("handshake_refused")[-1]["code"] == "CERTIFICATE_REFUSED"


def test_nobody_comes_in_without_a_certificate(stand: Town) -> None:
    """TLS itself ends the connection, before a byte of the protocol."""
    context = ssl.create_default_context(cafile=stand.identity(RVA).authorities)
    context.set_alpn_protocols([ALPN])
    with (
        socket.create_connection(("127.0.0.1", stand.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        secured.recv(1)


async def converse(stand: Town) -> None:
    """A mixed conversation: passed, refused at each stage, malformed, failed, crashed."""

    async def handler(delivery: Delivery) -> Supply:
        if delivery.payload == b"fail":
            raise RuntimeError("on purpose")
        return Supply(Outcome.DATA, payload=b"x", persons=(PERSONS["bis"],))

    async with providing(stand, PORT, handler), asking(stand) as client:
        asked = [request(person) for person in PERSONS.values()]
        asked += [request(user="85073003328"), request(PERSONS["answered"][:-1] + "x")]
        asked += [request(service=PERSONS["answered"]), request(payload=b"fail")]
        asked += [request(ticket=PERSONS["answered"]), request(legal_framework=USER)]
        asked += [request(member=USER), request(capacity=6), connection_test()]
        codes = {(await client.ask(each)).code for each in asked}
        assert len(codes) > 8
        with socket.create_connection(("127.0.0.1", stand.port)) as broken:
            broken.sendall(f"{USER} is no TLS".encode())
        await until(lambda: {"handshake_refused"} <= {e["event"] for e in stand.events()})
        os.kill(stand.worker_pids()[0], signal.SIGKILL)
        await until(lambda: stand.events("worker_ended") and stand.is_ready)
        assert (await client.ask(request(), resend=True)).code == Code.ANSWERED_WITH_DATA


@on_trio
async def test_no_person_shows_in_the_operational_log_or_in_the_metrics(stand: Town) -> None:
    """After a conversation with persons in every place: every line is JSON, none has a number."""
    await converse(stand)
    text = stand.output.read_text(encoding="utf-8")
    told = text + stand.scrape(0) + stand.scrape(1)
    assert not re.findall(r"(?<![\w.])[0-9]{11}(?![\w.])", told)  # a digest may hold such a run
    assert all(number not in told for number in (*PERSONS.values(), USER))
    for line in text.splitlines():
        event = json.loads(line)
        assert {"event", "level", "timestamp", "process"} <= event.keys()
    stand.verify_log()


def test_every_event_is_described_for_operators(stand: Town) -> None:
    """Names are stable, so that people can search for them and alert on them."""
    sources = (ROOT / "ksz_router" / "daemon").glob("*.py")
    logged = {name for file in sources for name in LOGGED.findall(file.read_text("utf-8"))}
    section = DOCUMENT.read_text("utf-8").partition("\n## Events\n")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert described == logged
    assert {event["event"] for event in stand.events()} <= logged


@on_trio
async def test_each_worker_tells_prometheus_everything_while_it_serves(stand: Town) -> None:
    """Every promised name, and the bounds of the agreement as exact buckets."""
    async with providing(stand, PORT, pass_on), asking(stand) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.ask, request())
        assert stand.metric("ksz_router_requests_total", code="ANSWERED_WITH_DATA") >= 50
    for worker in (0, 1):
        text = stand.scrape(worker)
        for name in NAMES:
            declared = re.sub("_(bucket|total)$", "", name)
            assert re.search(rf"^# TYPE {declared}(_total)? ", text, re.MULTILINE), name
        for bound in ("1.0", "2.0"):
            line = f'request_duration_seconds_bucket{{kind="consultation",le="{bound}"}}'
            assert f"ksz_router_{line}" in text
    count = stand.metric("ksz_router_request_duration_seconds_count", kind="consultation")
    assert count >= 50


async def pass_on(delivery: Delivery) -> Supply:
    return Supply(Outcome.DATA, payload=delivery.payload)
