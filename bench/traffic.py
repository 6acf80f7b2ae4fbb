"""Exchanges of a country, and their entries made by the code that makes them in a worker.

Who asks, of whom and about whom is drawn: 3,000 institutions of very different size, each with
2,000 users, 200 services, 25 million persons. One exchange in ten is a submission, three in a
hundred are refused, one answer in a hundred concerns a further person. Only the peers are made up:
requests, verdicts and replies are the router's own structs, and ``EntryMaker`` makes the entries.
"""

import hashlib
import time
from random import Random
from typing import NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from bench.large import INSTITUTIONS, SERVICES
from ksz_router.codes import Code
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.opened import Errand, Exchange, Submission
from ksz_router.daemon.session import Session
from ksz_router.decision import Destination, Facts, Forward, Refusal
from ksz_router.identifiers import Kbo
from ksz_router.ledger import Granted
from ksz_router.messages import Outcome, Reply, Request
from ksz_router.model import OPEN, Direction, Grant, Institution, Kind, Line, Role, Service, Subject
from ksz_router.privacylog.keys import Tokens

USERS, PERSONS, SOURCES = 2_000, 25_000_000, 60
SUBMITTED_SHARE, REFUSED_SHARE, FURTHER_SHARE = 0.10, 0.03, 0.01
_CONTEXTS, _PAYLOADS, _TIMES, _WITH_USER_SHARE, _PATH_A_SHARE = 8_192, 64, 65_536, 0.9, 0.7
_TODAY, _GENERATION = 20261122, hashlib.sha256(b"generation").hexdigest()
_PLACES = ((17, 1, 2), (17, 2, 1), (11, 0, 1), (18, 0, 2), (12, 0, 10), (16, 0, 1), (25, 0, 1))
_REFUSALS = (Code.NO_GRANT, Code.PERSON_UNKNOWN, Code.PERSON_NOT_INTEGRATED)


N = TypeVar("N", int, npt.NDArray[np.int64])

_DAYS, _COUNTERS, _STRIDE = 12 * 28, 998, 7_368_787
NUMBERS = 100 * _DAYS * _COUNTERS
"""So many persons and users can be told apart."""


def insz(number: int) -> str:
    """Return a synthetic number of a person, another for each up to ``NUMBERS``.

    Born in the twentieth century, on one of the first 28 days of a month; neighbours lie apart.
    """
    body = insz_body(number)
    return f"{body:09}{97 - body % 97:02}"


def insz_body(number: N) -> N:
    """Return its first nine digits; of an array of numbers, an array."""
    day, counter = divmod(number * _STRIDE % NUMBERS, _COUNTERS)
    month, day_of_month = divmod(day % _DAYS, 28)
    date = day // _DAYS * 10_000 + (month + 1) * 100 + day_of_month + 1
    return date * 1_000 + counter + 1


def program(number: int) -> str:
    """Return a synthetic program number."""
    return f"009901{number:05}"


def kbo(number: int) -> Kbo:
    """Return the number of a synthetic institution."""
    body = 9_980_000 + number
    return Kbo(f"{body:08}{97 - body % 97:02}")


class Clock:
    """Unix microseconds that never stand still, as a worker counts them."""

    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        now_us, last_us = time.time_ns() // 1000, self._last_us
        self._last_us = now_us = now_us if now_us > last_us else last_us + 1
        return now_us


class _Context(NamedTuple):
    """Everything about an exchange that is not drawn anew for each."""

    requester: int
    own: Kbo
    session: Session
    facts: Facts
    service: Service
    grant: Grant
    place: tuple[int, int, int]
    framework: str | None
    destinations: tuple[Destination, ...]
    put_to: tuple[Kbo, ...]
    final_client: Kbo | None
    begin: int


class _Caller:
    """The part of a session that an entry may look at."""

    def __init__(self, number: Kbo) -> None:
        self.uri = f"urn:kbo:{number}"


class Traffic:
    """Draws exchanges and makes their entries. One seed, one process.

    Args:
        tokens: Of the quarter.
        seed: Of all that is drawn.
        institutions: How many ask.
    """

    def __init__(self, tokens: Tokens, *, seed: int, institutions: int = INSTITUTIONS) -> None:
        self.maker = EntryMaker(tokens, Clock().now_us)
        self.maker.generation, self.maker.rights_version = _GENERATION, 4_711
        self.maker.directory_version = 1_234_567
        self._random = Random(seed)
        self._new_ids = ExchangeIds(time.time_ns)
        self._payloads = [
            self._random.randbytes(int(self._random.lognormvariate(6.2, 0.8)))
            for _ in range(_PAYLOADS)
        ]
        draw = self._random.lognormvariate
        self._source_ns = [int(draw(16.8, 0.7)) for _ in range(_TIMES)]
        self._router_us = [int(draw(7.0, 0.5)) for _ in range(_TIMES)]
        self._lines = [
            Line(*place, phase=0, begin=20_000_101 + 10_000 * n, end=OPEN, changed=20_200_101 + n)
            for place in _PLACES
            for n in range(24)
        ]
        self._contexts = [self._context(institutions) for _ in range(_CONTEXTS)]

    def asked(self) -> Exchange:
        """Draw an exchange whose verdict was just given."""
        drawn = self._random.random
        context = self._contexts[int(drawn() * _CONTEXTS)]
        person = insz(int(drawn() * PERSONS))
        with_user = drawn() < _WITH_USER_SHARE
        user = insz(PERSONS + context.requester * USERS + int(drawn() * USERS))
        is_a = context.framework is None
        sector, type_, capacity = context.place
        service, grant = context.service, context.grant
        request = Request(
            id=0,
            service=service.name,
            version=1,
            ticket=f"{self._random.getrandbits(128):032x}",
            user=user if with_user else None,
            application=None if with_user else program(context.requester),
            means="eID" if with_user else "",
            level=3 if with_user else 0,
            sector=sector if is_a else None,
            type=type_ if is_a else None,
            capacity=capacity if is_a else None,
            legal_framework=context.framework,
            final_client=context.final_client,
            person=person,
            begin=context.begin,
            payload=self._payloads[int(drawn() * _PAYLOADS)],
        )
        verdict: Forward | Refusal
        put_to: tuple[Kbo, ...] = ()
        if drawn() < REFUSED_SHARE:
            verdict = Refusal(_REFUSALS[int(drawn() * len(_REFUSALS))], grant=grant.id)
        else:
            put_to = context.put_to
            verdict = Forward(
                acting=context.own,
                service=service,
                role=grant.role,
                begin=context.begin,
                end=OPEN,
                grant=grant,
                line=self._lines[int(drawn() * len(self._lines))],
                person=person,
                destinations=context.destinations,
            )
        exchange = Exchange(
            self._new_ids(1)[0], context.session, request, 0, 0,
            context.facts, verdict, _GENERATION, put_to,
        )  # fmt: skip
        if service.kind is Kind.SUBMISSION and put_to:
            granted = Granted(exchange.id, 1, put_to, frozenset(), {})
            exchange.submission = Submission(
                b"", self.maker.tokens.content(request.payload), granted
            )
        return exchange

    def request(self, exchange: Exchange) -> list[bytes]:
        """Return the entry of a request; of a refused one, that of its answer too."""
        entry = self.maker.request(exchange)
        return [entry, *self.refused(exchange)]

    def refused(self, exchange: Exchange) -> list[bytes]:
        """Return the entry of the answer to a request that was refused; of another, none."""
        if isinstance(exchange.verdict, Refusal):
            return self.maker.outcome(exchange, exchange.verdict.code, router_us=0)
        return []

    def replied(self, exchange: Exchange) -> tuple[Errand, Reply, int]:
        """Draw what the source of a forwarded exchange said, and how long the router took."""
        drawn = self._random.random
        errand = Errand(exchange, exchange.destinations[0], exchange.destinations[0])
        errand.sent_ns = 1
        errand.answered_ns = 1 + self._source_ns[int(drawn() * _TIMES)]
        persons = (insz(int(drawn() * PERSONS)),) if drawn() < FURTHER_SHARE else ()
        reply = Reply(
            id=0,
            outcome=Outcome.DATA,
            persons=persons,
            application=program(SOURCES),
            payload=self._payloads[int(drawn() * _PAYLOADS)],
        )
        return errand, reply, self._router_us[int(drawn() * _TIMES)]

    def outcome(self, exchange: Exchange, replied: tuple[Errand, Reply, int]) -> list[bytes]:
        """Return the entries of an answer."""
        errand, reply, router_us = replied
        code = Code.ANSWERED_WITH_DATA
        return self.maker.outcome(exchange, code, router_us=router_us, errand=errand, reply=reply)

    def _context(self, institutions: int) -> _Context:
        random = self._random
        requester = _skewed(random, institutions)
        number = random.randrange(SERVICES)
        is_submission = number % round(1 / SUBMITTED_SHARE) == 0
        service = Service(
            name=f"Large{number:03}",
            version=1,
            kind=Kind.SUBMISSION if is_submission else Kind.CONSULTATION,
            subject=Subject.PERSON,
        )
        place = random.choice(_PLACES)
        is_a = random.random() < _PATH_A_SHARE
        held = random.randrange(100_000)
        grant = Grant(
            id=f"large-{held}",
            direction=Direction.SEND if is_submission else Direction.REQUEST,
            service=service.name,
            version=1,
            role=Role(*place[:2]),
            basis=f"L/{held // 1_000}",
        )
        own, source = kbo(requester), kbo(INSTITUTIONS + _skewed(random, SOURCES))
        caller = Institution(kbo=own, name=f"Synthetic {requester}", uris=(f"urn:kbo:{own}",))
        return _Context(
            requester=requester,
            own=own,
            session=cast("Session", _Caller(own)),
            facts=Facts(caller=caller, service=service),
            service=service,
            grant=grant,
            place=place,
            framework=None if is_a else f"LARGE:{held % 300}",
            destinations=(Destination(source, Role(18, 0)),),
            put_to=(source,),
            final_client=None if random.random() < 0.9 else kbo(random.randrange(institutions)),
            begin=random.choice((_TODAY, _TODAY, 20260101, 20250101)),
        )


def _skewed(random: Random, count: int) -> int:
    """Draw from 0 up to ``count``: half of all that is asked is asked by a twentieth of them."""
    return int(count * random.random() ** 4.3)
