"""Consultations at a steady rate beside something else, and what they took.

Each is timed from the moment at which it was due. Generator and source are those of ``bench/load``,
each a process in C, so that little of what is measured is their own.
"""

import array
import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.runs import await_line
from bench.world import CENTRE, SOURCE, BenchError, compile_load, finish, request_frame
from contrib.stand import Stand
from ksz_router.directory.synthesise import landmarks

ASKED = landmarks(1)["answered"]
PAYLOAD_BYTES = 300
CONNECTIONS = 16
WINDOW_SECONDS = 20.0

_WARMUP_SECONDS = 2.0
_DRAIN_SECONDS_MAX = 60.0


class Turn(NamedTuple):
    """What consultations took for a while, in milliseconds."""

    ms: list[float]
    """Of each, in the order in which they were answered."""
    late_p99_ms: float
    """How late the generator itself was: it is part of the above."""
    router_p99_ms: float
    """What the router says of itself; the rest is waiting to be read, and both ends of TLS."""


class Traffic:
    """Consultations at a steady rate, by a generator and a source that are no Python.

    Args:
        folder: Where the programs and what they write go.
        port: Where the stand looks for the source.
    """

    def __init__(self, folder: Path, stand: Stand, port: int, rate: float) -> None:
        self._folder, self._stand, self._rate = folder, stand, rate
        self._load = compile_load(folder)
        frame, self._places = request_frame(PAYLOAD_BYTES)
        (folder / "request").write_bytes(frame)
        (folder / "asked").write_text(ASKED, encoding="ascii")
        self._count = 0
        self._source = self._start("provide", SOURCE, port=port)
        await_line(self._source, "ready")

    @contextlib.contextmanager
    def going_on(self, kept: list[Turn]) -> Iterator[None]:
        """Ask as long as the context lasts; keep what it took.

        Raises:
            BenchError: something was not answered, or not with data.
        """
        self._count += 1
        file = self._folder / "latencies"
        generator = self._start(
            "generate",
            CENTRE,
            port=self._stand.port,
            request=self._folder / "request",
            persons=self._folder / "asked",
            payload_bytes=PAYLOAD_BYTES,
            **self._places,
            connections=CONNECTIONS,
            rate=self._rate,
            seconds=0,
            warmup=_WARMUP_SECONDS,
            seed=self._count,
            latencies=file,
        )
        await_line(generator, "begin")
        try:
            yield
        finally:
            generator.send_signal(signal.SIGTERM)
        await_line(generator, "end")
        report = finish(generator, _DRAIN_SECONDS_MAX)
        if report["wrong"] or report["lost"] or report["unsent"]:
            raise BenchError(f"consultations were not answered: {report['codes']}")
        nanoseconds = array.array("I", file.read_bytes())
        late_ms, router_ms = (report[name]["p99"] / 1e3 for name in ("late_us", "router_us"))
        kept.append(Turn([value / 1e6 for value in nanoseconds], late_ms, router_ms))

    def close(self) -> None:
        """End the source."""
        self._source.send_signal(signal.SIGTERM)
        self._source.wait(_DRAIN_SECONDS_MAX)

    def _start(self, verb: str, kbo: str, **words: object) -> "subprocess.Popen[str]":
        identity = self._stand.identity(kbo)
        words |= {
            "certificate": identity.certificate,
            "key": identity.key,
            "authorities": identity.authorities,
        }
        line = [str(self._load), verb, *(f"{name}={value}" for name, value in words.items())]
        return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, bufsize=1)


def p99(milliseconds: Sequence[float]) -> float:
    """Of what was answered."""
    return sorted(milliseconds)[int(len(milliseconds) * 0.99)]


def together(turns: Sequence[Turn]) -> list[float]:
    """What each took of all turns."""
    return [ms for turn in turns for ms in turn.ms]


def described(name: str, turns: Sequence[Turn], rate: float) -> dict[str, object]:
    """Of all turns together; and the p99 of each window, so that the spread is seen."""
    window = int(rate * WINDOW_SECONDS)
    ordered = sorted(together(turns))
    windows = [
        turn.ms[begin : begin + window]
        for turn in turns
        for begin in range(0, max(1, len(turn.ms) - window // 2), window)
    ]
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    return {
        f"{name}_ms": {
            share: round(ordered[int(len(ordered) * part)], 2) for share, part in shares.items()
        },
        f"{name}_p99_ms": [round(p99(one), 2) for one in windows],
        f"{name}_late_p99_ms": [round(turn.late_p99_ms, 2) for turn in turns],
        f"{name}_router_p99_ms": [round(turn.router_p99_ms, 2) for turn in turns],
    }
