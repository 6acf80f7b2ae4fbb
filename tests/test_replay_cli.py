"""``ksz-router log replay`` on the log of a router: its verdicts, its alarms, its own entry."""

import io
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from ksz_router import cli
from ksz_router.privacylog import keys as quarter_keys
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.replay.again import State
from ksz_router.replay.replay import Replay
from ksz_router.rulebook.archived import Archive
from ksz_router.rulebook.compile import build
from ksz_router.rulebook.generation import DATA, MANIFEST, GenerationDamagedError
from tests import worlds as w
from tests.daemon_ground import NOT_INTEGRATED, Ground
from tests.daemon_parts import in_trio, parts
from tests.kinds_ground import RECEIVED, UNSOURCED, circulate, consult, make_ground, mutate
from tests.replay_ground import ASKED, exchange_of, record, write_log
from tests.sealed_entries import seal_entries

ALL_TIME = (0, 2**62)
DAY, DAY_BEFORE = "2026-11-21", "2026-11-20"
"""The Brussels day of ``worlds.NOW_MS``, and the one before."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = make_ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


@in_trio
async def test_what_a_running_router_decided_is_decided_again(
    ground: Ground, tmp_path: Path
) -> None:
    """Consultations, a submission and its retries, a distribution with one recipient missing."""
    async with parts(ground) as p:
        rva, pod = p.add_source(w.RVA), p.add_source(w.POD_MI)
        p.add_source(w.NIC, listens=False)
        centre, register = await p.connect(), await p.connect(w.REGISTER)
        submitted = {"service": "A036", "version": 1, "ticket": "t", "payload": b"x"}
        centre.ask(
            w.ask(), w.ask(id=2, **submitted), w.ask(id=3, person=NOT_INTEGRATED),
            consult("Own-log", id=4, person=NOT_INTEGRATED), w.ask(id=5, **submitted),
            consult("Recipient-log", id=6, person=UNSOURCED, ticket="r"),
        )  # fmt: skip
        register.ask(mutate(), circulate(2, id=2, person=RECEIVED, ticket="c"))
        await p.until(lambda: len(rva.deliveries) == 4 and pod.deliveries)
        for index in range(4):
            rva.reply(index)
        pod.reply()
        await p.until(lambda: len(centre.answers) == 6 and len(register.answers) == 2)
        centre.ask(w.ask(id=7, **submitted), w.ask(id=8, **submitted | {"payload": b"y"}))
        register.ask(mutate(id=3))
        await p.until(lambda: len(centre.answers) == 8 and len(register.answers) == 3)
        requests = [entry for entry in p.durable if entry.kind is Kind.REQUEST]
        # A process opens a generation once, and here the router has it open.
        store = shutil.copytree(ground.world.store, tmp_path / "rulebook")
        with closing(Replay(p.log, ground.keys_folder, store)) as replay:
            found = replay.stretch(*ALL_TIME)
            assert [alarm.differences for alarm in found.alarms] == []
            assert dict(found.states) == {State.SAME: len(requests)} == {State.SAME: 11}
            attempts = {entry.attempt for entry in requests if entry.content is not None}
            assert {0, 1, 2} <= attempts
            asked = {entry.exchange: entry for entry in requests}
            for conversation in replay.find([entry.exchange or b"" for entry in requests]):
                (request,) = conversation.requests
                assert request == asked[conversation.exchange]
                again = replay.again(replay.numbers(request), conversation.others)
                assert (again.state, again.differences) == (State.SAME, ())


class Desk(NamedTuple):
    """A log of everything in ``ASKED``, tables and a configuration, and the command."""

    folder: Path
    config: Path
    entries: dict[str, Entry]
    store: Path
    name: str

    def replay(self, *words: str) -> int:
        return cli.main(
            ["log", "replay", "--config", str(self.config), "--purpose", "complaint 7", *words]
        )

    def rewrite(self, name: str, **fields: Any) -> None:
        """Write the log anew, with one entry changed."""
        changed = dict(self.entries)
        changed[name] = msgspec.structs.replace(changed[name], **fields)
        shutil.rmtree(self.folder / "log")
        write_log(self.folder / "log", self.folder / "keys", list(changed.values()))


@pytest.fixture
def desk(ground: Ground, tmp_path: Path) -> Desk:
    shutil.copytree(ground.world.store, tmp_path / "rulebook")
    shutil.copytree(ground.keys_folder, tmp_path / "keys")
    now = quarter_keys.quarter_of(time.time_ns())
    if not (tmp_path / "keys" / f"{now}.json").exists():
        quarter_keys.make(tmp_path / "keys", now)
    entries = record(ground)
    write_log(tmp_path / "log", tmp_path / "keys", list(entries.values()))
    config = tmp_path / "router.toml"
    config.write_text(
        '[tables]\nrulebook = "rulebook"\ndirectory = "none"\n'
        '[privacy_log]\npath = "log"\nkeys = "keys"\n[archive]\npath = "archive"\n',
        encoding="utf-8",
    )
    return Desk(tmp_path, config, entries, tmp_path / "rulebook", ground.world.name)


def name_of(name: str) -> str:
    return str(uuid.UUID(bytes=exchange_of(list(ASKED).index(name))))


def test_an_exchange_is_shown_with_what_was_taken_from_the_record(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict, that it is the same, and what of it a replay cannot know; no number."""
    assert desk.replay("--exchange", name_of("plain"), "--exchange", name_of("capacity")) == cli.OK
    shown = capsys.readouterr().out
    assert f"{name_of('plain')}  forward  {desk.name[:8]}  same" in shown
    assert f"{w.RVA} knew the person" in shown
    assert f"{name_of('capacity')}  CAPACITY_NOT_GRANTED  {desk.name[:8]}  same" in shown
    assert w.PERSON not in shown
    assert w.USER_A not in shown


def test_a_day_is_counted(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Every request of it, and nothing of another."""
    assert desk.replay("--from", DAY, "--to", DAY) == cli.OK
    assert capsys.readouterr().out == f"{len(ASKED)} same, 0 differs, 0 not decided\n"
    assert desk.replay("--from", DAY_BEFORE, "--json") == cli.OK
    counts = {"same": 0, "differs": 0, "not decided": 0}
    assert json.loads(capsys.readouterr().out) == {"counts": counts, "not_decided": {}}


@pytest.mark.parametrize("words", [("--exchange", name_of("plain")), ("--from", DAY)])
def test_an_alarm_names_the_field_and_fails(
    desk: Desk, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> None:
    """For people and for programs; by one exchange and by the day."""
    desk.rewrite("plain", grant="ocmw-handi")
    assert desk.replay(*words) == cli.NOT_IN_ORDER
    shown = capsys.readouterr().out
    assert "ALARM grant: recorded ocmw-handi, decided again ocmw-unemployment" in shown
    assert desk.replay(*words, "--json") == cli.NOT_IN_ORDER
    found = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (found["replay"], found["exchange"]) == ("differs", name_of("plain"))
    assert found["differences"] == [
        {"field": "grant", "recorded": "ocmw-handi", "decided": "ocmw-unemployment"}
    ]


def test_who_replays_is_recorded_first_and_under_the_persons_number(desk: Desk) -> None:
    """Before the log is read, without the person; and again once it is known who that is."""
    desk.replay("--exchange", name_of("replaced"), "--reader", "dpo")
    readings = readings_of(desk)
    recorded = desk.entries["replaced"]
    assert [(entry.service, entry.reader) for entry in readings] == [("log replay", "dpo")] * 3
    assert [entry.person for entry in readings] == [None, recorded.person, recorded.asked]
    assert {entry.user for entry in readings[1:]} == {recorded.user}

    desk.replay("--from", "2026-11-20", "--to", DAY)
    last = readings_of(desk)[-1]
    assert (last.person, last.begin, last.end) == (None, 20261120, 20261121)


def readings_of(desk: Desk) -> list[Entry]:
    from tests.privacylog_world import World  # noqa: PLC0415

    world = World.__new__(World)
    world.log, world.keys = desk.folder / "log", desk.folder / "keys"
    (slot,) = [folder.name for folder in world.log.iterdir() if folder.name.startswith("v-")]
    return world.entries(slot)


def test_an_exchange_that_is_not_there_is_no_agreement(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said on the standard error, and the command fails."""
    missing = "019aa3c5-6f00-7000-8000-0123456789ab"
    assert desk.replay("--exchange", missing, "--exchange", name_of("plain")) == cli.NOT_IN_ORDER
    assert missing in capsys.readouterr().err


def another_generation(desk: Desk, ground: Ground) -> Path:
    """The same rulebook with one phase changed, compiled."""
    text = desk.folder / "text"
    shutil.copytree(ground.world.text, text)
    file = text / "deliberations" / "2019-901.toml"
    files = [file] if file.exists() else sorted((text / "deliberations").glob("*.toml"))
    for each in files:
        words = each.read_text("utf-8")
        if 'id = "ocmw-unemployment"' in words:
            changed = words.replace('id = "ocmw-unemployment"', 'id = "ocmw-other"')
            each.write_text(changed, "utf-8")
    manifest, _ = build(text, desk.folder / "other", now_ns=time.time_ns())
    assert manifest.name != desk.name
    return desk.folder / "other" / "generations" / manifest.name


def swap(desk: Desk, ground: Ground) -> None:
    """Put other rows under the name, with a manifest that agrees with them."""
    other, folder = another_generation(desk, ground), desk.store / "generations" / desk.name
    manifest = json.loads((other / MANIFEST).read_bytes()) | {"name": desk.name}
    for file, data in ((DATA, (other / DATA).read_bytes()),
                       (MANIFEST, json.dumps(manifest).encode())):  # fmt: skip
        (folder / file).chmod(0o644)
        (folder / file).write_bytes(data)


def flip(desk: Desk, _ground: Ground) -> None:
    """Change one byte."""
    file = desk.store / "generations" / desk.name / DATA
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("tamper", [swap, flip])
def test_a_tampered_generation_is_an_alarm(
    desk: Desk,
    ground: Ground,
    capsys: pytest.CaptureFixture[str],
    tamper: Callable[[Desk, Ground], None],
) -> None:
    """Even with a manifest that agrees: the name is the hash of the rows, and the log has it."""
    tamper(desk, ground)
    with closing(Archive(desk.store)) as archive, pytest.raises(GenerationDamagedError):
        archive.generation(desk.name)
    assert desk.replay("--exchange", name_of("plain")) == cli.NOT_IN_ORDER
    assert "ALARM generation" in capsys.readouterr().out


def test_a_generation_that_is_gone_is_said(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the rulebook of that day nothing is decided, and nothing agrees."""
    shutil.rmtree(desk.store / "generations" / desk.name)
    assert desk.replay("--from", DAY) == cli.NOT_IN_ORDER
    assert f"{len(ASKED)} not decided" in capsys.readouterr().out


def test_the_archive_holds_only_so_many_generations_open(desk: Desk, ground: Ground) -> None:
    """What was closed is opened again when it is asked for."""
    other = another_generation(desk, ground)
    shutil.copytree(other, desk.store / "generations" / other.name)
    with closing(Archive(desk.store, open_max=1)) as archive:
        for name in (desk.name, other.name, desk.name):
            assert archive.generation(name).generation == name
        assert archive.generation(desk.name) is archive.generation(desk.name)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--exchange", "x"),
        ("--exchange", name_of("plain"), "--from", DAY),
        ("--from", "2026-11-31"),
        ("--from", DAY, "--to", DAY_BEFORE),
    ],
)
def test_a_wrong_command_line_reads_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str], words: Sequence[str]
) -> None:
    """And says what is wanted."""
    assert desk.replay(*words) == cli.USAGE
    assert "--" in capsys.readouterr().err
    assert not [folder for folder in (desk.folder / "log").iterdir() if "v-" in folder.name]


def test_a_program_reads_no_purpose_with_a_number(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in every verb that reads: the purpose names no person."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    words = ["log", "replay", "--config", str(desk.config), "--exchange", name_of("plain")]
    assert cli.main([*words, "--purpose", f"about {w.PERSON}"]) == cli.NOT_IN_ORDER


def seal(desk: Desk) -> None:
    """Seal the first half of the log; its write-ahead file is still there."""
    entries = list(desk.entries.values())
    sealed = entries[: len(entries) // 2]
    seal_entries(desk.folder / "archive", sealed, desk.folder / "keys")


def test_sealed_requests_are_replayed_each_once(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the Parquet files up to where they reach, from the write-ahead files behind that."""
    seal(desk)
    assert desk.replay("--from", DAY) == cli.OK
    assert capsys.readouterr().out == f"{len(ASKED)} same, 0 differs, 0 not decided\n"


def test_an_exchange_whose_file_is_gone_is_found_in_the_archive(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its key, in the sealed files; a changed one is an alarm there too."""
    plain, changed = desk.entries["plain"], desk.entries["period"]
    changed = msgspec.structs.replace(changed, grant="ocmw-handi")
    seal_entries(desk.folder / "archive", [plain, changed], desk.folder / "keys")
    shutil.rmtree(desk.folder / "log")
    (desk.folder / "log").mkdir()
    assert desk.replay("--exchange", name_of("plain")) == cli.OK
    assert f"{name_of('plain')}  forward" in capsys.readouterr().out
    assert desk.replay("--exchange", name_of("period")) == cli.NOT_IN_ORDER
    assert "ALARM grant" in capsys.readouterr().out
