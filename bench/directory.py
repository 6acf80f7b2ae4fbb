"""``make bench-directory``: a directory of national size: built, looked up, opened, changed.

25 million persons and 250 million lines, synthetic. Each part can be run alone (``--only``), on
what an earlier one left in ``--data``, where its own figures stay too; ``--resume`` takes over the
figures of parts that were run there before. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import directory_built, directory_changed, directory_looked, kept, machine, parts
from bench.parts import Bound, least, most
from bench.world import BenchError

PERSONS, PERSONS_SMALL = 25_000_000, 1_000_000
DISK_BYTES_EACH = 1_200
"""Of a person: the text, what is sorted, the directory that is built and that of another form."""


FIGURES: dict[str, Bound] = {
    "build_minutes": most(15),
    "build_rss_mib": most(600),
    "size_gib": most(6),
    "lookup_warm_us": most(3),
    "lookup_batch_p99_us": most(600),
    "open_ms": most(50),
    "full_check_minutes": most(10),
    "changes_per_s": least(2_000),
    "batch_changes_per_s": least(30_000),
    "serve_p99_ratio": most(1.5),
    "growth_ratio": most(2),
}
"""Every figure that a full run must have, and what it is to be on the reference machine."""

Part = Callable[[directory_built.Ground], dict[str, Any]]

PARTS: dict[str, Part] = {
    "build": directory_built.measure_build,
    "size": directory_built.measure_size,
    "open": directory_looked.measure_open,
    "lookup": directory_looked.measure_look_up,
    "batch": directory_changed.measure_batch,
    "online": directory_changed.measure_online,
    "beside": directory_changed.measure_beside,
    "check": directory_built.measure_check,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--persons", type=int, default=PERSONS, help="%(default)s")
    parser.add_argument("--small", type=int, default=PERSONS_SMALL, help="to compare: %(default)s")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; repeatable")
    parser.add_argument("--quick", action="store_true", help="100,000 persons; nothing is kept")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where to work, and what stays there"
    )
    parser.add_argument(
        "--resume", action="store_true", help="take the figures of parts that --data has"
    )
    arguments = parser.parse_args()
    if arguments.resume and arguments.data is None:
        parser.error("--resume needs --data")
    if arguments.quick:
        arguments.persons, arguments.small = 100_000, 20_000
    folder = arguments.data or Path(tempfile.mkdtemp(prefix="ksz-directory-"))
    names = arguments.only or list(PARTS)
    ground = directory_built.Ground(folder.absolute(), arguments.persons, arguments.small)
    try:
        needed = DISK_BYTES_EACH * arguments.persons
        is_built = arguments.resume and directory_built.lines_of(ground.directory) > 0
        parts.check_room(folder, needed if "build" in names and not is_built else 0)
        result = run(ground, {name: PARTS[name] for name in names}, resume=arguments.resume)
    except BenchError as error:
        print(f"bench-directory: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.data is None:
            shutil.rmtree(folder, ignore_errors=True)
    missed, missing = parts.judged(FIGURES, result)
    for name in missed:
        print(f"{name} = {result[name]} is not what it is to be", flush=True)
    if arguments.persons == PERSONS and not arguments.only:
        if missing:
            print(f"nothing is kept: {', '.join(missing)} could not be measured", flush=True)
        else:
            kept.keep(result)
    print(json.dumps(result))
    return 0


def run(
    ground: directory_built.Ground, wanted: Mapping[str, Part], *, resume: bool
) -> dict[str, Any]:
    """Run parts one after the other and return the figures of all of them.

    Raises:
        BenchError: one cannot be run, or what it ran broke.
    """
    measured = parts.run(
        ground.folder,
        {name: partial(part, ground) for name, part in wanted.items()},
        form=f"{ground.persons}-{ground.persons_small}",
        resume=resume,
    )
    figures, flushes = measured.figures, measured.flushes_ms or machine.flush_ms(ground.folder)
    return {
        "bench": "directory",
        "persons": ground.persons,
        "lines": directory_built.lines_of(ground.directory),
        **{name: figures.pop(name) for name in FIGURES if name in figures},
        **figures,
        "parts": list(wanted),
        "seconds": measured.seconds,
        "flush_p50_ms": round(statistics.median(flushes), 3),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(ground.folder),
        "versions": machine.versions()
        | {name: metadata.version(name) for name in ("pyarrow", "numpy")},
    }


if __name__ == "__main__":
    sys.exit(main())
