"""Write ``tests/vectors/privacylog-v1/``: a whole log of format 1, frozen, with its archive.

Every later version must verify it and find what is in it. It is written once, by the programs of
the day on which format 1 was settled, and never again; hence this refuses where it is there.

    python -m contrib.vectors_privacylog
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

from bench.log_entries import BEGIN_NS, Entries, Keys, Promises
from bench.log_judge import place_of
from bench.log_pipeline import SLOTS, Pipeline
from ksz_router.privacylog.archive.verify_full import verify_full
from ksz_router.privacylog.entry import Entry, Kind, parse
from ksz_router.privacylog.keys import Tokens, load, quarter_of
from ksz_router.privacylog.tree.checkpoint import parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hash
from ksz_router.privacylog.tree.note import read_vkeys
from ksz_router.privacylog.tree.proof import Proof, encode_proof, inclusion
from ksz_router.privacylog.tree.salts import Salts

FOLDER = Path(__file__).parents[1] / "tests" / "vectors" / "privacylog-v1"
BYTES_MAX = 200_000
_SEED = 20261122

_README = """\
# A privacy log of format 1, frozen

Made by `python -m contrib.vectors_privacylog` when format 1 was settled, and never made anew:
every later version of the router must verify all of it (`tests/test_privacylog_v1.py`) and find in
it what `expected.json` says. A change of format is a new folder beside this one.

Everything in it is synthetic. **The keys are drawn for this folder and protect nothing**; numbers
of persons are made by `bench/log_pipeline.py`, and stand in clear nowhere but in `expected.json`.

| part | what |
| --- | --- |
| `log/` | write-ahead files of two workers and the sealer, over the end of a quarter |
| `archive/` | order, tree, checkpoints, sealed files, manifests, catalogs |
| `last-checkpoint` | the anchor |
| `keys/` | key files of two quarters |
| `vkeys` | what the checkpoints are verified with; the private halves were thrown away |
| `request.tlog-proof` | a proof of one entry |
| `expected.json` | what is found in it |
"""


def main() -> int:
    if FOLDER.exists():
        print(f"{FOLDER}: is there, and never made anew", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        make(Path(scratch), made)
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
        if size > BYTES_MAX:
            print(f"{size} bytes: more than {BYTES_MAX}", file=sys.stderr)
            return 1
        shutil.copytree(made, FOLDER)
    print(f"{FOLDER}: {size} bytes")
    return 0


def make(scratch: Path, made: Path) -> None:
    """Make the folder, working in another."""
    keys, disk, promises = Keys.drawn(scratch / "keys"), scratch / "disk", Promises()
    (disk / "state").mkdir(parents=True)
    pipeline = Pipeline(
        disk,
        keys,
        Entries(keys, Random(_SEED)),
        promises,
        now_ns=BEGIN_NS + 30_000_000_000,
        leaves_max=1000,
        file_bytes=4 * 4096,
    )
    pipeline.start()
    for slot in SLOTS:
        pipeline.record(slot, 9)
    pipeline.sequence()
    pipeline.now_ns += 10_000_000_000
    pipeline.record(SLOTS[0], 6)  # under the keys of the next quarter; requests stay open
    pipeline.sequence()
    pipeline.seal()
    pipeline.record(SLOTS[0], 0)
    pipeline.sequence()  # the rest is in write-ahead files only
    pipeline.close()
    found = verify_full(place_of(disk, keys))
    assert found.is_whole, found.faults
    _lay_down(disk, keys, promises, made)


def _lay_down(disk: Path, keys: Keys, promises: Promises, made: Path) -> None:
    shutil.copytree(disk / "log", made / "log", ignore=_unused)
    shutil.copytree(disk / "archive", made / "archive", ignore=_unused)
    shutil.copy(disk / "state" / "last-checkpoint", made / "last-checkpoint")
    shutil.copytree(keys.quarters, made / "keys")
    shutil.copy(keys.checkpoint / "vkeys", made / "vkeys")
    (made / "README.md").write_text(_README, encoding="utf-8")
    place = place_of(disk, keys)
    note = (disk / "archive" / "tree" / "checkpoint").read_bytes()
    checkpoint = parse_checkpoint(note, read_vkeys(made / "vkeys"))
    entries = [parse(record) for record in promises.given]
    number, exchanges = _of_one_person(entries, keys)
    (made / "expected.json").write_text(
        json.dumps(
            {
                "origin": checkpoint.origin,
                "leaves": checkpoint.size,
                "root": checkpoint.root.hex(),
                "sealed_leaves": verify_full(place).sealed_leaves,
                "person": number,
                "exchanges": exchanges,
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
    first = min(record for record in promises.given if parse(record).kind is Kind.REQUEST)
    (made / "request.tlog-proof").write_bytes(_proof(disk, keys, note, checkpoint.size, first))


def _of_one_person(entries: list[Entry], keys: Keys) -> tuple[str, list[str]]:
    """Return the number of the person with the most exchanges, and their ids."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        if entry.person is not None and entry.exchange is not None:
            quarter = quarter_of(entry.at_us * 1000)
            number = Tokens(load(keys.quarters, quarter)).person_number(entry.person)
            found.setdefault(number, set()).add(entry.exchange.hex())
    number = max(found, key=lambda number: (len(found[number]), number))
    return number, sorted(found[number])


def _proof(disk: Path, keys: Keys, note: bytes, size: int, record: bytes) -> bytes:
    levels = Levels.reading(disk / "archive" / "tree")
    for path in keys.quarters.iterdir():
        salts = Salts(load(keys.quarters, path.stem).commit)
        for index in range(size):
            salt = salts.run(index, 1)
            if levels.leaf(index) == leaf_hash(salt, record):
                hashes = tuple(inclusion(levels, index, size))
                levels.close()
                return encode_proof(Proof(index, hashes, note, salt, record))
    raise LookupError("the record has no leaf")


def _unused(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name in {"prepared", "making", "filling"}]


if __name__ == "__main__":
    sys.exit(main())
