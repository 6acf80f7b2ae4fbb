"""The demonstration: a router with all its tables on this machine, and what it does with requests.

Everything is made in a temporary folder, with the commands an operator would use, and removed at
the end. Nothing in it is real. The last line is a JSON object; the exit code is 0 only if every
exchange went as the story says, all of it was found in the log, and a changed byte was noticed.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Sequence
from pathlib import Path

import trio

from contrib.demo import audit, table
from contrib.demo.cast import ASKING, NAMES
from contrib.demo.conversation import Told, ask_all
from contrib.demo.sources import DOWN, HANGS, SERVICES, Sources
from contrib.demo.terminal import heading, show
from contrib.stand import Stand, free_ports
from ksz_router.codes import Code
from ksz_router.directory.synthesise import landmarks

PERSONS, SEED, WORKERS = 10_000, 1, 2
_ROWS_FIRST, _ROWS_LAST, _LINES_OF_PROOF = 8, 4, 12
_COUNT, _PERSON_ASKS = "demonstration: count", "demonstration: the person asks"

# What the commands below do, for who sees them for the first time.
_COMMANDS = {
    ("keys", "testpki"): "an authority; certificates of institutions and router",
    ("keys", "signer"): "the key pair that signs rulebooks",
    ("keys", "quarter"): "the keys that encrypt this quarter's privacy log",
    ("keys", "checkpoint"): "the keys that sign how the privacy log stands",
    ("rulebook", "build"): "check the rulebook's text and compile it",
    ("rulebook", "activate"): "sign that generation and make it the active one",
    ("directory", "synthesise"): f"{PERSONS:,} persons who do not exist, with files",
    ("directory", "load"): "build the person directory: who has a file on whom",
}


class ShownStand(Stand):
    """A stand that says which commands it runs."""

    def command(self, *words: object, accept: Sequence[int] = (0,)) -> str:
        begun_at = time.monotonic()
        printed = super().command(*words, accept=accept)
        what = _COMMANDS.get((str(words[0]), str(words[1])))
        if what is not None:
            name = f"ksz-router {words[0]} {words[1]}"
            show(f"   {name:<31} {what:<54} {time.monotonic() - begun_at:3.1f} s")
        return printed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="keep the folder and say where it is")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="ksz-router-demo-"))
    told = Told()
    begun_at = time.monotonic()
    try:
        tell(folder, told)
    except* KeyboardInterrupt:
        told.faults.append("interrupted")
    except* Exception as errors:  # noqa: BLE001 - whatever it was: say it, clean up, and fail
        traceback.print_exception(errors)
        told.faults.append("the demonstration itself broke off")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    show("")
    if keep:
        show(f"Everything is in {folder}; router.out there is what the router said.")
    for fault in told.faults:
        show(f"NOT AS EXPECTED: {fault}")
    show(f"This took {time.monotonic() - begun_at:.0f} seconds.")
    summary = told.summary()
    print(json.dumps(summary), flush=True)
    return 0 if summary["demo"] == "ok" else 1


def tell(folder: Path, told: Told) -> None:
    """Make the router, hold the conversation, and ask the log."""
    show("A crossroads bank on this machine. Institutions, persons and certificates are made up.")
    heading(1, "Everything that a router needs, made with its own commands")
    ports = dict(zip((*SERVICES, DOWN), free_ports(len(SERVICES) + 1), strict=True))
    stand = ShownStand.make(
        folder,
        institutions=sorted({*ASKING, *SERVICES}),
        endpoints=ports,
        workers=WORKERS,
        persons=PERSONS,
        seed=SEED,
        options={"archive": {"sealing": True}},
        serves_directory=True,
    )
    try:
        trio.run(_converse, stand, ports, told)
        heading(6, "Is the log whole?")
        _verify(stand, told)
        heading(
            7, "Can somebody else check one exchange, who has neither the log nor this program?"
        )
        _prove(stand, told)
        heading(8, "Would the control say the same again, of what is recorded?")
        _replay(stand, told)
        heading(9, "And if somebody changes it? One bit of one byte, in a copy")
        _tamper(stand, told)
    finally:
        if stand.process is not None:
            stand.stop()


async def _converse(stand: Stand, ports: dict[str, int], told: Told) -> None:
    sources = Sources()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_break_off)
        await nursery.start(sources.serve, stand.identity, ports)
        heading(2, "Sources and router start")
        answering = [NAMES[kbo] for kbo in SERVICES if kbo != HANGS]
        show(f"   Sources that answer: {', '.join(answering)}.")
        show(f"   {NAMES[HANGS]} takes requests and never answers. {NAMES[DOWN]} is not there.")
        await trio.to_thread.run_sync(stand.start)
        show(f"   The router runs: {WORKERS} workers behind one port, mutual TLS 1.3.")
        heading(3, "Institutions ask, each over its own connection")
        await ask_all(stand, landmarks(SEED), sources, told)
        heading(4, "Is every exchange in the privacy log, with the same outcome?")
        answers = [answer for _, answer in told.answers]
        rows = await trio.to_thread.run_sync(audit.ask, stand, _COUNT)
        told.logged, faults = audit.compare(rows, answers)
        told.faults += faults
        show(f"   {told.sent} requests were sent, {told.logged} stand in the log as answered.")
        heading(5, "Who saw this person? The known person of the story asks")
        await trio.to_thread.run_sync(_who_saw, stand, told)
        await trio.to_thread.run_sync(stand.stop)
        sources.end()
        nursery.cancel_scope.cancel()


async def _break_off() -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise KeyboardInterrupt


def _who_saw(stand: Stand, told: Told) -> None:
    known = landmarks(SEED)["answered"]
    show(f"   ksz-router log query --person FILE --purpose '{_PERSON_ASKS}'")
    rows = audit.ask(stand, _PERSON_ASKS, [known])
    for line in table.logged(rows, first=_ROWS_FIRST, last=_ROWS_LAST):
        show(line)
    about = [answer for step, answer in told.answers if step.request.person == known]
    _, faults = audit.compare(rows, about)
    told.faults += [f"asked about one person: {fault}" for fault in faults]
    show(f"   {len(about)} exchanges, refused ones too. This question is recorded like them.")


def _verify(stand: Stand, told: Told) -> None:
    show("   ksz-router log verify, every byte that was written")
    counts = audit.verify(stand, "wal")
    show("   " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    show("   ksz-router log verify full, and that each entry is under the signed checkpoint")
    tree = audit.verify(stand, "full")
    show("   " + ", ".join(f"{number} {name}" for name, number in tree.items()))
    told.verified = counts["faults"] == tree["faults"] == 0
    told.verified &= tree["tree_size"] == counts["records"] >= len(told.answers)
    if not told.verified:
        told.faults.append("verification finds faults in a log that nobody touched")


def _prove(stand: Stand, told: Told) -> None:
    known = landmarks(SEED)["answered"]
    answers = [answer for step, answer in told.answers if step.request.person == known]
    answer = next(answer for answer in answers if answer.code == Code.ANSWERED_WITH_DATA)
    exchange = uuid.UUID(bytes=answer.exchange)
    show(f"   ksz-router log prove --exchange {exchange}")
    proof = audit.prove(stand, exchange, _PERSON_ASKS)
    show(f"   One file of {proof.stat().st_size:,} bytes. Whoever has it and the public keys runs")
    show("   contrib/verify_record.py, which uses Python's own library and openssl:")
    told.proved = str(exchange) in (said := audit.check_as_a_stranger(stand, proof))
    for line in said.splitlines()[:_LINES_OF_PROOF]:
        show(f"   {line}")
    if not told.proved:
        told.faults.append("the proof is of another exchange")


def _replay(stand: Stand, told: Told) -> None:
    show("   ksz-router log replay --from YESTERDAY --to TODAY")
    counts = audit.replay(stand, _COUNT)
    show("   " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    told.replayed = 0 < counts["same"] == sum(counts.values())
    if not told.replayed:
        told.faults.append("the control says other things of what is recorded than it said")


def _tamper(stand: Stand, told: Told) -> None:
    file, place, frame, number = audit.tamper(stand)
    copy = stand.folder / "privacylog-tampered"
    show(f"   Flipped: {file.relative_to(copy)}, byte {place}, which lies in frame {number}.")
    fault = audit.find_fault(stand, copy)
    if fault is None:
        told.faults.append("verification does not notice a changed byte")
        return
    is_there = frame <= fault["offset"] <= place  # a fault is named where what is wrong begins
    told.tamper_detected = is_there and (Path(fault["file"]), fault["frame"]) == (file, number)
    where = f"byte {fault['offset']}, frame {fault['frame']}"
    show(f"   Verification names {Path(fault['file']).relative_to(copy)}, {where}:")
    show(f"   {fault['fault']}.")
    if not told.tamper_detected:
        told.faults.append("verification names another place than the one that was changed")


if __name__ == "__main__":
    sys.exit(main())
