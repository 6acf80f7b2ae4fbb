"""One institution's connection, once it shook hands: who it is and what is in flight on it."""

from collections.abc import Sequence

import msgspec

from ksz_router.codes import Code
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorded
from ksz_router.limits import answer_header_bytes_max
from ksz_router.link import Link
from ksz_router.messages import Answer
from ksz_router.wire import Drain, State, Throttle

_OPEN = State.OPEN
_set = msgspec.structs.force_setattr


class Session:
    """A requester's connection.

    Args:
        link: After its handshake.
        uri: The one SAN URI of its certificate; who that is, each rulebook says anew.
        now_ns: Monotonic.
    """

    def __init__(self, link: Link, uri: str, now_ns: int) -> None:
        self.link = link
        self.uri = uri
        self.opened_ns = now_ns
        self.heard_ns = now_ns
        self.pinged_ns = 0
        self.inflight: dict[int, Exchange | None] = {}
        """Correlation id → exchange; None for the moment between admission and verdict."""
        self.is_at_fault = False
        """It was said goodbye to; what came behind the fault does not count."""
        self._throttled_until_ms = 0

    def release(self, recorded: Recorded[Sequence[Release]], place: int, router_us: int) -> None:
        """Give the answer at a place of a group, if anybody is there to take it."""
        answer, connection = recorded.value[place].answer, self.link.connection
        self.inflight.pop(answer.id, None)
        if connection.state is _OPEN:
            # Nobody else has it yet, and a copy would cost as much as making it did.
            _set(answer, "router_us", router_us)
            connection.send(answer)

    def turn_away(self, answer: Answer) -> None:
        """Refuse a request before the control; name the bound in a notice, once a while."""
        retry_at_ms = answer.retry_at_ms or 0
        if "limit" in answer.detail and retry_at_ms > self._throttled_until_ms + 1_000:
            self._throttled_until_ms = retry_at_ms
            if self.link.connection.state is State.OPEN:
                limit = int(answer.detail["limit"])
                self.link.send(Throttle(code=answer.code, limit=limit, retry_at_ms=retry_at_ms))
        if self.link.connection.state is State.OPEN:
            self.link.send(answer)

    def drain(self, seconds: int) -> None:
        """Tell the peer that nothing new is taken here."""
        if self.link.connection.state is State.OPEN:
            self.link.send(Drain(seconds))

    def end(self, code: Code) -> None:
        """Say goodbye; the loop closes the connection after this turn."""
        self.is_at_fault = True
        self.link.connection.end(code)

    def takes(self, payload: bytes) -> bool:
        """Say whether an answer with this payload fits into the frames that the peer takes."""
        needed = len(payload) + answer_header_bytes_max
        return needed <= self.link.connection.peer_frame_bytes_max or not payload
