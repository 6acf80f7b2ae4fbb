"""The directory's services on a real directory: what is asked, answered, and bounded."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from ksz_router import limits
from ksz_router.daemon.directory_asked import REFUSALS, change_of
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_jobs import Failure, Found, Verdict
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.directory_services import DirectoryServices
from ksz_router.directory.change import Applied, Change, Operation, Reason
from ksz_router.directory.packing import DirectoryError
from ksz_router.directory.writer import Writer
from ksz_router.messages import Delivery, Outcome, Request
from ksz_router.model import ANY_TYPE, OPEN, Line
from ksz_router.sdk import Supply
from ksz_router.sdk import directory as d
from tests.daemon_ground import FORMER, NEIGHBOUR, NOBODY, load_directory
from tests.directory_breaking import break_at
from tests.worlds import LINES, PERSON

NOW_MS = 1_795_300_000_000
KEEP_DAYS = 35
OWN = (17, 1, 2, 2, 20200101, OPEN)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    load_directory(tmp_path / "directory", {PERSON: LINES, NEIGHBOUR: LINES}, {FORMER: NEIGHBOUR})
    opened = Writer.open(tmp_path / "directory")
    yield opened
    opened.close()


def exchange(number: int, made_ms: int = NOW_MS) -> bytes:
    return made_ms.to_bytes(6, "big") + number.to_bytes(10, "big")


def delivered(asked: Request, number: int = 1, **fields: Any) -> Delivery:
    """What the control makes of a request, as far as the directory looks at it."""
    usual: dict[str, Any] = {
        "id": 1, "exchange": exchange(number), "service": asked.service, "version": 1,
        "requester": "0999016460", "sector": asked.sector, "type": asked.type,
        "capacity": asked.capacity, "person": asked.person,
        "begin": asked.begin or 20261122, "end": asked.end, "deadline_ms": 5_000,
        "payload": asked.payload,
    }  # fmt: skip
    if asked.begin is None:
        usual["end"] = 20261122
    return Delivery(**{**usual, **fields})


ENVELOPE = Request(
    id=0, service="", version=0, ticket="t", user="85073099734", sector=17, type=1, capacity=2
)


async def told(ask: Callable[[Callable[[Any], None]], None]) -> Any:
    """What is told to who asks and is called back."""
    found: list[Any] = []
    done = trio.Event()

    def take(result: Any) -> None:
        found.append(result)
        done.set()

    ask(take)
    await done.wait()
    assert len(found) == 1
    return found[0]


def with_services(
    writer: Writer,
    work: Callable[[Callable[[Delivery], Awaitable[Supply | None]]], Awaitable[None]],
) -> DirectoryMetrics:
    """Run something that asks the services; return what they counted."""
    metrics = DirectoryMetrics()

    async def main() -> None:
        batches = Batches(writer, metrics, lambda: NOW_MS * 1000)
        takers = DirectoryServices(batches, KEEP_DAYS, lambda: NOW_MS).takers()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            await work(lambda delivery: told(partial(takers[delivery.service, 1], delivery)))
            batches.close()

    trio.run(main)
    return metrics


def answers(writer: Writer, *deliveries: Delivery) -> list[tuple[Supply, d.Told]]:
    """What each delivery is answered, one after the other."""
    found: list[tuple[Supply, d.Told]] = []

    async def ask(answer: Callable[[Delivery], Awaitable[Supply | None]]) -> None:
        for delivery in deliveries:
            supply = await answer(delivery)
            assert supply is not None
            payload = supply.payload or d.encode(d.Told(version=0))
            found.append((supply, msgspec.msgpack.decode(payload, type=d.Told)))

    with_services(writer, ask)
    return found


def lines_of(told: d.Told) -> list[tuple[int, ...]]:
    return [(n.sector, n.type, n.capacity, n.phase, n.begin, n.end) for n in told.lines]


def test_every_rule_of_the_directory_has_a_source_code_in_the_document() -> None:
    """A stranger can tell each refusal by its number, and none is used twice."""
    text = (Path(__file__).parents[1] / "docs" / "directory-services.md").read_text("utf-8")
    codes = [code for code, _ in REFUSALS.values()]
    assert len(set(codes)) == len(codes)
    for name, (code, _) in REFUSALS.items():
        assert f"| `{code}` | `{name}` |" in text
    assert {reason.name for reason in Reason} <= set(REFUSALS)


def test_the_example_of_the_document_is_what_is_sent() -> None:
    """The bytes shown there are those of the function shown there."""
    asked = d.inscribe(ENVELOPE, PERSON, begin=20260301, phase=1)
    assert asked.payload == b"\x82\xa5phase\x01\xabsector_wide\xc2"
    assert (asked.begin, asked.end, asked.service) == (20260301, None, "directory.inscribe")


def test_a_repeat_is_told_what_was_made_and_makes_nothing(writer: Writer) -> None:
    """Applied or refused, the same exchange id gives the same, at the version of then."""
    line = d.Removal(what=d.What.LINE)
    removal = d.remove(ENVELOPE, PERSON, line, begin=20200101)
    again = d.remove(ENVELOPE, PERSON, line, begin=20190101)
    found = [told for _, told in answers(
        writer, delivered(removal, 7), delivered(removal, 7, repeat=True),
        delivered(again, 8), delivered(again, 8, repeat=True),
    )]  # fmt: skip
    assert [told.repeated for told in found] == [False, True, False, True]
    assert [told.reason for told in found] == ["", "", "LINE_UNKNOWN", "LINE_UNKNOWN"]
    assert found[0].version == found[1].version == writer.version


def test_an_exchange_id_that_is_no_longer_kept_is_refused(writer: Writer) -> None:
    """Else what was forgotten would be made a second time."""
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    day_ms = 86_400_000
    old = delivered(asked, exchange=exchange(1, NOW_MS - KEEP_DAYS * day_ms - 1))
    young = delivered(asked, exchange=exchange(2, NOW_MS - KEEP_DAYS * day_ms))
    (_, refused), (_, made) = answers(writer, old, young)
    assert (refused.reason, made.reason) == ("TICKET_TOO_OLD", "")


def test_only_lines_of_the_role_change_and_others_are_never_told(writer: Writer) -> None:
    """Everything of 17/1 goes; no other sector's line goes with it, or into the answer."""
    before = len(LINES)
    gone = d.remove(ENVELOPE, PERSON, d.Removal(what=d.What.ALL))
    ((supply, told),) = answers(writer, delivered(gone))
    assert (supply.outcome, told.lines, told.reason) == (Outcome.DATA, (), "")
    assert (told.current, supply.persons) == ("", ()), "it is the number that was forwarded"
    (person,) = writer.look_up([PERSON])
    assert person is not None
    assert len(person.lines) == before - 1
    assert not [line for line in person.lines if line.sector == 17]


def test_a_change_tells_the_lines_of_all_numbers_of_the_person(writer: Writer) -> None:
    """Asked under the number that was replaced, too: the role's lines are under the other one."""
    asked = d.inscribe(ENVELOPE, FORMER, begin=20100101, end=20101231)
    (_, made), (_, again) = answers(writer, delivered(asked), delivered(asked, repeat=True))
    assert lines_of(made) == [(17, 1, 2, 0, 20100101, 20101231), OWN]
    assert (again.lines, again.repeated, again.current) == (made.lines, True, NEIGHBOUR)


def test_a_line_without_type_takes_a_grant_that_says_so(writer: Writer) -> None:
    """It fits every type of the sector, so it is not one institution's alone."""
    envelope = msgspec.structs.replace(ENVELOPE, sector=18, type=0, capacity=1)
    asked = d.adjust(envelope, PERSON, phase=4, begin=20200101, sector_wide=True)
    (_, refused), (_, made), (_, narrow) = answers(
        writer,
        delivered(asked, 1),
        delivered(asked, 2, groups=(d.SECTOR_WIDE,)),
        delivered(d.adjust(envelope, PERSON, phase=5, begin=20200101), 3),
    )
    assert (refused.reason, narrow.reason) == ("NOT_SECTOR_WIDE", "LINE_UNKNOWN")
    assert lines_of(made) == [(18, ANY_TYPE, 1, 4, 20200101, OPEN)]


def test_a_number_that_was_replaced_is_disclosed_with_lines_only(writer: Writer) -> None:
    """And is declared, so that it gets its entry; who knows nobody there learns nothing."""
    foreign = msgspec.structs.replace(ENVELOPE, sector=40, type=6)
    (supply, told), (other, nothing), (_, unknown) = answers(
        writer,
        delivered(d.lines(ENVELOPE, FORMER)),
        delivered(d.lines(foreign, FORMER)),
        delivered(d.lines(ENVELOPE, NOBODY)),
    )
    assert (told.current, supply.persons) == (NEIGHBOUR, (NEIGHBOUR,))
    assert (other.outcome, nothing.current, other.persons) == (Outcome.NO_DATA, "", ())
    assert nothing == unknown, "known elsewhere, or not at all: nobody can tell"


def test_other_sectors_are_seen_in_the_period_asked_and_as_far_as_granted(writer: Writer) -> None:
    """Never the own sector; with data groups only those; and none that ended before."""
    asked = d.others(ENVELOPE, PERSON, data_begin=20200101, data_end=20200101)
    early = d.others(ENVELOPE, PERSON, data_begin=20000101, data_end=20191231)
    (_, every), (_, some), (_, before), (_, odd) = answers(
        writer,
        delivered(asked),
        delivered(asked, groups=("sector-12", "sector-18")),
        delivered(early),
        delivered(d.others(ENVELOPE, PERSON, data_begin=20200102, data_end=20200101)),
    )
    assert {line.sector for line in every.lines} == {0, 5, 6, 11, 12, 15, 16, 18}
    assert {line.sector for line in some.lines} == {12, 18}
    assert {line.sector for line in before.lines} == {0}
    assert odd.reason == "PAYLOAD_MALFORMED"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "PAYLOAD_MALFORMED"),
        (b"\xc1", "PAYLOAD_MALFORMED"),
        (b"\x91" * 2_000, "PAYLOAD_MALFORMED"),
        (d.encode({"what": "everything"}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "line", "phase": 3}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "capacity", "every_capacity": True}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "period", "line_begin": 20201301}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "all", "line_begin": 20200101}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "all", "unheard": 1}), "PAYLOAD_MALFORMED"),
        (d.encode({"what": "capacity", "phase": 1000}), "LINE_MALFORMED"),
    ],
)
def test_a_payload_that_does_not_fit_removes_nothing(
    writer: Writer, payload: bytes, reason: str
) -> None:
    """A wish that is not understood is never left out in silence: too much would be removed."""
    asked = d.remove(ENVELOPE, PERSON, d.Removal(what=d.What.ALL))
    ((supply, told),) = answers(writer, delivered(asked, payload=payload))
    assert (told.reason, supply.outcome) == (reason, Outcome.NO_DATA)
    assert supply.source_code == REFUSALS[reason][0]
    assert writer.version == 1


def test_a_change_needs_a_role(writer: Writer) -> None:
    """Under path B there is none, whatever the grant says."""
    asked = d.inscribe(ENVELOPE, PERSON, begin=20100101, end=20101231)
    ((_, told),) = answers(writer, delivered(asked, sector=None, type=None, capacity=None))
    assert told.reason == "ROLE_MISSING"


def test_the_register_says_a_death_by_the_day_of_the_request() -> None:
    """It stands in the envelope, and so in the privacy log."""
    change = change_of(delivered(d.register(ENVELOPE, PERSON, d.Event.DECEASE, day=20260601)))
    assert (change.operation, change.day) == (Operation.DECEASE, 20260601)


def test_a_register_does_not_learn_which_sectors_know_the_person(writer: Writer) -> None:
    """What it said stands; the lines of others are none of its business."""
    registers = msgspec.structs.replace(ENVELOPE, sector=0, type=0, capacity=0)
    (_, told), (supply, replaced) = answers(
        writer,
        delivered(d.register(registers, PERSON, d.Event.DECEASE, day=20260601), 1),
        delivered(d.register(registers, PERSON, d.Event.REPLACE, by=NEIGHBOUR), 2),
    )
    assert (told.reason, told.lines, replaced.lines) == ("", (), ())
    assert (replaced.current, supply.persons) == (NEIGHBOUR, (NEIGHBOUR,))


def inscription(number: int, *, of: str = PERSON) -> Change:
    year = 1800 + number
    line = Line(17, 1, 3, 0, year * 10_000 + 101, year * 10_000 + 1231)
    return Change(exchange(number), of, Operation.INSCRIBE, line)


def test_what_waits_is_one_durable_transaction(writer: Writer) -> None:
    """A hundred at once, look-ups among them, which see what was asked before them."""
    metrics, made, seen = DirectoryMetrics(), list[Verdict](), list[Found | Failure]()

    async def main() -> None:
        batches = Batches(writer, metrics)
        for number in range(100):
            batches.change(inscription(number), 5, made.append)
        batches.look_up(PERSON, 5, seen.append)
        batches.close()
        await batches.run()

    trio.run(main)
    samples = {s.name: s.value for family in metrics.collect() for s in family.samples}
    assert samples["ksz_router_directory_batch_changes_count"] == 1
    assert samples["ksz_router_directory_batch_changes_sum"] == 100
    assert [found.version for found in made if isinstance(found, Applied)] == [*range(2, 102)]
    (found,) = seen
    assert isinstance(found, Found)
    assert found.person is not None
    assert (len(found.person.lines), found.version) == (len(LINES) + 100, 101)


def test_no_more_waits_than_may(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds no room is told at once, and nothing of it is done."""
    monkeypatch.setattr(limits, "directory_waiting_max", 3)
    metrics, told_of = DirectoryMetrics(), list[Any]()

    async def main() -> None:
        batches = Batches(writer, metrics)
        for number in range(3):
            batches.change(inscription(number), 5, told_of.append)
        assert not told_of
        batches.change(inscription(4), 5, told_of.append)
        batches.look_up(PERSON, 5, told_of.append)
        assert told_of == [Failure.FULL] * 2
        batches.close()
        await batches.run()

    trio.run(main)
    assert (writer.version, metrics.turned_away, len(told_of)) == (4, 2, 5)


def test_a_deadline_that_passes_leaves_undone_what_waits_and_nothing_else(writer: Writer) -> None:
    """What is written is answered by what came of it: never called late while it stands.

    What still waits is not made: its sender was told that nothing is known of it, and made later
    it could undo what came after.
    """
    in_time, late = list[Verdict](), list[Any]()

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics())
        batches.change(inscription(1), 5, in_time.append)
        batches.change(inscription(2), -1, late.append)
        batches.look_up(PERSON, -1, late.append)
        batches.close()
        await batches.run()

    trio.run(main)
    assert late == [Failure.TOO_LATE] * 2
    assert [type(verdict) for verdict in in_time] == [Applied]
    assert writer.version == 2


def test_a_write_that_fails_is_answered_to_nobody(writer: Writer) -> None:
    """It cannot be known whether it stands: the program ends, and no answer says that it failed."""
    answered: list[Verdict] = []

    async def main() -> None:
        batches = Batches(writer, DirectoryMetrics())
        for number in range(5):
            batches.change(inscription(number), 5, answered.append)
        await batches.run()

    break_at(writer, "after commit")
    with pytest.raises(DirectoryError):
        trio.run(main)
    assert answered == []
