"""A small authority and its certificates, for tests, benches and demonstrations only.

Every subject says so. A router takes institutions by the exact SAN URI under a configured
authority, so a real authority is configured, never one made here.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ROUTER_URI = "urn:ksz-router:test:router"
_MARK = "ksz_router TEST ONLY"
_LIFE = timedelta(days=365)


class Issued(msgspec.Struct, frozen=True):
    """A certificate and its private key, each as PEM. Does not print the key."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued(***)"


class Authority(msgspec.Struct, frozen=True):
    """What signs. Make it with :func:`make_authority`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, for the trusting side."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        return "Authority(***)"


def make_authority(
    name: str = "authority", *, begin: datetime | None = None, end: datetime | None = None
) -> Authority:
    """Make a self-signed authority on curve P-256, valid from a day ago for a year."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(subject, subject, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority,
    name: str,
    *,
    uris: Sequence[str] = (),
    dns_names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    usages: Sequence[ObjectIdentifier] = (CLIENT, SERVER),
    begin: datetime | None = None,
    end: datetime | None = None,
) -> Issued:
    """Issue a certificate on curve P-256 with these SAN entries and extended key usages."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [
        *map(x509.UniformResourceIdentifier, uris),
        *map(x509.DNSName, dns_names),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
    ]
    issuer = authority.certificate.subject
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_subject(name), issuer, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
    )
    if alternatives:
        san = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(san, critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def make_revocations(
    authority: Authority,
    revoked: Sequence[bytes] = (),
    *,
    begin: datetime | None = None,
    end: datetime | None = None,
) -> bytes:
    """Return a CRL as PEM that revokes these certificates (PEM); without any, an empty one."""
    begin = begin or datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(begin)
        .next_update(end or begin + _LIFE)
    )
    for pem in revoked:
        row = x509.RevokedCertificateBuilder(
            serial_number=x509.load_pem_x509_certificate(pem).serial_number, revocation_date=begin
        )
        builder = builder.add_revoked_certificate(row.build())
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def write_pki(
    folder: Path, institutions: dict[str, str], authority: Authority | None = None
) -> list[Path]:
    """Write a whole PKI and return its files: authority, router, a pair per name, an empty CRL.

    Args:
        folder: Made where it is missing; nothing in it may be there yet.
        institutions: File name to SAN URI.
        authority: Signs; one that is forgotten afterwards where none is given.

    Raises:
        FileExistsError: one of the files exists.
        OSError: it cannot be written.
    """
    authority = authority or make_authority()
    router = issue(
        authority,
        "router",
        uris=[ROUTER_URI],
        dns_names=["localhost"],
        addresses=["127.0.0.1"],
    )
    issued = {"router": router} | {
        name: issue(authority, name, uris=[uri]) for name, uri in institutions.items()
    }
    files = {"authorities.pem": authority.pem, "revocations.pem": make_revocations(authority)}
    for name, pair in issued.items():
        files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        file = folder / name
        file.touch(mode=0o600 if file.suffix == ".key" else 0o644, exist_ok=False)
        file.write_bytes(data)
    return [folder / name for name in files]


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _MARK),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name} (test only)"),
        ]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime | None,
    end: datetime | None,
) -> x509.CertificateBuilder:
    begin = begin or datetime.now(UTC) - timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end or begin + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
