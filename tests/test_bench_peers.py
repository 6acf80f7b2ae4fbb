"""What stands beside the router in ``bench-peers``: it is configured, and answers the load."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench import bare, machine, world
from bench import peers as bench
from bench import relays as beside
from contrib.stand import ROOT, free_ports
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import scan
from ksz_router.privacylog.slots import file_of, slot_folders
from ksz_router.tls import ALPN

_PATH = "/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin"
_CONNECTIONS = 3


def _is_installed(name: str) -> bool:
    return shutil.which(name) is not None or shutil.which(name, path=_PATH) is not None


HAS_HAPROXY, HAS_NATS = _is_installed("haproxy"), _is_installed("nats-server")
needs_both = pytest.mark.skipif(
    not (HAS_HAPROXY and HAS_NATS), reason="haproxy or nats-server is not installed"
)


class Ground(NamedTuple):
    """A test PKI, the load program, and a source that answers."""

    folder: Path
    tls: Path
    keys: Path
    load: Path
    source_port: int

    def line(self, verb: str, kbo: str, **words: object) -> list[str]:
        """A load program with the certificate of this institution."""
        tls = {
            "certificate": self.tls / f"{kbo}.crt",
            "key": self.tls / f"{kbo}.key",
            "authorities": self.tls / "authorities.pem",
        }
        return [str(self.load), verb, *(f"{n}={v}" for n, v in (words | tls).items())]

    def generate(self, kbo: str = world.CENTRE, **words: object) -> dict[str, Any]:
        """Put a short load on a port; what the generator counted."""
        payload_bytes = 300
        frame, places = world.request_frame(payload_bytes)
        (self.folder / "request").write_bytes(frame)
        (self.folder / "numbers").write_text("85073099734", encoding="ascii")
        all_words: dict[str, object] = {
            "request": self.folder / "request",
            "persons": self.folder / "numbers",
            "payload_bytes": payload_bytes,
            "connections": _CONNECTIONS,
            "outstanding": 4,
            "warmup": 0.05,
            "seconds": 0.2,
            **places,
            **words,
        }
        line = self.line("generate", kbo, **all_words)
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))


@contextlib.contextmanager
def _source(line: list[str]) -> Iterator[None]:
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("peers")
    try:
        load = world.compile_load(folder)
    except world.BenchError as error:
        pytest.skip(str(error).splitlines()[0])
    tls = folder / "tls"
    names = [f"--institution={kbo}=urn:kbo:{kbo}" for kbo in (world.SOURCE, world.CENTRE)]
    line = [sys.executable, "-m", "ksz_router", "keys", "testpki", str(tls), *names]
    subprocess.run(line, capture_output=True, check=True)
    keys = folder / "keys"
    line = [sys.executable, "-m", "ksz_router", "keys", "quarter", "--folder", str(keys)]
    subprocess.run(line, capture_output=True, check=True)
    made = Ground(folder, tls, keys, load, free_ports(1)[0])
    with _source(made.line("provide", world.SOURCE, port=made.source_port)):
        yield made


@pytest.fixture
def peers(ground: Ground, tmp_path: Path) -> beside.Relays:
    """All configured for the source of the ground; not started."""
    port = ground.source_port
    return beside.Relays(tmp_path, tls=ground.tls, source_port=port, keys=ground.keys)


@pytest.fixture
def started(ground: Ground, peers: beside.Relays) -> Iterator[beside.Relays]:
    """All running, a source on the NATS server too."""
    try:
        peers.start()
        words = {"port": peers.nats_port} | peers.nats_source_words()
        with _source(ground.line("provide", world.SOURCE, **words)):
            yield peers
    finally:
        peers.close()


def _answered_all(report: dict[str, Any]) -> bool:
    """Every request was answered once, with as many bytes as it had."""
    faults = ("lost", "doubled", "wrong", "broken", "closed", "unanswered")
    return report["sent"] > _CONNECTIONS and not any(report[name] for name in faults)


def test_a_source_answers_without_a_router(ground: Ground) -> None:
    """Asked directly, a source says what a router would: that is the bench's floor."""
    report = ground.generate(port=ground.source_port)
    assert _answered_all(report)
    assert report["codes"].keys() == {"10001"}


def test_the_bare_relay_records_all_that_it_passes_on(
    ground: Ground, peers: beside.Relays, tmp_path: Path
) -> None:
    """A record for each request and each reply, as the router's are; it ends with its parent."""
    with subprocess.Popen(peers.bare_line, cwd=ROOT) as relay:
        try:
            peers.await_port(peers.bare_port, relay)
            report = ground.generate(port=peers.bare_port)
            processes = machine.processes_under(relay.pid)
        finally:
            relay.terminate()
    assert _answered_all(report)
    ends_at = time.monotonic() + 10.0
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < ends_at
    found = Counter[int]()
    for slot in slot_folders(tmp_path / "log"):
        scan(file_of(slot, 1), KeyRing(ground.keys), lambda n: found.update(map(len, n.records)))
    assert len(processes) == 1 + bare.PROCESSES
    assert found == {248: report["sent"], 166: report["sent"]}


@pytest.mark.skipif(not HAS_HAPROXY, reason="haproxy is not installed")
def test_haproxy_takes_its_configuration(peers: beside.Relays) -> None:
    """And has nothing to warn of."""
    line = [beside.program("haproxy"), "-c", "-f", str(peers.haproxy_config)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not HAS_NATS, reason="nats-server is not installed")
def test_nats_server_takes_its_configuration(peers: beside.Relays) -> None:
    """As it is written for the bench."""
    line = [beside.program("nats-server"), "-t", "-c", str(peers.nats_config)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_both
def test_the_load_is_answered_through_each(ground: Ground, started: beside.Relays) -> None:
    """HAProxy hands frames on, and nats-server requests and replies, in both forms."""
    for port in (started.haproxy_port, started.bare_port):
        assert _answered_all(ground.generate(port=port))
    for words in (started.nats_words(300), started.nats_one_inbox_words(300)):
        assert _answered_all(ground.generate(**words))


@needs_both
def test_permissions_and_certificates_are_checked(ground: Ground, started: beside.Relays) -> None:
    """A source may not ask, and who shows no certificate under the authority gets nowhere."""
    with pytest.raises(AssertionError, match="Permissions Violation"):
        ground.generate(world.SOURCE, **started.nats_words(300))
    anonymous = ssl.create_default_context(cafile=str(ground.tls / "authorities.pem"))
    anonymous.check_hostname = False
    anonymous.set_alpn_protocols([ALPN])
    for port in (started.haproxy_port, ground.source_port):
        with (
            anonymous.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as tls,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            tls.recv(1)


def test_who_lacks_a_program_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the package's name, not a traceback."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(world.BenchError, match="apt-get install nats-server"):
        beside.program("nats-server")


def _measured(per_s: float, relay_us: float, lost: int = 0) -> dict[str, Any]:
    cpu_us = {"relay": relay_us, "generator": 3.0, "source": 1.0}
    tallies = {"sent": 10, "lost": lost, "doubled": 0, "wrong": 0}
    return {"per_s": per_s, "cpu_us": cpu_us, "others_cpu": 0.0, **tallies}


def test_ratios_are_ours_by_theirs() -> None:
    """Of the medians, for each peer and pattern; a loss on any way is in the sum."""
    speeds = {"router": (10, 30, 20), "haproxy": (50, 40, 10), "none": (90, 90, 90)}
    rounds = {
        (way, pattern): [_measured(s, 7.0) for s in speeds.get(way, (10, 10, 10))]
        for way in ("router", *bench.RELAYS, "none")
        for pattern in bench.PATTERNS
    }
    rounds["nats", "pipelined_2k"] = [_measured(s, 9.0, lost=1) for s in (80, 80, 90)]
    result = bench.compare(rounds)
    assert result["vs_haproxy"] == dict.fromkeys(bench.PATTERNS, 0.5)
    assert result["vs_nats"] == dict.fromkeys(bench.PATTERNS, 2.0) | {"pipelined_2k": 0.25}
    assert result["ratio_by_round"]["haproxy"]["pipelined_300"] == {
        "median": 0.75,
        "min": 0.2,
        "max": 2.0,
    }
    assert result["cpu_us_per_exchange"]["nats"]["pipelined_2k"] == 9.0
    assert result["cpu_us_per_exchange"]["generator"]["one_at_a_time"] == 3.0
    assert (result["lost"], result["doubled"], result["not_answered_with_data"]) == (3, 0, 0)
