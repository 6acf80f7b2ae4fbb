"""Tables and keys change all or nothing, between two batches, and entries say which held."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from ksz_router import config
from ksz_router.daemon import ledger_from_log
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.journal import Journal
from ksz_router.daemon.tables import Tables
from ksz_router.decision import Facts
from ksz_router.directory.packing import DirectoryError
from ksz_router.messages import Request
from ksz_router.privacylog.entry import parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.keys import KeyRing, make, quarter_begin_ns
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_numbers, file_of
from ksz_router.rulebook.compile import build
from ksz_router.rulebook.generation import RulebookError
from tests.daemon_ground import NEIGHBOUR, Ground, load_directory
from tests.worlds import CENTRE, LINES, NOW_MS, PERSON, RVA, USER_B, ask, uri

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.close()


def another_generation(ground: Ground) -> tuple[str, Path]:
    """Build a generation beside the one in force, without the outage and RVA's endpoint."""
    (ground.world.text / "outages" / "announced.toml").write_text("# none\n", encoding="utf-8")
    manifest, _ = build(ground.world.text, ground.world.store, now_ns=time.time_ns())
    (folder,) = [found for found in ground.world.store.rglob(manifest.name) if found.is_dir()]
    return manifest.name, folder


def test_a_damaged_generation_leaves_the_one_in_force(ground: Ground) -> None:
    """Opening fails whole; look-ups, endpoints and versions are those of before."""
    name, folder = another_generation(ground)
    data = (folder / "data.mdb").read_bytes()
    for damaged in (b"", data[:5_000], bytes(len(data)), data[:-4096] + bytes(4096)):
        (folder / "data.mdb").write_bytes(damaged)
        with pytest.raises(RulebookError):
            ground.tables.adopt(ground.tables.open(name))
        assert ground.tables.generation == ground.world.name
        assert ground.entries.generation == ground.world.name
        assert ground.tables.endpoints_of(RVA)


def test_another_generation_is_taken_over_whole(ground: Ground) -> None:
    """From then on everything, entries too, names the new one."""
    name, _ = another_generation(ground)
    ground.tables.adopt(ground.tables.open(name))
    assert ground.tables.generation == ground.entries.generation == name
    assert [endpoint.port for endpoint in ground.tables.endpoints_of(RVA)] == [7801]


def test_a_generation_that_is_not_there_is_refused(ground: Ground) -> None:
    """A name that the store does not have changes nothing."""
    with pytest.raises(RulebookError):
        ground.tables.open("0" * len(ground.world.name))
    assert ground.tables.generation == ground.world.name


def test_a_newer_directory_is_taken_over_and_a_damaged_one_is_not(ground: Ground) -> None:
    """The version in the entries follows what is looked up, and on an error the old one stays."""
    tables = ground.tables
    assert not tables.refresh_directory()
    load_directory(ground.directory, {PERSON: LINES, NEIGHBOUR: LINES}, {})
    assert tables.refresh_directory()
    assert tables.directory.version == ground.entries.directory_version == 2

    load_directory(ground.directory, {PERSON: LINES}, {})
    (ground.directory / "version-00000003" / "data.mdb").write_bytes(b"torn")
    with pytest.raises(DirectoryError):
        tables.refresh_directory()
    assert tables.directory.version == ground.entries.directory_version == 2
    assert tables.directory.look_up([NEIGHBOUR])[0] is not None


def test_tables_that_cannot_be_opened_are_an_error_at_the_start(ground: Ground) -> None:
    """Not at the first request."""
    entries = EntryMaker(ground.tokens, lambda: 0)
    with pytest.raises(RulebookError):
        Tables(ground.world.store, "f" * len(ground.world.name), ground.directory, entries)


def asked(ground: Ground, request: Request, moment_ms: int = NOW_MS) -> Facts:
    """What the tables say of a request of the centre."""
    session = cast("Session", SimpleNamespace(uri=uri(CENTRE)))
    (facts,) = ground.tables.look_up([(session, request)], moment_ms)
    return facts


def test_what_is_settled_for_a_requester_is_remembered(ground: Ground) -> None:
    """For its user, in its role, for its service; whomever and whenever it is about."""
    first = asked(ground, ask()).standing
    assert first is not None
    assert first.is_clear
    assert asked(ground, ask(id=2, person=NEIGHBOUR, ticket="other")).standing is first
    for other in (ask(user=USER_B), ask(capacity=6), ask(level=1), ask(service="Handi")):
        assert asked(ground, other).standing is not first
    assert asked(ground, ask(), NOW_MS + 86_400_000).standing is not first


def test_who_may_not_ask_is_not_remembered(ground: Ground) -> None:
    """Nobody fills the memory of a worker with what he thinks up."""
    for number in range(5):
        facts = asked(ground, ask(service=f"Unknown{number}"))
        assert facts.standing is not None
        assert facts.standing.identity is None
        assert facts.standing.syntax is not None
    assert not ground.tables._remembered


def test_as_many_are_remembered_as_may_be(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more, and it begins anew."""
    monkeypatch.setattr("ksz_router.daemon.tables.standings_kept_max", 3)
    sizes = []
    for number in range(5):
        asked(ground, ask(means=f"eid-{number}"))
        sizes.append(len(ground.tables._remembered))
    assert sizes == [1, 2, 3, 1, 2]


def test_another_generation_forgets_what_was_settled(ground: Ground) -> None:
    """A grant that was taken back yesterday evening lets nobody through today."""
    standing = asked(ground, ask()).standing
    name, _ = another_generation(ground)
    ground.tables.adopt(ground.tables.open(name))
    assert not ground.tables._remembered
    assert asked(ground, ask()).standing is not standing


def test_an_outage_begins_and_ends_for_who_is_remembered(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked anew with each request whether one holds."""
    begin = 1_767_222_000_000  # a midnight in Brussels; some minutes later is the same day
    request = ask(service="SelfEmployed", version=2)
    table = ground.tables._snapshot._tables["SelfEmployed", 2]
    (announced,) = table.outages
    later = msgspec.structs.replace(announced, begin_ms=begin + 60_000, end_ms=begin + 120_000)
    monkeypatch.setattr(table, "outages", (later,))
    moments = range(begin, begin + 180_000, 60_000)
    facts = [asked(ground, request, moment) for moment in moments]
    assert len({id(found.standing) for found in facts}) == 1
    assert [bool(found.outages) for found in facts] == [False, True, False]


class Night:
    """A wall clock around the end of a quarter."""

    def __init__(self) -> None:
        self.now_ns = quarter_begin_ns("2027Q1") - 2_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def settings(tmp_path: Path) -> config.Config:
    (tmp_path / "log").mkdir()
    make(tmp_path / "keys", "2026Q4")
    log = config.PrivacyLog(str(tmp_path / "log"), str(tmp_path / "keys"), 1 << 20)
    settings = config.Config(privacy_log=log, ledger=config.Ledger(str(tmp_path / "ledger")))
    ledger_from_log.ready(settings, Night()())
    return settings


def test_a_new_quarter_begins_with_its_own_keys_and_its_own_file(
    settings: config.Config, tmp_path: Path
) -> None:
    """Between two turns nothing waits for the log; then tokens and file change together."""
    night = Night()
    journal = Journal(settings, 0, lambda: 0, night)
    journal.open()
    old = journal.entries.tokens.person(PERSON)

    journal.recorder.submit([journal.entries.summary("before", {})])
    journal.recorder.commit()
    assert not journal.turn_quarter()
    night.now_ns += 5_000
    assert not journal.turn_quarter()
    assert "2027Q1" in journal.keys_error
    assert journal.entries.tokens.person(PERSON) == old
    make(tmp_path / "keys", "2027Q1")
    assert journal.turn_quarter()
    assert not journal.keys_error
    assert not journal.turn_quarter()
    assert journal.entries.tokens.person(PERSON) != old
    journal.recorder.submit([journal.entries.summary("after", {})])
    journal.recorder.commit()
    journal.close()

    found = {}
    for number in file_numbers(tmp_path / "log" / "w0"):
        frames: list[Frame] = []
        file = file_of(tmp_path / "log" / "w0", number)
        result = scan(file, KeyRing(tmp_path / "keys"), frames.append)
        records = [record for frame in frames for record in frame.records]
        found[result.header.key_id[:6]] = [parse(record).requester for record in records]
    assert found == {"2026Q4": ["before"], "2027Q1": ["after"]}


def test_the_time_of_entries_never_goes_back(settings: config.Config) -> None:
    """Not even where the clock of the host does; two entries never share a microsecond."""
    night = Night()
    journal = Journal(settings, 0, lambda: 0, night)
    journal.open()
    moments = []
    for step_ns in (0, 5_000, -60_000_000_000, 0, 70_000_000_000):
        night.now_ns += step_ns
        moments.append(parse(journal.entries.summary("x", {})).at_us)
    journal.close()
    assert moments == sorted(set(moments))
    assert moments[-1] == night.now_ns // 1_000
