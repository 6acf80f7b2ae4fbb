"""The example's world and more: a service for each control mode, a crowd of recipients, a second
network's outsiders, and persons in every state of their numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ksz_router.identifiers import Insz, Kbo
from ksz_router.messages import Request
from ksz_router.model import OPEN, Line
from ksz_router.privacylog.entry import Entry, Kind
from ksz_router.privacylog.query import query
from ksz_router.privacylog.question import Asked
from ksz_router.privacylog.rows import Row
from ksz_router.rights import user_key
from tests.daemon_ground import Ground, insz, rows_of
from tests.daemon_parts import Parts
from tests.worlds import CENTRE, FUND, LINES, MUTATIONS_PROGRAM, NIC, REGISTER, RVA, USER_A, ask


def kbo(number: int) -> Kbo:
    """A synthetic KBO number."""
    return Kbo(f"0{number:07}{97 - number % 97:02}")


OUTSIDER, ELSEWHERE = kbo(8880001), kbo(8880002)
"""Holds the role of the fund, in no network; has the fund's data, in no network, and comes first
among its sources."""
CROWD = tuple(kbo(8870100 + number) for number in range(65))
"""Child benefit funds that receive: 64 of them version 1 of the circular, all of them version 2."""
USER_C = insz(10)
"""A user of the centre who must be authenticated with an eID or itsme, at level 2."""

FIRST, MIDDLE, LAST = (insz(day) for day in range(11, 14))
"""One person's numbers: each became the next. The centre knows the first, RVA the second."""
CANCELLED, DECEASED, LEFT = (insz(day) for day in range(14, 17))
"""A number that was cancelled; a person who died; a number that became a cancelled one."""
UNSOURCED, STRANGE_OLD, STRANGE_NEW, STRANGE_CANCELLED, STRANGE_DEAD, RECEIVED = (
    insz(day) for day in range(17, 23)
)
"""Not known to RVA; four whom the centre does not know: replaced, in use, cancelled, dead; and
somebody whom every child benefit fund knows."""

MODES = ("none", "log", "block")

_OWN = Line(17, 1, 2, 2, 20200101, OPEN)
_AT_RVA = Line(18, -1, 1, 0, 20200101, OPEN)
_STRANGE = [line for line in LINES if line.sector != 17]

_ROWS = (
    *rows_of(FIRST, f"replaced,{MIDDLE}", [_OWN]),
    *rows_of(MIDDLE, f"replaced,{LAST}", [_AT_RVA]),
    *rows_of(LAST, "active", [Line(12, -1, 10, 0, 20200101, OPEN)]),
    *rows_of(CANCELLED, "cancelled", LINES),
    *rows_of(DECEASED, "deceased,,2026-02-01", LINES),
    *rows_of(LEFT, f"replaced,{CANCELLED}", []),
    *rows_of(UNSOURCED, "active", [line for line in LINES if line.sector not in (16, 18)]),
    *rows_of(STRANGE_OLD, f"replaced,{STRANGE_NEW}", []),
    *rows_of(STRANGE_NEW, "active", _STRANGE),
    *rows_of(STRANGE_CANCELLED, "cancelled", _STRANGE),
    *rows_of(STRANGE_DEAD, "deceased,,2026-02-01", _STRANGE),
    *rows_of(RECEIVED, "active", [*LINES, Line(7, 1, 101, 0, 20200101, OPEN)]),
)


def _institutions() -> Iterator[str]:
    for number in CROWD:
        yield _institution(number, "7/1") + _endpoint(number)
    yield _institution(OUTSIDER, "11/1")
    yield _institution(ELSEWHERE, "11/2") + _endpoint(ELSEWHERE)


def _institution(number: str, role: str) -> str:
    return (
        f'[[institution]]\nkbo = "{number}"\nname = "{number}"\n'
        f'uris = ["urn:kbo:{number}"]\nroles = ["{role}"]\n'
    )


def _endpoint(number: str) -> str:
    return f'[[institution.endpoint]]\nhost = "127.0.0.1"\nport = 9\nuri = "urn:kbo:{number}"\n'


def _row(table: str, service: str, version: int = 1, **fields: object) -> str:
    lines = [f"[[{table}]]", f"service = {service!r}", f"version = {version}"]
    return "\n".join((*lines, *(f"{name} = {value!r}" for name, value in fields.items()))) + "\n"


def _service(name: str, kind: str, *more: str, version: int = 1) -> str:
    head = f'[[service]]\nname = "{name}"\nversion = {version}\nkind = "{kind}"\n'
    return "\n".join((head + 'subject = "person"', *more)) + "\n"


def _moded() -> Iterator[tuple[str, str, str]]:
    """Service, kind and control of each service that has a mode of its own."""
    for mode in MODES:
        yield f"Own-{mode}", "consultation", f'own = "{mode}"'
        yield f"Source-{mode}", "consultation", f'source = "{mode}"'
        yield f"Recipient-{mode}", "distribution", f'recipient = "{mode}"'
    yield "Own-centres", "consultation", 'role = "17/1"\nown = "log"'
    yield "Own-dead", "consultation", 'own = "log"'
    yield "Follow", "consultation", 'own = "block"'


_STATES = {"Own-dead": ("refuse_deceased = true",), "Follow": ("follow_replaced = true",)}
"""What services say of numbers and their persons."""


def _text() -> dict[str, str]:
    services, grants, sources = "", "", ""
    for name, kind, control in _moded():
        services += _service(name, kind, *_STATES.get(name, ()))
        services += f'[[control]]\nservice = "{name}"\nversion = 1\n{control}\n'
        direction = "request" if kind == "consultation" else "send"
        grants += _row(
            "grant", name, id=f"g-{name}", direction=direction, role="17/1", capacities=[2]
        )
        sources += _row("availability", name, kbo=str(RVA), role="18/0", capacities=[1, 2])
        if kind == "distribution":
            grants += _row("grant", name, id=f"r-{name}", direction="receive", role="18/0")
    grants += _row(
        "grant", "Own-centres", id="g-jobs", direction="request", role="18/0", capacities=[4]
    )
    for version in (1, 2):
        services += _service("Circular", "distribution", version=version)
        grants += (
            _row("grant", "Circular", version, id=f"send-{version}", direction="send",
                 kbo=str(REGISTER), framework="RR:CIRCULAR")
            + "own_integration = false\n"
            + _row("grant", "Circular", version, id=f"receive-{version}", direction="receive",
                   role="7/1", capacities=[101])
        )  # fmt: skip
        for number in CROWD[: 64 if version == 1 else 65]:
            sources += _row(
                "availability", "Circular", version, kbo=str(number), role="7/1", capacities=[101]
            )
    services += _service("Mutual", "distribution")
    grants += _row("grant", "Mutual", id="s-m", direction="send", role="18/0", capacities=[1])
    for number, role in ((RVA, "18/0"), (NIC, "11/0")):
        grants += _row("grant", "Mutual", id=f"m-{number}", direction="receive", role=role)
        sources += _row("availability", "Mutual", kbo=str(number), role=role)
    services += _service("Closed", "distribution")
    grants += _row("grant", "Closed", id="s-c", direction="send", role="17/1", capacities=[2])
    grants += _row("grant", "Closed", id="r-c", direction="receive", role="11/0")
    for number, role in ((RVA, "18/0"), (NIC, "11/0")):
        sources += _row("availability", "Closed", kbo=str(number), role=role)
    sources += _row("availability", "HealthCareInsurance", kbo=str(ELSEWHERE), role="11/2")
    rights = ""
    for number, user, more in (
        (CENTRE, USER_C, 'level = 2\nmeans = ["eID", "itsme"]\n'),
        (OUTSIDER, USER_A, ""),
    ):
        rights += f'[[right]]\nkbo = "{number}"\nuser_key = "{user_key(number, user)}"\n{more}'
    rights += f'[[right]]\nkbo = "{REGISTER}"\napplication = "{MUTATIONS_PROGRAM}"\n'
    rights += 'services = ["Circular"]\n'
    return {
        "institutions/kinds.toml": "\n".join(_institutions()),
        "services/kinds.toml": services,
        "deliberations/kinds.toml": 'number = "26/001"\ndate = 2026-01-06\n' + grants,
        "availability/kinds.toml": sources,
        "rights/kinds.toml": rights,
    }


def make_ground(folder: Path) -> Ground:
    """What the routers of a test file share."""
    return Ground(
        folder,
        more_text=_text(),
        more_connecting=(FUND, OUTSIDER, ELSEWHERE, CROWD[0]),
        more_rows=_ROWS,
    )


def consult(service: str, **changes: Any) -> Request:
    """The centre asks, or sends, one of the services above."""
    return ask(service=service, version=1, **changes)


def circulate(version: int, **changes: Any) -> Request:
    """The register sends the circular on somebody whom every recipient knows."""
    fields: dict[str, Any] = {
        "service": "Circular", "version": version, "user": None, "capacity": None, "sector": None,
        "type": None, "application": MUTATIONS_PROGRAM, "legal_framework": "RR:CIRCULAR",
        "person": RECEIVED,
    }  # fmt: skip
    return ask(**(fields | changes))


def mutate(**changes: Any) -> Request:
    """The register sends the example's distribution, which RVA and NIC may receive."""
    return circulate(
        1, **({"service": "MutationsSender", "legal_framework": "RR:MUTATIONS"} | changes)
    )


def audit(p: Parts, *persons: str, **asked: Any) -> list[Row]:
    """What an auditor finds in the log as it lies on disk, while the router runs."""
    wanted = Asked(persons=tuple(map(Insz, persons)), **asked)
    found = query(p.log, p.ground.keys_folder, wanted)
    assert not found.damaged
    assert not found.more
    return found.rows


def of_kind(entries: list[Entry], kind: Kind) -> list[Entry]:
    """Those entries of one kind."""
    return [entry for entry in entries if entry.kind == kind]
