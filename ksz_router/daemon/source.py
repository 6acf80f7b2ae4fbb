"""One institution as a source, as one worker sees it: connections, window, breaker."""

from collections.abc import Callable, Sequence
from itertools import islice

from ksz_router import routing
from ksz_router.codes import Code
from ksz_router.daemon.opened import Errand, Late
from ksz_router.decision import Forward
from ksz_router.identifiers import Kbo
from ksz_router.limits import connection_outgoing_soft_bytes
from ksz_router.link import Link
from ksz_router.messages import Delivery
from ksz_router.model import OPEN, Endpoint
from ksz_router.wire import MessageTooLargeError

STATES = ("up", "dialling", "breaker open", "idle")
"""What :attr:`Source.state` may be."""

_LATE_MAX = 4_096
"""How many given-up deliveries a connection remembers, to know a late answer when it comes."""

_RUN = 32
"""Deliveries that follow each other on one connection: together they are one write."""

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
        self.late: dict[int, Late] = {}
        self.is_open = False
        """The Welcome came."""
        self.is_draining = False
        self.has_served = False
        """A Reply came on it."""
        self._last_number = 0

    @property
    def load(self) -> int | None:
        """Deliveries in flight; None where no more may be sent."""
        connection = self.link.connection
        if not self.is_open or self.is_draining or connection.is_ended:  # a Bye may follow a Reply
            return None
        if self.link.queued_bytes >= connection_outgoing_soft_bytes:  # it reads too slowly
            return None
        return len(self.pending) if len(self.pending) < connection.inflight_max else None

    @property
    def room(self) -> int:
        """How many deliveries may be sent before another connection is considered."""
        return min(_RUN, self.link.connection.inflight_max - len(self.pending))

    def send(self, errand: Errand, now_ns: int) -> None:
        """Queue the delivery of an errand.

        Raises:
            MessageTooLargeError: the source takes smaller frames.
        """
        self._last_number = self._last_number % 0xFFFF_FFFF + 1  # ids run through 32 bits
        errand.number = self._last_number
        self.link.connection.send(delivery_of(errand, now_ns))
        errand.link, errand.sent_ns = self, now_ns
        self.pending[errand.number] = errand

    def serve(self) -> None:
        """Its first Reply came: the endpoint can be dialled again without delay."""
        self.has_served = True
        self.source.dialled_ns.pop(self.endpoint, None)

    def forget(self, errand: Errand) -> None:
        """Stop waiting for an answer; should it come, it is known to be late."""
        if self.pending.pop(errand.number, None) is not None:
            if len(self.late) >= _LATE_MAX:
                del self.late[next(iter(self.late))]
            self.late[errand.number] = Late.of(errand)


class Source:
    """One institution: its endpoints, its connections, its window and its breaker."""

    def __init__(
        self,
        kbo: Kbo,
        endpoints: tuple[Endpoint, ...],
        *,
        window: int,
        settings: routing.BreakerSettings,
        breaker_turned: Callable[["Source"], None],
    ) -> None:
        self.kbo = kbo
        self.endpoints = endpoints
        self.breaker = routing.Breaker()
        self.links: list[SourceLink] = []
        self.waiting: dict[Errand, None] = {}
        """Recorded, and waiting for a connection; their deadlines count on. Oldest first."""
        self.inflight = 0
        self.dialling: set[Endpoint] = set()
        self.dialled_ns: dict[Endpoint, int] = {}
        """When each endpoint was last dialled, unless a connection to it has served since."""
        self._taken: dict[Kbo, int] = {}
        """Requester → what of ``inflight`` is its."""
        self._trial: Errand | None = None
        self._window = window
        self._settings = settings
        self._breaker_turned = breaker_turned

    @property
    def state(self) -> str:
        """One of ``STATES``."""
        if self.breaker.open_until_ns:
            return "breaker open"
        if any(link.is_open for link in self.links):
            return "up"
        return "dialling" if self.dialling else "idle"

    @property
    def is_served(self) -> bool:
        """A connection stands, or may come to stand, that new deliveries can use."""
        for link in self.links:
            if not link.is_draining:
                return True
        return bool(self.dialling)

    def adjust(self, window: int, settings: routing.BreakerSettings) -> None:
        """Go by another window and another breaker from here on; what is in flight stays."""
        self._window, self._settings = window, settings

    def take(self, errand: Errand, now_ns: int) -> Code | None:
        """Let an errand wait to be sent; return why it cannot be done."""
        if now_ns >= errand.exchange.deadline_ns:
            return Code.DEADLINE_PASSED
        if not self.endpoints:
            return Code.SOURCE_UNREACHABLE
        breaker = self.breaker
        if breaker.open_until_ns and not routing.admits(breaker, now_ns):
            return Code.SOURCE_BREAKER_OPEN
        requester = errand.requester
        mine = self._taken.get(requester, 0)
        if not routing.has_room(mine=mine, taken=self.inflight, window=self._window):
            return Code.SOURCE_WINDOW_FULL
        if breaker.open_until_ns:
            self._trial = errand
            self.breaker = routing.after_sending(breaker)
        self.inflight += 1
        self._taken[requester] = mine + 1
        self.waiting[errand] = None
        return None

    def send_waiting(self, now_ns: int, touched: set[Link]) -> list[tuple[Errand, Code]]:
        """Send what waits, as far as connections take it; return what failed."""
        failed = []
        if self.breaker.open_until_ns and self._trial is None:  # it opened while these waited
            failed = [(errand, Code.SOURCE_BREAKER_OPEN) for errand in self.waiting]
            self.waiting.clear()
        while self.waiting and (link := self._free_link()) is not None:
            batch = list(islice(self.waiting, link.room))
            connection, unsent_bytes = link.link.connection, link.link.unsent_bytes
            for errand in batch:
                if unsent_bytes + connection.outgoing_bytes >= connection_outgoing_soft_bytes:
                    break  # the rest waits until the source has read some of it
                del self.waiting[errand]
                try:
                    link.send(errand, now_ns)
                except MessageTooLargeError:  # not the source's doing: no lesson for the breaker
                    failed.append((errand, Code.DELIVERY_TOO_LARGE))
            touched.add(link.link)
        for errand, _ in failed:
            self._leave(errand)
        return failed

    def _free_link(self) -> SourceLink | None:
        """The connection with the least in flight that takes one more."""
        best = routing.least_loaded([link.load for link in self.links])
        return self.links[best] if best is not None else None

    def answered(self, errands: Sequence[Errand]) -> None:
        """Replies came that can be used; one that cannot is a failure, like silence."""
        if self.breaker.outcomes != routing.ALL_GOOD:
            for errand in errands:
                self._succeeded(errand)
        self.inflight -= len(errands)
        taken = self._taken
        for errand in errands:
            requester = errand.requester
            mine = taken[requester] - 1
            if mine:
                taken[requester] = mine
            else:
                del taken[requester]

    def _succeeded(self, errand: Errand) -> None:
        is_trial = errand is self._trial
        self.breaker = routing.after_success(self.breaker, is_trial=is_trial)
        if is_trial:
            self._trial = None
            self._breaker_turned(self)

    def broke(self, errands: Sequence[Errand], now_ns: int) -> None:
        """Something broke, and with it these errands: one failure, however many they are."""
        is_trial = self._trial is not None and self._trial in errands
        settings, was_open = self._settings, self.breaker.open_until_ns
        self.breaker = routing.after_failure(self.breaker, now_ns, settings, is_trial=is_trial)
        if is_trial:
            self._trial = None
        for errand in errands:
            self._leave(errand)
        if self.breaker.open_until_ns and not was_open:
            self._breaker_turned(self)

    def give_up(self, errand: Errand, now_ns: int) -> None:
        """The deadline of an errand passed."""
        self.waiting.pop(errand, None)
        if errand.link is not None:
            errand.link.forget(errand)
        asked_ns = errand.sent_ns or errand.exchange.forwarded_ns
        if now_ns - asked_ns >= _BLAMED_AFTER_NS:
            self.broke([errand], now_ns)
        else:
            self._leave(errand)

    def abandon(self) -> list[Errand]:
        """Return and forget what waits."""
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def _leave(self, errand: Errand) -> None:
        """An errand is over."""
        self.inflight -= 1
        requester = errand.requester
        mine = self._taken[requester] - 1
        if mine:
            self._taken[requester] = mine
        else:
            del self._taken[requester]
        if errand is self._trial:
            self._trial = None
            if self.breaker.is_trying:  # nothing was learnt from it
                self.breaker = routing.after_not_sending(self.breaker)


def delivery_of(errand: Errand, now_ns: int) -> Delivery:
    """Return what a destination is given of a request that passed the control."""
    exchange = errand.exchange
    request, verdict, caller = exchange.request, exchange.verdict, exchange.facts.caller
    assert isinstance(verdict, Forward), "only what passed the control is delivered"
    assert caller is not None
    grant, role, requester = verdict.grant, verdict.role, caller.kbo
    acting, end = verdict.acting, verdict.end
    granted = exchange.granted if exchange.submission is not None else None
    left_ms = (exchange.deadline_ns - now_ns) // 1_000_000
    return Delivery(
        errand.number,
        granted.first if granted is not None else exchange.id,
        request.service,
        request.version,
        requester,
        role.sector if role is not None else None,
        role.type if role is not None else None,
        request.capacity,
        request.legal_framework,
        acting if acting != requester else None,  # member
        request.final_client,
        verdict.person,
        request.enterprise,
        begin=verdict.begin,
        end=end if end != OPEN else None,
        grant=grant.id if grant is not None else "",
        groups=grant.groups if grant is not None else (),
        repeat=granted is not None and (errand.kbo in granted.repeats or exchange.is_made_again),
        deadline_ms=left_ms if left_ms > 0 else 1,
        payload=request.payload,
    )
