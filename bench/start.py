"""``make bench-start``: how long a router of national size takes from its exec to ready.

Ten million persons, 100,000 grants, two workers, after a clean stop, with a warm page cache. Ready
is when the supervisor says so: every worker has its log, its tables and its listener.
``docs/benchmarks.md`` says more.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import kept, machine
from bench.large import INSTITUTIONS, SERVICES, write_text
from bench.population import PERSONS, default_place, made
from bench.world import CENTRE, SOURCE, BenchError, ask_status
from contrib.stand import ROOT, Stand, StandError, free_ports
from ksz_router.limits import log_file_bytes

GRANTS, WORKERS = 100_000, 2
ROUNDS = 5
_LOOK_SECONDS = 0.005
_READY_SECONDS_MAX, _PREPARED_SECONDS_MAX = 60.0, 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--persons", type=int, default=PERSONS, help="%(default)s")
    parser.add_argument("--grants", type=int, default=GRANTS, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of two starts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    parser.add_argument(
        "--directory", type=Path, help="the person directory; made where there is none, and left"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 2
    folder = Path(tempfile.mkdtemp(prefix="ksz-start-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments)
    except (BenchError, StandError) as error:
        print(f"bench-start: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if (arguments.persons, arguments.grants) == (PERSONS, GRANTS) and not arguments.quick:
        kept.keep(result)
    print(json.dumps(result))
    return 0


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    directory = arguments.directory or default_place(arguments.folder, arguments.persons)
    directory = directory.absolute()
    made_s = made(directory, arguments.persons)
    print(f"compiling a rulebook of {arguments.grants:,} grants", flush=True)
    write_text(folder / "text", arguments.grants)
    stand = Stand.make(
        folder / "stand",
        institutions=[CENTRE, SOURCE],
        endpoints={SOURCE: free_ports(1)[0]},
        workers=WORKERS,
        text=folder / "text",
        options={
            "tables": {"directory": str(directory)},
            "privacy_log": {"file_bytes": log_file_bytes},  # the default; a stand has less
        },
    )
    began = time.monotonic()
    stand.command("rulebook", "build", folder / "text", "--store", folder / "timed")
    compile_s = time.monotonic() - began
    print(f"compiled in {compile_s:.1f} s", flush=True)
    run_once(stand, waits=True)  # brings everything into the page cache
    prepared, unprepared, flushes = [], [], []
    for number in range(arguments.rounds):
        flushes += machine.flush_ms(stand.log)
        prepared.append(run_once(stand, waits=False))
        unprepared.append(run_once(stand, waits=True))
        print(
            f"round {number + 1}  {prepared[-1]['seconds']:.2f} s, "
            f"{prepared[-1]['cpu_s']:.2f} s of processors; with no file prepared "
            f"{unprepared[-1]['seconds']:.2f} s, {unprepared[-1]['cpu_s']:.2f} s",
            flush=True,
        )
    return {
        "bench": "start",
        "start_s": round(statistics.median(one["seconds"] for one in prepared), 2),
        "spread_s": machine.spread((one["seconds"] for one in prepared), 2),
        "cpu_s": machine.spread((one["cpu_s"] for one in prepared), 2),
        "unprepared_s": machine.spread((one["seconds"] for one in unprepared), 2),
        "unprepared_cpu_s": machine.spread((one["cpu_s"] for one in unprepared), 2),
        "page_cache": "warm",
        "persons": arguments.persons,
        "grants": arguments.grants,
        "institutions": INSTITUTIONS,
        "services": SERVICES,
        "workers": WORKERS,
        "compile_s": round(compile_s, 1),
        "directory_made_s": round(made_s),
        "flush_p50_ms": round(statistics.median(flushes), 3),
        "rounds": arguments.rounds,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(stand.log),
        "versions": machine.versions(),
    }


def run_once(stand: Stand, *, waits: bool) -> dict[str, float]:
    """Start, measure and stop; ``waits`` until every worker has prepared its next file.

    A router does that in the first quarter of a minute, so only one that was stopped sooner leaves
    its successor a file to fill before it is ready.

    Raises:
        BenchError: it was not ready in time, ended with an error, or prepared no file.
    """
    line = [sys.executable, "-m", "ksz_router", "run", "--config", str(stand.config)]
    with stand.output.open("ab") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            line, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        ends_at = began + _READY_SECONDS_MAX
        while not ask_status(stand).get("is_ready"):
            if process.poll() is not None or time.monotonic() > ends_at:
                raise BenchError(f"the router is not ready:\n{stand.output.read_text()[-2000:]}")
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        cpu_s = machine.cpu_us(machine.processes_under(process.pid)) / 1e6
        if waits:
            _await_prepared(stand)
        process.send_signal(signal.SIGTERM)
        if process.wait(_READY_SECONDS_MAX):
            raise BenchError(f"the router ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return {"seconds": seconds, "cpu_s": cpu_s}


def _await_prepared(stand: Stand) -> None:
    ends_at = time.monotonic() + _PREPARED_SECONDS_MAX
    while not all((stand.log / f"w{n}" / "prepared").exists() for n in range(WORKERS)):
        if time.monotonic() > ends_at:
            raise BenchError("the workers prepared no file")
        time.sleep(0.1)
    os.sync()  # what others left to be written is not this start's


if __name__ == "__main__":
    sys.exit(main())
