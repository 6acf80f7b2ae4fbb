"""Mailboxes give way: they rest while workers serve, have a share all the same, and end in time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path

import lmdb
import pytest
import structlog
import structlog.testing
import trio
import trio.testing

from ksz_router import limits
from ksz_router.daemon import mailbox_lane
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_jobs import Verdict
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.mailbox_keeper import MailboxKeeper
from ksz_router.daemon.traffic import Traffic
from ksz_router.directory.change import Applied, Change, Operation
from ksz_router.directory.mailboxes import Mailboxes
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.model import Line
from ksz_router.privacylog.frame import FILE_BYTES_MIN
from ksz_router.privacylog.writer import Writer as LogWriter
from tests.mailbox_ground import (
    BANK_URI,
    NOW_NS,
    PEOPLE,
    Ground,
    Rules,
    inscribe,
    of_centre,
    rules,
    send,
)

HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    return rules(tmp_path_factory.mktemp("rules"))


@pytest.fixture
def ground(tmp_path: Path, made: Rules) -> Ground:
    return Ground(tmp_path / "ground", made)


@contextmanager
def worker(ground: Ground, slot: str = "w0") -> Iterator[LogWriter]:
    """One that records; what its files were is long ago."""
    opened = LogWriter.open(
        ground.log,
        slot=slot,
        node="one",
        keys_folder=ground.rules.keys,
        now_ns=NOW_NS,
        file_bytes=FILE_BYTES_MIN,
    )
    os.utime(opened.file, ns=(0, 0))
    yield opened
    opened.close()


def test_a_worker_that_records_is_seen_for_two_seconds(ground: Ground) -> None:
    """At once, until it records no more; not by what another slot or a prepared file is filled."""
    now_s = 0.0
    with worker(ground) as one, worker(ground, "d0") as mailboxes:
        traffic = Traffic([ground.log / "w0", ground.log / "w1"], lambda: now_s)
        assert traffic.is_there(), "it is not known yet"
        now_s = 2.0
        assert not traffic.is_there()
        mailboxes.commit([b"a line"], NOW_NS)
        one.prepare_next(lambda: None)
        now_s = 3.0
        assert not traffic.is_there()
        one.commit([b"an entry"], NOW_NS)
        now_s = 3.4
        assert not traffic.is_there(), "it does not look at the disk at every step"
        now_s = 3.5
        assert traffic.is_there()
        now_s = 5.4
        assert traffic.is_there()
        now_s = 5.5
        assert not traffic.is_there()


def test_who_goes_over_to_its_next_file_is_seen(ground: Ground) -> None:
    now_s = 0.0
    with worker(ground) as one:
        traffic = Traffic([ground.log / "w0"], lambda: now_s)
        traffic.is_there()
        now_s = 9.0
        assert not traffic.is_there()
    with worker(ground):
        now_s = 10.0
        assert traffic.is_there()
    assert one.file.exists()


def rest_s(ground: Ground, *, at_s: float, since_ns: int = NOW_NS) -> float:
    """What is due after a step of a mailbox that was complete at a moment."""
    ground.step_s = 0.5
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(1, *map(inscribe, PEOPLE)), now_ms=since_ns // 1_000_000)
        lane._manners.traffic.is_there()
        ground.now_s = at_s
        step = lane.step()
        assert step is not None
        return step.rest_s


def test_after_a_step_it_rests_while_workers_serve(ground: Ground) -> None:
    """Three times as long as the step worked."""
    assert rest_s(ground, at_s=1.9) == pytest.approx(1.5)


def test_alone_it_does_not_rest(ground: Ground) -> None:
    assert rest_s(ground, at_s=2.0) == 0.0


@pytest.mark.parametrize(("hours", "rests"), [(23, True), (24, False)])
def test_a_mailbox_that_waits_for_a_day_is_rested_over_no_more(
    ground: Ground, hours: int, *, rests: bool
) -> None:
    """It is to be done in four days, whatever comes online."""
    assert limits.mailbox_rests_hours_max * 4 <= 4 * 24
    assert bool(rest_s(ground, at_s=0.0, since_ns=NOW_NS - hours * HOUR_NS)) is rests


def test_who_is_served_waits_for_small_steps(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is as large as fits into the time that it may take: less where somebody waits."""
    monkeypatch.setattr(mailbox_lane, "mailbox_step_lines_min", 1)
    monkeypatch.setattr(mailbox_lane, "mailbox_step_seconds_alone", 1e9)
    monkeypatch.setattr(mailbox_lane, "mailbox_step_seconds_beside", 0.0)
    steps: list[list[int]] = []
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(1, *(inscribe(PEOPLE[0], capacity=n) for n in range(1, 10))))
        for now_s, changes_come in ((0.0, False), (9.0, True), (9.0, False), (9.0, False)):
            ground.now_s, lane.changes_come = now_s, changes_come
            step = lane.step()
            assert step is not None
            steps.append([step.lines])
    assert steps == [[1], [1], [1], [2]]


def test_a_step_is_measured_by_itself(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each could have taken longer none is smaller than the one before."""
    monkeypatch.setattr(mailbox_lane, "mailbox_step_lines_min", 1)
    seconds: list[float] = []
    lines: list[int] = []
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(1, *map(inscribe, PEOPLE)))
        lane._manners.traffic.is_there()
        ground.now_s = 9.0
        while (step := lane.step()) is not None:
            seconds.append(step.seconds)
            lines.append(step.lines)
            monkeypatch.setattr(mailbox_lane, "mailbox_step_seconds_alone", 2 * max(seconds))
    assert lines[:-1] == sorted(lines[:-1])
    assert len(lines) > 3


@pytest.mark.parametrize(
    ("now_s", "has_waited", "turns"),
    [
        (1.0, False, [(0, 3, 1.5), (0, 5, 1.5), (5, 6, 1.5)]),
        (1.0, True, [(5, 6, 1.5)]),
        (9.0, False, [(5, 6, 0.0)]),
    ],
    ids=["beside the workers", "in its share of a second", "alone"],
)
def test_beside_the_workers_a_turn_is_a_small_transaction(
    ground: Ground,
    monkeypatch: pytest.MonkeyPatch,
    now_s: float,
    has_waited: bool,  # noqa: FBT001
    turns: list[tuple[int, int, float]],
) -> None:
    """Lines answered, the version reached and the rest; in its share a turn is a whole step."""
    monkeypatch.setattr(mailbox_lane, "mailbox_transaction_lines_beside", 2)
    ground.step_s = 0.5
    found: list[tuple[int, int, float]] = []
    with ground.lane() as (lane, mailboxes):
        send(mailboxes, of_centre(1, *map(inscribe, PEOPLE[:5])))
        lane._manners.traffic.is_there()
        ground.now_s, lane.has_waited = now_s, has_waited
        while (step := lane.step()) is not None:
            found.append((step.lines, lane._writer.version, step.rest_s))
    assert found == turns


@pytest.fixture
def writer(ground: Ground) -> Iterator[Writer]:
    opened = Writer.open(ground.directory)
    yield opened
    opened.close()


def keeper_of(ground: Ground, writer: Writer, batches: Batches) -> MailboxKeeper:
    return MailboxKeeper(
        ground.settings,
        writer,
        batches,
        lambda: NOW_NS // 1000,
        own_uri=BANK_URI,
        metrics=DirectoryMetrics(),
        log=structlog.get_logger(),
    )


def test_mailboxes_that_cannot_be_read_stand_still_and_changes_go_on(
    ground: Ground, writer: Writer
) -> None:
    """It is said once, with the reason, and looked again every second."""

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics(), lambda: NOW_NS // 1000)
        keeper = keeper_of(ground, writer, batches)
        keeper._mailboxes.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            nursery.start_soon(keeper.look)
            await trio.sleep(12)
            batches.change(CHANGE, 5, verdicts.append)
            await trio.sleep(2)
            batches.close()
            nursery.cancel_scope.cancel()
        keeper.close()

    verdicts: list[Verdict] = []
    with structlog.testing.capture_logs() as said:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    assert [type(verdict) for verdict in verdicts] == [Applied]
    assert [event["event"] for event in said] == ["mailboxes_stand_still"]
    assert "cannot be read" in said[0]["reason"]


def test_mailboxes_that_can_be_read_again_go_on_and_the_same_trouble_is_told_again(
    ground: Ground, writer: Writer
) -> None:
    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics(), lambda: NOW_NS // 1000)
        keeper = keeper_of(ground, writer, batches)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            nursery.start_soon(keeper.look)
            for _ in range(3):
                keeper._mailboxes.close()
                await trio.sleep(12)
                mended = Mailboxes(keeper._mailboxes.folder)
                vars(keeper._mailboxes).update(vars(mended))
                await trio.sleep(12)
            batches.close()
            nursery.cancel_scope.cancel()
        keeper.close()

    with structlog.testing.capture_logs() as said:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    assert [event["event"] for event in said] == ["mailboxes_stand_still"] * 3


CHANGE = Change(
    b"a change, online", PEOPLE[0], Operation.INSCRIBE, Line(17, 1, 3, 0, 20260101, 20260131)
)


def test_where_changes_always_wait_a_mailbox_has_a_step_a_second(writer: Writer) -> None:
    """No less and no more; and where none wait, it has one at once."""
    clock = trio.testing.MockClock()
    steps: list[float] = []
    verdicts: list[Verdict] = []
    numbers = count(1)

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics(), lambda: NOW_NS // 1000)

        async def spare() -> float | None:
            await trio.lowlevel.checkpoint()
            steps.append(trio.current_time())
            assert len(steps) < 100, "it takes all the time"
            if len(verdicts) < 39:
                return 0.0
            batches.close()
            return None

        def ask() -> None:
            number = next(numbers)
            line = Line(17, 1, 3, 0, (1800 + number) * 10_000 + 101, (1800 + number) * 10_000 + 102)
            exchange = number.to_bytes(16, "big")
            change = Change(exchange, PEOPLE[0], Operation.INSCRIBE, line)
            batches.change(change, 5, answered)

        def answered(verdict: Verdict) -> None:
            verdicts.append(verdict)
            clock.jump(0.25)
            if len(verdicts) < 39:
                ask()

        batches.spare = spare
        ask()
        await batches.run()

    trio.run(main, clock=clock)
    assert [type(verdict) for verdict in verdicts] == [Applied] * 39
    waits = [later - earlier for earlier, later in pairwise(steps)]
    assert waits == [limits.directory_spare_seconds] * 9 + [0.75], "the last one when none waits"


@pytest.mark.parametrize(
    "read",
    [
        lambda writer: writer.notices(b"", 1),
        lambda writer: writer.backlog(),
        lambda writer: writer.note_of(bytes(16)),
        lambda writer: writer.look_up(PEOPLE),
        lambda writer: writer.clear_dead_readers(),
    ],
)
def test_a_directory_that_cannot_be_read_is_a_sentence(ground: Ground, read: object) -> None:
    """Whatever is read of it: who serves catches that, and nothing of LMDB's."""
    assert callable(read)
    writer = Writer.open(ground.directory)
    try:
        writer._environment.close()
        with pytest.raises(DirectoryError) as caught:
            read(writer)
        assert isinstance(caught.value.__cause__, lmdb.Error)
    finally:
        writer.close()
