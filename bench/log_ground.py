"""A log and its programs, each a process of its own, and what is seen of them from outside."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from bench.world import BenchError
from ksz_router import __version__, config
from ksz_router.daemon import control
from ksz_router.limits import log_file_bytes
from ksz_router.privacylog.archive.manifest import Manifest
from ksz_router.privacylog.archive.seal import LEAVES_READY

SLOTS = ("w0", "w1")
_NODE, _ORIGIN = "bench", "bench.example/privacylog"
_STOP_SECONDS_MAX, _CATCH_UP_SECONDS_MAX = 60.0, 600.0
_LOOK_SECONDS, _LOOK_AT_SEALED_SECONDS = 0.01, 1.0

Array = npt.NDArray[np.int64]
_decode_manifest = msgspec.json.Decoder(Manifest).decode


class Program(NamedTuple):
    """The sequencer or the sealer, and what it takes orders by."""

    process: "subprocess.Popen[bytes]"
    channel: socket.socket


class Loaded(NamedTuple):
    """What the writers of one step did."""

    records: int
    seconds: float
    cpu_s: float
    commit_us: Array
    ended_ns: Array
    waited_us: Array
    groups: dict[str, tuple[Array, Array]]
    """Of each slot: when each group was durable, and the number of its last record."""


class Ground:
    """A log, its archive, their keys and programs, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.archive = folder / "log", folder / "archive"
        self.keys = folder / "keys" / "log"
        self.config = folder / "router.toml"
        self._programs: dict[str, Program] = {}
        self._next_record = dict.fromkeys(SLOTS, 0)
        self._steps = 0
        folder.mkdir(parents=True, exist_ok=True)
        _command("keys", "quarter", "--folder", self.keys)
        _command("keys", "checkpoint", "--folder", folder / "keys" / "tree", "--origin", _ORIGIN)
        sections: dict[str, dict[str, object]] = {
            "node": {"name": _NODE},
            "privacy_log": {
                "path": str(self.log),
                "keys": str(self.keys),
                "file_bytes": log_file_bytes,
            },
            "archive": {
                "path": str(self.archive),
                "last_checkpoint": str(folder / "last-checkpoint"),
                "keys": str(folder / "keys" / "tree"),
                "origin": _ORIGIN,
                "keep_days": 0.0,
            },
            "ledger": {"window_hours": 0.1},
            "metrics": {"port": 0},
        }
        text = ""
        for section, fields in sections.items():
            text += f"[{section}]\n"
            text += "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
        self.config.write_text(text, encoding="utf-8")
        self.log.mkdir()
        self.archive.mkdir()

    def start(self, program: str) -> None:
        """Start the sequencer or the sealer as the supervisor does."""
        ours, theirs = control.pair()
        with (self.folder / f"{program}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"ksz_router.daemon.{program}_process",
                 __version__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        theirs.close()
        ours.send(msgspec.json.encode(control.Begin(config.load(self.config), "")))
        self._programs[program] = Program(process, ours)

    def stop(self, program: str) -> None:
        """Stop it as the supervisor does.

        Raises:
            BenchError: it had ended before, or ends with an error.
        """
        process, channel = self._programs.pop(program)
        ended = process.poll()
        if ended is None:
            channel.send(msgspec.json.encode(control.Stop()))
        code = process.wait(_STOP_SECONDS_MAX)
        channel.close()
        if ended is not None or code:
            said = (self.folder / f"{program}.out").read_text(encoding="utf-8")[-2000:]
            raise BenchError(f"the {program} ended with {code}:\n{said}")

    def kill(self) -> None:
        """End whatever runs."""
        for process, channel in self._programs.values():
            process.kill()
            process.wait()
            channel.close()

    def load(self, rate: float, seconds: float, group_min: int = 1) -> Loaded:
        """Put a load of so many records a second on the log, with two writers.

        Raises:
            BenchError: a writer ended early.
        """
        self._steps += 1
        outs = {slot: self.folder / f"{self._steps}-{slot}.npz" for slot in SLOTS}
        writers = {
            slot: self._writer(slot, rate / len(SLOTS), seconds, group_min, outs[slot])
            for slot in SLOTS
        }
        try:
            for writer in writers.values():
                _line(writer, "ready")
            for writer in writers.values():
                assert writer.stdin is not None
                writer.stdin.write("\n")
                writer.stdin.flush()
            said = [json.loads(_line(writer)) for writer in writers.values()]
            for writer in writers.values():
                writer.wait(_STOP_SECONDS_MAX)
        finally:
            for writer in writers.values():
                writer.kill()
                writer.wait()
        return self._loaded(said, outs)

    def _writer(
        self, slot: str, rate: float, seconds: float, group_min: int, out: Path
    ) -> "subprocess.Popen[str]":
        words = {
            "log": self.log,
            "keys": self.keys,
            "slot": slot,
            "node": _NODE,
            "rate": rate,
            "seconds": seconds,
            "group-min": group_min,
            "file-bytes": log_file_bytes,
            "seed": self._steps * 10 + SLOTS.index(slot),
            "out": out,
        }
        line = [f"--{name}={value}" for name, value in words.items()]
        return subprocess.Popen(
            [sys.executable, "-m", "bench.log_load", *line],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _loaded(self, said: Sequence[dict[str, Any]], outs: dict[str, Path]) -> Loaded:
        groups, found = {}, []
        for slot, out in outs.items():
            with np.load(out) as arrays:
                one = {name: arrays[name].astype(np.int64) for name in arrays.files}
            out.unlink()
            last = self._next_record[slot] + np.cumsum(one["records"]) - 1
            groups[slot] = one["ended_ns"], last
            self._next_record[slot] = int(last[-1]) + 1
            found.append(one)
        return Loaded(
            records=sum(one["records"] for one in said),
            seconds=max(one["seconds"] for one in said),
            cpu_s=sum(one["cpu_s"] for one in said),
            commit_us=np.concatenate([one["commit_us"] for one in found]),
            ended_ns=np.concatenate([one["ended_ns"] for one in found]),
            waited_us=np.concatenate([one["waited_us"] for one in found]),
            groups=groups,
        )

    def cpu_s(self) -> dict[str, float]:
        """Seconds of processor time of each program so far."""
        return {name: _cpu_s(one.process.pid) for name, one in self._programs.items()}


class Watch:
    """Sees each checkpoint as it is published, and how far the sealer is.

    Attributes:
        checkpoints: Unix nanoseconds and size of the tree.
        sealed: Unix nanoseconds and leaves that are sealed.
    """

    def __init__(self, archive: Path) -> None:
        self.checkpoints: list[tuple[int, int]] = []
        self.sealed: list[tuple[int, int]] = [(time.time_ns(), 0)]
        self._archive = archive
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join()

    @property
    def backlog(self) -> int:
        """Leaves under the newest checkpoint that are not sealed."""
        return (self.checkpoints[-1][1] if self.checkpoints else 0) - self.sealed[-1][1]

    def await_signed(self, records: int) -> float:
        """Wait until so many records are under a checkpoint; return the seconds.

        Raises:
            BenchError: it takes too long.
        """
        return self._await(lambda: bool(self.checkpoints) and self.checkpoints[-1][1] >= records)

    def await_sealed(self, records: int) -> float:
        """Wait until of so many records only as many are left as the sealer lets wait."""
        return self._await(lambda: self.sealed[-1][1] > records - LEAVES_READY)

    def _await(self, is_done: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not is_done():
            if time.monotonic() - began > _CATCH_UP_SECONDS_MAX:
                raise BenchError(
                    f"after {_CATCH_UP_SECONDS_MAX:.0f} s {self.backlog:,} leaves are not sealed"
                )
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    def _work(self) -> None:
        note = self._archive / "tree" / "checkpoint"
        manifests = self._archive / "manifest"
        seen = newest = 0
        looked = 0.0
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                stamp = note.stat().st_ino
                if stamp != seen:
                    seen = stamp
                    size = int(note.read_bytes().split(b"\n", 2)[1])
                    self.checkpoints.append((time.time_ns(), size))
            except FileNotFoundError:
                continue
            if time.monotonic() - looked > _LOOK_AT_SEALED_SECONDS:
                looked = time.monotonic()
                while (file := manifests / f"{newest + 1:06d}.json").exists():
                    newest += 1
                    sealed = _decode_manifest(file.read_bytes()).sealed_leaves
                    self.sealed.append((time.time_ns(), sealed))


def _line(process: "subprocess.Popen[str]", expected: str = "") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().rstrip("\n")
    if not line or (expected and line != expected):
        raise BenchError("a writer ended early; it said why above")
    return line


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _command(*words: object) -> None:
    line = [sys.executable, "-m", "ksz_router", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(line)}: {done.stderr}")
