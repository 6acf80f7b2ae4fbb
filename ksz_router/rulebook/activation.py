"""Activate a generation: sign its manifest, check it, and move the one durable pointer.

The signature is Ed25519 (RFC 8032) over the bytes of ``manifest.json``; the manifest holds the
hash of ``data.mdb``. The pointer ``<store>/active`` holds the generation's name. It is replaced by
a rename, so that a crash leaves the old name or the new one, never a part of one.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from ksz_router.rulebook.generation import (
    ACTIVE,
    MANIFEST,
    NAME_CHARS,
    SIGNATURE,
    GenerationUnsignedError,
    Manifest,
    NoActiveGenerationError,
    RulebookError,
    flush,
    folder_of,
    read_manifest,
)


class SignerKeyError(RulebookError):
    """The key file is not an Ed25519 key that can be used."""


def activate(store: Path, name: str, key_file: Path) -> Manifest:
    """Make a generation the active one.

    Args:
        store: The folder of the generations.
        name: The generation; old ones may be activated again.
        key_file: The signer's private key (PEM), which signs; or the public one, where the
            signature was made elsewhere and is only checked.

    Raises:
        GenerationUnknownError: the store does not have it.
        GenerationDamagedError: its files are not what the manifest says. Nothing was signed.
        GenerationUnsignedError: only a public key was given, and the signature is not by it.
        SignerKeyError: the key cannot be used.
    """
    folder = folder_of(store, name)
    read_manifest(folder)
    private, public = _read_key(key_file)
    if private is not None:
        _replace(folder / SIGNATURE, private.sign((folder / MANIFEST).read_bytes()))
    manifest = _check(folder, public)
    _replace(store / ACTIVE, f"{name}\n".encode())
    return manifest


def verify(store: Path, name: str, public_key_file: Path) -> Manifest:
    """Check that a generation is whole and signed; once, before any worker loads it.

    Raises:
        GenerationUnknownError: the store does not have it.
        GenerationDamagedError: its files are not what the manifest says.
        GenerationUnsignedError: there is no signature by this key.
        SignerKeyError: the key cannot be used.
    """
    private, public = _read_key(public_key_file)
    if private is not None:
        raise SignerKeyError(
            f"{public_key_file}: is a private key, which does not belong on a router; "
            "put the signer's public key there"
        )
    return _check(folder_of(store, name), public)


def active(store: Path) -> str:
    """Return the name of the active generation.

    Raises:
        NoActiveGenerationError: no generation was activated yet, or the pointer is unreadable.
    """
    try:
        name = (store / ACTIVE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_pointer(store) from error
    if len(name) != NAME_CHARS or not name.isalnum():
        raise _no_pointer(store)
    return name


def _no_pointer(store: Path) -> NoActiveGenerationError:
    return NoActiveGenerationError(
        f"{store}: no active generation; run `ksz-router rulebook activate NAME --store {store}`"
    )


def _check(folder: Path, public: Ed25519PublicKey) -> Manifest:
    manifest = read_manifest(folder)
    try:
        signature = (folder / SIGNATURE).read_bytes()
        public.verify(signature, (folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise GenerationUnsignedError(
            f"{folder}: is not signed; activate it with the signer's private key"
        ) from error
    except InvalidSignature as error:
        raise GenerationUnsignedError(
            f"{folder}: is not signed by this key; check tables.rulebook_signer, "
            "or activate it with the right private key"
        ) from error
    return manifest


def _read_key(file: Path) -> tuple[Ed25519PrivateKey | None, Ed25519PublicKey]:
    try:
        pem = file.read_bytes()
        if b"PRIVATE KEY" not in pem:
            public = load_pem_public_key(pem)
            if isinstance(public, Ed25519PublicKey):
                return None, public
        else:
            if file.stat().st_mode & 0o077:
                raise SignerKeyError(f"{file}: others may read it; run `chmod 600 {file}`")
            private = load_pem_private_key(pem, password=None)
            if isinstance(private, Ed25519PrivateKey):
                return private, private.public_key()
    except OSError as error:
        raise SignerKeyError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignerKeyError(f"{file}: is not a PEM key without a password") from error
    raise SignerKeyError(f"{file}: is not an Ed25519 key; make one with `ksz-router keys`")


def _replace(file: Path, content: bytes) -> None:
    """Replace a file durably: temporary file, fsync, rename, fsync of the folder."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        flush(temporary)
        temporary.replace(file)
        flush(file.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RulebookError(f"{file}: cannot be written: {error.strerror}") from error
