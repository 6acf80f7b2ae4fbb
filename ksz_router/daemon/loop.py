"""One worker's turn: everything that is ready on all connections, as one batch.

    what came in is taken  →  what is overdue is settled  →  the group goes to the log
    →  what became durable goes on  →  what was queued is flushed, once per connection

There is no await inside a turn. Between turns anything else of the worker may run.
"""

from collections.abc import Callable
from typing import TypeAlias

import trio

from ksz_router.codes import Code
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.exchange import Exchanges
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.opened import Exchange, Release
from ksz_router.daemon.recorder import Recorder
from ksz_router.daemon.session import Session
from ksz_router.daemon.source import SourceLink
from ksz_router.daemon.upstream import Failed, Upstream
from ksz_router.limits import (
    connection_outgoing_hard_bytes,
    connection_outgoing_soft_bytes,
    flush_seconds_max,
    requester_events_per_turn_max,
    requester_read_bytes_max,
    requests_per_turn_max,
)
from ksz_router.link import Link
from ksz_router.messages import Reply, Request
from ksz_router.poller import Poller
from ksz_router.privacylog.taking import LogNotWritable
from ksz_router.wire import Drain, Ended, Event, Welcome

Peer: TypeAlias = Session | SourceLink

_NEVER_NS = 1 << 63

_WAIT_SECONDS = 0.005
"""So long a turn waits for its group to be durable; then others have the loop meanwhile. A flush
that is quicker, as nearly all are, costs less when it is waited for."""
_LOOK_AGAIN_SECONDS = 0.001


class Loop:
    """Drives all links of one worker.

    Args:
        clock_ns: Monotonic, and the clock of deadlines.
        wall_ns: Unix time.
        ended: Called when a connection is over: its peer, why, and whether the peer said so.
    """

    def __init__(
        self,
        *,
        exchanges: Exchanges,
        recorder: Recorder[Exchange, Release],
        upstream: Upstream,
        admission: Admission,
        metrics: Metrics,
        clock_ns: Callable[[], int],
        wall_ns: Callable[[], int],
        ended: Callable[[Peer, Ended], None],
    ) -> None:
        self.peers: dict[Link, Peer] = {}
        self._exchanges = exchanges
        self._recorder = recorder
        self._upstream = upstream
        self._admission = admission
        self._unsent: dict[Link, int] = {}
        self._metrics = metrics
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._ended = ended
        self._poller = Poller()
        self._until = trio.CancelScope()
        self._deferred: list[Link] = []
        """Links whose turn to be read has not come because others had sent so much."""
        upstream.dialled = self.add
        upstream.failed = self._failed_outside

    @property
    def sessions(self) -> list[Session]:
        """The requesters that are connected."""
        return [peer for peer in self.peers.values() if isinstance(peer, Session)]

    def add(self, peer: Peer) -> None:
        """Drive one more link; whatever came behind its handshake is taken at once."""
        self.peers[peer.link] = peer
        self._poller.add(peer.link)
        self._exchanges.touched.add(peer.link)
        self._take([peer.link])
        self.finish()

    async def run(self) -> None:
        """Turn for turn, until cancelled.

        Raises:
            OSError, LogNotWritable: the privacy log cannot be written; the process must end.
        """
        while True:
            armed_ns = _NEVER_NS
            with trio.CancelScope() as self._until:
                while not self._recorder.is_standing:
                    if self._deferred:
                        await trio.lowlevel.checkpoint()
                    else:
                        # The alarm stays set over many turns and is only ever moved nearer: it
                        # costs a turn nothing, and hardly ever goes off in vain.
                        due_ns = self._exchanges.next_deadline_ns
                        if due_ns is not None and due_ns < armed_ns:
                            armed_ns = due_ns
                            wait_s = (due_ns - self._clock_ns()) / 1e9
                            self._until.deadline = trio.current_time() + wait_s
                        await self._poller.wait()
                    self.turn()
            await self._until_durable()
            self.turn()

    async def _until_durable(self) -> None:
        """The device stands: leave the processor to the other tasks, and read nothing more.

        Raises:
            LogNotWritable: it stands for longer than is waited for.
        """
        while self._recorder.is_standing:
            self._check_answers()
            await trio.sleep(_LOOK_AGAIN_SECONDS)
            self._finish_turn(0.0)

    def _check_answers(self) -> None:
        if self._clock_ns() - self._recorder.begun_ns > flush_seconds_max * 1e9:
            raise LogNotWritable(f"the disk did not answer for {flush_seconds_max:.0f} s")

    def turn(self) -> None:
        """Do everything that is ready."""
        readable, writable = self._poller.ready()
        if writable:
            self._exchanges.touched.update(writable)
        if self._deferred:
            waiting, self._deferred = self._deferred, []
            readable = list(dict.fromkeys((*waiting, *readable)))
        self._take(readable)
        self._exchanges.expire()
        self._finish_turn()

    def end(self, peer: Peer, code: Code) -> None:
        """End a connection from our side; errands on it are settled."""
        ended = Ended(code, by_peer=False)
        peer.link.connection.end(code)
        peer.link.flush()
        self._drop(peer, ended)

    def finish(self) -> None:
        """Record and flush what was submitted or queued from outside a turn."""
        # However many call this while the device stands, none of them waits for it.
        self._finish_turn(0.0 if self._recorder.is_standing else _WAIT_SECONDS)
        if self._recorder.is_standing:
            self._until.cancel()  # the task that waits for links has this to wait for

    def complete(self) -> None:
        """As :meth:`finish`; blocks until all of it is durable.

        Raises:
            LogNotWritable: the disk refuses, or does not answer.
        """
        self._finish_turn()
        while self._recorder.is_standing:
            self._check_answers()
            self._finish_turn(0.5)

    def close(self) -> None:
        """Close every connection; what is still open has an outcome then."""
        self._exchanges.settle_failed(self._upstream.abandon())
        for peer in list(self.peers.values()):
            self.end(peer, Code.CLOSED_IN_PEACE)
        self._poller.close()

    def _take(self, readable: list[Link]) -> None:
        asked: list[tuple[Session, Request]] = []
        touched = self._exchanges.touched
        begun_ns = self._clock_ns()
        sources_ns = 0
        for index, link in enumerate(readable):
            peer = self.peers.get(link)
            if peer is None:
                continue
            if len(asked) >= requests_per_turn_max:  # the others come first in the next turn
                self._deferred += readable[index:]
                break
            connection = link.connection
            frames_before = connection.frames_count
            if isinstance(peer, Session):
                events = link.receive(requester_read_bytes_max, requester_events_per_turn_max)
                for event in events:  # mostly one: a comprehension costs more than it saves
                    if isinstance(event, Request):
                        asked.append((peer, event))  # noqa: PERF401
            else:
                since_ns = self._clock_ns()
                events = link.receive()
                self._heed(peer, events)
                sources_ns += self._clock_ns() - since_ns
            if connection.frames_count != frames_before:
                peer.heard_ns = begun_ns
            if connection.is_ended and events and isinstance(events[-1], Ended):
                self._drop(peer, events[-1])  # behind it nothing comes
            elif connection.has_more or connection.outgoing_bytes:  # a Welcome, a Pong
                touched.add(link)
        if asked:
            decode_ns = self._clock_ns() - begun_ns - sources_ns
            self._metrics.decode.observe(decode_ns / len(asked), len(asked))
            self._exchanges.take(asked)

    def _heed(self, peer: SourceLink, events: list[Event]) -> None:
        """Go by what a source said."""
        replies = [event for event in events if isinstance(event, Reply)]
        if replies:
            self._exchanges.replies.take(peer, replies)
        if len(replies) == len(events):
            return  # as most often
        for event in events:
            if isinstance(event, Welcome):
                peer.is_open = True
            elif isinstance(event, Drain):
                peer.is_draining = True

    def _finish_turn(self, wait_s: float = _WAIT_SECONDS) -> None:
        recorder, touched = self._recorder, self._exchanges.touched
        while True:  # what is recorded, sent or ended may give more to do
            self._exchanges.settle_failed(self._upstream.resume(touched))
            if recorder.is_standing:
                self._exchanges.go_on(wait_s)
            # What goes on may fail at once: that is recorded.
            while not (recorder.is_standing or recorder.is_empty):
                self._exchanges.commit()
                self._exchanges.go_on(wait_s)
            if not touched:
                break
            while touched:
                self._flush(touched.pop())
        if recorder.commits:
            self._metrics.committed(recorder.commits, self._wall_ns() / 1e9)
            recorder.commits.clear()

    def _flush(self, link: Link) -> None:
        peer = self.peers.get(link)
        if peer is None:
            return
        unsent = link.flush()
        if unsent or link in self._unsent:
            self._note_unsent(link, unsent)
            if unsent > self._unsent_max():
                self.end(peer, Code.PEER_TOO_SLOW)
                return
        if link.connection.ended is not None:
            self._drop(peer, link.connection.ended)
        else:
            is_read = unsent < connection_outgoing_soft_bytes
            self._poller.watch(link, read=is_read, write=unsent > 0)

    def _note_unsent(self, link: Link, unsent: int) -> None:
        self._admission.unsent_bytes += unsent - self._unsent.pop(link, 0)
        if unsent:
            self._unsent[link] = unsent

    def _unsent_max(self) -> int:
        """What may wait on one connection: where memory is short, its fair share of it at most.

        So all of them together stay within the bound, and who reads what it asked for is spared.
        """
        bound = self._admission.windows.bytes
        if self._admission.unsent_bytes <= bound:
            return connection_outgoing_hard_bytes
        return min(connection_outgoing_hard_bytes, bound // len(self._unsent))

    def _drop(self, peer: Peer, ended: Ended) -> None:
        if self.peers.pop(peer.link, None) is None:
            return
        self._note_unsent(peer.link, 0)
        self._poller.remove(peer.link)
        peer.link.close()
        self._ended(peer, ended)
        if isinstance(peer, SourceLink):
            self._exchanges.settle_failed(self._upstream.ended(peer))

    def _failed_outside(self, failed: Failed) -> None:
        self._exchanges.settle_failed(failed)
        self.finish()
