"""Signed notes and the keys that verify them (C2SP signed-note). Pure but for reading a file.

A note is text, an empty line, and a line for each signature: an em dash, the name of a key, and the
base64 of its id and the signature. Who verifies has a file of verifier keys, one a line; signatures
by other keys are passed over, and one by a known key that does not verify spoils the note.
"""

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ksz_router.privacylog import PrivacyLogError

ED25519: Final = 0x01
"""Signature type: Ed25519 over the text."""
ML_DSA_44_COSIGNATURE: Final = 0x06
"""Signature type: timestamped ML-DSA-44 cosignature of a checkpoint (C2SP tlog-cosignature)."""

NOTE_BYTES_MAX: Final = 256 * 1024
SIGNATURES_MAX: Final = 64
NAME_BYTES_MAX: Final = 255
_KEY_BYTES: Final = {ED25519: 32, ML_DSA_44_COSIGNATURE: 1312}
_SIGNATURE_BEGIN: Final = "\N{EM DASH} "
_ID_BYTES: Final = 4
_VKEYS_BYTES_MAX: Final = 1024 * 1024
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
"""Below a space, but for the newline."""


class NoteRefused(PrivacyLogError):
    """It is not a note, or not one that the keys at hand vouch for."""


class VerifierKey(NamedTuple):
    """A public key, its name, and what its signatures are over."""

    name: str
    type: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The first four bytes of SHA-256 of name, newline, type and key."""
        data = self.name.encode() + b"\n" + bytes((self.type,)) + self.public
        return hashlib.sha256(data).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        key = base64.b64encode(bytes((self.type,)) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{key}"


class Signature(NamedTuple):
    """A signature line."""

    name: str
    id: bytes
    data: bytes

    def __str__(self) -> str:
        return f"{_SIGNATURE_BEGIN}{self.name} {base64.b64encode(self.id + self.data).decode()}"


class Note(NamedTuple):
    """A note that was taken apart; nothing in it is verified."""

    text: str
    """With its last newline."""
    signatures: tuple[Signature, ...]


def is_name(text: str) -> bool:
    """Say whether a key, or a log, may have this name: no space, no plus, at most 255 bytes."""
    plain = not any(char.isspace() or char == "+" or ord(char) < 0x20 for char in text)
    return plain and 0 < len(text.encode(errors="replace")) <= NAME_BYTES_MAX and _is_text(text)


def encode_note(text: str, signatures: Sequence[Signature]) -> bytes:
    """Return a note of this text, which ends with a newline."""
    assert text.endswith("\n")
    return "".join((text, "\n", *(f"{line}\n" for line in signatures))).encode()


def parse_note(data: bytes) -> Note:
    """Take a note apart.

    Raises:
        NoteRefused: it is not one.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise NoteRefused(f"a note of more than {NOTE_BYTES_MAX} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteRefused("a note that is not UTF-8") from None
    if _CONTROL.search(whole):
        raise NoteRefused("a note with control characters")
    text, found, lines = whole.rpartition("\n\n")
    if not found or not lines.endswith("\n"):
        raise NoteRefused("a note without signatures")
    signed = lines[:-1].split("\n")
    if len(signed) > SIGNATURES_MAX:
        raise NoteRefused(f"a note with more than {SIGNATURES_MAX} signatures")
    return Note(text + "\n", tuple(map(_parse_signature, signed)))


def parse_vkey(text: str) -> VerifierKey:
    """Return the key that a line such as ``name+id+base64`` stands for.

    Raises:
        NoteRefused: it is no such line, its id is not its own, or its kind is not known here.
    """
    parts = text.split("+", 2)
    data = decode_base64(parts[2]) if len(parts) == 3 else None
    if not data or not is_name(parts[0]):
        raise NoteRefused("a verifier key is name+id+base64")
    key = VerifierKey(parts[0], data[0], data[1:])
    if key.type in _KEY_BYTES and len(key.public) != _KEY_BYTES[key.type]:
        raise NoteRefused(f"the verifier key {key.name} has another length than its kind")
    if key.id.hex() != parts[1]:
        raise NoteRefused(f"the verifier key {key.name} has another id than its own")
    return key


def read_vkeys(path: Path) -> tuple[VerifierKey, ...]:
    """Read a file of verifier keys, one a line; empty lines and those behind ``#`` say nothing.

    Keys of a kind that is not known here are left out, as are their signatures.

    Raises:
        NoteRefused: it cannot be read, or a line is no verifier key.
    """
    try:
        with path.open("rb") as stream:
            lines = stream.read(_VKEYS_BYTES_MAX).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NoteRefused(f"{path}: cannot be read as a file of verifier keys") from error
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            try:
                keys.append(parse_vkey(text))
            except NoteRefused as error:
                raise NoteRefused(f"{path}:{number}: {error}") from None
    known = tuple(key for key in keys if key.type in _KEY_BYTES)
    if not known:
        raise NoteRefused(f"{path}: holds no verifier key of a known kind")
    return known


def decode_base64(text: str) -> bytes | None:
    """Return what standard base64 with padding stands for; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None  # the one form of it


def _parse_signature(line: str) -> Signature:
    name, _, text = line.removeprefix(_SIGNATURE_BEGIN).partition(" ")
    data = decode_base64(text)
    if not line.startswith(_SIGNATURE_BEGIN) or not is_name(name) or not data:
        raise NoteRefused("a note with a line that is no signature")
    if len(data) <= _ID_BYTES:
        raise NoteRefused("a note with a signature that is too short")
    return Signature(name, data[:_ID_BYTES], data[_ID_BYTES:])


def _is_text(text: str) -> bool:
    return not any(unicodedata.category(char) in {"Cs", "Cc", "Zl", "Zp"} for char in text)
