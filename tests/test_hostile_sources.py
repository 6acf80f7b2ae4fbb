"""Each way in which a source may misbehave: a typed answer in time, a record, others unharmed."""

from collections.abc import Iterator

import pytest
import trio

from ksz_router.codes import Action, Code
from ksz_router.config import Sources
from ksz_router.limits import payload_bytes_max
from ksz_router.routing import Breaker
from tests.daemon_ground import NEIGHBOUR, Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller
from tests.hostile_sources import (
    BYE,
    DRAIN,
    FRAME_BYTES_MAX,
    REPLY,
    WELCOME,
    Behaviour,
    Wire,
    framed,
    reply_to,
)
from tests.worlds import PENSIONS, RVA, ask

OPTIONS = Sources(breaker_failures=2, breaker_open_seconds=10.0)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


async def never_shakes_hands(wire: Wire) -> None:
    await trio.sleep_forever()


async def never_greets(wire: Wire) -> None:
    await wire.frame()


async def closes_instead_of_greeting(wire: Wire) -> None:
    await wire.frame()
    await wire.tls.aclose()


async def greets_in_another_protocol(wire: Wire) -> None:
    await wire.frame()
    await wire.tls.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def replies_instead_of_greeting(wire: Wire) -> None:
    await wire.frame()
    await wire.say(REPLY, 1, 0)


async def hangs(wire: Wire) -> None:
    await wire.greet()
    while True:
        await wire.delivery()


async def resets(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.reset()


async def closes_tls_and_reads_on(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tls.unwrap()


async def closes_half_without_tls(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tcp.send_eof()


async def breaks_off_inside_a_tls_record(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tcp.send_all(b"\x17\x03\x03\x01\x00" + bytes(10))
    await wire.tcp.send_eof()


async def breaks_off_inside_a_reply(wire: Wire) -> None:
    await wire.greet()
    await wire.tls.send_all(framed(*reply_to(await wire.delivery()))[:-1])
    await wire.tls.aclose()


async def never_ends_its_reply(wire: Wire) -> None:
    await wire.greet()
    await wire.tls.send_all(framed(*reply_to(await wire.delivery()))[:-1])
    while True:
        await wire.delivery()


async def talks_no_tls(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tcp.send_all(b"\x16garbage" * 50)


async def sends_a_garbage_frame(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tls.send_all(b"\0\0\0\4\xff\xff\xff\xff")


async def sends_a_giant_frame(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.tls.send_all((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


async def asks_instead_of_replying(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.say(16, 1, "UnemploymentData", 3, "ticket")


async def greets_twice(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.say(WELCOME, 1, "hostile", FRAME_BYTES_MAX, 64)


async def replies_with_an_outcome_that_is_none(wire: Wire) -> None:
    await wire.greet()
    await wire.reply(await wire.delivery(), outcome=9)


async def says_goodbye(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.say(BYE, 1, "")


async def drains_and_hangs(wire: Wire) -> None:
    await wire.greet()
    await wire.delivery()
    await wire.say(DRAIN, 30)


async def replies_to_what_was_never_asked(wire: Wire) -> None:
    await wire.greet()
    while True:
        delivery = await wire.delivery()
        await wire.reply(delivery, id=delivery[1] + 77)


async def replies_before_it_is_asked(wire: Wire) -> None:
    await wire.frame()
    welcome = framed(WELCOME, 1, "hostile", FRAME_BYTES_MAX, 64)
    await wire.tls.send_all(welcome + b"".join(framed(REPLY, n, 0) for n in range(1, 9)))
    while True:
        await wire.delivery()


async def replies_for_another_person(wire: Wire) -> None:
    await wire.greet()
    while True:
        await wire.reply(await wire.delivery(), person=NEIGHBOUR)


async def declares_what_is_no_person(wire: Wire) -> None:
    await wire.greet()
    while True:
        await wire.reply(await wire.delivery(), persons=[NEIGHBOUR, "nobody"])


async def replies_too_much(wire: Wire) -> None:
    await wire.greet()
    while True:
        await wire.reply(await wire.delivery(), payload=bytes(payload_bytes_max + 1))


UNREACHABLE, LOST, SILENT = (
    Code.SOURCE_UNREACHABLE, Code.SOURCE_CONNECTION_LOST, Code.SOURCE_SILENT,
)  # fmt: skip

FAULTS: dict[Behaviour, Code] = {
    never_shakes_hands: UNREACHABLE,
    never_greets: UNREACHABLE,
    closes_instead_of_greeting: UNREACHABLE,
    greets_in_another_protocol: UNREACHABLE,
    replies_instead_of_greeting: UNREACHABLE,
    hangs: SILENT,
    resets: LOST,
    closes_tls_and_reads_on: LOST,
    closes_half_without_tls: LOST,
    breaks_off_inside_a_tls_record: LOST,
    breaks_off_inside_a_reply: LOST,
    never_ends_its_reply: SILENT,
    talks_no_tls: LOST,
    sends_a_garbage_frame: LOST,
    sends_a_giant_frame: LOST,
    asks_instead_of_replying: LOST,
    greets_twice: LOST,
    replies_with_an_outcome_that_is_none: LOST,
    says_goodbye: LOST,
    drains_and_hangs: SILENT,
    replies_to_what_was_never_asked: SILENT,
    replies_before_it_is_asked: SILENT,
    replies_for_another_person: Code.SOURCE_ANSWERED_FOR_ANOTHER,
    declares_what_is_no_person: Code.SOURCE_ANSWER_INVALID,
    replies_too_much: Code.SOURCE_ANSWER_INVALID,
}
WAITS = {never_shakes_hands, never_greets} | {b for b, code in FAULTS.items() if code is SILENT}
"""Where the answer comes at the deadline; elsewhere at once."""


def named(behave: Behaviour) -> str:
    return getattr(behave, "__name__", "")


def hangs_there(p: Parts, behave: Behaviour) -> bool:
    """The one request is with the source, or as near to it as it gets."""
    source = p.upstream.sources.get(RVA)
    if source is None or source.inflight != 1:
        return False
    is_sent = any(link.pending for link in source.links)
    return is_sent if FAULTS[behave] is SILENT else bool(source.waiting)


@pytest.mark.parametrize("behave", FAULTS, ids=named)
@in_trio
async def test_a_source_that_misbehaves_is_answered_for_in_time_and_left_in_peace(
    ground: Ground, behave: Behaviour
) -> None:
    """A typed answer within 2 s, recorded; the breaker opens and closes; another source goes on."""
    async with parts(ground, sources=OPTIONS) as p:
        p.add_hostile(RVA, behave)
        caller, other, well = await p.connect(), await p.connect(), p.add_source(PENSIONS)
        for number in (1, 2):
            other.ask(ask(id=number, service="PensionRegister", version=1))
            await p.until(lambda n=number: len(well.deliveries) == n)
            caller.ask(ask(id=number, deadline_ms=2_000))
            if behave in WAITS:
                await p.until(lambda: hangs_there(p, behave))
                p.pass_time(1.99)
                assert len(caller.answers) == number - 1
                p.pass_time(0.02)
            await p.until(lambda n=number: len(caller.answers) == n)
            well.reply()
            await p.until(lambda n=number: len(other.answers) == n)
            answer = caller.answer_to(number)
            assert answer.code == FAULTS[behave]
            assert (answer.action, answer.payload) == (Action.SOURCE_DOWN, b"")
            assert [e.code for e in p.entries_of(answer.exchange)] == [0, answer.code]
        assert {answer.code for answer in other.answers} == {Code.ANSWERED_WITH_DATA}
        assert p.upstream.sources[RVA].inflight == 0

        await breaker_holds(p, caller)
        await recovers(p, caller)


async def breaker_holds(p: Parts, caller: Caller) -> None:
    """The third request is refused at once, with the moment of the next trial, and recorded."""
    caller.ask(ask(id=3))
    await p.until(lambda: len(caller.answers) == 3)
    answer = caller.answer_to(3)
    assert (answer.code, answer.action) == (Code.SOURCE_BREAKER_OPEN, Action.RETRY_AT)
    assert answer.retry_at_ms == p.wall_ns() // 1_000_000 + 10_000
    assert [e.code for e in p.entries_of(answer.exchange)] == [0, Code.SOURCE_BREAKER_OPEN]


async def recovers(p: Parts, caller: Caller) -> None:
    """The source is mended: the trial that is due then closes the breaker."""
    mended = p.add_source(RVA)
    p.upstream.refresh()
    p.pass_time(10)
    caller.ask(ask(id=4), ask(id=5))
    await p.until(lambda: len(caller.answers) == 4 and mended.deliveries)
    assert caller.answer_to(5).code == Code.SOURCE_BREAKER_OPEN, "one trial only"
    mended.reply()
    await p.until(lambda: len(caller.answers) == 5)
    assert caller.answer_to(4).code == Code.ANSWERED_WITH_DATA
    assert p.upstream.sources[RVA].breaker == Breaker()


async def replies_twice(wire: Wire) -> None:
    await wire.greet()
    while True:
        delivery = await wire.delivery()
        await wire.tls.send_all(framed(*reply_to(delivery)) * 2)


async def replies_ten_times(wire: Wire) -> None:
    await wire.greet()
    while True:
        delivery = await wire.delivery()
        for n in range(10):
            await wire.reply(delivery, payload=b"data" if n == 0 else b"other data")


async def fails_in_order(wire: Wire) -> None:
    await wire.greet()
    while True:
        await wire.reply(
            await wire.delivery(), outcome=3, source_code="E17", payload=b"why", persons=[NEIGHBOUR]
        )


async def offers_no_window(wire: Wire) -> None:
    await wire.greet(inflight_max=0)
    while True:
        await wire.reply(await wire.delivery())


async def offers_a_giant_window(wire: Wire) -> None:
    await wire.greet(inflight_max=0xFFFF_FFFF)
    while True:
        await wire.reply(await wire.delivery())


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (replies_twice, Code.ANSWERED_WITH_DATA),
        (replies_ten_times, Code.ANSWERED_WITH_DATA),
        (offers_no_window, Code.ANSWERED_WITH_DATA),
        (offers_a_giant_window, Code.ANSWERED_WITH_DATA),
        (fails_in_order, Code.SOURCE_FAILED),
    ],
    ids=lambda value: named(value) if callable(value) else "",
)
@in_trio
async def test_what_is_odd_and_no_failure_opens_no_breaker(
    ground: Ground, behave: Behaviour, code: Code
) -> None:
    """The first reply counts and is recorded once; the others are counted and dropped."""
    async with parts(ground, sources=Sources(breaker_failures=1)) as p:
        hostile, caller = p.add_hostile(RVA, behave), await p.connect()
        for number in range(1, 30):
            caller.ask(ask(id=number))
            await p.until(lambda n=number: len(caller.answers) == n)
        assert {answer.code for answer in caller.answers} == {code}
        assert hostile.connections == 1
        assert p.upstream.sources[RVA].breaker == Breaker(outcomes=1 << 20)
        for answer in caller.answers:
            kinds = [e.code for e in p.entries_of(answer.exchange)]
            assert kinds == [0, code] + [code] * len(answer.persons)
        repeats: dict[Behaviour, int] = {replies_twice: 1, replies_ten_times: 9}
        expected = repeats.get(behave, 0)
        await p.until(lambda: p.metrics.rejected[Code.ANSWER_DISCARDED] == 29 * expected)


@in_trio
async def test_what_a_source_says_of_its_own_failure_reaches_the_requester(ground: Ground) -> None:
    """Its code, payload and further persons are passed on, and each of these has its entry."""
    async with parts(ground) as p:
        p.add_hostile(RVA, fails_in_order)
        caller = await p.connect()
        caller.ask(ask())
        await p.until(lambda: caller.answers)
        answer = caller.answers[0]
        assert (answer.payload, answer.persons) == (b"why", (NEIGHBOUR,))
        assert answer.recipients[0].source_code == "E17"
        persons = {e.person for e in p.entries_of(answer.exchange)}
        assert p.ground.tokens.person(NEIGHBOUR) in persons
