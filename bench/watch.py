"""What goes on beside a case of abuse: who gets in, what is answered, how much is used."""

import contextlib
import os
import resource
import threading
import time
import urllib.request
from pathlib import Path

from bench import machine
from bench.attackers import Peer, Words
from bench.world import CENTRE, World

_GOOD_ADDRESS = "127.0.0.1"
_PROBE_SECONDS, _WATCH_SECONDS = 0.2, 1.0
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Watch:
    """What goes on beside a case: new connections of the good client, metrics, status, memory."""

    def __init__(self, world: World, words: Words) -> None:
        assert world.stand.process is not None
        self.handshakes_ms: list[float] = []
        self.faults: list[str] = []
        self.rss_mib: list[float] = []
        self.descriptors_left = 1 << 30
        self._world = world
        self._words = words
        self._router = world.stand.process.pid
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._probe, daemon=True),
            threading.Thread(target=self._look, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _probe(self) -> None:
        while not self._ended.wait(_PROBE_SECONDS):
            begun_s = time.perf_counter()
            try:
                peer = Peer(self._words, CENTRE, address=_GOOD_ADDRESS, seconds=5.0)
                peer.greet()
                peer.close()
            except OSError as error:
                self.faults.append(f"a good client did not get in: {error!r}")
            self.handshakes_ms.append((time.perf_counter() - begun_s) * 1e3)

    def _count_descriptors(self, pid: int) -> None:
        with contextlib.suppress(OSError):  # it ended meanwhile, which others notice
            most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            left = most - len(list(Path(f"/proc/{pid}/fd").iterdir()))
            self.descriptors_left = min(self.descriptors_left, left)

    def _look(self) -> None:
        ports = [self._world.stand.metrics_port + index for index in range(2)]
        while True:
            self.rss_mib.append(rss_mib(self._router))
            for pid in machine.processes_under(self._router):
                self._count_descriptors(pid)
            for port in ports:
                try:
                    with urllib.request.urlopen(
                        f"http://127.0.0.1:{port}/metrics", timeout=5
                    ) as answer:
                        answer.read()
                except OSError as error:
                    self.faults.append(f"no metrics: {error!r}")
            workers = self._world.status().get("workers", [])
            if len(workers) != len(ports) or any(worker["restarts"] for worker in workers):
                self.faults.append("a worker ended, or the status does not answer")
            if self._ended.wait(_WATCH_SECONDS):
                return


def rss_mib(pid: int) -> float:
    """Memory of a process and all that it started."""
    pages = 0
    for one in machine.processes_under(pid):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text("ascii").split()[1])
        except OSError:
            continue  # it ended meanwhile
    return pages * _PAGE_MIB
