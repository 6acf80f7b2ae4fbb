"""Change a large directory: a million changes by the writer, and online through a whole router."""

import os
import random
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

from bench import machine
from bench.directory_built import Ground, held, prepare
from bench.directory_files import Offered, measured
from bench.runs import await_line
from bench.world import CENTRE, SOURCE, USER, BenchError, compile_load, finish, framed
from contrib.stand import Stand, free_ports
from ksz_router.codes import Code
from ksz_router.directory import folder as layout
from ksz_router.directory.change import Applied, Change, Operation
from ksz_router.directory.packing import unpack_key
from ksz_router.directory.snapshot import Directory
from ksz_router.directory.writer import Writer
from ksz_router.messages import Request
from ksz_router.model import OPEN, Line, NumberStatus
from ksz_router.sdk.directory import inscribe

CHANGES, TOGETHER = 1_000_000, 65_536  # as many as one transaction takes
SECONDS, WARMUP_SECONDS, CONNECTIONS, OUTSTANDING, ASKED = 20.0, 5.0, 16, 16, 1_000_000
ROUNDS = 3
BESIDE_RATE, BESIDE_QUIET_SECONDS = 200.0, 120.0

_FAR_OFF = 21900101
"""A day on which no synthetic line begins, so that inscribing breaks no rule."""
_LINE = Line(90, 0, 77, 1, 20260101, OPEN)
"""Of a role that no synthetic person has."""
_DRAIN_SECONDS_MAX = 60.0
_TICKET_DIGITS = 16
"""How many characters of a ticket the generator fills in."""


def measure_batch(ground: Ground) -> dict[str, Any]:
    """Inscribe a million persons all over the directory, durably, then remove them again."""
    prepare(ground.directory, ground.persons)
    numbers = _drawn(ground.directory, min(CHANGES, ground.persons // 2))
    seconds: dict[str, float] = {}
    verdicts: Counter[str] = Counter()
    before = machine.cpu_us([os.getpid()])
    with closing(Writer.open(ground.directory)) as writer:
        for operation in (Operation.INSCRIBE, Operation.REMOVE_ALL):
            began = time.perf_counter()
            for changes in _batches(numbers, operation):
                for verdict in writer.apply(changes, time.time_ns() // 1000):
                    verdicts["applied" if isinstance(verdict, Applied) else verdict.why] += 1
            seconds[operation.name.lower()] = time.perf_counter() - began
    cpu_s = (machine.cpu_us([os.getpid()]) - before) / 1e6
    if verdicts["applied"] < len(numbers):
        raise BenchError(f"too few changes were applied: {dict(verdicts)}")
    return {
        "batch_changes_per_s": round(len(numbers) / max(seconds.values())),
        "batch": {
            "changes": len(numbers),
            "together": TOGETHER,
            "per_s": {name: round(len(numbers) / took) for name, took in seconds.items()},
            "cpu_us": round(cpu_s * 1e6 / (2 * len(numbers)), 1),
            "verdicts": dict(verdicts),
        },
    }


def measure_online(ground: Ground) -> dict[str, Any]:
    """Inscribe persons through a router with its directory program, over TLS, as fast as it goes.

    Lines that this writes stay in the directory.
    """
    prepare(ground.directory, ground.persons)
    folder = ground.folder / "online"
    shutil.rmtree(folder, ignore_errors=True)
    stand = Stand.make(
        folder / "stand",
        institutions=[CENTRE],
        endpoints={},
        workers=2,
        serves_directory=True,
        options={"tables": {"directory": str(ground.directory)}, "archive": {"sealing": True}},
    )
    numbers = _drawn(ground.directory, min(ASKED, ground.persons))
    (folder / "numbers").write_text("".join(numbers), encoding="ascii")
    request = Request(
        id=0,
        service="",
        version=0,
        ticket="",
        user=USER,
        means="eid",
        level=4,
        sector=17,
        type=1,
        capacity=9,
    )
    frame, places = framed(inscribe(request, numbers[0], begin=_FAR_OFF, phase=1))
    load = compile_load(folder)
    stand.start()
    try:
        rounds = [_offered(stand, load, frame, places) for _ in range(ROUNDS)]
    finally:
        stand.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "changes_per_s": round(statistics.median(one["per_s"] for one in rounds)),
        "online": rounds,
    }


def measure_beside(ground: Ground) -> dict[str, Any]:
    """How a router serves while it applies a mailbox of a million changes, against without.

    Without, with, without, in one run; each consultation is timed from the moment at which it was
    due. Lines that this writes stay in the directory.
    """
    prepare(ground.directory, ground.persons)
    folder, port = ground.folder / "beside", free_ports(1)[0]
    shutil.rmtree(folder, ignore_errors=True)
    stand = Stand.make(
        folder / "stand",
        institutions=[CENTRE, SOURCE],
        endpoints={SOURCE: port},
        workers=2,
        serves_directory=True,
        options={"tables": {"directory": str(ground.directory)}},
    )
    drawn = _drawn(ground.directory, min(CHANGES, ground.persons // 2))
    with closing(Directory.open(ground.directory)) as directory:
        known = zip(drawn, directory.look_up(drawn), strict=True)
        numbers = [n for n, person in known if person and person.status is NumberStatus.ACTIVE]
    offered = Offered(min(CHANGES, ground.persons), 1, BESIDE_RATE, BESIDE_QUIET_SECONDS)
    stand.start()
    try:
        with held(ground.directory):
            found = trio.run(measured, folder, stand, port, numbers, offered)
    finally:
        stand.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return {"serve_p99_ratio": found.pop("serve_p99_ratio"), "beside": found}


def _offered(stand: Stand, load: Path, frame: bytes, places: dict[str, int]) -> dict[str, Any]:
    assert stand.process is not None
    # The generator counts tickets from the start; what follows tells this round from the others.
    own = places["ticket_at"] + _TICKET_DIGITS
    token = os.urandom(4).hex().encode()
    request = load.parent / "request"
    request.write_bytes(frame[:own] + token + frame[own + len(token) :])
    identity = stand.identity(CENTRE)
    words: dict[str, object] = {
        "port": stand.port,
        "request": request,
        "persons": load.parent / "numbers",
        "payload_bytes": 0,
        **places,
        "connections": CONNECTIONS,
        "outstanding": OUTSTANDING,
        "rate": 0,
        "seconds": SECONDS,
        "warmup": WARMUP_SECONDS,
        "seed": int(token, 16) + 1,
        "certificate": identity.certificate,
        "key": identity.key,
        "authorities": identity.authorities,
    }
    line = [str(load), "generate", *(f"{name}={value}" for name, value in words.items())]
    router = machine.processes_under(stand.process.pid)
    generator = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, bufsize=1)
    await_line(generator, "begin")
    before = machine.cpu_us(router)
    await_line(generator, "end")
    used_us = machine.cpu_us(router) - before
    report = finish(generator, _DRAIN_SECONDS_MAX)
    codes = {int(code): count for code, count in report["codes"].items()}
    answers = max(1, sum(codes.values()))
    share = codes.get(Code.ANSWERED_WITH_DATA, 0) / answers
    return {
        "per_s": report["window_answers"] * share / report["window_s"],
        "router_cpu_us": used_us / max(1, report["window_answers"]),
        "latency_ms": {
            name: round(value / 1e3, 1)
            for name, value in report["latency_us"].items()
            if name != "count"
        },
        "codes": {Code(code).name: count for code, count in codes.items()},
    }


def _batches(numbers: Sequence[str], operation: Operation) -> Iterator[list[Change]]:
    token = os.urandom(8)
    for at in range(0, len(numbers), TOGETHER):
        yield [
            Change(token + (at + n).to_bytes(8, "big"), number, operation, _LINE)
            for n, number in enumerate(numbers[at : at + TOGETHER])
        ]


def _drawn(place: Path, count: int) -> list[str]:
    """Numbers from all over the directory, none twice, in random order."""
    environment = layout.open_environment(layout.current(place))
    with (
        closing(environment),
        environment.begin(environment.open_db(layout.PERSONS, create=False)) as view,
        view.cursor() as cursor,
    ):
        stride = max(1, view.stat(environment.open_db(layout.PERSONS))["entries"] // count)
        keys = [key for n, key in enumerate(cursor.iternext(values=False)) if n % stride == 0]
    random.Random(1).shuffle(keys)
    return [unpack_key(key) for key in keys[:count]]
