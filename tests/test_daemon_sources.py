"""Sources at their edges, and faults on one connection that must not harm the others."""

import socket
from collections.abc import Iterator

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.config import Sources
from ksz_router.limits import hello_bytes_max
from ksz_router.messages import Outcome
from ksz_router.model import Endpoint
from ksz_router.wire import Connection, Hello, Message, Welcome
from tests.daemon_ground import Ground
from tests.daemon_parts import in_trio, parts
from tests.daemon_peers import SourceSide, context_of
from tests.worlds import MUTATIONS_PROGRAM, NIC, REGISTER, RVA, ask, uri


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_a_requester_that_breaks_off_as_it_is_answered_harms_nobody(ground: Ground) -> None:
    """The answer cannot be written any more: that is the end of this connection, of no other."""
    async with parts(ground) as p:
        source, gone, other = p.add_source(RVA), await p.connect(), await p.connect()
        gone.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply()
        gone.link._socket.shutdown(socket.SHUT_WR)
        await p.until(lambda: p.ended)

        other.ask(ask())
        await p.until(lambda: len(source.deliveries) == 2)
        source.reply()
        await p.until(lambda: other.answers)
        assert [ended.code for _, ended in p.ended] == [Code.CONNECTION_TRUNCATED]


@in_trio
async def test_a_requester_that_breaks_tls_as_it_is_answered_harms_nobody(ground: Ground) -> None:
    """The same where what comes in is no TLS."""
    async with parts(ground) as p:
        source, gone = p.add_source(RVA), await p.connect()
        gone.ask(ask())
        await p.until(lambda: source.deliveries)
        source.reply()
        gone.link._socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await p.until(lambda: p.ended)
        assert p.admission.inflight == 0
        assert [ended.code for _, ended in p.ended] == [Code.FRAME_MALFORMED]


@in_trio
async def test_a_source_that_answers_and_leaves_gets_nothing_more(ground: Ground) -> None:
    """Reply and Bye in one piece: the answer counts, and what waited goes another way."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA, inflight_max=1), await p.connect()
        caller.ask(ask(id=1), ask(id=2))
        await p.until(lambda: source.deliveries and p.recorder.is_empty)
        link = source.links[0]
        link.send(source.reply_to(source.last))
        link.connection.end(Code.CLOSED_IN_PEACE)
        link.flush()
        await p.until(lambda: len(source.deliveries) == 2)
        source.reply()
        await p.until(lambda: len(caller.answers) == 2)
        assert {answer.code for answer in caller.answers} == {Code.ANSWERED_WITH_DATA}


class Narrow(Connection):
    """A source that takes the smallest frames there are."""

    def send(self, message: Message) -> None:
        if isinstance(message, Welcome):
            message = msgspec.structs.replace(message, frame_bytes_max=hello_bytes_max)
        super().send(message)


@in_trio
async def test_a_delivery_that_does_not_fit_closes_no_breaker_and_opens_none(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source with small frames is refused what is too large, and asked everything else."""
    monkeypatch.setattr("tests.daemon_peers.Connection", Narrow)
    options = Sources(breaker_failures=1, breaker_open_seconds=5)
    async with parts(ground, sources=options) as p:
        source, caller = p.add_source(RVA), await p.connect()
        large = bytes(hello_bytes_max)
        caller.ask(ask(id=1, payload=large), ask(id=2))
        await p.until(lambda: source.deliveries and caller.answers)
        assert caller.answer_to(1).code == Code.DELIVERY_TOO_LARGE
        assert [e.code for e in p.entries_of(caller.answer_to(1).exchange)] == [
            0,
            Code.DELIVERY_TOO_LARGE,
        ]
        source.reply()
        await p.until(lambda: len(caller.answers) == 2)
        assert p.upstream.sources[RVA].inflight == 0

        caller.ask(ask(id=3))
        await p.until(lambda: len(source.deliveries) == 2)
        p.pass_time(10.01)
        await p.until(lambda: len(caller.answers) == 3)
        caller.ask(ask(id=4))
        await p.until(lambda: len(caller.answers) == 4)
        assert caller.answer_to(4).code == Code.SOURCE_BREAKER_OPEN
        p.pass_time(5.01)
        caller.ask(ask(id=5, payload=large))
        await p.until(lambda: len(caller.answers) == 5)
        assert caller.answer_to(5).code == Code.DELIVERY_TOO_LARGE
        p.pass_time(5.01)
        caller.ask(ask(id=6))
        await p.until(lambda: len(source.deliveries) == 3 or len(caller.answers) == 6)
        assert len(source.deliveries) == 3, "the trial was never made, so it is still due"


class NarrowCaller(Connection):
    """A requester that takes the smallest frames there are."""

    def send(self, message: Message) -> None:
        if isinstance(message, Hello):
            message = msgspec.structs.replace(message, frame_bytes_max=hello_bytes_max)
        super().send(message)


@pytest.mark.parametrize("outcome", Outcome, ids=lambda outcome: outcome.name.lower())
@in_trio
async def test_what_a_requester_cannot_take_is_withheld_whatever_its_outcome(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, outcome: Outcome
) -> None:
    """A source that fails at length is no exception: the router goes on, the next is answered."""
    monkeypatch.setattr("tests.daemon_peers.Connection", NarrowCaller)
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        for number, size in ((1, hello_bytes_max), (2, 1)):
            caller.ask(ask(id=number))
            await p.until(lambda n=number: len(source.deliveries) == n)
            source.reply(outcome=outcome, payload=bytes(size))
            await p.until(lambda n=number: len(caller.answers) == n)
        large, small = caller.answers
        assert (large.code, large.payload) == (Code.ANSWER_TOO_LARGE, b"")
        assert small.payload == bytes(1)
        assert p.upstream.sources[RVA].breaker.failures == 0


@in_trio
async def test_a_distribution_passes_no_payload_on_so_none_is_too_large(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its recipients say counts, whatever frames its sender takes."""
    monkeypatch.setattr("tests.daemon_peers.Connection", NarrowCaller)
    async with parts(ground) as p:
        recipients, register = [p.add_source(RVA), p.add_source(NIC)], await p.connect(REGISTER)
        register.ask(
            ask(service="MutationsSender", version=1, user=None, capacity=None, sector=None,
                type=None, application=MUTATIONS_PROGRAM, legal_framework="RR:MUTATIONS")
        )  # fmt: skip
        await p.until(lambda: all(recipient.deliveries for recipient in recipients))
        for recipient in recipients:
            recipient.reply(payload=bytes(hello_bytes_max))
        await p.until(lambda: register.answers)
        assert register.answers[0].code == Code.ANSWERED_WITH_DATA


@in_trio
@pytest.mark.parametrize(("said", "state"), [("-+-+-", "up"), ("+---+", "breaker open")])
async def test_what_fails_in_a_row_is_counted_within_one_read(
    ground: Ground, said: str, state: str
) -> None:
    """Three replies that come at once and cannot be used: a good one between them counts."""
    options = Sources(breaker_failures=3, connections_per_endpoint=1)
    async with parts(ground, sources=options) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(*(ask(id=n, ticket=f"t{n}") for n in range(5)))
        await p.until(lambda: len(source.deliveries) == 5)
        link, _ = source.deliveries[0]
        for (_, delivery), sign in zip(source.deliveries, said, strict=True):
            person = delivery.person if sign == "+" else None
            link.send(source.reply_to(delivery, person=person))
        link.flush()
        await p.until(lambda: len(caller.answers) == 5)

        assert (p.upstream.sources[RVA].state, p.upstream.sources[RVA].inflight) == (state, 0)
        codes = [answer.code for answer in caller.answers]
        assert codes.count(Code.SOURCE_ANSWERED_FOR_ANOTHER) == 3
        assert codes.count(Code.ANSWERED_WITH_DATA) == 2


@in_trio
async def test_another_behind_the_endpoint_of_a_source_gets_nothing(ground: Ground) -> None:
    """A good certificate of another institution is not the source: nothing is delivered to it."""
    async with parts(ground) as p:
        stranger, caller = p.add_source(NIC), await p.connect()
        at = stranger.endpoint
        p.endpoints[RVA] = (Endpoint(at.host, at.port, uri(RVA)),)
        caller.ask(ask())
        await p.until(lambda: caller.answers)
        assert caller.answers[0].code == Code.SOURCE_UNREACHABLE
        assert stranger.deliveries == []


@in_trio
async def test_a_second_endpoint_takes_over_when_the_first_is_gone(ground: Ground) -> None:
    """Any endpoint that answers will do."""
    async with parts(ground) as p:
        gone, source = p.add_source(RVA, listens=False), p.add_source(RVA)
        p.endpoints[RVA] = (gone.endpoint, source.endpoint)
        caller = await p.connect()
        caller.ask(ask())
        await p.until(lambda: source.deliveries)


@in_trio
async def test_new_certificates_mean_new_connections_for_new_deliveries(ground: Ground) -> None:
    """What is in flight ends on the old connection; the next delivery takes a new one."""
    async with parts(ground) as p:
        source, caller = p.add_source(RVA), await p.connect()
        caller.ask(ask(id=1))
        await p.until(lambda: source.deliveries)
        p.upstream.retire_connections()
        caller.ask(ask(id=2))
        await p.until(lambda: len(source.deliveries) == 2)
        source.reply(0)
        source.reply(1)
        await p.until(lambda: len(caller.answers) == 2)
        assert len({id(link) for link, _ in source.deliveries}) == 2


@in_trio
async def test_who_speaks_no_tls_gets_no_session(ground: Ground) -> None:
    """It is counted and refused, and the next caller is let in."""
    async with parts(ground) as p:
        with socket.create_connection(p.listener.getsockname()) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await p.until(lambda: p.refused)
        assert [code for code, _ in p.refused] == [Code.FRAME_MALFORMED]
        assert p.loop.sessions == []
        await p.connect()
        assert p.metrics.handshakes == {"frame_malformed": 1, "done": 1}


class Rude(SourceSide):
    """Shakes hands, and leaves without a word."""

    def pump(self) -> None:
        for link in self.links:
            link.close()


@in_trio
async def test_a_source_that_never_greets_is_not_dialled_on_and_on(ground: Ground) -> None:
    """What waits for it is answered at once, one dial a request, until the breaker opens."""
    async with parts(ground) as p:
        rude = Rude(uri(RVA), context_of(ground.pki, RVA, serves=True), inflight_max=1)
        p.endpoints[RVA] = (rude.endpoint,)
        p.sources.append(rude)
        p.nursery.start_soon(rude.serve)
        caller = await p.connect()
        for number in range(1, 4):
            caller.ask(ask(id=number))
            await p.until(lambda number=number: len(caller.answers) == number)
        assert {answer.code for answer in caller.answers} == {Code.SOURCE_UNREACHABLE}
        assert len(rude.links) <= 3
        assert p.upstream.sources[RVA].inflight == 0
