"""Writers, sequencer and sealer of one privacy log in one process, and what they promised.

Small files, many steps in few seconds of time: what the fault trials of ``log_faults.py`` and
``tests/test_privacylog_faults.py`` break. Everything is made anew by each :class:`Pipeline`, as
after a start of the machine.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from bench.log_entries import BEGIN_NS, NODE, ORIGIN, Entries, Keys, Later, Promises
from ksz_router.privacylog.archive.chain import catalog, quarters
from ksz_router.privacylog.archive.merge import forget, merge
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.archive.seal import Grounds, Sealer
from ksz_router.privacylog.archive.sweep import Leftovers, Limits, sweep_log
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.entry import OUTCOME_WITHIN_US
from ksz_router.privacylog.keys import KeyRing, quarter_of
from ksz_router.privacylog.tree.checkpoint import Signer
from ksz_router.privacylog.tree.sequence import Sequencer
from ksz_router.privacylog.writer import Writer

FILE_BYTES: Final = 8 * 4096
SLOTS: Final = ("w0", "w1")
SEALER_SLOT: Final = "s0"
LEAVES_MAX: Final = 24
"""Of a step of the sealer: so that one call takes several."""


class _UnderWay(Disk):
    """Of a writer: between its write and its flush others may come, and see the frame."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] | None = None

    def flush(self, descriptor: int) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        super().flush(descriptor)


class Pipeline:
    """One run of all programs of a log below a folder.

    Args:
        folder: With ``log``, ``archive`` and ``state``; what an earlier run left is taken up.
        keys: Of the log.
        entries: Makes what is recorded.
        promises: Takes what is promised.
        changes: How many changes to the disk there were.
        now_ns: The time of the first step; it goes on by itself.
        leaves_max: Of one step of the sealer.
        file_bytes: Of a write-ahead file.

    Attributes:
        steps_sealed: How many steps the sealer did.
    """

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        entries: Entries,
        promises: Promises,
        *,
        changes: Callable[[], int] = lambda: 0,
        now_ns: int = BEGIN_NS,
        leaves_max: int = LEAVES_MAX,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.now_ns = now_ns
        self.steps_sealed = 0
        self._file_bytes = file_bytes
        self._leaves_max = leaves_max
        self.log, self.archive = folder / "log", folder / "archive"
        self.anchor = folder / "state" / "last-checkpoint"
        self.keys = keys
        self._entries = entries
        self._promises = promises
        self._changes = changes
        self._writers: dict[str, Writer] = {}
        self._sequencer: Sequencer | None = None
        self._sealer: Sealer | None = None
        self._disk = _UnderWay()
        self._leftovers = Leftovers(self.archive)
        self._open: dict[str, list[Later]] = {slot: [] for slot in SLOTS}
        self._asked_ns: dict[str, int] = {}

    def start(self) -> None:
        """Open everything, as a start of the machine does."""
        for slot in (*SLOTS, SEALER_SLOT):
            self._writers[slot] = self._writer(slot)
        signer = Signer(self.keys.checkpoint, ORIGIN)
        self._sequencer = Sequencer(
            log=self.log,
            archive=self.archive,
            last_checkpoint=self.anchor,
            keys_folder=self.keys.quarters,
            signer=signer,
            now_ns=self.now_ns,
        )
        self._show()
        grounds = Grounds(
            archive=self.archive,
            log=self.log,
            keys=KeyRing(self.keys.quarters),
            node=NODE,
            origin=ORIGIN,
            vkeys=signer.vkeys,
        )
        self._sealer = Sealer(
            grounds,
            self._writers[SEALER_SLOT],
            now_us=self.now_ns // 1000,
            leaves_max=self._leaves_max,
        )

    def record(self, slot: str, exchanges: int, *, closing: bool = True) -> None:
        """Record requests, and behind them the outcomes of those that are open."""
        self._pass(1.0)
        behind: list[bytes] = []
        if closing:
            for later in self._open[slot]:
                behind += later(self.now_ns)
            self._open[slot] = []
            asked_ns = self._asked_ns.pop(slot, self.now_ns)
            # A router keeps this, and recovery reads no further back.
            assert self.now_ns - asked_ns < OUTCOME_WITHIN_US * 1000, "an outcome comes too late"
        made = [self._entries.exchange(self.now_ns) for _ in range(exchanges)]
        self._open[slot] += [later for _, later in made if later is not None]
        if self._open[slot]:
            self._asked_ns.setdefault(slot, self.now_ns)
        self._commit(slot, [*behind, *(request for request, _ in made)])

    def sequence_within(self, slot: str) -> None:
        """Record, with a cycle of the sequencer between the write of the frame and its flush."""
        self._disk.meanwhile = self.sequence
        self.record(slot, 2)

    def prepare(self, slot: str) -> None:
        """Make the next file of a slot ahead."""
        self._writers[slot].prepare_next(lambda: None)

    def sequence(self) -> None:
        """One cycle of the sequencer."""
        assert self._sequencer is not None
        self._pass(1.0)
        self._sequencer.cycle(self.now_ns)
        self._show()

    def seal(self) -> None:
        """Seal all that is signed."""
        assert self._sealer is not None
        self._pass(1.0)
        while self._sealer.step(self.now_ns // 1000) is not None:
            self.steps_sealed += 1
            self._pass(0.1)

    def merge(self) -> None:
        """Make one run of several, where that is due."""
        assert self._sealer is not None
        files = [
            file
            for quarter in quarters(self.archive)
            for kind in "pukr"
            for file in catalog(self.archive, quarter, kind).files
        ]
        now = quarter_of(self.now_ns)
        for due in plan(files, lambda quarter: quarter < now):
            added = merge(self.archive, due)
            self._sealer.record(self.now_ns // 1000, added, due.removed)
            forget(self.archive, due)

    def sweep(self) -> None:
        """Delete what is sealed, verified and, here, of no age; and what was merged."""
        now_us = self.now_ns // 1000
        sweep_log(self.archive, self.log, KeyRing(self.keys.quarters), Limits(0, 0), now_us)
        self._leftovers.sweep(now_us)
        for slot in SLOTS:  # an exchange has its outcome within two minutes
            self.record(slot, 0)
        self._pass(90.0)
        self._leftovers.sweep(self.now_ns // 1000)

    def close(self) -> None:
        """End everything; what fails now failed before."""
        for slot in self._writers:
            with contextlib.suppress(Exception):
                self._writers[slot].close()
        with contextlib.suppress(Exception):
            if self._sequencer is not None:
                self._sequencer.close()

    def settle(self, *, sealing: bool = True) -> None:
        """Record the outcome of all that is open, and let everything come to its end."""
        for slot in SLOTS:
            self.record(slot, 0)
        self.sequence()
        if sealing:
            self.seal()
            self.sequence()

    def _writer(self, slot: str) -> Writer:
        return Writer.open(
            self.log,
            slot=slot,
            node=NODE,
            keys_folder=self.keys.quarters,
            now_ns=self.now_ns,
            file_bytes=self._file_bytes,
            disk=self._disk,
        )

    def _commit(self, slot: str, records: list[bytes]) -> None:
        self._promises.given |= set(records)
        self._writers[slot].commit(records, self.now_ns)
        at = self._changes()
        self._promises.acknowledged |= dict.fromkeys(records, at)

    def _show(self) -> None:
        assert self._sequencer is not None
        signed = self._sequencer.signed
        self._promises.show(signed.size, signed.root, self._changes())

    def _pass(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


def run(pipeline: Pipeline, chance: Random, steps: int) -> None:
    """Do some steps, drawn by chance."""
    for _ in range(steps):
        slot = chance.choice(SLOTS)
        draw = chance.random()
        if draw < 0.5:
            pipeline.record(slot, chance.randint(1, 6), closing=draw < 0.4)
        elif draw < 0.75:
            pipeline.sequence()
        elif draw < 0.78:
            pipeline.prepare(slot)
        elif draw < 0.82:
            pipeline.sequence_within(slot)
        elif draw < 0.92:
            pipeline.seal()
        elif draw < 0.97:
            pipeline.merge()
        else:
            pipeline.sweep()
