"""What a figure depends on and must be told with: machine, versions, flush time, other load."""

import os
import platform
import ssl
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from ksz_router import __version__

_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = 4096
_FLUSHES = 100
SCRAPE_SECONDS = 5.0


def describe(folder: Path) -> dict[str, str | int]:
    """Return what this machine is, and on which file system ``folder`` stands."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(": ")[2] for line in info if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    return {
        "processor": models[0] if models else platform.machine(),
        "processors": os.cpu_count() or 0,
        "memory_gib": round(memory_kib / 1024**2),
        "kernel": platform.release(),
        "file_system": _file_system(folder),
    }


def versions() -> dict[str, str]:
    """Return the releases of all that the router runs on."""
    names = ("trio", "msgspec", "lmdb", "cryptography")
    return {
        "ksz_router": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: metadata.version(name) for name in names},
    }


def processes_under(pid: int) -> list[int]:
    """Return a process and all that it started, and those these started."""
    found = [pid]
    for one in found:
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            for task in tasks:
                found += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:
            continue  # it ended meanwhile
    return found


def cpu_us(pids: Iterable[int]) -> float:
    """Return the microseconds of processor time, user and system, that processes used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * _TICK_US


def busy_us() -> float:
    """Return the microseconds that all processors were busy so far, stolen time included."""
    line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line)
    return (user + nice + system + irq + softirq + steal) * _TICK_US


def flush_ms(folder: Path) -> list[float]:
    """Time ``fdatasync`` after 4 KiB each into a file that was filled before; milliseconds."""
    file = folder / "flush"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(_FLUSHES * _PAGE_BYTES), 0)
        os.fsync(descriptor)
        times = []
        for n in range(_FLUSHES):
            os.pwrite(descriptor, b"\1" * _PAGE_BYTES, n * _PAGE_BYTES)
            began = time.perf_counter()
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(descriptor)
        file.unlink()
    return times


class Scraper:
    """Reads the metrics of every worker every five seconds, as Prometheus would."""

    def __init__(self, ports: Iterable[int]) -> None:
        self.scrapes = 0
        self._urls = [f"http://127.0.0.1:{port}/metrics" for port in ports]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop scraping."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(SCRAPE_SECONDS):
            for url in self._urls:
                with urllib.request.urlopen(url, timeout=SCRAPE_SECONDS) as answer:
                    answer.read()
            self.scrapes += 1


def spread(values: Iterable[float], digits: int = 1) -> dict[str, float]:
    """Return median, least and most."""
    ordered = sorted(values)
    median = statistics.median(ordered)
    return {
        "median": round(median, digits),
        "min": round(ordered[0], digits),
        "max": round(ordered[-1], digits),
    }


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: the mount with the longest path wins."""
    place, best = str(folder.resolve()), ("", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, kind = line.split()[:3]
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
