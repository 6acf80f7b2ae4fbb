"""Drives one link for the SDK: reads what comes, writes what was queued, pings when silent."""

from collections.abc import Callable

import trio

from ksz_router.codes import Code
from ksz_router.limits import ping_interval_seconds, pong_seconds_max
from ksz_router.link import Link
from ksz_router.wire import Ended, Event, Message, Ping


class Pump:
    """One link and its tasks.

    Args:
        link: After its handshake; closed when :meth:`run` returns.
        on_event: Called for each event, the last of which is an ``Ended``.
    """

    def __init__(self, link: Link, on_event: Callable[[Event], None]) -> None:
        self.link = link
        self._on_event = on_event
        self._heard_at = trio.current_time()
        self._to_write = trio.Event()
        self._writable = trio.Event()
        self._writable.set()
        self._token = trio.lowlevel.current_trio_token()
        self._is_flush_due = False

    def send(self, message: Message) -> None:
        """Queue a message and write what the kernel takes; errors as of the wire."""
        self.link.send(message)
        self._flush()

    def send_together(self, message: Message) -> None:
        """Queue a message and write it with whatever else is queued in this turn of the loop."""
        self.link.send(message)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._token.run_sync_soon(self._flush_due)

    async def writable(self) -> None:
        """Wait until the kernel took everything, which bounds what waits in memory."""
        await self._writable.wait()

    def end(self, code: Code = Code.CLOSED_IN_PEACE) -> None:
        """Say goodbye; :meth:`run` then returns."""
        if not self.link.connection.is_ended:
            self.link.connection.end(code)
            self._flush()
            self._on_event(Ended(code, by_peer=False))

    async def run(self) -> None:
        """Read, write and ping until the connection is over."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._ping)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:  # when nobody waits for its socket any more
            self.link.connection.end()
            self.link.close()

    async def _read(self) -> None:
        while not self.link.connection.is_ended:
            self._heard_at = trio.current_time()
            for event in self.link.receive():
                self._on_event(event)
            self._flush()
            if self.link.connection.has_more:
                await trio.lowlevel.checkpoint()
            elif not self.link.connection.is_ended:
                await self.link.wait_readable()

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            await self.link.wait_writable()
            self._flush()

    async def _ping(self) -> None:
        number = 0
        while True:
            await trio.sleep_until(self._heard_at + ping_interval_seconds)
            silent_s = trio.current_time() - self._heard_at
            if silent_s >= ping_interval_seconds + pong_seconds_max:
                self.end(Code.PEER_SILENT)
                return
            if silent_s >= ping_interval_seconds:
                number += 1
                self.send(Ping(number))
                await trio.sleep(pong_seconds_max)

    def _flush_due(self) -> None:
        self._is_flush_due = False
        self._flush()

    def _flush(self) -> None:
        self.link.flush()
        if self.link.unsent_bytes:
            self._to_write.set()
            if self._writable.is_set():
                self._writable = trio.Event()
        else:
            self._writable.set()
            if self._to_write.is_set():
                self._to_write = trio.Event()
