"""Durable changes a second through a whole router: TLS, control, record, one writer, answer.

    python -m bench.directory_online --seconds 10

Requesters inscribe over several connections at once, as fast as they are answered; each change is a
submission that is recorded twice and durable in the directory before its answer. Generator, router
and writer share the machine. The last line is JSON.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import trio

from bench.machine import cpu_us, describe, flush_ms, processes_under
from contrib.stand import ROUTER_URI, Stand
from ksz_router.codes import Code
from ksz_router.directory.synthesise import landmarks
from ksz_router.sdk import Client, Request, new_ticket, open_client
from ksz_router.sdk import directory as d

CENTRE = "0999016460"
USER = "85073099734"
CONNECTIONS = 4
ASKERS = 96


class Load:
    """What was asked and how it went."""

    def __init__(self) -> None:
        self.changes = 0
        self.others: dict[str, int] = {}
        self.seconds: list[float] = []
        self.is_over = False


def persons_of(stand: Stand) -> list[str]:
    """Numbers in use of the stand's directory."""
    rows = (stand.folder / "persons.csv").read_text(encoding="utf-8").splitlines()[2:]
    fields = (row.split(",") for row in rows)
    return [row[0] for row in fields if row[1] == "active"] or [landmarks(1)["answered"]]


async def change(client: Client, persons: list[str], load: Load, dice: random.Random) -> None:
    """Inscribe days that nobody else of this run takes, one change after the other."""
    while not load.is_over:
        day = dice.randrange(1900, 2000) * 10_000 + dice.randrange(1, 13) * 100
        day += dice.randrange(1, 29)
        envelope = Request(
            id=0, service="", version=0, ticket=new_ticket(), user=USER, sector=17, type=1,
            capacity=dice.randrange(1, 10),
        )  # fmt: skip
        asked = d.inscribe(envelope, dice.choice(persons), begin=day, end=day)
        begun = time.perf_counter()
        answer = await client.ask(asked)
        load.seconds.append(time.perf_counter() - begun)
        told = d.told_of(answer)
        if answer.code == Code.ANSWERED_WITH_DATA:
            load.changes += 1
        else:
            name = told.reason if told is not None else Code(answer.code).name
            load.others[name] = load.others.get(name, 0) + 1


async def run(stand: Stand, seconds: float) -> tuple[Load, float]:
    """Return what was done in so many seconds, and how long it took."""
    load, persons = Load(), persons_of(stand)
    dice = random.Random(1)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def connection() -> None:
            async with (
                open_client(
                    stand.identity(CENTRE), host="127.0.0.1", port=stand.port, uri=ROUTER_URI
                ) as client,
                trio.open_nursery() as askers,
            ):
                for _ in range(ASKERS):
                    askers.start_soon(change, client, persons, load, dice)

        for _ in range(CONNECTIONS):
            nursery.start_soon(connection)
        await trio.sleep(seconds)
        load.is_over = True
    return load, time.perf_counter() - began


def main() -> int:
    """Make a stand, load it, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--persons", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ksz-router-directory-") as folder:
        stand = Stand.make(
            Path(folder), institutions=[CENTRE], endpoints={}, workers=2,
            persons=arguments.persons, serves_directory=True,
        )  # fmt: skip
        on = describe(Path(folder))
        stand.start()
        try:
            assert stand.process is not None
            programs = {p["name"]: p["pid"] for p in stand.status()["programs"]}
            pids = processes_under(stand.process.pid)
            before, writer_before = cpu_us(pids), cpu_us([programs["directory"]])
            own = time.process_time()
            load, took_s = trio.run(run, stand, arguments.seconds)
            own = time.process_time() - own
            used, by_writer = cpu_us(pids) - before, cpu_us([programs["directory"]]) - writer_before
            flush = flush_ms(Path(folder))
        finally:
            stand.stop()
    ordered = sorted(load.seconds)
    found = {
        "bench": "directory_online",
        "changes_per_s": round(load.changes / took_s),
        "answer_p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "answer_p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 1),
        "not_changes": load.others,
        "router_cpu_us_per_change": round(used / max(1, load.changes)),
        "of_it_directory_program": round(by_writer / max(1, load.changes)),
        "generator_cpu_us_per_change": round(own * 1e6 / max(1, load.changes)),
        "flush_ms": round(sorted(flush)[len(flush) // 2], 3),
        "load_average": os.getloadavg()[0],
        **on,
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
