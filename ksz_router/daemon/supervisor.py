"""The parent of the workers: starts them, watches them, and passes on what the operator wants.

It never sees a message. It holds the listening socket, so that a worker that ends costs nobody a
refused connection; it verifies a rulebook once, and tells the workers its name.
"""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon import ledger_from_log, orphans, systemd
from ksz_router.daemon.control import Ask, Channel, Load, Order, Renew, Report, Stop, pair
from ksz_router.rulebook import activation
from ksz_router.rulebook.generation import RulebookError

_BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 60.0
_ASK_SECONDS = 2.0
_HEARD_SECONDS_MAX = 6.0
_SILENT_SECONDS_MAX = 20.0
_ORDER_SECONDS_MAX = 10.0
_KILL_AFTER_DRAIN_SECONDS = 10.0


class WorkerHandle:
    """One worker's place: the process that fills it now, and what was last heard of it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: trio.Process | None = None
        self.channel: Channel | None = None
        self.report: Report | None = None
        self.heard_at = 0.0
        self.restarts = 0
        self._answers: dict[str, tuple[trio.Event, list[Report]]] = {}

    @property
    def is_ready(self) -> bool:
        """It said so lately, and is not gone since."""
        if self.report is None or self.process is None or self.report.not_ready:
            return False
        return trio.current_time() - self.heard_at < _HEARD_SECONDS_MAX

    @property
    def why_not(self) -> str:
        """Why it is not ready, in a few words; empty where it is."""
        if self.is_ready:
            return ""
        if self.process is None or self.report is None:
            return "starting"
        return ", ".join(self.report.not_ready) or "mute"

    def heard(self, report: Report) -> None:
        """Take a report in, and wake who waits for it."""
        self.report = report
        self.heard_at = trio.current_time()
        waiting = self._answers.pop(report.about, None)
        if waiting is not None:
            waiting[1].append(report)
            waiting[0].set()

    async def order(self, order: Order, about: str) -> Report:
        """Send an order and wait for its report; a worker that is gone or mute is not ok."""
        event, reports = self._answers.setdefault(about, (trio.Event(), []))
        if self.channel is None or not await self.channel.send(order):
            return Report(about, ok=False, text="the worker is not running")
        with trio.move_on_after(_ORDER_SECONDS_MAX):
            await event.wait()
        return reports[0] if reports else Report(about, ok=False, text="the worker did not answer")


class Supervisor:
    """Runs the workers of one router.

    Args:
        settings: Checked configuration.
        file: Where it was read from; the workers read it themselves.
    """

    def __init__(
        self, settings: Config, file: Path, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self.settings = settings
        self.workers = [WorkerHandle(index) for index in range(settings.node.workers)]
        self.generation = ""
        self.is_stopping = False
        self._was_ready = False
        self._told = ""
        self._file = file
        self._log = log
        self._listener: socket.socket

    async def prepare(self) -> None:
        """Verify the rulebook and take the listening socket; nothing runs yet.

        Raises:
            RulebookError: no verified rulebook is active.
            PrivacyLogError: a slot that no worker has any more cannot be settled.
            LedgerError: the submission ledger cannot be made.
            OSError: the address cannot be listened on.
        """
        self.generation = await trio.to_thread.run_sync(self._verified)
        recalled = await trio.to_thread.run_sync(ledger_from_log.ready, self.settings)
        if recalled is not None:
            self._log.info("ledger_made", tickets=recalled)
        await orphans.settle_when_possible(self.settings, self._log)
        self._listener = await self._listen()

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        async with trio.open_nursery() as nursery:
            for worker in self.workers:
                nursery.start_soon(self._keep, worker)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._say_ready)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                async for number in signals:
                    if number != signal.SIGHUP:
                        break
                    await self.reload()
            await self._stop()
            nursery.cancel_scope.cancel()
        return 0

    async def reload(self) -> dict[str, str]:
        """Verify the active rulebook, then have every worker load it and renew its certificates.

        Returns:
            What could not be done, by part; empty where all went well. A rulebook that is refused
            changes nothing; a worker that cannot load a verified one is replaced.
        """
        systemd.notify("RELOADING=1")
        failed = {}
        staying = list(self.workers)
        try:
            generation = await trio.to_thread.run_sync(self._verified)
        except RulebookError as error:
            failed["rulebook"] = str(error)
        else:
            self.generation = generation
            for worker in self.workers:
                report = await worker.order(Load(generation), "load")
                if not report.ok:
                    failed[f"rulebook in worker {worker.index}"] = report.text
                    staying.remove(worker)  # its successor reads everything anew
                    if worker.channel is not None:
                        await worker.channel.send(Stop())
        for worker in staying:
            report = await worker.order(Renew(), "renew")
            if not report.ok:
                failed[f"certificates in worker {worker.index}"] = report.text
        if failed:
            self._log.error("reload_refused", reasons=failed, generation=self.generation)
        else:
            self._log.info("reloaded", generation=self.generation)
        systemd.notify("READY=1")
        return failed

    async def ask_all(self) -> None:
        """Have every worker report how it is now; one that does not within a second is left."""
        with trio.move_on_after(1.0):
            async with trio.open_nursery() as nursery:
                for worker in self.workers:
                    nursery.start_soon(worker.order, Ask(), "ask")

    def _verified(self) -> str:
        tables = self.settings.tables
        store = Path(tables.rulebook)
        name = activation.active(store)
        activation.verify(store, name, Path(tables.rulebook_signer))
        return name

    async def _listen(self) -> socket.socket:
        """Take the socket over from systemd, or bind; an earlier run may still be leaving it."""
        inherited = systemd.inherited_listener()
        if inherited is not None:
            return inherited
        listen = self.settings.listen
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        for attempt in range(100):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((listen.host, listen.port))
                sock.listen(listen.backlog)
            except OSError as error:
                sock.close()
                if attempt == 99:
                    where = f"cannot listen on {listen.host}, port {listen.port}"
                    raise OSError(error.errno, f"{where}: {error.strerror}") from error
                await trio.sleep(0.1)
            else:
                return sock
        raise AssertionError("the last attempt raises")

    async def _keep(self, worker: WorkerHandle) -> None:
        """Keep one worker running, with longer and longer breaks while it keeps failing."""
        failures = 0
        while not self.is_stopping:
            started_at = trio.current_time()
            code = await self._run_once(worker)
            if self.is_stopping:
                return
            worker.restarts += 1
            steady = trio.current_time() - started_at > _STEADY_SECONDS
            failures = 0 if steady else failures + 1
            pause = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1] if failures else 0.0
            self._log.error(
                "worker_ended", worker=worker.index, exit_code=code, pause_seconds=pause
            )
            await trio.sleep(pause)

    async def _run_once(self, worker: WorkerHandle) -> int:
        ours, theirs = pair()
        fds = (self._listener.fileno(), theirs.fileno())
        command = [
            sys.executable, "-m", "ksz_router.daemon.worker_process", str(self._file),
            str(worker.index), self.generation, str(fds[0]), str(fds[1]),
        ]  # fmt: skip
        process = await trio.lowlevel.open_process(command, pass_fds=fds, stdin=subprocess.DEVNULL)
        theirs.close()
        worker.process, worker.channel = process, Channel(ours)
        worker.heard_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen_to, worker, worker.channel)
            try:
                await process.wait()
            finally:
                worker.process = worker.report = None
                if process.returncode is None:
                    process.kill()
            nursery.cancel_scope.cancel()
        worker.channel.close()
        worker.channel = None
        return process.returncode or 0

    async def _listen_to(self, worker: WorkerHandle, channel: Channel) -> None:
        while (report := await channel.report()) is not None:
            if report.about == "ready":
                self._log.info("worker_ready", worker=worker.index)
            worker.heard(report)

    async def _watch(self) -> None:
        """Ask every worker how it is; end one that does not answer; keep systemd informed."""
        every = min(_ASK_SECONDS, systemd.watchdog_seconds() or _ASK_SECONDS)
        while True:
            await trio.sleep(every)
            for worker in self.workers:
                if worker.channel is None or worker.process is None:
                    continue
                await worker.channel.send(Ask())
                if worker.report and trio.current_time() - worker.heard_at > _SILENT_SECONDS_MAX:
                    self._log.error("worker_mute", worker=worker.index)
                    worker.process.kill()
            systemd.notify("WATCHDOG=1")
            self._tell_status()

    def _tell_status(self) -> None:
        """Tell systemd in words how it is; only what is news."""
        why = [f"worker {n.index}: {n.why_not}" for n in self.workers if n.why_not]
        text = "not ready: " + "; ".join(why) if why else "ready"
        if not self._was_ready:
            systemd.notify_starting(text)
        elif text != self._told:
            systemd.notify(f"STATUS={text}")
        self._told = text

    async def _say_ready(self) -> None:
        while not all(worker.is_ready for worker in self.workers):  # noqa: ASYNC110
            await trio.sleep(0.02)
        self._log.info("ready", workers=len(self.workers), generation=self.generation)
        systemd.notify("READY=1")
        self._was_ready = True

    async def _stop(self) -> None:
        """Let every worker drain; end what is left after that."""
        self.is_stopping = True
        systemd.notify("STOPPING=1")
        self._log.info("stopping")
        for worker in self.workers:
            if worker.channel is not None:
                await worker.channel.send(Stop())
        limit_s = self.settings.stop.drain_seconds + _KILL_AFTER_DRAIN_SECONDS
        with trio.move_on_after(limit_s):
            for worker in self.workers:
                while worker.process is not None:  # noqa: ASYNC110
                    await trio.sleep(0.02)
        for worker in self.workers:
            if worker.process is not None:
                self._log.error("worker_killed", worker=worker.index)
                worker.process.kill()
