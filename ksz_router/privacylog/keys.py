"""The keys of the privacy log, one file per quarter, and the tokens made with them.

A quarter's log can be read as long as its key file exists and never after: expiry is the
destruction of one small file. The six keys of a quarter are independent, so that each can be given
to who needs it and to nobody else. Neither AES-GCM nor a one-block token commits to its key, hence
each file states the SHA-256 commitment of every key, and each log file that of its frames key.
"""

import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ksz_router.identifiers import InvalidIdentifierError
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import write_new

FORMAT = 1
LABELS = ("frames", "store", "person", "user", "commit", "ticket")
_KEY_BYTES = 32
_QUARTER = re.compile(r"[0-9]{4}Q[1-4]")
_KEY_ID = re.compile(r"([0-9]{4}Q[1-4])-[0-9a-f]{8}")
_PREFIX = "INSZ:"
Hash: TypeAlias = "hashlib.blake2b"


class KeysError(PrivacyLogError):
    """A key file cannot be used. The message says what to do, and holds no key."""


class QuarterKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one quarter, 32 bytes each. Does not print them."""

    id: str
    """Quarter and 8 hexadecimal digits, such as ``2026Q4-1f2e3d4c``."""
    frames: bytes
    """Encrypts the frames of write-ahead files."""
    store: bytes
    """For the storage of sealed segments."""
    person: bytes
    """Tokens of persons."""
    user: bytes
    """Tokens of users."""
    commit: bytes
    """Salts of the leaves of the tree."""
    ticket: bytes
    """Hashes of tickets."""

    @property
    def quarter(self) -> str:
        return self.id.partition("-")[0]

    def commitment(self, label: str) -> bytes:
        """Return SHA-256 of ``<id>/<label>:`` and the key: 32 bytes that fix the key."""
        key: bytes = getattr(self, label)
        return hashlib.sha256(f"{self.id}/{label}:".encode() + key).digest()

    def __repr__(self) -> str:
        return f"QuarterKeys({self.id})"


class _KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    id: str
    keys: dict[str, str]
    commitments: dict[str, str]


def quarter_of(unix_ns: int) -> str:
    """Return the quarter (UTC) of a moment in Unix nanoseconds, such as ``2026Q4``."""
    moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    return f"{moment.year}Q{(moment.month + 2) // 3}"


def quarter_after(quarter: str) -> str:
    """Return the quarter that follows."""
    year, number = int(quarter[:4]), int(quarter[5])
    return f"{year + 1}Q1" if number == 4 else f"{year}Q{number + 1}"


def quarter_before(quarter: str) -> str:
    """Return the quarter that comes before."""
    year, number = int(quarter[:4]), int(quarter[5])
    return f"{year - 1}Q4" if number == 1 else f"{year}Q{number - 1}"


def quarter_begin_ns(quarter: str) -> int:
    """Return the Unix nanoseconds at which a quarter begins (UTC)."""
    begin = datetime(int(quarter[:4]), 3 * int(quarter[5]) - 2, 1, tzinfo=UTC)
    return int(begin.timestamp()) * 1_000_000_000


def is_quarter(text: str) -> bool:
    """Say whether ``text`` names a quarter."""
    return _QUARTER.fullmatch(text) is not None


def make(folder: Path, quarter: str) -> Path:
    """Draw the keys of a quarter and write their file, mode 0600, durably; return its path.

    Raises:
        KeysError: there is one already (it is never replaced), or it cannot be written.
    """
    assert is_quarter(quarter), "a quarter such as 2026Q4"
    keys = QuarterKeys(
        id=f"{quarter}-{secrets.token_hex(4)}",
        **{label: secrets.token_bytes(_KEY_BYTES) for label in LABELS},
    )
    file = folder / f"{quarter}.json"
    table = {
        "format": FORMAT,
        "id": keys.id,
        "keys": {label: getattr(keys, label).hex() for label in LABELS},
        "commitments": {label: keys.commitment(label).hex() for label in LABELS},
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(file, json.dumps(table, indent=1).encode() + b"\n")
    except FileExistsError as error:
        raise KeysError(f"{file}: exists already; a key file is never replaced") from error
    except OSError as error:
        raise KeysError(f"{file}: cannot be written: {error.strerror}") from error
    return file


def load(folder: Path, quarter: str) -> QuarterKeys:
    """Read and check the key file of a quarter.

    Raises:
        KeysError: it is missing, readable by others, damaged, or breaks its commitments.
    """
    file = folder / f"{quarter}.json"
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(64 * 1024)
    except FileNotFoundError as error:
        raise KeysError(
            f"{file}: missing: make it with `ksz-router keys quarter --folder {folder} "
            f"--quarter {quarter}`, or restore it where that quarter has log files already"
        ) from error
    except OSError as error:
        raise KeysError(f"{file}: cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeysError(f"{file}: others can read it; do `chmod 600 {file}`")
    try:
        table = msgspec.json.decode(data, type=_KeyFile)
        named = {label: bytes.fromhex(table.keys[label]) for label in LABELS}
    except (msgspec.DecodeError, ValueError, KeyError):
        # From None: the words of a decoder may repeat what it read, and that is keys.
        raise KeysError(f"{file}: is not a key file; restore it") from None
    match = _KEY_ID.fullmatch(table.id)
    if table.format != FORMAT or match is None or match[1] != quarter:
        raise KeysError(f"{file}: is not a key file of {quarter} in format {FORMAT}; restore it")
    keys = QuarterKeys(id=table.id, **named)
    for label in LABELS:
        broken = keys.commitment(label).hex() != table.commitments.get(label)
        if broken or len(named[label]) != _KEY_BYTES:
            raise KeysError(f"{file}: the {label} key breaks its commitment; restore the file")
    return keys


class KeyRing:
    """The keys of a folder, each file read once, found by the key id of a log file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, QuarterKeys] = {}

    def quarter(self, quarter: str) -> QuarterKeys:
        """Return the keys of a quarter.

        Raises:
            KeysError: see :func:`load`.
        """
        if quarter not in self._loaded:
            self._loaded[quarter] = load(self.folder, quarter)
        return self._loaded[quarter]

    def named(self, key_id: str, frames_commitment: bytes) -> QuarterKeys:
        """Return the keys that a log file names.

        Raises:
            KeysError: the key file is missing, or is not the one the log file was written with.
        """
        match = _KEY_ID.fullmatch(key_id)
        if match is None:
            raise KeysError("a log file names no known kind of key")
        keys = self.quarter(match[1])
        if keys.id != key_id or keys.commitment("frames") != frames_commitment:
            raise KeysError(f"{self.folder / match[1]}.json: is not the key {key_id} of the log")
        return keys


class Tokens:
    """Numbers to tokens and back, under the keys of one quarter. For one thread.

    A token is one AES-256 block of ``INSZ:`` and the eleven digits: at once a blind index and,
    for who holds the key, the number. One block and no mode: the block never repeats a pattern
    within itself, and equal tokens for equal numbers are the purpose.
    """

    def __init__(self, keys: QuarterKeys) -> None:
        person = Cipher(algorithms.AES256(keys.person), modes.ECB())  # noqa: S305
        user = Cipher(algorithms.AES256(keys.user), modes.ECB())  # noqa: S305
        self._person = person.encryptor().update
        self._user = user.encryptor().update
        self._number = person.decryptor().update
        self._user_number = user.decryptor().update
        self._ticket_key = keys.ticket
        self._ticket = hashlib.blake2b(key=keys.ticket, digest_size=16)

    def person(self, insz: str) -> bytes:
        """Return the token of a person's number: 16 bytes.

        Raises:
            InvalidIdentifierError: not eleven ASCII digits.
        """
        return self._person(_blocks((insz,)))

    def persons(self, numbers: Sequence[str]) -> tuple[bytes, ...]:
        """Return the tokens of several persons, in one call of the cipher.

        Raises:
            InvalidIdentifierError: one is not eleven ASCII digits.
        """
        return struct.unpack("16s" * len(numbers), self._person(_blocks(numbers)))

    def user(self, insz: str) -> bytes:
        """Return the token of a user's number: 16 bytes, other than the person's.

        Raises:
            InvalidIdentifierError: not eleven ASCII digits.
        """
        return self._user(_blocks((insz,)))

    def ticket(self, requester: str, ticket: str) -> bytes:
        """Return the hash of a requester's reference: keyed BLAKE2b (RFC 7693), 16 bytes."""
        state = self.tickets_of(requester)
        state.update(ticket.encode())
        return state.digest()

    def tickets_of(self, requester: str) -> Hash:
        """Return the hash of a requester's references before the reference itself: copy it."""
        state = self._ticket.copy()
        state.update(f"{requester}:".encode())
        return state

    def content(self, data: bytes) -> bytes:
        """Return the hash that tells what was submitted from anything else: as ``ticket``."""
        return hashlib.blake2b(
            data, key=self._ticket_key, digest_size=16, person=b"content"
        ).digest()

    def person_number(self, token: bytes) -> str:
        """Return the eleven digits of a person's token.

        Raises:
            KeysError: the token was not made with this key.
        """
        return _digits(self._number(token) if len(token) == 16 else b"", "person")

    def user_number(self, token: bytes) -> str:
        """Return the eleven digits of a user's token.

        Raises:
            KeysError: the token was not made with this key.
        """
        return _digits(self._user_number(token) if len(token) == 16 else b"", "user")


def _blocks(numbers: Sequence[str]) -> bytes:
    """Return one after the other: the cipher keeps a part of a block for its next call."""
    digits = "".join(numbers)
    if numbers and not (digits.isascii() and digits.isdigit() and set(map(len, numbers)) == {11}):
        raise InvalidIdentifierError("a token is made of eleven digits")
    return _PREFIX.join(("", *numbers)).encode()


def _digits(block: bytes, key: str) -> str:
    digits = block[len(_PREFIX) :]
    if not (block.startswith(_PREFIX.encode()) and digits.isdigit()):
        raise KeysError(f"the token was not made with the {key} key of this quarter")
    return digits.decode()
