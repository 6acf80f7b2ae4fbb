"""TLS contexts of all who talk: TLS 1.3 only, mutual, no tickets, one application protocol.

A context is never changed after it was made: new certificates or revocations mean a new one, so
that nothing decided under the old can be resumed under the new.

OpenSSL judges what a certificate says of itself: signatures, dates, purpose, strength, constraints.
Whether it was revoked is asked of the context's judge, once the chain is known to be sound.
"""

import ssl
import sys
from collections.abc import Callable
from enum import StrEnum, unique
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ksz_router.codes import Code

ALPN = "ksz-router/1"

_STRENGTH = "DEFAULT:@SECLEVEL=2"
"""112 bits: no RSA below 2048, no SHA-1; said here, since a distribution's default may differ."""


class TlsFilesError(Exception):
    """A certificate, key or revocation file cannot be used. The message names it."""


@unique
class Refused(StrEnum):
    """Why a certificate did not do: the label of a metric, so a small set that never grows."""

    NO_CERTIFICATE = "no_certificate"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_AUTHORITY = "unknown_authority"
    WRONG_PURPOSE = "wrong_purpose"
    WEAK = "weak"
    CONSTRAINT = "constraint"
    REVOKED = "revoked"
    REVOCATION_UNKNOWN = "revocation_unknown"
    REVOCATIONS_OUT_OF_DATE = "revocations_out_of_date"
    NAMES = "names"
    BY_PEER = "refused_by_peer"
    OTHER = "other_certificate_fault"


CERTIFICATE_FAULTS = frozenset({Code.CERTIFICATE_REFUSED, Code.CERTIFICATE_REVOKED})
"""What ends a connection for good: dialled anew with the same certificates, it ends the same."""


class Fault(NamedTuple):
    """What is wrong with a peer, or what the peer says is wrong with us."""

    code: Code
    result: str
    """One of :class:`Refused`, or where no certificate is to blame the code's name."""
    text: str
    """OpenSSL's words or ours, never the peer's."""


class Chain(NamedTuple):
    """What is kept of the certificates of a connection, to judge them anew later."""

    issued: tuple[tuple[bytes, int], ...]
    """Of each certificate, leaf first, root too: the digest of its issuer, its serial number."""
    anchor: bytes
    """The digest of the root."""


Judge: TypeAlias = Callable[[list[bytes]], tuple[Chain | None, Fault | None]]
"""Takes the verified chain, DER, leaf first; returns what to keep of it, and what is wrong."""


class Context(ssl.SSLContext):
    """A context that knows whom to ask about revocation; ``judge`` is None where nobody is."""

    judge: Judge | None = None


def server_context(
    *, certificate: Path, key: Path, authorities: Path, judge: Judge | None = None
) -> Context:
    """Make the context of a side that accepts; a client certificate is demanded.

    Args:
        certificate: PEM, leaf first, then its intermediates.
        key: PEM, without a passphrase; protect the file.
        authorities: PEM, the CAs under which peers are accepted; several for a rollover.
        judge: Asked at the end of each handshake.

    Raises:
        TlsFilesError: a file is missing or does not fit.
    """
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # a resumed session would outlive a revocation
    context.options |= ssl.OP_NO_TICKET
    _fill(context, certificate, key, authorities, judge)
    return context


def client_context(
    *, certificate: Path, key: Path, authorities: Path, judge: Judge | None = None
) -> Context:
    """Make the context of a side that dials. Arguments and errors as for the other.

    Host names are not compared: the caller compares the exact URI of the peer's certificate.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _fill(context, certificate, key, authorities, judge)
    return context


def _fill(
    context: Context, certificate: Path, key: Path, authorities: Path, judge: Judge | None
) -> None:
    context.judge = judge
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_ciphers(_STRENGTH)
    context.set_alpn_protocols([ALPN])
    for file in (certificate, key, authorities):
        if not file.is_file():
            raise TlsFilesError(f"{file}: no such file")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise TlsFilesError(f"{certificate} and {key}: not a certificate and its key") from error
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        raise TlsFilesError(f"{authorities}: not PEM certificates") from error


def verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the chain that OpenSSL built and verified, DER, leaf first, root last.

    It is public from Python 3.13 on. Before, the same function of OpenSSL is reached under the
    object that ``ssl`` wraps, where it has been since 3.10; those releases change no more.
    """
    if sys.version_info >= (3, 13):
        return tls.get_verified_chain()
    found = tls._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
    return [certificate.public_bytes(_DER) for certificate in found or ()]


_DER = 2
"""``ENCODING_DER`` of the ``_ssl`` module."""

# X509_V_ERR_... of OpenSSL's x509_vfy.h, whose numbers never change.
_REFUSED_BY_CODE = {
    2: Refused.UNKNOWN_AUTHORITY,
    7: Refused.UNKNOWN_AUTHORITY,  # the name of one of ours, another's signature
    9: Refused.NOT_YET_VALID,
    10: Refused.EXPIRED,
    18: Refused.UNKNOWN_AUTHORITY,
    19: Refused.UNKNOWN_AUTHORITY,
    20: Refused.UNKNOWN_AUTHORITY,
    21: Refused.UNKNOWN_AUTHORITY,
    24: Refused.CONSTRAINT,
    25: Refused.CONSTRAINT,
    26: Refused.WRONG_PURPOSE,
    27: Refused.UNKNOWN_AUTHORITY,
    32: Refused.CONSTRAINT,  # the issuer may not sign certificates
    41: Refused.CONSTRAINT,
    47: Refused.CONSTRAINT,
    48: Refused.CONSTRAINT,
    49: Refused.CONSTRAINT,
    50: Refused.CONSTRAINT,
    51: Refused.CONSTRAINT,
    52: Refused.CONSTRAINT,
    53: Refused.CONSTRAINT,
    66: Refused.WEAK,
    67: Refused.WEAK,
    68: Refused.WEAK,
    79: Refused.CONSTRAINT,
}

# How OpenSSL spells an alert about our certificate, and its own dislike of a certificate.
_CERTIFICATE_WORDS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "BAD_CERT", "KEY_TOO_SMALL")


def fault_of(error: ssl.SSLError) -> Fault:
    """Say what an error of TLS means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        refused = _REFUSED_BY_CODE.get(error.verify_code, Refused.OTHER)
        return Fault(Code.CERTIFICATE_REFUSED, refused, error.verify_message)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _plain(Code.CONNECTION_TRUNCATED, type(error).__name__)
    text = (error.reason or type(error).__name__).upper()
    if "PEER_DID_NOT_RETURN" in text:
        return Fault(Code.CERTIFICATE_REFUSED, Refused.NO_CERTIFICATE, text)
    if any(word in text for word in _CERTIFICATE_WORDS):
        refused = Refused.BY_PEER if "ALERT" in text else Refused.OTHER
        return Fault(Code.CERTIFICATE_REFUSED, refused, text)
    return _plain(Code.FRAME_MALFORMED, text)


def _plain(code: Code, text: str) -> Fault:
    return Fault(code, code.name.lower(), text)
