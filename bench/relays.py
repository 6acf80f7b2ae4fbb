"""The relays that stand beside the router in ``bench-peers``: HAProxy, nats-server, the bare one.

Each is started on loopback, and shows and presents the router's own certificate; the first two with
one configuration of ``bench/peers/``.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from bench.world import CENTRE, CONSULTATION, SOURCE, BenchError
from contrib.stand import ROOT, free_ports
from ksz_router.tls import ALPN

TEMPLATES = Path(__file__).with_name("peers")
THREADS = 2
"""Of each peer; the router has as many workers, which each have one connection to the source."""

SUBJECT = f"source.{CONSULTATION[0]}"
INBOXES = f"_INBOX.{CENTRE}."
_NUMBER, _TOKEN = "0000", "00000000"
_READY_S, _STOP_S = 20.0, 20.0


class Started(NamedTuple):
    """The processes of the relays, each with those that it started."""

    haproxy: int
    nats: int
    bare: int


class Relays:
    """HAProxy and the bare relay in front of a source, and nats-server, which a source has to dial.

    Attributes:
        haproxy_port, nats_port, bare_port: Where they listen.
        bare_line: The command that starts the bare relay.
        haproxy_config, nats_config: What they are started with; written at once.
    """

    def __init__(self, folder: Path, *, tls: Path, source_port: int, keys: Path) -> None:
        """Write their configurations, and start nothing.

        Args:
            folder: Where all that they read and print goes.
            tls: The folder of a test PKI.
            source_port: Of the source behind HAProxy and the bare relay.
            keys: Of the privacy log, for what the bare relay writes.
        """
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(exist_ok=True)
        self.haproxy_port, self.nats_port, self.bare_port = free_ports(3)
        both = folder / "router.pem"
        both.write_bytes((tls / "router.crt").read_bytes() + (tls / "router.key").read_bytes())
        both.chmod(0o600)
        words: dict[str, object] = {
            "threads": THREADS,
            "certificate": tls / "router.crt",
            "key": tls / "router.key",
            "certificate_and_key": both,
            "authorities": tls / "authorities.pem",
            "alpn": ALPN,
            "source_port": source_port,
            "requester": f"urn:kbo:{CENTRE}",
            "source": f"urn:kbo:{SOURCE}",
            "subject": SUBJECT,
            "inboxes": INBOXES,
        }
        self.haproxy_config = self._write("haproxy.cfg", words | {"port": self.haproxy_port})
        self.nats_config = self._write("nats.conf", words | {"port": self.nats_port})
        bare = (self.bare_port, source_port, f"urn:kbo:{SOURCE}", tls, folder / "log", keys)
        self.bare_line = [sys.executable, "-m", "bench.bare", *map(str, bare)]

    def start(self) -> Started:
        """Start all of them.

        Raises:
            BenchError: one is not installed, or does not start.
        """
        haproxy, nats = program("haproxy"), program("nats-server")
        lines = (
            ([haproxy, "-db", "-f", str(self.haproxy_config)], self.haproxy_port),
            ([nats, "-c", str(self.nats_config)], self.nats_port),
            (self.bare_line, self.bare_port),
        )
        environment = os.environ | {"GOMAXPROCS": str(THREADS)}
        for line, port in lines:
            with (self._folder / "output").open("ab") as output:
                process = subprocess.Popen(
                    line,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                )
            self._processes.append(process)
            self.await_port(port, process)
        return Started(*[process.pid for process in self._processes])

    def nats_source_words(self) -> dict[str, Any]:
        """What a source is to be told to serve on the NATS server, beside the port."""
        return {"speaks": "nats", "subject": SUBJECT, "connections": THREADS}

    def nats_words(self, payload_bytes: int) -> dict[str, Any]:
        """Each request has an inbox of its own, as in the client libraries of NATS."""
        inbox = f"{INBOXES}{_NUMBER}.{_TOKEN}"
        words, frame = self._publication(inbox, payload_bytes)
        return words | {"token_at": frame.index(_TOKEN.encode("ascii"))}

    def nats_one_inbox_words(self, payload_bytes: int) -> dict[str, Any]:
        """Each connection has one inbox, which the server's caches know after one request."""
        return self._publication(f"{INBOXES}{_NUMBER}", payload_bytes)[0]

    def _publication(self, inbox: str, payload_bytes: int) -> tuple[dict[str, Any], bytes]:
        """Encode a publication beforehand, and say where its inbox and its id are to be put."""
        head = f"PUB {SUBJECT} {inbox} {payload_bytes}\r\n".encode("ascii")
        frame = head + bytes(payload_bytes) + b"\r\n"
        file = self._folder / f"publication-{inbox}-{payload_bytes}"
        file.write_bytes(frame)
        return {
            "speaks": "nats",
            "port": self.nats_port,
            "inbox": INBOXES,
            "request": file,
            "inbox_at": head.index(INBOXES.encode("ascii")) + len(INBOXES),
            "id_at": len(head) + 8,
            "ticket_at": 0,
            "person_at": 0,
        }, frame

    def close(self) -> None:
        """End all of them; whoever is connected is cut off."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _write(self, name: str, words: Mapping[str, object]) -> Path:
        file = self._folder / name
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(words), encoding="utf-8")
        return file

    def await_port(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        """Wait until a relay listens; BenchError if it ends before, or does not in time."""
        ends_at = time.monotonic() + _READY_S
        while process.poll() is None and time.monotonic() < ends_at:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
        printed = (self._folder / "output").read_text(encoding="utf-8")[-2000:]
        raise BenchError(f"{process.args!r} did not start:\n{printed}")


def program(name: str) -> str:
    """Find a peer's program.

    Raises:
        BenchError: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise BenchError(f"no {name} here: install it, on Debian apt-get install {name}")
    return path


def release(name: str) -> str:
    """Return the release of a peer's program; errors as :func:`program`."""
    done = subprocess.run([program(name), "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+\.\d+\S*", done.stdout)
    return found[0] if found else done.stdout.strip()
