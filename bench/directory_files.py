"""Mailboxes through a whole router: lines a second, and what online traffic feels of them.

    python -m bench.directory_files --persons 100000 --lines 200000

Consultations go through the router at a steady rate, each timed from the moment at which it was
due: with nothing else, then while a mailbox is applied, then with nothing else again. Every line is
judged, recorded twice and durable. Generator, source, router and writer share the machine; the
first two are those of ``bench/load``, and what the source needed is taken off. The last line is
JSON.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from bench.consulted import Traffic, Turn, described, p99, together
from bench.directory_online import CENTRE, persons_of
from bench.machine import describe, flush_ms
from bench.world import SOURCE, BenchError
from contrib.stand import ROUTER_URI, Stand, free_ports
from ksz_router.directory.mailbox_form import Head
from ksz_router.messages import Request
from ksz_router.sdk import Client, new_ticket, open_client
from ksz_router.sdk.directory_files import Receipt, answers, mailbox_of, parts_of, receipt_of

PROGRAM = "00901000101"
SECONDS_MAX = 5400.0
"""A mailbox rests while there is traffic, and longer on a machine that has other work too."""

_LOOK_SECONDS = 0.5

Found = dict[str, object]


class Offered(NamedTuple):
    """What the router is given to do."""

    lines: int
    """Of each mailbox."""
    rounds: int
    """Mailboxes, with a quiet time before the first and after each."""
    rate: float
    """Consultations a second."""
    quiet_s: float
    """How long they go on with nothing else."""


def envelope() -> Request:
    """The program of the centre."""
    return Request(
        id=0, service="", version=0, ticket=new_ticket(), application=PROGRAM, sector=17, type=1,
        capacity=0,
    )  # fmt: skip


def content(number: int, day: date, persons: Sequence[str], lines: int) -> bytes:
    """A mailbox of lines that all can be applied, if no other one inscribes the same day."""
    days = f"{day},{day}"
    rows = [
        f"{persons[n % len(persons)]},inscribe,{1 + n // len(persons) % 9},1,{days},,,"
        for n in range(lines)
    ]
    return mailbox_of(Head(CENTRE, 17, 1, PROGRAM, number), rows)


async def told(client: Client, asked: Request) -> Receipt:
    """The receipt; the source is waited for while it starts."""
    while True:
        answer = await client.ask(asked)
        receipt = receipt_of(answer)
        if receipt is not None:
            assert not receipt.reason, receipt.reason
            return receipt
        await trio.sleep(0.2)


async def send(client: Client, number: int, file: bytes) -> None:
    """Send a mailbox; it waits to be applied, or is begun, when this is over."""
    for part in parts_of(envelope(), number, file):
        await told(client, part)


async def done(client: Client, number: int, lines: int) -> None:
    """Wait until every line has its verdict.

    Raises:
        BenchError: not all of them were applied.
        trio.TooSlowError: it takes too long.
    """
    with trio.fail_after(SECONDS_MAX):
        while True:
            receipt = await told(client, answers(envelope(), number, 1 << 40))
            if receipt.state == "done":
                break
            await trio.sleep(_LOOK_SECONDS)
    if receipt.applied != lines:
        raise BenchError(f"only {receipt.applied} of {lines} lines were applied")


async def measured(
    folder: Path, stand: Stand, port: int, persons: Sequence[str], offered: Offered
) -> Found:
    """Take turns: quiet, beside a mailbox, quiet; on a stand that has started.

    The mailbox is sent while nothing is timed, over a connection of its own.

    Args:
        folder: For what the load needs; it is there.
        stand: With its directory program.
        port: Where the stand looks for the source.
        persons: Numbers in use.
        offered: How much, how often.
    """
    quiet: list[Turn] = []
    beside: list[Turn] = []
    rates: list[float] = []
    first = date(1801, 1, 1) + timedelta(days=random.randrange(28_000))  # no line is that old
    opened = partial(open_client, host="127.0.0.1", port=stand.port, uri=ROUTER_URI)
    traffic = Traffic(folder, stand, port, offered.rate)
    try:
        async with opened(stand.identity(CENTRE)) as client:
            await send(client, 1, content(1, first, persons, 64))
            await done(client, 1, 64)
            with traffic.going_on(quiet):
                await trio.sleep(offered.quiet_s)
            for number in range(2, offered.rounds + 2):
                day = first + timedelta(days=number)
                await send(client, number, content(number, day, persons, offered.lines))
                began = time.perf_counter()
                with traffic.going_on(beside):
                    await done(client, number, offered.lines)
                rates.append(offered.lines / (time.perf_counter() - began))
                with traffic.going_on(quiet):
                    await trio.sleep(offered.quiet_s)
                print(
                    f"round {number - 1}: p99 {p99(quiet[-2].ms):.1f} ms quiet, "
                    f"{p99(beside[-1].ms):.1f} ms beside, {p99(quiet[-1].ms):.1f} ms quiet; "
                    f"{rates[-1]:.0f} lines a second",
                    flush=True,
                )
    finally:
        traffic.close()
    ratio = p99(together(beside)) / p99(together(quiet))
    return {
        "lines": offered.lines,
        "lines_per_s": [round(rate) for rate in rates],
        "serve_p99_ratio": round(ratio, 2),
        **described("quiet", quiet, offered.rate),
        **described("beside", beside, offered.rate),
    }


def main() -> int:
    """Make a stand, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=200_000, help="of each mailbox")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200.0, help="consultations a second")
    parser.add_argument("--quiet-seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    offered = Offered(arguments.lines, arguments.rounds, arguments.rate, arguments.quiet_seconds)
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stand = Stand.make(
            folder / "stand", institutions=[CENTRE, SOURCE], endpoints={SOURCE: port}, workers=2,
            persons=arguments.persons, serves_directory=True,
        )  # fmt: skip
        on = describe(folder)
        stand.start()
        try:
            found = trio.run(measured, folder, stand, port, persons_of(stand), offered)
        finally:
            stand.stop()
        flush = flush_ms(folder)
    flushed = {"flush_ms": round(sorted(flush)[len(flush) // 2], 3)}
    print(json.dumps({"bench": "directory_files", **found, **flushed, **on}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
