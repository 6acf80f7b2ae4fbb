"""Power cuts of a whole router under load: workers, sequencer and sealer as real processes.

The disk is that of ``powercut.py``. Log, archive and last checkpoint lie on it; what generators
were answered, what sources got, and each checkpoint that was shown are kept elsewhere. Afterwards
nothing of it may be missing, and no size of the tree may have another root.
"""

import contextlib
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

from bench.account import settle
from bench.crash import Crash
from bench.powercut import Disk
from bench.world import World, finish
from ksz_router.privacylog.archive.verify_fast import Place, verify_fast
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.tree.checkpoint import Checkpoint, parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.note import read_vkeys

OFFERED_PER_S, CONNECTIONS, OUTSTANDING = 800, 32, 32
_FAULTS_TOLD = 20


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
    signed_twice = 0
    generator: subprocess.Popen[str] | None = None
    try:
        world.stand.start()
        vkeys = read_vkeys(world.stand.checkpoint_keys / "vkeys")
        generator = world.generate(
            payload_bytes=300, outstanding=OUTSTANDING, seconds=0, reconnect=1,
            connections=CONNECTIONS, rate=OFFERED_PER_S, seen=answers,
        )  # fmt: skip
        crash = Crash(world, disk, answers, random.Random(seed))
        for _ in range(cuts):
            crash.wait_for_load()
            with contextlib.suppress(FileNotFoundError):
                newest = parse_checkpoint((archive / "tree" / "checkpoint").read_bytes(), vkeys)
                signed_twice += _is_other(shown, newest)
            crash.cut_power()
        crash.wait_for_load()
        generator.send_signal(signal.SIGTERM)
        report = finish(generator, 120)
        exit_code = world.stand.stop()
    finally:
        if generator is not None:
            generator.kill()
        world.close()
    keys = world.stand.keys
    place = Place(archive=archive, vkeys=vkeys, anchor=anchor, commit_keys=keys, log=log)
    account = settle(log, keys, [answers], [deliveries])
    full, fast = verify_full(place), verify_fast(place)
    faults = full.faults + fast.faults
    for fault in faults[:_FAULTS_TOLD]:
        print(f"{fault.file}: {fault.what}")
    levels = Levels.reading(archive / "tree")
    gone = sum(size > levels.size or levels.root(size) != root for size, root in shown.items())
    levels.close()
    return {
        "power_cuts": cuts,
        "power_cuts_acknowledged": account.acknowledged,
        "power_cuts_lost": account.lost + account.unlogged,
        "power_cuts_checkpoints": len(shown),
        "power_cuts_signed_twice": signed_twice + gone,
        "power_cuts_faults": len(faults),
        "power_cuts_leaves": full.tree_size,
        "power_cuts_sealed_leaves": full.sealed_leaves,
        "power_cuts_unanswered": report["unanswered"],
        "power_cuts_exit_code": exit_code,
    }


def _is_other(shown: dict[int, bytes], checkpoint: Checkpoint) -> bool:
    return shown.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root
