"""Law 3: whatever a source does, every request gets exactly one answer, within its deadline."""

from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.codes import MEANINGS, Action, Code, Stage
from ksz_router.config import Sources, Windows
from ksz_router.decision import Facts
from ksz_router.identifiers import Kbo
from ksz_router.limits import hello_bytes_max
from ksz_router.messages import Answer, Delivery, Outcome, Request
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import NEIGHBOUR, NOBODY, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller, SourceSide
from tests.worlds import RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


class Act(Enum):
    """What a source does with one delivery."""

    ANSWERS = auto()
    HAS_NOTHING = auto()
    FAILS = auto()
    IS_SILENT = auto()
    CUTS = auto()
    TALKS_GARBAGE = auto()
    SAYS_GOODBYE = auto()
    NAMES_ANOTHER = auto()
    NAMES_NOBODY = auto()
    TAKES_ANOTHER_ID = auto()
    DECLARES_NO_PERSON = auto()
    ANSWERS_TWICE = auto()
    DRAINS = auto()


REPLIES: dict[Act, dict[str, Any]] = {
    Act.ANSWERS: {},
    Act.HAS_NOTHING: {"outcome": Outcome.NO_DATA, "payload": b""},
    Act.FAILS: {"outcome": Outcome.FAILED, "source_code": "E-7"},
    Act.NAMES_ANOTHER: {"person": NEIGHBOUR},
    Act.NAMES_NOBODY: {"person": None},
    Act.TAKES_ANOTHER_ID: {"id": 999_999},
    Act.DECLARES_NO_PERSON: {"persons": ("12345678901",)},
}


def act(source: SourceSide, index: int, what: Act) -> None:
    """Let a source do it with the delivery at ``index``, if its connection is still there."""
    link, _ = source.deliveries[index]
    if link.connection.is_ended:
        return
    if what in REPLIES:
        source.reply(index, **REPLIES[what])
    elif what is Act.ANSWERS_TWICE:
        source.reply(index)
        source.reply(index)
    elif what is Act.CUTS:
        source.lose(link)
    elif what is Act.TALKS_GARBAGE:
        link._tls.write(b"\0\0\0\4\xff\xff\xff\xff")
        link.flush()
    elif what is Act.SAYS_GOODBYE:
        link.connection.end(Code.CLOSED_IN_PEACE)
        link.flush()
    elif what is Act.DRAINS:
        source.drain(link)
        source.reply(index)


EXPECTED = {
    Act.ANSWERS: Code.ANSWERED_WITH_DATA,
    Act.HAS_NOTHING: Code.ANSWERED_WITHOUT_DATA,
    Act.FAILS: Code.SOURCE_FAILED,
    Act.IS_SILENT: Code.SOURCE_SILENT,
    Act.CUTS: Code.SOURCE_CONNECTION_LOST,
    Act.TALKS_GARBAGE: Code.SOURCE_CONNECTION_LOST,
    Act.SAYS_GOODBYE: Code.SOURCE_CONNECTION_LOST,
    Act.NAMES_ANOTHER: Code.SOURCE_ANSWERED_FOR_ANOTHER,
    Act.NAMES_NOBODY: Code.SOURCE_ANSWERED_FOR_ANOTHER,
    Act.TAKES_ANOTHER_ID: Code.SOURCE_SILENT,
    Act.DECLARES_NO_PERSON: Code.SOURCE_ANSWER_INVALID,
    Act.ANSWERS_TWICE: Code.ANSWERED_WITH_DATA,
    Act.DRAINS: Code.ANSWERED_WITH_DATA,
}


@pytest.mark.parametrize("what", Act, ids=lambda what: what.name.lower())
@in_trio
async def test_each_thing_a_source_does_has_its_code(ground: Ground, what: Act) -> None:
    """One request, one act, one answer of the right code; so the property below is not vacuous."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)
        act(source, 0, what)
        if EXPECTED[what] is Code.SOURCE_SILENT:
            p.pass_time(9.99)
            assert caller.answers == []
            p.pass_time(0.02)
        await p.until(lambda: caller.answers)

        assert caller.answer_to(1).code == EXPECTED[what]
        check_answer(p, caller, ask())


def check_answer(p: Parts, caller: Caller, request: Request) -> Answer:
    """The one answer says what, where, in which exchange and what to do next, as recorded."""
    answer = caller.answer_to(request.id)
    code = Code(answer.code)
    meaning = MEANINGS[code]
    assert answer.stage == code.stage
    assert (answer.official, answer.status) == (meaning.official, meaning.status)
    assert answer.action == meaning.action
    assert (answer.retry_at_ms is not None) == (meaning.action is Action.RETRY_AT)
    if code.stage is Stage.LINK:
        assert answer.exchange == b""
        return answer
    assert len(answer.exchange) == 16
    recorded = p.entries_of(answer.exchange)
    assert [entry.kind for entry in recorded[:2]] == [Kind.REQUEST, Kind.OUTCOME]
    assert recorded[1].code == answer.code
    assert {entry.code for entry in recorded[2:]} <= {Code.ANSWER_DISCARDED}
    return answer


REQUESTS = st.lists(
    st.fixed_dictionaries(
        {"deadline_ms": st.sampled_from([0, 0, 500, 3000, 60_000])},
        optional={
            "person": st.sampled_from([NEIGHBOUR, NOBODY, "12345678901", None]),
            "version": st.sampled_from([3, 3, 9]),
            "capacity": st.sampled_from([2, 2, 6]),
        },
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60)
@given(
    asked=REQUESTS,
    acts=st.lists(st.sampled_from(Act), min_size=8, max_size=8),
    late=st.booleans(),
    listens=st.sampled_from([True, True, True, False]),
    welcomes=st.sampled_from([True, True, True, False]),
    windows=st.builds(
        Windows, connection=st.integers(3, 8), institution=st.just(8), source=st.integers(1, 8)
    ),
    inflight_max=st.integers(1, 4),
    failures=st.integers(1, 4),
)
@in_trio
async def test_every_request_is_answered_exactly_once_within_its_deadline(
    ground: Ground,
    *,
    asked: list[dict[str, Any]],
    acts: list[Act],
    late: bool,
    listens: bool,
    welcomes: bool,
    windows: Windows,
    inflight_max: int,
    failures: int,
) -> None:
    """Sources that answer, fail, lie, hang, vanish or never come: the requester always hears."""
    options = Sources(breaker_failures=failures)
    requests = [ask(id=number, **more) for number, more in enumerate(asked)]
    async with parts(ground, windows=windows, sources=options) as p:
        source = p.add_source(RVA, inflight_max=inflight_max, listens=listens)
        source.reads = welcomes
        caller = await p.connect()
        world = Acting(p, source, acts)
        half = len(requests) // 2
        for batch in (requests[:half], requests[half:]):
            caller.ask(*batch)
            asked_count = batch[-1].id + 1 if batch else 0
            await p.until(lambda n=asked_count: world.is_still(caller, n))
        started_ns = p.now_ns
        for deadline_ms in sorted({min(r.deadline_ms or 10_000, 10_000) for r in requests}):
            p.pass_time((started_ns - p.now_ns) / 1e9 + deadline_ms / 1e3 + 0.01)
            due = [r for r in requests if (r.deadline_ms or 10_000) <= deadline_ms]
            await p.until(lambda d=due: world.acts() and all(answered(caller, r) for r in d))
        await p.until(lambda: len(caller.answers) == len(requests))
        if late:
            for index in range(len(source.deliveries)):
                act(source, index, Act.ANSWERS)
        await p.until(lambda: p.recorder.is_empty and world.is_still(caller, 0))

        for request in requests:
            check_answer(p, caller, request)
        assert len(caller.answers) == len(requests)
        assert p.admission.inflight == 0
        assert [session.inflight for session in p.loop.sessions] == [{}]
        assert {s.inflight for s in p.upstream.sources.values()} <= {0}
        assert p.exchanges.next_deadline_ns is None


def answered(caller: Caller, request: Request) -> bool:
    return any(answer.id == request.id for answer in caller.answers)


class Acting:
    """A source that does one thing after the other with what it is delivered."""

    def __init__(self, p: Parts, source: SourceSide, acts: list[Act]) -> None:
        self.parts, self.source, self.plan = p, source, acts
        self.done = 0

    def acts(self) -> bool:
        """Do what is due with what came; always so."""
        while self.done < len(self.source.deliveries):
            act(self.source, self.done, self.plan[self.done % len(self.plan)])
            self.done += 1
        return True

    def is_still(self, caller: Caller, asked_count: int) -> bool:
        """Nothing more will happen before time passes: all that is open hangs on the source."""
        self.acts()
        p = self.parts
        sources = p.upstream.sources.values()
        inflight = p.loop.sessions[0].inflight
        forwarded = all(exchange and exchange.errands for exchange in inflight.values())
        links = [link for source in sources for link in source.links]
        sent: list[Delivery] = [delivery for _, delivery in self.source.deliveries]
        return (
            len(caller.answers) + len(inflight) >= asked_count
            and forwarded
            and p.recorder.is_empty
            and not any(source.dialling for source in sources)
            and all(link.is_open for link in links if self.source.reads)
            and sum(len(link.pending) for link in links) <= len(sent) == self.done
        )


@in_trio
async def test_a_connection_test_that_does_not_fit_is_told_so(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever acts for hundreds of members, and takes small frames only, harms no worker."""
    look_up = ground.tables.look_up

    def with_members(*arguments: Any) -> list[Facts]:
        (facts,) = look_up(*arguments)
        assert facts.caller is not None
        members = tuple(Kbo(f"{number:010}") for number in range(400))
        caller = msgspec.structs.replace(facts.caller, members=members)
        return [msgspec.structs.replace(facts, caller=caller)]

    monkeypatch.setattr(ground.tables, "look_up", with_members)
    async with parts(ground) as p:
        caller = await p.connect()
        test = ask(service="TestConnectionService", version=1, person=None)
        caller.ask(test)
        await p.until(lambda: caller.answers)
        (session,) = p.loop.sessions
        session.link.connection.peer_frame_bytes_max = hello_bytes_max
        caller.ask(msgspec.structs.replace(test, id=2))
        await p.until(lambda: len(caller.answers) == 2)
        codes = [answer.code for answer in caller.answers]
        assert codes == [Code.ANSWERED_WITH_DATA, Code.ANSWER_TOO_LARGE]
        assert len(caller.answers[0].payload) > hello_bytes_max
        assert caller.answers[1].payload == b""


@in_trio
async def test_a_source_s_own_code_is_passed_on_only_where_it_is_well_formed(
    ground: Ground,
) -> None:
    """Sixteen characters may be sixty-four bytes, and sixty-four recipients more than a frame."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number, said in enumerate(("E17", "\U0001f511" * 16), 1):
            caller.ask(ask(id=number))
            await p.until(lambda n=number: len(source.deliveries) == n)
            source.reply(source_code=said)
            await p.until(lambda n=number: len(caller.answers) == n)
        assert [answer.recipients[0].source_code for answer in caller.answers] == ["E17", ""]
        assert caller.answers[1].code == Code.SOURCE_ANSWER_INVALID
