"""Who takes part in the demonstration, and what a step of it is."""

from collections.abc import Mapping

import msgspec

from ksz_router.codes import Code
from ksz_router.messages import Request

RVA, NIC, HANDICAP, RSZ = "0999010126", "0999010819", "0999011512", "0999012205"
REGISTER, POD_MI, PENSIONS, DISEASES = "0999012995", "0999013688", "0999015074", "0999015767"
CENTRE, MEMBER, MANAGER = "0999016460", "0999017153", "0999017846"
DEPARTMENT, FUND, STOPPED = "0999018539", "0999019232", "0999019925"
BANK = "0999020618"
"""The router's own institution: keeps the directory, by a program that the router starts."""
NOBODY = "0999020519"
"""Gets a certificate of the right authority, and stands in no rulebook."""

NAMES = {
    RVA: "RVA", NIC: "NIC", HANDICAP: "DG Handicap", RSZ: "RSZ", REGISTER: "Rijksregister",
    POD_MI: "POD MI", PENSIONS: "RVP", DISEASES: "FBZ", CENTRE: "OCMW Zandbergen",
    MEMBER: "OCMW Waterhoek", MANAGER: "Beheersinstelling OCMW", DEPARTMENT: "Vlaams dept. WSE",
    FUND: "Ziekenfonds De Brug", STOPPED: "OCMW Oudenbos", BANK: "KSZ", NOBODY: "a stranger",
}  # fmt: skip
ASKING = (CENTRE, MANAGER, DEPARTMENT, FUND, STOPPED, NOBODY, REGISTER, RVA, NIC)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what must come of it. ``about`` names the person by the part played."""

    who: str
    """KBO number of the certificate that asks."""
    about: str
    request: Request
    expected: Code
    went_to: tuple[str, ...] = ()
    delivered: str | None = None
    """The INSZ that the source must be asked for, where it is not the request's."""
    detail: Mapping[str, str] = {}
    """What the answer's detail must hold at least."""
    then_told: tuple[str, ...] = ()
    """Who is told by the directory of what became of the number, once it is answered."""
    told_again: bool = False
    """What is answered was answered before, and nothing is sent."""
    within_s: float = 5.0

    def __repr__(self) -> str:
        return f"Step({self.about!r})"


class Chapter(msgspec.Struct, frozen=True):
    """Steps that show one thing."""

    title: str
    text: str
    steps: tuple[Step, ...]
    in_one_envelope: bool = False
    """Asked together, by who asks first."""
