"""``log replay``: whatever the router recorded holds, and whatever was changed is an alarm."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import msgspec
import pytest

from ksz_router.codes import Code
from ksz_router.model import OPEN, Line
from ksz_router.privacylog.entry import Entry
from ksz_router.replay.again import Replayed, State
from ksz_router.replay.replay import Replay
from tests import worlds as w
from tests.daemon_ground import Ground
from tests.kinds_ground import make_ground
from tests.replay_ground import ASKED, NOT_ON_THESE_TABLES, outcome, record, write_log

CONTROL = {code for code in Code if 1 <= code.stage <= 8}


class Desk(NamedTuple):
    """A log of everything in ``ASKED``, and what replays it."""

    ground: Ground
    entries: dict[str, Entry]
    replay: Replay

    def again(self, entry: Entry, *others: Entry) -> Replayed:
        return self.replay.again(self.replay.numbers(entry), others)

    def changed(self, name: str, **fields: Any) -> Replayed:
        return self.again(msgspec.structs.replace(self.entries[name], **fields))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("ground")
    ground = make_ground(folder)
    entries = record(ground)
    ground.close()
    write_log(folder / "log", ground.keys_folder, list(entries.values()))
    with closing(Replay(folder / "log", ground.keys_folder, ground.world.store)) as replay:
        yield Desk(ground, entries, replay)


def test_every_code_of_the_control_is_replayed() -> None:
    """The table below leaves no verdict out but those that it says."""
    met = {Code(code) for _, _, code in ASKED.values() if code}
    assert met == CONTROL - NOT_ON_THESE_TABLES


@pytest.mark.parametrize("name", ASKED)
def test_what_the_router_recorded_is_decided_again(desk: Desk, name: str) -> None:
    """No false alarm, on the tables that the router read."""
    again = desk.again(desk.entries[name])
    assert (again.state, again.differences, again.why) == (State.SAME, (), "")


def test_a_stretch_counts_what_it_decided(desk: Desk) -> None:
    """Each once; and nothing of another time."""
    at_us, told = w.NOW_MS * 1000, list[int]()
    found = desk.replay.stretch(at_us, at_us + 1, tell=told.append)
    assert (dict(found.states), found.alarms) == ({State.SAME: len(ASKED)}, [])
    assert sum(told) == len(ASKED)
    assert not desk.replay.stretch(0, at_us).states


OTHER = Line(17, 1, 2, 2, 20200101, 20200131)
CHANGED: list[tuple[str, dict[str, Any], str]] = [
    # Grants and what they rest on.
    ("plain", {"grant": "ocmw-handi"}, "grant"),
    ("plain", {"basis": "20/001"}, "basis"),
    ("network", {"basis": "19/901"}, "basis"),
    ("grant ended", {"grant": "ocmw-unemployment"}, "grant"),
    ("path B", {"legal_framework": "VO:OTHER"}, "code"),
    # Another line, or none.
    ("plain", {"line": None}, "code"),
    ("plain", {"line": OTHER}, "line"),
    ("plain", {"line": Line(17, 1, 4, 2, 20200101, OPEN)}, "code"),
    ("plain", {"line": Line(18, -1, 1, 0, 20200101, OPEN)}, "code"),
    ("plain", {"line": Line(17, 1, 2, 2, 20200101, 20261399)}, "period"),
    ("path B", {"line": Line(17, 1, 2, 2, 20200101, OPEN)}, "line"),
    # Where it went, and what was wrong with that.
    ("plain", {"destinations": (w.NIC,)}, "destinations"),
    ("plain", {"destinations": ()}, "code"),
    ("plain", {"destinations": (w.RVA, w.NIC)}, "destinations"),
    ("circular", {"destinations": (w.RVA,)}, "destinations"),
    ("plain", {"violations": (f"source:log:{w.RVA}",)}, "violations"),
    ("plain", {"violations": ("own:log:PHASE_TOO_LOW",)}, "violations"),
    # Who asked, and as what.
    ("plain", {"sector": 18, "type": 0}, "code"),
    ("plain", {"requester": w.NIC}, "code"),
    ("plain", {"acting": w.MEMBER}, "code"),
    ("plain", {"application": w.MUTATIONS_PROGRAM, "user": None}, "code"),
    ("high level", {"level": 2}, "code"),
    ("plain", {"service_version": 9}, "code"),
    ("replaced", {"service": "UnemploymentData", "service_version": 3}, "code"),
    # What was passed and should not, refused and should not, or refused for another reason.
    *((name, {"code": 0, "stage": 10}, "code") for name in (
        "stopped", "role", "service", "third user", "capacity", "framework", "grant ended",
        "not integrated", "unknown", "deceased", "no source", "closed", "crowd", "outage",
    )),
    *(("plain", {"code": int(code), "stage": int(code.stage)}, "code") for code in (
        Code.CERTIFICATE_NOT_REGISTERED, Code.INSTITUTION_NOT_ACTIVE,
        Code.ROLE_NOT_HELD, Code.SERVICE_UNKNOWN, Code.PATH_NOT_EXACTLY_ONE,
        Code.SUBJECT_NOT_AS_DECLARED, Code.PAYLOAD_TOO_LARGE, Code.NO_ACCESS_RIGHT,
        Code.AUTHENTICATION_TOO_WEAK, Code.NO_GRANT, Code.CAPACITY_NOT_GRANTED,
        Code.PERSON_UNKNOWN, Code.PERSON_DECEASED, Code.NO_RECIPIENT_MAY_RECEIVE,
        Code.TOO_MANY_RECIPIENTS, Code.ANNOUNCED_OUTAGE,
    )),
    ("plain", {"code": 1003, "stage": 1}, "grant"),
    ("capacity", {"code": 4001}, "code"),
    ("no source", {"code": 7003}, "code"),
    ("renumbered", {"code": 6004}, "code"),
    ("replaced", {"code": 6002, "stage": 6}, "code"),
    ("plain", {"stage": 9}, "stage"),
    ("plain", {"code": 9001, "stage": 9}, "code"),
    ("plain", {"code": 4099, "stage": 4}, "code"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "differs"),
    CHANGED,
    ids=[f"{name}: {'+'.join(map(str, fields.items()))[:60]}" for name, fields, _ in CHANGED],
)
def test_a_changed_record_is_an_alarm_that_names_the_field(
    desk: Desk, name: str, fields: dict[str, Any], differs: str
) -> None:
    """A changed grant, a wrong code, another deciding line, another destination."""
    again = desk.changed(name, **fields)
    assert again.state is State.DIFFERS
    assert differs in {difference.field for difference in again.differences}
    assert not any(
        number in repr(again) + str(again.differences) for number in (w.PERSON, w.USER_A)
    )


def test_a_rulebook_is_held_to_the_day_of_the_entry(desk: Desk) -> None:
    """What was granted in 2026 was not in 2001."""
    recorded = desk.replay.numbers(desk.entries["plain"])
    then = msgspec.structs.replace(recorded.entry, at_us=1_000_000_000_000_000)
    again = desk.replay.again(recorded._replace(entry=then))
    assert again.state is State.DIFFERS
    assert again.differences[0][:2] == ("code", "forward")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("source logged", {"violations": ()}),
        ("not integrated", {"code": 5003}),
        ("cancelled", {"code": 6002}),
        ("capacity", {"code": 2003, "stage": 2, "grant": ""}),
        ("plain", {"line": Line(17, -1, 2, 3, 20000101, OPEN)}),
    ],
)
def test_what_only_the_directory_or_the_requester_knew_is_taken_from_the_record(
    desk: Desk, name: str, fields: dict[str, Any]
) -> None:
    """The limits of a replay, as the documents say them: here only the tree finds the change."""
    again = desk.changed(name, **fields)
    assert again.state is State.SAME
    assert again.taken


def test_an_outcome_that_contradicts_its_refusal_is_an_alarm(desk: Desk) -> None:
    """What was refused ends with that refusal, under the rulebook that refused."""
    refused = desk.entries["capacity"]
    assert desk.again(refused, outcome(refused)).state is State.SAME
    for field, other in (
        ("outcome", outcome(refused, code=10_001)),
        ("generation of the outcome", outcome(refused, generation="0" * 32)),
    ):
        again = desk.again(refused, other)
        assert [difference.field for difference in again.differences] == [field]
        assert again.state is State.DIFFERS


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"generation": "0" * 32}, "not in the store"),
        ({"generation": ""}, "not in the store"),
        ({"generation": "../../etc/passwd"}, "not in the store"),
        ({"rights_version": 3}, "access rights of version 3"),
        ({"service": "(withheld)"}, "name of the service"),
        ({"requester": None}, "who asked"),
    ],
)
def test_what_cannot_be_decided_is_said_and_is_not_the_same(
    desk: Desk, fields: dict[str, Any], why: str
) -> None:
    """A missing generation is no agreement."""
    again = desk.changed("capacity", **fields)
    assert again.state is State.NOT_DECIDED
    assert why in again.why


def find_one(desk: Desk, name: str) -> Callable[[], list[Entry]]:
    exchange = desk.entries[name].exchange
    assert exchange is not None
    return lambda: desk.replay.find([exchange])[0].requests


def test_the_entries_of_an_exchange_are_found_by_its_id(desk: Desk) -> None:
    """Those and no others; of an unknown one, none."""
    assert find_one(desk, "plain")() == [desk.entries["plain"]]
    assert desk.replay.find([bytes(16)])[0].requests == []
    assert desk.replay.damaged == []
