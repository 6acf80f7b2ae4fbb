"""The PEM files of TLS: an error that names the file, or contexts to talk with."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from contrib.fuzz import targets
from ksz_router.cli.testpki import write_pki
from ksz_router.config import Tls
from ksz_router.daemon.contexts import Contexts
from ksz_router.tls import TlsFilesError

_FOLDER = targets.scratch("tls_files")
write_pki(_FOLDER / "pki", {"0999016460": "urn:kbo:0999016460"})
_GOOD = {
    "certificate": _FOLDER / "pki" / "router.crt",
    "key": _FOLDER / "pki" / "router.key",
    "authorities": _FOLDER / "pki" / "authorities.pem",
}
_FIELDS = ("certificate", "key", "authorities", "revocations")


def one_input(data: bytes) -> None:
    """First byte: which of the files holds the rest."""
    if not data:
        return
    file = _FOLDER / "one.pem"
    file.write_bytes(data[1:])
    files: dict[str, Path] = {**_GOOD, _FIELDS[data[0] % 4]: file}
    try:
        named = {name: str(path) for name, path in files.items()}
        made = Contexts(msgspec.convert(named, Tls))
    except TlsFilesError:
        return
    assert made.server() is not made.client()


def seeds() -> Iterator[bytes]:
    """The files of a test PKI."""
    for number, field in enumerate(_FIELDS[:3]):
        yield bytes([number]) + _GOOD[field].read_bytes()
    for file in sorted((_FOLDER / "pki").glob("*.pem")):
        yield b"\3" + file.read_bytes()


if __name__ == "__main__":
    targets.run(__file__)
