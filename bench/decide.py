"""``make bench-decide``: decisions a second with their look-ups, against other decision engines.

Ours is what a worker does with a batch of 64 requests: ``Tables.look_up`` and ``decide``, one
process, about ten million persons. The others answer the same questions without looking anybody
up; that they agree is checked first. ``docs/benchmarks.md`` says more.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from bench import machine
from bench.engines import Casbin, Cedar, Question
from bench.population import PERSONS, default_place, made
from bench.ruleset import REQUESTERS, SERVICES, TODAY, USERS, uri_of, write_text
from ksz_router.codes import Code
from ksz_router.daemon.entries import EntryMaker
from ksz_router.daemon.session import Session
from ksz_router.daemon.tables import Tables
from ksz_router.daemon.worker_process import uncollected
from ksz_router.decision import Forward, decide
from ksz_router.directory import folder as directories
from ksz_router.directory.packing import unpack_key
from ksz_router.link import Link
from ksz_router.messages import Request
from ksz_router.privacylog.keys import Tokens
from ksz_router.rulebook.compile import build

RESULTS = Path(__file__).with_name("results")
BATCH = 64
REQUESTS, AGREED, THEIRS = 131_072, 4_096, 4_096
ROUNDS = 7
DRAWN = 10
"""Persons for each request that is kept: most are not known to who asks, and few of those are."""
FORWARD_SHARE = 0.8
"""Of the requests; the others are refused, for each of the reasons in ``REFUSALS``."""
REFUSALS = {
    Code.ROLE_NOT_HELD, Code.NO_ACCESS_RIGHT, Code.ACCESS_RIGHT_NOT_IN_FORCE,
    Code.SERVICE_NOT_IN_ACCESS_RIGHT, Code.AUTHENTICATION_TOO_WEAK, Code.NO_GRANT,
    Code.CAPACITY_NOT_GRANTED, Code.GRANT_NOT_IN_FORCE, Code.PERSON_NOT_INTEGRATED,
    Code.PERIOD_NOT_COVERED, Code.PERSON_CANCELLED, Code.NO_SOURCE_KNOWS_THE_PERSON,
}  # fmt: skip

Batch = list[tuple[Session, Request]]
Engines = dict[str, Cedar | Casbin]


class DecideError(Exception):
    """The bench cannot be run, or what it compares is not the same."""


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
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{result['date']}-decide.json"
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"kept in {file}")
    print(json.dumps(result))
    return 0


def _bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    engines: Engines = {"cedar": Cedar(), "casbin": Casbin()}
    directory = arguments.directory or default_place(arguments.folder, arguments.persons)
    made_s = made(directory, arguments.persons)
    write_text(folder / "text")
    manifest, _ = build(folder / "text", folder / "store", now_ns=time.time_ns())
    dice = random.Random(1)
    numbers = persons(directory, arguments.requests * DRAWN, dice)
    with uncollected():  # as in a worker
        entries = EntryMaker(cast("Tokens", None), lambda: time.time_ns() // 1000)
        tables = Tables(folder / "store", manifest.name, directory, entries)
        batches, refused = _mix(tables, numbers, arguments.requests, dice)
    try:
        agreed = check_agreement(tables, batches[: AGREED // BATCH], engines)
        print(f"all three agree on {agreed} requests; {len(refused)} kinds of refusal", flush=True)
        rounds = _rounds(tables, batches, engines, arguments.rounds)
        lines = tables.directory.lines_count
    finally:
        tables.close()
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
        "refused": dict(sorted(refused.items())),
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


def persons(directory: Path, count: int, dice: random.Random) -> list[str]:
    """Return numbers from all over the directory, drawn; the same for the same dice."""
    environment = directories.open_environment(directories.current(directory))
    found: list[str] = []
    try:
        known = environment.open_db(directories.PERSONS, create=False)
        with environment.begin(known) as view, view.cursor() as cursor:
            while len(found) < count:
                day = dice.randrange(100) * 10_000 + dice.randrange(1, 13) * 100
                near = (day + dice.randrange(1, 29)) * 100_000 + dice.randrange(100_000)
                if cursor.set_range(near.to_bytes(5, "big")):
                    found.append(unpack_key(cursor.key()))
    finally:
        environment.close()
    return found


def _mix(
    tables: Tables, numbers: Sequence[str], count: int, dice: random.Random
) -> tuple[list[Batch], Counter[str]]:
    """Draw requests until there are enough that pass and enough that do not.

    Returns:
        Batches in random order, and how many are refused for what.

    Raises:
        DecideError: the persons are too few, or a reason to refuse never came up.
    """
    sessions = {kbo: _session(kbo) for kbo, _ in USERS}
    wanted = round(count * FORWARD_SHARE)
    passed: Batch = []
    others: Batch = []
    refused: Counter[str] = Counter()
    candidates = _requests(numbers, sessions, dice)
    while len(passed) < wanted or len(others) < count - wanted:
        batch = [one for one, _ in zip(candidates, range(BATCH), strict=False)]
        if not batch:
            raise DecideError("there are too few persons; name a larger directory")
        for one, facts in zip(batch, tables.look_up(batch, 0), strict=True):
            verdict = decide(one[1], facts, TODAY)
            if isinstance(verdict, Forward):
                if len(passed) < wanted:
                    passed.append(one)
            elif len(others) < count - wanted:
                others.append(one)
                refused[verdict.code.name] += 1
    missing = {code.name for code in REFUSALS} - refused.keys()
    if missing:
        raise DecideError(f"no request is refused for {', '.join(sorted(missing))}")
    every = passed + others
    dice.shuffle(every)
    return [every[at : at + BATCH] for at in range(0, count, BATCH)], refused


def _session(kbo: str) -> Session:
    """A session that nobody is at the other end of: a look-up asks it for its URI only."""
    return Session(cast("Link", None), uri_of(kbo), 0)


def _requests(
    numbers: Sequence[str], sessions: dict[str, Session], dice: random.Random
) -> Iterator[tuple[Session, Request]]:
    """Most as they should be but for the person; of others one thing is wrong."""
    users = [
        (user, row) for user, row in USERS.items() for _ in range(1 if row[1].end < TODAY else 8)
    ]
    services = list(SERVICES)
    for number, person in enumerate(numbers):
        (kbo, user), (asks, right) = dice.choice(users)
        service = dice.choice(right.services or services)
        role, capacity, level = (asks.sector, asks.type), asks.capacity, right.level
        fault = dice.randrange(40)
        if fault == 0:
            other = dice.choice(REQUESTERS)
            role = other.sector, other.type
        elif fault == 1:
            capacity += 1
        elif fault == 2:
            level = 0
        elif fault == 3:
            service = dice.choice(services)
        elif fault == 4:
            user = dice.choice(users)[0][1]
        day = dice.randrange(2016, 2026) * 10_000 + dice.randrange(1, 13) * 100 + 1
        asked = day if dice.random() < 0.5 else None
        yield (
            sessions[kbo],
            Request(
                id=number, service=service, version=1, ticket=f"bench-{number}", user=user,
                means="eid", level=level, sector=role[0], type=role[1], capacity=capacity,
                person=person, begin=asked, end=asked, payload=bytes(300),
            ),
        )  # fmt: skip


def check_agreement(tables: Tables, batches: Sequence[Batch], engines: Engines) -> int:
    """See that every engine says of each request what ours says; return how many they were.

    Raises:
        DecideError: one does not.
    """
    checked = 0
    for batch in batches:
        found = tables.look_up(batch, 0)
        verdicts = [decide(one[1], facts, TODAY) for one, facts in zip(batch, found, strict=True)]
        questions = _questions(tables, batch)
        for name, engine in engines.items():
            judged = _judge(engine, [engine.prepare(question) for question in questions])
            for verdict, passes in zip(verdicts, judged, strict=True):
                if isinstance(verdict, Forward) != passes:
                    raise DecideError(f"{name} disagrees: ours is {verdict!r}")
        checked += len(batch)
    return checked


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
    now_ms = 1_780_000_000_000
    look_up_ns = decide_ns = count = 0
    for batch in batches:
        began = clock()
        found = look_up(batch, now_ms)
        between = clock()
        verdicts = [
            decide(request, facts, TODAY) for (_, request), facts in zip(batch, found, strict=True)
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
