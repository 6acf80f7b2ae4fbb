"""``make bench-idle``: what a connection that does nothing costs a router in memory.

*Idle*: it shook hands, said its Hello and had its Welcome. *Silent*: it is open and nothing was
sent on it. Each round starts a router anew, since memory that was freed once is used again, and
takes the anonymous memory of its workers with few and with many connections: the difference by
the difference in number is the cost of one, without what the first ones cost. What the kernel
keeps for a socket is not memory of the process, and not in the figure.
"""

import argparse
import contextlib
import itertools
import json
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import kept, machine
from bench.attackers import Peer, Words, addresses
from bench.world import CENTRE, RECIPIENT, SOURCE, BenchError
from contrib.stand import Stand, StandError
from ksz_router.limits import first_byte_seconds_max

INSTITUTIONS = (SOURCE, CENTRE, RECIPIENT)
FEW, MANY = 400, 2_000
"""More silent ones than ``MANY`` could be more than one worker lets wait."""
_FILES_MIN = MANY + 512
_SETTLE_S = 2.5
_OPEN_SECONDS_MAX = 120.0
_OPENED_AT_ONCE = 16
_OPENED_BETWEEN_PINGS = 100
_OPTIONS: dict[str, dict[str, object]] = {
    "connections": {
        "per_institution": 4_096,
        "pending_per_address": 1_024,
        "handshakes_per_second": 2_000.0,
        "handshakes_per_second_per_address": 2_000.0,
    }
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of each; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        return _hold(**json.loads(arguments.hold))
    rounds = 1 if arguments.quick else arguments.rounds
    folder = Path(tempfile.mkdtemp(prefix="ksz-bench-", dir=arguments.folder))
    try:
        result = _bench(folder, rounds)
    except (BenchError, StandError) as error:
        print(f"bench-idle: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not arguments.quick:
        kept.keep(result)
    print(json.dumps({name: value for name, value in result.items() if name != "rounds_kib"}))
    return 0


def _bench(folder: Path, rounds: int) -> dict[str, Any]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES_MIN:
        raise BenchError(f"{_FILES_MIN} open files are needed: raise the hard limit (ulimit -Hn)")
    stand = Stand.make(
        folder / "stand", institutions=INSTITUTIONS, endpoints={}, workers=2, options=_OPTIONS
    )
    kib: dict[str, list[float]] = {"idle": [], "silent": []}
    flushes: list[float] = []
    for number in range(rounds):
        flushes += machine.flush_ms(stand.folder)
        for kind, found in kib.items():
            found.append(_measure(stand, kind))
            print(f"round {number + 1}  {kind:6} {found[-1]:6.2f} KiB a connection", flush=True)
    idle, silent = machine.spread(kib["idle"], 2), machine.spread(kib["silent"], 2)
    return {
        "bench": "idle",
        "idle_connection_kib": idle["median"],
        "silent_socket_kib": silent["median"],
        "idle_spread_kib": idle,
        "silent_spread_kib": silent,
        "connections": [FEW, MANY],
        "kernel_memory": "not in the figures",
        "flush_p50_ms": round(statistics.median(flushes), 3),
        "rounds": rounds,
        "workers": 2,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(stand.folder),
        "versions": machine.versions(),
        "rounds_kib": {kind: [round(one, 2) for one in found] for kind, found in kib.items()},
    }


def _measure(stand: Stand, kind: str) -> float:
    """Start a router, and return what one connection of a kind costs it in KiB."""
    stand.start()
    try:
        workers = _Workers(stand.worker_pids())
        with _holder(stand, kind) as holder:
            few_kib = _memory_with(holder, workers, kind, FEW)
            many_kib = _memory_with(holder, workers, kind, MANY)
    finally:
        stand.stop()
    return (many_kib - few_kib) / (MANY - FEW)


@contextlib.contextmanager
def _holder(stand: Stand, kind: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds as many connections as it is told."""
    words = {"kind": kind, "port": stand.port, "tls": str(stand.folder / "tls")}
    holder = subprocess.Popen(
        [sys.executable, __file__, "--hold", json.dumps(words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield holder
    finally:
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(_OPEN_SECONDS_MAX)


class _Workers:
    """The processes whose memory counts; made while they have no connection."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._own_sockets = sum(map(_sockets, pids))

    def connections(self) -> int:
        """How many there are now."""
        return sum(map(_sockets, self._pids)) - self._own_sockets

    def memory_kib(self) -> int:
        """What is theirs alone: heap, stacks, nothing of files."""
        return sum(map(_memory_kib, self._pids))


def _memory_with(
    holder: "subprocess.Popen[str]", workers: _Workers, kind: str, count: int
) -> float:
    """Have so many connections held, and return the workers' memory with them."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(f"{count}\n")
    if holder.stdout.readline() != f"{count}\n":
        raise BenchError("not all connections came about; the holder said why above")
    ends_s = time.monotonic() + first_byte_seconds_max
    while (held := workers.connections()) < count and time.monotonic() < ends_s:
        time.sleep(0.01)
    if kind == "idle":
        time.sleep(_SETTLE_S)  # silent ones have no time for that; they also do nothing more
    memory_kib = workers.memory_kib()
    still_held = workers.connections()
    if held < count or still_held < count:
        raise BenchError(f"of {count} {kind} connections {held}, then {still_held} were held")
    return memory_kib


def _sockets(pid: int) -> int:
    """How many sockets a worker has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += str(entry.readlink()).startswith("socket:")
    return found


def _memory_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Anonymous:", "Swap:")))


def _hold(kind: str, port: int, tls: str) -> int:
    """Open connections until there are as many as the last line of input says; stay idle."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    words = Words(port, Path(tls), Path(), 0.0)
    epoll, peers, count = select.epoll(), dict[int, Peer | socket.socket](), 0
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    places = zip(addresses(50), itertools.cycle(INSTITUTIONS), strict=False)

    def connect(place: tuple[str, str]) -> Peer | socket.socket:
        address, kbo = place
        if kind == "silent":
            return socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
        peer = Peer(words, kbo, address=address)
        peer.greet()
        return peer

    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:  # most of a handshake is waiting
        while True:
            for fd, _ in epoll.poll(-1 if len(peers) == count else 0):
                if fd != sys.stdin.fileno():
                    _keep_alive(peers[fd])
                    continue
                line = sys.stdin.readline()
                if not line:
                    return 0
                count = int(line)
            if len(peers) == count:
                continue
            wanted = min(_OPENED_BETWEEN_PINGS, count - len(peers))
            for peer in pool.map(connect, itertools.islice(places, wanted)):
                peers[peer.fileno()] = peer
                if kind != "silent":
                    epoll.register(peer.fileno(), select.EPOLLIN)
            if len(peers) == count:
                print(count, flush=True)


def _keep_alive(peer: Peer | socket.socket) -> None:
    """Answer a ping."""
    assert isinstance(peer, Peer)
    peer.events(0.0)
    peer.try_to_send(peer.connection.data_to_send())


if __name__ == "__main__":
    sys.exit(main())
