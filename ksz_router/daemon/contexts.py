"""The TLS contexts of one worker, as its certificate files stood when they were last read."""

import ssl
from pathlib import Path

from cryptography import x509

from ksz_router import config, tls


class Contexts:
    """The TLS contexts of the day; replaced whole when certificates are renewed."""

    def __init__(self, settings: config.Tls) -> None:
        self._settings = settings
        self.renew()

    def renew(self) -> None:
        """Read all files anew; on an error the old contexts stay.

        Raises:
            TlsFilesError: a file is missing or does not fit.
        """
        files = self._settings
        revocations = Path(files.revocations) if files.revocations else None
        made = [
            make(
                certificate=Path(files.certificate),
                key=Path(files.key),
                authorities=Path(files.authorities),
                revocations=revocations,
            )
            for make in (tls.server_context, tls.client_context)
        ]
        try:
            not_after_unix_s = _not_after(Path(files.certificate))
            next_update_unix_s = _next_update(revocations) if revocations else 0.0
        except ValueError as error:
            raise tls.TlsFilesError(
                f"{files.certificate}, {revocations}: cannot be read"
            ) from error
        self._server, self._client = made
        self.not_after_unix_s = not_after_unix_s
        self.crl_next_update_unix_s = next_update_unix_s

    def server(self) -> ssl.SSLContext:
        """For who connects to us."""
        return self._server

    def client(self) -> ssl.SSLContext:
        """For whom we dial."""
        return self._client


def _not_after(certificate: Path) -> float:
    leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
    return leaf.not_valid_after_utc.timestamp()


def _next_update(revocations: Path) -> float:
    """The first moment at which one of the lists in the file is out of date."""
    begin = b"-----BEGIN X509 CRL-----"
    lists = [
        x509.load_pem_x509_crl(begin + part) for part in revocations.read_bytes().split(begin)[1:]
    ]
    ends = [each.next_update_utc.timestamp() for each in lists if each.next_update_utc]
    return min(ends, default=0.0)
