"""What is sent of a notice, what its answer means, and what becomes of it where nobody answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from contrib.stand import CROSSROADS_BANK, ROUTER_URI, free_ports
from ksz_router.cli import main
from ksz_router.codes import MEANINGS, Code
from ksz_router.config import Config
from ksz_router.config import Notices as Settings
from ksz_router.daemon.directory_batches import Batches
from ksz_router.daemon.directory_metrics import DirectoryMetrics
from ksz_router.daemon.directory_notices import Notices, outcome_of, request_of, ticket_of
from ksz_router.directory.change import Change, Operation
from ksz_router.directory.notice import Notice, key_of
from ksz_router.directory.outbox import Waiting
from ksz_router.directory.writer import Writer
from ksz_router.ledger import NOT_SENT, UNKNOWN
from ksz_router.limits import ticket_chars_max
from ksz_router.messages import Answer, RecipientStatus
from ksz_router.sdk import Identity
from ksz_router.sdk import directory as d
from tests.directory_files import A, B, loaded, person

HOUR_US = 3_600_000_000
NOW_US = 1_795_389_500_000_000
"""Half past midnight in Brussels, on 23 November 2026; in Greenwich it is the day before."""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """A directory in which one number was replaced, another one cancelled."""
    loaded(tmp_path, person(A), person(B))
    opened = Writer.open(tmp_path / "directory")
    opened.apply([Change(b"1" * 16, A, Operation.REPLACE, other=B)], NOW_US)
    opened.apply([Change(b"2" * 16, B, Operation.CANCEL)], NOW_US + HOUR_US)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    tls = tmp_path_factory.mktemp("tls") / "tls"
    assert not main(["keys", "testpki", str(tls), f"--institution=bank=urn:kbo:{CROSSROADS_BANK}"])
    return Identity(
        certificate=tls / "bank.crt", key=tls / "bank.key", authorities=tls / "authorities.pem"
    )


def sent_alone(
    writer: Writer, identity: Identity, *, now_us: int, **fields: Any
) -> DirectoryMetrics:
    """Send for a while, in which no router listens; return what was counted."""
    metrics = DirectoryMetrics()
    usual = {"port": free_ports(1)[0], "application": "00901000303"}
    settings = Config(notices=Settings(**{**usual, **fields}))

    async def run() -> None:
        batches = Batches(writer, metrics)
        notices = Notices(
            settings, batches, identity=identity, router_uri=ROUTER_URI, metrics=metrics,
            log=structlog.get_logger(), wall_us=lambda: now_us,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batches.run)
            with trio.move_on_after(40):
                await notices.run()
            batches.close()

    trio.run(run, clock=MockClock(autojump_threshold=0.005))
    return metrics


def shown(metrics: DirectoryMetrics) -> dict[str, float]:
    """Everything about notices, by name and outcome."""
    return {
        "".join([sample.name.removeprefix("ksz_router_directory_"), *sample.labels.values()]): (
            sample.value
        )
        for family in metrics.collect()
        for sample in family.samples
        if "notice" in sample.name
    }


def test_what_is_sent_follows_from_the_notice_alone(writer: Writer) -> None:
    """Of the day of the change in Brussels, and under the number in use; the same every time."""
    first, second = (request_of(each, "00901000303", None) for each in writer.notices(b"", 9))
    assert (first.person, first.begin, first.end) == (B, 20261123, 20261123)
    assert d._notice.decode(first.payload) == d.Notice(
        version=2, event=d.Event.REPLACE, number=A, current=B
    )
    assert d._notice.decode(second.payload) == d.Notice(version=3, event=d.Event.CANCEL, number=B)
    assert [first, second] == [
        request_of(each, "00901000303", None) for each in writer.notices(b"", 9)
    ]


def test_where_two_persons_come_of_one_each_is_told(writer: Writer) -> None:
    """Who knows either of them: the number that was taken back has no death of the other's."""
    again = Change(b"3" * 16, A, Operation.REACTIVATE)
    writer.apply([Change(b"4" * 16, B, Operation.REACTIVATE)], NOW_US)
    writer.apply([Change(b"5" * 16, A, Operation.DECEASE, day=20261101), again], NOW_US)
    death, own, other = (each.notice for each in writer.notices(b"", 9)[3:])
    assert (death.person, death.number, death.current, death.deceased) == (B, A, B, 20261101)
    assert (own.person, own.number, own.current, own.deceased) == (A, A, A, 0)
    assert (other.person, other.number, other.current, other.deceased) == (B, A, A, 0)


def test_each_notice_has_a_ticket_of_its_own() -> None:
    """By version, by part, and by the change, as another directory counts from the beginning."""

    def ticket(version: int, part: int, exchange: bytes) -> str:
        notice = Notice(NOW_US, exchange, Operation.CANCEL, A, A, "")
        return ticket_of(Waiting(key_of(version, part), notice))

    tickets = [ticket(v, p, x * 16) for v in (1, 256) for p in (0, 1) for x in (b"1", b"2")]
    assert len(set(tickets)) == len(tickets)
    assert all(len(each) <= ticket_chars_max for each in tickets)


def answered(code: Code, recipients: Sequence[Code]) -> Answer:
    meaning = MEANINGS[code]
    return Answer(
        id=1, exchange=b"x" * 16, code=code, stage=code.stage, official=meaning.official,
        status=meaning.status, action=meaning.action, generation="",
        recipients=tuple(RecipientStatus(CROSSROADS_BANK, each) for each in recipients),
    )  # fmt: skip


_DATA, _NONE, _FAILED = Code.ANSWERED_WITH_DATA, Code.ANSWERED_WITHOUT_DATA, Code.SOURCE_FAILED


@pytest.mark.parametrize(
    ("code", "recipients", "outcome"),
    [
        (_NONE, [_NONE, _DATA], "told"),
        (Code.ANSWERED_IN_PART, [_DATA, _FAILED], "failed"),
        (_FAILED, [_FAILED], "failed"),
        *[(Code.ANSWERED_IN_PART, [_DATA, _FAILED, each], "") for each in NOT_SENT | UNKNOWN],
        (Code.NO_SOURCE_HAS_THE_DATA, [], "nobody"),
        (Code.NO_SOURCE_KNOWS_THE_PERSON, [], "nobody"),
        (Code.NO_RECIPIENT_MAY_RECEIVE, [], "nobody"),
        (Code.TOO_MANY_RECIPIENTS, [], ""),
        (Code.SECTORAL_DIRECTORY_DOWN, [], ""),
        (Code.ANNOUNCED_OUTAGE, [], ""),
        (Code.SUBMISSION_OPEN, [], ""),
        (Code.NO_GRANT, [], ""),
        (Code.SERVICE_UNKNOWN, [], ""),
        (Code.LEDGER_FULL, [], ""),
    ],
)
def test_only_what_everybody_has_or_nobody_is_to_have_is_settled(
    code: Code, recipients: list[Code], outcome: str
) -> None:
    """Whatever one recipient may still get keeps the notice, whatever came of the others."""
    assert outcome_of(answered(code, recipients)) == outcome


def test_what_reaches_nobody_waits_and_is_given_up_when_it_is_too_old(
    writer: Writer, identity: Identity
) -> None:
    """The older one only; it is counted and named by its version, and no number is logged."""
    waiting = writer.notices(b"", 9)
    with structlog.testing.capture_logs() as events:
        metrics = sent_alone(writer, identity, now_us=NOW_US + 2 * HOUR_US, give_up_hours=1.5)
    assert writer.notices(b"", 9) == waiting[1:]
    assert shown(metrics) == {
        "notices_waiting": 1,
        "notice_oldest_timestamp_seconds": (NOW_US + HOUR_US) / 1_000_000,
        "notices_totaltold": 0,
        "notices_totalnobody": 0,
        "notices_totalfailed": 0,
        "notices_totalgiven_up": 1,
    }
    (lost,) = [event for event in events if event["event"] == "notice_given_up"]
    assert lost["version"] == 2
    assert [e["reason"] for e in events if e["event"] == "notice_waits"] == ["NotConnectedError"]
    assert A not in str(events) + repr(waiting)


def test_without_an_access_right_to_send_under_all_waits_and_shows(
    writer: Writer, identity: Identity
) -> None:
    """Nothing is given up; the age is what the alert goes by."""
    metrics = sent_alone(writer, identity, now_us=NOW_US + 999 * HOUR_US, application="")
    assert len(writer.notices(b"", 9)) == 2
    assert shown(metrics)["notices_waiting"] == 2
    assert shown(metrics)["notice_oldest_timestamp_seconds"] == NOW_US / 1_000_000
