"""Certificates and authorities change under load, in whole processes: no request is lost."""

import contextlib
import functools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from contrib.stand import ROUTER_URI, free_ports
from ksz_router.cli.testpki import (
    SERVER,
    Authority,
    Issued,
    issue,
    make_authority,
    make_revocations,
    write_pki,
)
from ksz_router.codes import Code
from ksz_router.sdk import (
    Answer,
    AuthenticationError,
    Client,
    ConnectionLostError,
    Identity,
    NotConnectedError,
    Provider,
    open_client,
)
from tests.certificates import DAY, now
from tests.integration.stands import (
    CENTRE,
    FUND,
    RVA,
    SERVICES,
    Crowd,
    Source,
    Town,
    asking,
    connection_test,
    on_trio,
    request,
    town,
    until,
)

PORT = free_ports(1)[0]
OLD, NEW = make_authority("old"), make_authority("new")


INSTITUTIONS = {kbo: f"urn:kbo:{kbo}" for kbo in (RVA, CENTRE, FUND)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("rollover") / "stand"
    options = {"tls": {"revocations": "tls/revocations.pem"}}
    with town(folder, endpoints={RVA: PORT}, options=options) as made:
        shutil.rmtree(made.folder / "tls")
        write_pki(made.folder / "tls", INSTITUTIONS, OLD)
        made.start()
        yield made


@pytest.fixture
def stand(running: Town) -> Town:
    """The router with files of the old authority, whatever a test before did to them."""
    shutil.rmtree(running.folder / "tls")
    write_pki(running.folder / "tls", INSTITUTIONS, OLD)
    assert running.ask("reload").failed == {}
    return running


class Files:
    """One party's own files, changed one by one as its administrator would."""

    def __init__(self, folder: Path, name: str, uri: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.uri = uri
        self.identity = Identity(
            certificate=folder / f"{name}.crt",
            key=folder / f"{name}.key",
            authorities=folder / "authorities.pem",
        )

    def certify(self, pair: Issued) -> None:
        """Put another pair into place."""
        self.identity.certificate.write_bytes(pair.certificate)
        self.identity.key.write_bytes(pair.key)

    def move(self, authority: Authority) -> None:
        """Put a pair of this authority into place."""
        self.certify(issue(authority, self.name, uris=[self.uri], addresses=["127.0.0.1"]))

    def accept(self, *authorities: Authority) -> None:
        """Accept peers under these."""
        self.identity.authorities.write_bytes(b"".join(each.pem for each in authorities))

    def revoke(self, *authorities: Authority, gone: bytes | None = None) -> None:
        """Put lists of these into place, which name this certificate or none."""
        lists = [make_revocations(each, [gone] if gone else []) for each in authorities]
        (self.identity.certificate.parent / "revocations.pem").write_bytes(b"".join(lists))


def party(stand: Town, kbo: str) -> Files:
    """An institution with files of its own."""
    files = Files(stand.folder / f"of-{kbo}", kbo, f"urn:kbo:{kbo}")
    files.move(OLD)
    files.accept(OLD, NEW)
    return files


def router_files(stand: Town) -> Files:
    return Files(stand.folder / "tls", "router", ROUTER_URI)


async def reload(stand: Town) -> None:
    status = await trio.to_thread.run_sync(stand.ask, "reload")
    assert status.failed == {}


@contextlib.asynccontextmanager
async def serving(source: Files) -> AsyncIterator[Provider]:
    """The source of the stand, with files of its own."""
    provider = Provider(
        source.identity, router_uris={ROUTER_URI}, services={SERVICES[RVA]: Source()}
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(provider.serve, host="127.0.0.1", port=PORT))
        yield provider
        nursery.cancel_scope.cancel()


def sources_ended(stand: Town) -> int:
    return len(stand.events("source_ended"))


class Load:
    """Crowds that ask without a pause while files change around them."""

    def __init__(self, stand: Town, clients: list[Client]) -> None:
        self.crowds = [Crowd(client) for client in clients]
        self._stand = stand
        self._clients = clients

    async def go_on(self) -> None:
        """Wait until each got a hundred answers more."""
        for crowd in self.crowds:
            await crowd.grown(100)

    async def reload(self) -> None:
        """Reload the router, and wait until its connection to the source was replaced."""
        ended = sources_ended(self._stand)
        await reload(self._stand)
        await self.go_on()
        await until(lambda: sources_ended(self._stand) > ended)

    async def renew(self) -> None:
        """Have the clients read their files anew."""
        for client in self._clients:
            client.renew()
        await self.go_on()


@on_trio
async def test_certificates_and_authorities_roll_over_without_a_lost_request(stand: Town) -> None:
    """Router, requester and source move to a new authority under load; then the old one goes.

    Every request of those that moved is answered with data, none meets an error; who did not
    move is cut off when its authority is taken out, and learns that it is authentication.
    """
    router, centre, source = router_files(stand), party(stand, CENTRE), party(stand, RVA)
    left = party(stand, FUND)
    ended_before = len(stand.events("connection_ended"))
    async with (
        serving(source) as provider,
        asking(stand, identity=centre.identity) as client,
        asking(stand, identity=centre.identity) as other,
        asking(stand, identity=left.identity) as late,
        trio.open_nursery() as nursery,
    ):
        load = Load(stand, [client, other])
        for crowd in load.crowds:
            nursery.start_soon(crowd.run)
        await load.go_on()
        assert (await late.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
        router.accept(OLD, NEW)
        router.revoke(OLD, NEW)
        await load.reload()
        router.move(NEW)
        await load.reload()
        centre.move(NEW)
        source.move(NEW)
        provider.renew()
        await load.renew()
        await load.reload()
        handshakes = stand.metric("ksz_router_handshakes_total", result="done")
        router.accept(NEW)
        router.revoke(NEW)
        centre.accept(NEW)
        source.accept(NEW)
        provider.renew()
        await load.reload()
        with pytest.raises(AuthenticationError):
            await late.ask(connection_test())
        assert stand.metric("ksz_router_handshakes_total", result="done") == handshakes
        await load.renew()
        for crowd in load.crowds:
            crowd.stop()
    for crowd in load.crowds:
        assert len(crowd.answers) == crowd.asked
        assert {answer.code for answer in crowd.answers} == {Code.ANSWERED_WITH_DATA}
    (ended,) = stand.events("connection_ended")[ended_before:]
    assert (ended["code"], ended["uri"]) == ("CERTIFICATE_REFUSED", left.uri)
    stand.verify_log()


@on_trio
async def test_a_source_refuses_a_router_that_was_revoked_and_ends_its_connection(
    stand: Town,
) -> None:
    """The provider goes by lists of its own: on what stands, and on what the router dials next."""
    router, source = router_files(stand), party(stand, RVA)
    lists = source.identity.authorities.with_name("revocations.pem")
    source.revoke(OLD, NEW)
    source.identity = msgspec.structs.replace(source.identity, revocations=lists)
    async with serving(source) as provider, asking(stand) as client:
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA
        ended = sources_ended(stand)
        source.revoke(OLD, NEW, gone=router.identity.certificate.read_bytes())
        provider.renew()
        await until(lambda: sources_ended(stand) > ended)
        assert stand.events("source_ended")[-1]["code"] == "CERTIFICATE_REVOKED"
        assert (await client.ask(request())).code == Code.SOURCE_UNREACHABLE
        refused = "ksz_router_source_handshakes_refused_total"
        assert stand.metric(refused, result="refused_by_peer") >= 1
        router.move(OLD)
        await reload(stand)
        assert (await client.ask(request())).code == Code.ANSWERED_WITH_DATA


@on_trio
async def test_who_is_revoked_while_asking_is_told_and_comes_back_with_another_certificate(
    stand: Town,
) -> None:
    """In flight: not known. Afterwards: authentication, until the files are mended."""
    router, centre = router_files(stand), party(stand, CENTRE)
    handler = Source(is_open=False)
    source = Provider(
        stand.identity(RVA), router_uris={ROUTER_URI}, services={SERVICES[RVA]: handler}
    )
    lost: list[Exception] = []
    async with trio.open_nursery() as nursery, asking(stand, identity=centre.identity) as client:
        await nursery.start(functools.partial(source.serve, host="127.0.0.1", port=PORT))

        async def ask() -> None:
            try:
                await client.ask(request())
            except ConnectionLostError as error:
                lost.append(error)

        nursery.start_soon(ask)
        await until(lambda: handler.asked)
        router.revoke(OLD, gone=centre.identity.certificate.read_bytes())
        await reload(stand)
        await until(lambda: lost)
        with pytest.raises(AuthenticationError, match="CERTIFICATE_REVOKED"):
            await client.ask(connection_test())
        with pytest.raises(AuthenticationError):
            await client.ask(connection_test(), resend=True)
        centre.move(OLD)
        client.renew()
        assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
        handler.gate.set()
        nursery.cancel_scope.cancel()
    assert stand.metric("ksz_router_rejected_total", reason="certificate_revoked") == 1
    assert stand.metric("ksz_router_handshakes_total", result="revoked") >= 1


Spoil = Callable[[Files], None]


def pair(authority: Authority = OLD, **wishes: object) -> Callable[[Files], None]:
    def put(files: Files) -> None:
        usual = {"uris": [files.uri]}
        files.certify(issue(authority, "x", **{**usual, **wishes}))  # type: ignore[arg-type]

    return put


SPOILT: dict[str, Spoil] = {
    "expired": pair(begin=now() - 2 * DAY, end=now() - DAY),
    "not yet valid": pair(begin=now() + DAY, end=now() + 2 * DAY),
    "another authority": pair(make_authority("stranger")),
    "for servers only": pair(usages=[SERVER]),
    "no URI": pair(uris=[]),
    "the router's authority": lambda files: files.accept(NEW),
}


@on_trio
async def test_the_sdk_tells_authentication_from_a_router_that_is_not_there(stand: Town) -> None:
    """Each fault of a certificate ends the wait at once; a mended file and ``renew`` end it."""
    for case, spoil in SPOILT.items():
        files = party(stand, CENTRE)
        spoil(files)
        async with asking(stand, identity=files.identity) as client:
            with pytest.raises(AuthenticationError):
                await client.ask(connection_test())
            files.move(OLD)
            files.accept(OLD)
            client.renew()
            answer: Answer = await client.ask(connection_test())
            assert answer.code == Code.ANSWERED_WITH_DATA, case
    files = party(stand, CENTRE)
    async with open_client(
        files.identity, host="127.0.0.1", port=stand.port, uri="urn:another"
    ) as client:
        with pytest.raises(AuthenticationError):
            await client.ask(connection_test())
    async with open_client(
        files.identity, host="127.0.0.1", port=free_ports(1)[0], uri=ROUTER_URI
    ) as client:
        with pytest.raises(NotConnectedError):
            await client.ask(connection_test(), deadline_s=0.2)


def why_not(stand: Town) -> str:
    """Why the router is not ready, as it says itself."""
    try:
        return stand.ask().workers[0].why_not
    except OSError:
        return "not there"


@on_trio
async def test_a_list_past_its_grace_is_not_taken_for_a_fault_of_the_client(stand: Town) -> None:
    """The client waits and comes again by itself: there is nothing that it could mend."""
    router = router_files(stand)
    stale = make_revocations(OLD, begin=now() - 30 * DAY, end=now() - 20 * DAY)
    lists = router.identity.certificate.parent / "revocations.pem"
    # A router that starts with it: it may not replace a newer one.
    assert await trio.to_thread.run_sync(stand.stop) == 0
    lists.write_bytes(stale)
    stand.start(wait=False)
    await until(lambda: stand.events("worker_ready"))
    await until(lambda: why_not(stand) == "revocations_ended")
    async with asking(stand) as client:
        with pytest.raises(NotConnectedError, match="REVOCATIONS_OUT_OF_DATE"):
            await client.ask(connection_test(), deadline_s=0.5)
        router.revoke(OLD)
        await reload(stand)
        assert (await client.ask(connection_test())).code == Code.ANSWERED_WITH_DATA
    result = "revocations_out_of_date"
    assert stand.metric("ksz_router_handshakes_total", result=result) >= 1
