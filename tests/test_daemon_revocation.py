"""A revocation list that is loaded reaches open connections at once, on both sides."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ksz_router.cli.testpki import (
    ROUTER_URI,
    Authority,
    issue,
    make_authority,
    make_revocations,
)
from ksz_router.codes import Code
from ksz_router.daemon.control import Renew
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing
from ksz_router.tls import client_context
from ksz_router.wire import Ended
from tests.daemon_parts import in_trio
from tests.daemon_peers import Caller
from tests.test_daemon_worker import Running, running
from tests.worlds import CENTRE, PERSON, RVA, ask, uri

AUTHORITY = make_authority("accepted")
REVOKED = Ended(Code.CERTIFICATE_REVOKED, by_peer=True)


def revoke(run: Running, *names: str) -> None:
    """Put a list into place that names the certificates of these."""
    gone = [(run.folder / "pki" / f"{name}.crt").read_bytes() for name in names]
    (run.folder / "pki" / "revocations.pem").write_bytes(make_revocations(AUTHORITY, gone))


async def newcomer(run: Running, authority: Authority) -> Caller:
    """The centre with another certificate, under this authority."""
    pair = issue(authority, "x", uris=[uri(CENTRE)])
    files = {"certificate": pair.certificate, "key": pair.key}
    for name, data in files.items():
        (run.folder / name).write_bytes(data)
    context = client_context(
        certificate=run.folder / "certificate",
        key=run.folder / "key",
        authorities=run.folder / "pki" / "authorities.pem",
    )
    caller = await Caller.connect(run.port, context, router=ROUTER_URI, uri=uri(CENTRE))
    run.callers.append(caller)
    await run.until(lambda: caller.is_open or caller.ended)
    return caller


def entries(folder: Path) -> Iterator[Entry]:
    """Everything that a worker wrote."""
    found: list[Entry] = []
    log = HotLog(folder / "log", KeyRing(folder / "keys"))
    for slot in log.slots:
        log.read(slot, 0, 2**63, lambda frame: found.extend(map(parse, frame.records)))
    return iter(found)


def events(capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, Any]]:
    text = capsys.readouterr().err
    assert PERSON not in text
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == name]


@in_trio
async def test_a_load_ends_the_open_connection_of_who_was_revoked_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the load is reported; what was open is recorded, and the other gets its answer."""
    async with running(tmp_path, AUTHORITY) as run:
        revoked = await run.connect()
        other = await newcomer(run, AUTHORITY)
        revoked.ask(ask(id=1))
        other.ask(ask(id=2))
        await run.until(lambda: len(run.source.deliveries) == 2)
        revoke(run, CENTRE)
        report = await run.order(Renew())
        assert (report.ok, report.sessions) == (True, 1)
        await run.until(lambda: revoked.ended)
        assert revoked.ended == REVOKED
        for index in (0, 1):
            run.source.reply(index)
        await run.until(lambda: other.answers and run.worker.admission.inflight == 0)
        assert other.answers[0].code == Code.ANSWERED_WITH_DATA
        assert (revoked.answers, other.ended) == ([], None)
        assert run.worker.metrics.rejected[Code.CERTIFICATE_REVOKED] == 1

        again = await run.connect_raw()
        await run.until(lambda: again.ended)
        assert again.ended == REVOKED
        assert run.worker.metrics.handshakes["revoked"] == 1
    written = list(entries(run.folder))
    outcomes = [entry for entry in written if entry.kind is Kind.OUTCOME]
    assert sorted(entry.code for entry in outcomes) == [Code.ANSWERED_WITH_DATA] * 2
    assert len({entry.exchange for entry in outcomes}) == 2
    (ended,) = [e for e in events(capsys, "connection_ended") if e["code"] != "CLOSED_IN_PEACE"]
    assert (ended["code"], ended["uri"]) == ("CERTIFICATE_REVOKED", uri(CENTRE))


@in_trio
async def test_a_load_ends_the_connection_to_a_source_that_was_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it was asked is settled as lost, and it is not asked again under that certificate."""
    async with running(tmp_path, AUTHORITY) as run:
        caller = await run.connect()
        caller.ask(ask(id=1))
        await run.until(lambda: run.source.deliveries)
        revoke(run, RVA)
        assert (await run.order(Renew())).ok
        await run.until(lambda: caller.answers and run.source.ended)
        assert caller.answer_to(1).code == Code.SOURCE_CONNECTION_LOST
        assert run.source.ended == [REVOKED]
        caller.ask(ask(id=2))
        await run.until(lambda: len(caller.answers) == 2)
        assert caller.answer_to(2).code == Code.SOURCE_UNREACHABLE
        assert len(run.source.deliveries) == 1
        assert run.worker.metrics.source_handshakes_refused == {"revoked": 1}
        assert caller.ended is None
    (ended,) = [e for e in events(capsys, "source_ended") if e["code"] != "CLOSED_IN_PEACE"]
    assert (ended["code"], ended["source"]) == ("CERTIFICATE_REVOKED", RVA)
    outcomes = [entry for entry in entries(run.folder) if entry.kind is Kind.OUTCOME]
    assert {entry.code for entry in outcomes} == {
        Code.SOURCE_CONNECTION_LOST,
        Code.SOURCE_UNREACHABLE,
    }


@in_trio
async def test_an_authority_that_is_taken_out_takes_the_connections_under_it_along(
    tmp_path: Path,
) -> None:
    """Who rests on the one that stays is not disturbed."""
    added = make_authority("added")
    async with running(tmp_path, AUTHORITY) as run:
        pki = run.folder / "pki"
        lists = make_revocations(AUTHORITY) + make_revocations(added)
        (pki / "revocations.pem").write_bytes(lists)
        (pki / "authorities.pem").write_bytes(AUTHORITY.pem + added.pem)
        assert (await run.order(Renew())).ok
        stays, goes = await run.connect(), await newcomer(run, added)
        assert goes.is_open
        (pki / "revocations.pem").write_bytes(make_revocations(AUTHORITY))
        (pki / "authorities.pem").write_bytes(AUTHORITY.pem)
        assert (await run.order(Renew())).sessions == 1
        await run.until(lambda: goes.ended)
        assert goes.ended == Ended(Code.CERTIFICATE_REFUSED, by_peer=True)
        stays.ask(ask(id=1))
        await run.until(lambda: run.source.deliveries)
        run.source.reply()
        await run.until(lambda: stays.answers)
        assert stays.ended is None


@in_trio
async def test_a_bad_list_is_reported_and_the_old_one_stays_in_force(tmp_path: Path) -> None:
    """Nothing is closed, and who was revoked under the old list stays out."""
    async with running(tmp_path, AUTHORITY) as run:
        revoke(run, CENTRE)
        assert (await run.order(Renew())).ok
        other = await newcomer(run, AUTHORITY)
        (run.folder / "pki" / "revocations.pem").write_bytes(make_revocations(make_authority("no")))
        report = await run.order(Renew())
        assert not report.ok
        assert "revocations.pem" in report.text
        assert report.sessions == 1
        assert other.ended is None
        again = await run.connect_raw()
        await run.until(lambda: again.ended)
        assert again.ended == REVOKED


@in_trio
async def test_metrics_say_when_lists_and_certificate_run_out(tmp_path: Path) -> None:
    """The alert rules are made of these, so their values are those of what is in force."""
    async with running(tmp_path, AUTHORITY) as run:
        accepted = run.worker.contexts.standing.accepted
        values = {name: read() for name, (_, read) in run.worker.metrics.gauges.items()}
        assert values["crl_next_update_timestamp_seconds"] == accepted.next_update_unix_s > 0
        assert values["crl_grace_seconds"] == 24 * 3600
        assert values["certificate_not_after_timestamp_seconds"] > 0
