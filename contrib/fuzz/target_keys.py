"""The key file of a quarter: an error that repeats nothing of it, or six keys of 32 bytes."""

import re
from collections.abc import Iterator

from contrib.fuzz import targets
from ksz_router.privacylog.keys import LABELS, KeysError, load, make

_FOLDER = targets.scratch("keys")
_QUARTER = "2026Q4"
_FILE = _FOLDER / f"{_QUARTER}.json"


def one_input(data: bytes) -> None:
    """The whole file."""
    _FILE.write_bytes(data)
    _FILE.chmod(0o600)
    try:
        keys = load(_FOLDER, _QUARTER)
    except KeysError as error:
        said = str(error).replace(str(_FOLDER), "")
        assert not re.search(r"[0-9a-f]{16}", said), "a key in the message of an error"
        return
    assert all(len(getattr(keys, label)) == 32 for label in LABELS)


def seeds() -> Iterator[bytes]:
    """A key file of this moment, whole and in part; never kept."""
    folder = _FOLDER / "made"
    made = folder / f"{_QUARTER}.json"
    if not made.exists():
        make(folder, _QUARTER)
    yield made.read_bytes()
    yield made.read_bytes()[:200]


if __name__ == "__main__":
    targets.run(__file__)
