"""A relay of the router's parts and shape that decides nothing: what all the rest is added to.

As the router it has two processes, and each one task that takes what is ready on all connections as
one batch: requests are decoded and put to the one source, replies decoded and given back, and each
of both is a record in the privacy log, one commit a batch. TLS, framing, messages and the writer of
the log are the router's own. Nobody is identified, looked up, judged, counted, bounded or timed;
records are of the usual length and say nothing; there is no sequencer and no sealer.

So it is what the router would be if its control cost nothing. ``bench-peers`` runs it beside.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

import trio

from ksz_router.daemon.uncollected import uncollected
from ksz_router.dial import dial
from ksz_router.limits import handshake_seconds_max, log_file_bytes
from ksz_router.link import HandshakeError, Link
from ksz_router.messages import Answer, Delivery, RecipientStatus, Reply, Request
from ksz_router.poller import Poller
from ksz_router.privacylog.writer import Writer
from ksz_router.tls import Context, client_context, server_context
from ksz_router.wire import Connection, Message, Side

PROCESSES = 2
_REQUEST_BYTES, _OUTCOME_BYTES = 248, 166
_EXCHANGE, _GENERATION, _CODE = bytes(16), "0" * 64, 10_001
_TODAY, _BACKLOG, _WINDOW = 20261122, 512, 256


class Place(NamedTuple):
    """Where it listens, and what it works with."""

    port: int
    source_port: int
    source: str
    """SAN URI of the source."""
    tls: Path
    """Folder of a test PKI."""
    log: Path
    keys: Path


class Bare:
    """One process of the relay, once it is connected to the source."""

    def __init__(self, source: Link, writer: Writer, poller: Poller) -> None:
        self._source = source
        self._writer = writer
        self._poller = poller
        self._asked: dict[int, tuple[Link, int]] = {}
        self._last = 0
        self._request, self._outcome = os.urandom(_REQUEST_BYTES), os.urandom(_OUTCOME_BYTES)
        self.add(source)

    def add(self, link: Link) -> None:
        """Drive one more connection; what came behind its handshake is taken at once."""
        self._poller.add(link)
        self.turn([link], [])

    def turn(self, readable: list[Link], writable: list[Link]) -> None:
        """Take what is ready, make it durable, and pass it on."""
        touched, records = dict.fromkeys((*readable, *writable)), list[bytes]()
        passed: list[tuple[Link, Message]] = []
        for link in readable:
            for event in link.receive():
                if isinstance(event, Request):
                    records.append(self._request)
                    passed.append((self._source, self._delivery(link, event)))
                elif isinstance(event, Reply):
                    asker, number = self._asked.pop(event.id)
                    records.append(self._outcome)
                    passed.append((asker, _answer(number, event)))
            if link.connection.is_ended:
                del touched[link]
                self._poller.remove(link)
                link.close()
        if records:
            self._writer.commit(records, time.time_ns())
        for link, message in passed:
            if not link.is_closed:
                link.send(message)
                touched[link] = None
        for link in touched:
            self._poller.watch(link, read=True, write=link.flush() > 0)

    def _delivery(self, link: Link, request: Request) -> Delivery:
        self._last = number = self._last % 0xFFFF_FFFF + 1
        self._asked[number] = link, request.id
        return Delivery(
            number,
            _EXCHANGE,
            request.service,
            request.version,
            request.person or "",  # in place of the requester's number, which is as long
            request.sector,
            request.type,
            request.capacity,
            person=request.person,
            begin=_TODAY,
            deadline_ms=1,
            payload=request.payload,
        )


def _answer(number: int, reply: Reply) -> Answer:
    return Answer(
        number,
        _EXCHANGE,
        _CODE,
        10,
        "MSG00000",
        "DATA_FOUND",
        0,
        _GENERATION,
        recipients=(RecipientStatus("0" * 10, _CODE),),
        payload=reply.payload,
    )


async def _serve(place: Place, index: int, until: int) -> None:
    certificate, key = place.tls / "router.crt", place.tls / "router.key"
    authorities = place.tls / "authorities.pem"
    server = server_context(certificate=certificate, key=key, authorities=authorities)
    client = client_context(certificate=certificate, key=key, authorities=authorities)
    writer = Writer.open(
        place.log,
        slot=f"w{index}",
        node="bare",
        keys_folder=place.keys,
        now_ns=time.time_ns(),
        file_bytes=log_file_bytes,
    )
    connection = Connection(Side.BACK, agent="bare")
    source = await dial("127.0.0.1", place.source_port, client, connection, place.source)
    poller = Poller()
    bare = Bare(source, writer, poller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, _listening(place.port), server, bare)
        nursery.start_soon(_relay, bare, poller)
        await trio.lowlevel.wait_readable(until)
        nursery.cancel_scope.cancel()


async def _relay(bare: Bare, poller: Poller) -> None:
    while True:
        await poller.wait()
        bare.turn(*poller.ready())


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


async def _accept(listener: socket.socket, context: Context, bare: Bare) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                accepted, _ = listener.accept()
            except BlockingIOError:
                continue
            connection = Connection(Side.FRONT, agent="bare", inflight_max=_WINDOW)
            nursery.start_soon(_greet, Link(accepted, context, connection), bare)


async def _greet(link: Link, bare: Bare) -> None:
    with trio.move_on_after(handshake_seconds_max):
        try:
            await link.handshake()
        except HandshakeError:
            return
        bare.add(link)


def main() -> int:
    """Run the relay until it is ended; the words are the fields of a ``Place``, in their order."""
    port, source_port, source, *folders = sys.argv[1:]
    tls, log, keys = map(Path, folders)
    place = Place(int(port), int(source_port), source, tls, log, keys)
    log.mkdir(exist_ok=True)
    until, held = os.pipe()
    children = [os.fork() or _child(place, index, until, held) for index in range(PROCESSES)]
    for child in children:
        os.waitpid(child, 0)
    return 1


def _child(place: Place, index: int, until: int, held: int) -> int:
    """Relay until the parent ends, whose end of the pipe closes then."""
    os.close(held)
    with uncollected():
        pass  # what was imported stays
    trio.run(_serve, place, index, until)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
