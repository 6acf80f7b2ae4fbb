"""The example's world, sources of adjoining periods, subscriptions, a network's own directory."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import OPEN, Line
from tests.daemon_ground import Ground, insz, load_directory, rows_of
from tests.worlds import FUND, LINES, NIC, RSZ, RVA, ask

NETWORK = "ziekteverzekering"

WELL, LOW, LATE, ELSEWHERE, ABSENT = (insz(day) for day in range(25, 30))
"""Persons whom the primary directory knows alike, and that of the network as well; in too low a
phase; from a later day on; for the requester, not for the source; not at all."""

_OWN = Line(11, 1, 1, 1, 20200101, OPEN)
_AT_NIC = Line(11, 0, 2, 1, 20200101, OPEN)
_EARLIER = (replace(line, begin=20150101) for line in LINES if line.sector != 11)
KNOWN = (*_EARLIER, _OWN, _AT_NIC)


def _service(name: str, kind: str, *more: str) -> str:
    head = f'[[service]]\nname = "{name}"\nversion = 1\nkind = "{kind}"\nsubject = "person"\n'
    return head + "\n".join(more) + "\n"


def _rows(table: str, service: str, *fields: str) -> str:
    return "\n".join((f"[[{table}]]", f'service = "{service}"', "version = 1", *fields)) + "\n"


def _at(service: str, kbo: Kbo, role: str, *fields: str) -> str:
    return _rows("availability", service, f'kbo = "{kbo}"', f'role = "{role}"', *fields)


def _grant(service: str, name: str, direction: str, *fields: str) -> str:
    return _rows("grant", service, f'id = "{name}"', f'direction = "{direction}"', *fields)


def text() -> dict[str, str]:
    """Files of the rulebook, beside those of the example."""
    services = (
        _service("Careers", "consultation")
        + _service("Old", "consultation")
        + _service("Notice", "distribution", 'filled_by = "directory"')
        + _service("Named", "submission", 'filled_by = "sender"')
        + _service("Spread", "distribution")
        + _service("Insured", "consultation")
        + _service("InsuredLog", "consultation")
        + _rows("control", "InsuredLog", 'own = "log"', 'source = "log"')
        + _service("Insure", "distribution", 'distribution = "Z"')
    )
    centre = ('role = "17/1"', "capacities = [2]")
    fund = ('role = "11/1"', "capacities = [1]", "phase = 1")
    grants = "".join(_grant(name, f"g-{name}", "request", *centre) for name in ("Careers", "Old"))
    for service in ("Notice", "Named"):
        grants += _grant(service, f"s-{service}", "send", *centre)
        for role in ("18/0", "12/0") if service == "Notice" else ("18/0",):
            grants += _grant(service, f"r-{service}-{role}", "receive", f'role = "{role}"')
    for service in ("Insured", "InsuredLog"):
        grants += _grant(service, f"g-{service}", "request", *fund)
    grants += _grant("Insure", "s-insure", "send", *fund)
    grants += _grant("Spread", "s-spread", "send", *centre)
    grants += _grant("Spread", "r-spread", "receive", 'role = "11/0"')
    grants += _grant("Spread", "r-spread-rva", "receive", 'role = "18/0"')
    grants += _grant("Insure", "r-insure", "receive", 'role = "11/0"')
    grants += _grant("Insure", "r-insure-rva", "receive", 'role = "18/0"')
    available = (
        _at("Careers", RSZ, "12/0", "data_end = 2019-12-31")
        + _at("Careers", RVA, "18/0", "data_begin = 2020-01-01", "order = 1")
        + _at("Old", RSZ, "12/0", "data_end = 2022-12-31")
        + _at("Notice", RVA, "18/0", 'subscribes = "changes"')
        + _at("Notice", RSZ, "12/0")
        + _at("Named", RVA, "18/0", 'subscribes = "changes"')
        + "".join(_at(name, NIC, "11/0") for name in ("Insured", "InsuredLog", "Insure"))
        + _at("Insure", RVA, "18/0")
        + _at("Spread", RVA, "18/0")
        + _at("Spread", NIC, "11/0")
    )
    return {
        "institutions/networks.toml": f'[[network]]\nname = "{NETWORK}"\ndirectory = "hosted"\n',
        "services/routes.toml": services,
        "deliberations/routes.toml": 'number = "26/003"\ndate = 2015-01-06\n' + grants,
        "availability/routes.toml": available,
    }


def make_ground(folder: Path, *, is_hosted: bool = True) -> Ground:
    """What the routers of a test file share; the network's directory may be missing."""
    if is_hosted:
        load_network(folder)
    numbers = (WELL, LOW, LATE, ELSEWHERE, ABSENT)
    more = [row for number in numbers for row in rows_of(number, "active", KNOWN)]
    return Ground(folder, more_text=text(), more_connecting=(FUND,), more_rows=more)


def load_network(folder: Path) -> None:
    """Load the directory of the network, where the routers of this folder look for it."""
    target = folder / "sectoral" / NETWORK
    target.parent.mkdir(exist_ok=True)
    load_directory(
        target,
        {
            WELL: (_OWN, _AT_NIC),
            LOW: (Line(11, 1, 1, 0, 20200101, OPEN), _AT_NIC),
            LATE: (Line(11, 1, 1, 1, 20270101, OPEN), _AT_NIC),
            ELSEWHERE: (_OWN,),
        },
        {},
    )


def career(**changes: Any) -> Request:
    """The centre asks for a career."""
    return ask(**({"service": "Careers", "version": 1, "person": WELL} | changes))


def insured(**changes: Any) -> Request:
    """The fund asks its network's college, or another service of the network."""
    fields: dict[str, Any] = {
        "service": "Insured", "version": 1, "sector": 11, "type": 1, "capacity": 1,
        "person": WELL,
    }  # fmt: skip
    return ask(**(fields | changes))
