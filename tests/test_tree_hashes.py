"""The tree and its files: the roots of RFC 6962 at every size, tiles of C2SP, whatever was cut off.

Two oracles: the recursive definition of RFC 6962, section 2.1, written out here, and pymerkle.
"""

import errno
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.tree import shards
from ksz_router.privacylog.tree.levels import Levels, TreeDamaged
from ksz_router.privacylog.tree.merkle import (
    EMPTY_ROOT,
    leaf_hash,
    leaf_hashes,
    node_hash,
    root_of,
)
from ksz_router.privacylog.tree.salts import Salts

SALT = bytes(range(16))
RECORDS = [b"record %d" % number for number in range(700)]
LEAVES = [leaf_hash(SALT, record) for record in RECORDS]
MANY = [hashlib.sha256(b"%d" % number).digest() for number in range(66_000)]
"""Beyond 2**16: the least tree with a hash in level 2."""


def defined(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


@pytest.fixture(scope="module")
def oracle() -> Any:
    tree = pymerkle.InmemoryTree()
    tree.append_entries(SALT + record for record in RECORDS)
    return tree


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "tree"
    levels = Levels(folder)
    sizes = random.Random(7).choices([1, 2, 255, 256, 257, 1000, 5000], k=100)
    first = 0
    for size in sizes:
        levels.append(MANY[first : first + size])
        first += size
    assert first > len(MANY)
    levels.flush()
    levels.close()
    return folder


def test_a_leaf_is_hashed_with_its_salt_and_a_node_with_its_children(oracle: Any) -> None:
    """The prefixes keep a node from being taken for a leaf; known values by hashlib alone."""
    assert leaf_hash(SALT, b"x") == hashlib.sha256(b"\x00" + SALT + b"x").digest()
    assert (
        node_hash(LEAVES[0], LEAVES[1]) == hashlib.sha256(b"\x01" + LEAVES[0] + LEAVES[1]).digest()
    )
    salts = b"".join(bytes([number]) * 16 for number in range(5))
    assert leaf_hashes(salts, RECORDS[:5]) == [
        leaf_hash(bytes([number]) * 16, RECORDS[number]) for number in range(5)
    ]
    assert LEAVES[3] == oracle.get_leaf(4)
    assert EMPTY_ROOT == defined([]) == root_of([])


def test_the_root_is_that_of_rfc_6962_at_every_size(oracle: Any, tmp_path: Path) -> None:
    """From hashes in memory, and from files, and as pymerkle finds it."""
    levels = Levels(tmp_path / "tree")
    levels.append(LEAVES)
    for size in range(len(LEAVES) + 1):
        root = levels.root(size)
        assert root == root_of(LEAVES[:size]) == oracle.get_root(size)
    for size in [*range(70), 255, 256, 257, 511, 512, 513, 700]:
        assert root_of(LEAVES[:size]) == defined(LEAVES[:size])


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=6), st.data()
)  # fmt: skip
@settings(max_examples=15)
def test_how_leaves_come_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    """In batches of any size, written on by several runs, cut back and grown again."""
    folder = tmp_path_factory.mktemp("levels")
    levels = Levels(folder)
    size = 0
    for batch in batches:
        levels.append(MANY[size : size + batch])
        levels.flush()
        size += batch
        if data.draw(st.booleans()):
            levels.close()
            levels = Levels(folder)
        if data.draw(st.booleans()):
            size = data.draw(st.integers(0, size))
            levels.truncate(size)
        assert levels.size == Levels.reading(folder).size == size
        assert levels.root(size) == root_of(MANY[:size])
    assert levels.check(size) == []
    assert levels.leaves(0, size) == MANY[:size]
    levels.close()


def test_a_slice_of_a_level_file_is_a_tile(many: Path) -> None:
    """Tile n of level l holds MTH(D[(n*256+i)*256**l : (n*256+i+1)*256**l]), i from 0 on."""
    for level, count in ((0, 66_000), (1, 257), (2, 1)):
        data = (many / str(level) / "000000").read_bytes()
        size = Levels.reading(many).size
        assert len(data) == size // 256**level * 32
        for index in {0, 1, 255, 256, count - 1} & set(range(count)):
            below = MANY[index * 256**level : (index + 1) * 256**level]
            assert data[32 * index : 32 * index + 32] == defined(below)
            assert Levels.reading(many).hash(level, index) == defined(below)
    assert not (many / "3").exists()


def test_leaves_run_on_from_one_file_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small files: each begins where the one before is full; cutting removes what is empty."""
    monkeypatch.setattr(shards, "SHARD", 512)
    levels = Levels(tmp_path / "tree")
    for first in range(0, 3000, 700):
        levels.append(MANY[first : min(first + 700, 3000)])
    levels.flush()
    files = sorted((tmp_path / "tree" / "0").iterdir())
    assert [file.name for file in files] == [f"{number:06d}" for number in range(6)]
    assert b"".join(file.read_bytes() for file in files) == b"".join(MANY[:3000])
    assert levels.root(3000) == defined(MANY[:3000])
    assert levels.leaves(500, 1100) == MANY[500:1100]
    levels.truncate(1024)
    assert len(list((tmp_path / "tree" / "0").iterdir())) == 2
    levels.append(MANY[1024:2000])
    assert levels.root(2000) == defined(MANY[:2000])
    levels.close()


def test_what_a_crash_left_is_cut_off_before_anything_is_written(tmp_path: Path) -> None:
    """A torn hash, a level that is behind: opening changes nothing, appending refuses."""
    levels = Levels(tmp_path)
    levels.append(MANY[:1000])
    levels.close()
    file = tmp_path / "0" / "000000"
    (tmp_path / "1" / "000000").write_bytes((tmp_path / "1" / "000000").read_bytes()[:-33])
    before = {path: path.read_bytes() for path in tmp_path.rglob("0*") if path.is_file()}
    levels = Levels(tmp_path)
    assert levels.size == 2 * 256 - 1, "two hashes of level 1 are damaged, so 511 leaves are whole"
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(TreeDamaged, match="cut off"):
        levels.append(MANY[:1])
    with pytest.raises(TreeDamaged, match="holds 511 leaves"):
        levels.truncate(512)
    assert file.stat().st_size == 1000 * 32
    levels.truncate(500)
    levels.append(MANY[500:1000])
    assert levels.root(1000) == defined(MANY[:1000])
    levels.close()


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 513), (0, 65_535), (1, 3), (2, 0)])
def test_a_flipped_bit_in_a_level_file_is_found_and_located(
    many: Path, level: int, index: int
) -> None:
    """The check names the tile, and the root of the whole tree is another."""
    file = many / str(level) / "000000"
    data = file.read_bytes()
    size = Levels.reading(many).size
    right = root_of(Levels.reading(many).leaves(0, size))
    try:
        file.write_bytes(
            data[: 32 * index] + bytes([data[32 * index] ^ 1]) + data[32 * index + 1 :]
        )
        levels = Levels.reading(many)
        damages = levels.check(size)
        places = [(each.tile, each.tile_offset, each.above, each.above_offset) for each in damages]
        expected = []
        if level < 2:
            tile = index // 256
            expected.append((file, tile * 8192, many / str(level + 1) / "000000", tile * 32))
        if level:
            below = many / str(level - 1) / "000000"
            expected.append((below, index * 8192, file, index * 32))
        assert sorted(places) == sorted(expected)
        assert "do not agree" in str(damages[0])
        if level == 2:
            assert levels.root(size) != right
        levels.close()
    finally:
        file.write_bytes(data)
    assert Levels.reading(many).root(size) == right


def test_a_missing_file_is_named(many: Path, tmp_path: Path) -> None:
    """Nothing is taken for zeros."""
    levels = Levels.reading(tmp_path / "nowhere")
    assert levels.size == 0
    with pytest.raises(TreeDamaged, match="000000: missing"):
        levels.root(1)
    with pytest.raises(TreeDamaged, match="ends before"):
        Levels.reading(many).leaf(10**6)


class Refusing(Disk):
    """Refuses the call of a given number, before or after it takes effect."""

    def __init__(self, refused: int, *, after: bool) -> None:
        self.calls = 0
        self._refused, self._after = refused, after

    def _maybe(self, call: Any, *arguments: Any) -> None:
        self.calls += 1
        refuses = self.calls == self._refused
        if self._after or not refuses:
            call(*arguments)
        if refuses:
            raise OSError(errno.EIO, "refused")

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._maybe(super().write, descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        self._maybe(super().flush, descriptor)

    def remove(self, file: Path) -> None:
        self._maybe(super().remove, file)


@pytest.mark.parametrize("after", [False, True])
def test_each_write_may_fail_and_the_signed_tree_is_there_again(
    tmp_path: Path, *, after: bool
) -> None:
    """Every write and flush of growing and cutting refused in turn; the next run goes on."""
    signed, failures = 700, 0
    for refused in range(1, 8):
        folder = tmp_path / str(refused)
        levels = Levels(folder)
        levels.append(MANY[:signed])
        levels.flush()
        levels.close()
        disk = Refusing(refused, after=after)
        levels = Levels(folder, disk)
        try:
            levels.append(MANY[signed:1500])
            levels.flush()
            levels.truncate(signed)
        except OSError:
            failures += 1
        levels.close()
        levels = Levels(folder)
        levels.truncate(signed)
        assert levels.root(signed) == root_of(MANY[:signed])
        assert levels.check(signed) == []
        levels.append(MANY[signed:1500])
        assert levels.root(1500) == root_of(MANY[:1500])
        levels.close()
    assert failures == 6, "two writes, two flushes, two cuts"


def test_salts_are_the_blocks_of_one_keystream() -> None:
    """Block i is AES-256 of i as 16 bytes, so any run of leaves has its salts by itself."""
    key = bytes(range(32))
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update
    salts = Salts(key)
    for first in (0, 1, 2**24 - 2, 2**40):
        expected = b"".join(block((first + at).to_bytes(16, "big")) for at in range(5))
        assert salts.run(first, 5) == expected
    assert salts.run(3, 0) == b""
    assert len({salts.run(0, 100)[at : at + 16] for at in range(0, 1600, 16)}) == 100
