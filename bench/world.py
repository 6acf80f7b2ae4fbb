"""What both benches start from: a router, a source, and a load on them.

The load and the source are one C program, ``bench/load/``, compiled on the spot. That takes a C
compiler and OpenSSL's headers (on Debian: build-essential, libssl-dev); the router needs neither.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from contrib.stand import Stand, free_ports
from ksz_router.directory import loader
from ksz_router.directory.synthesise import write_csv
from ksz_router.limits import frame_length_bytes, ticket_chars_max
from ksz_router.messages import Request

SOURCE, CENTRE, RECIPIENT = "0999010126", "0999016460", "0999013688"
USER = "85073099734"
SECTOR, TYPE, CAPACITY = 17, 1, 2
CONSULTATION, SUBMISSION = ("UnemploymentData", 3), ("A036", 1)
PERSONS = 30_000
SEED = 1

_HERE = Path(__file__).parent
_OPEN = "1,2015-01-01,,2015-01-01"
_KNOWN_TO_BOTH = (f"17,1,2,{_OPEN}", f"18,0,1,{_OPEN}")
_ID, _TICKET, _PERSON = 0x7F00_0001, "bench-" + "#" * (ticket_chars_max - 6), "@" * 11
_SECONDS_MAX = 30.0


class BenchError(Exception):
    """The bench cannot be run, or what it ran broke. The message says what to do."""


def compile_load(folder: Path) -> Path:
    """Compile ``load/`` and return the program.

    Raises:
        BenchError: there is no compiler, or OpenSSL's headers are missing.
    """
    sources = sorted((_HERE / "load").glob("*.c"))
    return _compile(sources, folder / "load", libraries=("-lssl", "-lcrypto", "-lm"))


def compile_shim(folder: Path) -> Path:
    """Compile ``no_flush.c`` and return the library for ``LD_PRELOAD``; errors as above."""
    return _compile([_HERE / "no_flush.c"], folder / "no_flush.so", options=("-shared", "-fPIC"))


def _compile(
    sources: Sequence[Path],
    target: Path,
    *,
    options: tuple[str, ...] = (),
    libraries: tuple[str, ...] = (),
) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("no C compiler here: install build-essential and libssl-dev")
    line = [compiler, "-O2", "-Wall", "-Wextra", *options, "-o", str(target), *map(str, sources)]
    done = subprocess.run([*line, *libraries], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{target.name} does not compile; is libssl-dev there?\n{done.stderr}")
    return target


class World:
    """A stand with a directory made for the benches, its source running.

    Attributes:
        stand: The router; made, not started.
        source_port: Where the source listens.
        persons: How many persons may be asked about.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, Mapping[str, object]],
        seen: Path | None = None,
        received: Path | None = None,
        others: Mapping[str, int] | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        """Make all of it but start nothing but the source.

        Args:
            folder: Where everything goes.
            options: Sections of the configuration that are not as in a stand.
            seen: Where the source keeps the exchange ids of its deliveries.
            received: Where the recipient of submissions keeps its deliveries; without it none runs.
            others: Ports of further sources, by KBO number, which the caller provides for.
            lines: What the directory says of every person besides.
        """
        self.folder = folder
        self.load = compile_load(folder)
        ports = free_ports(2)
        self.stand = Stand.make(
            folder / "stand",
            institutions=[SOURCE, CENTRE, RECIPIENT, *(others or {})],
            endpoints={SOURCE: ports[0], RECIPIENT: ports[1], **(others or {})},
            workers=2,
            options={"archive": {"sealing": True}, **options},
        )
        numbers = _write_persons(folder / "persons.csv", (*_KNOWN_TO_BOTH, *lines))
        loader.load(folder / "persons.csv", self.stand.directory)
        self.persons = len(numbers)
        (folder / "numbers").write_text("".join(numbers), encoding="ascii")
        self.source_port = ports[0]
        self._sources: list[subprocess.Popen[str]] = []
        self.source = self.provide(SOURCE, ports[0], seen)
        self.recipient = self.provide(RECIPIENT, ports[1], received) if received else None

    def generate(
        self, *, payload_bytes: int, submits: bool = False, **words: object
    ) -> "subprocess.Popen[str]":
        """Start a generator; see ``load/load.c`` for its words and what it prints."""
        file = self.folder / f"request-{payload_bytes}-{submits}"
        frame, places = request_frame(payload_bytes, submits=submits)
        file.write_bytes(frame)
        all_words: dict[str, object] = {
            "port": self.stand.port,
            "request": file,
            "persons": self.folder / "numbers",
            "payload_bytes": payload_bytes,
            **places,
            **words,
        }
        line = [f"{name}={value}" for name, value in all_words.items()]
        return self._start("generate", [*line, *self._tls(CENTRE)])

    def provide(
        self, kbo: str, port: int, seen: Path | None = None, **words: object
    ) -> "subprocess.Popen[str]":
        """Start a source, which :meth:`close` ends; see ``load/load.c`` for further words.

        Raises:
            BenchError: it ended, or is not ready.
        """
        line = [f"port={port}", *(f"{name}={value}" for name, value in words.items())]
        line += [f"seen={seen}"] if seen is not None else []
        source = self._start("provide", [*line, *self._tls(kbo)])
        self._sources.append(source)
        assert source.stdout is not None
        if source.stdout.readline() != "ready\n":
            raise BenchError("a source did not start")
        return source

    def check_source(self) -> None:
        """Raise BenchError if a source ended: what was measured without it means nothing."""
        for source in self._sources:
            if source.poll() is not None:
                raise BenchError(f"a source ended with {source.returncode}")

    def close(self) -> None:
        """End the sources, and the router if it still runs."""
        for source in self._sources:
            if source.poll() is None:
                source.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    source.wait(_SECONDS_MAX)
                source.kill()
        if self.stand.process is not None:
            self.stand.stop()

    def status(self) -> dict[str, Any]:
        """Ask the router how it is, without starting a process; empty where none answers."""
        return ask_status(self.stand)

    def _start(self, verb: str, words: list[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.load), verb, *words], stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def _tls(self, kbo: str) -> list[str]:
        identity = self.stand.identity(kbo)
        return [
            f"certificate={identity.certificate}",
            f"key={identity.key}",
            f"authorities={identity.authorities}",
        ]


def ask_status(stand: Stand) -> dict[str, Any]:
    """Ask a router how it is, without starting a process; empty where none answers."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5.0)
            sock.connect(str(stand.folder / "admin.sock"))
            sock.sendall(b'{"verb":"status"}\n')
            data = b""
            while not data.endswith(b"\n"):
                chunk = sock.recv(65_536)
                if not chunk:
                    return {}
                data += chunk
    except OSError:
        return {}
    return dict(json.loads(data))


def finish(process: "subprocess.Popen[str]", seconds_max: float) -> dict[str, Any]:
    """Read what a load program prints last, and wait for its end.

    Raises:
        BenchError: it failed; it said why on standard error.
    """
    assert process.stdout is not None
    timer = threading.Timer(seconds_max, process.kill)
    timer.start()
    with process.stdout as output:
        printed = output.read()  # communicate() would miss what came with the line before
    process.wait()
    timer.cancel()
    if process.returncode or not printed:
        raise BenchError(f"the load program ended with {process.returncode}")
    return dict(json.loads(printed.splitlines()[-1]))


def request_frame(payload_bytes: int, *, submits: bool = False) -> tuple[bytes, dict[str, int]]:
    """Return a whole frame, and where in it correlation id, ticket and person are to be put.

    And for a submission, where in its payload the number goes that tells it from the others.
    """
    service, version = SUBMISSION if submits else CONSULTATION
    request = Request(
        id=0,
        service=service,
        version=version,
        ticket="",
        user=USER,
        means="eid",
        level=4,
        sector=SECTOR,
        type=TYPE,
        capacity=CAPACITY,
        payload=bytes(payload_bytes),
    )
    frame, places = framed(request)
    number = {"number_at": len(frame) - payload_bytes} if submits else {}
    return frame, number | places


def framed(request: Request) -> tuple[bytes, dict[str, int]]:
    """Return the frame of a request with another id, ticket and person put in, and where."""
    request = msgspec.structs.replace(request, id=_ID, ticket=_TICKET, person=_PERSON)
    body = msgspec.msgpack.encode(request)
    frame = len(body).to_bytes(frame_length_bytes, "big") + body
    return frame, {
        "id_at": frame.index(_ID.to_bytes(4, "big")),
        "ticket_at": frame.index(_TICKET.encode()) + len("bench-"),
        "person_at": frame.index(_PERSON.encode()),
    }


def _write_persons(file: Path, known: Sequence[str]) -> list[str]:
    """Write a synthetic directory in which every active person may be asked about.

    The population is that of ``directory synthesise``; each active person is known to the
    requester and to the source besides. Returns the numbers of those.
    """
    text = io.StringIO()
    write_csv(text, persons=PERSONS, seed=SEED)
    text.seek(0)
    active: list[str] = []
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write(text.readline())
        out.write(text.readline())
        places = {tuple(line.split(",")[:3]) for line in known}
        places |= {(sector, "", capacity) for sector, _, capacity in places}
        for row in _without_lines(text, places):
            out.write(",".join(row) + "\n")
            if row[1] == "active" and len(active) < PERSONS:
                active.append(row[0])
                out.writelines(f"{row[0]},,,,{line}\n" for line in known)
    return active


def _without_lines(text: io.StringIO, places: Collection[tuple[str, ...]]) -> Iterator[list[str]]:
    """Leave out what the lines that are written take the place of."""
    for row in csv.reader(text):
        if row[1] or tuple(row[4:7]) not in places:
            yield row
