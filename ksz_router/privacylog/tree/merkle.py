"""The hashes of the tree (RFC 6962, section 2.1, with SHA-256), many at a time. Pure.

A leaf is ``SHA-256(0x00 || salt || canonical record)``, a node ``SHA-256(0x01 || left || right)``.
The salt keeps who has the hashes from guessing records; with the salts gone, leaves tell nothing.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
TILE: Final = 256
"""Hashes of one tile: the leaves of a subtree of height 8 (C2SP tlog-tiles)."""
TILE_BYTES: Final = TILE * HASH_BYTES
EMPTY_ROOT: Final = sha256().digest()
"""Of the tree without leaves."""


def leaf_hash(salt: bytes, record: bytes) -> bytes:
    """Return the leaf of a record: 32 bytes. The salt has 16."""
    assert len(salt) == SALT_BYTES
    return sha256(b"\0" + salt + record).digest()


def leaf_hashes(salts: bytes, records: Sequence[bytes]) -> list[bytes]:
    """Return the leaves of records in a row, whose salts stand one after the other."""
    assert len(salts) == SALT_BYTES * len(records), "a salt for each record"
    ends = range(SALT_BYTES, len(salts) + 1, SALT_BYTES)
    return [
        sha256(b"\0" + salts[end - SALT_BYTES : end] + record).digest()
        for end, record in zip(ends, records, strict=True)
    ]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees of 32 bytes each."""
    return sha256(b"\1" + left + right).digest()


def parents(hashes: bytes) -> bytes:
    """Return the parents of hashes that stand one after the other, an even number of them."""
    pair = 2 * HASH_BYTES
    assert len(hashes) % pair == 0
    return b"".join(
        [sha256(b"\1" + hashes[at : at + pair]).digest() for at in range(0, len(hashes), pair)]
    )


def full_roots(hashes: bytes, height: int) -> bytes:
    """Return the roots of full subtrees of this height, given all their leaves in a row."""
    for _ in range(height):
        hashes = parents(hashes)
    return hashes


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over any number of leaves.

    Where a row has an odd number of hashes the last one stands in the next row as it is: that is
    the split at the largest power of two by which RFC 6962 defines the tree.
    """
    if not leaves:
        return EMPTY_ROOT
    row = b"".join(leaves)
    while len(row) > HASH_BYTES:
        odd = len(row) % (2 * HASH_BYTES)
        row = parents(row[: len(row) - odd]) + row[len(row) - odd :]
    return row
