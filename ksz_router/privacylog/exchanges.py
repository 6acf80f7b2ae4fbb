"""What verification knows of the exchanges of a slot, one entry after the other. Pure."""

from collections import OrderedDict

from ksz_router.privacylog.entry import OUTCOME_WITHIN_US, Entry, Kind


class Exchanges:
    """Whether each outcome has its request, and each request of an ended run its outcome.

    Memory is bounded by what is open or was settled within ``OUTCOME_WITHIN_US``.
    """

    def __init__(self) -> None:
        self._open: dict[bytes, int] = {}
        self._done: OrderedDict[bytes, int] = OrderedDict()
        self._forgiving = False

    def take(self, entry: Entry) -> str:
        """Take the next entry of the slot; return what is wrong with it, or nothing."""
        exchange = entry.exchange
        if entry.kind in (Kind.SUMMARY, Kind.READING, Kind.SEALED):
            return "" if exchange is None else "an entry of this kind has no exchange"
        if exchange is None or len(exchange) != 16:
            return "the entry names no exchange"
        if entry.kind == Kind.REQUEST:
            if entry.code == 0:
                self._open[exchange] = entry.at_us
            else:
                self._settle_one(exchange, entry.at_us)
            return ""
        if exchange not in self._open and exchange not in self._done and not self._forgiving:
            return "the entry has no request"
        if entry.kind == Kind.OUTCOME:
            self._open.pop(exchange, None)
            self._settle_one(exchange, entry.at_us)
        return ""

    def forgive(self) -> None:
        """Entries are missing: from here on only what was seen can be judged."""
        self._forgiving = True
        self._open.clear()

    def settle(self) -> int:
        """A new run begins: return how many exchanges of the one before have no outcome."""
        count = len(self._open)
        self._open.clear()
        return count

    def _settle_one(self, exchange: bytes, at_us: int) -> None:
        self._done[exchange] = at_us
        self._done.move_to_end(exchange)
        while at_us - next(iter(self._done.values())) > OUTCOME_WITHIN_US:
            self._done.popitem(last=False)
