"""``make fuzz``: mutated conversations into the engine and into a router that runs, then atheris.

The last line is a JSON object; the exit code is 0 only if everything held. The targets run where
atheris is installed, each for the seconds given; CONTRIBUTING.md says how.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from contrib.fuzz import engine, live, targets
from contrib.stand import Stand, free_ports


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=100_000, help="of each (%(default)s)")
    parser.add_argument("--live", type=int, help="mutants for the live router (as --mutants)")
    parser.add_argument("--seconds", type=int, default=20, help="per atheris target (%(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="(today's)")
    options = parser.parse_args()
    found: dict[str, Any] = {"fuzz": "mutations", "seed": options.seed, "mutants": options.mutants}
    print(f"seed {options.seed}", flush=True)
    found["engine"] = dict(engine.run(options.mutants, options.seed))
    print(json.dumps(found["engine"]), flush=True)
    count = options.mutants if options.live is None else options.live
    found["live"] = run_live(count, options.seed)
    print(json.dumps(found["live"]), flush=True)
    found["atheris"] = run_atheris(options.seconds)
    print(json.dumps(found))
    return 0 if all(code == 0 for code in found["atheris"].values()) else 1


def run_live(count: int, seed: int) -> dict[str, Any]:
    """Make a router in a folder of its own and let the storm loose on it."""
    folder = Path(tempfile.mkdtemp(prefix="ksz-router-fuzz-"))
    good, hostile = ports = (free_ports(1)[0], free_ports(1)[0])
    endpoints = {live.GOOD_SOURCE: good, live.HOSTILE_SOURCE: hostile}
    try:
        stand = Stand.make(
            folder / "stand",
            institutions=live.INSTITUTIONS,
            endpoints=endpoints,
            options=live.OPTIONS,
        )
        stand.start()
        try:
            tally = trio.run(live.Storm(stand, count=count, seed=seed, ports=ports).run)
        finally:
            stand.stop()
        stand.command("log", "verify", "--config", stand.config)
        live.judge_events(stand.output)
    finally:
        shutil.rmtree(folder)
    return live.shown(tally)


def run_atheris(seconds: int) -> dict[str, int]:
    """Run every target for so long; return their exit codes, 0 where nothing was found."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed; its targets are left out", flush=True)
        return {}
    codes = {}
    for name in targets.NAMES:
        with tempfile.TemporaryDirectory(prefix="ksz-router-fuzz-") as scratch:
            corpus = targets.CORPUS / name
            command = [sys.executable, "-m", f"contrib.fuzz.{name}", f"-max_total_time={seconds}"]
            command += ["-max_len=8192", "-verbosity=0", scratch, str(corpus)]
            codes[name] = subprocess.run(command, check=False).returncode
        print(f"{name}: exit code {codes[name]}", flush=True)
    return codes


if __name__ == "__main__":
    sys.exit(main())
