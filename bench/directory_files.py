"""Mailboxes through a whole router: lines a second, and what online traffic feels of them.

    python -m bench.directory_files --persons 100000 --lines 200000

Consultations go through the router at a steady rate, each timed from the moment at which it was to
be sent: with nothing else, then while a mailbox is applied, in turns. Every line is judged,
recorded twice and durable. Generator, source, router and writer share the machine. The last line is
JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

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


def content(number: int, persons: list[str], lines: int) -> bytes:
    """A mailbox of lines that all can be applied: no other one inscribes the same days."""
    days = f"{1900 + number}-01-01,{1900 + number}-12-31"
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


async def measured(stand: Stand, arguments: argparse.Namespace, port: int) -> dict[str, object]:
    """Take turns: quiet, then beside a mailbox."""
    persons = persons_of(stand)
    quiet: list[float] = []
    beside: list[float] = []
    rates: list[float] = []
    opened = partial(open_client, host="127.0.0.1", port=stand.port, uri=ROUTER_URI)
    provider = Provider(stand.identity(RVA), router_uris={ROUTER_URI}, services={SERVICE: supply})
    async with trio.open_nursery() as nursery, opened(stand.identity(CENTRE)) as client:
        await nursery.start(partial(provider.serve, host="127.0.0.1", port=port))
        await applied(client, 1, content(1, persons, 64), 64)
        for turn in range(arguments.rounds):
            file = content(turn + 2, persons, arguments.lines)
            for kept in (quiet, beside):
                traffic = Traffic(client, arguments.rate)
                async with trio.open_nursery() as turns:
                    turns.start_soon(traffic.run)
                    if kept is quiet:
                        await trio.sleep(arguments.quiet_seconds)
                    else:
                        took_s = await applied(client, turn + 2, file, arguments.lines)
                        rates.append(arguments.lines / took_s)
                    traffic.is_over = True
                assert not traffic.failed, traffic.failed
                kept.append(traffic.p99_ms)
            print(
                f"round {turn + 1}: p99 {quiet[-1]:.1f} ms quiet, {beside[-1]:.1f} ms beside; "
                f"{rates[-1]:.0f} lines a second",
                flush=True,
            )
        nursery.cancel_scope.cancel()
    middle = arguments.rounds // 2
    ratios = sorted(b / q for q, b in zip(quiet, beside, strict=True))
    return {
        "bench": "directory_files",
        "lines": arguments.lines,
        "batch_changes_per_s": round(sorted(rates)[middle]),
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
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand.make(
            Path(folder) / "stand", institutions=[CENTRE, RVA], endpoints={RVA: port}, workers=2,
            persons=arguments.persons, serves_directory=True,
        )  # fmt: skip
        on = describe(Path(folder))
        stand.start()
        try:
            found = trio.run(measured, stand, arguments, port)
        finally:
            stand.stop()
        flush = flush_ms(Path(folder))
    found |= {"flush_ms": round(sorted(flush)[len(flush) // 2], 3), **on}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
