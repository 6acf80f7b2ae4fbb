"""Who may connect: TLS 1.3 only, both certificates judged, nothing remembered, one exact URI."""

import functools
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from ksz_router.cli.testpki import (
    CLIENT,
    SERVER,
    Authority,
    Issued,
    issue,
    make_authority,
    make_revocations,
)
from ksz_router.codes import Code
from ksz_router.credentials import Credentials
from ksz_router.dial import dial
from ksz_router.link import HandshakeError
from ksz_router.tls import ALPN, TlsFilesError
from ksz_router.wire import Connection, Ended, Side
from tests.daemon_parts import in_trio
from tests.link_pairs import (
    CALLER_URI,
    FRONT_URI,
    Ends,
    Pki,
    chain_of,
    ends,
    open_ends,
    received,
    tcp_pair,
)

DAY = timedelta(days=1)
REFUSED = Ended(Code.CERTIFICATE_REFUSED, by_peer=True)

Wrong = Callable[[Authority, str], Issued]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def now() -> datetime:
    return datetime.now(UTC)


def expired(authority: Authority, uri: str) -> Issued:
    return issue(authority, "x", uris=[uri], begin=now() - 2 * DAY, end=now() - DAY)


def not_yet_valid(authority: Authority, uri: str) -> Issued:
    return issue(authority, "x", uris=[uri], begin=now() + DAY, end=now() + 2 * DAY)


def of_another_authority(_: Authority, uri: str) -> Issued:
    return issue(make_authority("stranger"), "x", uris=[uri])


def for_another_use(usage: Any, authority: Authority, uri: str) -> Issued:
    return issue(authority, "x", uris=[uri], usages=[usage])


WRONG: dict[str, Wrong] = {
    "expired": expired,
    "not yet valid": not_yet_valid,
    "of another authority": of_another_authority,
}


@pytest.mark.parametrize(
    "wrong", [*WRONG.values(), functools.partial(for_another_use, SERVER)], ids=[*WRONG, "usage"]
)
@in_trio
async def test_a_caller_whose_certificate_does_not_do_is_refused(pki: Pki, wrong: Wrong) -> None:
    """The front says no in its handshake; the caller, which finished its own, reads why."""
    issued = wrong(pki.authority, CALLER_URI)
    async with ends(pki.front_context(), pki.caller_context(issued)) as made:
        assert await made.shake_hands() == (Code.CERTIFICATE_REFUSED, None)
        assert await received(made.caller, 1) == [REFUSED]


@pytest.mark.parametrize(
    "wrong", [*WRONG.values(), functools.partial(for_another_use, CLIENT)], ids=[*WRONG, "usage"]
)
@in_trio
async def test_a_front_whose_certificate_does_not_do_is_refused(pki: Pki, wrong: Wrong) -> None:
    """Who dials judges as strictly, and both sides learn it in their handshake."""
    issued = wrong(pki.authority, FRONT_URI)
    async with ends(pki.front_context(issued), pki.caller_context()) as made:
        codes = await made.shake_hands()

    assert codes == (Code.CERTIFICATE_REFUSED, Code.CERTIFICATE_REFUSED)


@in_trio
async def test_without_a_certificate_nobody_gets_in(pki: Pki) -> None:
    """TLS alone is not enough: a client certificate is demanded."""
    context = pki.bare_context()
    context.set_alpn_protocols([ALPN])
    async with ends(pki.front_context(), context) as made:
        assert await made.shake_hands() == (Code.CERTIFICATE_REFUSED, None)


@in_trio
async def test_an_older_tls_is_not_spoken(pki: Pki) -> None:
    """A peer that speaks TLS 1.2 at most gets no connection, with a good certificate too."""
    context = pki.bare_context(pki.caller)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    async with ends(pki.front_context(), context) as made:
        assert await made.shake_hands() == (Code.FRAME_MALFORMED, Code.FRAME_MALFORMED)


@pytest.mark.parametrize("protocols", [[], ["h2"], ["ksz-router/2"]])
@in_trio
async def test_another_application_protocol_is_refused(pki: Pki, protocols: list[str]) -> None:
    """Only who asks for our protocol by name may speak it."""
    context = pki.bare_context(pki.caller)
    context.set_alpn_protocols(protocols)
    async with ends(pki.front_context(), context) as made:
        front, _ = await made.shake_hands()

    assert front is Code.VERSION_NOT_SPOKEN


@in_trio
async def test_no_session_is_ever_resumed(pki: Pki) -> None:
    """No ticket is given, and one end's old session offered again means a full handshake."""
    front, caller = pki.front_context(), pki.caller_context()
    async with ends(front, caller) as first:
        assert await first.shake_hands() == (None, None)
        await first.greet()
        session = first.caller._tls.session
        assert session is not None
        assert not session.has_ticket
    accepted, dialled = tcp_pair()
    second = Ends(accepted, dialled, front, caller)
    second.caller._tls.session = session

    assert await second.shake_hands() == (None, None)

    assert not second.caller._tls.session_reused
    assert not second.front._tls.session_reused
    second.close()


@pytest.mark.parametrize(
    ("uris", "seen"),
    [
        (["urn:kbo:0999016460"], "urn:kbo:0999016460"),
        (["urn:kbo:0999016460#"], "urn:kbo:0999016460#"),
        ([], ""),
        (["urn:kbo:0999016460", "urn:kbo:0999010126"], ""),
    ],
)
@in_trio
async def test_the_peer_is_its_one_uri_to_the_letter(pki: Pki, uris: list[str], seen: str) -> None:
    """No URI and several are nobody; a DNS name or the common name never counts."""
    issued = issue(pki.authority, "urn:kbo:0999016460", uris=uris, dns_names=["rva.example"])
    async with ends(pki.front_context(), pki.caller_context(issued)) as made:
        assert await made.shake_hands() == (None, None)

        assert made.front.peer_uri() == seen
        assert made.caller.peer_uri() == FRONT_URI
        assert made.front.peer_certificate() == ssl.PEM_cert_to_DER_cert(
            issued.certificate.decode()
        )
        assert made.front.describe()["tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("asked", "is_taken"),
    [(FRONT_URI, True), (FRONT_URI.upper(), False), (FRONT_URI[:-1], False), ("", False)],
)
@in_trio
async def test_who_dials_takes_nobody_but_whom_it_asked_for(
    pki: Pki, asked: str, *, is_taken: bool
) -> None:
    """A good certificate of another is not enough: the URI is the one asked for, exactly."""
    accepted, dialled = tcp_pair()
    dialled.close()
    accepted.close()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        sock = listeners[0].socket

        async def serve() -> None:
            other, _ = await sock.accept()
            await trio.SSLStream(
                trio.SocketStream(other), pki.front_context(), server_side=True
            ).do_handshake()
            other.close()

        nursery.start_soon(serve)
        connection = Connection(Side.REQUESTER, agent="caller")
        port = sock.getsockname()[1]
        try:
            link = await dial("127.0.0.1", port, pki.caller_context(), connection, asked)
            link.close()
            taken = True
        except HandshakeError as error:
            assert error.code is Code.CERTIFICATE_REFUSED
            taken = False
        await listeners[0].aclose()

    assert taken is is_taken


@in_trio
async def test_two_authorities_are_accepted_during_a_rollover(pki: Pki) -> None:
    """Peers under the old and under the new authority get in beside each other."""
    newer = make_authority("newer")
    front = pki.front_context(authorities=chain_of(pki.authority, newer))
    for issued in (pki.caller, issue(newer, "caller", uris=[CALLER_URI])):
        async with ends(front, pki.caller_context(issued)) as made:
            assert await made.shake_hands() == (None, None)


@in_trio
async def test_who_listens_on_a_closed_port_is_nobody(pki: Pki) -> None:
    """A refused connection is an error of the system, with its name."""
    accepted, dialled = tcp_pair()
    port = accepted.getsockname()[1]
    accepted.close()
    dialled.close()
    with pytest.raises(ConnectionRefusedError):
        await dial(
            "127.0.0.1", port, pki.caller_context(), Connection(Side.REQUESTER, agent="c"), "x"
        )


@pytest.mark.parametrize("missing", ["certificate", "key", "authorities", "revocations"])
def test_a_file_that_is_missing_is_named(pki: Pki, missing: str) -> None:
    """The message says which file to mend, and none of them is half used."""
    files = pki.identity(pki.caller, revocations=make_revocations(pki.authority))
    absent = msgspec.structs.replace(files, **{missing: pki.folder / "not-there.pem"})
    with pytest.raises(TlsFilesError, match=r"not-there\.pem"):
        Credentials(absent, time.time)


@in_trio
async def test_what_was_sent_before_a_refusal_is_not_taken(pki: Pki) -> None:
    """A caller that finished its handshake and sent on is refused with nothing read of it."""
    issued = expired(pki.authority, CALLER_URI)
    async with ends(pki.front_context(), pki.caller_context(issued)) as made:
        assert (await made.shake_hands())[0] is Code.CERTIFICATE_REFUSED
        made.caller.flush()

        assert made.front.connection.peer_agent == ""
    async with open_ends(pki) as made:
        assert made.front.connection.peer_agent == "caller"


def issue_with_raw_names(authority: Authority, names: bytes) -> Issued:
    """Issue a certificate whose SAN extension has these bytes, whatever they say."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd (test only)")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - DAY)
        .not_valid_after(datetime.now(UTC) + DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([CLIENT, SERVER]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Issued(
        certificate.public_bytes(encoding),
        key.private_bytes(encoding, form, serialization.NoEncryption()),
    )


@pytest.mark.parametrize("kind", [0x81, 0x82, 0x86], ids=["e-mail", "DNS", "URI"])
@in_trio
async def test_names_that_are_no_text_are_nobody(pki: Pki, kind: int) -> None:
    """A CA may sign bytes that no text has; who shows them is refused, and nothing breaks."""
    issued = issue_with_raw_names(pki.authority, bytes([0x30, 5, kind, 3]) + b"u:\xff")
    async with ends(pki.front_context(), pki.caller_context(issued)) as made:
        assert await made.shake_hands() == (None, None)
        assert made.front.peer_uri() == ""
