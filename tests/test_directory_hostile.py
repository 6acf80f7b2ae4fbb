"""The directory's services when something goes wrong: what is answered then must still be true."""

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksz_router import limits
from ksz_router.daemon.clock import guarded_us
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.directory_services import DirectoryServices
from ksz_router.directory import folder
from ksz_router.directory.change import WHY, Applied, Change, Operation, Reason
from ksz_router.directory.packing import DamagedError, DirectoryError, pack_key
from ksz_router.directory.writer import Writer
from ksz_router.messages import Delivery, Outcome
from ksz_router.model import OPEN, Line
from ksz_router.sdk import Supply
from ksz_router.sdk import directory as d
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, load_directory
from tests.directory_breaking import break_at
from tests.test_directory_services import ENVELOPE, KEEP_DAYS, NOW_MS, delivered, exchange
from tests.worlds import LINES, PERSON

DAY_NS = 86_400_000_000_000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    load_directory(tmp_path / "directory", {PERSON: LINES, NEIGHBOUR: LINES}, {FORMER: NEIGHBOUR})
    return tmp_path / "directory"


@pytest.fixture
def writer(target: Path) -> Iterator[Writer]:
    opened = Writer.open(target)
    yield opened
    opened.close()


def inscription(number: int, of: str = PERSON) -> Change:
    year = 1800 + number
    line = Line(17, 1, 3, 0, year * 10_000 + 101, year * 10_000 + 1231)
    return Change(exchange(number), of, Operation.INSCRIBE, line)


def answers(writer: Writer, *deliveries: Delivery) -> list[Supply | None]:
    """What each delivery is answered, where all wait for one batch; None: nothing."""
    found: list[list[Supply | None]] = [[] for _ in deliveries]

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics(), lambda: NOW_MS * 1000)
        takers = DirectoryServices(batches, KEEP_DAYS, lambda: NOW_MS).takers()
        for delivery, told_of in zip(deliveries, found, strict=True):
            takers[delivery.service, 1](delivery, told_of.append)
        batches.close()
        await batches.run()

    trio.run(main)
    assert [len(told_of) for told_of in found] == [1] * len(deliveries), "each is settled once"
    return [told_of[0] for told_of in found]


def answer(writer: Writer, delivery: Delivery) -> Supply | None:
    """What one delivery is answered; None: nothing."""
    return answers(writer, delivery)[0]


def told(supply: Supply | None) -> d.Told:
    assert supply is not None
    return msgspec.msgpack.decode(supply.payload, type=d.Told)


# What is answered, and when.


class _Gated:
    """An environment whose transactions wait before they commit."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.has_come, self.may_go = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def begin(self, *values: Any, **options: Any) -> Any:
        begun = self._environment.begin(*values, **options)
        return _GatedTransaction(begun, self) if options.get("write") else begun


class _GatedTransaction:
    def __init__(self, begun: Any, gate: _Gated) -> None:
        self._begun, self._gate = begun, gate

    def __enter__(self) -> Any:
        return self._begun.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gate.has_come.set()
        assert self._gate.may_go.wait(10)
        self._begun.__exit__(kind, error, trace)


def test_nothing_is_answered_before_its_transaction_is_durable(writer: Writer) -> None:
    """All is judged and only the commit is missing: nobody has an answer, until it is done."""
    gate = _Gated(writer._environment)
    assert gate.flags()["sync"]
    assert gate.flags()["metasync"]
    writer._environment = gate  # type: ignore[assignment]
    before: list[object] = []
    answered: list[object] = []

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics())
        async with trio.open_nursery() as nursery:
            batches.change(inscription(1), 5, answered.append)
            batches.change(inscription(2), 5, answered.append)
            nursery.start_soon(batches.run)
            while not gate.has_come.is_set():
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            before.extend(answered)
            gate.may_go.set()
            batches.close()

    trio.run(main)
    assert before == []
    assert [type(verdict) for verdict in answered] == [Applied, Applied]


def test_who_comes_after_a_failed_write_is_not_answered_and_can_be_let_go(writer: Writer) -> None:
    """Nobody works any more, and it is not known what stands; work of our own does not hang."""
    break_at(writer, "before commit")
    answered: list[object] = []
    returned: list[int] = []

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics())

        async def work() -> None:
            returned.append(await batches.with_writer(lambda opened: opened.version))

        async with trio.open_nursery() as nursery:
            batches.change(inscription(1), 5, answered.append)
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(DirectoryError):
                await batches.run()
            batches.change(inscription(2), 5, answered.append)
            batches.look_up(PERSON, 5, answered.append)
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            assert not batches.is_waited_for
            nursery.cancel_scope.cancel()
        answered.append("the end")

    trio.run(main)
    assert (answered, returned) == (["the end"], [])


def test_work_of_the_program_itself_finds_room_and_sees_what_came_before(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much waits as may: it is done all the same, after that; damage in it ends it alone."""
    monkeypatch.setattr(limits, "directory_waiting_max", 1)
    seen: list[object] = []

    def damaged(_: Writer) -> None:
        raise DamagedError("a notice cannot be read")

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics())

        async def work() -> None:
            seen.append(await batches.with_writer(lambda opened: opened.version))

        async def fail() -> None:
            with pytest.raises(DamagedError):
                await batches.with_writer(damaged)
            seen.append("damaged")

        async with trio.open_nursery() as nursery:
            batches.change(inscription(1), 5, lambda verdict: seen.append(type(verdict)))
            nursery.start_soon(fail)
            nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            batches.close()
            await batches.run()

    trio.run(main)
    assert seen[0] is Applied
    assert set(seen[1:]) == {"damaged", 2}


@pytest.mark.parametrize("trouble", ["full", "late", "damaged"])
def test_a_repeat_that_cannot_be_looked_at_is_not_said_to_have_failed(
    writer: Writer, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stand since the first time. *Failed* would be final: its sender would make another."""
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    if trouble == "full":
        monkeypatch.setattr(limits, "directory_waiting_max", 0)
    elif trouble == "late":
        monkeypatch.setattr(trio, "current_time", iter([0.0, *([100.0] * 50)]).__next__)
    else:
        put(writer, PERSON, b"\xff")
    first = answer(writer, delivered(asked, 1))
    assert first is not None
    assert (first.outcome, first.source_code) == (Outcome.FAILED, f"DIR-{trouble.upper()}")
    if trouble == "late":
        monkeypatch.setattr(trio, "current_time", iter([0.0, *([100.0] * 50)]).__next__)
    assert answer(writer, delivered(asked, 1, repeat=True)) is None


def test_an_answer_never_outgrows_a_frame(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a change that stands would be said to have failed. What does not fit is told of."""
    worst = Line(999, 999, 902, 999, 20260101, OPEN, 20260101)
    most = (worst,) * limits.directory_lines_told_max
    assert len(d.encode(d.Told(version=2**63, lines=most, more=True))) < limits.payload_bytes_max
    assert limits.directory_lines_told_max >= 2 * limits.person_lines_max

    monkeypatch.setattr(limits, "directory_lines_told_max", 2)
    found = []
    for number, year in enumerate((2001, 2002, 2003), start=1):
        begin, end = year * 10_000 + 101, year * 10_000 + 1231
        envelope = msgspec.structs.replace(ENVELOPE, sector=40, type=6)
        asked = d.inscribe(envelope, PERSON, begin=begin, end=end)
        found.append(told(answer(writer, delivered(asked, number))))
    assert [(len(each.lines), each.more) for each in found] == [(1, False), (2, False), (2, True)]


def test_who_has_no_line_of_a_person_cannot_tell_numbers_from_each_other(writer: Writer) -> None:
    """Unknown, known to others, replaced, cancelled: to change lines that are not there is one."""
    writer.apply([Change(exchange(99), NEIGHBOUR, Operation.CANCEL)], NOW_MS * 1000)
    foreign = msgspec.structs.replace(ENVELOPE, sector=40, type=6)
    numbers = count(1)
    for number in (NOBODY, PERSON, FORMER, NEIGHBOUR):
        for asked in (
            d.adjust(foreign, number, phase=1, begin=20200101),
            d.remove(foreign, number, d.Removal(what=d.What.LINE), begin=20200101),
            d.remove(foreign, number, d.Removal(what=d.What.PERIOD), begin=20200101),
            d.remove(foreign, number, d.Removal(what=d.What.CAPACITY)),
            d.remove(foreign, number, d.Removal(what=d.What.ALL)),
        ):
            supply = answer(writer, delivered(asked, next(numbers)))
            assert supply == Supply(
                Outcome.NO_DATA,
                payload=d.encode(
                    d.Told(version=0, reason="LINE_UNKNOWN", why=WHY[Reason.LINE_UNKNOWN])
                ),
                source_code="DIR-23",
            )


def test_a_number_named_in_the_payload_has_its_entry_even_where_it_is_refused(
    writer: Writer,
) -> None:
    """The refusal says whether that number exists: whose it is must find that it was asked."""
    registers = msgspec.structs.replace(ENVELOPE, sector=0, type=0, capacity=0)
    for number, (other, reason) in enumerate(
        ((NOBODY, "OTHER_UNKNOWN"), (PERSON, "CIRCLE"), ("no number", "NUMBER_MALFORMED"))
    ):
        asked = d.register(registers, PERSON, d.Event.REPLACE, by=other)
        supply = answer(writer, delivered(asked, number))
        assert told(supply).reason == reason
        assert supply is not None
        assert supply.persons == ((NOBODY,) if other == NOBODY else ())


def test_a_number_that_an_event_has_no_use_for_is_not_left_out_in_silence(writer: Writer) -> None:
    """Who names the number that takes the place meant a replacement, and gets no cancellation."""
    registers = msgspec.structs.replace(ENVELOPE, sector=0, type=0, capacity=0)
    asked = d.register(registers, PERSON, d.Event.CANCEL, by=NEIGHBOUR)
    assert told(answer(writer, delivered(asked))).reason == "PAYLOAD_MALFORMED"
    assert writer.version == 1


def test_what_would_mean_today_by_chance_is_not_made() -> None:
    """A request without period means today: no death and no removal of a day comes of that."""
    with pytest.raises(ValueError, match="name the day"):
        d.register(ENVELOPE, PERSON, d.Event.DECEASE)
    for what in (d.What.LINE, d.What.PERIOD):
        with pytest.raises(ValueError, match="name the day"):
            d.remove(ENVELOPE, PERSON, d.Removal(what=what))


def test_lines_of_another_type_of_the_sector_are_neither_told_nor_changed(writer: Writer) -> None:
    """Two types of one sector are two kinds of institutions: neither sees the other's files."""
    theirs = Line(17, 2, 2, 0, 20200101, OPEN)
    writer.apply([Change(exchange(90), PERSON, Operation.INSCRIBE, theirs)], NOW_MS * 1000)
    seen = told(answer(writer, delivered(d.lines(ENVELOPE, PERSON), 1)))
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    made = told(answer(writer, delivered(asked, 2)))
    removed = told(answer(writer, delivered(d.remove(
        ENVELOPE, PERSON, d.Removal(what=d.What.ALL)), 3)))  # fmt: skip
    assert seen.lines
    assert {line.type for line in (*seen.lines, *made.lines)} == {1}
    assert removed.lines == ()
    (person,) = writer.look_up([PERSON])
    assert person is not None
    assert [line.type for line in person.lines if line.sector == 17] == [2]


def test_lines_that_ended_before_the_data_asked_are_not_told(writer: Writer) -> None:
    """Nor those that begin after it; a day that both share is enough."""
    ended = Line(40, 6, 1, 0, 20000101, 20011231)
    writer.apply([Change(exchange(90), PERSON, Operation.INSCRIBE, ended)], NOW_MS * 1000)
    found = []
    for number, (begin, end) in enumerate(
        ((19990101, 19991231), (19990101, 20000101), (20011231, None), (20020101, None))
    ):
        asked = d.others(ENVELOPE, PERSON, data_begin=begin, data_end=end)
        supply = answer(writer, delivered(asked, number))
        found.append(40 in {line.sector for line in told(supply).lines})
    assert found == [False, True, True, False]


# What cannot be read, written or understood.


def put(writer: Writer, number: str, value: bytes) -> None:
    """Damage: put a value under a number as no change would."""
    with writer._environment.begin(writer._databases.persons, write=True) as transaction:
        transaction.put(pack_key(number), value)


def test_a_damaged_person_spoils_nothing_for_the_others_of_its_batch(writer: Writer) -> None:
    """All come at once; only who asked about the one that cannot be read is told so."""
    put(writer, PERSON, b"\xff")
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    deliveries = [
        delivered(asked, 1),
        delivered(asked, 2, person=NEIGHBOUR),
        delivered(d.lines(ENVELOPE, PERSON), 3),
        delivered(d.lines(ENVELOPE, NEIGHBOUR), 4),
    ]
    found = answers(writer, *deliveries)
    codes = [supply.source_code for supply in found if supply is not None]
    assert codes == ["DIR-DAMAGED", "", "DIR-DAMAGED", ""]
    assert told(found[1]).lines
    assert told(found[3]).lines


def test_a_look_up_that_finds_no_slot_is_answered_and_the_changes_beside_it_stand(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of readers is full: consultations fail, by name, and nothing else does."""
    monkeypatch.setattr(folder, "READERS_MAX", 1)
    writer = Writer.open(target)
    reader = writer._environment.begin()
    try:
        supply = answer(writer, delivered(d.lines(ENVELOPE, PERSON)))
        assert supply is not None
        assert (supply.outcome, supply.source_code) == (Outcome.FAILED, "DIR-DAMAGED")
        asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
        assert told(answer(writer, delivered(asked))).reason == ""
    finally:
        del reader
    assert told(answer(writer, delivered(d.lines(ENVELOPE, PERSON)))).lines
    writer.close()


def test_a_clock_that_is_wrong_for_a_while_forgets_no_exchange_id(writer: Writer) -> None:
    """A year on, and back: what was made is known all the same, and is not made again."""
    wall_ns, monotonic_ns = [NOW_MS * 1_000_000], [0]
    now_us = guarded_us(lambda: wall_ns[0], lambda: monotonic_ns[0])

    def after(seconds: int, days: int) -> int:
        monotonic_ns[0] += seconds * 1_000_000_000
        wall_ns[0] = NOW_MS * 1_000_000 + monotonic_ns[0] + days * DAY_NS
        return now_us()

    (first,) = writer.apply([inscription(1)], after(1, 0))
    writer.apply([inscription(2)], after(1, 365))
    writer.apply([inscription(3)], after(1, -365))
    (again,) = writer.apply([inscription(1)], after(1, 0))
    assert isinstance(first, Applied)
    assert isinstance(again, Applied)
    assert (again.repeated, again.version) == (True, first.version)


keys = (
    "phase",
    "sector_wide",
    "line_begin",
    "what",
    "every_capacity",
    "event",
    "by",
    "begin",
    "end",
)
values = (
    st.integers(-(2**63), 2**64 - 1) | st.integers(-1, 1000) | st.booleans() | st.none()
    | st.floats() | st.text(max_size=12) | st.binary(max_size=12) | st.sampled_from(list(d.What))
    | st.sampled_from(list(d.Event)) | st.sampled_from([20260101, OPEN, 0, PERSON, NEIGHBOUR])
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    service=st.sampled_from(d.SERVICES),
    payload=st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), values, max_size=5)
    .map(d.encode) | st.binary(max_size=40),
    number=st.integers(1, 2**64),
    more=st.fixed_dictionaries({}, optional={
        "person": st.sampled_from([NOBODY, FORMER, None]), "sector": st.none(),
        "type": st.none(), "capacity": st.sampled_from([None, 0, 901, 902, 2**31]),
        "begin": st.sampled_from([20200101, 18000101, OPEN]), "end": st.sampled_from([OPEN - 1]),
        "groups": st.just((d.SECTOR_WIDE,)), "enterprise": st.just("0999016460"),
    }),
)  # fmt: skip
def test_whatever_is_delivered_is_answered(
    writer: Writer, service: str, payload: bytes, number: int, more: dict[str, Any]
) -> None:
    """By an answer that says what it is: never by a fault, and never by the end of the program."""
    envelope = msgspec.structs.replace(ENVELOPE, service=service, person=PERSON, payload=payload)
    supply = answer(writer, delivered(envelope, number, **more))
    assert supply is not None
    assert supply.outcome in (Outcome.DATA, Outcome.NO_DATA)
    assert told(supply).version or supply.source_code.startswith("DIR-")


def test_a_payload_is_no_place_to_keep_much(writer: Writer) -> None:
    """Thousands may wait: what no service needs is refused, though it could be understood."""
    swollen = b"\xde\x01\x00" + b"\xa5phase\x01" * 256
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    supply = answer(writer, delivered(asked, payload=swollen))
    assert told(supply).reason == "PAYLOAD_MALFORMED"
    lines = delivered(d.lines(ENVELOPE, PERSON), payload=b"\x80")
    assert told(answer(writer, lines)).reason == "PAYLOAD_MALFORMED"
