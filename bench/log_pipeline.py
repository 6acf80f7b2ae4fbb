"""Writers, sequencer and sealer of one privacy log in one process, and what they promised.

Small files, many steps in few seconds of time: what the fault trials of ``log_faults.py`` and
``tests/test_privacylog_faults.py`` break. Everything is made anew by each :class:`Pipeline`, as
after a start of the machine.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import msgspec

from ksz_router.codes import Code
from ksz_router.identifiers import Kbo
from ksz_router.privacylog.archive.chain import catalog, quarters
from ksz_router.privacylog.archive.merge import forget, merge
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.archive.seal import Grounds, Sealer
from ksz_router.privacylog.archive.sweep import Leftovers, Limits, sweep_log
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.keys import KeyRing, Tokens, load, make, quarter_begin_ns, quarter_of
from ksz_router.privacylog.tree.checkpoint import Signer, make_keys
from ksz_router.privacylog.tree.sequence import Sequencer
from ksz_router.privacylog.writer import Writer

ORIGIN: Final = "log.example/faults"
NODE: Final = "router-a"
QUARTERS: Final = ("2026Q4", "2027Q1")
BEGIN_NS: Final = quarter_begin_ns(QUARTERS[1]) - 40_000_000_000
"""Forty seconds before the quarter ends: a run goes over it."""
FILE_BYTES: Final = 8 * 4096
SLOTS: Final = ("w0", "w1")
SEALER_SLOT: Final = "s0"
LEAVES_MAX: Final = 24
"""Of a step of the sealer: so that one call takes several."""
_SERVICES = ("pension.consult", "family.consult", "wages.submit")
_INSTITUTIONS = tuple(map(Kbo, ("0206731645", "0206737484", "0200881951", "0244640031")))
_PERSONS = 40


Later: TypeAlias = Callable[[int], list[bytes]]
"""Unix nanoseconds to the records that end an exchange then."""


class Keys(msgspec.Struct, frozen=True):
    """Folders with the keys of a log, drawn for this run: they lie on a disk that stays whole."""

    quarters: Path
    checkpoint: Path

    @classmethod
    def drawn(cls, folder: Path) -> "Keys":
        """Draw them."""
        for quarter in QUARTERS:
            make(folder / "quarters", quarter)
        make_keys(folder / "checkpoint", ORIGIN)
        return cls(folder / "quarters", folder / "checkpoint")


def person(number: int) -> str:
    """Return the well-formed number of a synthetic person: born in an unknown month of 1985."""
    body = 850_000_001 + number
    return f"{body:09d}{97 - body % 97:02d}"


class Promises:
    """What was promised to the world, and at how many changes to the disk.

    Attributes:
        given: Every record that was handed to a writer.
        acknowledged: Those of which it said that they are durable, and since when.
        shown: Size and root of each checkpoint that was shown, and since when.
    """

    def __init__(self) -> None:
        self.given: set[bytes] = set()
        self.acknowledged: dict[bytes, int] = {}
        self.shown: dict[int, tuple[bytes, int]] = {}
        self.doubled: list[int] = []
        """Sizes that were signed with two roots."""

    def until(self, changes: int) -> "Promises":
        """Return what stands when the power goes off behind so many changes."""
        kept = Promises()
        kept.given = set(self.given)
        kept.acknowledged = {r: 0 for r, at in self.acknowledged.items() if at <= changes}
        kept.shown = {s: (root, 0) for s, (root, at) in self.shown.items() if at <= changes}
        kept.doubled = list(self.doubled)
        return kept

    def show(self, size: int, root: bytes, changes: int) -> None:
        """Take note of a checkpoint."""
        held = self.shown.setdefault(size, (root, changes))
        if held[0] != root:
            self.doubled.append(size)


class Entries:
    """Makes entries that look like those of a router; each is another. Synthetic persons."""

    def __init__(self, keys: Keys, chance: Random) -> None:
        self._chance = chance
        self._tokens = {quarter: Tokens(load(keys.quarters, quarter)) for quarter in QUARTERS}
        self._number = 0

    def exchange(self, now_ns: int) -> tuple[bytes, Later | None]:
        """Return a request, and what makes the records behind it; None where it was refused."""
        chance, tokens = self._chance, self._of(now_ns)
        self._number += 1
        exchange = chance.getrandbits(96).to_bytes(12, "big") + self._number.to_bytes(4, "big")
        code = int(chance.choice((0, 0, 0, 0, Code.NO_GRANT)))
        asker, source = chance.sample(_INSTITUTIONS, 2)
        request = Entry(
            kind=Kind.REQUEST,
            at_us=now_ns // 1000,
            exchange=exchange,
            code=code,
            service=chance.choice(_SERVICES),
            service_version=chance.randint(1, 3),
            requester=asker,
            sector=chance.choice((None, 11, 12)),
            user=tokens.user(person(_PERSONS + chance.randrange(9))),
            person=tokens.person(person(chance.randrange(_PERSONS))),
            ticket=tokens.ticket(asker, str(self._number)),
            destinations=(source,),
            grant="g-1",
            request_bytes=chance.randrange(5000),
            router_us=chance.randrange(900),
        )
        return canonical(request), None if code else lambda later_ns: self._behind(
            request, later_ns
        )

    def _behind(self, request: Entry, now_ns: int) -> list[bytes]:
        chance, tokens = self._chance, self._of(now_ns)
        outcome = Entry(
            kind=Kind.OUTCOME,
            at_us=now_ns // 1000,
            exchange=request.exchange,
            code=Code.ANSWERED_WITH_DATA,
            service=request.service,
            service_version=request.service_version,
            requester=request.requester,
            user=tokens.user(person(_PERSONS + chance.randrange(9))),
            source_us=chance.randrange(90_000),
        )
        records = [canonical(outcome)]
        if chance.random() < 0.2:
            other = tokens.person(person(chance.randrange(_PERSONS)))
            further = Entry(
                kind=Kind.FURTHER, at_us=now_ns // 1000, exchange=request.exchange, person=other
            )
            records.insert(0, canonical(further))
        return records

    def _of(self, now_ns: int) -> Tokens:
        return self._tokens[QUARTERS[now_ns >= quarter_begin_ns(QUARTERS[1])]]


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
        self._leftovers = Leftovers(self.archive)
        self._open: dict[str, list[Later]] = {slot: [] for slot in SLOTS}

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
        made = [self._entries.exchange(self.now_ns) for _ in range(exchanges)]
        self._open[slot] += [later for _, later in made if later is not None]
        self._commit(slot, [*behind, *(request for request, _ in made)])

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

    def settle(self) -> None:
        """Record the outcome of all that is open, and let everything come to its end."""
        for slot in SLOTS:
            self.record(slot, 0)
        self.sequence()
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
        elif draw < 0.8:
            pipeline.prepare(slot)
        elif draw < 0.92:
            pipeline.seal()
        elif draw < 0.97:
            pipeline.merge()
        else:
            pipeline.sweep()
