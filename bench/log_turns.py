"""Groups of entries as a busy worker makes them: requests, and answers to earlier ones."""

from collections import deque
from itertools import chain

from bench.traffic import Traffic
from ksz_router.codes import Code
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.messages import Reply


class Turns:
    """Groups as the turns of a busy worker make them: half of one is asked, half answered.

    Args:
        traffic: Draws the exchanges.
        size: Records of a group, about.
        behind: How many groups after its request an exchange is answered.
    """

    def __init__(self, traffic: Traffic, size: int, *, behind: int = 16) -> None:
        self._traffic = traffic
        self._each = size // 2
        self._open: deque[list[Exchange]] = deque([[] for _ in range(behind)])
        self._asked: list[Exchange] = []
        self._answered: list[tuple[Exchange, tuple[Errand, Reply, int]]] = []

    def draw(self) -> None:
        """Draw the exchanges of the next group, and the answers to those of an earlier one."""
        self._asked = [self._traffic.asked() for _ in range(self._each)]
        self._answered = [(one, self._traffic.replied(one)) for one in self._open.popleft()]
        self._open.append([one for one in self._asked if one.destinations])

    def entries(self) -> list[bytes]:
        """Make the entries of the group that was drawn, as the turn of a worker does."""
        traffic, maker, code = self._traffic, self._traffic.maker, Code.ANSWERED_WITH_DATA
        made: list[bytes] = []
        for exchange, entry in zip(self._asked, maker.requests(self._asked), strict=True):
            made.append(entry)
            if not exchange.destinations:
                made += traffic.refused(exchange)
        for exchange, (errand, reply, us) in self._answered:
            made += maker.outcome(exchange, code, router_us=us, errand=errand, reply=reply)
        return made

    def rest(self) -> list[bytes]:
        """Make the entries of the answers that are open still."""
        made: list[bytes] = []
        for exchange in chain.from_iterable(self._open):
            made += self._traffic.outcome(exchange, self._traffic.replied(exchange))
        self._open = deque([[] for _ in self._open])
        return made
