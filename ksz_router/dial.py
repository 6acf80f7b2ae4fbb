"""Dial: a TCP connection, a handshake on it, and whether it is who was meant."""

import os
import socket
import ssl

import trio

from ksz_router.codes import Code
from ksz_router.link import HandshakeError, Link
from ksz_router.tls import Refused
from ksz_router.wire import Connection


async def dial(
    host: str, port: int, context: ssl.SSLContext, connection: Connection, uri: str
) -> Link:
    """Connect, shake hands, and make sure that the peer is ``uri``; the caller bounds the time.

    Raises:
        HandshakeError: as :meth:`Link.handshake`, or the peer's certificate is another's.
        OSError: nobody is there.
    """
    sock = await _connect(host, port)
    link = Link(sock, context, connection)
    try:
        await link.handshake()
    except BaseException:
        sock.close()
        raise
    if link.peer_uri() != uri:
        link.turn_away(Code.CERTIFICATE_REFUSED)
        link.close()
        text = "the peer's certificate is another's"
        raise HandshakeError(Code.CERTIFICATE_REFUSED, text, Refused.NAMES)
    return link


async def _connect(host: str, port: int) -> socket.socket:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.connect_ex(address)
        await trio.lowlevel.wait_writable(sock)
    except BaseException:
        sock.close()
        raise
    refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if refused:
        sock.close()
        raise OSError(refused, os.strerror(refused))
    return sock
