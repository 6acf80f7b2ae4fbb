"""A generation on disk: its folder, its manifest, its rows, and what can be wrong with it.

``<store>/generations/<name>/`` holds ``data.mdb`` (LMDB 0.9), ``manifest.json`` and, once
activated, ``manifest.sig``. It is immutable: the name is the hash of its rows, the manifest holds
the hash of the file, the signature covers the manifest.

What an attacker gains who can write here: before activation nothing, since the manifest is checked
against the signer's key; after it a stopped worker, since a changed ``data.mdb`` is refused at
open, or an older signed generation made active again, since the pointer itself is not signed.
"""

import hashlib
import os
from pathlib import Path

import msgspec

from ksz_router.model import AccessRight, Availability, Grant, Institution, Outage, Service
from ksz_router.rulebook.rows import SourceFile

FORMAT = 1
NAME_CHARS = 32
DATA, MANIFEST, SIGNATURE, ACTIVE = "data.mdb", "manifest.json", "manifest.sig", "active"


class RulebookError(Exception):
    """A rulebook or a generation cannot be used. The message says what to do."""


class GenerationUnknownError(RulebookError):
    """The store has no generation of that name."""


class GenerationDamagedError(RulebookError):
    """A file of the generation is not what its manifest says, or cannot be decoded."""


class GenerationUnsignedError(RulebookError):
    """The manifest has no signature, or not one by the configured signer."""


class NoActiveGenerationError(RulebookError):
    """The store has no pointer to an active generation."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``manifest.json`` says; the signature covers its bytes."""

    format: int
    name: str
    counts: dict[str, int]
    data_sha256: str
    built_at: str
    files: tuple[SourceFile, ...]


class ServiceRows(msgspec.Struct, frozen=True, array_like=True):
    """A service with everything that is joined to it: one value per service and version."""

    service: Service
    grants: tuple[Grant, ...] = ()
    """Of every holder; the direction is the one the service's kind asks for."""
    sources: tuple[Availability, ...] = ()
    """In the order in which they are asked."""


class RightRows(msgspec.Struct, frozen=True, array_like=True):
    """All rows of one user or application of one institution, under their key."""

    kbo: str
    holder: str
    """``u`` and the user key, or ``a`` and the program number."""
    rights: tuple[AccessRight, ...]


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Everything a generation holds, each list sorted by its key."""

    institutions: tuple[Institution, ...]
    services: tuple[ServiceRows, ...]
    outages: tuple[Outage, ...]
    rights: tuple[RightRows, ...]


ENCODER = msgspec.msgpack.Encoder(order="deterministic")
"""Sets are sorted: the same rows give the same bytes on every machine."""


def name_of(rows: Rows) -> str:
    """Return the name of the generation that holds these rows."""
    digest = hashlib.sha256(ENCODER.encode([FORMAT, rows]))
    return digest.hexdigest()[:NAME_CHARS]


def service_key(name: str, version: int) -> bytes:
    """Return the key of a service's rows."""
    return f"{name}\0{version}".encode()


def right_key(kbo: str, holder: str) -> bytes:
    """Return the key of the rights of one user or application."""
    return f"{kbo}\0{holder}".encode()


def folder_of(store: Path, name: str) -> Path:
    """Return the folder of a generation.

    Raises:
        GenerationUnknownError: the name is not one, or the store does not have it.
    """
    folder = store / "generations" / name
    is_name = len(name) == NAME_CHARS and name.isascii() and name.isalnum()
    if not is_name or not (folder / MANIFEST).is_file():
        raise GenerationUnknownError(
            f"{store}: has no generation {name!r}; build it first, or name one of those that "
            "`ksz-router rulebook show --store` lists"
        )
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest and check that ``data.mdb`` is the file it speaks of.

    Raises:
        GenerationDamagedError: the manifest or the data file is not what it should be.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        with (folder / DATA).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(folder, "a file cannot be read") from error
    if manifest.format != FORMAT:
        raise GenerationDamagedError(
            f"{folder}: is of format {manifest.format}, this program reads {FORMAT}; "
            "build it again with this version"
        )
    if manifest.name != folder.name:
        raise _damaged(folder, "the manifest is another generation's")
    if found != manifest.data_sha256:
        raise _damaged(folder, f"the SHA-256 of {DATA} differs from the manifest's")
    return manifest


def _damaged(folder: Path, reason: str) -> GenerationDamagedError:
    return GenerationDamagedError(
        f"{folder}: {reason}; remove the folder and build the generation again from its text"
    )


def damaged_rows(folder: Path, error: Exception) -> GenerationDamagedError:
    """Return the error for a data file whose rows cannot be read."""
    return _damaged(folder, f"{DATA} cannot be decoded ({type(error).__name__})")


def flush(path: Path) -> None:
    """Make a file's content, or a folder's names, durable (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
