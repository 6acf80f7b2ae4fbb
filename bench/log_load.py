"""One writer of the privacy log under an open load: a program, started by ``sustained.py``.

Exchanges begin at moments of a Poisson process, whatever the log does, and end as long after as
their source takes; everything that is due goes into the next group, as in the turn of a worker. A
record's time counts from the moment at which it was due until its group is durable.
"""

import argparse
import gc
import heapq
import json
import sys
import threading
import time
from array import array
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bench.traffic import Traffic
from ksz_router.daemon.opened import Errand, Exchange
from ksz_router.limits import group_records_max, requests_per_turn_max
from ksz_router.messages import Reply
from ksz_router.privacylog.keys import KeyRing, Tokens, quarter_of
from ksz_router.privacylog.writer import Writer

RECORDS_PER_EXCHANGE = 2
_HURRY_FROM_SHARE, _UNHURRIED_SECONDS, _HURRIED_SECONDS = 0.4, 0.05, 0.002
_LOOK_SECONDS = 0.25
_Replied = tuple[Errand, Reply, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("--log", "--keys", "--out"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--slot", "--node"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rate", type=float, required=True, help="records a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--group-min", type=int, default=1, help="records that a group waits for")
    parser.add_argument("--file-bytes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    writer = Writer.open(
        arguments.log,
        slot=arguments.slot,
        node=arguments.node,
        keys_folder=arguments.keys,
        now_ns=time.time_ns(),
        file_bytes=arguments.file_bytes,
    )
    keys = KeyRing(arguments.keys).quarter(quarter_of(time.time_ns()))
    load = Load(writer, Traffic(Tokens(keys), seed=arguments.seed), seed=arguments.seed)
    ended = threading.Event()
    helper = threading.Thread(target=_prefill, args=(writer, ended), daemon=True)
    helper.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as in a worker
    print("ready", flush=True)
    sys.stdin.readline()  # all writers begin together
    load.run(rate=arguments.rate, seconds=arguments.seconds, group_min=arguments.group_min)
    ended.set()
    helper.join()
    writer.close()
    np.savez(
        arguments.out,
        waited_us=np.frombuffer(load.waited_us, np.uint32),
        ended_ns=np.frombuffer(load.ended_ns, np.int64),
        records=np.frombuffer(load.records, np.uint32),
        commit_us=np.frombuffer(load.commit_us, np.uint32),
    )
    print(json.dumps(load.summary()), flush=True)
    return 0


class Load:
    """What is due, and what came of it.

    Attributes:
        waited_us: Of each record, from the moment it was due until it was durable.
        ended_ns, records, commit_us: Of each group: Unix time when it was durable, how many
            records, and how long the call of ``commit`` took.
    """

    def __init__(self, writer: Writer, traffic: Traffic, *, seed: int) -> None:
        self.waited_us, self.records, self.commit_us = array("I"), array("I"), array("I")
        self.ended_ns = array("q")
        self._writer = writer
        self._traffic = traffic
        self._random = Random(seed)
        self._open: list[tuple[float, int, Exchange, _Replied]] = []
        self._count = 0
        self._cpu_s = self._seconds = 0.0

    def run(self, *, rate: float, seconds: float, group_min: int) -> None:
        """Offer so many records a second; return when the last is durable."""
        clock, gap_s = time.perf_counter, RECORDS_PER_EXCHANGE / rate
        began, began_cpu = clock(), time.process_time()
        due, ends = began, began + seconds
        records: list[bytes] = []
        dues: list[float] = []
        while due < ends or self._open or records:
            now = clock()
            for _ in range(requests_per_turn_max):
                if due > now or due >= ends:
                    break
                self._begin(due, records, dues)
                due += self._random.expovariate(1.0) * gap_s
            while self._open and self._open[0][0] <= now and len(records) < group_records_max:
                at, _, exchange, replied = heapq.heappop(self._open)
                made = self._traffic.outcome(exchange, replied)
                records += made
                dues += [at] * len(made)
            if records and (len(records) >= group_min or due >= ends):
                self._commit(records, dues)
                records, dues = [], []
                continue
            if due < ends:
                until = due + max(0, group_min - len(records)) * gap_s / 2
            else:
                until = self._open[0][0] if self._open else now
            time.sleep(max(0.0, min(until - clock(), 0.05)))
        self._seconds = clock() - began
        self._cpu_s = time.process_time() - began_cpu

    def summary(self) -> dict[str, Any]:
        """What the parent prints; the arrays go into a file."""
        return {
            "records": sum(self.records),
            "groups": len(self.records),
            "seconds": self._seconds,
            "cpu_s": self._cpu_s,
        }

    def _begin(self, due: float, records: list[bytes], dues: list[float]) -> None:
        exchange = self._traffic.asked()
        made = self._traffic.request(exchange)
        records += made
        dues += [due] * len(made)
        if exchange.destinations:
            replied = self._traffic.replied(exchange)
            self._count += 1
            at = due + (replied[0].answered_ns - replied[0].sent_ns) / 1e9
            heapq.heappush(self._open, (at, self._count, exchange, replied))

    def _commit(self, records: list[bytes], dues: list[float]) -> None:
        began = time.perf_counter()
        self._writer.commit(records, time.time_ns())
        ended = time.perf_counter()
        self.ended_ns.append(time.time_ns())
        self.records.append(len(records))
        self.commit_us.append(int((ended - began) * 1e6))
        self.waited_us.extend([int((ended - due) * 1e6) for due in dues])


def _prefill(writer: Writer, ended: threading.Event) -> None:
    """Fill the next file ahead, as unhurried as a worker does."""

    def pause() -> None:
        hurry = writer.used_share > _HURRY_FROM_SHARE
        ended.wait(_HURRIED_SECONDS if hurry else _UNHURRIED_SECONDS)

    while not ended.wait(_LOOK_SECONDS):
        writer.prepare_next(pause)


if __name__ == "__main__":
    sys.exit(main())
