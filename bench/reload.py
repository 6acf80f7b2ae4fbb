"""``make bench-reload``: load rulebooks, certificates and configurations, good and bad, under load.

The generator sends at moments fixed beforehand, whatever the router does, and counts every answer
by its request: none may be missing, and none may come twice. Every reload is checked against what
it should have come to. ``docs/benchmarks.md`` says more.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.world import BenchError, World, finish
from contrib.stand import Stand, StandError

OFFERED_PER_S = 2_000
CONNECTIONS, OUTSTANDING = 32, 64
WARMUP_S = 1.0
_SECONDS_MAX = 90.0


class Change:
    """One thing to reload, what the report must say of its part, and how to undo it."""

    def __init__(self, part: str, outcome: str, files: list[Path], do: Callable[[], None]) -> None:
        self.part, self.outcome = part, outcome
        self._files, self._do = files, do

    def reload(self, stand: Stand) -> float:
        """Change, reload and check the report; return the seconds that the reload took.

        Raises:
            BenchError: the report says something else.
        """
        kept = {file: file.read_bytes() for file in self._files}
        self._do()
        began = time.monotonic()
        parts = stand.reload()["reload"]
        seconds = time.monotonic() - began
        for file, content in kept.items():
            file.write_bytes(content)
        found = {name: part["outcome"] for name, part in parts.items()}
        if found != {**dict.fromkeys(found, "unchanged"), self.part: self.outcome}:
            raise BenchError(f"{self.part} should be {self.outcome}: {parts}")
        return seconds


def changes(stand: Stand) -> list[Change]:
    """Each part, good and bad; the good ones differ every time."""
    config, active, tls = stand.config, stand.store / "active", stand.folder / "tls"
    text = stand.folder / "rulebook-text" / "institutions" / "requesters.toml"
    counter = itertools.count(1)

    def new_rulebook() -> None:
        before, _, after = text.read_text(encoding="utf-8").partition('name = "')
        name = f"Zandbergen {next(counter)}"
        text.write_text(f'{before}name = "{name}"{after.partition(chr(34))[2]}', encoding="utf-8")
        stand.activate_rulebook()

    def comment(file: Path) -> Callable[[], None]:
        def do() -> None:
            file.write_bytes(f"number {next(counter)}\n".encode() + file.read_bytes())

        return do

    def overwrite(file: Path, content: bytes) -> Callable[[], None]:
        def do() -> None:
            file.write_bytes(content)

        return do

    def window() -> None:
        config.write_text(f"{base}\n[windows]\nsource = {1024 - next(counter)}\n")

    base, name = config.read_text(encoding="utf-8"), active.read_bytes()
    return [
        Change("rulebook", "changed", [], new_rulebook),
        Change("rulebook", "refused", [active], overwrite(active, b"0" * len(name))),
        Change("certificates", "changed", [], comment(tls / "authorities.pem")),
        Change("certificates", "refused", [tls / "router.key"], overwrite(tls / "router.key", b"")),
        Change("configuration", "changed", [], window),
        Change("configuration", "refused", [config], overwrite(config, b"[nonsense")),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of six reloads each (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ksz-reload-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments.rounds)
    except (BenchError, StandError) as error:
        print(f"bench-reload: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))
    return 1 if result["lost"] or result["doubled"] or result["worker_restarts"] else 0


def _bench(folder: Path, rounds: int) -> dict[str, Any]:
    world = World(folder, options={})
    try:
        world.stand.start()
        generator = world.generate(
            payload_bytes=300, connections=CONNECTIONS, outstanding=OUTSTANDING,
            rate=OFFERED_PER_S, seconds=0, warmup=WARMUP_S,
        )  # fmt: skip
        assert generator.stdout is not None
        if generator.stdout.readline() != "begin\n":
            raise BenchError("the generator ended early; it said why above")
        began = time.monotonic()
        took = []
        every = changes(world.stand)
        for number in range(rounds):
            took += [change.reload(world.stand) for change in every]
            print(f"round {number + 1}: {len(took)} reloads", flush=True)
        seconds = time.monotonic() - began
        restarts = sum(worker["restarts"] for worker in world.status()["workers"])
        generator.terminate()
        report = finish(generator, _SECONDS_MAX)
        world.check_source()
    finally:
        world.close()
    return {
        "bench": "reload",
        "reloads": len(took),
        **{name: report[name] for name in ("lost", "doubled")},
        "not_answered_with_data": report["wrong"],
        "codes": report["codes"],
        "connections_closed": report["closed"],
        "worker_restarts": restarts,
        "offered_per_s": OFFERED_PER_S,
        "exchanges_per_s": round(report["window_answers"] / max(0.001, seconds)),
        "p99_ms": round(report["latency_us"].get("p99", 0.0) / 1e3, 2),
        "longest_reload_s": round(max(took), 2),
        "seconds": round(seconds),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(folder),
        "versions": machine.versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
