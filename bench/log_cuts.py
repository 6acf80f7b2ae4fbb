"""Power cuts of a whole router under load: workers, sequencer and sealer as real processes.

The disk is that of ``powercut.py``. Log, archive and last checkpoint lie on it; what generators
were answered, what sources got, and each checkpoint that was shown are kept elsewhere. Afterwards
nothing of it may be missing, and no size of the tree may have another root.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.account import settle
from bench.crash import Crash
from bench.powercut import Disk
from bench.world import BenchError, World, finish
from ksz_router.privacylog.archive.chain import manifest_numbers, newest_recorded, read_chain
from ksz_router.privacylog.archive.manifest import Manifest
from ksz_router.privacylog.archive.verify_derived import verify_derived
from ksz_router.privacylog.archive.verify_fast import Place, verify_fast
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.tree.checkpoint import Checkpoint, parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.note import read_vkeys

OFFERED_PER_S, CONNECTIONS, OUTSTANDING = 400, 32, 32
_FAULTS_TOLD = 20
_SEALING_SECONDS_MAX = 30.0
_EAGER = Path(__file__).parent / "eager"


def power_cuts(folder: Path, cuts: int, seed: int) -> dict[str, Any]:
    """Cut the power so many times and return what came of it.

    Raises:
        CannotMountError: this machine does not mount an image.
        BenchError: a program did not start, or ended by itself.
    """
    disk = Disk(folder)
    try:
        return _cut(folder, disk, cuts, seed)
    finally:
        disk.close()


def _cut(folder: Path, disk: Disk, cuts: int, seed: int) -> dict[str, Any]:
    log, archive = disk.folder / "privacylog", disk.folder / "archive"
    anchor = disk.folder / "last-checkpoint"
    answers, deliveries = folder / "answers", folder / "deliveries"
    options: dict[str, dict[str, object]] = {
        "privacy_log": {"path": str(log)},
        "archive": {"path": str(archive), "last_checkpoint": str(anchor), "sealing": True},
    }
    world = World(folder, options=options, seen=deliveries)
    shown: dict[int, bytes] = {}
    signed_twice = sealing = 0
    path = os.environ.get("PYTHONPATH", "")
    generator: subprocess.Popen[str] | None = None
    try:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_EAGER), path)))
        world.stand.start()
        vkeys = read_vkeys(world.stand.checkpoint_keys / "vkeys")
        generator = world.generate(
            payload_bytes=300, outstanding=OUTSTANDING, seconds=0, reconnect=1,
            connections=CONNECTIONS, rate=OFFERED_PER_S, seen=answers,
        )  # fmt: skip
        chance = random.Random(seed)
        crash = Crash(world, disk, answers, chance)
        for number in range(cuts):
            crash.wait_for_load()
            if number % 2:  # in the midst of a step of the sealer, or behind one
                _await_sealing(archive, is_enough=number % 4 == 1)
                time.sleep(chance.uniform(0.0, 0.3))
            with contextlib.suppress(FileNotFoundError):
                newest = parse_checkpoint((archive / "tree" / "checkpoint").read_bytes(), vkeys)
                signed_twice += _is_other(shown, newest)
            sealing += _is_sealing(archive)
            crash.cut_power()
            if number % 10 == 9:
                print(f"{number + 1} power cuts", flush=True)
        crash.wait_for_load()
        generator.send_signal(signal.SIGTERM)
        report = finish(generator, 120)
        exit_code = world.stand.stop()
    finally:
        if generator is not None:
            generator.kill()
        world.close()
        os.environ["PYTHONPATH"] = path
    place = Place(
        archive=archive, vkeys=vkeys, anchor=anchor, commit_keys=world.stand.keys, log=log
    )
    account = settle(log, world.stand.keys, [answers], [deliveries])
    told = _judged(place, shown)
    told["power_cuts_signed_twice"] += signed_twice
    return {
        "power_cuts": cuts,
        "power_cuts_in_sealing": sealing,
        "power_cuts_acknowledged": account.acknowledged,
        "power_cuts_lost": account.lost + account.unlogged,
        **told,
        "power_cuts_unanswered": report["unanswered"],
        "power_cuts_exit_code": exit_code,
    }


def _judged(place: Place, shown: dict[int, bytes]) -> dict[str, Any]:
    """Verify a log at rest in every way, and set it against the roots that were shown."""
    full, fast = verify_full(place), verify_fast(place)
    chain = [chained.manifest for chained in read_chain(place.archive)]
    faults = full.faults + fast.faults
    if chain:
        faults = faults + verify_derived(place.archive).faults
    for fault in faults[:_FAULTS_TOLD]:
        print(f"{fault.file}: {fault.what}")
    levels = Levels.reading(place.archive / "tree")
    gone = sum(size > levels.size or levels.root(size) != root for size, root in shown.items())
    levels.close()
    return {
        "power_cuts_steps_sealed": sum(map(_has_truth, chain)),
        "power_cuts_merges": sum(not _has_truth(each) for each in chain),
        "power_cuts_checkpoints": len(shown),
        "power_cuts_signed_twice": gone,
        "power_cuts_faults": len(faults),
        "power_cuts_leaves": full.tree_size,
        "power_cuts_sealed_leaves": full.sealed_leaves,
    }


def _has_truth(manifest: Manifest) -> bool:
    return any(file.kind == "t" for file in manifest.added)


def _await_sealing(archive: Path, *, is_enough: bool) -> None:
    """Return behind a step of the sealer; in the midst of one where that is enough.

    Raises:
        BenchError: it does not come to one.
    """
    before = manifest_numbers(archive)
    ends_at = time.monotonic() + _SEALING_SECONDS_MAX
    while manifest_numbers(archive) == before and not (is_enough and _is_sealing(archive)):
        if time.monotonic() > ends_at:
            raise BenchError(f"the sealer did nothing for {_SEALING_SECONDS_MAX:.0f} s")
        time.sleep(0.01)


def _is_sealing(archive: Path) -> bool:
    """Say whether a step of the sealer is under way: files are there that no manifest names."""
    newest = newest_recorded(archive)
    sealed = newest.manifest.sealed_leaves if newest is not None else 0
    files = (archive / "sealed").glob("q=*/t/*.parquet")
    return any(int(file.stem.rpartition("-")[2]) > sealed for file in files)


def _is_other(shown: dict[int, bytes], checkpoint: Checkpoint) -> bool:
    return shown.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root
