"""Entries: what article 7, 5° b asks for, nothing a peer made up, and never too long to record."""

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.codes import Code, Stage
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.daemon.session import Session
from ksz_router.decision import Forward, decide
from ksz_router.limits import record_bytes_max
from ksz_router.messages import Outcome, Reply, Request
from ksz_router.model import Line
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.wire import Message
from tests.daemon_ground import NEIGHBOUR, NOBODY, Ground
from tests.daemon_parts import in_trio, parts
from tests.worlds import (
    CENTRE,
    KNOWN,
    MANAGER,
    PERSON,
    POD_MI,
    PROGRAM,
    RSZ,
    RVA,
    TODAY,
    USER_A,
    USER_B,
    ask,
    uri,
)

decode = msgspec.msgpack.Decoder(Message).decode


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    made.entries.now_us = lambda: 1
    yield made
    made.close()


class Somebody:
    """The part of a session that an entry may look at."""

    def __init__(self, name: str) -> None:
        self.uri = name


def judged(ground: Ground, request: Request, name: str = uri(CENTRE)) -> Exchange:
    """A request as the router holds it once the control spoke."""
    session = cast("Session", Somebody(name))
    (facts,) = ground.tables.look_up([(session, request)], 0)
    verdict = decide(request, facts, TODAY)
    put_to = verdict.put_to if isinstance(verdict, Forward) else ()
    return Exchange(
        id=bytes(range(16)), session=session, request=request, received_ns=0, deadline_ns=0,
        facts=facts, verdict=verdict, generation=ground.tables.generation,
        destinations=tuple([found.kbo for found in put_to]),
    )  # fmt: skip


def entry_of(ground: Ground, request: Request, name: str = uri(CENTRE)) -> Entry:
    return parse(ground.entries.request(judged(ground, request, name)))


def test_a_passing_request_is_recorded_with_all_that_the_agreement_asks(ground: Ground) -> None:
    """Kind of message, user, institution it goes to, person, capacity; and what decided."""
    request = ask(
        member=CENTRE, final_client=RSZ, means="eID", level=3, application=PROGRAM,
        begin=20260101, payload=b"12345",
    )  # fmt: skip
    entry, tokens = entry_of(ground, request, uri(MANAGER)), ground.tokens
    (own,) = [line for line in KNOWN.lines if line.sector == 17]

    assert (entry.kind, entry.code, entry.stage) == (Kind.REQUEST, 0, Stage.ANSWERED)
    assert (entry.service, entry.service_version) == ("UnemploymentData", 3)
    assert (entry.requester, entry.acting, entry.final_client) == (MANAGER, CENTRE, RSZ)
    assert (entry.user, entry.application) == (tokens.user(USER_A), PROGRAM)
    assert (entry.means, entry.level) == ("eID", 3)
    assert (entry.person, entry.asked, entry.capacity) == (tokens.person(PERSON), None, 2)
    assert (entry.sector, entry.type) == (17, 1)
    assert (entry.destinations, entry.grant, entry.basis) == ((RVA,), "ocmw-unemployment", "19/901")
    assert entry.line == Line(own.sector, own.type, own.capacity, own.phase, own.begin, own.end)
    assert (entry.begin, entry.end) == (20260101, None)
    assert (entry.generation, entry.directory_version) == (ground.world.name, 1)
    assert (entry.request_bytes, entry.digest) == (5, None)
    assert entry.exchange == bytes(range(16))
    assert entry.ticket == tokens.ticket(MANAGER, "ticket-1") != tokens.ticket(CENTRE, "ticket-1")


@in_trio
async def test_an_outcome_names_who_supplied_it_and_how_long_it_took(ground: Ground) -> None:
    """The second line of an exchange: its end, its source, times of both sides and no payload."""
    async with parts(ground) as p:
        source, caller = p.add_source(POD_MI), await p.connect()
        caller.ask(ask(service="A036", version=1, payload=b"submission"))
        await p.until(lambda: source.deliveries)
        p.now_ns += 3_000_000
        source.reply(user=USER_B, payload=b"receipt")
        await p.until(lambda: caller.answers)

        request, outcome = p.entries_of(caller.answers[0].exchange)
        assert request.digest is not None, "a submission is told from another by its content"
        assert (outcome.kind, outcome.code) == (Kind.OUTCOME, Code.ANSWERED_WITH_DATA)
        assert outcome.user == ground.tokens.user(USER_B)
        assert (outcome.destinations, outcome.answer_bytes) == ((POD_MI,), 7)
        assert (outcome.source_us, caller.answers[0].source_us) == (3_000, 3_000)
        assert (outcome.service, outcome.requester) == (request.service, request.requester)
        assert outcome.at_us > request.at_us
        assert outcome.digest == hashlib.sha256(b"receipt").digest()


def test_every_field_of_a_passing_exchange_stands_in_its_place(ground: Ground) -> None:
    """The entries that are put together by position are those that the names say."""
    request = ask(
        member=CENTRE, final_client=RSZ, means="eID", level=3, application=PROGRAM,
        begin=20260101, end=20260630, payload=b"12345",
    )  # fmt: skip
    exchange, tokens = judged(ground, request, uri(MANAGER)), ground.tokens
    ground.entries.now_us = lambda: 1
    passed = exchange.verdict
    assert isinstance(passed, Forward)
    both: dict[str, Any] = {
        "at_us": 1, "exchange": exchange.id, "service": "UnemploymentData", "service_version": 3,
        "requester": MANAGER, "acting": CENTRE, "person": tokens.person(PERSON),
        "destinations": (RVA,), "generation": ground.world.name,
    }  # fmt: skip
    asked = Entry(
        kind=Kind.REQUEST, stage=int(Stage.ANSWERED), final_client=RSZ, sector=17, type=1,
        capacity=2, user=tokens.user(USER_A), application=PROGRAM, means="eID", level=3,
        ticket=tokens.ticket(MANAGER, "ticket-1"), begin=20260101, end=20260630,
        directory_version=1, grant="ocmw-unemployment", basis="19/901", line=passed.line,
        request_bytes=5, **both,
    )  # fmt: skip
    assert parse(ground.entries.request(exchange)) == asked

    errand = Errand(exchange, RVA, CENTRE)
    errand.sent_ns, errand.answered_ns = 1_000_000, 8_999_999
    reply = Reply(
        id=1, outcome=Outcome.DATA, persons=(NEIGHBOUR, NOBODY, NEIGHBOUR), user=USER_B,
        application=PROGRAM, payload=b"1234567",
    )  # fmt: skip
    code = Code.ANSWERED_WITH_DATA
    ended = Entry(
        kind=Kind.OUTCOME, code=int(code), stage=int(code.stage), user=tokens.user(USER_B),
        application=PROGRAM, answer_bytes=7, router_us=150, source_us=7_999, **both,
    )  # fmt: skip
    further = Entry(kind=Kind.FURTHER, code=int(code), stage=int(code.stage), **both)
    further = msgspec.structs.replace(further, generation="")
    made = ground.entries.outcome(exchange, code, router_us=150, errand=errand, reply=reply)
    assert list(map(parse, made)) == [
        ended,
        *[
            msgspec.structs.replace(further, person=tokens.person(person))
            for person in (NEIGHBOUR, NOBODY)
        ],
    ]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"person": "12345678901"}, {"person": None, "asked": None}),
        ({"user": "x" * 5_000}, {"user": None}),
        ({"application": "0090100010a"}, {"application": None}),
        ({"final_client": "0999016461"}, {"final_client": None}),
        ({"member": NEIGHBOUR}, {"acting": None}),
        ({"kbo": "?" * 10}, {"acting": None}),
        ({"enterprise": "0999016461"}, {"enterprise": None}),
        ({"sector": -1, "type": 1 << 40}, {"sector": None, "type": None}),
        ({"capacity": 1 << 63}, {"capacity": None}),
        ({"version": -5}, {"service_version": 0}),
        ({"level": 1 << 50}, {"level": 0}),
        ({"service": NEIGHBOUR}, {"service": "(withheld)"}),
        ({"means": f"card of {NEIGHBOUR}"}, {"means": "(withheld)"}),
        ({"legal_framework": NEIGHBOUR, "capacity": None}, {"legal_framework": "(withheld)"}),
    ],
    ids="+".join,
)
def test_what_is_malformed_is_not_copied(
    ground: Ground, changes: dict[str, Any], fields: dict[str, Any]
) -> None:
    """A refused request is recorded with what of it is sound; the rest could be anything."""
    entry = entry_of(ground, ask(**changes))
    assert {name: getattr(entry, name) for name in fields} == fields
    assert (entry.kind, entry.requester) == (Kind.REQUEST, CENTRE)
    assert (entry.code != 0) == ("means" not in changes), "no rule is about what means there are"


def test_a_refusal_still_names_the_person_who_was_asked_about(ground: Ground) -> None:
    """Who asked about whom in vain is exactly what an auditor looks for."""
    entry = entry_of(ground, ask(person=NOBODY))
    assert entry.code == Code.PERSON_NOT_INTEGRATED
    assert entry.person == ground.tokens.person(NOBODY)
    assert (entry.grant, entry.destinations) == ("ocmw-unemployment", ())


def test_a_stranger_is_recorded_under_the_name_of_its_certificate(ground: Ground) -> None:
    """Without a KBO number the URI stands for the requester, clipped."""
    name = "urn:" + "x" * 1_000
    entry = entry_of(ground, ask(), name)
    assert (entry.code, entry.requester) == (Code.CERTIFICATE_NOT_REGISTERED, name[:255])


INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([PERSON, USER_A, PROGRAM, CENTRE, MANAGER, RSZ, "UnemploymentData", ""]),
    st.builds(lambda char, n: char * n, st.characters(codec="utf-8"), st.integers(30, 6_000)),
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("service", "ticket", "means"), TEXTS),
            **{
                name: st.none() | TEXTS
                for name in ("user", "application", "kbo", "legal_framework", "member",
                             "final_client", "person", "enterprise", "source")
            },
            **dict.fromkeys(("version", "level", "deadline_ms"), INTEGERS),
            **{
                name: st.none() | INTEGERS
                for name in ("sector", "type", "capacity", "begin", "end")
            },
        },
    ),
    st.sampled_from([uri(CENTRE), uri(MANAGER), "urn:" + "é" * 400]),
)  # fmt: skip
def test_every_request_that_decodes_can_be_recorded(
    ground: Ground, changes: dict[str, Any], name: str
) -> None:
    """Whatever a peer sends within a frame, its entries are canonical and within their bound."""
    sent = ask(**changes)
    request = decode(msgspec.msgpack.encode(sent))
    assert isinstance(request, Request)
    exchange = judged(ground, request, name)
    code = Code.ANSWERED_WITH_DATA
    if not isinstance(exchange.verdict, Forward):
        code = exchange.verdict.code
    records = [ground.entries.request(exchange)]
    records += ground.entries.outcome(exchange, code, router_us=1 << 40)
    for record in records:
        assert len(record) <= record_bytes_max
        assert parse(record).requester is not None
