"""The example's world, where the NIC keeps the directory of the secondary network it manages."""

from pathlib import Path
from typing import Any

import msgspec

from ksz_router.messages import Delivery, Request
from ksz_router.sdk.sectoral import Sought
from tests.daemon_ground import Ground
from tests.worlds import BANK, FUND, NIC, ask

NETWORK = "ziekteverzekering"
ASKS = "00901000404"
"""The program number under which the router's own institution asks."""
FRAMEWORK = "KSZ:SECTORAL"


def _rows(table: str, *fields: str, service: str = "sectoral.known") -> str:
    return "\n".join((f"[[{table}]]", f'service = "{service}"', "version = 1", *fields)) + "\n"


def text(network: str = NETWORK, keeper: str = NIC, role: str = "11/0") -> dict[str, str]:
    """Files of the rulebook, over those of the example: a network is asked for at its keeper."""
    return {
        "institutions/networks.toml": f'[[network]]\nname = "{network}"\ndirectory = "asked"\n'
        f'at = "{keeper}"\napplication = "{ASKS}"\n',
        "services/sectoral.toml": '[[service]]\nname = "sectoral.known"\nversion = 1\n'
        'kind = "consultation"\nsubject = "person"\nany_number = true\ndeadline_ms = 4000\n'
        + _rows("control", 'source = "none"'),
        "availability/sectoral.toml": _rows(
            "availability", f'kbo = "{keeper}"', f'role = "{role}"'
        ),
        "deliberations/sectoral.toml": 'number = "wet-1990-01-15-art-6-2"\ndate = 1990-02-22\n'
        + _rows(
            "grant", 'id = "ksz-sectoral-known"', 'direction = "request"', f'kbo = "{BANK}"',
            f'framework = "{FRAMEWORK}"', "own_integration = false",
        ),
        "rights/sectoral.toml": f'[[right]]\nkbo = "{BANK}"\napplication = "{ASKS}"\n'
        'services = ["sectoral.known"]\n',
    }  # fmt: skip


def make_ground(folder: Path) -> Ground:
    """What the routers of a test file share."""
    return Ground(folder, more_text=text(), more_connecting=(FUND, BANK))


def by_fund(**changes: Any) -> Request:
    """The fund asks the NIC for what it insures: both are in the network."""
    fields: dict[str, Any] = {
        "service": "HealthCareInsurance", "version": 1, "sector": 11, "type": 1, "capacity": 1,
    }  # fmt: skip
    return ask(**(fields | changes))


def by_centre(**changes: Any) -> Request:
    """A centre, which is in no network, asks the NIC."""
    return ask(**({"service": "HealthCareInsurance", "version": 1} | changes))


def sought(delivery: Delivery) -> Sought:
    """What a question says beside its envelope."""
    return msgspec.msgpack.decode(delivery.payload, type=Sought)
