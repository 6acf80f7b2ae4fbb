"""The parent of all processes: starts them, watches them, and passes on what the operator wants.

It never sees a message. It holds the listening socket, so that a worker that ends costs nobody a
refused connection; it verifies a rulebook once, and tells the workers its name.
"""

import copy
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon import ledger_from_log, orphans, reload, systemd
from ksz_router.daemon.companion import companions, run_process
from ksz_router.daemon.control import SLOT_TAKEN, Ask, Begin, Report, stop_seconds
from ksz_router.daemon.handle import Backoff, WorkerHandle
from ksz_router.daemon.reload import InForce, Part

_ASK_SECONDS = 2.0
_SILENT_SECONDS_MAX = 20.0


class _Reload:
    """A reload that was asked for; who asks before it begins shares it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.parts: dict[str, Part] = {}


class Supervisor:
    """Runs the workers of one router.

    Args:
        settings: Checked configuration.
        file: Where it was read from, and is read again at a reload.
    """

    def __init__(
        self, settings: Config, file: Path, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self.force = InForce(settings, generation="", certificates=b"")
        self.workers = [WorkerHandle(index) for index in range(settings.node.workers)]
        self.companions = companions(settings, log)
        self.is_stopping = False
        self._told = ""
        self._file = file
        self._log = log
        self._listener: socket.socket
        self._wanted = trio.Event()
        self._next_reload = _Reload()
        self._over = trio.Event()
        self._was_ready = self._has_given_up = False

    async def prepare(self) -> None:
        """Verify the rulebook and take the listening socket; nothing runs yet.

        Raises:
            RulebookError: no verified rulebook is active.
            PrivacyLogError: a slot that no worker has any more cannot be settled.
            LedgerError: the submission ledger cannot be made.
            OSError: the address cannot be listened on.
        """
        settings = self.force.settings
        self.force.certificates = reload.digest_of(settings.tls)
        self.force.generation = await trio.to_thread.run_sync(reload.verified_generation, settings)
        recalled = await orphans.when_possible(
            settings, self._log, lambda: ledger_from_log.ready(settings)
        )
        if recalled is not None:
            self._log.info("ledger_made", tickets=recalled)
        settled = await orphans.when_possible(
            settings, self._log, lambda: orphans.settle_orphans(settings)
        )
        if settled:
            self._log.info("orphans_settled", slots=settled)
        self._listener = await self._listen()

    async def run(self) -> bool:
        """Serve until told to stop; return False if it gave up: another router writes the log."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                for worker in self.workers:
                    nursery.start_soon(self._keep, worker)
                for companion in self.companions:
                    nursery.start_soon(companion.keep)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._say_ready)
                nursery.start_soon(self._reload_when_wanted)
                nursery.start_soon(self._obey, signals)
                await self._over.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        return not self._has_given_up

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._wanted.set()
            else:
                self._over.set()

    async def reload(self) -> dict[str, Part]:
        """Have everything read anew, and wait for what that came to; see :mod:`reload`.

        It goes on when who asked is gone, and one at a time: who asks while one runs gets the next.
        """
        if self.is_stopping:
            return reload.refusal("the router is stopping")
        asked = self._next_reload
        self._wanted.set()
        await asked.done.wait()
        return asked.parts

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            asked, self._next_reload = self._next_reload, _Reload()
            self._wanted = trio.Event()
            self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            asked.parts = await reload.reload(self.force, self._file, self._serving)
            for companion in self.companions:
                await companion.renew()
            self._tell_of_reload(asked.parts)
            self._notify("READY=1")
            asked.done.set()

    def _notify(self, state: str) -> None:
        """Tell systemd of a reload, as long as it takes us for a service that is up."""
        if self._was_ready and not self.is_stopping:
            systemd.notify(state)

    def _serving(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.is_serving]

    def _tell_of_reload(self, parts: dict[str, Part]) -> None:
        outcomes = {name: part.outcome for name, part in parts.items()}
        generation = self.force.generation
        waiting = parts["configuration"].needs_restart
        if waiting:
            self._log.warning("restart_needed", keys=waiting)
        reasons = {name: part.reason for name, part in parts.items() if part.reason}
        for name, part in parts.items():
            for index, why in part.replaced.items():
                reasons[f"{name} in worker {index}"] = why
        if reasons:
            self._log.error(
                "reload_refused", reasons=reasons, generation=generation, outcomes=outcomes
            )
        else:
            self._log.info("reloaded", generation=generation, outcomes=outcomes)

    async def ask_all(self) -> None:
        """Have every worker report how it is now; one that does not within a second is left."""
        with trio.move_on_after(1.0):
            async with trio.open_nursery() as nursery:
                for worker in self._serving():
                    nursery.start_soon(worker.order, Ask(self._restarts()))

    async def _listen(self) -> socket.socket:
        """Take the socket over from systemd, or bind; an earlier run may still be leaving it."""
        inherited = systemd.inherited_listener()
        if inherited is not None:
            return inherited
        listen = self.force.settings.listen
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
        backoff = Backoff()
        while not self.is_stopping:
            started_at = trio.current_time()
            code = await self._run_once(worker)
            if self.is_stopping:
                return
            if code == SLOT_TAKEN and not self._serving():
                self._has_given_up = True
                self._over.set()
                return
            worker.restarts += 1
            ran_s = trio.current_time() - started_at
            pause = backoff.pause_s(ran_s)
            self._log.error(
                "worker_ended", worker=worker.index, exit_code=code, pause_seconds=pause
            )
            await trio.sleep(pause)

    async def _run_once(self, worker: WorkerHandle) -> int:
        given = copy.copy(self.force)

        async def heard(report: Report) -> None:
            if report.about == "ready":
                self._log.info("worker_ready", worker=worker.index)
                if given != self.force:  # a reload overtook its start
                    await worker.dismiss()

        return await run_process(
            worker,
            ["ksz_router.daemon.worker_process", str(worker.index)],
            (self._listener.fileno(),),
            Begin(given.settings, given.generation),
            is_stopping=lambda: self.is_stopping,
            heard=heard,
        )

    async def _watch(self) -> None:
        """Ask every worker how it is; end one that does not answer; keep systemd informed."""
        every = min(_ASK_SECONDS, systemd.watchdog_seconds() or _ASK_SECONDS)
        while True:
            await trio.sleep(every)
            for worker in self.workers:
                if worker.report is None or worker.channel is None or worker.process is None:
                    continue
                await worker.channel.send(Ask(self._restarts()))
                if trio.current_time() - worker.heard_at > self._silence_s(worker):
                    self._log.error("worker_mute", worker=worker.index)
                    worker.process.kill()
            for companion in self.companions:
                await companion.look()
            systemd.notify("WATCHDOG=1")
            self._tell_status()

    def _restarts(self) -> dict[str, int]:
        """How often each process was started again; whoever dies at once is never scraped."""
        found = {f"worker-{worker.index}": worker.restarts for worker in self.workers}
        return found | {companion.name: companion.restarts for companion in self.companions}

    def _silence_s(self, worker: WorkerHandle) -> float:
        """How long a worker may say nothing; one that drains does so until it ends."""
        if worker.is_leaving:
            return stop_seconds(self.force.settings)
        return _SILENT_SECONDS_MAX

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
        self._log.info("ready", workers=len(self.workers), generation=self.force.generation)
        systemd.notify("READY=1")
        self._was_ready = True
        self._tell_status()

    async def _stop(self) -> None:
        """Let every worker drain; end what is left after that."""
        self.is_stopping = True
        systemd.notify("STOPPING=1")
        self._log.info("stopping")
        for worker in self.workers:
            await worker.dismiss()
        with trio.move_on_after(stop_seconds(self.force.settings)):
            for worker in self.workers:
                while worker.process is not None:  # noqa: ASYNC110
                    await trio.sleep(0.02)
        for worker in self.workers:
            if worker.process is not None:
                self._log.error("worker_killed", worker=worker.index)
                worker.process.kill()
        for companion in self.companions:
            await companion.stop()
