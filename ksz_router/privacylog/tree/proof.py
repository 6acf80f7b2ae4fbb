"""Proofs that a leaf is in a tree, and that one tree continues another (RFC 6962, section 2.1).

They are made from the level files and verified without them (RFC 9162, sections 2.1.3.2 and
2.1.4.2). A ``.tlog-proof`` file (C2SP tlog-proof) holds one with the checkpoint and the record that
it is about, so that who has the verifier keys needs nothing else.
"""

import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.tree.checkpoint import SIZE_MAX, Checkpoint, parse_checkpoint
from ksz_router.privacylog.tree.levels import Levels
from ksz_router.privacylog.tree.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    SALT_BYTES,
    leaf_hash,
    node_hash,
)
from ksz_router.privacylog.tree.note import NOTE_BYTES_MAX, VerifierKey, decode_base64

HASHES_MAX: Final = 63
"""Of a tree with less than 2**63 leaves."""
_FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
_PROOF_BYTES_MAX: Final = NOTE_BYTES_MAX + 64 * 1024


class ProofRefused(PrivacyLogError):
    """It is not a proof, or proves something else."""


class Proof(msgspec.Struct, frozen=True):
    """What a ``.tlog-proof`` file holds; nothing in it is verified."""

    index: int
    """Of the leaf."""
    hashes: tuple[bytes, ...]
    """From the sibling of the leaf upwards, 32 bytes each."""
    checkpoint: bytes
    """The signed note."""
    salt: bytes
    record: bytes
    """Canonical form of the entry."""


class Proved(msgspec.Struct, frozen=True):
    """A record, and where it stands in which tree."""

    checkpoint: Checkpoint
    index: int
    record: bytes


def inclusion(levels: Levels, index: int, size: int) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of the first ``size`` leaves.

    Raises:
        TreeDamaged: the level files do not hold that tree.
    """
    assert 0 <= index < size
    hashes = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            hashes.append(levels.subtree(middle, end))
            end = middle
        else:
            hashes.append(levels.subtree(first, middle))
            first = middle
    return hashes[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, hashes: Sequence[bytes], root: bytes
) -> None:
    """Return where a leaf is in the tree of this size and root.

    Raises:
        ProofRefused: the hashes do not prove it.
    """
    if not 0 <= index < size:
        raise ProofRefused("the proof is of a leaf that is not in the tree")
    node, last, found = index, size - 1, leaf
    for hash_ in hashes:
        if last == 0:
            raise ProofRefused("the proof is longer than the tree is high")
        if node & 1 or node == last:
            found = node_hash(hash_, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, hash_)
        node, last = node >> 1, last >> 1
    if last != 0 or found != root:
        raise ProofRefused("the proof does not lead from the record to the root of the tree")


def consistency(levels: Levels, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of ``new`` leaves continues that of the first ``old``.

    Raises:
        TreeDamaged: the level files do not hold these trees.
    """
    assert 0 <= old <= new
    if old in (0, new):
        return []
    hashes = []
    first, end, whole = 0, new, True
    while end != old:
        middle = first + _split(end - first)
        if old <= middle:
            hashes.append(levels.subtree(middle, end))
            end = middle
        else:
            hashes.append(levels.subtree(first, middle))
            first, whole = middle, False
    if not whole:  # else it is the old root, which the verifier has
        hashes.append(levels.subtree(first, end))
    return hashes[::-1]


def verify_consistency(old: Checkpoint, new: Checkpoint, hashes: Sequence[bytes]) -> None:
    """Return where the new tree continues the old one.

    Raises:
        ProofRefused: the hashes do not prove it.
    """
    if old.origin != new.origin:
        raise ProofRefused("the checkpoints are of two logs")
    if old.size > new.size:
        raise ProofRefused(f"the new tree has {new.size} leaves, and the old one {old.size}")
    if old.size in (0, new.size):
        held = EMPTY_ROOT if old.size == 0 else new.root
        if hashes or old.root != held:
            raise ProofRefused("two roots for one size, or a proof where none is needed")
        return
    rest = list(hashes)
    if old.size & (old.size - 1) == 0:
        rest.insert(0, old.root)  # a full subtree of the new tree
    if not rest:
        raise ProofRefused("the proof is shorter than the trees need")
    node, last = old.size - 1, new.size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_found = new_found = rest[0]
    for hash_ in rest[1:]:
        if last == 0:
            raise ProofRefused("the proof is longer than the tree is high")
        if node & 1 or node == last:
            old_found = node_hash(hash_, old_found)
            new_found = node_hash(hash_, new_found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_found = node_hash(new_found, hash_)
        node, last = node >> 1, last >> 1
    if last != 0 or old_found != old.root or new_found != new.root:
        raise ProofRefused("the new tree does not continue the old one")


def encode_proof(proof: Proof) -> bytes:
    """Return the bytes of a ``.tlog-proof`` file; the extra line is the salt and the record."""
    lines = [
        _FIRST_LINE,
        f"extra {_base64(proof.salt + proof.record)}",
        f"index {proof.index}",
        *map(_base64, proof.hashes),
        "",
        "",
    ]
    return "\n".join(lines).encode() + proof.checkpoint


def parse_proof(data: bytes) -> Proof:
    """Take a ``.tlog-proof`` file apart.

    Raises:
        ProofRefused: it is none, or has no salt and record with it.
    """
    head, found, checkpoint = data.partition(b"\n\n")
    if len(data) > _PROOF_BYTES_MAX or not found or not head.isascii():
        raise ProofRefused("not a proof: no empty line before a checkpoint")
    first, extra, index, *lines = [*head.decode().split("\n"), "", "", ""]
    lines = lines[:-3]
    if first != _FIRST_LINE or not index.startswith("index "):
        raise ProofRefused(f"not a proof with a record: {_FIRST_LINE}, extra, index")
    number = index.removeprefix("index ")
    if not number.isdigit() or len(number) > 19 or str(int(number)) != number:
        raise ProofRefused("the index of a proof is a number")
    held = decode_base64(extra.removeprefix("extra ")) if extra.startswith("extra ") else None
    if held is None or len(held) <= SALT_BYTES:
        raise ProofRefused("the proof does not hold the salt and the record")
    hashes = [decode_base64(line) for line in lines]
    right = [hash_ for hash_ in hashes if hash_ is not None and len(hash_) == HASH_BYTES]
    if len(right) != len(lines) or len(right) > HASHES_MAX or int(number) > SIZE_MAX:
        raise ProofRefused("a line of the proof is no hash, or there are too many")
    return Proof(int(number), tuple(right), checkpoint, held[:SALT_BYTES], held[SALT_BYTES:])


def verify_record(data: bytes, vkeys: Sequence[VerifierKey]) -> Proved:
    """Return the record of a ``.tlog-proof`` file, once its log vouches for it.

    Raises:
        ProofRefused: the proof does not lead to the root.
        CheckpointRefused: the checkpoint is not signed as :func:`parse_checkpoint` asks.
    """
    proof = parse_proof(data)
    checkpoint = parse_checkpoint(proof.checkpoint, vkeys)
    leaf = leaf_hash(proof.salt, proof.record)
    verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return Proved(checkpoint, proof.index, proof.record)


def _split(count: int) -> int:
    """Return the largest power of two below ``count``: where RFC 6962 splits a tree."""
    return 1 << (count - 1).bit_length() - 1


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
