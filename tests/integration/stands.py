"""A router in a folder for tests of whole processes, and sources and requesters around it.

The tables are made in this process, which spares the start of a dozen interpreters; the router
itself is always a process of its own, with its workers, and is talked to over its sockets.
"""

import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec
from urllib.request import urlopen

import msgspec
import trio
from prometheus_client.parser import text_string_to_metric_families

from contrib.stand import ROOT, ROUTER_URI, Stand, StandError
from ksz_router import cli
from ksz_router.codes import Code
from ksz_router.daemon.admin import Status
from ksz_router.directory.synthesise import landmarks
from ksz_router.privacylog.entry import Entry, parse
from ksz_router.privacylog.frame import Frame
from ksz_router.privacylog.hotlog import HotLog
from ksz_router.privacylog.keys import KeyRing
from ksz_router.sdk import (
    Answer,
    Client,
    ConnectionLostError,
    Delivery,
    Handler,
    Identity,
    NotAnsweredError,
    Outcome,
    Provider,
    Request,
    Supply,
    new_ticket,
    open_client,
)

RVA, FBZ, RVP = "0999010126", "0999015767", "0999015074"
CENTRE, FUND, STRANGER = "0999016460", "0999019232", "0999001122"
USER = "85073099734"
PERSONS = landmarks(1)
UNEMPLOYMENT = ("UnemploymentData", 3)
SERVICES = {RVA: UNEMPLOYMENT, FBZ: ("OccupationalDisease", 1), RVP: ("PensionRegister", 1)}

P = ParamSpec("P")


def on_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test, its fixtures as arguments."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs))

    return run


async def until(holds: Callable[[], object], *, seconds: float = 15.0) -> None:
    """Return as soon as something holds; fail if it does not in time."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - what other processes do gives no event
            await trio.sleep(0.02)


OPEN = (Code.SUBMISSION_OPEN, Code.ROUTER_DRAINING)
NOT_KNOWN = (
    *OPEN, Code.SOURCE_UNREACHABLE, Code.SOURCE_CONNECTION_LOST, Code.SOURCE_BREAKER_OPEN,
)  # fmt: skip


async def settled(client: Client, asked: Request, again: Sequence[Code] = NOT_KNOWN) -> Answer:
    """Retry by the ticket, as a client does that is told to come again, until it is known."""
    with trio.fail_after(40):
        while True:
            with contextlib.suppress(ConnectionLostError, NotAnsweredError):
                answer = await client.ask(asked)
                if answer.code not in again:
                    return answer
            await trio.sleep(0.05)


class Town(Stand):
    """A stand whose tables are made in this process."""

    def command(self, *words: object, accept: Sequence[int] = (0,)) -> str:
        printed, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
            code = cli.main([str(word) for word in words])
        if code not in accept:
            raise StandError(f"{words}: exit code {code}\n{complaints.getvalue()}")
        return printed.getvalue()

    def start(
        self, *, before: Sequence[str] = (), environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (), wait: bool = True,
    ) -> None:  # fmt: skip
        """Start the router; ``before`` is a command in front of its own."""
        command = [*before, sys.executable, "-m", "ksz_router", "run", "--config", str(self.config)]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})}, pass_fds=pass_fds,
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        assert self.process is not None
        for _ in range(600):
            if self.is_ready:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
                break
        raise StandError(f"the router is not ready:\n{self.output.read_text()[-4000:]}")

    @property
    def is_ready(self) -> bool:
        """Ready, as it says itself."""
        try:
            return self.ask().is_ready
        except OSError:
            return False

    def ask(self, verb: str = "status") -> Status:
        """Ask over the admin socket; blocks."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.folder / "admin.sock"))
            sock.sendall(msgspec.json.encode({"verb": verb}) + b"\n")
            with sock.makefile("rb") as answer:
                line = answer.readline()
            if not line:  # it took the question along as it ended; the next one is there, or not
                raise ConnectionResetError("the router ended")
            return msgspec.json.decode(line, type=Status)

    def status(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self.ask()))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self, seconds: float = 30.0) -> int:
        """Wait for the end of the supervisor; return its exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What the router logged so far, whole lines only, of one name or of all."""
        lines = self.output.read_text(encoding="utf-8").splitlines(keepends=True)
        found = []
        for line in lines:
            if line.endswith("\n"):
                assert line.startswith("{"), f"not an event: {line}"
                found.append(json.loads(line))
        return [event for event in found if name in ("", event["event"])]

    def entries(self) -> list[Entry]:
        """Everything in the privacy log, slot by slot in the order of writing."""
        found: list[Entry] = []

        def visit(frame: Frame) -> None:
            found.extend(map(parse, frame.records))

        log = HotLog(self.log, KeyRing(self.keys))
        for slot in log.slots:
            log.read(slot, 0, 2**63, visit)
        assert not log.damaged
        return found

    def scrape(self, worker: int = 0) -> str:
        """What a worker tells Prometheus."""
        with urlopen(f"http://127.0.0.1:{self.metrics_port + worker}/metrics") as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all workers and over labels that are not named."""
        total = 0.0
        for worker in range(len(self.ask().workers)):
            for family in text_string_to_metric_families(self.scrape(worker)):
                for sample in family.samples:
                    if sample.name == name and labels.items() <= sample.labels.items():
                        total += sample.value
        return total

    def replace_text(self, file: str, old: str, new: str) -> None:
        """Change the rulebook's text in one place."""
        path = self.folder / "rulebook-text" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def verify_log(self) -> None:
        """Check the privacy log with the command an auditor uses."""
        self.command("log", "verify", "--config", self.config)


@contextlib.contextmanager
def town(folder: Path, **wishes: Any) -> Iterator[Town]:
    """A stand that is stopped at the end, whatever became of it."""
    wishes = {"institutions": [RVA, CENTRE, FUND, STRANGER], "endpoints": {}, **wishes}
    made = Town.make(folder, **wishes)
    assert isinstance(made, Town)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.terminate()
            try:
                made.ended(20)
            finally:
                made.kill()


class Source:
    """A handler that the test commands: it answers at once, or when its gate opens."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.asked: list[Delivery] = []
        self.gate = trio.Event()
        if is_open:
            self.gate.set()

    async def __call__(self, delivery: Delivery) -> Supply:
        self.asked.append(delivery)
        await self.gate.wait()
        return Supply(Outcome.DATA, payload=b"for " + delivery.payload)


@contextlib.asynccontextmanager
async def providing(
    stand: Town, port: int, handler: Handler, *, kbo: str = RVA, identity: Identity | None = None
) -> AsyncIterator[Provider]:
    """An institution that supplies its service on a port."""
    provider = Provider(
        identity or stand.identity(kbo), router_uris={ROUTER_URI}, services={SERVICES[kbo]: handler}
    )
    async with serving(provider, port):
        yield provider


@contextlib.asynccontextmanager
async def serving(provider: Provider, port: int) -> AsyncIterator[None]:
    """Let a provider serve on a port."""
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(provider.serve, host="127.0.0.1", port=port))
        yield
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def asking(
    stand: Town, kbo: str = CENTRE, *, identity: Identity | None = None
) -> AsyncIterator[Client]:
    """An institution that asks."""
    async with open_client(
        identity or stand.identity(kbo), host="127.0.0.1", port=stand.port, uri=ROUTER_URI
    ) as client:
        yield client


def request(person: str = PERSONS["answered"], **fields: Any) -> Request:
    """What passes the control for the centre, unless ``fields`` differ."""
    name, version = UNEMPLOYMENT
    usual: dict[str, Any] = {
        "id": 0, "service": name, "version": version, "ticket": new_ticket(), "user": USER,
        "sector": 17, "type": 1, "capacity": 2, "person": person, "payload": b"a question",
    }  # fmt: skip
    return Request(**{**usual, **fields})


def connection_test() -> Request:
    """What the router answers itself."""
    return Request(id=0, service="TestConnectionService", version=1, ticket=new_ticket())


class Crowd:
    """Asks over and over from many tasks until told to stop; keeps every answer in order."""

    def __init__(
        self, client: Client, *, askers: int = 16, resend: bool = False, deadline_s: float = 10.0
    ) -> None:
        self.answers: list[Answer] = []
        self.asked = 0
        self._client = client
        self._askers = askers
        self._resend = resend
        self._deadline_s = deadline_s
        self._stop = False

    async def run(self) -> None:
        """Return once everyone got the last answer."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._askers):
                nursery.start_soon(self._ask)

    def stop(self) -> None:
        """Let everyone finish."""
        self._stop = True

    async def grown(self, by: int = 200) -> None:
        """Wait until so many further answers came."""
        goal = len(self.answers) + by
        await until(lambda: len(self.answers) >= goal)

    async def _ask(self) -> None:
        while not self._stop:
            self.asked += 1
            answer = await self._client.ask(
                request(), resend=self._resend, deadline_s=self._deadline_s
            )
            self.answers.append(answer)
