"""Only a whole, signed, known generation becomes active; anything else leaves the old one."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ksz_router.rulebook.activation import SignerKeyError, activate, active, verify
from ksz_router.rulebook.compile import build
from ksz_router.rulebook.generation import (
    GenerationDamagedError,
    GenerationUnknownError,
    GenerationUnsignedError,
    NoActiveGenerationError,
    RulebookError,
)
from ksz_router.rulebook.snapshot import Snapshot
from tests.worlds import World, make_world, write_signer


def second_generation(world: World) -> str:
    """Build another generation beside the active one; unsigned."""
    (world.text / "outages" / "announced.toml").write_text("", encoding="utf-8")
    return build(world.text, world.store, now_ns=2)[0].name


def change(file: Path, alter: Callable[[bytes], bytes]) -> None:
    file.chmod(0o644)
    file.write_bytes(alter(file.read_bytes()))


def test_an_activated_generation_verifies_and_is_active(tmp_path: Path) -> None:
    """The good road."""
    world = make_world(tmp_path)
    assert verify(world.store, world.name, world.signer_pub).name == world.name
    assert active(world.store) == world.name


def test_the_old_generation_stays_and_may_be_activated_again(tmp_path: Path) -> None:
    """Going back is one command, and needs no build."""
    world = make_world(tmp_path)
    other = second_generation(world)
    activate(world.store, other, world.signer_key)
    assert active(world.store) == other

    activate(world.store, world.name, world.signer_pub)

    assert active(world.store) == world.name


def test_a_built_generation_is_not_signed(tmp_path: Path) -> None:
    """Who builds is not who signs: without the private key nothing becomes active."""
    world = make_world(tmp_path)
    other = second_generation(world)
    with pytest.raises(GenerationUnsignedError, match="is not signed"):
        activate(world.store, other, world.signer_pub)
    with pytest.raises(GenerationUnsignedError):
        verify(world.store, other, world.signer_pub)
    assert active(world.store) == world.name


def test_another_signer_is_not_the_signer(tmp_path: Path) -> None:
    """A signature by a key that the router does not know is no signature."""
    world = make_world(tmp_path)
    stranger, _ = write_signer(tmp_path, "stranger")
    activate(world.store, world.name, stranger)
    with pytest.raises(GenerationUnsignedError, match="not signed by this key"):
        verify(world.store, world.name, world.signer_pub)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a bit flipped": ("data.mdb", lambda b: b[:9000] + bytes([b[9000] ^ 1]) + b[9001:]),
    "cut short": ("data.mdb", lambda b: b[:-4096]),
    "emptied": ("data.mdb", lambda _: b""),
    "another format": ("manifest.json", lambda b: b.replace(b'"format": 1', b'"format": 2')),
    "not JSON": ("manifest.json", lambda b: b[:-10]),
    "another name": ("manifest.json", lambda b: b.replace(b'"name": "', b'"name": "0', 1)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_generation_is_refused_everywhere(tmp_path: Path, name: str) -> None:
    """Activation, verification and opening each refuse it, and the pointer does not move."""
    world = make_world(tmp_path)
    other = second_generation(world)
    file, alter = DAMAGE[name]
    change(world.store / "generations" / other / file, alter)

    for refused in (
        lambda: activate(world.store, other, world.signer_key),
        lambda: verify(world.store, other, world.signer_pub),
        lambda: Snapshot.open(world.store, other),
    ):
        with pytest.raises(GenerationDamagedError, match="again"):
            refused()
    assert active(world.store) == world.name
    assert not (world.store / "generations" / other / "manifest.sig").exists()


def test_a_manifest_changed_after_signing_is_refused(tmp_path: Path) -> None:
    """The signature covers every byte of the manifest, the counts too."""
    world = make_world(tmp_path)
    manifest = world.store / "generations" / world.name / "manifest.json"
    change(manifest, lambda b: b.replace(b'"institutions": 16', b'"institutions": 17'))
    with pytest.raises(GenerationUnsignedError):
        verify(world.store, world.name, world.signer_pub)


@pytest.mark.parametrize("name", ["0" * 32, "", "..", "../../etc", "a/b", "x" * 33])
def test_an_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    """Names that are not there, and names that would leave the store."""
    world = make_world(tmp_path)
    with pytest.raises(GenerationUnknownError, match="build it first"):
        activate(world.store, name, world.signer_key)
    assert active(world.store) == world.name


@pytest.mark.parametrize("content", [None, b"", b"not a name", b"\xff" * 32])
def test_a_pointer_that_points_nowhere_says_what_to_do(
    tmp_path: Path, content: bytes | None
) -> None:
    """A new store, and a pointer that something else wrote."""
    if content is not None:
        (tmp_path / "active").write_bytes(content)
    with pytest.raises(NoActiveGenerationError, match="rulebook activate"):
        active(tmp_path)


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Who can read the key can make rules."""
    world = make_world(tmp_path)
    world.signer_key.chmod(0o640)
    with pytest.raises(SignerKeyError, match="chmod 600"):
        activate(world.store, world.name, world.signer_key)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nx\n", b"PUBLIC KEY"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """A wrong file is told apart from a wrong signature."""
    world = make_world(tmp_path)
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SignerKeyError):
        activate(world.store, world.name, file)


def test_a_private_key_does_not_belong_on_a_router(tmp_path: Path) -> None:
    """The supervisor is given the public key; a private one there is a mistake worth telling."""
    world = make_world(tmp_path)
    with pytest.raises(SignerKeyError, match="public key"):
        verify(world.store, world.name, world.signer_key)


def test_the_pointer_is_replaced_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A rename, not a rewrite: a reader sees the old name or the new one."""
    world = make_world(tmp_path)
    before = (world.store / "active").stat().st_ino
    with (world.store / "active").open("rb") as held:
        activate(world.store, second_generation(world), world.signer_key)
        assert held.read().decode().strip() == world.name
    assert (world.store / "active").stat().st_ino != before
    assert sorted(p.name for p in world.store.iterdir()) == ["active", "generations"]


def test_the_files_of_a_generation_are_read_only(tmp_path: Path) -> None:
    """An immutable generation looks like one."""
    world = make_world(tmp_path)
    folder = world.store / "generations" / world.name
    for file in ("data.mdb", "manifest.json"):
        assert stat.S_IMODE((folder / file).stat().st_mode) == 0o444


def test_every_error_of_the_part_is_a_rulebook_error() -> None:
    """The caller catches one type."""
    for kind in (SignerKeyError, GenerationDamagedError, GenerationUnsignedError,
                 GenerationUnknownError, NoActiveGenerationError):  # fmt: skip
        assert issubclass(kind, RulebookError)
