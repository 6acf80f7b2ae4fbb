"""Facts: the right rows for each request, nothing for a hostile one, damage shown at open."""

import gc
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksz_router.decision.case import Facts
from ksz_router.messages import Request
from ksz_router.rights import Rights
from ksz_router.rulebook.compile import build
from ksz_router.rulebook.generation import GenerationDamagedError, RulebookError
from ksz_router.rulebook.snapshot import Snapshot
from tests import worlds as w
from tests.worlds import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def snapshot(world: World) -> Iterator[Snapshot]:
    opened = Snapshot.open(world.store, world.name)
    yield opened
    opened.close()


def look_up(snapshot: Snapshot, caller: str, /, **changes: Any) -> Facts:
    return snapshot.look_up(w.ask(**changes), w.uri(caller), w.NOW_MS)


def grant_ids(facts: Facts) -> list[str]:
    return [grant.id for grant in facts.grants]


def test_an_unknown_certificate_finds_nothing(snapshot: Snapshot) -> None:
    """Not even whether the service exists."""
    assert look_up(snapshot, "0999999922") == Facts(caller=None)


def test_a_uri_is_exact(snapshot: Snapshot) -> None:
    """No case folding, no prefix, no space: an institution is one URI."""
    uri = w.uri(w.CENTRE)
    assert snapshot.institution_by_uri(uri) == snapshot.institution(w.CENTRE)
    for other in (uri.upper(), uri + " ", uri[:-1], uri + "0", ""):
        assert snapshot.institution_by_uri(other) is None


def test_the_member_is_the_one_named(snapshot: Snapshot) -> None:
    """In ``member``, else under another KBO number; the caller itself is no member."""
    member = snapshot.institution(w.MEMBER)
    assert member is not None
    assert look_up(snapshot, w.MANAGER, member=w.MEMBER).member == member
    assert look_up(snapshot, w.MANAGER, kbo=w.MEMBER).member == member
    assert look_up(snapshot, w.MANAGER, kbo=w.MANAGER).member is None
    assert look_up(snapshot, w.MANAGER).member is None


def test_path_a_goes_by_service_version_and_role(snapshot: Snapshot) -> None:
    """Another version, role or path finds other rows or none."""
    assert grant_ids(look_up(snapshot, w.CENTRE)) == ["ocmw-unemployment"]
    assert look_up(snapshot, w.CENTRE, version=2).service is None
    assert grant_ids(look_up(snapshot, w.CENTRE, sector=18, type=0)) == []
    assert grant_ids(look_up(snapshot, w.CENTRE, sector=None)) == []
    path_b = {"capacity": None, "legal_framework": "PCSA:SOCIAL_INQUIRY"}
    assert grant_ids(look_up(snapshot, w.CENTRE, **path_b)) == []
    assert grant_ids(look_up(snapshot, w.CENTRE, capacity=None, legal_framework="")) == []


def test_path_b_finds_the_rows_of_the_kbo_number_and_then_of_the_role(tmp_path: Path) -> None:
    """The narrower first: a grant to one institution comes before that to its role."""
    world = make_world(tmp_path)
    with (world.text / "deliberations" / "2021-914.toml").open("a", encoding="utf-8") as file:
        for grant, holder in (("by-role", 'role = "17/1"'), ("by-kbo", f'kbo = "{w.MEMBER}"')):
            file.write(
                f'[[grant]]\nid = "{grant}"\ndirection = "request"\nversion = 1\n'
                f'service = "DmfaConsultationService"\nframework = "PCSA:X"\n{holder}\n'
                "own_integration = false\n"
            )
    manifest, _ = build(world.text, world.store, now_ns=1)
    snapshot = Snapshot.open(world.store, manifest.name)
    wish = {
        "service": "DmfaConsultationService",
        "version": 1,
        "capacity": None,
        "legal_framework": "PCSA:X",
    }
    by_member = look_up(snapshot, w.MANAGER, member=w.MEMBER, **wish)

    assert grant_ids(by_member) == ["by-kbo", "by-role"]
    assert grant_ids(look_up(snapshot, w.CENTRE, **wish)) == ["by-role"]
    assert grant_ids(look_up(snapshot, w.CENTRE, **wish, sector=None, type=None)) == []
    snapshot.close()


def test_a_submission_finds_grants_to_send_and_recipients(snapshot: Snapshot) -> None:
    """The direction follows from the kind of service."""
    facts = look_up(snapshot, w.CENTRE, service="A036", version=1)
    assert grant_ids(facts) == ["ocmw-a036"]
    assert [(row.kbo, row.receive[0].id) for row in facts.sources] == [(w.POD_MI, "podmi-a036")]


def test_a_grant_to_receive_does_not_let_its_holder_send(snapshot: Snapshot) -> None:
    """The NIC receives mutations in capacity 1; it may not send one to the others."""
    wish = {"service": "MutationsSender", "version": 1, "sector": 11, "type": 0, "capacity": 1}
    assert grant_ids(look_up(snapshot, w.NIC, **wish)) == []
    assert [g.id for g in snapshot.grants("MutationsSender", 1)] == ["registry-mutations"]


def test_an_outage_holds_from_its_begin_up_to_its_end(snapshot: Snapshot) -> None:
    """Begin belongs to it, end does not; another service has none."""
    begin, end = 1_767_222_000_000, 4_070_905_200_000
    request = w.ask(service="SelfEmployed", version=2)
    held = {
        moment: bool(snapshot.look_up(request, w.uri(w.CENTRE), moment).outages)
        for moment in (begin - 1, begin, end - 1, end)
    }
    assert held == {begin - 1: False, begin: True, end - 1: True, end: False}
    assert [row.kbo for row in snapshot.outages("SelfEmployed", begin)] == [w.RSVZ]
    assert snapshot.outages("Handi", begin) == ()
    assert look_up(snapshot, w.CENTRE).outages == ()


def test_the_test_service_asks_for_no_right(snapshot: Snapshot) -> None:
    """It is answered by the router, for whoever has a certificate."""

    def find(*_: object) -> tuple[()]:
        raise AssertionError("looked up")

    request = w.ask(service="TestConnectionService", version=1, person=None)
    facts = snapshot.look_up(request, w.uri(w.STOPPED), w.NOW_MS, find_rights=find)
    assert facts.service is not None
    assert (facts.grants, facts.rights, facts.sources) == ((), (), ())


texts = st.none() | st.text(max_size=600) | st.sampled_from([w.CENTRE, w.MEMBER, w.USER_A])
numbers = st.none() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, 2, 17])
requests = st.builds(
    Request,
    id=st.just(1),
    service=st.text() | st.sampled_from(["Handi", "UnemploymentData", "Handi\x001"]),
    version=st.integers(-(2**63), 2**64 - 1) | st.sampled_from([1, 3]),
    ticket=st.text(max_size=40),
    user=texts,
    application=texts,
    kbo=texts,
    member=texts,
    sector=numbers,
    type=numbers,
    capacity=numbers,
    legal_framework=texts,
)


@given(request=requests, kbo=st.sampled_from([w.CENTRE, w.MANAGER, w.REGISTER]))
def test_no_request_makes_the_look_up_raise_or_grow(
    snapshot: Snapshot, request: Request, kbo: str
) -> None:
    """Whatever a peer sends, rows that exist are found and nothing else is remembered."""
    facts = snapshot.look_up(request, w.uri(kbo), 1, find_rights=Rights(snapshot).find)

    assert {row.service for row in facts.grants} <= {request.service}
    assert {row.service for row in facts.sources} <= {request.service}
    assert all(right.kbo == kbo for right in facts.rights)
    assert len(snapshot._rights) <= 3


def test_a_right_that_is_not_there_is_not_remembered(snapshot: Snapshot) -> None:
    """Misses are not cached: a hostile peer cannot fill memory with names."""
    snapshot._rights.clear()
    find = Rights(snapshot).find
    for number in range(1_000):
        assert find(w.CENTRE, f"{number:011}", None) == ()
    assert snapshot._rights == {}
    assert find(w.CENTRE, w.USER_A, None) is find(w.CENTRE, w.USER_A, None)


def damaged(world: World, table: bytes, key: bytes, value: bytes | None) -> str:
    """Change a row and mend the manifest, so that only the row itself is wrong."""
    folder = world.store / "generations" / world.name
    (folder / "data.mdb").chmod(0o644)
    environment = lmdb.open(str(folder), max_dbs=4, lock=False, lib_version=0, map_size=2**26)
    with environment.begin(write=True) as transaction:
        database = environment.open_db(table, txn=transaction)
        if value is None:
            transaction.drop(database)
        else:
            transaction.put(key, value, db=database)
    environment.close()
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["data_sha256"] = hashlib.sha256((folder / "data.mdb").read_bytes()).hexdigest()
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(content), encoding="utf-8")
    return world.name


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (b"institutions", b""),
        (b"institutions", b"\xc1"),
        (b"services", msgspec.msgpack.encode([1, 2, 3])),
        (b"outages", msgspec.msgpack.encode("text")),
        (b"rights", b"\x93\xa1a"),
        (b"rights", msgspec.msgpack.encode(["0999016460", "uabc", []])),
        (b"institutions", None),
    ],
)
def test_a_row_that_cannot_be_read_shows_at_open(
    tmp_path: Path, table: bytes, value: bytes | None
) -> None:
    """Never in the hot path: whoever opens a generation knows that every row decodes."""
    world = make_world(tmp_path)
    name = damaged(world, table, b"all" if table == b"outages" else b"zzz", value)
    with pytest.raises(GenerationDamagedError, match="cannot be decoded"):
        Snapshot.open(world.store, name)


def test_a_second_open_in_the_process_says_so(world: World, snapshot: Snapshot) -> None:
    """LMDB allows one environment per file and process; the error is typed, not a crash."""
    with pytest.raises(RulebookError, match="each process opens a generation once") as refused:
        Snapshot.open(world.store, world.name)
    assert not isinstance(refused.value, GenerationDamagedError)
    assert look_up(snapshot, w.CENTRE).service is not None


def test_two_generations_are_open_side_by_side(tmp_path: Path) -> None:
    """The old one serves until its last reader left."""
    world = make_world(tmp_path)
    old = Snapshot.open(world.store, world.name)
    (world.text / "outages" / "announced.toml").write_text("", encoding="utf-8")
    new = Snapshot.open(world.store, build(world.text, world.store, now_ns=1)[0].name)

    assert old.outages("SelfEmployed", w.NOW_MS)
    assert not new.outages("SelfEmployed", w.NOW_MS)
    old.close()
    assert Rights(new).find(w.CENTRE, w.USER_A, None)
    new.close()


def test_the_collector_has_no_rows_to_go_through(snapshot: Snapshot) -> None:
    """A reload of a hundred thousand grants beside the traffic would make it stop the worker."""
    rows = [
        *snapshot.institutions(),
        *snapshot.services(),
        *(grant for row in snapshot.services() for grant in snapshot.grants(row.name, row.version)),
        *(row for of in snapshot.services() for row in snapshot.sources(of.name, of.version)),
    ]
    assert len({type(row) for row in rows}) == 4
    assert not any(map(gc.is_tracked, rows))
