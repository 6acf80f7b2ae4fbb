"""Bytes in and out: a protocol connection on a TLS socket.

TLS runs through memory buffers, so that reading and writing never wait: who drives many links
takes what is ready on all of them as one batch. Only handshakes and dialling are asynchronous.
"""

import contextlib
import socket
import ssl
import threading

import trio

from ksz_router.codes import Code
from ksz_router.limits import (
    buffered_bytes_max,
    events_per_receive_max,
    read_bytes_max,
    tls_record_bytes_max,
)
from ksz_router.tls import ALPN, Chain, Context, fault_of, verified_chain
from ksz_router.wire import Connection, Ended, Event, Message, Side


class _Buffers(threading.local):
    """One for all links of a thread: what is read into it is copied out at once."""

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(read_bytes_max))


_buffers = _Buffers()


class HandshakeError(Exception):
    """No TLS connection came about. ``code`` says whether certificates were the reason.

    ``result`` is one of a small set, for counting: of :class:`ksz_router.tls.Refused` where a
    certificate was the reason, else the code's name in lower case.
    """

    def __init__(self, code: Code, reason: str, result: str = "") -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason
        self.result = result or code.name.lower()


class Link:
    """One connection. Takes ownership of ``sock``, which must be connected.

    Everything but :meth:`handshake` returns at once. The caller flushes after it has sent.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, connection: Connection
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.fd = sock.fileno()
        self.is_closed = False
        self.chain: Chain | None = None
        """What to judge the peer by when revocations change; None where nobody judges."""
        self._socket = sock
        self._judge = context.judge if isinstance(context, Context) else None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        server_side = connection.side in (Side.FRONT, Side.SOURCE)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._unsent = bytearray()
        self._fault: Code | None = None
        """Why nothing more will come; told once all that came before is taken."""
        self.sent_bytes = 0
        """How much the kernel took so far."""

    async def handshake(self) -> None:
        """Shake hands; the caller bounds the time.

        Raises:
            HandshakeError: the peer went away, speaks no TLS 1.3, another application protocol,
                or one side did not accept the other's certificate.
        """
        await self._shake_hands()
        if self._tls.selected_alpn_protocol() != ALPN:
            raise HandshakeError(Code.VERSION_NOT_SPOKEN, f"ALPN {ALPN} is asked for")
        if self._judge is not None:
            self.chain, fault = self._judge(verified_chain(self._tls))
            if fault is not None:
                self.turn_away(fault.code)
                raise HandshakeError(fault.code, fault.text, fault.result)

    def turn_away(self, code: Code) -> None:
        """Tell a peer with whom the handshake succeeded why nothing will come of it."""
        self.connection.end(code)
        self.flush()

    async def _shake_hands(self) -> None:
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._push_out()
                    await trio.lowlevel.wait_readable(self._socket)
                    self._pull_in(buffered_bytes_max)
                else:
                    await self._push_out()
                    break
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):  # the alert, if the kernel takes it at once
                self._socket.send(self._outgoing.read())
            fault = fault_of(error)
            raise HandshakeError(fault.code, fault.text, fault.result) from None
        except OSError as error:
            raise HandshakeError(Code.CONNECTION_TRUNCATED, type(error).__name__) from None

    def receive(
        self, bytes_max: int = read_bytes_max, events_max: int = events_per_receive_max
    ) -> list[Event]:
        """Return what has come, up to a bound; what is left over comes before more is read."""
        if self.is_closed:
            return []
        connection = self.connection
        data = b"" if connection.has_more else self._read(bytes_max)
        events = connection.receive_data(data, events_max)
        if self._fault is None or connection.has_more:
            return events
        if self._fault is Code.CONNECTION_TRUNCATED:
            events += connection.receive_end()
        elif not connection.is_ended:
            connection.receive_end()
            events.append(Ended(self._fault, by_peer=True))
        return events

    def _read(self, bytes_max: int) -> bytes:
        """Return what came; what keeps more from coming is left in ``_fault``."""
        chunks = []
        try:
            is_over = self._pull_in(bytes_max)
            while self._incoming.pending or is_over:
                chunk = self._tls.read(tls_record_bytes_max)  # whole: TLS keeps none of it
                if not chunk:  # the peer closed TLS in order
                    self._fault = Code.CONNECTION_TRUNCATED
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fault = fault_of(error).code
        except OSError:
            self._fault = Code.CONNECTION_TRUNCATED
        return b"".join(chunks)

    def send(self, message: Message) -> None:
        """Queue a message; errors as :meth:`ksz_router.wire.Connection.send`."""
        self.connection.send(message)

    def flush(self) -> int:
        """Hand what is queued to the kernel; return how much of it the kernel has not taken."""
        if self.is_closed:
            return 0
        plain = self.connection.data_to_send()
        try:
            if len(plain) > tls_record_bytes_max:
                self._write_in_pieces(plain)
            elif plain:
                self._tls.write(plain)  # one record is taken whole
        except ssl.SSLError:
            pass  # TLS failed on what came in: nobody reads this, and the last receive said so
        data: bytes | bytearray = self._outgoing.read()
        unsent = self._unsent
        if unsent:
            unsent += data
            data = unsent
        elif not data:
            return 0
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            unsent.clear()  # nobody reads this any more; the next receive says so
            return 0
        self.sent_bytes += sent
        if unsent:
            del unsent[:sent]
        elif sent < len(data):
            unsent += data[sent:]
        return len(unsent)

    def _write_in_pieces(self, plain: bytes) -> None:
        rest = memoryview(plain)
        while rest:
            rest = rest[self._tls.write(rest[:buffered_bytes_max]) :]
            self._unsent += self._outgoing.read()

    @property
    def unsent_bytes(self) -> int:
        """How much the kernel has not taken yet."""
        return len(self._unsent)

    @property
    def queued_bytes(self) -> int:
        """The same and what was not flushed yet."""
        return len(self._unsent) + self.connection.outgoing_bytes

    def peer_uri(self) -> str:
        """The one SAN URI of the peer's certificate; empty where it has none or several."""
        try:
            certificate = self._tls.getpeercert() or {}
        except (ValueError, ssl.SSLError):  # a CA may sign names that are no text
            return ""
        names = certificate.get("subjectAltName", ())
        uris = [str(name[1]) for name in names if len(name) == 2 and name[0] == "URI"]
        return uris[0] if len(uris) == 1 else ""

    def peer_certificate(self) -> bytes:
        """The peer's certificate, DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    def describe(self) -> dict[str, str]:
        """TLS version and cipher, for who tests a connection."""
        cipher = self._tls.cipher()
        return {"tls": self._tls.version() or "", "cipher": cipher[0] if cipher else ""}

    async def wait_readable(self) -> None:
        """Wait until bytes have come. For who drives one link; of many, see ``poller.py``."""
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        """Wait until the kernel takes bytes again."""
        await trio.lowlevel.wait_writable(self._socket)

    def close(self) -> None:
        """Say what is still queued and a TLS close, as far as that goes at once, and close."""
        if self.is_closed:
            return
        self.flush()
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()  # it would also wait for the peer's own close, which nobody needs
        self.flush()
        self.is_closed = True
        self._unsent.clear()
        self._socket.close()

    def _pull_in(self, bytes_max: int = read_bytes_max) -> bool:
        """Take what has come from the kernel; return whether the peer's bytes are over."""
        cipher = _buffers.cipher
        try:
            size = self._socket.recv_into(cipher, bytes_max)
        except BlockingIOError:
            return False
        if size:
            self._incoming.write(cipher[:size])
        else:
            self._incoming.write_eof()
        return not size

    async def _push_out(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
