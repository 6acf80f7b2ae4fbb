"""Several requests at once: packed into envelopes, sent as places come free, answered one by one.

Each is sent in an envelope once. What did not go through so, for whatever reason, goes the road
of a single request, which knows of retries and says what is known where no answer comes.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
import trio

from ksz_router.codes import Code
from ksz_router.limits import envelope_requests_max
from ksz_router.messages import Answer, Envelope, Item, Request
from ksz_router.sdk.line import Line, Waiting, wish_ms
from ksz_router.sdk.settings import (
    ConnectionLostError,
    NotAnsweredError,
    NotConnectedError,
    SdkError,
)
from ksz_router.wire import LocalProtocolError
from ksz_router.wire.envelopes import packed

Result: TypeAlias = Answer | SdkError | LocalProtocolError
"""What came of one of several requests: its answer, or why there is none."""

TURNED_AWAY = frozenset(
    {
        Code.CONNECTION_WINDOW_FULL,
        Code.INSTITUTION_WINDOW_FULL,
        Code.ROUTER_FULL,
        Code.ROUTER_DRAINING,
        Code.LOG_NOT_WRITABLE,
    }
)
"""Refused before the control: nothing was judged, recorded or forwarded, so it is asked again."""

_UNENCODABLE = (msgspec.MsgspecError, UnicodeEncodeError, OverflowError, TypeError)
_OWN = Item.__struct_fields__
_SHARED = tuple(
    name for name in Envelope.__struct_fields__ if name not in ("id", "requests", "ticket")
)
_LARGER_HEAD_BYTES = 2
"""By which the head of a MessagePack array of 16 elements and more is larger than of none."""


async def pause() -> None:
    """Wait a random while before something is asked again."""
    await trio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - jitter


class Together:
    """Several requests on their way.

    Args:
        requests: In any order; neighbours that share what an envelope shares travel in one.
        ends_at: When the caller stops waiting, on Trio's clock.
        resend: As of :meth:`ksz_router.sdk.Client.ask`.
        free_line: Gives the connection in use.
        ask: Asks a single request: with this deadline in seconds.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        ends_at: float,
        resend: bool,
        free_line: Callable[[], Awaitable[Line]],
        ask: Callable[[Request, float], Awaitable[Answer]],
    ) -> None:
        self._requests = requests
        self._ends_at = ends_at
        self._resend = resend
        self._free_line = free_line
        self._ask = ask
        self._results: dict[int, Result] = {}

    async def run(self) -> list[Result]:
        """Return what came of each, in their order."""
        async with trio.open_nursery() as nursery:
            for indices in neighbours(self._requests):
                await self._send(indices, nursery)
        return [self._results[index] for index in range(len(self._requests))]

    async def _send(self, indices: Iterable[int], nursery: trio.Nursery) -> None:
        """Send all of these, which share what an envelope shares."""
        left = deque(indices)
        while left:
            sent = 0
            with trio.move_on_at(self._ends_at) as waiting:
                try:
                    line = await self._free_line()
                    taken = await line.take_places(min(len(left), envelope_requests_max))
                except SdkError:
                    break
                if line.is_draining:  # it ended while this waited for places on it
                    line.give_back(taken)
                    continue
                sent = self._send_one(line, left, taken, nursery)
            if waiting.cancelled_caught:
                break
            if not sent:  # the first of them does not go into an envelope
                nursery.start_soon(self._alone, left.popleft())
        for index in left:
            nursery.start_soon(self._alone, index)

    def _send_one(
        self, line: Line, left: deque[int], taken: list[Waiting], nursery: trio.Nursery
    ) -> int:
        """Send as many as go into one envelope; return how many, none where the first does not."""
        requests = [self._requests[index] for index, _ in zip(left, taken, strict=False)]
        raws = fitting(requests, line.pump.link.connection.peer_frame_bytes_max)
        first = line.next_numbers(len(raws))
        shared = _shared(requests[0])
        shared["deadline_ms"] = wish_ms(shared["deadline_ms"], self._ends_at)
        try:
            if raws:
                line.pump.send(Envelope(id=first, requests=tuple(raws), **shared))
        except LocalProtocolError:
            raws = []
        line.give_back(taken[len(raws) :])
        for number, one in enumerate(taken[: len(raws)], first):
            line.waiting[number] = one
            nursery.start_soon(self._take, line, number, left.popleft())
        return len(raws)

    async def _take(self, line: Line, number: int, index: int) -> None:
        """Wait for one answer."""
        waiting = line.waiting[number]
        try:
            with trio.move_on_at(self._ends_at):
                await waiting.event.wait()
        finally:
            line.forget(number)
            line.give_back([waiting])
        answer = waiting.answer
        if answer is not None:
            self._results[index] = answer
            if answer.code in TURNED_AWAY:
                with trio.move_on_at(self._ends_at):
                    await pause()
                await self._alone(index)
        elif not waiting.event.is_set():
            self._results[index] = NotAnsweredError(
                "no answer before the deadline; ask again with the ticket"
            )
        elif self._resend:
            await self._alone(index)
        else:
            self._results[index] = ConnectionLostError(
                "the connection broke; ask again with the ticket"
            )

    async def _alone(self, index: int) -> None:
        """Ask one by itself; where it could not be sent again, what was known of it stays."""
        left_s = max(0.0, self._ends_at - trio.current_time())
        try:
            self._results[index] = await self._ask(self._requests[index], left_s)
        except NotConnectedError as error:
            self._results.setdefault(index, error)
        except (SdkError, LocalProtocolError) as error:
            self._results[index] = error


def neighbours(requests: Sequence[Request]) -> Iterable[list[int]]:
    """Yield the indices of requests in a row that share what an envelope shares."""
    row: list[int] = []
    for index, request in enumerate(requests):
        if row and _shared(request) != _shared(requests[row[0]]):
            yield row
            row = []
        row.append(index)
    if row:
        yield row


def _shared(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _SHARED}


def fitting(requests: Sequence[Request], frame_bytes_max: int) -> list[msgspec.Raw]:
    """Pack as many of the first as one envelope takes; none where already the first cannot."""
    raws: list[msgspec.Raw] = []
    try:
        empty = Envelope(id=0xFFFF_FFFF, requests=(), **_shared(requests[0]))
        size = len(msgspec.msgpack.encode(empty)) + _LARGER_HEAD_BYTES
        for request in requests:
            raw = packed(Item(**{name: getattr(request, name) for name in _OWN}))
            size += memoryview(raw).nbytes
            if size > frame_bytes_max:
                break
            raws.append(raw)
    except _UNENCODABLE:
        pass  # asked by itself, it says so
    return raws
