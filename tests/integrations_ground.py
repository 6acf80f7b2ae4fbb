"""The example's world, and messages that inscribe or remove the person they are about."""

import re
from pathlib import Path
from typing import Any

import msgspec

from ksz_router.identifiers import Kbo
from ksz_router.messages import Delivery, Outcome, Request
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts
from tests.daemon_peers import SourceSide
from tests.worlds import CENTRE, EXAMPLE, MEMBER, NIC, RVA, STOPPED, ask

KSZ = Kbo("0999020618")
CHANGES = "00901000303"
"""The program number under which the router's own institution sends changes."""

_SOURCES = "institutions/sources.toml"


def sources_text(*, members: tuple[str, ...] = (CENTRE, MEMBER, STOPPED, RVA, NIC)) -> str:
    """The example's sources, where the router's own institution manages these."""
    text = (EXAMPLE / _SOURCES).read_text(encoding="utf-8")
    listed = ", ".join(f'"{kbo}"' for kbo in members)
    pattern = rf'(uris = \["urn:kbo:{KSZ}"\]\nmembers) = .*'
    changed, count = re.subn(pattern, rf"\1 = [{listed}]", text)
    assert count == 1
    return changed


def _service(name: str, kind: str, *more: str) -> str:
    head = f'[[service]]\nname = "{name}"\nversion = 1\nkind = "{kind}"\nsubject = "person"\n'
    return head + "\n".join(more) + "\n"


def _rows(table: str, service: str, *fields: str) -> str:
    return "\n".join((f"[[{table}]]", f'service = "{service}"', "version = 1", *fields)) + "\n"


def _integration(service: str, does: str, of: str, *fields: str) -> str:
    return _rows(
        "integration", service, f'does = "{does}"', f'of = "{of}"',
        f'application = "{CHANGES}"', *fields,
    )  # fmt: skip


def text() -> dict[str, str]:
    """Files of the rulebook, over those of the example."""
    services = (
        _service("Opened", "submission")
        + _rows("control", "Opened", 'own = "none"', 'recipient = "none"')
        + _integration("Opened", "inscribe", "sender", "phase = 1")
        + _service("Closed", "distribution", 'distribution = "Z"')
        + _integration("Closed", "remove", "sender")
        + _integration("Closed", "inscribe", "recipient", "capacity = 2")
    )
    grants = ""
    available = ""
    for service in ("Opened", "Closed"):
        grants += _rows(
            "grant", service, f'id = "s-{service}"', 'direction = "send"', 'role = "17/1"',
            "capacities = [2]",
        )  # fmt: skip
        for kbo, role in ((RVA, "18/0"), (NIC, "11/0")):
            if service == "Closed" or kbo == RVA:
                grants += _rows(
                    "grant", service, f'id = "r-{service}-{kbo}"', 'direction = "receive"',
                    f'role = "{role}"',
                )  # fmt: skip
                available += _rows("availability", service, f'kbo = "{kbo}"', f'role = "{role}"')
    return {
        _SOURCES: sources_text(),
        "services/integrations.toml": services,
        "deliberations/integrations.toml": 'number = "26/002"\ndate = 2026-01-06\n' + grants,
        "availability/integrations.toml": available,
        "rights/integrations.toml": f'[[right]]\nkbo = "{KSZ}"\napplication = "{CHANGES}"\n'
        'services = ["directory.inscribe", "directory.remove"]\n',
    }


def make_ground(folder: Path) -> Ground:
    """What the routers of a test file share."""
    return Ground(folder, more_text=text(), more_connecting=(KSZ,))


def opened(**changes: Any) -> Request:
    """The centre tells the job office that it opened a file."""
    fields: dict[str, Any] = {
        "service": "Opened", "version": 1, "ticket": "opened-1", "begin": 20261101,
        "payload": b"a file was opened",
    }  # fmt: skip
    return ask(**(fields | changes))


class Keeper:
    """Who keeps the directory, as the test wants it: each exchange id is applied once."""

    def __init__(self) -> None:
        self.applied: dict[bytes, Delivery] = {}
        self.heard: list[Delivery] = []
        self.says: dict[str, Any] = {}

    def pump(self, side: SourceSide) -> None:
        """Apply and answer what was delivered."""
        while side.deliveries:
            _, delivery = side.deliveries[0]
            self.heard.append(delivery)
            if self.says.get("outcome", Outcome.DATA) is Outcome.DATA:
                self.applied.setdefault(delivery.exchange, delivery)
            side.reply(0, **({"payload": b""} | self.says))
            del side.deliveries[0]


def payload_of(delivery: Delivery) -> object:
    """What a change says beside its envelope."""
    return msgspec.msgpack.decode(delivery.payload)


def names_of(p: Parts) -> list[tuple[str, str, int]]:
    """The durable entries in their order: kind, service, code."""
    return [(entry.kind.name, entry.service, entry.code) for entry in p.durable]
