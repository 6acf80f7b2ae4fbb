"""Checkpoints: the size and the root of the tree, signed (C2SP tlog-checkpoint, tlog-cosignature).

Each is signed twice: with Ed25519, which everybody can verify, and with ML-DSA-44 (FIPS 204), which
a quantum computer cannot forge and which states the time. The keys lie in one folder: two private
ones, ``ed25519.pem`` and ``mldsa44.pem`` (PKCS #8), and ``vkeys`` for who verifies.
"""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import write_new
from ksz_router.privacylog.tree.merkle import EMPTY_ROOT, HASH_BYTES
from ksz_router.privacylog.tree.note import (
    ED25519,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteRefused,
    Signature,
    VerifierKey,
    decode_base64,
    encode_note,
    is_name,
    parse_note,
    read_vkeys,
)

ED25519_FILE: Final = "ed25519.pem"
ML_DSA_44_FILE: Final = "mldsa44.pem"
VKEYS_FILE: Final = "vkeys"
SIZE_MAX: Final = 2**63 - 1
_PEM_BYTES_MAX: Final = 64 * 1024
_TIME = struct.Struct(">Q")
KINDS: Final = {ED25519: "Ed25519", ML_DSA_44_COSIGNATURE: "ML-DSA-44"}


class CheckpointRefused(PrivacyLogError):
    """It is not a checkpoint, or the log did not sign it."""


class CheckpointKeysError(PrivacyLogError):
    """The folder of keys cannot be used. The message says what to do, and holds no key."""


class Checkpoint(msgspec.Struct, frozen=True):
    """What a checkpoint says."""

    origin: str
    """Name of the log."""
    size: int
    """Number of leaves."""
    root: bytes
    """32 bytes."""

    @property
    def text(self) -> str:
        """The text that is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Vouched(NamedTuple):
    """A signature that is right."""

    key: VerifierKey
    at_s: int | None
    """When it was made, in Unix seconds; None where the signature does not state it."""


class Signer:
    """The keys of a log, ready to sign its checkpoints.

    Raises:
        CheckpointKeysError: a file is missing, can be read by others, or is of another log.
    """

    def __init__(self, folder: Path, origin: str) -> None:
        ed25519 = _load(folder / ED25519_FILE)
        ml_dsa = _load(folder / ML_DSA_44_FILE)
        if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(ml_dsa, MLDSA44PrivateKey):
            raise CheckpointKeysError(
                f"{folder}: {ED25519_FILE} or {ML_DSA_44_FILE} holds a key of another kind"
            )
        self.origin = origin
        self._ed25519, self._ml_dsa = ed25519, ml_dsa
        self.vkeys = _vkeys(origin, ed25519, ml_dsa)
        try:
            named = read_vkeys(folder / VKEYS_FILE)
        except NoteRefused as error:
            raise CheckpointKeysError(str(error)) from error
        if not set(self.vkeys) <= set(named):
            raise CheckpointKeysError(
                f"{folder / VKEYS_FILE}: does not name these keys for the log {origin}: set "
                "archive.origin to the name they were made for, or make new keys"
            )

    def sign(self, size: int, root: bytes, at_s: int) -> bytes:
        """Return the checkpoint of a tree, signed with both keys at ``at_s`` (Unix seconds)."""
        checkpoint = Checkpoint(self.origin, size, root)
        text = checkpoint.text
        first, second = self.vkeys
        stamped = _TIME.pack(at_s) + self._ml_dsa.sign(_cosigned(checkpoint, self.origin, at_s))
        signatures = (
            Signature(first.name, first.id, self._ed25519.sign(text.encode())),
            Signature(second.name, second.id, stamped),
        )
        return encode_note(text, signatures)


def make_keys(folder: Path, origin: str) -> list[Path]:
    """Draw the keys that sign the checkpoints of a log; return the files, the public one last.

    Raises:
        CheckpointKeysError: the name cannot be used, or a file is there already (none is ever
            replaced) or cannot be written.
    """
    if not is_name(origin):
        raise CheckpointKeysError(
            "the name of a log is 1 to 255 bytes without spaces and plus signs, such as "
            "log.example/router-a"
        )
    files = [folder / name for name in (ED25519_FILE, ML_DSA_44_FILE, VKEYS_FILE)]
    for file in files:
        if file.exists():
            raise CheckpointKeysError(f"{file}: exists already; a key file is never replaced")
    ed25519, ml_dsa = Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate()
    lines = "".join(f"{key}\n" for key in _vkeys(origin, ed25519, ml_dsa))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(files[0], _pem(ed25519))
        write_new(files[1], _pem(ml_dsa))
        write_new(files[2], lines.encode(), mode=0o644)
    except OSError as error:
        raise CheckpointKeysError(f"{folder}: cannot be written: {error.strerror}") from error
    return files


def parse_checkpoint(data: bytes, vkeys: Sequence[VerifierKey]) -> Checkpoint:
    """Return what a checkpoint says, once its log vouches for it.

    Each kind of key that ``vkeys`` has under the name of the log must have signed it, and Ed25519
    in any case; so who holds both keys does not accept what only one of them has signed.

    Raises:
        CheckpointRefused: it is not a checkpoint, a signature is missing, or one is wrong.
    """
    checkpoint, vouched = verify_checkpoint(data, vkeys)
    signed = {each.key.type for each in vouched if each.key.name == checkpoint.origin}
    asked = {key.type for key in vkeys if key.name == checkpoint.origin} | {ED25519}
    for kind in sorted(asked - signed):
        raise CheckpointRefused(
            f"the checkpoint is not signed with a known {KINDS[kind]} key of its log"
        )
    return checkpoint


def verify_checkpoint(
    data: bytes, vkeys: Sequence[VerifierKey]
) -> tuple[Checkpoint, list[Vouched]]:
    """Return what a checkpoint says and which of the known keys vouch for it, perhaps none.

    Raises:
        CheckpointRefused: it is not a checkpoint, or a signature by a known key is wrong.
    """
    try:
        note = parse_note(data)
    except NoteRefused as error:
        raise CheckpointRefused(str(error)) from None
    checkpoint = _parse_text(note)
    known = {(key.name, key.id): key for key in vkeys if key.type in KINDS}
    vouched = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.id))
        if key is not None:
            vouched.append(Vouched(key, _verify(checkpoint, note, key, signature.data)))
    return checkpoint, vouched


def _verify(checkpoint: Checkpoint, note: Note, key: VerifierKey, data: bytes) -> int | None:
    """Return when a signature was made, if it says so.

    Raises:
        CheckpointRefused: it is wrong.
    """
    try:
        if key.type == ED25519:
            Ed25519PublicKey.from_public_bytes(key.public).verify(data, note.text.encode())
            return None
        at_s = int.from_bytes(data[: _TIME.size], "big")
        message = _cosigned(checkpoint, key.name, at_s)
        MLDSA44PublicKey.from_public_bytes(key.public).verify(data[_TIME.size :], message)
    except (InvalidSignature, ValueError):
        raise CheckpointRefused(
            f"the {KINDS[key.type]} signature of {key.name} is not right"
        ) from None
    return at_s


def _parse_text(note: Note) -> Checkpoint:
    lines = note.text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]):
        raise CheckpointRefused("a checkpoint has three lines: origin, size and root")
    origin, number, root = lines[0], lines[1], decode_base64(lines[2])
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(SIZE_MAX))
    if not is_number or str(int(number)) != number or int(number) > SIZE_MAX:
        raise CheckpointRefused("the second line of a checkpoint is the number of leaves")
    if root is None or len(root) != HASH_BYTES:
        raise CheckpointRefused("the third line of a checkpoint is a root of 32 bytes in base64")
    if int(number) == 0 and root != EMPTY_ROOT:
        raise CheckpointRefused("the checkpoint of an empty tree has another root")
    return Checkpoint(origin, int(number), root)


def _cosigned(checkpoint: Checkpoint, cosigner: str, at_s: int) -> bytes:
    """Return what an ML-DSA-44 cosignature is over: ``cosigned_message`` of tlog-cosignature."""
    name, origin = cosigner.encode(), checkpoint.origin.encode()
    if len(origin) > 255:
        raise CheckpointRefused("the origin of the checkpoint is longer than can be cosigned")
    return b"".join(
        (
            b"subtree/v1\n\0",
            bytes((len(name),)), name,
            _TIME.pack(at_s),
            bytes((len(origin),)), origin,
            _TIME.pack(0), _TIME.pack(checkpoint.size), checkpoint.root,
        )
    )  # fmt: skip


def _vkeys(
    origin: str, ed25519: Ed25519PrivateKey, ml_dsa: MLDSA44PrivateKey
) -> tuple[VerifierKey, VerifierKey]:
    return (
        VerifierKey(origin, ED25519, ed25519.public_key().public_bytes_raw()),
        VerifierKey(origin, ML_DSA_44_COSIGNATURE, ml_dsa.public_key().public_bytes_raw()),
    )


def _pem(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load(file: Path) -> object:
    try:
        with file.open("rb") as stream:
            mode = file.stat().st_mode
            data = stream.read(_PEM_BYTES_MAX)
    except OSError as error:
        raise CheckpointKeysError(
            f"{file}: cannot be read: {error.strerror}; make the keys with "
            f"`ksz-router keys checkpoint --folder {file.parent} --origin NAME`"
        ) from error
    if mode & 0o077:
        raise CheckpointKeysError(f"{file}: others can read it; do `chmod 600 {file}`")
    try:
        return serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise CheckpointKeysError(f"{file}: is not a private key; restore it") from None
