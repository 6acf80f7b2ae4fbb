"""The example's world, where the NIC keeps the directory of the secondary network it manages."""

from pathlib import Path
from typing import Any

import msgspec

from ksz_router.messages import Delivery, Request
from ksz_router.sdk.sectoral import Sought
from tests.daemon_ground import Ground
from tests.worlds import BANK, EXAMPLE, FUND, NIC, ask

OVER_EXAMPLE = EXAMPLE.with_name("rulebook-sectoral")
NETWORK = "ziekteverzekering"
ASKS = "00901000404"
"""The program number under which the router's own institution asks."""
FRAMEWORK = "KSZ:SECTORAL"


def text(network: str = NETWORK, keeper: str = NIC, role: str = "11/0") -> dict[str, str]:
    """Files of the rulebook, over those of the example: a network is asked for at its keeper."""
    found = {}
    for file in sorted(OVER_EXAMPLE.rglob("*.toml")):
        words = file.read_text(encoding="utf-8").replace(NETWORK, network).replace(NIC, keeper)
        found[file.relative_to(OVER_EXAMPLE).as_posix()] = words.replace('"11/0"', f'"{role}"')
    return found


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
