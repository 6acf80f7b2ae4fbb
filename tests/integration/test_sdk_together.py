"""Several requests asked together, against a router that runs: each has what comes of it."""

import os
import signal
from collections.abc import Iterator

import msgspec
import pytest
import trio

from contrib.stand import free_ports
from ksz_router.codes import Code
from ksz_router.limits import frame_bytes_max
from ksz_router.privacylog.entry import Kind
from ksz_router.sdk import (
    Answer,
    AuthenticationError,
    ConnectionLostError,
    Delivery,
    NotAnsweredError,
    NotConnectedError,
    Outcome,
    Result,
    Supply,
)
from ksz_router.wire import LocalProtocolError, MessageTooLargeError
from tests.integration.stands import (
    FUND,
    PERSONS,
    RVA,
    Source,
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
WINDOW = 32


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("together") / "stand"
    with town(folder, endpoints={RVA: PORT}, options={"windows": {"connection": WINDOW}}) as made:
        made.start()
        yield made


def codes_of(results: list[Result]) -> list[Code | type[Exception]]:
    """The code of each answer; of what is none, its type."""
    return [Code(r.code) if isinstance(r, Answer) else type(r) for r in results]


@on_trio
async def test_of_several_requests_each_has_its_answer_in_its_place(stand: Town) -> None:
    """Answered, refused, unknown, not well formed, of another context: none hurts another."""
    source = Source()
    asked = [
        request(ticket="together"),
        request(PERSONS["unknown"], ticket="together"),
        request(service="NoSuchService", ticket="together"),
        request(service="", ticket="together"),
        request(ticket="not\nplain"),
        request(capacity=7, ticket="together"),
        connection_test(),
        request(payload=b"the last", ticket="together"),
    ]
    async with providing(stand, PORT, source), asking(stand) as client:
        results = await client.ask_together(asked)
    assert codes_of(results) == [
        Code.ANSWERED_WITH_DATA, Code.PERSON_NOT_INTEGRATED, Code.SERVICE_UNKNOWN,
        Code.FIELD_MALFORMED, Code.FIELD_MALFORMED, Code.CAPACITY_NOT_GRANTED,
        Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITH_DATA,
    ]  # fmt: skip
    answers = [result for result in results if isinstance(result, Answer)]
    assert (answers[0].payload, answers[7].payload) == (b"for a question", b"for the last")
    assert len(source.asked) == 2

    stand.verify_log()
    entries = stand.entries()
    tickets = []
    for answer in answers:
        own = [entry for entry in entries if entry.exchange == answer.exchange]
        assert [entry.kind for entry in own] == [Kind.REQUEST, Kind.OUTCOME]
        tickets.append(own[0].ticket)
    assert len({tickets[n] for n in (0, 1, 2, 3, 5, 7)}) == 1
    assert len(set(tickets)) == 3


@on_trio
async def test_those_asked_together_share_frames_and_wait_for_places_in_the_window(
    stand: Town,
) -> None:
    """Several such calls at once get on, none is turned away, and each gets its own answers."""
    busiest = busy = 0

    async def handler(delivery: Delivery) -> Supply:
        nonlocal busiest, busy
        busy += 1
        busiest = max(busiest, busy)
        await trio.lowlevel.checkpoint()
        busy -= 1
        return Supply(Outcome.DATA, payload=delivery.payload)

    async with providing(stand, PORT, handler), asking(stand) as client:

        async def ask(group: int) -> None:
            payloads = [f"{group} {n}".encode() for n in range(200)]
            results = await client.ask_together(
                [request(payload=payload) for payload in payloads], deadline_s=30
            )
            assert [r.payload for r in results if isinstance(r, Answer)] == payloads

        async with trio.open_nursery() as nursery:
            for group in range(5):
                nursery.start_soon(ask, group)
        assert 1 < busiest <= WINDOW
        assert client._line is not None
        assert not client._line.waiting
        assert client._line.places.borrowed_tokens == 0

        link = client._line.pump.link
        start = link.sent_bytes
        for _ in range(20):
            await client.ask(connection_test())
        alone = link.sent_bytes - start
        await client.ask_together([connection_test() for _ in range(20)])
        assert link.sent_bytes - start - alone < alone * 2 / 3
    assert stand.metric("ksz_router_rejected_total", reason="connection_window_full") == 0


@on_trio
async def test_what_fits_into_no_envelope_is_told_in_its_place(stand: Town) -> None:
    """Payloads fill several frames; one that fits into none, or is no text, stops no other."""
    sizes = [300_000] * 7
    async with providing(stand, PORT, Source()), asking(stand) as client:
        asked = [connection_test(), *(request(payload=bytes(size)) for size in sizes)]
        asked[3:3] = [request(payload=bytes(frame_bytes_max)), request(service="\ud800")]
        results = await client.ask_together(asked, deadline_s=20)
        assert client._line is not None
        assert client._line.places.borrowed_tokens == 0
    too_large = Code.PAYLOAD_TOO_LARGE
    assert codes_of(results) == [
        Code.ANSWERED_WITH_DATA, *[too_large] * 2, MessageTooLargeError, LocalProtocolError,
        *[too_large] * 5,
    ]  # fmt: skip


@on_trio
async def test_no_requests_are_no_answers(stand: Town) -> None:
    """Nothing is sent, and nothing waited for."""
    async with asking(stand) as client:
        assert await client.ask_together([], deadline_s=0.1) == []


@on_trio
async def test_at_the_deadline_each_has_what_is_known_of_it(stand: Town) -> None:
    """Those answered keep their answers; of the others it is said whether they were sent."""
    source = Source(is_open=False)
    async with providing(stand, PORT, source), asking(stand) as client:
        await client.ask(connection_test())
        many = [connection_test(), *(request() for _ in range(WINDOW + 8))]
        results = codes_of(await client.ask_together(many, deadline_s=1.0))
        answered, *others = results
        assert answered is Code.ANSWERED_WITH_DATA
        typed = {Code.SOURCE_SILENT, Code.SOURCE_FAILED}
        assert set(others[: WINDOW - 1]) <= typed
        assert len(others) == WINDOW + 8
        assert set(others[WINDOW - 1 :]) <= typed | {NotConnectedError, NotAnsweredError}
        source.gate.set()
        assert client._line is not None
        assert client._line.places.borrowed_tokens == 0


@on_trio
async def test_of_requests_that_a_router_never_answers_the_outcome_is_not_known(
    stand: Town,
) -> None:
    """It took them and stands still: that is not the same as never sent."""
    worker = stand.ask().workers[0].pid
    async with asking(stand) as client:
        await client.ask(connection_test())
        os.kill(worker, signal.SIGSTOP)
        try:
            results = await client.ask_together([connection_test()] * 2, deadline_s=0.5)
        finally:
            os.kill(worker, signal.SIGCONT)
    assert codes_of(results) == [NotAnsweredError] * 2


@on_trio
async def test_who_stops_waiting_gives_the_places_back(stand: Town) -> None:
    """A call that is cancelled holds nothing of the window afterwards."""
    source = Source(is_open=False)
    async with providing(stand, PORT, source), asking(stand) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.ask_together, [request() for _ in range(2 * WINDOW)])
                await until(lambda: len(source.asked) == WINDOW)
                scope.cancel()
        line = client._line
        assert line is not None
        assert (line.places.borrowed_tokens, line.waiting) == (0, {})
        source.gate.set()
        again = await client.ask_together([connection_test() for _ in range(3)], deadline_s=5)
        assert codes_of(again) == [Code.ANSWERED_WITH_DATA] * 3


@on_trio
async def test_a_connection_that_breaks_loses_only_what_was_not_answered(stand: Town) -> None:
    """Sent again where the caller wishes it; else each lost one says so, and the others stand."""
    source = Source(is_open=False)
    got: dict[bool, list[Code | type[Exception]]] = {}
    async with providing(stand, PORT, source), asking(stand) as client:

        async def ask(*, resend: bool) -> None:
            asked = [connection_test(), request(), request()]
            results = await client.ask_together(asked, deadline_s=20, resend=resend)
            got[resend] = codes_of(results)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ask(resend=True))
            nursery.start_soon(lambda: ask(resend=False))
            await until(lambda: len(source.asked) == 4)
            line = client._line
            assert line is not None
            await until(lambda: len(line.waiting) == 4)
            line.pump.end()
            source.gate.set()
    ok = Code.ANSWERED_WITH_DATA
    assert got == {True: [ok] * 3, False: [ok, ConnectionLostError, ConnectionLostError]}


@on_trio
async def test_where_there_is_no_trust_each_has_the_error(stand: Town) -> None:
    """The error that a single question raises stands in the place of each answer."""
    ours = stand.identity(FUND)
    wary = msgspec.structs.replace(ours, authorities=ours.certificate)  # it signed no router
    async with asking(stand, identity=wary) as client:
        results = await client.ask_together([connection_test(), request()], deadline_s=10)
    assert codes_of(results) == [AuthenticationError] * 2
