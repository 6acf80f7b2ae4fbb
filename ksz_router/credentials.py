"""Our own certificate and whom we accept, as the files stood when they were last read."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from cryptography import x509

from ksz_router.codes import Code
from ksz_router.revocations import Accepted, chain_of, read_accepted
from ksz_router.tls import (
    Chain,
    Context,
    Fault,
    Refused,
    TlsFilesError,
    client_context,
    server_context,
)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Files, PEM: our own certificate and its key, whom we accept, and who was revoked."""

    certificate: Path
    key: Path
    authorities: Path
    revocations: Path | None = None
    revocations_grace_hours: float = 24.0
    """How long after its next update a revocation list still serves."""


class Standing(msgspec.Struct, frozen=True):
    """What was read at one time, and is in force together."""

    server: Context
    client: Context
    accepted: Accepted
    not_after_unix_s: float
    """When our own certificate ends."""


class Credentials:
    """The TLS contexts of the day; replaced whole when certificates are renewed.

    Args:
        identity: The files.
        now_unix_s: The clock by which revocation lists are judged.

    Raises:
        TlsFilesError: a file is missing or does not do.
    """

    def __init__(self, identity: Identity, now_unix_s: Callable[[], float]) -> None:
        self._identity = identity
        self._now_unix_s = now_unix_s
        self._standing: Standing | None = None
        self.renew()

    def read(self) -> Standing:
        """Read all files anew, and change nothing; may run in another thread.

        Raises:
            TlsFilesError: a file is missing or does not do; it is named.
        """
        files = self._identity
        server, client = (
            make(
                certificate=files.certificate,
                key=files.key,
                authorities=files.authorities,
                judge=self._judge,
            )
            for make in (server_context, client_context)
        )
        accepted = read_accepted(
            files.authorities,
            files.revocations,
            grace_s=files.revocations_grace_hours * 3600,
            now_unix_s=self._now_unix_s(),
            before=self._standing.accepted if self._standing is not None else None,
        )
        try:
            leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise TlsFilesError(f"{files.certificate}: cannot be read") from error
        return Standing(server, client, accepted, leaf.not_valid_after_utc.timestamp())

    def adopt(self, standing: Standing) -> None:
        """Let what was read be in force from now on, for handshakes under way too."""
        self._standing = standing

    def renew(self) -> None:
        """Read all files anew and let them be in force; on an error the old ones stay.

        Raises:
            TlsFilesError: as :meth:`read`.
        """
        self.adopt(self.read())

    @property
    def standing(self) -> Standing:
        """What is in force."""
        assert self._standing is not None
        return self._standing

    def server(self) -> Context:
        """For who connects to us."""
        return self.standing.server

    def client(self) -> Context:
        """For whom we dial."""
        return self.standing.client

    def fault(self, chain: Chain | None) -> Fault | None:
        """Say why an open connection may not go on; what is out of date does not end it."""
        return self.standing.accepted.fault(chain) if chain is not None else None

    def _judge(self, verified: list[bytes]) -> tuple[Chain | None, Fault | None]:
        try:
            chain = chain_of(verified)
        except ValueError:
            text = "its certificates cannot be read"
            return None, Fault(Code.CERTIFICATE_REFUSED, Refused.OTHER, text)
        return chain, self.standing.accepted.fault_at(chain, self._now_unix_s())
