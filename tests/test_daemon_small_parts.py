"""Deadlines, exchange ids, admission and the operational log, each alone."""

import gc
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.codes import Code
from ksz_router.config import Windows
from ksz_router.daemon import oplog
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.deadlines import Deadlines
from ksz_router.daemon.ids import ExchangeIds
from ksz_router.daemon.opened import Exchange
from ksz_router.daemon.session import Session
from ksz_router.daemon.tally import Tally
from ksz_router.daemon.uncollected import uncollected
from ksz_router.decision import Facts, Refusal
from ksz_router.privacylog.entry import Kind
from tests.daemon_ground import NEIGHBOUR, Ground
from tests.daemon_parts import in_trio, parts
from tests.worlds import NIC, NOW_MS, PERSON, RVA, ask, uri

TICK_NS = 1 << 23


def exchange(number: int, deadline_ns: int) -> Exchange:
    return Exchange(
        id=number.to_bytes(16, "big"),
        session=cast("Session", None),
        request=ask(),
        received_ns=0,
        deadline_ns=deadline_ns,
        facts=Facts(caller=None),
        verdict=Refusal(Code.NO_GRANT),
        generation="",
        destinations=(),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20 * TICK_NS)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.integers(0, 4 * TICK_NS)),
    ),
    max_size=60,
)


def tick_after(moment_ns: int) -> int:
    return (moment_ns // TICK_NS + 1) * TICK_NS


@given(STEPS)
def test_deadlines_are_a_sorted_list_in_ticks(steps: list[tuple[str, int]]) -> None:
    """Whatever is added and removed: due is what passed, at most a tick late, and never early."""
    deadlines, model, now_ns = Deadlines(), dict[int, Exchange](), 0
    for count, (what, value) in enumerate(steps):
        if what == "add":
            model[count] = exchange(count, value)
            deadlines.add([model[count]])
        elif what == "remove":
            gone = model.pop(value, None) or exchange(value, value)
            deadlines.remove(gone)
            deadlines.remove(gone)
        else:
            now_ns += value
            due = deadlines.due(now_ns)
            passed = [e for e in model.values() if tick_after(e.deadline_ns) <= now_ns]
            assert sorted(e.id for e in due) == sorted(e.id for e in passed)
            assert all(e.deadline_ns <= now_ns for e in due)
            model = {n: e for n, e in model.items() if e not in passed}
        moments = sorted(tick_after(e.deadline_ns) for e in model.values())
        assert deadlines.next_ns == (moments[0] if moments else None)


def test_ids_are_uuids_of_version_7_that_sort_by_their_time() -> None:
    """RFC 9562, 5.7: 48 bits of Unix milliseconds, version 7, variant 10, the rest random."""
    clock = iter(NOW_MS * 1_000_000 + step * 400_000 for step in range(3_000))
    new_ids = ExchangeIds(lambda: next(clock))
    made = [new_ids(1)[0] for _ in range(3_000)]
    assert len(set(made)) == 3_000
    for step, one in enumerate(made):
        assert len(one) == 16
        assert int.from_bytes(one[:6], "big") == NOW_MS + step * 400_000 // 1_000_000
        assert one[6] >> 4 == 7
        assert one[8] >> 6 == 0b10
    assert [one[:6] for one in sorted(made)] == [one[:6] for one in made]
    random_bits = [int.from_bytes(one[9:]) for one in made]
    for bit in range(56):
        assert 1_200 < sum(value >> bit & 1 for value in random_bits) < 1_800


def test_two_makers_never_make_the_same_id() -> None:
    """Workers share nothing but the clock, and their ids differ all the same."""
    makers = ExchangeIds(lambda: 0), ExchangeIds(lambda: 0)
    made = [one for many in (0, 1, 98, 600) for maker in makers for one in maker(many)]
    assert len(set(made)) == len(made) == 2 * 699


class Somebody:
    """What admission looks at in a session."""

    def __init__(self, name: str) -> None:
        self.uri = name
        self.inflight: dict[int, int] = {}


ARRIVALS = st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 40))


@given(st.lists(ARRIVALS, max_size=80))
def test_windows_count_exactly_what_is_in_flight(steps: list[tuple[int, bool, int]]) -> None:
    """Against plain counting: the narrowest full window is named, and leaving frees its place."""
    admission = Admission(Windows(connection=2, institution=3, router=5, bytes=100))
    sessions = [Somebody(name) for name in ("a", "a", "b", "c")]
    for number, (index, enters, size) in enumerate(steps):
        somebody = sessions[index]
        session = cast("Session", somebody)
        held = sum(sum(s.inflight.values()) for s in sessions)
        assert admission.all_bytes == held <= 100
        if enters:
            of_same = sum(len(s.inflight) for s in sessions if s.uri == somebody.uri)
            expected: tuple[Code, int] | None = None
            if held + size > 100:
                expected = Code.ROUTER_FULL, 100
            if sum(len(s.inflight) for s in sessions) == 5:
                expected = Code.ROUTER_FULL, 5
            if of_same == 3:
                expected = Code.INSTITUTION_WINDOW_FULL, 3
            if len(somebody.inflight) == 2:
                expected = Code.CONNECTION_WINDOW_FULL, 2
            assert admission.admit(session, size) == expected
            if expected is None:
                somebody.inflight[number] = size
        elif somebody.inflight:
            admission.leave(session, somebody.inflight.popitem()[1])
        assert admission.inflight == sum(len(s.inflight) for s in sessions)


def test_a_draining_or_full_router_takes_nothing() -> None:
    """Draining and a full disk stand before every window."""
    admission = Admission(Windows())
    session = cast("Session", Somebody("a"))
    admission.is_log_full = True
    assert admission.admit(session, 0) == (Code.LOG_NOT_WRITABLE, 0)
    admission.is_draining = True
    assert admission.admit(session, 0) == (Code.ROUTER_DRAINING, 0)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_the_turned_away_give_one_entry_an_institution_a_minute(ground: Ground) -> None:
    """However many were refused before the control: counts by code, under the certificate's URI."""
    async with parts(ground) as p:
        p.add_source(RVA)
        await p.connect()
        for name, code, times in (
            (uri(NIC), Code.ROUTER_FULL, 3),
            (uri(NIC), Code.FRAME_MALFORMED, 1),
            (uri(RVA), Code.ROUTER_FULL, 500),
        ):
            for _ in range(times):
                p.admission.count(name, code)
        for _ in range(120):
            p.housekeeping.tick()
        await p.until(lambda: p.recorder.is_empty)

        found = {entry.requester: dict(entry.counts) for entry in p.durable}
        assert found == {
            uri(NIC): {Code.FRAME_MALFORMED: 1, Code.ROUTER_FULL: 3},
            uri(RVA): {Code.ROUTER_FULL: 500},
        }
        assert [entry.kind for entry in p.durable] == [Kind.SUMMARY] * 2
        assert all(entry.person is None and entry.exchange is None for entry in p.durable)
        assert p.admission.take_counts() == {}


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("c546f8933b88832686698b973ec3ef83", "c546f8933b88832686698b973ec3ef83"),
        (PERSON, "(withheld)"),
        (f"no such person: {PERSON}.", "no such person: (withheld)."),
        (f"{PERSON} {NEIGHBOUR}", "(withheld) (withheld)"),
        (f"1{PERSON}", f"1{PERSON}"),
        ("urn:kbo:0999016460", "urn:kbo:0999016460"),
        ("x" * 1_000, "x" * 300),
    ],
)
def test_the_operational_log_withholds_what_looks_like_a_person(
    said: str, logged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second lock: eleven digits that stand alone never reach a line, and lines are short."""
    log = oplog.set_up("worker-3")
    log.info("something", reason=said, port=7443)
    structlog.reset_defaults()
    line = json.loads(capsys.readouterr().err)
    assert (line["reason"], line["port"], line["process"]) == (logged, 7443, "worker-3")
    assert (line["level"], line["event"]) == ("info", "something")


def test_lines_of_several_threads_do_not_run_into_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every line is one JSON object, whoever writes."""
    log = oplog.set_up("worker-0")
    threads = [
        threading.Thread(target=lambda: [log.info("line", number=n) for n in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    structlog.reset_defaults()
    lines = capsys.readouterr().err.splitlines()
    assert Counter(json.loads(line)["number"] for line in lines) == dict.fromkeys(range(50), 4)


def test_what_a_peer_can_cause_at_will_is_a_bounded_number_of_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line a kind with its count; of many kinds the further ones together; then none."""
    tally = Tally(oplog.set_up("worker-0"))
    for _ in range(1_000):
        for address in range(100):
            tally.add("handshake_refused", code="PEER_TOO_SLOW", address=str(address))
    tally.write()
    tally.write()
    structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 33
    assert sum(line["count"] for line in lines) == 100_000
    assert [line["count"] for line in lines if line.get("others")] == [68_000]
    assert {line["event"] for line in lines} == {"handshake_refused"}


def test_the_collector_never_goes_through_what_a_start_made() -> None:
    """A hundred thousand rows are its to look at neither while they are made nor later."""
    threshold = gc.get_threshold()
    made: list[list[int]] = []
    try:
        with uncollected():
            assert not gc.isenabled()
            made = [[n] for n in range(100)]
        assert gc.isenabled()
        seen = {id(one) for one in gc.get_objects()}
        assert not any(id(one) in seen for one in made)
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
