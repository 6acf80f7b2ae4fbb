"""Who may come in: the windows of requests in flight, and the count of those turned away.

A request that is turned away here was not judged, so it is not recorded singly: it is counted,
and the counts become one entry per institution and minute.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from ksz_router.codes import Code
from ksz_router.config import Windows

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session


class Admission:
    """The windows of one worker."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.inflight = 0
        self.held_bytes = 0
        """Of the payloads of requests in flight."""
        self.unsent_bytes = 0
        """Queued for peers that do not take it; the loop counts it."""
        self.is_draining = False
        self.is_log_full = False
        """Nothing new can be recorded, so nothing new is taken."""
        self._of_institution: dict[str, int] = {}
        self._turned_away: defaultdict[str, Counter[Code]] = defaultdict(Counter)

    @property
    def all_bytes(self) -> int:
        """What requests in flight hold, and what waits for peers to take it."""
        return self.held_bytes + self.unsent_bytes

    def admit(self, session: "Session", size: int) -> tuple[Code, int] | None:
        """Take one more request in; or say which bound stands in the way, and the bound.

        Args:
            session: Who asks.
            size: Bytes of its payload.
        """
        windows = self.windows
        if self.is_draining:
            return Code.ROUTER_DRAINING, 0
        if self.is_log_full:
            return Code.LOG_NOT_WRITABLE, 0
        if len(session.inflight) >= windows.connection:
            return Code.CONNECTION_WINDOW_FULL, windows.connection
        uri, held_bytes = session.uri, self.held_bytes + size
        mine = self._of_institution.get(uri, 0)
        if mine >= windows.institution:
            return Code.INSTITUTION_WINDOW_FULL, windows.institution
        if self.inflight >= windows.router:
            return Code.ROUTER_FULL, windows.router
        if held_bytes + self.unsent_bytes > windows.bytes:
            return Code.ROUTER_FULL, windows.bytes
        self.inflight += 1
        self.held_bytes = held_bytes
        self._of_institution[uri] = mine + 1
        return None

    def leave(self, session: "Session", size: int) -> None:
        """One request was answered; what was still held of its payload is forgotten."""
        self.inflight -= 1
        self.held_bytes -= size
        mine = self._of_institution[session.uri] - 1
        if mine:
            self._of_institution[session.uri] = mine
        else:
            del self._of_institution[session.uri]

    def count(self, uri: str, code: Code) -> None:
        """A request, or a connection, was turned away."""
        self._turned_away[uri][code] += 1

    @property
    def counted(self) -> int:
        """How many institutions were turned away since the counts were taken."""
        return len(self._turned_away)

    def take_counts(self) -> dict[str, Counter[Code]]:
        """Return and forget who was turned away, by the URI of the certificate."""
        counts, self._turned_away = self._turned_away, defaultdict(Counter)
        return counts
