"""A whole worker in this process: its orders, its reports, its log lines, and its drain."""

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import prometheus_client
import pytest
import structlog
import trio

from ksz_router import config
from ksz_router.cli.testpki import ROUTER_URI, Authority, write_pki
from ksz_router.codes import Code
from ksz_router.daemon import control, ledger_from_log, oplog
from ksz_router.daemon.control import Adjust, Ask, Channel, Load, Order, Renew, Report, Stop
from ksz_router.daemon.worker import Worker
from ksz_router.messages import Outcome
from ksz_router.privacylog.keys import make, quarter_after, quarter_of
from ksz_router.rulebook.compile import build
from ksz_router.wire import Drain
from tests.daemon_ground import CONNECTING, NEIGHBOUR, NOBODY, load_directory
from tests.daemon_parts import in_trio
from tests.daemon_peers import Caller, SourceSide, context_of
from tests.test_laws_leaks import ANSWER, QUESTION, TICKET, leaks, questions
from tests.worlds import CENTRE, LINES, PERSON, RVA, World, ask, make_world, uri


class Running:
    """A worker that serves, the supervisor's end of its channel, and who talks to it."""

    def __init__(self, folder: Path, authority: Authority | None) -> None:
        self.folder = folder
        write_pki(folder / "pki", {kbo: uri(kbo) for kbo in CONNECTING}, authority)
        context = context_of(folder / "pki", RVA, serves=True)
        self.source = SourceSide(uri(RVA), context, inflight_max=64)
        endpoint = self.source.endpoint
        self.world: World = make_world(folder, {RVA: (endpoint.host, endpoint.port)})
        load_directory(folder / "directory", {PERSON: LINES, NEIGHBOUR: LINES}, {})
        quarter = quarter_of(time.time_ns())
        for each in (quarter, quarter_after(quarter)):
            make(folder / "keys", each)
        (folder / "log").mkdir()
        pki = folder / "pki"
        self.settings = config.Config(
            tls=config.Tls(
                certificate=str(pki / "router.crt"),
                key=str(pki / "router.key"),
                authorities=str(pki / "authorities.pem"),
                revocations=str(pki / "revocations.pem"),
            ),
            tables=config.Tables(
                rulebook=str(self.world.store), directory=str(folder / "directory")
            ),
            privacy_log=config.PrivacyLog(str(folder / "log"), str(folder / "keys"), 2 << 20),
            ledger=config.Ledger(str(folder / "ledger")),
            stop=config.Stop(drain_seconds=5.0),
        )
        ledger_from_log.ready(self.settings, time.time_ns())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        ours, theirs = control.pair()
        self.supervisor, self.channel = Channel(ours), Channel(theirs)
        self.callers: list[Caller] = []
        self.worker: Worker

    async def order(self, order: Order) -> Report:
        """Give an order and wait for the report on it."""
        await self.supervisor.send(order)
        report = await self.supervisor.report()
        assert report is not None
        return report

    async def connect(self, kbo: str = CENTRE) -> Caller:
        caller = await self.connect_raw(kbo)
        await self.until(lambda: caller.is_open)
        return caller

    async def connect_raw(self, kbo: str = CENTRE) -> Caller:
        """Shake hands only: what comes of it is the test's to see."""
        context = context_of(self.folder / "pki", kbo, serves=False)
        caller = await Caller.connect(self.port, context, router=ROUTER_URI, uri=uri(kbo))
        self.callers.append(caller)
        return caller

    async def until(self, condition: Callable[..., object]) -> None:
        """Let caller and source talk until it is so; the worker runs by itself."""
        with trio.fail_after(5):
            while not condition():
                for caller in self.callers:
                    caller.pump()
                self.source.pump()
                await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running(folder: Path, authority: Authority | None = None) -> AsyncIterator[Running]:
    """A worker from its opening to its end by an order to stop."""
    made = Running(folder, authority)
    try:
        async with trio.open_nursery() as outer:
            outer.start_soon(made.source.serve)
            async with trio.open_nursery() as nursery:
                made.worker = Worker(
                    made.settings,
                    0,
                    made.world.name,
                    listener=made.listener,
                    channel=made.channel,
                    nursery=nursery,
                    log=oplog.set_up("worker-0"),
                )
                nursery.start_soon(made.worker.serve, nursery)
                ready = await made.supervisor.report()
                assert ready is not None
                assert ready.about == "ready"
                yield made
                await made.supervisor.send(Stop())
            outer.cancel_scope.cancel()
        made.worker.close()
        for caller in made.callers:
            caller.pump()
    finally:
        for caller in made.callers:
            caller.close()
        made.source.close()
        made.listener.close()  # the worker's to close, unless it never came so far
        made.supervisor.close()
        made.channel.close()
        structlog.reset_defaults()


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@in_trio
async def test_a_worker_logs_and_counts_without_giving_anything_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law 5 over everything a worker says: passed, refused, failed and broken off."""
    async with running(tmp_path) as run:
        caller, broken = await run.connect(), await run.connect()
        caller.ask(*questions(0))
        await run.until(lambda: len(run.source.deliveries) == 3)
        run.source.reply(0, payload=ANSWER)
        run.source.reply(1, person=NOBODY, payload=ANSWER)
        run.source.reply(2, outcome=Outcome.FAILED, source_code="E-1")
        await run.until(lambda: len(caller.answers) == len(questions(0)))
        broken.ask(*[ask(id=7, ticket=TICKET, payload=QUESTION)] * 2)
        await run.until(lambda: broken.ended and len(run.source.deliveries) == 4)
        run.source.reply(3, payload=ANSWER)
        await run.until(lambda: run.worker.admission.inflight == 0)
        with socket.create_connection(("127.0.0.1", run.port)) as stranger:
            stranger.sendall(PERSON.encode() + b"\r\n\r\n")
            await run.until(lambda: run.worker.metrics.handshakes["frame_malformed"])
        registry = prometheus_client.CollectorRegistry()
        registry.register(run.worker.metrics)
        scraped = prometheus_client.generate_latest(registry)
        report = await run.order(Ask())

    logged = capsys.readouterr().err
    assert {json.loads(line)["event"] for line in logged.splitlines()} >= {
        "connection_ended",
        "handshake_refused",
    }
    assert leaks(logged) == []
    assert leaks(scraped) == []
    assert b"ksz_router_inflight_messages" in scraped
    assert leaks(repr(report)) == []
    assert (report.exchanges, report.sources) == (len(questions(0)) + 1, {RVA: "up"})


@in_trio
async def test_orders_are_carried_out_whole_or_reported_and_nothing_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged rulebook or a missing certificate leaves what is in force, and traffic goes on."""
    async with running(tmp_path) as run:
        caller, old = await run.connect(), run.world.name
        (run.world.text / "outages" / "announced.toml").write_text("# none\n", encoding="utf-8")
        manifest, _ = build(run.world.text, run.world.store, now_ns=time.time_ns())
        folder = next(path for path in run.world.store.rglob(manifest.name) if path.is_dir())
        data = (folder / "data.mdb").read_bytes()

        (folder / "data.mdb").write_bytes(data[: len(data) // 2])
        damaged = await run.order(Load(manifest.name))
        assert (damaged.ok, damaged.generation) == (False, old)
        assert manifest.name in damaged.text
        (folder / "data.mdb").write_bytes(data)
        loaded = await run.order(Load(manifest.name))
        assert (loaded.ok, loaded.generation, loaded.text) == (True, manifest.name, "")

        key = run.folder / "pki" / "router.key"
        pem = key.read_bytes()
        key.write_bytes(b"no key")
        refused = await run.order(Renew())
        assert not refused.ok
        assert "router.key" in refused.text
        key.write_bytes(pem)
        assert (await run.order(Renew())).ok

        caller.ask(ask())
        await run.until(lambda: run.source.deliveries)
        run.source.reply()
        await run.until(lambda: caller.answers)
        assert caller.answers[0].generation == manifest.name
    assert [line["event"] for line in lines_of(capsys)].count("rulebook_loaded") == 1


@in_trio
async def test_a_stopping_worker_answers_what_is_open_and_takes_nothing_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drain: a notice, typed refusals for what is new, and the end once all is answered."""
    async with running(tmp_path) as run:
        caller = await run.connect()
        caller.ask(ask(id=1))
        await run.until(lambda: run.source.deliveries)
        await run.supervisor.send(Stop())
        await run.until(lambda: any(isinstance(event, Drain) for event in caller.events))
        caller.ask(ask(id=2))
        await run.until(lambda: caller.answers)
        assert caller.answers[0].code == Code.ROUTER_DRAINING
        run.source.reply()
        await run.until(lambda: len(caller.answers) == 2)
        assert caller.answers[1].code == Code.ANSWERED_WITH_DATA
    assert caller.ended is not None
    assert caller.ended.code is Code.CLOSED_IN_PEACE
    assert lines_of(capsys)[-1]["event"] in ("source_ended", "connection_ended")


@in_trio
async def test_what_a_reload_adjusts_takes_effect_between_two_turns(tmp_path: Path) -> None:
    """Windows at once, connections to a source as wanted; what is in flight is answered."""
    async with running(tmp_path) as run:
        caller = await run.connect()
        caller.ask(ask(id=1), ask(id=2))
        await run.until(lambda: len(run.source.deliveries) == 2)
        narrow = msgspec.structs.replace(
            run.settings,
            windows=config.Windows(connection=2, institution=2, router=2, source=1),
            sources=config.Sources(connections_per_endpoint=2, breaker_failures=1),
            stop=config.Stop(drain_seconds=1.0),
        )
        assert (await run.order(Adjust(narrow))).ok
        caller.ask(ask(id=3))
        await run.until(lambda: caller.answers)
        assert caller.answer_to(3).code == Code.CONNECTION_WINDOW_FULL
        run.source.reply(0)
        run.source.reply(1)
        await run.until(lambda: len(caller.answers) == 3)
        assert {caller.answer_to(n).code for n in (1, 2)} == {Code.ANSWERED_WITH_DATA}

        newcomer = await run.connect()
        assert newcomer.link.connection.inflight_max == 2
        source = run.worker.upstream.sources[RVA]
        await run.until(lambda: sum(link.is_open for link in source.links) == 2)
        caller.ask(ask(id=4), ask(id=5))
        await run.until(lambda: len(caller.answers) == 4)
        assert caller.answer_to(5).code == Code.SOURCE_WINDOW_FULL
        run.source.reply(2)
        await run.until(lambda: len(caller.answers) == 5)
        assert (await run.order(Adjust(run.settings))).ok
        assert [link.is_draining for link in source.links] == [False, True]


@in_trio
async def test_what_was_sent_before_the_drain_was_heard_is_refused_and_not_cut_off(
    tmp_path: Path,
) -> None:
    """Nothing is in flight when the worker is told to stop, and yet a request is on its way."""
    async with running(tmp_path) as run:
        caller = await run.connect()
        await run.supervisor.send(Stop())
        await run.until(lambda: any(isinstance(event, Drain) for event in caller.events))
        caller.ask(ask(id=1))  # the worker would be gone if it did not wait
        await run.until(lambda: caller.answers)
    assert [answer.code for answer in caller.answers] == [Code.ROUTER_DRAINING]
    assert any(isinstance(event, Drain) for event in caller.events)
