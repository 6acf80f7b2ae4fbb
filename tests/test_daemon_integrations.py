"""Integration by business message, over real TLS: after the message, before its answer, once."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ksz_router.codes import Action, Code
from ksz_router.decision.integration import derived
from ksz_router.messages import Answer, Outcome
from ksz_router.privacylog.entry import Entry, Kind, parse
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import SourceSide
from tests.integrations_ground import KSZ, Keeper, make_ground, names_of, opened, payload_of
from tests.worlds import CENTRE, NIC, PERSON, RVA

W = Code.ANSWERED_WITH_DATA


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_a_forwarded_message_inscribes_its_sender_before_it_is_answered(
    ground: Ground,
) -> None:
    """Role and capacity of the envelope, its period, the declared phase; recorded as a message."""
    async with parts(ground) as p:
        rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
        sender.ask(opened(end=20261231))
        await p.until(lambda: rva.deliveries)
        assert not ksz.deliveries
        rva.reply(payload=b"seen")
        await p.until(lambda: ksz.deliveries)

        change = ksz.last
        assert (change.service, change.requester, change.member) == (
            "directory.inscribe", KSZ, CENTRE,
        )  # fmt: skip
        assert (change.sector, change.type, change.capacity) == (17, 1, 2)
        assert (change.person, change.begin, change.end) == (PERSON, 20261101, 20261231)
        assert payload_of(change) == {"phase": 1}
        assert not change.repeat
        assert sender.answers == []  # and what it follows from is durable
        assert names_of(p) == [
            ("REQUEST", "Opened", 0), ("OUTCOME", "Opened", W),
            ("REQUEST", "directory.inscribe", 0),
        ]  # fmt: skip
        ksz.reply(payload=b"the lines")
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        assert (answer.code, answer.payload, answer.detail) == (W, b"seen", {})
        assert names_of(p)[3:] == [("OUTCOME", "directory.inscribe", W)]
        request = p.durable[2]
        assert (request.acting, request.sector, request.capacity) == (CENTRE, 17, 2)
        assert (request.begin, request.end) == (20261101, 20261231)
        assert request.exchange == change.exchange != answer.exchange
        assert change.exchange[:6] == answer.exchange[:6]
        assert p.admission.inflight == p.admission.held_bytes == 0


@in_trio
async def test_what_was_not_forwarded_changes_nothing(ground: Ground) -> None:
    """Refused, failed, silent: no change follows, and the answer is the message's."""
    async with parts(ground) as p:
        rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
        sender.ask(opened(capacity=3), opened(id=2), opened(id=3, ticket="opened-3"))
        await p.until(lambda: len(rva.deliveries) == 2)
        rva.reply(0, outcome=Outcome.FAILED, payload=b"")
        await p.until(lambda: len(sender.answers) == 2)
        p.pass_time(10.01)
        await p.until(lambda: len(sender.answers) == 3)
        codes = [sender.answer_to(number).code for number in (1, 2, 3)]
        assert codes == [Code.CAPACITY_NOT_GRANTED, Code.SOURCE_FAILED, Code.SOURCE_SILENT]
        assert not ksz.deliveries
        assert not [entry for entry in p.durable if entry.service.startswith("directory.")]


@in_trio
async def test_a_distribution_changes_the_lines_of_sender_and_of_who_received_it(
    ground: Ground,
) -> None:
    """The sender once, each recipient that has it; under code Z one that answered is enough."""
    async with parts(ground) as p:
        rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
        p.add_source(NIC, listens=False)
        sender.ask(opened(service="Closed"))
        await p.until(lambda: rva.deliveries)
        rva.reply(payload=b"")
        await p.until(lambda: len(ksz.deliveries) == 2)
        found = {delivery.service: delivery for _, delivery in ksz.deliveries}
        removal, inscription = found["directory.remove"], found["directory.inscribe"]
        assert (removal.member, removal.sector, payload_of(removal)) == (
            CENTRE, 17, {"what": "period"},
        )  # fmt: skip
        assert (inscription.member, inscription.sector, inscription.capacity) == (RVA, 18, 2)
        for number in range(2):
            ksz.reply(number, payload=b"")
        await p.until(lambda: sender.answers)
        (answer,) = sender.answers
        assert {s.kbo: s.code for s in answer.recipients} == {
            RVA: W, NIC: Code.SOURCE_UNREACHABLE,
        }  # fmt: skip
        assert (answer.code, answer.action) == (W, Action.NONE)


@pytest.mark.parametrize(
    ("says", "code", "action", "said"),
    [
        ({"outcome": Outcome.NO_DATA, "source_code": "DIR-21"},
         Code.ANSWERED_INTEGRATION_REFUSED, Action.MEND_THE_DATA, "DIR-21"),
        ({"outcome": Outcome.FAILED, "source_code": "DIR-FULL"},
         Code.ANSWERED_NOT_INTEGRATED, Action.RETRY_AT, "DIR-FULL"),
        ({"person": "85073099833"},
         Code.ANSWERED_NOT_INTEGRATED, Action.RETRY_AT, "SOURCE_ANSWERED_FOR_ANOTHER"),
    ],
)  # fmt: skip
def test_a_change_that_is_not_made_is_said(
    ground: Ground, says: dict[str, object], code: Code, action: Action, said: str
) -> None:
    """The answer of the recipient is given all the same, under a code of its own."""

    @in_trio
    async def run() -> None:
        async with parts(ground) as p:
            rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
            keeper = Keeper()
            keeper.says = says
            answer = await _answered(p, rva, ksz, keeper, sender_asks=lambda: sender.ask(opened()))
            assert (answer.code, answer.action, answer.payload) == (code, action, b"seen")
            assert answer.detail["integration"] == said
            assert (answer.retry_at_ms is not None) == (action is Action.RETRY_AT)

    run()


@in_trio
async def test_where_there_is_nothing_to_remove_the_removal_is_made(ground: Ground) -> None:
    """What was to be so is so; of an inscription the same would be a refusal."""
    async with parts(ground) as p:
        rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
        p.add_source(NIC, listens=False)
        unknown, cancelled = "DIR-23", "DIR-13"
        for number, (spoilt, said) in enumerate(
            (
                ("directory.remove", unknown),
                ("directory.inscribe", unknown),
                ("directory.remove", cancelled),
            ),
            start=1,
        ):
            refused: dict[str, Any] = {"outcome": Outcome.NO_DATA, "source_code": said}
            sender.ask(opened(id=number, ticket=f"closed-{number}", service="Closed"))
            await p.until(lambda: rva.deliveries)
            rva.reply(payload=b"")
            rva.deliveries.clear()
            await p.until(lambda: len(ksz.deliveries) == 2)
            for index, (_, delivery) in enumerate(ksz.deliveries):
                is_spoilt = delivery.service == spoilt
                ksz.reply(index, payload=b"", **(refused if is_spoilt else {}))
            ksz.deliveries.clear()
            await p.until(lambda n=number: len(sender.answers) == n)
        codes = [sender.answer_to(number).code for number in (1, 2, 3)]
        assert codes == [W, *[Code.ANSWERED_INTEGRATION_REFUSED] * 2]


@in_trio
async def test_the_ticket_makes_the_change_that_failed_under_the_same_id(ground: Ground) -> None:
    """The message is not delivered again; the change is, as the one that it was."""
    async with parts(ground) as p:
        rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ, listens=False), await p.connect()
        keeper = Keeper()
        first = await _answered(p, rva, ksz, keeper, sender_asks=lambda: sender.ask(opened()))
        assert (first.code, first.detail["integration"]) == (
            Code.ANSWERED_NOT_INTEGRATED, "SOURCE_UNREACHABLE",
        )  # fmt: skip
        ksz = p.add_source(KSZ)
        p.upstream.refresh()
        sender.ask(opened(id=2), opened(id=3))
        await _told(p, rva, ksz, keeper, count=3)
        assert [sender.answer_to(number).code for number in (2, 3)] == [W, W]
        assert len(keeper.applied) == 1
        assert {change.exchange for change in keeper.heard} == keeper.applied.keys()
        assert all(change.repeat for change in keeper.heard)
        assert not rva.deliveries


class PowerCutError(Exception):
    """The machine stops."""


async def _answered(
    p: Parts, rva: SourceSide, ksz: SourceSide, keeper: Keeper, *, sender_asks: Callable[[], None]
) -> Answer:
    """Let the sender ask, everybody answer, and return what the sender is told."""
    sender_asks()
    await _told(p, rva, ksz, keeper, count=1)
    return p.callers[0].answers[-1]


async def _told(p: Parts, rva: SourceSide, ksz: SourceSide, keeper: Keeper, *, count: int) -> None:
    """Let everybody answer until the sender has as many answers."""
    (sender,) = p.callers

    def told() -> bool:
        while rva.deliveries:
            rva.reply(0, payload=b"seen")
            del rva.deliveries[0]
        keeper.pump(ksz)
        return len(sender.answers) == count

    await p.until(told)


def _left_open(durable: list[Entry]) -> dict[bytes, tuple[str, ...]]:
    """Exchanges whose request is in the log, and no outcome: what a start gives to the ledger."""
    ended = {entry.exchange for entry in durable if entry.kind is Kind.OUTCOME}
    return {
        entry.exchange: entry.destinations
        for entry in durable
        if entry.kind is Kind.REQUEST and entry.exchange and entry.exchange not in ended
    }


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("commit", range(4))
def test_a_crash_at_any_commit_loses_no_change_and_makes_none_twice(
    ground: Ground, commit: int, moment: str
) -> None:
    """Before or after each group is durable; then the sender, without an answer, retries."""
    keeper = Keeper()
    seen: dict[str, object] = {}

    @in_trio
    async def until_the_crash() -> None:
        async with parts(ground) as p:
            rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
            write, count = p.writer.begin, 0

            def cut(records: list[bytes], now_ns: int) -> None:
                nonlocal count
                if count == commit:
                    if moment == "after":
                        write(records, now_ns)
                        p.durable.extend(map(parse, records))
                    raise PowerCutError
                count += 1
                write(records, now_ns)

            p.writer.begin = cut  # type: ignore[method-assign,assignment]
            seen.update(log=p.log, durable=p.durable, answers=sender.answers)
            await _answered(p, rva, ksz, keeper, sender_asks=lambda: sender.ask(opened()))

    with suppress(PowerCutError):
        until_the_crash()
    assert not seen["answers"] or keeper.applied  # nobody was told of what is not there

    @in_trio
    async def after_the_start() -> None:
        number = int(str(seen["log"]).rpartition("-")[2]) + 1
        assert next(ground.logs) == number
        ground.logs = iter([number])  # type: ignore[assignment]
        shutil.copytree(Path(str(seen["log"])) / "ledger", ground.folder / f"log-{number}/ledger")
        async with parts(ground) as p:
            p.ledger.resolve(0, _left_open(seen["durable"]))  # type: ignore[arg-type]
            rva, ksz, sender = p.add_source(RVA), p.add_source(KSZ), await p.connect()
            answer = await _answered(p, rva, ksz, keeper, sender_asks=lambda: sender.ask(opened()))
            assert answer.code == W
            ground.logs = iter(range(number + 1, 10_000))  # type: ignore[assignment]

    after_the_start()
    assert len(keeper.applied) == 1


def test_ids_that_follow_are_of_the_same_time_and_no_other() -> None:
    """A UUIDv7 like any other: found where an exchange of that moment is looked for."""
    exchange = bytes.fromhex("0192f5d2a8007c3e9b1f4a6d2e8c5b70")
    found = {derived(exchange, name) for name in (b"a", b"b", b"c")}
    assert len(found | {derived(exchange, b"a")}) == 3
    for made in found:
        assert (made[:6], made[6] >> 4, made[8] >> 6, len(made)) == (exchange[:6], 7, 2, 16)
    assert derived(b"\1" * 16, b"a") not in found
