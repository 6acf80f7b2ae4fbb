"""Revocation at the handshake, of either side: refused with a reason that the peer is told."""

import time
from datetime import timedelta

import msgspec
import pytest

from ksz_router.cli.testpki import issue, make_authority, make_revocations
from ksz_router.codes import Code
from ksz_router.credentials import Credentials
from ksz_router.tls import Context
from ksz_router.wire import Ended
from tests.certificates import DAY, intermediate, now, root, with_chain
from tests.daemon_parts import in_trio
from tests.link_pairs import CALLER_URI, FRONT_URI, Ends, Pki, ends, received, tcp_pair

REVOKED = Ended(Code.CERTIFICATE_REVOKED, by_peer=True)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@in_trio
async def test_a_revoked_caller_is_refused_and_another_is_not(pki: Pki) -> None:
    """The list names one certificate: that one is kept out, is told why, and no other is."""
    revoked = issue(pki.authority, "revoked", uris=[CALLER_URI])
    revocations = make_revocations(pki.authority, [revoked.certificate])
    front = pki.front_context(revocations=revocations)
    async with ends(front, pki.caller_context(revoked)) as made:
        assert await made.shake_hands() == (Code.CERTIFICATE_REVOKED, None)
        assert await received(made.caller, 1) == [REVOKED]
    async with ends(front, pki.caller_context()) as made:
        assert await made.shake_hands() == (None, None)


@in_trio
async def test_a_revoked_front_is_refused_and_another_is_not(pki: Pki) -> None:
    """The same for who is dialled: a source whose key was stolen is not talked to."""
    revoked = issue(pki.authority, "revoked", uris=[FRONT_URI])
    caller = pki.caller_context(revocations=make_revocations(pki.authority, [revoked.certificate]))
    async with ends(pki.front_context(revoked), caller) as made:
        assert await made.shake_hands() == (None, Code.CERTIFICATE_REVOKED)
        assert (await received(made.front, 2))[1] == REVOKED
    async with ends(pki.front_context(), caller) as made:
        assert await made.shake_hands() == (None, None)


@in_trio
async def test_a_revoked_caller_does_not_come_back_with_its_old_session(pki: Pki) -> None:
    """No ticket was given, and what it offers of its session means a full handshake: refused."""
    identity = pki.identity(pki.front, revocations=make_revocations(pki.authority))
    front, caller = Credentials(identity, time.time), pki.caller_context()
    async with ends(front.server(), caller) as first:
        assert await first.shake_hands() == (None, None)
        await first.greet()
        session = first.caller._tls.session
        assert session is not None
        assert not session.has_ticket
    assert identity.revocations is not None
    identity.revocations.write_bytes(make_revocations(pki.authority, [pki.caller.certificate]))
    front.renew()
    second = Ends(*tcp_pair(), front.server(), caller)
    second.caller._tls.session = session
    assert await second.shake_hands() == (Code.CERTIFICATE_REVOKED, None)
    assert not second.front._tls.session_reused
    second.close()


@in_trio
async def test_a_list_that_comes_into_force_during_a_handshake_counts_for_it(pki: Pki) -> None:
    """The context is of before, the verdict at the end of the handshake of now."""
    identity = pki.identity(pki.front, revocations=make_revocations(pki.authority))
    front = Credentials(identity, time.time)
    async with ends(front.server(), pki.caller_context()) as made:
        assert identity.revocations is not None
        identity.revocations.write_bytes(make_revocations(pki.authority, [pki.caller.certificate]))
        front.renew()
        assert await made.shake_hands() == (Code.CERTIFICATE_REVOKED, None)


@pytest.mark.parametrize(
    ("past", "grace_hours", "code"),
    [
        (HOUR, 2.0, None),
        (HOUR, 0.0, Code.REVOCATIONS_OUT_OF_DATE),
        (3 * HOUR, 2.0, Code.REVOCATIONS_OUT_OF_DATE),
        (-HOUR, 0.0, None),
    ],
    ids=["within the grace", "no grace", "past the grace", "in date"],
)
@in_trio
async def test_a_list_past_its_next_update_serves_within_the_grace_only(
    pki: Pki, past: timedelta, grace_hours: float, code: Code | None
) -> None:
    """Then it proves nothing any more: nobody gets in under it, and each is told why."""
    revoked = issue(pki.authority, "revoked", uris=[CALLER_URI])
    stale = make_revocations(
        pki.authority, [revoked.certificate], begin=now() - 3 * DAY, end=now() - past
    )
    identity = pki.identity(pki.front, revocations=stale)
    identity = msgspec.structs.replace(identity, revocations_grace_hours=grace_hours)
    front = Credentials(identity, time.time)
    async with ends(front.server(), pki.caller_context()) as made:
        assert await made.shake_hands() == (code, None)
        if code is not None:
            assert await received(made.caller, 1) == [Ended(code, by_peer=True)]
    async with ends(front.server(), pki.caller_context(revoked)) as made:
        assert await made.shake_hands() == (Code.CERTIFICATE_REVOKED, None)


class Hierarchy:
    """A root, an authority under it, and a caller under that."""

    def __init__(self) -> None:
        self.root = root()
        self.between = intermediate(self.root)
        self.caller = with_chain(issue(self.between, "c", uris=[CALLER_URI]), self.between)

    def front(self, pki: Pki, *, trusted: bytes, lists: bytes) -> Context:
        """A front that accepts those under the root, beside those of ours."""
        issued = pki.front
        files = pki.identity(
            issued, pki.authority.pem + trusted, make_revocations(pki.authority) + lists
        )
        return Credentials(files, time.time).server()


@pytest.mark.parametrize("is_revoked", [False, True])
@in_trio
async def test_what_rests_on_a_revoked_intermediate_is_refused(
    pki: Pki, *, is_revoked: bool
) -> None:
    """The whole chain is asked about, though only the leaf is the caller's own."""
    made = Hierarchy()
    gone = [made.between.pem] if is_revoked else []
    front = made.front(
        pki,
        trusted=made.root.pem + made.between.pem,
        lists=make_revocations(made.root, gone) + make_revocations(made.between),
    )
    async with ends(front, pki.caller_context(made.caller)) as pair:
        code = Code.CERTIFICATE_REVOKED if is_revoked else None
        assert await pair.shake_hands() == (code, None)


@in_trio
async def test_an_intermediate_whose_list_is_not_here_certifies_nobody(pki: Pki) -> None:
    """The caller brings it along, and the root vouches for it; what it revoked is not known."""
    made = Hierarchy()
    front = made.front(pki, trusted=made.root.pem, lists=make_revocations(made.root))
    async with ends(front, pki.caller_context(made.caller)) as pair:
        assert await pair.shake_hands() == (Code.CERTIFICATE_REFUSED, None)
    unchecked = pki.front_context(authorities=pki.authority.pem + made.root.pem)
    async with ends(unchecked, pki.caller_context(made.caller)) as pair:
        assert await pair.shake_hands() == (None, None)


@in_trio
async def test_the_same_serial_number_of_another_authority_is_another_certificate(
    pki: Pki,
) -> None:
    """A list speaks for its own authority alone, even where two have the same name."""
    twin = make_authority()
    assert twin.certificate.subject == pki.authority.certificate.subject
    revoked = issue(pki.authority, "x", uris=[CALLER_URI])
    lists = make_revocations(pki.authority) + make_revocations(twin, [revoked.certificate])
    front = pki.front_context(authorities=pki.authority.pem + twin.pem, revocations=lists)
    async with ends(front, pki.caller_context(revoked)) as made:
        assert await made.shake_hands() == (None, None)
