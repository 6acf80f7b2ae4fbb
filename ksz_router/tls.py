"""TLS contexts of all who talk: TLS 1.3 only, mutual, no tickets, one application protocol.

A context is never changed after it was made: new certificates or revocations mean a new one, so
that nothing decided under the old can be resumed under the new.
"""

import ssl
from pathlib import Path

ALPN = "ksz-router/1"


class TlsFilesError(Exception):
    """A certificate, key or revocation file cannot be used. The message names it."""


def server_context(
    *, certificate: Path, key: Path, authorities: Path, revocations: Path | None = None
) -> ssl.SSLContext:
    """Make the context of a side that accepts; a client certificate is demanded.

    Args:
        certificate: PEM, leaf first, then its intermediates.
        key: PEM, without a passphrase; protect the file.
        authorities: PEM, the CAs under which peers are accepted; several for a rollover.
        revocations: PEM, one CRL for every CA of every chain, the root included.

    Raises:
        TlsFilesError: a file is missing or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # a resumed session would outlive a revocation
    context.options |= ssl.OP_NO_TICKET
    _fill(context, certificate, key, authorities, revocations)
    return context


def client_context(
    *, certificate: Path, key: Path, authorities: Path, revocations: Path | None = None
) -> ssl.SSLContext:
    """Make the context of a side that dials. Arguments and errors as for the other.

    Host names are not compared: the caller compares the exact URI of the peer's certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _fill(context, certificate, key, authorities, revocations)
    return context


def _fill(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path,
    authorities: Path,
    revocations: Path | None,
) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols([ALPN])
    for file in (certificate, key, authorities, revocations):
        if file is not None and not file.is_file():
            raise TlsFilesError(f"{file}: no such file")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise TlsFilesError(f"{certificate} and {key}: not a certificate and its key") from error
    try:
        context.load_verify_locations(authorities)
        if revocations is not None:
            context.load_verify_locations(revocations)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    except (ssl.SSLError, OSError) as error:
        raise TlsFilesError(f"{authorities}, {revocations}: not PEM certificates") from error
