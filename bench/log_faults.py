"""``make bench-log-faults``: all that may go wrong with the disk of a privacy log, by number.

Torn writes and lost sectors, calls that fail, power cuts of a whole router, flipped bytes. Counts
what was acknowledged and lost, what is there and was never recorded, and alterations that no
verifier finds; all three must be 0. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bench import machine
from bench.log_cuts import power_cuts
from bench.log_entries import BEGIN_NS, Entries, Keys, Promises
from bench.log_failures import Failures
from bench.log_flips import Flips
from bench.log_judge import place_of
from bench.log_pipeline import SLOTS, Pipeline
from bench.log_torn import torn
from bench.powercut import CannotMountError

_NOTHING = (
    "lost_acknowledged", "false_records", "undetected_alterations", "not_located", "signed_twice",
    "refused", "faults", "failures_that_broke",
)  # fmt: skip


def trials(
    *,
    seed: int,
    torn_trials: int = 10_000,
    cuts: int = 100,
    flip_sample: int = 200,
    every_failure: bool = True,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Do all of it and return the counts, ready for the line of a bench.

    Args:
        seed: Of everything that is drawn, but for keys.
        torn_trials: Torn writes, lost sectors, kills.
        cuts: Power cuts of a router; where no image can be mounted, none.
        flip_sample: Bytes flipped of a large file with the whole of the verifiers.
        every_failure: Let each step of the disk fail; else only what the tests do.
        folder: For the disk image of the power cuts.
    """
    result: dict[str, Any] = {"seed": seed}
    with _scratch() as scratch:
        print(f"torn writes and lost sectors, seed {seed}", flush=True)
        result |= torn(scratch, torn_trials, seed)
    with _scratch() as scratch:
        print("flipped bytes", flush=True)
        result |= flips(scratch, flip_sample, seed)
    if every_failure:
        with _scratch() as scratch:
            print("steps that fail", flush=True)
            result |= Failures(scratch).every()
    if cuts:
        print("power cuts", flush=True)
        with tempfile.TemporaryDirectory(prefix="ksz-cuts-", dir=folder) as disk:
            try:
                told = power_cuts(Path(disk), cuts, seed)
            except CannotMountError as error:
                print(f"no power cuts: this machine mounts no image ({error})", file=sys.stderr)
                told = {"power_cuts": 0}
        result |= told
        result["lost_acknowledged"] += told.get("power_cuts_lost", 0)
        result["signed_twice"] += told.get("power_cuts_signed_twice", 0)
        result["faults"] += told.get("power_cuts_faults", 0)
    return result


def flips(scratch: Path, sample: int, seed: int) -> dict[str, Any]:
    """Make an archive of all kinds of files and flip its bytes; return the counts."""
    keys = Keys.drawn(scratch / "keys")
    disk = scratch / "disk"
    (disk / "state").mkdir(parents=True)
    pipeline = Pipeline(
        disk, keys, Entries(keys, Random(seed)), Promises(), now_ns=BEGIN_NS, leaves_max=2000
    )
    pipeline.start()
    for _ in range(2):
        for slot in SLOTS:
            pipeline.record(slot, 40)
        pipeline.sequence()
        pipeline.seal()
        pipeline.now_ns += 45_000_000_000  # the second is of another quarter
    pipeline.settle()
    pipeline.close()
    counts: dict[str, Any] = msgspec.to_builtins(
        Flips(place_of(disk, keys), Random(seed), sample).run()
    )
    return counts


@contextmanager
def _scratch() -> Iterator[Path]:
    """In memory, where there is such a place: nothing in it depends on a real flush."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="ksz-log-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--power-cuts", type=int, default=100, help="default %(default)s")
    parser.add_argument("--flip-sample", type=int, default=200, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--folder", type=Path, help="of the disk image; choose a real disk")
    arguments = parser.parse_args()
    result = trials(
        seed=arguments.seed,
        torn_trials=arguments.trials,
        cuts=arguments.power_cuts,
        flip_sample=arguments.flip_sample,
        folder=arguments.folder,
    )
    result |= {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": machine.versions(),
    }
    print(json.dumps({"bench": "log-faults", **result}))
    return 1 if any(result.get(name) for name in _NOTHING) else 0


if __name__ == "__main__":
    sys.exit(main())
