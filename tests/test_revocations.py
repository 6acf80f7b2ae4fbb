"""Revocation lists when they are read: verified, whole or not at all, and the file is named."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from ksz_router.cli.testpki import Authority, issue, make_authority, make_revocations
from ksz_router.codes import Code
from ksz_router.revocations import Accepted, chain_of, read_accepted
from ksz_router.tls import Refused, TlsFilesError
from tests.certificates import DAY, intermediate, now, root

OURS, STRANGER = make_authority("ours"), make_authority("a stranger")
GONE = issue(OURS, "gone", uris=["urn:kbo:0999016460"]).certificate


def read(folder: Path, lists: bytes, *authorities: Authority, before: bytes = b"") -> Accepted:
    """Read these lists under these authorities, ours if none is named."""
    trusted = folder / "authorities.pem"
    trusted.write_bytes(b"".join(each.pem for each in authorities or (OURS,)))
    file = folder / "revocations.pem"
    old = None
    if before:
        file.write_bytes(before)
        old = read_accepted(trusted, file, grace_s=0.0, now_unix_s=time.time())
    file.write_bytes(lists)
    return read_accepted(trusted, file, grace_s=0.0, now_unix_s=time.time(), before=old)


def with_extension(extension: x509.ExtensionType, *, critical: bool) -> bytes:
    signed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(OURS.certificate.subject)
        .last_update(now() - DAY)
        .next_update(now() + DAY)
        .add_extension(extension, critical=critical)
        .sign(OURS.key, hashes.SHA256())
    )
    return signed.public_bytes(Encoding.PEM)


def users_only() -> bytes:
    """A list of one kind of certificates, as its authority says of it."""
    return with_extension(
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False), critical=True
    )


def in_our_name() -> bytes:
    return make_revocations(Authority(OURS.certificate, STRANGER.key))


def cut() -> bytes:
    return make_revocations(OURS, [GONE])[:-60]


def touched() -> bytes:
    """One byte of the signature changed."""
    der = bytearray(
        x509.load_pem_x509_crl(make_revocations(OURS, [GONE])).public_bytes(Encoding.DER)
    )
    der[-1] ^= 1
    return x509.load_der_x509_crl(bytes(der)).public_bytes(Encoding.PEM)


def future() -> datetime:
    return now() + timedelta(hours=1)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "holds no PEM revocation list"),
    "no list": (lambda: OURS.pem, "holds no PEM revocation list"),
    "cut off": (cut, "not PEM revocation lists"),
    "one good, one cut off": (lambda: make_revocations(OURS) + cut(), "not PEM revocation"),
    "of a stranger": (lambda: make_revocations(STRANGER), "is not one of the authorities"),
    "ours and a stranger's": (
        lambda: make_revocations(OURS) + make_revocations(STRANGER),
        "list 2.*is not one of the authorities",
    ),
    "signed by another": (in_our_name, "is not signed by that authority"),
    "changed": (touched, "is not signed by that authority"),
    "of the future": (lambda: make_revocations(OURS, begin=future()), "is of the future"),
    "twice": (lambda: make_revocations(OURS) * 2, "a second list"),
    "a part": (users_only, "only a part.*IssuingDistributionPoint"),
    "a delta": (
        lambda: with_extension(x509.DeltaCRLIndicator(1), critical=True),
        "only a part.*DeltaCRLIndicator",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_is_refused_whole_with_its_file_and_why(tmp_path: Path, case: str) -> None:
    """Nothing of the file is taken, also not the good list beside the bad one."""
    make, why = BAD[case]
    with pytest.raises(TlsFilesError, match=rf"revocations\.pem: .*{why}|revocations\.pem: {why}"):
        read(tmp_path, make())


def test_every_authority_has_a_list_if_any_has(tmp_path: Path) -> None:
    """A missing list is found when it is loaded, not when the first peer comes."""
    with pytest.raises(TlsFilesError, match=r"no list of the authority .*a stranger"):
        read(tmp_path, make_revocations(OURS), OURS, STRANGER)
    lists = make_revocations(OURS) + make_revocations(STRANGER)
    assert len(read(tmp_path, lists, OURS, STRANGER).authorities) == 2


def test_an_authority_that_may_sign_no_lists_signs_none(tmp_path: Path) -> None:
    """Its key usage says so (RFC 5280, 4.2.1.3)."""
    top = root()
    mute = intermediate(top, crl_sign=False)
    with pytest.raises(TlsFilesError, match="may sign no lists"):
        read(tmp_path, make_revocations(top) + make_revocations(mute), top, mute)


def test_an_older_list_does_not_bring_back_what_a_newer_one_revoked(tmp_path: Path) -> None:
    """Who replays a list of yesterday is refused; the same list again is no harm."""
    older = make_revocations(OURS, begin=now() - 2 * DAY)
    newer = make_revocations(OURS, [GONE], begin=now() - DAY)
    with pytest.raises(TlsFilesError, match="older than the list in force"):
        read(tmp_path, older, before=newer)
    assert read(tmp_path, newer, before=newer) == read(tmp_path, newer, before=older)


@pytest.mark.parametrize("is_checked", [True, False])
def test_what_rests_on_no_accepted_root_is_refused(tmp_path: Path, *, is_checked: bool) -> None:
    """Also where no revocation is checked: an authority that goes takes its own along."""
    made = x509.load_pem_x509_certificate(GONE), OURS.certificate
    chain = chain_of([each.public_bytes(Encoding.DER) for each in made])
    faults = []
    for authority in (OURS, STRANGER):
        accepted = read(tmp_path, make_revocations(authority), authority)
        if not is_checked:
            accepted = msgspec.structs.replace(accepted, lists=None)
        fault = accepted.fault_at(chain, time.time())
        faults.append(fault and (fault.code, fault.result))
    assert faults == [None, (Code.CERTIFICATE_REFUSED, Refused.UNKNOWN_AUTHORITY)]


@pytest.mark.parametrize("verified", [[], [b"no certificate"]], ids=["none", "not one"])
def test_a_chain_that_cannot_be_read_is_no_chain(verified: list[bytes]) -> None:
    """Whatever our library says of it, one error comes out."""
    with pytest.raises(ValueError, match=r"chain|read"):
        chain_of(verified)


def test_the_first_list_to_be_out_of_date_is_what_operators_are_told(tmp_path: Path) -> None:
    """Of several lists the earliest next update counts; where none is checked it is 0."""
    soon, late = now() + timedelta(hours=2), now() + DAY
    lists = make_revocations(OURS, end=late) + make_revocations(STRANGER, end=soon)
    accepted = read(tmp_path, lists, OURS, STRANGER)
    assert accepted.next_update_unix_s == int(soon.timestamp())
    unchecked = read_accepted(tmp_path / "authorities.pem", None, grace_s=0.0, now_unix_s=0.0)
    assert unchecked.next_update_unix_s == 0.0


def test_a_long_list_is_read_in_a_fraction_of_a_second(tmp_path: Path) -> None:
    """20,000 certificates revoked: each is found, another is not."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(OURS.certificate.subject)
        .last_update(now() - DAY)
        .next_update(now() + DAY)
    )
    rows = [
        x509.RevokedCertificateBuilder(serial_number=n, revocation_date=now()).build()
        for n in range(1, 20_001)
    ]
    builder = x509.CertificateRevocationListBuilder(
        builder._issuer_name, builder._last_update, builder._next_update, [], rows
    )
    signed = builder.sign(OURS.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    begun = time.thread_time()
    (found,) = (read(tmp_path, signed).lists or {}).values()
    assert time.thread_time() - begun < 1.0
    assert found.serials == set(range(1, 20_001))
