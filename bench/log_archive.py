"""A small archive from the first frame to the last proof, each step timed by itself.

One process, one step after the other, nothing paced: processor time of the code that the
sequencer, the sealer and the verifiers run. Sizes are those after merging, over all the entries.
"""

import statistics
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bench.log_turns import Turns
from bench.traffic import Traffic
from bench.world import BenchError
from ksz_router.limits import MIB, log_file_bytes
from ksz_router.privacylog.archive import segment
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.chain import catalog, newest, quarters
from ksz_router.privacylog.archive.leaves import Gathering, compare
from ksz_router.privacylog.archive.merge import merge
from ksz_router.privacylog.archive.ordered import Ordered
from ksz_router.privacylog.archive.pieces import reread, write
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.runs import plan
from ksz_router.privacylog.archive.seal import SLOT, Grounds, Sealer
from ksz_router.privacylog.archive.step_files import Truth
from ksz_router.privacylog.archive.verify_fast import Place
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.keys import KeyRing, Tokens, make, quarter_of
from ksz_router.privacylog.tree.checkpoint import Signer, make_keys
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.proof import Proof, encode_proof, inclusion, verify_record
from ksz_router.privacylog.tree.salts import Salts
from ksz_router.privacylog.tree.sequence import Sequencer
from ksz_router.privacylog.writer import Writer

STEPS = 8
"""So many runs are merged into one."""
_NODE, _ORIGIN, _SLOTS, _GROUP = "bench", "bench.example/archive", ("w0", "w1"), 64
_PROOFS, _ROUNDS = 500, 3


class Bench:
    """The folders, the keys and the programs of one log, for one process."""

    def __init__(self, folder: Path) -> None:
        self.log, self.archive = folder / "log", folder / "archive"
        self.keys, self.tree_keys = folder / "keys", folder / "tree-keys"
        self.anchor = folder / "last-checkpoint"
        quarter = quarter_of(time.time_ns())
        make(self.keys, quarter)
        make_keys(self.tree_keys, _ORIGIN)
        self.ring = KeyRing(self.keys)
        self.quarter_keys = self.ring.quarter(quarter)
        self.signer = Signer(self.tree_keys, _ORIGIN)
        self.sequencer: Sequencer

    def writer(self, slot: str, file_bytes: int = log_file_bytes) -> Writer:
        return Writer.open(
            self.log,
            slot=slot,
            node=_NODE,
            keys_folder=self.keys,
            now_ns=time.time_ns(),
            file_bytes=file_bytes,
        )

    def write(self, records: int) -> int:
        """Write about so many, in two slots; return how many."""
        traffic = Traffic(Tokens(self.quarter_keys), seed=3)
        writers = [self.writer(slot) for slot in _SLOTS]
        turns = [Turns(traffic, _GROUP) for _ in writers]
        written = 0
        while written < records:
            for writer, turn in zip(writers, turns, strict=True):
                turn.draw()
                made = turn.entries()
                writer.commit(made, time.time_ns())
                written += len(made)
        for writer, turn in zip(writers, turns, strict=True):
            made = turn.rest()
            writer.commit(made, time.time_ns())
            written += len(made)
            writer.close()
        return written

    def open_sequencer(self) -> None:
        self.sequencer = Sequencer(
            log=self.log,
            archive=self.archive,
            last_checkpoint=self.anchor,
            keys_folder=self.keys,
            signer=self.signer,
            now_ns=time.time_ns(),
        )

    def sequence(self) -> int:
        """Sequence all there is; return how many records that was."""
        records = 0
        while True:
            cycle = self.sequencer.cycle(time.time_ns())
            if cycle.stalled:
                raise BenchError(f"a slot cannot be read: {cycle.stalled}")
            records += cycle.records
            if not cycle.has_more:
                return records

    def grounds(self) -> Grounds:
        return Grounds(
            archive=self.archive,
            log=self.log,
            keys=self.ring,
            node=_NODE,
            origin=_ORIGIN,
            vkeys=self.signer.vkeys,
        )


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Write, sequence, seal, merge, verify and prove.

    Raises:
        BenchError: what was sealed does not verify.
    """
    leaves_max = 16_384 if quick else 262_144
    bench = Bench(folder)
    records = bench.write(STEPS * leaves_max)
    print(f"{records:,} entries written", flush=True)
    bench.open_sequencer()
    figures: dict[str, Any] = {}
    figures["sequence_records_per_s"] = _per_s("sequenced", bench.sequence)
    figures["seal_records_per_s"] = _truth_per_s(bench, leaves_max)
    writer = bench.writer(SLOT, 2 * MIB)
    try:
        sealer = Sealer(
            bench.grounds(), writer, now_us=time.time_ns() // 1000, leaves_max=leaves_max
        )
        figures["seal_step_records_per_s"] = _per_s(
            "sealed, with all that is derived", lambda: _seal(sealer)
        )
        figures |= _compact(bench, sealer)
    finally:
        writer.close()
    bench.sequence()
    figures |= _verify(bench)
    figures |= _prove(bench)
    bench.sequencer.close()
    figures |= sizes(bench.archive, bench.sequencer.signed.size)
    return figures


def _per_s(what: str, work: Callable[[], int], rounds: int = 1) -> int:
    """Records a second of processor time, in the fastest round: others only ever slow it down."""
    per_s = 0
    for _ in range(rounds):
        began = time.process_time()
        records = work()
        per_s = max(per_s, round(records / (time.process_time() - began)))
    print(f"{what}: {per_s:,} a second of processor time", flush=True)
    return per_s


def _seal(sealer: Sealer) -> int:
    while sealer.step(time.time_ns() // 1000) is not None:
        pass
    return sealer.sealed_leaves


def _truth_per_s(bench: Bench, leaves_max: int) -> int:
    """From frames to a ``t`` file that was read again and compared with the tree."""
    levels = Levels.reading(bench.archive / "tree")
    file = bench.archive.parent / "timed.parquet"

    def work() -> int:
        with Ordered(bench.log, bench.archive / "order", bench.ring) as ordered:
            taken = ordered.take(0, bench.sequencer.signed.size)
            gathering = Gathering(taken, leaves_max)
            for _, pieces in groupby(gathering, key=lambda piece: piece.keys.id):
                truth = Truth(pieces, _NODE)
                written = write(file, truth.encoded(), pause=lambda: None)
                compare(reread(file, written), truth.stretch, levels)
        return gathering.end

    try:
        return _per_s("sealed as truth", work, _ROUNDS)
    finally:
        levels.close()
        file.unlink(missing_ok=True)


def _compact(bench: Bench, sealer: Sealer) -> dict[str, Any]:
    """Merge the runs of each kind into one, as when a quarter is over. A row counts as a record."""
    files = [
        file
        for quarter in quarters(bench.archive)
        for kind in "pukr"
        for file in catalog(bench.archive, quarter, kind).files
    ]
    per_s, spent_s, rows = {}, 0.0, 0
    for due in plan(files, lambda _: True):
        began = time.process_time()
        added = merge(bench.archive, due)
        took_s = time.process_time() - began
        merged = sum(file.rows for run in due.runs for file in run)
        per_s[due.kind] = round(merged / took_s)
        spent_s, rows = spent_s + took_s, rows + merged
        sealer.record(time.time_ns() // 1000, added, due.removed)
    print(f"merged: {rows / spent_s:,.0f} rows a second of processor time; {per_s}", flush=True)
    return {
        "compact_records_per_s": round(rows / spent_s),
        "compact_rows_per_s": per_s,
        "compact_entries_per_s": round(sealer.sealed_leaves / spent_s),
    }


def _verify(bench: Bench) -> dict[str, Any]:
    """Verify the archive alone, as it is once the write-ahead files are gone; and with them."""
    place = Place(
        archive=bench.archive,
        vkeys=bench.signer.vkeys,
        anchor=bench.anchor,
        commit_keys=bench.keys,
    )

    def work(place: Place) -> int:
        findings = verify_full(place)
        if findings.faults:
            raise BenchError(f"the archive does not verify: {findings.faults[0]}")
        return findings.leaves

    with_log = msgspec.structs.replace(place, log=bench.log)
    return {
        "full_verify_records_per_s": _per_s("verified in full", lambda: work(place), _ROUNDS),
        "full_verify_with_log_records_per_s": _per_s(
            "verified in full with the write-ahead files", lambda: work(with_log)
        ),
    }


def _prove(bench: Bench) -> dict[str, Any]:
    """Make the proof of single leaves, each with the files opened anew, and verify it."""
    chance, size = Random(1), bench.sequencer.signed.size
    note = (bench.archive / "tree" / "checkpoint").read_bytes()
    salts = Salts(bench.quarter_keys.commit)
    records = _some_records(bench)
    prove_ms, verify_ms, data = [], [], b""
    for index in chance.sample(sorted(records), min(_PROOFS, len(records))):
        began = time.perf_counter()
        levels = Levels.reading(bench.archive / "tree")
        hashes = inclusion(levels, index, size)
        levels.close()
        proof = Proof(index, tuple(hashes), note, salts.run(index, 1), records[index])
        data = encode_proof(proof)
        between = time.perf_counter()
        verify_record(data, bench.signer.vkeys)
        prove_ms.append((between - began) * 1e3)
        verify_ms.append((time.perf_counter() - between) * 1e3)
    figures = {"prove_ms": _p95(prove_ms), "verify_proof_ms": _p95(verify_ms)}
    print(f"p95 of a proof: made in {figures['prove_ms']} ms", end=", ")
    print(f"verified in {figures['verify_proof_ms']} ms; {len(data):,} bytes", flush=True)
    return figures


def _some_records(bench: Bench) -> dict[int, bytes]:
    (quarter,) = quarters(bench.archive)
    file = catalog(bench.archive, quarter, "t").files[0]
    rows = next(segment.rows_of("t", file_of(bench.archive, file.path)))
    return dict(enumerate(to_records(rows), file.first_leaf))


def _p95(values: list[float]) -> float:
    return round(statistics.quantiles(values, n=20)[-1], 3)


def sizes(archive: Path, leaves: int) -> dict[str, Any]:
    """Bytes of the archive a record, by what they are."""
    manifest = newest(archive)
    assert manifest is not None
    by_kind = dict.fromkeys("tpukrc", 0)
    for quarter in ("", *quarters(archive)):
        for kind in by_kind:
            by_kind[kind] += sum(file.bytes for file in catalog(archive, quarter, kind).files)
    for part in ("tree", "order", "manifest", "catalog"):
        files = (file for file in (archive / part).rglob("*") if file.is_file())
        by_kind[part] = sum(file.stat().st_size for file in files)
    each = {kind: round(size / leaves, 2) for kind, size in by_kind.items()}
    print(f"bytes a record: {each}", flush=True)
    return {
        "bytes_per_record_truth": each["t"],
        "bytes_per_record_all": round(sum(by_kind.values()) / leaves, 2),
        "bytes_per_record": each,
    }
