"""What the router asks itself, because of a message: in the place of a requester's session."""

from typing import TYPE_CHECKING, Protocol

from ksz_router.decision import Facts
from ksz_router.messages import Request

if TYPE_CHECKING:
    from ksz_router.daemon.opened import Exchange
    from ksz_router.daemon.session import Session


class OnBehalf:
    """Who asks, where it is the router's own institution.

    Args:
        uri: Of that institution.
        deadline_ns: Monotonic; nothing of it is waited for any longer.
    """

    def __init__(self, uri: str, deadline_ns: int) -> None:
        self.uri = uri
        self.deadline_ns = deadline_ns
        self.inflight: dict[int, Exchange | None] = {}

    def takes(self, _payload: bytes) -> bool:
        """Say that an answer fits: it is given to nobody."""
        return True


class Follows(Protocol):
    """A request on its way to the control that came by no connection, or not just now."""

    @property
    def session(self) -> "Session | OnBehalf":
        """Who asks."""

    @property
    def request(self) -> Request:
        """What is asked."""

    def informed(self, facts: Facts) -> Facts:
        """Return the facts with what no table says."""

    def settle(self, exchange: "Exchange") -> int:
        """Give the exchange what is settled of it already; return the bytes newly held for it."""
