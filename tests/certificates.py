"""Certificates that a test PKI does not make: intermediates, weak ones, and who shows them."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ksz_router.cli.testpki import CLIENT, SERVER, Authority, Issued
from ksz_router.tls import ALPN

DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{text} (test only)")])


def intermediate(
    parent: Authority,
    name: str = "intermediate",
    *,
    path_length: int | None = 0,
    permitted: Sequence[str] = (),
    crl_sign: bool = True,
) -> Authority:
    """An authority under another; ``permitted`` are the DNS names it may certify."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=crl_sign, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    builder = (
        _builder(parent, name, key.public_key())
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
    )
    if permitted:
        names = x509.NameConstraints([x509.DNSName(each) for each in permitted], None)
        builder = builder.add_extension(names, critical=True)
    return Authority(builder.sign(parent.key, hashes.SHA256()), key)


def root(name: str = "root", *, path_length: int | None = 1, rsa_bits: int = 0) -> Authority:
    """A self-signed authority with authorities below it."""
    key: Any = (
        rsa.generate_private_key(65537, rsa_bits)
        if rsa_bits
        else ec.generate_private_key(ec.SECP256R1())
    )
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(name_of(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def certify(
    authority: Authority,
    uri: str,
    *,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> Issued:
    """A certificate like those of a test PKI, but for the key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(authority, "x", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([CLIENT, SERVER]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return issued(certificate.public_bytes(serialization.Encoding.PEM), key)


def certify_with_sha_1(authority: Authority, uri: str) -> Issued:
    """A certificate of an RSA authority, signed anew with SHA-1, which our library does no more."""
    key = ec.generate_private_key(ec.SECP256R1())
    good = certify(authority, uri, key=key)
    parsed = x509.load_pem_x509_certificate(good.certificate)
    with_sha_256, with_sha_1 = (
        bytes.fromhex("2a864886f70d0101") + last for last in (b"\x0b", b"\5")
    )
    body = parsed.tbs_certificate_bytes.replace(with_sha_256, with_sha_1)
    signer: Any = authority.key
    der = parsed.public_bytes(serialization.Encoding.DER)
    der = der.replace(with_sha_256, with_sha_1)
    signature = signer.sign(body, padding.PKCS1v15(), hashes.SHA1())
    assert len(signature) == len(parsed.signature)
    made = der[: -len(signature)] + signature
    return issued(ssl.DER_cert_to_PEM_cert(made).encode(), key)


def self_signed(uri: str) -> Issued:
    """A certificate that is its own authority."""
    made = root("self-signed", path_length=None)
    return certify(Authority(made.certificate, made.key), uri, key=made.key)


def issued(certificate: bytes, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Issued:
    return Issued(
        certificate,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def with_chain(made: Issued, *authorities: Authority) -> Issued:
    """The same pair, with the authorities between it and the root behind it."""
    return Issued(made.certificate + b"".join(each.pem for each in authorities), made.key)


def careless_context(
    folder: Path, shown: Issued | None, *, trusted: bytes, serves: bool
) -> ssl.SSLContext:
    """A side that is not ours: it shows whatever it is given, and speaks our protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serves else ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trusted.decode())
    context.set_alpn_protocols([ALPN])
    if shown is not None:
        file = folder / "careless.pem"
        file.write_bytes(shown.certificate + shown.key)
        context.load_cert_chain(file)
    return context


def _builder(
    authority: Authority, name: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(identifier, critical=False)
    )
