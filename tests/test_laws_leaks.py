"""Law 5: no number, ticket or payload in a log line, metric, exception, repr or refusal."""

import base64
import traceback
from collections.abc import Iterator
from typing import Any

import msgspec
import prometheus_client
import pytest

from ksz_router.codes import Code, Stage
from ksz_router.identifiers import Insz, InvalidIdentifierError
from ksz_router.messages import Answer, Outcome, Reply, Request
from ksz_router.privacylog.entry import canonical
from ksz_router.wire import LocalProtocolError
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, NOT_INTEGRATED, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import SourceSide
from tests.worlds import CENTRE, NIC, PERSON, RVA, STOPPED, USER_A, USER_B, ask

TICKET, QUESTION, ANSWER = "ticket-7f3a-secret", b"question-51c9-secret", b"answer-e08d-secret"
NUMBERS = (PERSON, NEIGHBOUR, NOBODY, NOT_INTEGRATED, FORMER, USER_A, USER_B)
MALFORMED = "85070399700"


def forms(secret: bytes) -> set[bytes]:
    """A secret as it stands, in hexadecimal, and in base64 wherever it may begin in a text."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + secret)
        found.add(whole[4 if shift else 0 : len(whole) // 4 * 4 - 4])
    return found


SECRETS = [
    form
    for secret in (*(n.encode() for n in (*NUMBERS, MALFORMED, TICKET)), QUESTION, ANSWER)
    for form in forms(secret)
]


def leaks(text: str | bytes) -> list[bytes]:
    """Which secrets a text gives away."""
    data = text.encode() if isinstance(text, str) else text
    return [secret for secret in SECRETS if secret in data]


def test_the_search_finds_a_secret_in_every_form() -> None:
    """The tests below are not vacuous."""
    for secret in (PERSON.encode(), QUESTION):
        assert leaks(b"x" + secret)
        assert leaks(secret.hex())
        for before in (b"", b"a", b"ab", b"abc"):
            assert leaks(base64.b64encode(before + secret + b"tail"))
    assert not leaks("nothing at all")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def questions(first: int) -> list[Request]:
    """Requests of every fate: passed, refused at each stage, malformed in each field."""
    changes: list[dict[str, Any]] = [
        {}, {}, {"person": NEIGHBOUR}, {"person": NOBODY}, {"person": NOT_INTEGRATED},
        {"person": FORMER}, {"person": MALFORMED}, {"person": PERSON + "0"}, {"person": None},
        {"user": USER_B}, {"user": MALFORMED}, {"user": PERSON}, {"application": PERSON + "0"},
        {"final_client": PERSON}, {"member": PERSON}, {"kbo": PERSON}, {"source": PERSON},
        {"service": PERSON}, {"legal_framework": PERSON}, {"capacity": 6}, {"version": 9},
        {"sector": 17, "type": 0}, {"begin": 20260101, "end": 20250101}, {"means": PERSON * 3},
        {"ticket": TICKET + "-" * 30}, {"level": 9}, {"enterprise": PERSON[:10]},
    ]  # fmt: skip
    fields = {"ticket": TICKET, "payload": QUESTION}
    return [ask(id=first + n, **(fields | more)) for n, more in enumerate(changes)]


def metrics_of(collector: prometheus_client.registry.Collector) -> bytes:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    return prometheus_client.generate_latest(registry)


@in_trio
async def test_no_refusal_metric_repr_or_entry_gives_anything_away(ground: Ground) -> None:
    """Everything that a router makes of many exchanges, but the answers with data themselves."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        asked = questions(0)
        caller.ask(*asked)
        await p.until(lambda: p.recorder.is_empty and len(source.deliveries) == 3)
        shown = [repr(thing) for thing in _everything_open(p, source)]
        replies: list[dict[str, Any]] = [
            {"payload": ANSWER}, {"person": NOBODY, "payload": ANSWER}, {"persons": (MALFORMED,)}
        ]  # fmt: skip
        for index, (_, delivery) in enumerate(source.deliveries):
            shown.append(repr(delivery))
            source.reply(index, **replies[index % 3])
        await p.until(lambda: len(caller.answers) == len(asked))

        assert len({answer.code for answer in caller.answers}) > 12
        for answer in caller.answers:
            found = leaks(msgspec.msgpack.encode(answer))
            if answer.code == Code.PERSON_REPLACED:
                assert found == [NEIGHBOUR.encode()], "who knows the person is told its new number"
            elif answer.code != Code.ANSWERED_WITH_DATA:
                assert found == []
            shown.append(repr(answer))
        shown += [repr(entry) for entry in p.durable if entry.service != PERSON]
        shown += [repr(request) for request in asked if request.service != PERSON]
        assert leaks("\n".join(shown)) == []
        assert leaks(metrics_of(p.metrics)) == []
        for entry in p.durable:
            found = leaks(canonical(entry))
            copied = {entry.service, entry.legal_framework, entry.means}
            assert not found or any(PERSON in (text or "") for text in copied)


def _everything_open(p: Parts, source: SourceSide) -> Iterator[object]:
    yield from source.deliveries
    for session in p.loop.sessions:
        yield session
        for exchange in session.inflight.values():
            assert exchange is not None
            yield from (exchange, exchange.facts.person, exchange.verdict, *exchange.errands)
    yield Insz(PERSON)
    yield Reply(id=1, outcome=Outcome.DATA, person=PERSON, payload=ANSWER)


def test_no_exception_of_ours_repeats_what_was_wrong(ground: Ground) -> None:
    """Not even the message for a programmer: a traceback ends in the operational log."""

    def raises(call: Any, *arguments: Any) -> str:
        try:
            call(*arguments)
        except (InvalidIdentifierError, LocalProtocolError, AssertionError) as error:
            return "".join(traceback.format_exception_only(error))
        raise AssertionError("it did not raise")

    said = [
        raises(Insz, MALFORMED),
        raises(ground.tokens.person, PERSON + "0"),
        raises(ground.tokens.user, PERSON[:-1] + "x"),
    ]
    assert leaks("".join(said)) == []


PLAIN = {"exchange": b"", "id": 0, "router_us": 0}
WHO_MAY_NOT: list[tuple[str, dict[str, Any], Code]] = [
    (CENTRE, {"capacity": 6}, Code.CAPACITY_NOT_GRANTED),
    (CENTRE, {"user": USER_B}, Code.SERVICE_NOT_IN_ACCESS_RIGHT),
    (CENTRE, {"version": 9}, Code.SERVICE_UNKNOWN),
    (STOPPED, {}, Code.INSTITUTION_NOT_ACTIVE),
    (RVA, {"sector": 18, "type": 0, "capacity": 1}, Code.NO_GRANT),
    (NIC, {"sector": 11, "type": 0, "capacity": 1, "service": "Handi", "version": 1},
     Code.DELIBERATION_NOT_IN_FORCE),
]  # fmt: skip


@pytest.mark.parametrize(("kbo", "changes", "code"), WHO_MAY_NOT, ids=lambda value: str(value)[:10])
@in_trio
async def test_who_may_not_ask_learns_nothing_of_a_person(
    ground: Ground, kbo: str, changes: dict[str, Any], code: Code
) -> None:
    """The same bytes, apart from ids and times, whether or not the person exists or is known."""
    persons = (PERSON, NEIGHBOUR, NOBODY, NOT_INTEGRATED, FORMER)
    async with parts(ground) as p:
        caller = await p.connect(kbo)
        caller.ask(*(ask(id=n, person=person, **changes) for n, person in enumerate(persons)))
        await p.until(lambda: len(caller.answers) == len(persons))
        assert {answer.code for answer in caller.answers} == {code}
        assert len({bare(answer) for answer in caller.answers}) == 1


@in_trio
async def test_who_does_not_know_a_person_does_not_learn_that_it_exists(ground: Ground) -> None:
    """Own integration comes before the person: nobody's number is refused as a stranger's is."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.ask(ask(id=1, person=NOBODY), ask(id=2, person=NOT_INTEGRATED))
        await p.until(lambda: len(caller.answers) == 2)
        assert {answer.stage for answer in caller.answers} == {Stage.OWN_INTEGRATION}
        assert len({bare(answer) for answer in caller.answers}) == 1


def bare(answer: Answer) -> bytes:
    """An answer as bytes, without what differs in every answer."""
    return msgspec.msgpack.encode(msgspec.structs.replace(answer, **PLAIN))
