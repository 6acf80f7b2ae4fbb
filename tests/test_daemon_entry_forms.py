"""Entries put together by position: byte for byte what the canonical form of their names is."""

import hashlib
from typing import Any, NamedTuple, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.codes import Code
from ksz_router.daemon.entries import EntryMaker, requester_of
from ksz_router.daemon.entry_parts import KEPT
from ksz_router.daemon.opened import Errand, Exchange, Submission
from ksz_router.daemon.session import Session
from ksz_router.daemon.well_formed import public
from ksz_router.decision import Destination, Facts, Forward, Refusal, Standing
from ksz_router.identifiers import Kbo
from ksz_router.ledger import Granted
from ksz_router.limits import means_chars_max
from ksz_router.messages import Outcome, Reply, Request
from ksz_router.model import OPEN, Direction, Grant, Institution, Kind, Line, Service, Subject
from ksz_router.privacylog.entry import Entry, canonical
from ksz_router.privacylog.entry import Kind as EntryKind
from ksz_router.privacylog.keys import LABELS, QuarterKeys, Tokens

TOKENS, NEXT_TOKENS = (
    Tokens(QuarterKeys(id=f"{quarter}-00000000", **{
        label: bytes([first + number]) * 32 for number, label in enumerate(LABELS)
    }))
    for first, quarter in ((1, "2026Q4"), (101, "2027Q1"))
)  # fmt: skip
AT_US, GENERATION = 1_795_000_000_000_000, "ab" * 32

NUMBERS = st.from_regex(r"[0-9]{11}", fullmatch=True)
KBOS = st.sampled_from([Kbo("0206731645"), Kbo("0200881951"), Kbo("0999013688")])
IDS = st.binary(min_size=16, max_size=16)
SMALL = st.none() | st.integers(0, 70_000)
DAYS = st.sampled_from([20260101, 20261122, OPEN])
TEXTS = st.text(max_size=40)
ROUTER_US = st.sampled_from([-5, 0]) | st.integers(0, 1 << 40)
CODES = st.sampled_from([Code.ANSWERED_WITH_DATA, Code.SOURCE_SILENT, Code.ANSWERED_IN_PART])

REQUESTS = st.builds(
    Request,
    id=st.just(1),
    service=st.just("Asked"), version=st.just(1),
    ticket=TEXTS,
    user=st.none() | NUMBERS, application=st.none() | NUMBERS,
    means=TEXTS, level=st.integers(0, 4),
    sector=SMALL, type=SMALL, capacity=SMALL,
    legal_framework=st.none() | TEXTS, final_client=st.none() | KBOS,
    person=st.none() | NUMBERS, enterprise=st.none() | KBOS,
    payload=st.binary(max_size=300),
)  # fmt: skip
SERVICES = st.builds(
    Service, name=TEXTS, version=st.integers(1, 300), kind=st.sampled_from(Kind),
    subject=st.just(Subject.PERSON),
)  # fmt: skip
GRANTS = st.builds(
    Grant, id=TEXTS, direction=st.sampled_from(Direction), service=TEXTS,
    version=st.just(1), basis=TEXTS,
)  # fmt: skip
LINES = st.builds(
    Line, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99),
    phase=st.integers(0, 3), begin=DAYS, end=DAYS, changed=DAYS,
)  # fmt: skip
DESTINATIONS = st.lists(
    st.builds(Destination, KBOS, st.none(), violation=st.none() | st.just(Code.PHASE_TOO_LOW)),
    max_size=3,
).map(tuple)
FORWARDS = st.builds(
    Forward, acting=KBOS, service=SERVICES, role=st.none(), begin=DAYS, end=DAYS,
    grant=st.none() | GRANTS, line=st.none() | LINES, person=st.none() | NUMBERS,
    destinations=DESTINATIONS, own_violation=st.none() | st.just(Code.PHASE_TOO_LOW),
)  # fmt: skip
REPLIES = st.builds(
    Reply, id=st.just(1), outcome=st.just(Outcome.DATA), user=st.none() | NUMBERS,
    application=st.none() | NUMBERS, payload=st.binary(max_size=300),
)  # fmt: skip
HELD = st.one_of(
    st.builds(Granted, IDS, st.integers(1, 300), st.just(()), st.just(frozenset()), st.just({})),
    st.just(Code.TICKET_REUSED),
)
EXCHANGES = st.builds(
    lambda id_, request, caller, passed, put_to, submission: Exchange(
        id_, cast("Session", None), request, 0, 0,
        Facts(caller=Institution(kbo=caller, name="", uris=())), passed, GENERATION,
        tuple(put_to), submission,
    ),
    IDS, REQUESTS, KBOS,
    st.builds(
        lambda passed: msgspec.structs.replace(
            passed,
            is_spotless=passed.own_violation is None
            and all(found.violation is None for found in passed.destinations),
        ),
        FORWARDS,
    ),
    st.lists(KBOS, max_size=3),
    st.none() | st.builds(Submission, st.just(b""), IDS, HELD),
)  # fmt: skip


class End(NamedTuple):
    """How an exchange ended."""

    code: Code
    reply: Reply
    put_to: Kbo | None
    """Its source; None where no single one settled it."""
    router_us: int
    source_ns: int
    tokens: Tokens
    """Of the quarter in which it ended."""


ENDS = st.builds(
    End, CODES, REPLIES, st.none() | KBOS, ROUTER_US, st.integers(0, 1 << 50),
    st.sampled_from([TOKENS, NEXT_TOKENS]),
)  # fmt: skip


def maker(tokens: Tokens) -> EntryMaker:
    made = EntryMaker(tokens, lambda: AT_US)
    made.rights_version, made.directory_version = 4_711, 1_234_567
    return made


def both(exchange: Exchange, passed: Forward, tokens: Tokens) -> dict[str, Any]:
    """What the request and the outcome of an exchange have in common."""
    caller = exchange.facts.caller
    assert caller is not None
    return {
        "at_us": AT_US, "exchange": exchange.id,
        "service": passed.service.name, "service_version": passed.service.version,
        "requester": caller.kbo,
        "acting": None if passed.acting == caller.kbo else passed.acting,
        "person": None if passed.person is None else tokens.person(passed.person),
        "generation": GENERATION,
    }  # fmt: skip


def user_of(said: Request | Reply, tokens: Tokens) -> bytes | None:
    return None if said.user is None else tokens.user(said.user)


@given(EXCHANGES)
def test_the_entry_of_a_request_that_passed_is_the_canonical_form(exchange: Exchange) -> None:
    """Whatever was asked, whoever asked it, and whatever of it is left out."""
    request, passed, submission = exchange.request, exchange.verdict, exchange.submission
    assert isinstance(passed, Forward)
    caller, asked, grant = exchange.facts.caller, request.person, passed.grant
    assert caller is not None
    held = submission.held if submission is not None else None
    granted = held if isinstance(held, Granted) else None
    expected = Entry(
        kind=EntryKind.REQUEST, stage=int(Code.ANSWERED_WITH_DATA.stage),
        final_client=request.final_client,
        sector=request.sector, type=request.type, capacity=request.capacity,
        legal_framework=request.legal_framework,
        user=user_of(request, TOKENS), application=request.application,
        means=public(request.means, means_chars_max), level=request.level,
        ticket=TOKENS.ticket(caller.kbo, request.ticket),
        asked=None if asked in {None, passed.person} else TOKENS.person(str(asked)),
        enterprise=request.enterprise,
        begin=passed.begin, end=None if passed.end == OPEN else passed.end,
        destinations=exchange.destinations,
        rights_version=4_711, directory_version=1_234_567,
        grant="" if grant is None else grant.id, basis="" if grant is None else grant.basis,
        line=passed.line, violations=passed.violations,
        request_bytes=len(request.payload),
        digest=hashlib.sha256(request.payload).digest() if passed.service.kind in KEPT else None,
        attempt=0 if granted is None else granted.attempt,
        first=None if granted is None or granted.first == exchange.id else granted.first,
        content=None if submission is None else submission.content,
        **both(exchange, passed, TOKENS),
    )  # fmt: skip
    assert maker(TOKENS).request(exchange) == canonical(expected)


def of_same_requester(exchange: Exchange, other: Exchange, grant: Grant | None) -> Exchange:
    """What ``other`` asks, by the requester of ``exchange``, in all that the control settles once.

    And under a grant, which is another one on another day.
    """
    asking, passed, others = exchange.request, exchange.verdict, other.verdict
    assert isinstance(passed, Forward)
    assert isinstance(others, Forward)
    other.request = msgspec.structs.replace(
        other.request,
        user=asking.user, application=asking.application, means=asking.means, level=asking.level,
        sector=asking.sector, type=asking.type, capacity=asking.capacity,
        legal_framework=asking.legal_framework,
    )  # fmt: skip
    other.verdict = msgspec.structs.replace(
        others, service=passed.service, acting=passed.acting, grant=grant
    )
    other.facts = msgspec.structs.replace(exchange.facts, standing=None)
    return other


@given(st.data(), EXCHANGES, st.lists(EXCHANGES, min_size=1, max_size=4))
def test_what_is_kept_of_a_requester_changes_no_entry(
    data: st.DataObject, exchange: Exchange, others: list[Exchange]
) -> None:
    """The next requests have the entries that they would have if nothing had been kept.

    In a batch, under the tokens of another quarter, and under another grant, too.
    """
    passed = exchange.verdict
    assert isinstance(passed, Forward)
    grants = st.sampled_from([passed.grant, data.draw(GRANTS), None])
    others = [of_same_requester(exchange, other, data.draw(grants)) for other in others]
    tokens = data.draw(st.sampled_from([TOKENS, NEXT_TOKENS]))
    expected = [maker(tokens).request(other) for other in others]
    standing = Standing(20261122)
    for one in (exchange, *others):
        one.facts = msgspec.structs.replace(one.facts, standing=standing)
    maker(TOKENS).request(exchange)
    assert list(maker(tokens).requests(others)) == expected


@given(EXCHANGES, ENDS)
def test_the_entry_of_an_outcome_is_the_canonical_form(exchange: Exchange, end: End) -> None:
    """With and without a source that answered, and where a quarter ended between the two."""
    passed, submission = exchange.verdict, exchange.submission
    assert isinstance(passed, Forward)
    maker(TOKENS).request(exchange)
    code, reply, put_to, router_us, source_ns, tokens = end
    errand, destinations = None, exchange.destinations
    if put_to is not None:
        errand, destinations = Errand(exchange, put_to, put_to), (put_to,)
        errand.sent_ns, errand.answered_ns = 7, 7 + source_ns
    expected = Entry(
        kind=EntryKind.OUTCOME, code=int(code), stage=int(code.stage),
        user=user_of(reply, tokens), application=reply.application,
        destinations=destinations, answer_bytes=len(reply.payload),
        digest=None if submission is None else hashlib.sha256(reply.payload).digest(),
        router_us=max(0, router_us), source_us=0 if errand is None else source_ns // 1000,
        **both(exchange, passed, tokens),
    )  # fmt: skip
    (made,) = maker(tokens).outcome(exchange, code, router_us=router_us, errand=errand, reply=reply)
    assert made == canonical(expected)


@given(EXCHANGES, st.sampled_from([Code.NO_GRANT, Code.PERSON_UNKNOWN]))
def test_the_outcome_of_a_refusal_says_only_who_asked(exchange: Exchange, code: Code) -> None:
    """What was asked for stands with the request, as far as it was sound; here nobody judged it."""
    exchange.verdict, exchange.submission = Refusal(code), None
    expected = Entry(
        kind=EntryKind.OUTCOME, at_us=AT_US, exchange=exchange.id,
        code=int(code), stage=int(code.stage), requester=requester_of(exchange),
        destinations=exchange.destinations, generation=GENERATION,
    )  # fmt: skip
    made = maker(TOKENS)
    made.request(exchange)
    assert made.outcome(exchange, code, router_us=0) == [canonical(expected)]
