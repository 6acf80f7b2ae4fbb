"""Whom we accept, and which certificates were taken back: authorities and their lists.

The lists (CRL, RFC 5280 section 5) are verified when they are read, whole or not at all. A set of
them is one value, asked at the end of each handshake and, when another set comes into force, of
each open connection: one road for both. OpenSSL's own check is not used, since it refuses a list
from the very second of its next update on, and cannot be asked again about an open connection.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ksz_router.codes import Code
from ksz_router.tls import Chain, Fault, Refused, TlsFilesError

_BEGIN = b"-----BEGIN X509 CRL-----"
_WEAK = frozenset({"md5", "sha1", "sha224"})

# What cryptography raises on a certificate or a list that does not follow its own syntax.
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)


class RevocationList(msgspec.Struct, frozen=True):
    """One authority's list. Times are Unix seconds."""

    begin_unix_s: float
    next_update_unix_s: float
    serials: frozenset[int]


class Accepted(msgspec.Struct, frozen=True):
    """Authorities by digest, and the list of each; ``lists`` is None where none is checked."""

    authorities: frozenset[bytes]
    lists: dict[bytes, RevocationList] | None
    grace_s: float

    def fault(self, chain: Chain) -> Fault | None:
        """Say what is wrong with a chain under these authorities and lists, whatever the time.

        A certificate of an authority whose list is not here is not accepted: intermediates stand
        among the authorities, so that their lists can be verified.
        """
        if chain.anchor not in self.authorities:
            return Fault(
                Code.CERTIFICATE_REFUSED, Refused.UNKNOWN_AUTHORITY, "its root is not accepted"
            )
        if self.lists is None:
            return None
        for issuer, serial in chain.issued:
            found = self.lists.get(issuer)
            if found is None:
                text = "there is no revocation list of its issuer"
                return Fault(Code.CERTIFICATE_REFUSED, Refused.REVOCATION_UNKNOWN, text)
            if serial in found.serials:
                return Fault(Code.CERTIFICATE_REVOKED, Refused.REVOKED, "it was revoked")
        return None

    def fault_at(self, chain: Chain, now_unix_s: float) -> Fault | None:
        """As :meth:`fault`, and whether the lists that were asked are still good enough for it."""
        fault = self.fault(chain)
        if fault is not None or self.lists is None:
            return fault
        for issuer, _ in chain.issued:
            if now_unix_s > self.lists[issuer].next_update_unix_s + self.grace_s:
                text = "the revocation list of its issuer is out of date"
                return Fault(Code.REVOCATIONS_OUT_OF_DATE, Refused.REVOCATIONS_OUT_OF_DATE, text)
        return None

    @property
    def next_update_unix_s(self) -> float:
        """The first moment at which one of the lists is out of date; 0 where there is none."""
        return min((each.next_update_unix_s for each in (self.lists or {}).values()), default=0.0)


def chain_of(verified: Sequence[bytes]) -> Chain:
    """Return what is kept of a verified chain, DER, leaf first, root last.

    Raises:
        ValueError: a certificate in it cannot be read.
    """
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in verified]
        issuers = [_digest(each) for each in certificates[1:] or certificates]
        serials = [each.serial_number for each in certificates]
    except _UNREADABLE as error:  # OpenSSL knows kinds of keys that our library does not
        raise ValueError("a certificate cannot be read") from error
    if not certificates:
        raise ValueError("no chain")
    issuers.append(issuers[-1])  # the root's issuer is itself
    return Chain(tuple(zip(issuers, serials, strict=False)), issuers[-1])


def read_accepted(
    authorities: Path,
    revocations: Path | None,
    *,
    grace_s: float,
    now_unix_s: float,
    before: Accepted | None = None,
) -> Accepted:
    """Read authorities and lists, and verify the lists; nothing is taken where one does not do.

    Args:
        authorities: PEM certificates, intermediates too where revocation is checked.
        revocations: PEM, exactly one list of each authority; None: no revocation is checked.
        grace_s: How long after its next update a list still serves.
        now_unix_s: A list may not be of the future.
        before: What is in force; no list may be older than the one there.

    Raises:
        TlsFilesError: a file cannot be read, a list is not signed by one of the authorities, is of
            the future, older than the one in force, covers only a part, or is missing.
    """
    try:
        found = x509.load_pem_x509_certificates(authorities.read_bytes())
        trusted = {_digest(each): each for each in found}
    except OSError as error:
        raise TlsFilesError(f"{authorities}: {error.strerror}") from error
    except _UNREADABLE as error:
        raise TlsFilesError(f"{authorities}: not PEM certificates") from error
    if revocations is None:
        return Accepted(frozenset(trusted), None, grace_s)
    lists: dict[bytes, RevocationList] = {}
    for number, signed in enumerate(_lists_in(revocations), 1):
        where = f"{revocations}: list {number}, of {signed.issuer.rfc4514_string()}"
        authority = _signer(signed, trusted, where)
        if authority in lists:
            raise TlsFilesError(f"{where}: a second list of this authority")
        lists[authority] = _read_list(signed, where, now_unix_s)
        old = (before.lists or {}).get(authority) if before is not None else None
        if old is not None and lists[authority].begin_unix_s < old.begin_unix_s:
            raise TlsFilesError(f"{where}: older than the list in force")
    for digest, certificate in trusted.items():
        if digest not in lists:
            name = certificate.subject.rfc4514_string()
            raise TlsFilesError(f"{revocations}: no list of the authority {name}")
    return Accepted(frozenset(trusted), lists, grace_s)


def _digest(certificate: x509.Certificate) -> bytes:
    """Name and key of an authority: the same for each certificate that was made of them."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(certificate.subject.public_bytes() + key).digest()


def _lists_in(file: Path) -> list[x509.CertificateRevocationList]:
    try:
        parts = file.read_bytes().split(_BEGIN)[1:]
        lists = [x509.load_pem_x509_crl(_BEGIN + part) for part in parts]
        for signed in lists:
            signed.issuer.rfc4514_string()  # a name that is no text is found here
    except OSError as error:
        raise TlsFilesError(f"{file}: {error.strerror}") from error
    except _UNREADABLE as error:
        raise TlsFilesError(f"{file}: not PEM revocation lists") from error
    if not lists:
        raise TlsFilesError(f"{file}: holds no PEM revocation list")
    return lists


def _signer(
    signed: x509.CertificateRevocationList, trusted: dict[bytes, x509.Certificate], where: str
) -> bytes:
    """The authority that signed a list."""
    named = {digest: each for digest, each in trusted.items() if each.subject == signed.issuer}
    if not named:
        raise TlsFilesError(f"{where}: is not one of the authorities")
    for digest, authority in named.items():
        if _may_sign(authority) and _is_signed_by(signed, authority):
            return digest
    raise TlsFilesError(f"{where}: is not signed by that authority, or it may sign no lists")


def _may_sign(authority: x509.Certificate) -> bool:
    """Whether it may sign lists: without a key usage it may do anything (RFC 5280, 4.2.1.3)."""
    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True
    except _UNREADABLE:
        return False


def _is_signed_by(signed: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return signed.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except _UNREADABLE:  # a kind of key that signs nothing
        return False


def _read_list(
    signed: x509.CertificateRevocationList, where: str, now_unix_s: float
) -> RevocationList:
    try:
        weak = signed.signature_hash_algorithm
        extensions = list(signed.extensions)
        serials = frozenset(entry.serial_number for entry in signed)
    except _UNREADABLE as error:
        raise TlsFilesError(f"{where}: cannot be read") from error
    if weak is not None and weak.name in _WEAK:
        raise TlsFilesError(f"{where}: is signed with {weak.name}")
    for extension in extensions:
        if extension.critical or isinstance(
            extension.value, x509.IssuingDistributionPoint | x509.DeltaCRLIndicator
        ):
            name = type(extension.value).__name__
            raise TlsFilesError(f"{where}: may cover only a part of its certificates ({name})")
    begin = signed.last_update_utc.timestamp()
    if begin > now_unix_s:
        raise TlsFilesError(f"{where}: is of the future")
    if signed.next_update_utc is None:
        raise TlsFilesError(f"{where}: does not say when the next one comes")
    return RevocationList(begin, signed.next_update_utc.timestamp(), serials)
