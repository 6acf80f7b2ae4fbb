"""The commit keys of quarters, for who verifies and is to know no more.

An auditor gets key files in which the other keys were left out (``ksz-router keys commit``): the
leaves can then be computed, and nobody is identified.
"""

import json
import re
from pathlib import Path

import msgspec

from ksz_router.privacylog.durable import write_new
from ksz_router.privacylog.keys import FORMAT, KeysError, QuarterKeys, load

_KEY_ID = re.compile(r"([0-9]{4}Q[1-4])-[0-9a-f]{8}")
_LABEL = "commit"
_KEY_BYTES = 32


class _KeyFile(msgspec.Struct):
    id: str
    keys: dict[str, str]
    commitments: dict[str, str]


def extract(folder: Path, quarter: str, file: Path) -> None:
    """Write the key file of a quarter with its commit key alone, mode 0600, durably.

    Raises:
        KeysError: the keys of the quarter are missing, damaged, or readable by others.
        FileExistsError: ``file`` is there already.
        OSError: it cannot be written.
    """
    keys = load(folder, quarter)
    table = {
        "format": FORMAT,
        "id": keys.id,
        "keys": {_LABEL: keys.commit.hex()},
        "commitments": {_LABEL: keys.commitment(_LABEL).hex()},
    }
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(file, json.dumps(table, indent=1).encode() + b"\n")


class CommitKeys:
    """The commit keys in a folder of key files, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, bytes] = {}

    def named(self, key_id: str) -> bytes:
        """Return the commit key of a key file's id: 32 bytes.

        Raises:
            KeysError: the file is missing, of another id, or breaks its commitment.
        """
        if key_id not in self._loaded:
            self._loaded[key_id] = self._load(key_id)
        return self._loaded[key_id]

    def _load(self, key_id: str) -> bytes:
        match = _KEY_ID.fullmatch(key_id)
        if match is None:
            raise KeysError("a sealed file names no known kind of key")
        file = self._folder / f"{match[1]}.json"
        try:
            with file.open("rb") as stream:
                table = msgspec.json.decode(stream.read(64 * 1024), type=_KeyFile)
            key = bytes.fromhex(table.keys[_LABEL])
        except OSError as error:
            raise KeysError(f"{file}: cannot be read: {error.strerror}; restore it") from error
        except (msgspec.DecodeError, ValueError, KeyError):
            # From None: the words of a decoder may repeat what it read, and that is keys.
            raise KeysError(f"{file}: holds no commit key; restore it") from None
        if table.id != key_id:
            raise KeysError(f"{file}: is not the key {key_id} of the sealed file")
        return _checked(file, table, key)


def _checked(file: Path, table: _KeyFile, key: bytes) -> bytes:
    nothing = dict.fromkeys(("frames", "store", "person", "user", "ticket"), b"")
    keys = QuarterKeys(id=table.id, commit=key, **nothing)
    if len(key) != _KEY_BYTES or keys.commitment(_LABEL).hex() != table.commitments.get(_LABEL):
        raise KeysError(f"{file}: the commit key breaks its commitment; restore the file")
    return key
