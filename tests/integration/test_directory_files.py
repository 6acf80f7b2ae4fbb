"""Mailboxes through whole routers: sent in parts, applied over kills, told of, and by command."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from contrib.stand import CROSSROADS_BANK
from ksz_router.codes import Code
from ksz_router.directory.mailbox_form import Head
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Answer
from ksz_router.privacylog.entry import Kind
from ksz_router.sdk import Client, Request, new_ticket
from ksz_router.sdk import directory_files as files
from ksz_router.sdk.directory_files import Receipt, answers, mailbox_of, parts_of, receipt_of
from tests.integration.stands import CENTRE, Town, asking, on_trio, settled, town, until

pytestmark = pytest.mark.xdist_group("integration-directory")

PROGRAM = "00901000101"
NEWCOMER = landmarks(1)["not_integrated"]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("mailboxes") / "stand"
    with town(
        folder, institutions=[CENTRE], persons=400, serves_directory=True,
        options={"sources": {"breaker_open_seconds": 0.2}},
    ) as made:  # fmt: skip
        made.start()
        yield made


@pytest.fixture(scope="module")
def people(stand: Town) -> list[str]:
    """Numbers that are in use, without the newcomer's."""
    rows = (stand.folder / "persons.csv").read_text(encoding="utf-8").splitlines()
    found = [cells[0] for row in rows if (cells := row.split(","))[1:2] == ["active"]]
    return [insz for insz in found if insz != NEWCOMER]


def envelope(**fields: Any) -> Request:
    """The program of the centre."""
    usual: dict[str, Any] = {
        "id": 0, "service": "", "version": 0, "ticket": new_ticket(), "application": PROGRAM,
        "sector": 17, "type": 1, "capacity": 0,
    }  # fmt: skip
    return Request(**{**usual, **fields})


def mailbox(number: int, *rows: str) -> bytes:
    return mailbox_of(Head(CENTRE, 17, 1, PROGRAM, number), rows)


def inscribe(insz: str, month: int, capacity: int = 9) -> str:
    """A row: the month, counted from January 2000."""
    begin = f"20{month // 12:02}-{month % 12 + 1:02}"
    return f"{insz},inscribe,{capacity},1,{begin}-01,{begin}-28,,,"


def told(answer: Answer) -> Receipt:
    receipt = receipt_of(answer)
    assert receipt is not None, Code(answer.code).name
    return receipt


async def sent(client: Client, number: int, content: bytes, part_bytes: int = 4096) -> Receipt:
    """Send every part; return the last acknowledgement."""
    receipts = [
        told(await settled(client, asked))
        for asked in parts_of(envelope(), number, content, part_bytes)
    ]
    return receipts[-1]


async def answered(client: Client, number: int) -> str:
    """Fetch the answers until all are there, from where the last were."""
    data, is_last = b"", False
    with trio.fail_after(30):
        while not is_last:
            asked = answers(envelope(ticket=new_ticket()), number, len(data))
            receipt = told(await settled(client, asked))
            assert receipt.offset == len(data)
            data, is_last = data + receipt.data, receipt.is_last
            await trio.sleep(0.02)
    return data.decode("ascii")


def directory_pid(stand: Town) -> int:
    """The process of the directory program; 0 while it starts."""
    (program,) = [p for p in stand.ask().programs if p.name == "directory"]
    return program.pid


def is_anew(stand: Town, killed: int) -> bool:
    """Another process is the directory program by now."""
    return directory_pid(stand) not in (0, killed)


@on_trio
async def test_a_mailbox_is_acknowledged_applied_and_told_of(
    stand: Town, people: list[str]
) -> None:
    """In parts, out of order; the person is then known online, and findable in the log."""
    content = mailbox(1, *(inscribe(p, 10) for p in [*people[:200], NEWCOMER]), "no change")
    asked = list(parts_of(envelope(), 1, content, 4096))
    assert len(asked) > 2
    async with asking(stand) as client:
        first = told(await settled(client, asked[-1]))
        assert (first.state, first.missing[:2]) == ("receiving", (1, 2))
        receipt = [told(await settled(client, part)) for part in asked[:-1]][-1]
        text = await answered(client, 1)

    assert (receipt.state, receipt.lines, receipt.missing) == ("waiting", 202, ())
    rows = text.splitlines()
    assert [row.split(",")[1] for row in rows[1:-1]] == ["applied"] * 201 + ["refused"]
    assert rows[-1] == "end,202"
    directory = Directory.open(stand.directory)
    (person,) = directory.look_up([NEWCOMER])
    directory.close()
    assert person is not None
    assert 9 in {line.capacity for line in person.lines}
    printed = await trio.to_thread.run_sync(
        lambda: stand.command(
            "log", "query", "--person", NEWCOMER, "--purpose", "a test", "--config", stand.config,
            "--json",
        )
    )  # fmt: skip
    found = [row for row in map(json.loads, printed.splitlines()) if "directory" in str(row)]
    assert any("directory.inscribe" in json.dumps(row) for row in found)


@on_trio
async def test_a_number_is_taken_once_and_what_is_left_out_is_told(stand: Town) -> None:
    """Typed refusals, each with the rule in words; the gap stands in every receipt."""
    async with asking(stand) as client:
        gap = await sent(client, 4, mailbox(4))
        used = await sent(client, 4, mailbox(4, inscribe(NEWCOMER, 20)))
        other = await sent(client, 5, mailbox(6))
        unknown = told(await settled(client, answers(envelope(), 77)))
        broken = await settled(
            client, envelope(service=files.FILE, version=1, payload=b"\xc1", ticket=new_ticket())
        )
    assert gap.gaps == ((2, 3),)
    assert (used.reason, bool(used.why)) == ("FILE_NUMBER_USED", True)
    assert (other.reason, other.state) == ("FILE_SENDER_DIFFERS", "refused")
    assert unknown.reason == "FILE_UNKNOWN"
    assert told(broken).reason == "PAYLOAD_MALFORMED"
    assert broken.recipients[0].source_code == "DIR-51"


@on_trio
async def test_the_program_may_be_killed_while_a_mailbox_is_applied(
    stand: Town, people: list[str]
) -> None:
    """Every line has one verdict, and stands once: each made one version."""
    rows = [inscribe(p, month) for month in range(24, 36) for p in people]
    content = mailbox(7, *rows)
    before = stand.metric("ksz_router_directory_version")
    async with asking(stand) as client:
        await sent(client, 7, content, 256 * 1024)
        for _ in range(3):
            await until(lambda: directory_pid(stand))
            killed = directory_pid(stand)
            assert killed > 1
            os.kill(killed, signal.SIGKILL)
            await until(partial(is_anew, stand, killed))
        text = await answered(client, 7)
    lines = text.splitlines()
    assert lines[-1] == f"end,{len(rows)}"
    verdicts = [line.split(",") for line in lines[1:-1]]
    assert [int(verdict[0]) for verdict in verdicts] == list(range(1, len(rows) + 1))
    assert {verdict[1] for verdict in verdicts} == {"applied"}
    versions = [int(verdict[4]) for verdict in verdicts]
    assert versions == list(range(versions[0], versions[0] + len(rows)))
    assert versions[0] > before > 1


@on_trio
async def test_a_file_is_applied_by_a_command_while_the_program_serves(stand: Town) -> None:
    """The program does it; run again, the command tells the same; the answers lie beside."""
    file = stand.folder / "from-a-courier.csv"
    file.write_bytes(mailbox(8, inscribe(NEWCOMER, 40), inscribe(NEWCOMER, 40)))

    def applied() -> dict[str, Any]:
        words = ("directory", "apply", file, "--purpose", "a courier", "--reader", "me", "--json")
        return dict(json.loads(stand.command(*words, "--config", stand.config, accept=(1,))))

    first = await trio.to_thread.run_sync(applied)
    assert (first["applied"], first["refused"]) == (1, 1)
    assert await trio.to_thread.run_sync(applied) == first
    beside = (stand.folder / f"{CENTRE}-8.answers.csv").read_text(encoding="ascii")
    assert [row.split(",")[3] for row in beside.splitlines()[1:3]] == ["", "OVERLAPS"]
    readings = [e for e in stand.entries() if e.kind is Kind.READING and e.purpose == "a courier"]
    assert [(e.service, e.enterprise, e.reader) for e in readings] == [
        ("directory apply", CENTRE, "me")
    ] * 2


def test_a_stop_leaves_all_in_order_and_a_command_goes_on_alone(stand: Town) -> None:
    """Directory sound, log whole and replayed; with nothing running the command applies itself."""
    assert stand.stop() == 0
    file = stand.folder / "alone.csv"
    file.write_bytes(mailbox(9, inscribe(NEWCOMER, 50)))
    words = ("directory", "apply", file, "--purpose", "a courier", "--answers", stand.folder)
    printed = stand.command(*words, "--config", stand.config)
    assert f"mailbox 9 of {CENTRE}: 1 lines, 1 applied, 0 refused" in printed

    stand.command("directory", "check", "--config", stand.config)
    stand.verify_log()
    lines = [e for e in stand.entries() if e.application == PROGRAM and e.kind is Kind.REQUEST]
    assert {e.destinations for e in lines if not e.code} == {(CROSSROADS_BANK,)}
    assert not stand.events("mailboxes_stand_still")
    text = stand.output.read_text(encoding="utf-8")
    assert NEWCOMER not in text


def test_a_file_that_is_no_mailbox_is_wrong_usage(stand: Town) -> None:
    """Nothing is taken in, and the sentence says why."""
    file = stand.folder / "persons.csv"
    words = ("directory", "apply", file, "--purpose", "x", "--config", stand.config)
    assert stand.command(*words, accept=(2,)) == ""
    whole = stand.folder / "alone.csv"
    digest = ("--sha256", "00")
    words = ("directory", "apply", whole, "--purpose", "x", "--config", stand.config)
    assert stand.command(*words, *digest, accept=(2,)) == ""
