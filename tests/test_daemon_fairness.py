"""One requester's flood, and what others notice of it: turns, windows, bytes, log lines."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import LogCapture

from ksz_router.codes import Code
from ksz_router.config import Windows
from ksz_router.daemon import loop
from ksz_router.daemon.tally import Tally
from ksz_router.limits import connection_inflight_default, pong_seconds_max
from ksz_router.wire import Throttle
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import Caller
from tests.worlds import CENTRE, MANAGER, RVA, ask


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def inflight(p: Parts) -> list[int]:
    """Of each requester's connection, in the order in which they came."""
    return [len(session.inflight) for session in p.loop.sessions]


def say(caller: Caller, data: bytes) -> None:
    """Send bytes that may be no message."""
    caller.link.connection._outgoing.append(data)
    caller.link.flush()


@in_trio
async def test_who_pipelines_gets_a_part_of_each_turn_and_nobody_waits_behind_the_rest(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 requests in one piece a turn takes a few, and with them another's only one."""
    monkeypatch.setattr(loop, "requester_events_per_turn_max", 4)
    async with parts(ground) as p:
        source = p.add_source(RVA, inflight_max=200)
        flood, other = await p.connect(), await p.connect()
        flood.ask(*(ask(id=number) for number in range(100)))
        other.ask(ask(id=1))
        p.loop.turn()
        assert inflight(p) == [4, 1]
        p.loop.turn()
        assert inflight(p) == [8, 1]
        await p.until(lambda: len(source.deliveries) == 101)
        for index in range(101):
            source.reply(index)
        await p.until(lambda: len(flood.answers) == 100 and len(other.answers) == 1)


@in_trio
async def test_whom_a_full_turn_left_out_comes_first_in_the_next(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn takes so many requests of all; the next begins with those that had to wait."""
    monkeypatch.setattr(loop, "requester_events_per_turn_max", 4)
    monkeypatch.setattr(loop, "requests_per_turn_max", 4)
    async with parts(ground) as p:
        p.add_source(RVA)
        callers = [await p.connect() for _ in range(3)]
        for caller in callers:
            caller.ask(*(ask(id=number) for number in range(12)))
        seen = []
        for _ in range(3):
            p.loop.turn()
            seen.append(sorted(inflight(p)))
        assert seen == [[0, 0, 4], [0, 4, 4], [4, 4, 4]]
        await p.until(lambda: inflight(p) == [12, 12, 12])


@in_trio
async def test_of_a_flood_of_requests_each_is_answered_once_and_memory_holds_a_window(
    ground: Ground,
) -> None:
    """3,000 at once on one connection: those beyond its window are refused or still wait in the
    kernel, never more is held than the window, and another institution is answered meanwhile."""
    async with parts(ground, windows=Windows(connection=16)) as p:
        source, flood, other = p.add_source(RVA), await p.connect(), await p.connect(MANAGER)
        flood.link.connection.inflight_max = 3_000
        held, replied = 0, 0
        for first in range(0, 3_000, 100):
            flood.ask(*(ask(id=first + n, payload=bytes(1_000)) for n in range(100)))
        other.ask(ask(member=CENTRE))

        def is_over() -> bool:
            nonlocal held, replied
            held = max(held, p.admission.held_bytes)
            if len(source.deliveries) >= 17 and replied < len(source.deliveries):
                source.reply(replied)
                replied += 1
            return len(flood.answers) == 3_000 and bool(other.answers)

        await p.until(is_over)
        assert held <= 16 * 1_000
        assert sorted(answer.id for answer in flood.answers) == list(range(3_000))
        codes = Counter(answer.code for answer in flood.answers)
        assert codes.keys() == {Code.ANSWERED_WITH_DATA, Code.CONNECTION_WINDOW_FULL}
        assert other.answers[0].code == Code.ANSWERED_WITH_DATA
        notices = [event for event in flood.events if isinstance(event, Throttle)]
        assert [(notice.code, notice.limit) for notice in notices] == [
            (Code.CONNECTION_WINDOW_FULL, 16)
        ]


@in_trio
async def test_a_giant_length_ends_its_connection_before_any_room_is_made(ground: Ground) -> None:
    """A length of 4 GiB is refused at its fourth byte; another connection is served on."""
    async with parts(ground) as p:
        source, giant, other = p.add_source(RVA), await p.connect(), await p.connect()
        say(giant, b"\xff\xff\xff")
        p.turn()
        assert not p.ended
        say(giant, b"\xff")
        await p.until(lambda: giant.ended)
        assert giant.ended is not None
        assert giant.ended.code is Code.FRAME_TOO_LARGE
        assert [ended.code for _, ended in p.ended] == [Code.FRAME_TOO_LARGE]
        other.ask(ask())
        await p.until(lambda: source.deliveries)


@in_trio
async def test_only_whole_frames_are_a_sign_of_life(ground: Ground) -> None:
    """Who dribbles bytes of a frame is pinged, and let go when no whole frame answers."""
    async with parts(ground) as p:
        caller = await p.connect()
        caller.reads = False
        (session,) = p.loop.sessions
        heard_ns = session.heard_ns
        for byte in b"\0\0\1":
            p.pass_time(1)
            say(caller, bytes([byte]))
            p.turn()
        assert session.heard_ns == heard_ns
        p.now_ns += 28_000_000_000
        p.housekeeping.tick()
        assert session.pinged_ns == p.now_ns
        p.now_ns += int(pong_seconds_max * 1e9) + 1
        p.housekeeping.tick()
        assert {ended.code for _, ended in p.ended} <= {Code.PEER_SILENT, Code.PEER_TOO_SLOW}
        assert p.ended


def test_a_connection_alone_gets_a_quarter_of_what_one_institution_gets_of_a_source() -> None:
    """By default a connection that floods leaves its own institution's others room at a source."""
    assert Windows().connection == connection_inflight_default
    assert 4 * Windows().connection <= Windows().source // 2


def test_what_a_stranger_causes_at_will_is_a_line_of_each_kind() -> None:
    """Many of one kind are one line with their count; kinds beyond a bound are counted together;
    what was written is forgotten."""
    capture = LogCapture()
    with contextlib.ExitStack() as stack:
        structlog.configure(processors=[capture])
        stack.callback(structlog.reset_defaults)
        tally = Tally(structlog.get_logger())
        for _ in range(10_000):
            tally.add("handshake_refused", code="PEER_TOO_SLOW", address="192.0.2.1")
        for number in range(10_000):
            tally.add("handshake_refused", code="PEER_TOO_SLOW", address=f"198.51.100.{number}")
        tally.write()
        lines, capture.entries[:] = list(capture.entries), []
        tally.write()
        assert capture.entries == []
    assert len(lines) == 33
    assert (lines[0]["address"], lines[0]["count"]) == ("192.0.2.1", 10_000)
    assert (lines[-1]["others"], lines[-1]["count"]) == (True, 10_000 - 31)
    assert sum(line["count"] for line in lines) == 20_000
