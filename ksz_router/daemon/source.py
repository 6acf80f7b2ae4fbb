"""One institution as a source, as one worker sees it: connections, window, breaker."""

from ksz_router import routing
from ksz_router.codes import Code
from ksz_router.daemon.opened import Errand
from ksz_router.decision import Forward
from ksz_router.identifiers import Kbo
from ksz_router.link import Link
from ksz_router.messages import Delivery
from ksz_router.model import OPEN, Endpoint
from ksz_router.wire import MessageTooLargeError

_LATE_MAX = 4_096
"""How many given-up deliveries a connection remembers, to know a late answer when it comes."""

_BLAMED_AFTER_NS = 1_000_000_000
"""A source is blamed for silence only after this long, however short a requester's deadline."""


class SourceLink:
    """One connection to one endpoint of a source."""

    def __init__(self, source: "Source", link: Link, endpoint: Endpoint, now_ns: int) -> None:
        self.source = source
        self.link = link
        self.endpoint = endpoint
        self.opened_ns = now_ns
        self.heard_ns = now_ns
        self.pinged_ns = 0
        self.pending: dict[int, Errand] = {}
        self.late: dict[int, Errand] = {}
        self.is_open = False
        """The Welcome came."""
        self.is_draining = False
        self._last_number = 0

    @property
    def load(self) -> int | None:
        """Deliveries in flight; None where no more may be sent."""
        connection = self.link.connection
        if not self.is_open or self.is_draining or connection.is_ended:  # a Bye may follow a Reply
            return None
        return len(self.pending) if len(self.pending) < connection.inflight_max else None

    def send(self, errand: Errand, now_ns: int) -> None:
        """Queue the delivery of an errand.

        Raises:
            MessageTooLargeError: the source takes smaller frames.
        """
        self._last_number = self._last_number % 0xFFFF_FFFF + 1  # ids run through 32 bits
        errand.number = self._last_number
        self.link.send(_delivery(errand, now_ns))
        errand.link, errand.sent_ns = self, now_ns
        self.pending[errand.number] = errand

    def forget(self, errand: Errand) -> None:
        """Stop waiting for an answer; should it come, it is known to be late."""
        if self.pending.pop(errand.number, None) is not None:
            if len(self.late) >= _LATE_MAX:
                del self.late[next(iter(self.late))]
            self.late[errand.number] = errand


class Source:
    """One institution: its endpoints, its connections, its window and its breaker."""

    def __init__(
        self,
        kbo: Kbo,
        endpoints: tuple[Endpoint, ...],
        window: int,
        settings: routing.BreakerSettings,
    ) -> None:
        self.kbo = kbo
        self.endpoints = endpoints
        self.breaker = routing.Breaker()
        self.links: list[SourceLink] = []
        self.waiting: dict[Errand, None] = {}
        """Recorded, and waiting for a connection; their deadlines count on. Oldest first."""
        self.inflight = 0
        self.is_dialling = False
        self._window = window
        self._settings = settings

    def adjust(self, window: int, settings: routing.BreakerSettings) -> None:
        """Go by another window and another breaker from here on; what is in flight stays."""
        self._window, self._settings = window, settings

    def take(self, errand: Errand, now_ns: int) -> Code | None:
        """Send an errand, or let it wait for a connection; return why it cannot be done."""
        if now_ns >= errand.exchange.deadline_ns:
            return Code.DEADLINE_PASSED
        if not self.endpoints:
            return Code.SOURCE_UNREACHABLE
        if not routing.admits(self.breaker, now_ns):
            return Code.SOURCE_BREAKER_OPEN
        if self.inflight >= self._window:
            return Code.SOURCE_WINDOW_FULL
        self.breaker = routing.after_sending(self.breaker)
        self.inflight += 1
        link = self.free_link()
        if link is None:
            self.waiting[errand] = None
            return None
        return self._send(errand, link, now_ns)

    def take_waiting(self, now_ns: int) -> list[tuple[Errand, Code]]:
        """Send what waits, as far as there is a free connection; return what failed."""
        failed = []
        while self.waiting and (link := self.free_link()) is not None:
            errand = next(iter(self.waiting))
            del self.waiting[errand]
            code = self._send(errand, link, now_ns)
            if code is not None:
                failed.append((errand, code))
        return failed

    def _send(self, errand: Errand, link: SourceLink, now_ns: int) -> Code | None:
        try:
            link.send(errand, now_ns)
        except MessageTooLargeError:  # not by its own doing: no lesson for the breaker
            self.inflight -= 1
            self.breaker = routing.after_not_sending(self.breaker)
            return Code.SOURCE_ANSWER_INVALID
        return None

    def free_link(self) -> SourceLink | None:
        """The connection with the least in flight that takes one more."""
        best = routing.least_loaded([link.load for link in self.links])
        return self.links[best] if best is not None else None

    def succeeded(self) -> None:
        """An answer came."""
        self.inflight -= 1
        self.breaker = routing.after_success(self.breaker)

    def failed(self, now_ns: int, *, errands: int = 1) -> None:
        """Something broke, and with it so many errands."""
        self.inflight -= errands
        self.breaker = routing.after_failure(self.breaker, now_ns, self._settings)

    def give_up(self, errand: Errand, now_ns: int) -> None:
        """The deadline of an errand passed."""
        self.waiting.pop(errand, None)
        if errand.link is not None:
            errand.link.forget(errand)
        asked_ns = errand.sent_ns or errand.exchange.forwarded_ns
        if now_ns - asked_ns >= _BLAMED_AFTER_NS or self.breaker.is_trying:
            self.failed(now_ns)
        else:
            self.inflight -= 1


def _delivery(errand: Errand, now_ns: int) -> Delivery:
    exchange = errand.exchange
    request, verdict = exchange.request, exchange.verdict
    assert isinstance(verdict, Forward), "only what passed the control is delivered"
    grant, role = verdict.grant, verdict.role
    caller = exchange.facts.caller
    assert caller is not None
    return Delivery(
        id=errand.number,
        exchange=exchange.id,
        service=request.service,
        version=request.version,
        requester=caller.kbo,
        sector=role.sector if role is not None else None,
        type=role.type if role is not None else None,
        capacity=request.capacity,
        legal_framework=request.legal_framework,
        member=verdict.acting if verdict.acting != caller.kbo else None,
        final_client=request.final_client,
        person=verdict.person,
        enterprise=request.enterprise,
        begin=verdict.begin,
        end=None if verdict.end == OPEN else verdict.end,
        grant=grant.id if grant is not None else "",
        groups=grant.groups if grant is not None else (),
        deadline_ms=max(1, (exchange.deadline_ns - now_ns) // 1_000_000),
        payload=request.payload,
    )
