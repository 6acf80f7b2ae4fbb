"""Mailboxes through a whole router: lines a second, and what online traffic feels of them.

    python -m bench.directory_files --persons 100000 --lines 200000

Consultations go through the router at a steady rate, each timed from the moment at which it was to
be sent: with nothing else, then while a mailbox is applied, in turns. Every line is judged,
recorded twice and durable. Generator, source, router and writer share the machine. The last line is
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

from bench.directory_online import CENTRE, persons_of
from bench.machine import describe, flush_ms
from contrib.stand import ROUTER_URI, Stand, free_ports
from ksz_router.codes import Code
from ksz_router.directory.mailbox_form import Head
from ksz_router.directory.synthesise import landmarks
from ksz_router.messages import Delivery, Outcome
from ksz_router.sdk import Client, Provider, Request, Supply, new_ticket, open_client
from ksz_router.sdk.directory_files import Receipt, answers, mailbox_of, parts_of, receipt_of

RVA = "0999010126"
PROGRAM, USER = "00901000101", "85073099734"
SERVICE = ("UnemploymentData", 3)
ASKED = landmarks(1)["answered"]


Found = dict[str, object]


class Offered(NamedTuple):
    """What the router is given to do."""

    lines: int
    """Of each mailbox."""
    rounds: int
    rate: float
    """Consultations a second."""
    quiet_s: float
    """How long they go on with nothing else."""


async def supply(delivery: Delivery) -> Supply:
    """Answer at once."""
    return Supply(Outcome.DATA, payload=delivery.payload)


class Traffic:
    """Consultations at a steady rate."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client = client
        self._rate = rate
        self.seconds: list[float] = []
        self.failed = 0
        self.is_over = False

    async def run(self) -> None:
        """Ask until told that it is over; return once all is answered."""
        due = trio.current_time()
        async with trio.open_nursery() as nursery:
            while not self.is_over:
                await trio.sleep_until(due)
                nursery.start_soon(self._ask, due)
                due += 1 / self._rate

    async def _ask(self, due: float) -> None:
        asked = Request(
            id=0, service=SERVICE[0], version=SERVICE[1], ticket=new_ticket(), user=USER,
            sector=17, type=1, capacity=2, person=ASKED, payload=b"a question",
        )  # fmt: skip
        answer = await self._client.ask(asked)
        self.seconds.append(trio.current_time() - due)
        self.failed += answer.code != Code.ANSWERED_WITH_DATA

    @property
    def p99_ms(self) -> float:
        """Of what was answered."""
        return 1000 * sorted(self.seconds)[int(len(self.seconds) * 0.99)]


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


async def applied(client: Client, number: int, file: bytes, lines: int) -> float:
    """Send a mailbox and wait for its verdicts; return the seconds from its receipt on."""
    for part in parts_of(envelope(), number, file):
        await told(client, part)
    began = time.perf_counter()
    receipt = await told(client, answers(envelope(), number, 1 << 40))
    while receipt.state != "done":
        await trio.sleep(0.2)
        receipt = await told(client, answers(envelope(), number, 1 << 40))
    assert receipt.applied == lines, receipt.refused
    return time.perf_counter() - began


async def measured(stand: Stand, port: int, persons: Sequence[str], offered: Offered) -> Found:
    """Take turns: quiet, then beside a mailbox; on a stand that has started.

    Args:
        stand: With its directory program.
        port: Where the stand looks for the source.
        persons: Numbers in use.
        offered: How much, how often.
    """
    quiet: list[float] = []
    beside: list[float] = []
    rates: list[float] = []
    first = date(1801, 1, 1) + timedelta(days=random.randrange(28_000))  # no line is that old
    opened = partial(open_client, host="127.0.0.1", port=stand.port, uri=ROUTER_URI)
    provider = Provider(stand.identity(RVA), router_uris={ROUTER_URI}, services={SERVICE: supply})
    async with trio.open_nursery() as nursery, opened(stand.identity(CENTRE)) as client:
        await nursery.start(partial(provider.serve, host="127.0.0.1", port=port))
        await applied(client, 1, content(1, first, persons, 64), 64)
        for number in range(2, offered.rounds + 2):
            day = first + timedelta(days=number)
            file = content(number, day, persons, offered.lines)
            for kept in (quiet, beside):
                traffic = Traffic(client, offered.rate)
                async with trio.open_nursery() as turns:
                    turns.start_soon(traffic.run)
                    if kept is quiet:
                        await trio.sleep(offered.quiet_s)
                    else:
                        took_s = await applied(client, number, file, offered.lines)
                        rates.append(offered.lines / took_s)
                    traffic.is_over = True
                assert not traffic.failed, traffic.failed
                kept.append(traffic.p99_ms)
            print(
                f"round {number - 1}: p99 {quiet[-1]:.1f} ms quiet, {beside[-1]:.1f} ms beside; "
                f"{rates[-1]:.0f} lines a second",
                flush=True,
            )
        nursery.cancel_scope.cancel()
    middle = offered.rounds // 2
    ratios = sorted(b / q for q, b in zip(quiet, beside, strict=True))
    return {
        "lines": offered.lines,
        "lines_per_s": round(sorted(rates)[middle]),
        "serve_p99_ratio": round(ratios[middle], 2),
        "serve_p99_ratios": [round(ratio, 2) for ratio in ratios],
        "quiet_p99_ms": [round(ms, 2) for ms in quiet],
        "beside_p99_ms": [round(ms, 2) for ms in beside],
    }


def main() -> int:
    """Make a stand, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=200_000, help="of each mailbox")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="consultations a second")
    parser.add_argument("--quiet-seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    offered = Offered(arguments.lines, arguments.rounds, arguments.rate, arguments.quiet_seconds)
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand.make(
            Path(folder) / "stand", institutions=[CENTRE, RVA], endpoints={RVA: port}, workers=2,
            persons=arguments.persons, serves_directory=True,
        )  # fmt: skip
        on = describe(Path(folder))
        stand.start()
        try:
            found = trio.run(measured, stand, port, persons_of(stand), offered)
        finally:
            stand.stop()
        flush = flush_ms(Path(folder))
    flushed = {"flush_ms": round(sorted(flush)[len(flush) // 2], 3)}
    print(json.dumps({"bench": "directory_files", **found, **flushed, **on}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
