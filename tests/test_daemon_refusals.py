"""Who shows a certificate that does not do: kept out, counted by reason, on either side."""

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa

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
from ksz_router.link import HandshakeError, Link
from ksz_router.tls import Refused
from ksz_router.wire import Connection, Ended, Side
from tests.certificates import (
    DAY,
    careless_context,
    certify,
    certify_with_sha_1,
    intermediate,
    now,
    root,
    self_signed,
    with_chain,
)
from tests.daemon_ground import Ground
from tests.daemon_parts import Parts, in_trio, parts
from tests.daemon_peers import SourceSide
from tests.link_pairs import received
from tests.worlds import CENTRE, RVA, ask, uri

OTHERS = make_authority("a stranger")


class Pki:
    """The authority that the routers of this file accept, and one whose path is constrained."""

    def __init__(self) -> None:
        self.authority = make_authority("accepted")
        self.constrained = root("constrained", path_length=0)
        self.named = root("named")
        self.older = root("older", rsa_bits=2048)
        self.revoked = {
            name: issue(self.authority, "revoked", uris=[name]) for name in (uri(CENTRE), uri(RVA))
        }

    @property
    def authorities(self) -> list[Authority]:
        return [self.authority, self.constrained, self.named, self.older]


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("refusals"))
    old = (made.pki / "authorities.pem").read_bytes()
    lists = (made.pki / "revocations.pem").read_bytes()
    gone = [each.certificate for each in pki.revoked.values()]
    lists += make_revocations(pki.authority, gone)
    lists += b"".join(make_revocations(each) for each in pki.authorities[1:])
    (made.pki / "revocations.pem").write_bytes(lists)
    trusted = b"".join(each.pem for each in pki.authorities)
    (made.pki / "authorities.pem").write_bytes(old + trusted)
    yield made
    made.close()


def dated(begin: timedelta, end: timedelta) -> Callable[[Pki, str], Issued]:
    return lambda pki, name: issue(
        pki.authority, "x", uris=[name], begin=now() + begin, end=now() + end
    )


def below_a_constrained_root(pki: Pki, name: str) -> Issued:
    between = intermediate(pki.constrained)
    return with_chain(issue(between, "x", uris=[name]), between)


def outside_the_names_permitted(pki: Pki, name: str) -> Issued:
    between = intermediate(pki.named, permitted=["ksz.example"])
    return with_chain(issue(between, "x", uris=[name], dns_names=["rva.example"]), between)


def below_an_authority_without_a_list(pki: Pki, name: str) -> Issued:
    between = intermediate(pki.named)
    return with_chain(issue(between, "x", uris=[name]), between)


def in_the_name_of_ours(pki: Pki, name: str) -> Issued:
    """The issuer is spelt as ours, the signature is another's."""
    return issue(Authority(pki.authority.certificate, OTHERS.key), "x", uris=[name])


WRONG: dict[str, tuple[Refused, Callable[[Pki, str], Issued]]] = {
    "expired": (Refused.EXPIRED, dated(-2 * DAY, -DAY)),
    "not yet valid": (Refused.NOT_YET_VALID, dated(DAY, 2 * DAY)),
    "another authority": (Refused.UNKNOWN_AUTHORITY, lambda _, n: issue(OTHERS, "x", uris=[n])),
    "our authority's name": (Refused.UNKNOWN_AUTHORITY, in_the_name_of_ours),
    "self-signed": (Refused.UNKNOWN_AUTHORITY, lambda _, name: self_signed(name)),
    "RSA 1024": (
        Refused.WEAK,
        lambda p, n: certify(p.authority, n, key=rsa.generate_private_key(65537, 1024)),
    ),
    "SHA-1": (Refused.WEAK, lambda p, n: certify_with_sha_1(p.older, n)),
    "path length": (Refused.CONSTRAINT, below_a_constrained_root),
    "name constraint": (Refused.CONSTRAINT, outside_the_names_permitted),
    "no list of its issuer": (Refused.REVOCATION_UNKNOWN, below_an_authority_without_a_list),
    "revoked": (Refused.REVOKED, lambda p, n: p.revoked[n]),
}
AS_CALLER = {
    **WRONG,
    "for servers only": (
        Refused.WRONG_PURPOSE,
        lambda p, n: issue(p.authority, "x", uris=[n], usages=[SERVER]),
    ),
    "none": (Refused.NO_CERTIFICATE, None),
    "no URI": (Refused.NAMES, lambda p, n: issue(p.authority, n, dns_names=["rva.example"])),
    "two URIs": (Refused.NAMES, lambda p, n: issue(p.authority, "x", uris=[n, uri(RVA)])),
}
AS_SOURCE = {
    **WRONG,
    "for clients only": (
        Refused.WRONG_PURPOSE,
        lambda p, n: issue(p.authority, "x", uris=[n], usages=[CLIENT]),
    ),
    "another's URI": (Refused.NAMES, lambda p, _: issue(p.authority, "x", uris=[uri(CENTRE)])),
    "two URIs": (Refused.NAMES, lambda p, n: issue(p.authority, "x", uris=[n, uri(CENTRE)])),
}
TOLD = {
    Refused.REVOKED: Code.CERTIFICATE_REVOKED,
    Refused.REVOCATIONS_OUT_OF_DATE: Code.REVOCATIONS_OUT_OF_DATE,
}


async def call(made: Parts, context: ssl.SSLContext) -> Ended:
    """Dial the worker and say Hello; return how it ended for the caller."""
    sock = socket.create_connection(made.listener.getsockname())
    link = Link(sock, context, Connection(Side.REQUESTER, agent="caller"))
    try:
        with trio.fail_after(5):
            await link.handshake()
        link.flush()
        (ended,) = await received(link, 1)
    finally:
        link.close()
    assert isinstance(ended, Ended)
    return ended


@pytest.mark.parametrize("case", AS_CALLER)
@in_trio
async def test_a_caller_whose_certificate_does_not_do_is_refused_and_counted_by_reason(
    ground: Ground, pki: Pki, case: str
) -> None:
    """It is told by a TLS alert or by a Bye, never becomes a session, and a good one still may."""
    why, make = AS_CALLER[case]
    shown = make(pki, uri(CENTRE)) if make is not None else None
    trusted = (ground.pki / "authorities.pem").read_bytes()
    context = careless_context(ground.folder, shown, trusted=trusted, serves=False)
    async with parts(ground) as made:
        ended = await call(made, context)
        assert ended == Ended(TOLD.get(why, Code.CERTIFICATE_REFUSED), by_peer=True)
        assert made.metrics.handshakes == {why: 1}
        assert made.loop.sessions == []
        await made.connect(CENTRE)
        assert made.metrics.handshakes == {why: 1, "done": 1}


@pytest.mark.parametrize("case", AS_SOURCE)
@in_trio
async def test_a_source_whose_certificate_does_not_do_is_refused_and_counted_by_reason(
    ground: Ground, pki: Pki, case: str
) -> None:
    """It is delivered nothing, and the requester is told that the source cannot be reached."""
    why, make = AS_SOURCE[case]
    trusted = (ground.pki / "authorities.pem").read_bytes()
    shown = make(pki, uri(RVA))
    context = careless_context(ground.folder, shown, trusted=trusted, serves=True)
    async with parts(ground) as made:
        caller = await made.connect()
        source = SourceSide(uri(RVA), context, inflight_max=64)
        made.endpoints[RVA] = (source.endpoint,)
        made.sources.append(source)
        made.nursery.start_soon(source.serve)
        caller.ask(ask(id=1))
        await made.until(lambda: caller.answers)
        assert caller.answers[0].code == Code.SOURCE_UNREACHABLE
        assert [error.result for error in made.sources_refused] == [why]
        assert source.deliveries == []


@in_trio
async def test_another_tls_or_protocol_is_refused_and_counted(ground: Ground) -> None:
    """With a good certificate too, TLS 1.2 and another application protocol lead nowhere."""
    pair = ground.pki / f"{CENTRE}.crt", ground.pki / f"{CENTRE}.key"
    shown = Issued(pair[0].read_bytes(), pair[1].read_bytes())
    trusted = (ground.pki / "authorities.pem").read_bytes()
    older = careless_context(ground.folder, shown, trusted=trusted, serves=False)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    web = careless_context(ground.folder, shown, trusted=trusted, serves=False)
    web.set_alpn_protocols(["h2"])
    async with parts(ground) as made:
        for context, why in ((older, "frame_malformed"), (web, "version_not_spoken")):
            link = Link(
                socket.create_connection(made.listener.getsockname()),
                context,
                Connection(Side.REQUESTER, agent="caller"),
            )
            with pytest.raises(HandshakeError):
                await link.handshake()
            link.close()
            await made.until(lambda why=why: made.metrics.handshakes[why])
        assert made.loop.sessions == []
