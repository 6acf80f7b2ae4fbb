"""A proof of an entry, from a real log to a stranger who has the file and the verifier keys."""

import ast
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pytest

from contrib import verify_record as independent
from ksz_router.cli import main
from ksz_router.privacylog import keys as quarter_keys
from ksz_router.privacylog.archive.find import entries_of
from ksz_router.privacylog.archive.places import file_of
from ksz_router.privacylog.archive.schema import TRUTH
from ksz_router.privacylog.archive.segment import encode, rows_of
from ksz_router.privacylog.entry import Entry, Kind, canonical, parse
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.tree.checkpoint import CheckpointRefused
from ksz_router.privacylog.tree.merkle import leaf_hash
from ksz_router.privacylog.tree.proof import ProofRefused, parse_proof, verify_record
from ksz_router.privacylog.tree.sequence import Sequencer
from tests.archive_ground import Ground
from tests.privacylog_world import NOW_NS, PERSON, RENUMBERED, filled

STRANGER = Path(__file__).parents[1] / "contrib" / "verify_record.py"
OURS = uuid.UUID("019a91e0-7a3b-7c11-9d52-0b7f6f3c2a10")
"""An exchange id as the router makes them."""


class Log(Ground):
    """A log that the real sequencer orders and signs; its sealer, too, is the real one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        quarter = quarter_keys.quarter_of(time.time_ns())
        if not (self.world.keys / f"{quarter}.json").exists():
            quarter_keys.make(self.world.keys, quarter)
        self.vkeys = folder / "checkpoint-keys" / "vkeys"
        filled(self.world)
        writer = self.world.open(slot="w2")
        records = [
            self.world.request(6, exchange=OURS.bytes),
            self.world.outcome(6, exchange=OURS.bytes),
        ]
        writer.commit(records, NOW_NS)
        writer.close()

    def sequence(self) -> int:
        sequencer = Sequencer(
            log=self.world.log,
            archive=self.archive,
            last_checkpoint=self.archive.parent / "last-checkpoint",
            keys_folder=self.world.keys,
            signer=self.signer,
            now_ns=NOW_NS,
        )
        sequencer.cycle(NOW_NS)
        size = sequencer.signed.size
        sequencer.close()
        return size

    def prove(self, exchange: int | str, *words: str) -> int:
        asked = str(uuid.UUID(int=exchange)) if isinstance(exchange, int) else exchange
        folders = {"--log": self.world.log, "--keys": self.world.keys, "--archive": self.archive}
        options = [word for name, folder in folders.items() for word in (name, str(folder))]
        reading = ("--purpose", "file 7", "--reader", "dpo")
        return main(["log", "prove", "--exchange", asked, *words, *options, *reading])

    def written(self, exchange: int | str, *words: str) -> Path:
        """A proof in a file."""
        file = self.archive.parent / f"{len(list(self.archive.parent.iterdir()))}.tlog-proof"
        assert self.prove(exchange, *words, "--out", str(file)) == 0
        return file

    def found(self, exchange: int) -> list[Entry]:
        keys, folders = KeyRing(self.world.keys), {"archive": self.archive, "log": self.world.log}
        leaves = entries_of(exchange.to_bytes(16, "big"), keys=keys, **folders)
        return [parse(leaf.record) for leaf in leaves]

    def readings(self) -> list[Entry]:
        return self.world.entries(f"v-{os.getuid()}-0")


class Told(NamedTuple):
    """What the stranger's program said."""

    code: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, str]:
        pairs = (line.split(None, 1) for line in self.out.splitlines() if line.startswith("  "))
        return {pair[0]: pair[1] for pair in pairs}


def stranger(proof: Path, vkeys: Path) -> Told:
    """Run it as a stranger does: apart from this environment and its packages."""
    words = [sys.executable, "-I", "-S", str(STRANGER), str(proof), str(vkeys)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return Told(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    made.sequence()
    return made


@pytest.fixture(
    scope="module", params=["in the write-ahead files", "sealed", "sealed, those files gone"]
)
def anywhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Log:
    log = Log(tmp_path_factory.mktemp("anywhere"))
    log.sequence()
    if request.param != "in the write-ahead files":
        log.seal()
    if request.param == "sealed, those files gone":
        for slot in ("w0", "w1", "w2"):
            for file in log.world.files(slot):
                file.unlink()
    return log


def test_a_stranger_checks_what_was_proved(anywhere: Log) -> None:
    """With the standard library and openssl; it reads the record as it was written."""
    proof = anywhere.written(1)
    told = stranger(proof, anywhere.vkeys)
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    size = verify_record(proof.read_bytes(), anywhere.signer.vkeys).checkpoint.size
    index = parse_proof(proof.read_bytes()).index
    assert lines[0] == f"proved: leaf {index} of {size} in log.example/router-a"
    assert lines[1] == "signed by log.example/router-a with Ed25519"
    assert lines[2].startswith("signed by log.example/router-a with ML-DSA-44 at 2026-11-18 11:06:")
    entry = parse(parse_proof(proof.read_bytes()).record)
    assert entry.exchange == (1).to_bytes(16, "big")
    assert (told.fields["kind"], told.fields["version"]) == ("1  (REQUEST)", "1")
    assert told.fields["person"] == (entry.person or b"").hex()
    assert told.fields["exchange"] == "00000000-0000-0000-0000-000000000001"
    assert told.fields["at_us"].startswith(f"{entry.at_us}  (2026-11-18 11:06:40")
    assert told.fields["destinations"] == str(list(entry.destinations))
    shown = {
        name for name in Entry.__struct_fields__ if getattr(entry, name) not in (None, "", (), 0)
    }
    assert told.fields.keys() == shown


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((), Kind.REQUEST),
        (("--entry", "request"), Kind.REQUEST),
        (("--entry", "outcome"), Kind.OUTCOME),
        (("--entry", "1"), Kind.REQUEST),
        (("--entry", "2"), Kind.FURTHER),
        (("--entry", "3"), Kind.OUTCOME),
    ],
)
def test_any_entry_of_an_exchange_can_be_proved(
    anywhere: Log, words: tuple[str, ...], kind: Kind
) -> None:
    """By its kind, or its number in the order of leaves."""
    proved = verify_record(anywhere.written(5, *words).read_bytes(), anywhere.signer.vkeys)
    assert parse(proved.record).kind == kind
    assert [entry.kind for entry in anywhere.found(5)] == [
        Kind.REQUEST, Kind.FURTHER, Kind.OUTCOME,
    ]  # fmt: skip


def test_all_entries_of_all_exchanges_are_found_once(anywhere: Log) -> None:
    """Their salts and records give the leaves that the tree has."""
    keys = KeyRing(anywhere.world.keys)
    ids = [number.to_bytes(16, "big") for number in range(1, 6)] + [OURS.bytes]
    found = [
        leaf
        for exchange in ids
        for leaf in entries_of(
            exchange, archive=anywhere.archive, log=anywhere.world.log, keys=keys
        )
    ]
    assert sorted(leaf.seq for leaf in found) == list(range(11))
    data = (anywhere.archive / "tree" / "0" / "000000").read_bytes()
    for leaf in found:
        assert leaf_hash(leaf.salt, leaf.record) == data[32 * leaf.seq : 32 * leaf.seq + 32]


def test_an_exchange_that_is_only_named_is_another(log: Log) -> None:
    """A retry names the first attempt; it is no entry of it."""
    writer = log.world.open(slot="w3")
    first = (1).to_bytes(16, "big")
    writer.commit([log.world.request(10, first=first, attempt=2)], NOW_NS)
    writer.close()
    log.sequence()
    assert [entry.kind for entry in log.found(1)] == [Kind.REQUEST, Kind.OUTCOME]
    log.seal()
    assert [entry.kind for entry in log.found(1)] == [Kind.REQUEST, Kind.OUTCOME]
    assert [entry.first for entry in log.found(10)] == [first]


def test_what_is_sealed_and_what_is_not_are_found_together(log: Log) -> None:
    """An exchange whose outcome came after its request was sealed."""
    writer = log.world.open(slot="w3")
    writer.commit([log.world.request(7)], NOW_NS)
    log.seal()
    writer.commit([log.world.outcome(7)], NOW_NS)
    log.sequence()
    assert [entry.kind for entry in log.found(7)] == [Kind.REQUEST, Kind.OUTCOME]
    log.seal()
    assert [entry.kind for entry in log.found(7)] == [Kind.REQUEST, Kind.OUTCOME]
    writer.close()


def test_the_reading_is_recorded_under_the_persons_numbers(log: Log) -> None:
    """First that somebody looks; then, before anything is shown, whom it is about."""
    log.written(3)
    token = log.world.tokens.person
    first, *named = log.readings()
    assert first.person is None
    assert {entry.person for entry in named} == {token(PERSON), token(RENUMBERED)}
    assert {(e.kind, e.service, e.reader, e.purpose) for e in [first, *named]} == {
        (Kind.READING, "log prove", "dpo", "file 7")
    }
    assert {entry.enterprise for entry in named} == {log.found(3)[0].requester}


def test_nothing_is_shown_where_it_cannot_be_recorded_whom_it_is_about(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token of no person: that somebody looked is recorded, and that is all."""
    entry = msgspec.structs.replace(parse(log.world.request(9)), person=bytes(16))
    writer = log.world.open(slot="w3")
    writer.commit([canonical(entry)], NOW_NS)
    writer.close()
    log.sequence()
    assert log.prove(9) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "was not made with the person key" in captured.err
    assert [entry.person for entry in log.readings()] == [None]


def test_the_proof_goes_to_standard_output_or_a_new_file(
    log: Log, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    """For its owner alone; what is there is not replaced."""
    assert log.prove(4, "--entry", "outcome") == 0
    out = capfdbinary.readouterr().out
    assert parse(verify_record(out, log.signer.vkeys).record).code == 9004
    file = tmp_path / "kept"
    assert log.prove(4, "--out", str(file)) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert log.prove(5, "--out", str(file)) == 1
    assert file.read_bytes() == before
    assert log.prove(4, "--out", str(tmp_path / "none" / "kept")) == 1


def test_what_cannot_be_proved_is_said(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """No such exchange or entry, one that has no leaf yet, one beyond the checkpoint."""
    writer = log.world.open(slot="w3")
    writer.commit([log.world.request(8)], NOW_NS)
    writer.close()
    for words in ((99,), (2, "--entry", "outcome"), (1, "--entry", "3"), (8,)):
        assert log.prove(*words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "has a leaf" in captured.err
    note = (log.archive / "tree" / "checkpoint").read_bytes()
    log.sequence()
    (log.archive / "tree" / "checkpoint").write_bytes(note)
    assert log.prove(8) == 1
    assert "does not cover the entry yet" in capsys.readouterr().err
    (log.archive / "tree" / "checkpoint").unlink()
    assert log.prove(1) == 1
    for usage in (("x",), (1, "--entry", "0"), (1, "--entry", "last")):
        assert log.prove(*usage) == 2


def test_the_archive_is_named_with_the_copy(
    log: Log, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a machine without the packages of the audit side says what to install."""
    words = ["log", "prove", "--exchange", str(OURS), "--purpose", "x"]
    words += ["--log", str(log.world.log), "--keys", str(log.world.keys)]
    assert main(words) == 2
    assert "--archive" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.startswith("ksz_router.privacylog.archive.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert log.prove(1) == 1
    assert "ksz-router[audit]" in capsys.readouterr().err


def forge_row(log: Log) -> None:
    """Another verdict in each row of the truth."""
    (sealed,) = log.files("t")
    path = file_of(log.archive, sealed.path)
    rows = pa.concat_tables(rows_of("t", path)).cast(TRUTH)
    codes = pa.array([4001] * len(rows), pa.int32())
    path.write_bytes(encode("t", rows.set_column(TRUTH.get_field_index("code"), "code", codes)))


def shift_rows(log: Log) -> None:
    """The rows of the truth in another order."""
    (sealed,) = log.files("t")
    path = file_of(log.archive, sealed.path)
    rows = pa.concat_tables(rows_of("t", path)).cast(TRUTH)
    path.write_bytes(encode("t", pa.concat_tables([rows.slice(1), rows.slice(0, 1)])))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (forge_row, "not the one that was signed"),
        (shift_rows, "does not hold its leaves"),
        (lambda log: flip(log.archive / "tree" / "0" / "000000", 32 * 5), "not the one that was"),
        (lambda log: (log.archive / "tree" / "0" / "000000").write_bytes(b""), "ends before"),
        (lambda log: file_of(log.archive, log.files("t")[0].path).write_bytes(b"x"), "restore it"),
        (lambda log: file_of(log.archive, log.files("k")[0].path).unlink(), "restore it"),
    ],
)
def test_no_proof_is_made_from_an_archive_that_was_altered(
    log: Log, capsys: pytest.CaptureFixture[str], spoil: Callable[[Log], object], what: str
) -> None:
    """Whatever was changed, the leaf or the root does not come out."""
    log.seal()
    spoil(log)
    assert log.prove(1) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert what in captured.err


def spoiled(proof: bytes) -> Iterator[tuple[str, bytes]]:
    """Altered proofs, each of which must be refused."""
    for at in range(30, len(proof), 211):
        changed = bytearray(proof)
        changed[at] ^= 1
        yield f"byte {at}", bytes(changed)
    head, _, note = proof.partition(b"\n\n")
    lines = note.splitlines(keepends=True)
    for number, line in enumerate(lines[-2:]):
        at = proof.index(line) + len(line) // 2
        changed = bytearray(proof)
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        yield f"another signature {number}", bytes(changed)
    yield "without ML-DSA-44", head + b"\n\n" + b"".join(lines[:-1])
    yield "without Ed25519", head + b"\n\n" + b"".join(lines[:-2] + lines[-1:])
    yield "without a hash", b"\n".join(head.split(b"\n")[:-1]) + b"\n\n" + note
    yield "with one more", head + b"\n" + head.split(b"\n")[-1] + b"\n\n" + note


def test_a_stranger_takes_no_other_proof(log: Log, tmp_path: Path) -> None:
    """What our verifier refuses, the independent one refuses too; and under other keys."""
    right, altered = log.written(2), tmp_path / "altered"
    independent.verified(right, log.vkeys, "openssl")
    for name, data in spoiled(right.read_bytes()):
        altered.write_bytes(data)
        with pytest.raises((ValueError, IndexError)):
            pytest.fail(f"{name}: {independent.verified(altered, log.vkeys, 'openssl')}")
        with pytest.raises((ProofRefused, CheckpointRefused)):
            verify_record(data, log.signer.vkeys)
    told = stranger(altered, log.vkeys)
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("not proved: ")
    others = tmp_path / "others"
    assert (
        main(["keys", "checkpoint", "--folder", str(others), "--origin", "log.example/router-a"])
        == 0
    )
    assert "each of the kinds of key" in stranger(right, others / "vkeys").err


def test_the_stranger_imports_nothing_of_ours() -> None:
    """Nor anything that is not in the standard library."""
    tree = ast.parse(STRANGER.read_text(encoding="utf-8"))
    named = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in named} <= sys.stdlib_module_names
