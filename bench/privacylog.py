"""``make bench-privacylog``: the figures of the privacy log, from the commit to ten years later.

Each part can be run alone (``--only``). With ``--data`` what a part leaves is kept in that folder:
its figures, and the population of ten years, which is then taken as it stands; ``--resume`` takes
over the figures of parts that were run there before. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from bench import (
    kept,
    log_archive,
    log_costs,
    log_faults,
    machine,
    parts,
    sustained,
    ten_years_asked,
)
from bench.parts import Bound, least, most
from bench.world import BenchError

DISK_BYTES = 30_000_000_000


FIGURES: dict[str, Bound] = {
    "sustained_records_per_s": least(20_000),
    "commit_p50_ms": most(1),
    "commit_p99_ms": most(10),
    "commit_p99_9_ms": most(50),
    "worker_cpu_us_per_record": most(4),
    "checkpoint_delay_p99_s": most(2),
    "bytes_per_record_truth": most(60),
    "bytes_per_record_all": most(190),
    "seal_records_per_s": least(100_000),
    "compact_records_per_s": least(1_000_000),
    "person_query_warm_ms": most(250),
    "person_query_cold_ms": most(500),
    "ticket_query_ms": most(100),
    "user_window_ms": most(300),
    "growth_ratio": most(1.3),
    "full_verify_records_per_s": least(200_000),
    "prove_ms": most(5),
    "verify_proof_ms": most(1),
    "replay_records_per_s": least(1_000_000),
    "lost_acknowledged": most(0),
    "false_records": most(0),
    "undetected_alterations": most(0),
}
"""Every figure that a full run must have, and what it is to be on the reference machine."""

NEVER = ("lost_acknowledged", "false_records", "undetected_alterations")
"""Whatever the machine: if one of these is not 0 the bench fails."""


class Part(Protocol):
    """Given a folder of its own, returns its figures and what explains them."""

    def __call__(self, folder: Path, *, quick: bool) -> dict[str, Any]: ...


def _faults(folder: Path, *, quick: bool) -> dict[str, Any]:
    if quick:
        return log_faults.trials(
            seed=1, torn_trials=100, cuts=2, flip_sample=5, every_failure=False, folder=folder
        )
    return log_faults.trials(seed=1, folder=folder)


PARTS: dict[str, Part] = {
    "costs": log_costs.measure,
    "archive": log_archive.measure,
    "years": ten_years_asked.measure,
    "faults": _faults,
    "sustained": sustained.measure,
}
KEEPS_DATA = ("years",)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is kept")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; repeatable")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where to work, and what stays there"
    )
    parser.add_argument(
        "--resume", action="store_true", help="take the figures of parts that --data has"
    )
    arguments = parser.parse_args()
    if arguments.resume and arguments.data is None:
        parser.error("--resume needs --data")
    folder = arguments.data or Path(tempfile.mkdtemp(prefix="ksz-privacylog-"))
    try:
        parts.check_room(folder, 0 if arguments.quick else DISK_BYTES)
        result = run(
            folder.absolute(),
            {name: PARTS[name] for name in arguments.only or PARTS},
            quick=arguments.quick,
            resume=arguments.resume,
        )
    except BenchError as error:
        print(f"bench-privacylog: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.data is None:
            shutil.rmtree(folder, ignore_errors=True)
    is_whole = not arguments.quick and arguments.only is None
    missed, missing = parts.judged(FIGURES, result)
    for name in missed:
        print(f"{name} = {result[name]} is not what it is to be", flush=True)
    if is_whole and not missing:
        kept.keep(result)
    print(json.dumps(result))
    return 1 if failed(result) or (is_whole and missing) else 0


def run(folder: Path, wanted: Mapping[str, Part], *, quick: bool, resume: bool) -> dict[str, Any]:
    """Run parts one after the other and return the figures of all of them.

    Raises:
        BenchError: one cannot be run, or what it ran broke.
    """
    measured = parts.run(
        folder,
        {name: partial(_placed, one, folder / name, quick) for name, one in wanted.items()},
        form="quick" if quick else "",
        resume=resume,
    )
    figures = measured.figures
    return {
        "bench": "privacylog",
        **{name: figures.pop(name) for name in FIGURES if name in figures},
        **figures,
        "quick": quick,
        "seconds": measured.seconds,
        "flush_p50_ms": round(
            statistics.median(measured.flushes_ms or machine.flush_ms(folder)), 3
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(folder),
        "versions": machine.versions()
        | {name: metadata.version(name) for name in ("pyarrow", "duckdb", "numpy")},
    }


def _placed(part: Part, place: Path, quick: bool) -> dict[str, Any]:  # noqa: FBT001  by position
    """Run a part in a folder of its own, which it finds empty unless it keeps what it made."""
    keeps = place.name in KEEPS_DATA
    if not keeps:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(exist_ok=True)
    try:
        return part(place, quick=quick)
    finally:
        if not keeps:
            shutil.rmtree(place, ignore_errors=True)


def failed(result: Mapping[str, Any]) -> bool:
    """Say whether anything was lost, made up, or altered without being noticed."""
    return any(result.get(name) for name in NEVER)


if __name__ == "__main__":
    sys.exit(main())
