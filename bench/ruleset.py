"""A set of rules for the bench of decisions, and the text of the rulebook that says it.

Five institutions with four users each ask eight services of four sources. Some roles have no grant
for some services, some grants have ended, and of the four users one may do everything, one not
all, one must authenticate himself better, and the right of one has ended.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ksz_router.model import OPEN, Day
from ksz_router.rights import user_key

TODAY: Day = 20260701
ENDED: Day = 20251231


class Requester(NamedTuple):
    """An institution that asks: its KBO number, its role, and why it knows people."""

    kbo: str
    sector: int
    type: int
    capacity: int

    @property
    def role(self) -> str:
        """As the rulebook writes it."""
        return f"{self.sector}/{self.type}"


class Right(NamedTuple):
    """What a user may do: services (none: all), level asked, last day."""

    services: tuple[str, ...] = ()
    level: int = 0
    end: Day = OPEN


class Granted(NamedTuple):
    """What a role may ask in its capacity, up to a day."""

    requester: Requester
    service: str
    end: Day


class Source(NamedTuple):
    """Who has the data of some services."""

    kbo: str
    sector: int
    type: int
    capacities: tuple[int, ...]


def _kbo(number: int) -> str:
    body = 9_970_000 + number
    return f"{body:08}{97 - body % 97:02}"


def _insz(number: int) -> str:
    body = 850_730_700 + number
    return f"{body:09}{97 - body % 97:02}"


REQUESTERS = tuple(
    Requester(_kbo(n), *place)
    for n, place in enumerate(((11, 0, 1), (12, 0, 10), (14, 0, 10), (5, 0, 20), (18, 0, 1)))
)
SOURCES = tuple(
    Source(_kbo(100 + n), *place)
    for n, place in enumerate(
        ((0, 0, (0,)), (12, 0, (10, 30)), (5, 0, (20, 100)), (11, 0, (1,)))
    )
)  # fmt: skip
SERVICES = {f"Service{n}": SOURCES[n % len(SOURCES)] for n in range(8)}
_NAMES = tuple(SERVICES)
RIGHTS = (Right(), Right(services=_NAMES[:5]), Right(level=3), Right(end=ENDED))
USERS = {
    (requester.kbo, _insz(4 * n + m)): (requester, right)
    for n, requester in enumerate(REQUESTERS)
    for m, right in enumerate(RIGHTS)
}
GRANTS = tuple(
    Granted(requester, service, ENDED if (n + m) % 10 == 9 else OPEN)
    for n, requester in enumerate(REQUESTERS)
    for m, service in enumerate(SERVICES)
    if m != 5 + n % 3  # each role may not ask one of the services at all
)


def write_text(folder: Path) -> None:
    """Write the rules as the text of a rulebook."""
    services, availability, rights = [], [], []
    institutions = [
        f'[[institution]]\nkbo = "{requester.kbo}"\nname = "Asks as {requester.role}"\n'
        f'uris = ["{uri_of(requester.kbo)}"]\nroles = ["{requester.role}"]\n'
        for requester in REQUESTERS
    ]
    institutions += [
        f'[[institution]]\nkbo = "{source.kbo}"\nname = "Source"\n'
        f'roles = ["{source.sector}/{source.type}"]\n[[institution.endpoint]]\n'
        f'host = "localhost"\nport = 1\nuri = "{uri_of(source.kbo)}"\n'
        for source in SOURCES
    ]
    for name, source in SERVICES.items():
        services.append(
            f'[[service]]\nname = "{name}"\nversion = 1\nkind = "consultation"\n'
            'subject = "person"\nfollow_replaced = true\n'
        )
        availability.append(
            f'[[availability]]\nservice = "{name}"\nversion = 1\nkbo = "{source.kbo}"\n'
            f'role = "{source.sector}/{source.type}"\ncapacities = {list(source.capacities)}\n'
        )
    for (kbo, insz), (_, right) in USERS.items():
        end = "" if right.end == OPEN else f"end = {_written(right.end)}\n"
        rights.append(
            f'[[right]]\nkbo = "{kbo}"\nuser_key = "{user_key(kbo, insz)}"\n'
            f"services = {json.dumps(right.services)}\nlevel = {right.level}\n{end}"
        )
    head = 'number = "B/1"\ndate = 2020-01-07\ntitle = "Synthetic"\n'
    grants = [head, *map(_grant_text, GRANTS)]
    for part, rows in (
        ("institutions", institutions), ("services", services), ("availability", availability),
        ("rights", rights), ("deliberations", grants),
    ):  # fmt: skip
        (folder / part).mkdir(parents=True)
        (folder / part / "bench.toml").write_text("\n".join(rows), encoding="utf-8")


def uri_of(kbo: str) -> str:
    """The URI in the certificates of an institution."""
    return f"urn:kbo:{kbo}"


def _grant_text(grant: Granted) -> str:
    end = "" if grant.end == OPEN else f"end = {_written(grant.end)}\n"
    asks = grant.requester
    name = sha256(f"{asks.role} {grant.service}".encode()).hexdigest()[:12]
    return (
        f'[[grant]]\nid = "{name}"\ndirection = "request"\nservice = "{grant.service}"\n'
        f'version = 1\nrole = "{asks.role}"\ncapacities = [{asks.capacity}]\n{end}'
    )


def _written(day: Day) -> str:
    return f"{day // 10_000}-{day // 100 % 100:02}-{day % 100:02}"
