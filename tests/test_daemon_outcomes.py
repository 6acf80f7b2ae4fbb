"""What a requester is answered, and what is counted of it."""

import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ksz_router.codes import MEANINGS, Action, Code, Stage
from ksz_router.daemon import answers, worker_process
from ksz_router.daemon.histogram import SECONDS
from ksz_router.daemon.metrics import Metrics, blame
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.daemon.session import Session
from ksz_router.decision import Destination, Facts, Forward, Refusal
from ksz_router.identifiers import Kbo
from ksz_router.messages import Outcome, Reply
from ksz_router.model import Kind, Role, Service, Subject
from tests.daemon_ground import FORMER, NEIGHBOUR, Ground
from tests.daemon_parts import in_trio, parts
from tests.worlds import (
    CENTRE,
    DEPARTMENT,
    MUTATIONS_PROGRAM,
    NIC,
    REGISTER,
    RVA,
    ask,
    uri,
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def settled(kind: Kind, *codes: Code, in_outage: tuple[Kbo, ...] = ()) -> Exchange:
    """An exchange whose errands ended so."""
    service = Service(name="S", version=1, kind=kind, subject=Subject.NONE)
    verdict = Forward(
        acting=Kbo(CENTRE), service=service, role=None, begin=1, end=1, grant=None, line=None,
        person=None, destinations=(Destination(CENTRE, Role(1, 1)),), in_outage=in_outage,
    )  # fmt: skip
    exchange = Exchange(
        id=bytes(16), session=cast("Session", None), request=ask(), received_ns=0, deadline_ns=0,
        facts=Facts(caller=None), verdict=verdict, generation="g", destinations=(),
    )  # fmt: skip
    for number, code in enumerate(codes):
        errand = Errand(exchange, Kbo(str(number)), CENTRE)
        errand.code = code
        exchange.errands.append(errand)
    return exchange


def forward_of(exchange: Exchange) -> Forward:
    """Its verdict."""
    assert isinstance(exchange.verdict, Forward)
    return exchange.verdict


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name.lower())
def test_a_retry_moment_is_there_exactly_where_the_action_asks_for_one(code: Code) -> None:
    """Every code that may be an answer carries its whole meaning, as the registry has it."""
    if code.stage in (Stage.ROUTING, Stage.ANSWERED):
        exchange = settled(Kind.CONSULTATION, code)
        reply = Reply(id=1, outcome=Outcome.DATA, payload=b"data", persons=(NEIGHBOUR,))
        (errand,) = exchange.errands
        answer = answers.outcome(errand, forward_of(exchange), code, reply, lambda _: 77)
        assert (answer.payload, answer.persons) == (b"data", (NEIGHBOUR,))
    elif code.stage is Stage.LINK:
        answer = answers.not_admitted(ask(), code, limit=0, now_ms=77 - answers.RETRY_AFTER_MS)
    else:
        retry_at_ms = 77 if MEANINGS[code].action is Action.RETRY_AT else 0
        exchange = settled(Kind.CONSULTATION, code)
        answer = answers.refusal(exchange, Refusal(code, retry_at_ms=retry_at_ms))
    meaning = MEANINGS[code]
    if code.stage is not Stage.LINK or meaning.action is Action.RETRY_AT:
        assert answer.retry_at_ms == (77 if meaning.action is Action.RETRY_AT else None)
    assert (answer.code, answer.stage, answer.action) == (code, code.stage, meaning.action)
    assert (answer.official, answer.status) == (meaning.official, meaning.status)


W, N, S = Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA, Code.SOURCE_SILENT


@pytest.mark.parametrize(
    ("codes", "in_outage", "overall"),
    [
        ((W, W), (), W),
        ((N, N), (), N),
        ((W, N), (), W),
        ((W, S), (), Code.ANSWERED_IN_PART),
        ((S, S), (), S),
        ((S, Code.SOURCE_UNREACHABLE), (), S),
        ((W, W), (Kbo("9"),), Code.ANSWERED_IN_PART),
        ((S,), (Kbo("9"),), S),
    ],
)
def test_a_distribution_is_one_answer_with_a_status_per_recipient(
    codes: tuple[Code, ...], in_outage: tuple[Kbo, ...], overall: Code
) -> None:
    """Also those in an announced outage are named; no recipient's payload is passed on."""
    exchange = settled(Kind.DISTRIBUTION, *codes, in_outage=in_outage)
    answer = answers.distributed(exchange, forward_of(exchange), lambda _: 77)
    assert answer.code == overall
    assert [status.code for status in answer.recipients] == [
        *codes,
        *[Code.ANNOUNCED_OUTAGE] * len(in_outage),
    ]
    assert (answer.payload, answer.persons) == (b"", ())


@in_trio
async def test_a_distribution_reaches_all_and_waits_for_the_last(ground: Ground) -> None:
    """One answer, at the last recipient's or at the deadline, and each recipient is recorded."""
    async with parts(ground) as p:
        rva, nic, register = p.add_source(RVA), p.add_source(NIC), await p.connect(REGISTER)
        fields: dict[str, Any] = {
            "service": "MutationsSender", "version": 1, "user": None, "capacity": None,
            "sector": None, "type": None, "application": MUTATIONS_PROGRAM,
            "legal_framework": "RR:MUTATIONS",
        }  # fmt: skip
        register.ask(ask(id=1, **fields))
        await p.until(lambda: rva.deliveries and nic.deliveries)
        rva.reply(outcome=Outcome.NO_DATA, payload=b"")
        await p.until(lambda: p.recorder.is_empty and not p.upstream.sources[RVA].inflight)
        assert register.answers == []
        nic.reply(outcome=Outcome.NO_DATA, payload=b"")
        await p.until(lambda: register.answers)
        register.ask(ask(id=2, ticket="another", **fields))
        await p.until(lambda: len(rva.deliveries) == len(nic.deliveries) == 2)
        rva.reply(outcome=Outcome.NO_DATA, payload=b"")
        p.pass_time(10.01)
        await p.until(lambda: len(register.answers) == 2)

        statuses = {n: {s.kbo: s.code for s in register.answer_to(n).recipients} for n in (1, 2)}
        assert statuses == {1: {RVA: N, NIC: N}, 2: {RVA: N, NIC: S}}
        assert [answer.code for answer in register.answers] == [N, Code.ANSWERED_IN_PART]
        ways = [(e.destinations, e.code) for e in p.entries_of(register.answers[1].exchange)[1:]]
        assert ((RVA,), N) in ways
        assert ((NIC,), S) in ways


@in_trio
async def test_a_refusal_names_the_field_the_new_number_or_the_moment(ground: Ground) -> None:
    """What to mend is said in the detail, and only what the code is about."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.ask(
            ask(id=1, ticket=""),
            ask(id=2, person=FORMER),
            ask(id=3, service="SelfEmployed", version=2),
            ask(id=4, capacity=6),
        )
        await p.until(lambda: len(caller.answers) == 4)

        assert [dict(caller.answer_to(n).detail) for n in (1, 2, 3, 4)] == [
            {"field": "ticket"},
            {"field": "person", "newSSIN": NEIGHBOUR},
            {},
            {},
        ]
        until_ms = caller.answer_to(3).retry_at_ms
        assert until_ms is not None
        assert until_ms > p.wall_ns() // 1_000_000
        assert {caller.answer_to(n).retry_at_ms for n in (1, 2, 4)} == {None}


@in_trio
async def test_the_routers_own_test_says_how_it_sees_the_caller(ground: Ground) -> None:
    """Answered here, recorded like any other, and forwarded to nobody."""
    async with parts(ground) as p:
        caller = await p.connect(DEPARTMENT)
        caller.ask(
            ask(service="TestConnectionService", version=1, person=None, user=None, capacity=None,
                sector=None, type=None)
        )  # fmt: skip
        await p.until(lambda: caller.answers)

        (answer,) = caller.answers
        seen = msgspec.json.decode(answer.payload)
        assert (seen["institution"], seen["uri"]) == (DEPARTMENT, uri(DEPARTMENT))
        assert (seen["roles"], seen["tls"], seen["protocol"]) == (["40/6"], "TLSv1.3", 1)
        assert seen["generation"] == ground.world.name
        assert [entry.code for entry in p.entries_of(answer.exchange)] == [0, W]
        assert p.upstream.sources == {}


def scraped(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample that Prometheus reads, by name and label values."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(metrics)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(
        prometheus_client.generate_latest(registry).decode()
    ):
        for sample in family.samples:
            assert re.fullmatch("ksz_router_[a-z_]+", sample.name)
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_bounds_of_the_agreement_are_exact_buckets() -> None:
    """Article 7, 2° a: how many within 1 s and within 2 s can be read off, to the message."""
    metrics = Metrics()
    metrics.gauges["things"] = "Things.", lambda: 3.0
    for router_s in (0.0004, 1.0, 1.000_001, 2.0, 2.000_001, 60.0):
        metrics.answered(
            kind=Kind.CONSULTATION, code=W, router_ns=round(router_s * 1e9), outcome_leg_ns=1
        )
    found = scraped(metrics)
    buckets = found["ksz_router_request_duration_seconds_bucket"]
    assert {1.0, 2.0} <= set(SECONDS)
    assert [buckets["consultation", le] for le in ("0.001", "1.0", "2.0", "+Inf")] == [1, 2, 4, 6]
    assert found["ksz_router_request_duration_seconds_count"]["consultation",] == 6
    assert found["ksz_router_requests_total"] == {
        ("none", "ANSWERED_WITH_DATA", "consultation", "answered"): 6
    }
    assert found["ksz_router_things"] == {(): 3}


@in_trio
async def test_each_stage_of_an_exchange_is_timed(ground: Ground) -> None:
    """Once an exchange, and a commit for each of its two groups."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        before = scraped(p.metrics)["ksz_router_stage_duration_seconds_count"]
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply()
        await p.until(lambda: caller.answers)
        after = scraped(p.metrics)["ksz_router_stage_duration_seconds_count"]
        assert {stage: after[stage,] - count for (stage,), count in before.items()} == {
            "decode": 1, "look_up": 1, "decide": 1, "commit": 2, "source": 1, "answer": 1,
        }  # fmt: skip


@in_trio
async def test_no_peer_can_add_a_label(ground: Ground) -> None:
    """Whatever is asked, the series stay those of kinds and codes: none carries a peer's text."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.ask(*(ask(id=n, service=f"Service{n}", version=n) for n in range(50)))
        await p.until(lambda: len(caller.answers) == 50)
        found = scraped(p.metrics)
        assert found["ksz_router_requests_total"] == {
            ("requester", "SERVICE_UNKNOWN", "unknown", "syntax"): 50
        }
        labels = {value for rows in found.values() for names in rows for value in names}
        assert not [value for value in labels if "Service" in value]


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name.lower())
def test_somebody_is_to_act_on_every_code(code: Code) -> None:
    """The blame label has four values, and nobody is to act where the source answered."""
    assert blame(code) in {"none", "requester", "source", "router"}
    assert (blame(code) == "none") >= (code.stage is Stage.ANSWERED)


def test_what_a_retry_or_the_ledger_settles_is_not_blamed_on_a_source() -> None:
    """An alert on failing sources stays quiet, and one on the router hears of a full ledger."""
    assert blame(Code.LEDGER_FULL) == "router"
    codes = (Code.TICKET_REUSED, Code.SUBMISSION_OPEN, Code.DELIVERY_TOO_LARGE)
    assert {blame(code) for code in codes} == {"requester"}


def test_the_longest_pause_of_the_collector_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A histogram says how many were long; only a maximum says how long the worst was."""
    metrics = Metrics()
    pauses = worker_process._Pauses(metrics)
    times = iter((1.0, 1.002, 5.0, 5.021, 9.0, 9.003))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    for phase in ("start", "stop") * 3:
        pauses(phase, {})
    monkeypatch.undo()
    found = scraped(metrics)
    assert found["ksz_router_gc_pause_seconds_count"] == {(): 3}
    assert found["ksz_router_gc_pause_max_seconds"] == {(): pytest.approx(0.021)}
