"""Proofs: right ones are accepted, all others refused; the oracles are RFC 6962 and pymerkle."""

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrib.verify_record import verified as verify_record_file
from ksz_router.cli import main
from ksz_router.privacylog.entry import Entry, Kind, canonical
from ksz_router.privacylog.tree.checkpoint import (
    Checkpoint,
    CheckpointRefused,
    Signer,
    make_keys,
    parse_checkpoint,
)
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import leaf_hashes, node_hash, root_of
from ksz_router.privacylog.tree.note import read_vkeys
from ksz_router.privacylog.tree.proof import (
    Proof,
    ProofRefused,
    consistency,
    encode_proof,
    inclusion,
    parse_proof,
    verify_consistency,
    verify_inclusion,
    verify_record,
)
from ksz_router.privacylog.tree.salts import Salts

COUNT = 600
RECORDS = [
    canonical(Entry(kind=Kind.REQUEST, at_us=10**15 + number, exchange=number.to_bytes(16, "big")))
    for number in range(COUNT)
]
SALTS = Salts(bytes(32)).run(0, COUNT)
LEAVES = leaf_hashes(SALTS, RECORDS)
ROOTS = [root_of(LEAVES[:size]) for size in range(COUNT + 1)]
ORIGIN = "log.example/router-a"
SIZES = [*range(1, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, COUNT]


class Ground(NamedTuple):
    """A log of some entries, and what verifies it."""

    archive: Path
    levels: Levels
    keys: Path
    signer: Signer
    oracle: Any

    def note(self, size: int) -> bytes:
        return self.signer.sign(size, ROOTS[size], 1_795_300_000)

    def proof(self, index: int, size: int = COUNT) -> bytes:
        hashes = tuple(inclusion(self.levels, index, size))
        salt = SALTS[16 * index : 16 * index + 16]
        return encode_proof(Proof(index, hashes, self.note(size), salt, RECORDS[index]))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("proofs")
    levels = Levels(folder / "archive" / "tree")
    levels.append(LEAVES)
    levels.flush()
    make_keys(folder / "keys", ORIGIN)
    oracle = pymerkle.InmemoryTree()
    oracle.append_entries(
        SALTS[16 * at : 16 * at + 16] + record for at, record in enumerate(RECORDS)
    )
    signer = Signer(folder / "keys", ORIGIN)
    return Ground(folder / "archive", levels, folder / "keys", signer, oracle)


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*path(index, leaves[:k]), root_of(leaves[k:])]
    return [*path(index - k, leaves[k:]), root_of(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [root_of(leaves)]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if m <= k:
        return [*subproof(m, leaves[:k], whole=whole), root_of(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), root_of(leaves[:k])]


def tree(size: int, root: bytes | None = None) -> Checkpoint:
    return Checkpoint(ORIGIN, size, ROOTS[size] if root is None else root)


def test_every_leaf_of_every_tree_is_proved(ground: Ground) -> None:
    """The proof is that of the RFC, and of pymerkle, and it verifies."""
    for size in SIZES:
        for index in {0, 1, size // 2, size - 2, size - 1, *range(min(size, 20))} & {*range(size)}:
            hashes = inclusion(ground.levels, index, size)
            assert hashes == path(index, LEAVES[:size])
            assert hashes == ground.oracle.prove_inclusion(index + 1, size).path[1:]
            verify_inclusion(LEAVES[index], index, size, hashes, ROOTS[size])


def test_every_tree_continues_every_smaller_one(ground: Ground) -> None:
    """The proof is that of the RFC and verifies; pymerkle finds the same roots."""
    for new in SIZES:
        assert ground.oracle.get_root(new) == ROOTS[new]
        for old in sorted({new // 2, new - 1, new, *range(min(new, 34))}):
            hashes = consistency(ground.levels, old, new)
            if old:
                assert hashes == subproof(old, LEAVES[:new], whole=True)
            verify_consistency(tree(old), tree(new), hashes)


@given(st.integers(1, COUNT), st.data())
def test_no_other_inclusion_is_proved(ground: Ground, size: int, data: st.DataObject) -> None:
    """Another leaf, index, size or root, a proof that is longer, shorter, or altered."""
    index = data.draw(st.integers(0, size - 1))
    hashes = inclusion(ground.levels, index, size)
    verify_inclusion(LEAVES[index], index, size, hashes, ROOTS[size])
    other = data.draw(st.integers(0, size + 3).filter(lambda value: value != index))
    altered = [*hashes, bytes(32)]
    refused: list[tuple[bytes, int, int, list[bytes], bytes]] = [
        (bytes(32), index, size, hashes, ROOTS[size]),
        (LEAVES[index], other, size, hashes, ROOTS[size]),
        (LEAVES[index], index, size, hashes, ROOTS[size - 1]),
        (LEAVES[index], index, size, altered, ROOTS[size]),
        (LEAVES[index], index, size, altered[::-1], ROOTS[size]),
        (LEAVES[index], -1, size, hashes, ROOTS[size]),
        (LEAVES[index], index, 0, hashes, ROOTS[size]),
    ]
    if hashes:
        at = data.draw(st.integers(0, len(hashes) - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        flipped = bytes([hashes[at][0] ^ bit]) + hashes[at][1:]
        swapped = [*hashes[:at], flipped, *hashes[at + 1 :]]
        refused += [
            (LEAVES[index], index, size, hashes[:-1], ROOTS[size]),
            (LEAVES[index], index, size, hashes[1:], ROOTS[size]),
            (LEAVES[index], index, size, swapped, ROOTS[size]),
        ]
    for case in refused:
        with pytest.raises(ProofRefused):
            verify_inclusion(*case)


@given(st.integers(1, COUNT), st.data())
def test_no_other_consistency_is_proved(ground: Ground, new: int, data: st.DataObject) -> None:
    """A tree that was cut, or has another leaf somewhere, or a proof for other sizes."""
    old = data.draw(st.integers(1, new))
    hashes = consistency(ground.levels, old, new)
    verify_consistency(tree(old), tree(new), hashes)
    changed = data.draw(st.integers(0, old - 1))
    forged = root_of([*LEAVES[:changed], bytes(32), *LEAVES[changed + 1 : new]])
    refused: list[tuple[Checkpoint, Checkpoint, list[bytes]]] = [
        (tree(old), tree(new, forged), hashes),
        (tree(old, bytes(32)), tree(new), hashes),
        (tree(old), tree(new), [*hashes, bytes(32)]),
        (tree(old), Checkpoint("other.example", new, ROOTS[new]), hashes),
    ]
    if old < new:
        refused += [
            (tree(new), tree(old), hashes),
            (tree(old), tree(new), hashes[:-1]),
            (tree(old), tree(new), hashes[1:]),
            (tree(old), tree(new), []),
            (tree(old), tree(old, ROOTS[new]), []),
        ]
        at = data.draw(st.integers(0, len(hashes) - 1))
        swapped = [*hashes[:at], bytes(32), *hashes[at + 1 :]]
        refused.append((tree(old), tree(new), swapped))
    for case in refused:
        with pytest.raises(ProofRefused):
            verify_consistency(*case)


def test_a_proof_of_another_length_is_refused_though_it_comes_out() -> None:
    """Of a tree whose signer lies about its size: as many hashes as it is high."""
    leaf, other = LEAVES[0], LEAVES[1]
    verify_inclusion(leaf, 0, 1, [], leaf)
    cases: tuple[tuple[int, int, list[bytes], bytes], ...]
    cases = ((0, 2, [], leaf), (0, 1, [other], node_hash(other, leaf)),
             (1, 3, [other], node_hash(other, leaf)))  # fmt: skip
    for index, size, hashes, root in cases:
        with pytest.raises(ProofRefused):
            verify_inclusion(leaf, index, size, hashes, root)
    longer = [*consistency_of(3, 4), other]
    old, new = tree(3, node_hash(other, ROOTS[3])), tree(4, node_hash(other, ROOTS[4]))
    with pytest.raises(ProofRefused):
        verify_consistency(old, new, longer)
    with pytest.raises(ProofRefused):
        verify_consistency(tree(2), tree(4, ROOTS[2]), [])


def consistency_of(old: int, new: int) -> list[bytes]:
    return subproof(old, LEAVES[:new], whole=True)


def test_nothing_comes_before_the_empty_tree(ground: Ground) -> None:
    """It is continued by every tree, without a proof, if its root is that of nothing."""
    verify_consistency(tree(0), tree(7), consistency(ground.levels, 0, 7))
    for case in ((tree(0, bytes(32)), tree(7), []), (tree(0), tree(7), [bytes(32)])):
        with pytest.raises(ProofRefused):
            verify_consistency(*case)


def test_a_proof_file_is_the_text_of_tlog_proof(ground: Ground) -> None:
    """Line by line, and back again."""
    data = ground.proof(5, 12)
    lines = data.split(b"\n")
    held = SALTS[80:96] + RECORDS[5]
    assert lines[:3] == [
        b"c2sp.org/tlog-proof@v1", b"extra " + base64.b64encode(held), b"index 5",
    ]  # fmt: skip
    assert [base64.b64decode(line) for line in lines[3:7]] == path(5, LEAVES[:12])
    assert lines[7] == b""
    assert parse_checkpoint(b"\n".join(lines[8:]), ground.signer.vkeys) == tree(12)
    assert encode_proof(parse_proof(data)) == data
    only = ground.proof(0, 1)
    assert only.split(b"\n")[2:4] == [b"index 0", b""]
    assert encode_proof(parse_proof(only)) == only


def test_a_record_is_proved_with_the_verifier_keys_alone(ground: Ground) -> None:
    """What comes back is the record, its leaf and the tree."""
    vkeys = read_vkeys(ground.keys / "vkeys")
    for index, size in ((0, 1), (5, 12), (COUNT - 1, COUNT)):
        proved = verify_record(ground.proof(index, size), vkeys)
        assert (proved.index, proved.record) == (index, RECORDS[index])
        assert proved.checkpoint == tree(size)


def test_no_byte_of_a_proof_can_be_changed(ground: Ground) -> None:
    """Each byte before the checkpoint in turn, one bit of it by chance; and every cut."""
    vkeys = read_vkeys(ground.keys / "vkeys")
    data = ground.proof(77)
    chance = random.Random(5)
    for at in range(data.index(b"\n\n") + 60):
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises((ProofRefused, CheckpointRefused)):
            verify_record(bytes(changed), vkeys)
    for cut in range(0, len(data), 7):
        with pytest.raises((ProofRefused, CheckpointRefused)):
            verify_record(data[:cut], vkeys)


BROKEN: dict[str, tuple[bytes, bytes]] = {
    "another format": (b"tlog-proof@v1", b"tlog-proof@v2"),
    "no extra line": (b"extra ", b"other "),
    "an index with a zero before it": (b"index 5", b"index 05"),
    "an index that is none": (b"index 5", b"index -5"),
    "an index beyond all trees": (b"index 5", b"index " + b"9" * 19),
    "a hash too short": (b"index 5\n", b"index 5\nAAAA\n"),
    "too many hashes": (b"index 5\n", b"index 5\n" + (b"A" * 43 + b"=\n") * 64),
    "no record": (b"extra ", b"extra AAAA\nother "),
    "not ASCII": (b"index 5", "index \uff15".encode()),
    "too long": (b"index 5", b"index 5" + b"\n" * 400_000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_text_that_is_no_proof_is_refused(ground: Ground, name: str) -> None:
    """With a typed error, before any signature is looked at."""
    right = ground.proof(5, 12)
    broken = right.replace(*BROKEN[name], 1)
    assert broken != right
    with pytest.raises(ProofRefused):
        parse_proof(broken)


def test_the_command_line_verifies_what_it_is_given(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoint, consistency and record; 0 where it holds, 1 where not, 2 for wrong usage."""
    vkeys = ("--vkeys", str(ground.keys / "vkeys"))
    old, new, proof = tmp_path / "old", tmp_path / "new", tmp_path / "proof"
    old.write_bytes(ground.note(7))
    new.write_bytes(ground.note(COUNT))
    proof.write_bytes(ground.proof(7))

    def verify(*words: str) -> int:
        return main(["log", "verify", *words, *vkeys])

    assert verify("checkpoint", str(new)) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{ORIGIN}: 600 leaves, root ")
    assert f"signed by {ORIGIN} with Ed25519\n" in out
    assert "with ML-DSA-44 at 2026-11-21T22:26:40Z" in out
    archive = ("--archive", str(ground.archive))
    assert verify("consistency", str(old), str(new), *archive) == 0
    assert "continues the tree of 7 leaves" in capsys.readouterr().out
    assert verify("consistency", str(new), str(old), *archive) == 1
    assert "7 leaves, and the old one 600" in capsys.readouterr().err
    assert verify("record", str(proof)) == 0
    assert "leaf 7: REQUEST of 00000000-0000-0000-0000-000000000007" in capsys.readouterr().out
    proof.write_bytes(ground.proof(7).replace(b"index 7", b"index 8"))
    assert verify("record", str(proof)) == 1
    assert verify("checkpoint", str(tmp_path / "none")) == 2
    new.write_bytes(ground.note(COUNT).replace(b"\n600\n", b"\n599\n"))
    assert verify("checkpoint", str(new)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "is not right" in captured.err


def test_a_tree_that_was_rewritten_does_not_continue_the_old_one(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signed with the right keys and whole in itself: who kept an old checkpoint sees it."""
    leaves = [*LEAVES[:3], bytes(32), *LEAVES[4:]]
    levels = Levels(tmp_path / "archive" / "tree")
    levels.append(leaves)
    levels.flush()
    (tmp_path / "old").write_bytes(ground.note(100))
    (tmp_path / "new").write_bytes(ground.signer.sign(COUNT, root_of(leaves), 1_795_300_001))
    words = ["log", "verify", "consistency", str(tmp_path / "old"), str(tmp_path / "new")]
    words += ["--vkeys", str(ground.keys / "vkeys"), "--archive", str(tmp_path / "archive")]
    assert main(words) == 1
    assert "does not continue the old one" in capsys.readouterr().err


def test_options_before_the_name_of_a_check_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Or they would be taken for those of the default check, and dropped."""
    with pytest.raises(SystemExit):
        main(["log", "verify", "--log", "x", "--keys", "y", "wal"])
    assert "options come behind the name of the check" in capsys.readouterr().err


def test_the_vectors_are_computed(tmp_path: Path) -> None:
    """What a stranger computes from the specification is what we write."""
    folder = Path(__file__).parent / "vectors" / "privacylog"
    table = json.loads((folder / "tree.json").read_text(encoding="utf-8"))
    cases = json.loads((folder / "entries.json").read_text(encoding="utf-8"))["cases"]
    records = [bytes.fromhex(cases[at % len(cases)]["canonical"]) for at in range(9)]
    salts = Salts(bytes.fromhex(table["commit"]))
    for at, salt in table["salts"].items():
        assert salts.run(int(at), 1).hex() == salt
    leaves = leaf_hashes(salts.run(0, 9), records)
    assert [leaf.hex() for leaf in leaves] == table["leaves"]
    assert [root_of(leaves[:size]).hex() for size in range(10)] == table["roots"]
    levels = Levels(tmp_path / "tree")
    levels.append(leaves)
    told = table["consistency"]
    hashes = consistency(levels, told["old"], told["new"])
    assert [hash_.hex() for hash_ in hashes] == told["hashes"]
    (tmp_path / "vkeys").write_text("\n".join(table["vkeys"]), encoding="utf-8")
    (tmp_path / "proof").write_text(table["proof"], encoding="utf-8")
    proved = verify_record(table["proof"].encode(), read_vkeys(tmp_path / "vkeys"))
    assert (proved.index, proved.record) == (4, records[4])
    assert parse_proof(table["proof"].encode()).hashes == tuple(inclusion(levels, 4, 9))
    by_stranger = verify_record_file(tmp_path / "proof", tmp_path / "vkeys", "openssl")[1]
    assert by_stranger[:2] == [1, records[4][4]]
