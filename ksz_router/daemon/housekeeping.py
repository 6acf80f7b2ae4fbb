"""What a worker does once a second: pings, slow peers, idle sources, tables, the quarter's keys."""

from collections.abc import Callable

from ksz_router.codes import Code
from ksz_router.daemon.loop import Loop, Peer
from ksz_router.daemon.source import SourceLink
from ksz_router.limits import (
    connection_outgoing_soft_bytes,
    hello_seconds_max,
    ping_interval_seconds,
    pong_seconds_max,
    slow_reader_seconds_max,
    slow_sender_seconds_max,
)
from ksz_router.wire import Ping, State


class Housekeeping:
    """Looks at every connection of a worker, in its own turn of the loop."""

    def __init__(
        self,
        *,
        loop: Loop,
        clock_ns: Callable[[], int],
        summarise: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._clock_ns = clock_ns
        self._summarise = summarise
        self._writing: dict[Peer, tuple[int, int]] = {}
        self._reading: dict[Peer, tuple[int, int]] = {}
        self._ticks = 0

    def tick(self) -> None:
        """Do one second's work."""
        self._ticks += 1
        now_ns = self._clock_ns()
        for peer in list(self._loop.peers.values()):
            code = self._fault_of(peer, now_ns)
            if code is not None:
                self._loop.end(peer, code)
        if self._ticks % 60 == 0:
            self._summarise()
        self._loop.finish()

    def _fault_of(self, peer: Peer, now_ns: int) -> Code | None:
        """What ends this connection now, if anything does; pings who is silent."""
        link = peer.link
        if link.connection.state is State.GREETING:
            late = now_ns - peer.opened_ns > hello_seconds_max * 1e9
            return Code.HELLO_LATE if late else None
        written = link.sent_bytes if link.unsent_bytes else None
        if _stands_still(self._writing, peer, written, now_ns) > slow_reader_seconds_max:
            return Code.PEER_TOO_SLOW
        # A frame that has come in part cannot go on while we do not read: that is the reader's.
        is_read = link.unsent_bytes < connection_outgoing_soft_bytes
        read = link.connection.frame_in_part if is_read else None
        if _stands_still(self._reading, peer, read, now_ns) > slow_sender_seconds_max:
            return Code.PEER_TOO_SLOW
        if isinstance(peer, SourceLink) and peer.is_draining and not peer.pending:
            return Code.CLOSED_IN_PEACE
        return self._silence(peer, now_ns)

    def _silence(self, peer: Peer, now_ns: int) -> Code | None:
        if peer.heard_ns > peer.pinged_ns:
            if now_ns - peer.heard_ns > ping_interval_seconds * 1e9:
                peer.pinged_ns = now_ns
                peer.link.send(Ping(self._ticks))
                peer.link.flush()
            return None
        return Code.PEER_SILENT if now_ns - peer.pinged_ns > pong_seconds_max * 1e9 else None

    def forget(self, peer: Peer) -> None:
        """A connection is over."""
        self._writing.pop(peer, None)
        self._reading.pop(peer, None)


def _stands_still(
    marks: dict[Peer, tuple[int, int]], peer: Peer, progress: int | None, now_ns: int
) -> float:
    """For how many seconds a peer's progress was the same; None: it has nothing to do."""
    if progress is None:
        marks.pop(peer, None)
        return 0.0
    mark = marks.get(peer)
    if mark is None or mark[0] != progress:
        marks[peer] = progress, now_ns
        return 0.0
    return (now_ns - mark[1]) / 1e9
