"""Requests that meet every code of the control, judged on real tables and recorded in a log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ksz_router.codes import Code
from ksz_router.daemon.opened import Exchange
from ksz_router.daemon.session import Session
from ksz_router.days import brussels_day
from ksz_router.decision import Forward, decide
from ksz_router.messages import Request
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse
from ksz_router.privacylog.writer import Writer
from tests import worlds as w
from tests.daemon_ground import FORMER, NOBODY, NOT_INTEGRATED, Ground, insz
from tests.kinds_ground import (
    CANCELLED,
    CROWD,
    DECEASED,
    FIRST,
    LEFT,
    RECEIVED,
    STRANGE_DEAD,
    UNSOURCED,
    USER_C,
    circulate,
    consult,
    mutate,
)

HANDI = {"service": "Handi", "version": 1, "user": w.USER_B, "level": 3}
INSURED = {"service": "HealthCareInsurance", "version": 1}
JOBS = {"sector": 18, "type": 0, "capacity": 1}
PERMIT = {
    "service": "DmfaConsultationService", "version": 1, "sector": None, "type": None,
    "capacity": None, "legal_framework": "VO:WORK_PERMIT", "level": 2,
}  # fmt: skip
INQUIRY = {
    "service": "RetrieveTIGroups", "version": 2, "capacity": None,
    "legal_framework": "PCSA:SOCIAL_INQUIRY",
}  # fmt: skip

Asked = tuple[str, Request, int]
"""Who asks, what, and the code of the control; 0 for what passes."""

ASKED: dict[str, Asked] = {
    name: (w.uri(who) if who.isdigit() else who, request, int(code))
    for name, (who, request, code) in {
        "plain": (w.CENTRE, w.ask(), 0),
        "period": (w.CENTRE, w.ask(begin=20240101, end=20241231), 0),
        "open period": (w.CENTRE, w.ask(begin=20240101), 0),
        "program": (w.CENTRE, w.ask(user=None, application=w.PROGRAM), 0),
        "member": (w.MANAGER, w.ask(member=w.MEMBER), 0),
        "member by number": (w.MANAGER, w.ask(kbo=w.CENTRE), 0),
        "own number": (w.CENTRE, w.ask(kbo=w.CENTRE, member=w.CENTRE), 0),
        "final client": (w.CENTRE, w.ask(final_client=w.RSZ, means="eID", level=3), 0),
        "source named": (w.CENTRE, w.ask(source=w.RVA), 0),
        "replaced": (w.CENTRE, w.ask(person=FORMER, **INSURED), 0),
        "chain of numbers": (w.CENTRE, consult("Follow", person=FIRST), 0),
        "high level": (w.CENTRE, w.ask(**HANDI), 0),
        "path B": (w.DEPARTMENT, w.ask(**PERMIT), 0),
        "path B with lines": (w.CENTRE, w.ask(**INQUIRY), 0),
        "network": (w.FUND, w.ask(sector=11, type=1, capacity=1, **INSURED), 0),
        "test": (w.CENTRE, w.ask(service="TestConnectionService", version=1, person=None), 0),
        "submission": (w.CENTRE, w.ask(service="A036", version=1), 0),
        "submission marked": (
            w.CENTRE, w.ask(service="A036", version=1, person=UNSOURCED), 0
        ),
        "distribution": (w.REGISTER, mutate(person=w.PERSON), 0),
        "circular": (w.REGISTER, circulate(1), 0),
        "one of the circular": (w.REGISTER, circulate(2, source=CROWD[64]), 0),
        "own logged": (w.CENTRE, consult("Own-log", person=NOT_INTEGRATED), 0),
        "own and dead": (w.CENTRE, consult("Own-dead", person=STRANGE_DEAD), Code.PERSON_DECEASED),
        "source logged": (w.CENTRE, consult("Source-log", person=UNSOURCED), 0),
        "source not looked at": (w.CENTRE, consult("Source-none", person=UNSOURCED), 0),
        "recipient logged": (w.CENTRE, consult("Recipient-log", person=UNSOURCED), 0),
        "stranger": ("urn:kbo:0999000000", w.ask(), Code.CERTIFICATE_NOT_REGISTERED),
        "stopped": (w.STOPPED, w.ask(), Code.INSTITUTION_NOT_ACTIVE),
        "not its member": (w.CENTRE, w.ask(member=w.MEMBER), Code.MEMBER_NOT_MANAGED),
        "no member": (w.CENTRE, w.ask(member="?"), Code.MEMBER_NOT_MANAGED),
        "not its number": (w.MANAGER, w.ask(kbo=w.RVA), Code.KBO_NOT_HELD),
        "no number": (w.MANAGER, w.ask(kbo="?"), Code.KBO_NOT_HELD),
        "role": (w.MANAGER, w.ask(member=w.MEMBER, type=0), Code.ROLE_NOT_HELD),
        "no role": (w.CENTRE, w.ask(type=-1), Code.ROLE_NOT_HELD),
        "disagree": (
            w.MANAGER, w.ask(kbo=w.CENTRE, member=w.MEMBER), Code.IDENTIFIERS_DISAGREE
        ),
        "service": (w.CENTRE, w.ask(version=9), Code.SERVICE_UNKNOWN),
        "no service": (w.CENTRE, w.ask(service=""), Code.FIELD_MALFORMED),
        "no path": (w.CENTRE, w.ask(capacity=None), Code.PATH_NOT_EXACTLY_ONE),
        "both paths": (w.CENTRE, w.ask(legal_framework="X"), Code.PATH_NOT_EXACTLY_ONE),
        "ticket": (w.CENTRE, w.ask(ticket="\n"), Code.FIELD_MALFORMED),
        "user": (w.CENTRE, w.ask(user="me"), Code.FIELD_MALFORMED),
        "person malformed": (w.CENTRE, w.ask(person="1"), Code.PERSON_MALFORMED),
        "no person": (w.CENTRE, w.ask(person=None), Code.SUBJECT_NOT_AS_DECLARED),
        "enterprise": (w.CENTRE, w.ask(enterprise=w.RSZ), Code.SUBJECT_NOT_AS_DECLARED),
        "not sane": (w.CENTRE, w.ask(begin=20260230), Code.PERIOD_NOT_SANE),
        "payload": (w.CENTRE, w.ask(payload=bytes(70_000)), Code.PAYLOAD_TOO_LARGE),
        "third user": (w.CENTRE, w.ask(user=insz(5)), Code.NO_ACCESS_RIGHT),
        "service of user": (w.CENTRE, w.ask(user=w.USER_B), Code.SERVICE_NOT_IN_ACCESS_RIGHT),
        "level": (w.CENTRE, w.ask(**HANDI | {"level": 2}), Code.AUTHENTICATION_TOO_WEAK),
        "means": (w.CENTRE, w.ask(user=USER_C, level=2), Code.AUTHENTICATION_TOO_WEAK),
        "capacity": (w.CENTRE, w.ask(capacity=6), Code.CAPACITY_NOT_GRANTED),
        "framework": (
            w.CENTRE, w.ask(**INQUIRY | {"legal_framework": "PCSA:OTHER"}), Code.NO_GRANT
        ),
        "grant ended": (w.RVA, w.ask(**INSURED | JOBS), Code.GRANT_NOT_IN_FORCE),
        "basis ended": (
            w.NIC,
            w.ask(service="Handi", version=1, sector=11, type=0, capacity=1),
            Code.DELIBERATION_NOT_IN_FORCE,
        ),
        "not integrated": (w.CENTRE, w.ask(person=NOT_INTEGRATED), Code.PERSON_NOT_INTEGRATED),
        "long ago": (w.CENTRE, w.ask(begin=20190101), Code.PERIOD_NOT_COVERED),
        "unknown": (w.DEPARTMENT, w.ask(**PERMIT, person=NOBODY), Code.PERSON_UNKNOWN),
        "renumbered": (w.CENTRE, w.ask(person=FORMER), Code.PERSON_REPLACED),
        "cancelled": (w.CENTRE, w.ask(person=CANCELLED), Code.PERSON_CANCELLED),
        "left": (w.CENTRE, consult("Own-log", person=LEFT), Code.PERSON_REPLACED),
        "deceased": (w.CENTRE, w.ask(**HANDI, person=DECEASED), Code.PERSON_DECEASED),
        "nobody named": (w.CENTRE, w.ask(source=w.RSZ), Code.NO_SOURCE_HAS_THE_DATA),
        "no source": (w.CENTRE, w.ask(person=UNSOURCED), Code.NO_SOURCE_KNOWS_THE_PERSON),
        "closed": (w.CENTRE, consult("Closed", source=w.RVA), Code.NO_RECIPIENT_MAY_RECEIVE),
        "crowd": (w.REGISTER, circulate(2, person=RECEIVED), Code.TOO_MANY_RECIPIENTS),
        "outage": (
            w.CENTRE, w.ask(service="SelfEmployed", version=2), Code.ANNOUNCED_OUTAGE
        ),
    }.items()
}  # fmt: skip

NOT_ON_THESE_TABLES = {
    Code.ACCESS_RIGHT_NOT_IN_FORCE, Code.ROLE_NOT_IN_ACCESS_RIGHT, Code.PHASE_TOO_LOW,
    Code.SECTORAL_NOT_INTEGRATED, Code.SECTORAL_PHASE_TOO_LOW, Code.SECTORAL_PERIOD_NOT_COVERED,
    Code.NO_SOURCE_HOLDS_THE_PERIOD, Code.SOURCE_NOT_IN_SECTORAL_DIRECTORY,
    Code.NO_RECIPIENT_SUBSCRIBED, Code.SECTORAL_DIRECTORY_DOWN,
}  # fmt: skip
"""Codes that the property on drawn cases meets, and ``test_routes.py``."""


class Somebody:
    """The part of a session that an entry may look at."""

    def __init__(self, uri: str) -> None:
        self.uri = uri


def record(ground: Ground, asked: Mapping[str, Asked] = ASKED) -> dict[str, Entry]:
    """What the router records of each, on the day of the example."""
    at_ns = w.NOW_MS * 1_000_000
    ground.entries.now_us = lambda: at_ns // 1000
    entries = {}
    for number, (name, (uri, request, code)) in enumerate(asked.items()):
        session = cast("Session", Somebody(uri))
        (facts,) = ground.tables.look_up([(session, request)], w.NOW_MS)
        verdict = decide(request, facts, brussels_day(at_ns))
        found = 0 if isinstance(verdict, Forward) else int(verdict.code)
        assert found == code, (name, found)
        put_to = verdict.put_to if isinstance(verdict, Forward) else ()
        exchange = Exchange(
            exchange_of(number), session, request, 0, 0, facts, verdict,
            ground.tables.generation, tuple([found.kbo for found in put_to]),
        )  # fmt: skip
        entries[name] = parse(ground.entries.request(exchange))
    return entries


def exchange_of(number: int) -> bytes:
    """A UUIDv7 of the moment of the example."""
    return w.NOW_MS.to_bytes(6, "big") + b"\x70" + bytes(7) + number.to_bytes(2, "big")


def outcome(entry: Entry, **fields: Any) -> Entry:
    """The entry of how a refused request ended."""
    values = {
        "kind": Kind.OUTCOME, "at_us": entry.at_us, "exchange": entry.exchange,
        "code": entry.code, "stage": entry.stage, "generation": entry.generation,
    }  # fmt: skip
    return Entry(**(values | fields))


def write_log(log: Path, keys: Path, entries: Sequence[Entry]) -> None:
    """Write entries into the log of a worker."""
    writer = Writer.open(
        log, slot="w0", node="router-a", keys_folder=keys, now_ns=w.NOW_MS * 1_000_000,
        file_bytes=1 << 20,
    )  # fmt: skip
    try:
        writer.commit([canonical(entry) for entry in entries], w.NOW_MS * 1_000_000)
    finally:
        writer.close()
