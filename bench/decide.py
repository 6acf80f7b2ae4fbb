"""``make bench-decide``: decisions a second with their look-ups, against other decision engines.

Ours is what a worker does with a batch of 64 requests: ``Tables.look_up`` and ``decide``, one
process, about ten million persons. The others answer the same questions without looking anybody
up; that they agree is checked first. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import msgspec

from bench import kept, machine
from bench.engines import Casbin, Cedar, Question
from bench.population import PERSONS, default_place, made
from bench.questions import BATCH, FORWARD_SHARE, Batch, DecideError, mixed, persons
from bench.ruleset import TODAY, write_text
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.uncollected import uncollected
from ksz_router.days import brussels_midnight_ns
from ksz_router.decision import Forward, decide
from ksz_router.messages import Request
from ksz_router.privacylog.keys import Tokens
from ksz_router.rulebook.compile import build

REQUESTS, AGREED, AGREED_OF_REASON, THEIRS = 131_072, 4_096, 200, 4_096
ROUNDS = 7
Engines = dict[str, Cedar | Casbin]

NOW_MS = brussels_midnight_ns(TODAY) // 1_000_000
"""A moment of the day on which everything is judged."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--persons", type=int, default=PERSONS, help="%(default)s")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="2 rounds; nothing is kept")
    parser.add_argument("--folder", type=Path, help="where to work; choose a real disk")
    parser.add_argument(
        "--directory", type=Path, help="the person directory; made where there is none, and left"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 2
    folder = Path(tempfile.mkdtemp(prefix="ksz-decide-", dir=arguments.folder))
    try:
        result = _bench(folder, arguments)
    except DecideError as error:
        print(f"bench-decide: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        mend = "install requirements/bench.txt with pip, as `make bench-decide` does"
        print(f"bench-decide: {error.name} is missing: {mend}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whole = (arguments.persons, arguments.requests) == (PERSONS, REQUESTS)
    if whole and not arguments.quick:
        kept.keep(result)
    print(json.dumps(result))
    return 0


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    engines: Engines = {"cedar": Cedar(), "casbin": Casbin()}
    directory = arguments.directory or default_place(arguments.folder, arguments.persons)
    made_s = made(directory, arguments.persons)
    numbers = persons(directory, arguments.requests)
    with opened(folder, directory) as tables:
        with uncollected():  # as in a worker
            batches, refused = mixed(tables, numbers, arguments.requests)
        some = [one for batch in batches[: AGREED // BATCH] for one in batch]
        some += [one for of in refused.values() for one in of[:AGREED_OF_REASON]]
        agreed = check_agreement(tables, some, engines)
        print(f"all three agree on {agreed} requests; {len(refused)} kinds of refusal", flush=True)
        rounds = _rounds(tables, batches, engines, arguments.rounds)
        lines = tables.directory.lines_count
    ours = [one["ours"] for one in rounds]
    return {
        "bench": "decide",
        "ours_per_s": round(1e6 / statistics.median(ours)),
        **{
            f"vs_{name}": round(statistics.median(one[name] / one["ours"] for one in rounds), 1)
            for name in engines
        },
        "us": {name: machine.spread((one[name] for one in rounds), 2) for name in rounds[0]},
        "persons": arguments.persons,
        "lines": lines,
        "requests": arguments.requests,
        "forwarded_share": FORWARD_SHARE,
        "refused": {name: len(refused[name]) for name in sorted(refused)},
        "agreed": agreed,
        "directory_made_s": round(made_s),
        "rounds": arguments.rounds,
        "time": "of the processor",
        "flush_p50_ms": round(statistics.median(machine.flush_ms(folder)), 3),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(directory),
        "versions": machine.versions()
        | {name: metadata.version(name) for name in ("cedarpy", "pycasbin")},
    }


@contextmanager
def opened(folder: Path, directory: Path) -> Iterator[Tables]:
    """Compile the rules in ``folder``, and open them and the directory as a worker does."""
    write_text(folder / "text")
    manifest, _ = build(folder / "text", folder / "store", now_ns=time.time_ns())
    entries = EntryMaker(cast("Tokens", None), lambda: time.time_ns() // 1000)
    tables = Tables(folder / "store", manifest.name, directory, entries)
    try:
        yield tables
    finally:
        tables.close()


def check_agreement(tables: Tables, requests: Batch, engines: Engines) -> int:
    """See that every engine says of each request what ours says; return how many they were.

    Raises:
        DecideError: one does not.
    """
    found = tables.look_up(requests, NOW_MS)
    verdicts = [decide(one[1], facts, TODAY) for one, facts in zip(requests, found, strict=True)]
    questions = _questions(tables, requests)
    for name, engine in engines.items():
        judged = _judge(engine, [engine.prepare(question) for question in questions])
        for verdict, passes in zip(verdicts, judged, strict=True):
            if isinstance(verdict, Forward) != passes:
                raise DecideError(f"{name} disagrees: ours is {verdict!r}")
    return len(requests)


def _questions(tables: Tables, batch: Batch) -> list[Question]:
    kbos = [session.uri.rpartition(":")[2] for session, _ in batch]
    known = tables.directory.look_up([request.person for _, request in batch])
    return [
        (kbo, request, person) for kbo, (_, request), person in zip(kbos, batch, known, strict=True)
    ]


def _judge(engine: Cedar | Casbin, prepared: Sequence[Any]) -> list[bool]:
    judged: list[bool] = []
    for at in range(0, len(prepared), engine.batch):
        judged += engine.judge(prepared[at : at + engine.batch])
    return judged


def _rounds(
    tables: Tables, batches: Sequence[Batch], engines: Engines, count: int
) -> list[dict[str, float]]:
    """Time all in turn; microseconds of the processor per decision."""
    some = [one for batch in batches[: THEIRS // BATCH] for one in _questions(tables, batch)]
    prepared = {
        name: [engine.prepare(question) for question in some] for name, engine in engines.items()
    }
    _time_ours(tables, batches)  # brings the persons into the page cache
    rounds = []
    for number in range(count):
        measured = _time_ours(tables, batches)
        for name, engine in engines.items():
            began = time.process_time()
            _judge(engine, prepared[name])
            measured[name] = (time.process_time() - began) * 1e6 / len(some)
        rounds.append(measured)
        figures = "  ".join(f"{name} {value:.2f} µs" for name, value in measured.items())
        print(f"round {number + 1}  {figures}", flush=True)
    return rounds


def _time_ours(tables: Tables, batches: Sequence[Batch]) -> dict[str, float]:
    """Look up and decide everything once; microseconds for each request."""
    look_up, clock = tables.look_up, time.process_time_ns
    look_up_ns = decide_ns = count = 0
    for batch in batches:
        # As a worker has them, they were decoded a moment ago.
        asked = [(session, _decode(_encode(request))) for session, request in batch]
        began = clock()
        found = look_up(asked, NOW_MS)
        between = clock()
        verdicts = [
            decide(request, facts, TODAY) for (_, request), facts in zip(asked, found, strict=True)
        ]
        ended = clock()
        look_up_ns += between - began
        decide_ns += ended - between
        count += len(verdicts)
    return {
        "ours": (look_up_ns + decide_ns) / 1e3 / count,
        "look_up": look_up_ns / 1e3 / count,
        "decide": decide_ns / 1e3 / count,
    }


if __name__ == "__main__":
    sys.exit(main())
