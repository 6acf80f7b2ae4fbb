"""One connection to the router, after its handshake; or why there is none, and whether to retry."""

import trio

from ksz_router.codes import Code
from ksz_router.credentials import Credentials
from ksz_router.dial import dial
from ksz_router.limits import handshake_seconds_max
from ksz_router.link import HandshakeError, Link
from ksz_router.sdk.settings import AuthenticationError, NotConnectedError, SdkError
from ksz_router.tls import CERTIFICATE_FAULTS
from ksz_router.wire import Connection, Ended


async def dial_router(
    credentials: Credentials, host: str, port: int, uri: str, connection: Connection
) -> Link:
    """Connect and shake hands with the router of this name, as the files stand now.

    Raises:
        AuthenticationError: one side does not accept the other's certificate.
        NotConnectedError: it did not come about in time, or not under TLS.
        OSError: nobody is there.
    """
    try:
        with trio.fail_after(handshake_seconds_max):
            return await dial(host, port, credentials.client(), connection, uri)
    except HandshakeError as error:
        if error.code in CERTIFICATE_FAULTS:
            raise AuthenticationError(f"the certificates do not suit: {error.reason}") from None
        raise NotConnectedError(error.reason) from None
    except trio.TooSlowError:
        raise NotConnectedError("no handshake in time") from None


def not_greeted(ended: list[Ended]) -> SdkError:
    """Return why a router that was reached did not greet; ``ended`` is how it ended, if it did."""
    code = ended[0].code if ended else Code.HELLO_LATE
    if code in CERTIFICATE_FAULTS:
        return AuthenticationError(f"the router says {code.name}")
    return NotConnectedError(f"the router did not greet: {code.name}")
