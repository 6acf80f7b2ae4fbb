"""A whole router in one folder, for the demonstration, the benches and the tests.

Everything in it is made with the commands an operator would use: a test PKI, a signed rulebook,
a synthetic directory, the keys of the privacy log, a configuration. Then it can be started,
asked, reloaded, stopped and killed. Nothing in it is fit for real data.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ksz_router.sdk import Identity

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "config" / "rulebook-example"
ROUTER_URI = "urn:ksz-router:test:router"
ORIGIN = "stand.example/log"
CROSSROADS_BANK = "0999020618"
"""The router's own institution in the example: its directory program answers for it."""
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0


class StandError(Exception):
    """A command failed, or the router did not come up. The message holds what it printed."""


class Stand:
    """One router in ``folder``. Make it with :meth:`make`.

    Attributes:
        port: Where institutions connect.
        metrics_port: Of worker 0; the others follow, then sequencer, sealer and directory.
        log: The privacy log's folder.
        archive: Of its order, tree and sealed files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.metrics_port = 0
        self.config = folder / "router.toml"
        self.log = folder / "privacylog"
        self.archive = folder / "archive"
        self.last_checkpoint = folder / "last-checkpoint"
        self.keys = folder / "keys" / "privacylog"
        self.checkpoint_keys = folder / "keys" / "checkpoint"
        self.store = folder / "rulebook"
        self.directory = folder / "directory"
        self.output = folder / "router.out"
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        institutions: Iterable[str],
        endpoints: Mapping[str, int],
        workers: int = 1,
        persons: int = 100,
        seed: int = 1,
        text: Path = EXAMPLE,
        options: Mapping[str, Mapping[str, object]] | None = None,
        serves_directory: bool = False,
    ) -> "Stand":
        """Make everything a router needs, and start nothing.

        Args:
            folder: Made where it is missing, else empty.
            institutions: KBO numbers that get a certificate, ``urn:kbo:<number>``.
            endpoints: KBO number of a source → the port on 127.0.0.1 where it will listen.
            workers: How many worker processes.
            persons: Size of the synthetic directory.
            seed: Of the synthetic directory.
            text: Folder of the rulebook's text; copied, with the endpoints put in.
            options: Sections and fields of the configuration that differ. Without any, nothing
                is sealed.
            serves_directory: Whether the directory program runs, so that institutions can change
                the directory.
        """
        stand = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"--institution={kbo}=urn:kbo:{kbo}" for kbo in institutions]
        if serves_directory:
            names.append(f"--institution=directory=urn:kbo:{CROSSROADS_BANK}")
            port = free_ports(1)[0]
            endpoints = {CROSSROADS_BANK: port, **endpoints}
            serving = {"serving": True, "port": port}
            telling = {"application": "00901000303", "legal_framework": "KSZ:NUMBERS"}
            options = {"directory": serving, "notices": telling, **(options or {})}
        stand.command("keys", "testpki", folder / "tls", *names)
        stand.command("keys", "signer", "--out", folder / "keys" / "rulebook-signer")
        stand.command("keys", "quarter", "--folder", stand.keys)
        keys = stand.checkpoint_keys
        stand.command("keys", "checkpoint", "--folder", keys, "--origin", ORIGIN)
        shutil.copytree(text, folder / "rulebook-text")
        stand._point_sources(endpoints)
        stand.activate_rulebook()
        csv = folder / "persons.csv"
        stand.command("directory", "synthesise", "--persons", persons, "--seed", seed, "--out", csv)
        stand.command("directory", "load", csv, "--directory", stand.directory)
        stand._write_config(workers, options or {})
        return stand

    def command(self, *words: object, accept: Sequence[int] = (0,)) -> str:
        """Run ``ksz-router`` with these words and return what it printed.

        Raises:
            StandError: its exit code is none of ``accept``.
        """
        line = [sys.executable, "-m", "ksz_router", *map(str, words)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in accept:
            raise StandError(f"{' '.join(line)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def activate_rulebook(self) -> str:
        """Build the text as it is now, sign and activate it; return the generation's name."""
        printed = self.command(
            "rulebook", "build", self.folder / "rulebook-text", "--store", self.store, "--json"
        )
        name = str(json.loads(printed)["manifest"]["name"])
        key = self.folder / "keys" / "rulebook-signer"
        self.command("rulebook", "activate", name, "--store", self.store, "--key", key)
        return name

    def identity(self, kbo: str) -> Identity:
        """The certificate of an institution, for the SDK."""
        tls = self.folder / "tls"
        return Identity(
            certificate=tls / f"{kbo}.crt",
            key=tls / f"{kbo}.key",
            authorities=tls / "authorities.pem",
        )

    def start(self, *, before: Sequence[str] = ()) -> None:
        """Start the router and wait until every worker is ready.

        Args:
            before: A command that starts the router, such as ``prlimit --nofile=256``.

        Raises:
            StandError: it ended, or was not ready in time.
        """
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "ksz_router", "run", "--config", str(self.config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every worker is ready; errors as :meth:`start`."""
        ends_at = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < ends_at:
            if self.process is not None and self.process.poll() is not None:
                break
            status = self.status()
            if status.get("is_ready"):
                return
        raise StandError(f"the router is not ready:\n{self.output.read_text()[-4000:]}")

    def status(self) -> dict[str, Any]:
        """Ask the running router how it is; empty where none answers."""
        printed = self.command("status", "--config", self.config, "--json", accept=(0, 1))
        return dict(json.loads(printed)) if printed else {}

    def worker_pids(self) -> list[int]:
        """The processes of the workers."""
        return [worker["pid"] for worker in self.status().get("workers", ()) if worker["pid"]]

    def reload(self) -> dict[str, Any]:
        """Reload as SIGHUP does, and return the status with what was refused."""
        printed = self.command(
            "status", "--reload", "--socket", self.folder / "admin.sock", "--json", accept=(0, 1)
        )
        return dict(json.loads(printed))

    def stop(self) -> int:
        """Stop as systemd would; return the exit code.

        Raises:
            StandError: it did not end in time.
        """
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise StandError("the router did not stop") from None
        self.process = None
        return code

    def kill(self) -> None:
        """Kill the supervisor; the workers notice and end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _point_sources(self, endpoints: Mapping[str, int]) -> None:
        """Put the ports into the rulebook's text."""
        file = self.folder / "rulebook-text" / "institutions" / "sources.toml"
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            for kbo, port in endpoints.items():
                if line == f'uri = "urn:kbo:{kbo}"' and lines[number - 1].startswith("port"):
                    lines[number - 2 : number] = ['host = "127.0.0.1"', f"port = {port}"]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _write_config(self, workers: int, options: Mapping[str, Mapping[str, object]]) -> None:
        self.port, self.metrics_port = free_ports(1)[0], free_ports(workers + 3)[0]
        sections: dict[str, dict[str, object]] = {
            "node": {"name": "stand", "workers": workers},
            "listen": {"port": self.port},
            "tls": {},
            "tables": {"rulebook": "rulebook", "directory": "directory"},
            "directory": {"mailboxes": "mailboxes"},
            "ledger": {"path": "ledger"},
            "privacy_log": {"path": "privacylog", "file_bytes": 4 * 1024 * 1024},
            "archive": {
                "path": self.archive.name,
                "last_checkpoint": self.last_checkpoint.name,
                "origin": ORIGIN,
                "sealing": False,
            },
            "metrics": {"port": self.metrics_port},
            "admin": {"socket": "admin.sock"},
        }
        for section, fields in options.items():
            sections.setdefault(section, {}).update(fields)
        text = ""
        for section, fields in sections.items():
            text += f"[{section}]\n"
            text += "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
        self.config.write_text(text, encoding="utf-8")


def free_ports(count: int) -> list[int]:
    """Return ports in a row on which nobody listens, and that no other process is given.

    Below the range from which the kernel takes the local ends of connections, so that none of
    them takes the place meanwhile. They are this process's until it ends.
    """
    first = 10_000 + os.getpid() * 37 % 20_000
    for _ in range(500):
        first = 10_000 + (first + 61 - 10_000) % 20_000
        if all(_take(first + n) for n in range(count)):
            return list(range(first, first + count))
    raise StandError("no free ports in a row")


def _take(port: int) -> bool:
    """Take a port, unless it is taken or somebody listens there.

    A name in the kernel stands for it, which goes with the process: nobody has to clean up.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0ksz-router-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()  # open until the process ends
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
