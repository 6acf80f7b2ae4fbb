"""The manifests of an archive, one after the other, and the catalogs that they add up to.

``docs/privacylog-format.md`` has the layout. A manifest is written once and names the SHA-256 of
the one before it. Catalogs are made from manifests, and made anew where they are missing or behind;
``catalog/index.msgpack`` says up to which manifest all of them are. Whoever reads while the sealer
goes on asks for :func:`newest` first and for catalogs then: these may be ahead of it, not behind.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ksz_router.privacylog.archive.manifest import Catalog, Manifest, SealedFile, catalog_of
from ksz_router.privacylog.archive.places import (
    ChainBroken,
    catalog_file,
    index_file,
    key_of,
    manifest_file,
)
from ksz_router.privacylog.durable import DISK, Disk, sync_folder, write_new, write_over

FORMAT: Final = 1
CARRY: Final = "c"
_MANIFEST = re.compile(r"([0-9]{6,})\.json")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Manifest).decode
_encode_catalog = msgspec.msgpack.Encoder().encode
_decode_catalog = msgspec.msgpack.Decoder(Catalog).decode

Key = tuple[str, str]
"""Quarter and kind."""
Held = dict[Key, dict[str, SealedFile]]
"""Files by path."""
Wanted = Callable[[Key], bool]


class Chained(NamedTuple):
    """A manifest as it lies on disk."""

    manifest: Manifest
    sha256: str
    """Of its file, in hexadecimal: what the next one names, and the entry SEALED."""


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    """Which catalogs there are, all of them as of ``upto`` or later."""

    upto: int
    catalogs: tuple[Key, ...]


_decode_index = msgspec.msgpack.Decoder(_Index).decode


def manifest_numbers(archive: Path) -> list[int]:
    """Return the numbers of the manifests that lie there, in order."""
    try:
        names = [entry.name for entry in (archive / "manifest").iterdir()]
    except FileNotFoundError:
        return []
    found = (_MANIFEST.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match is not None)


def newest(archive: Path) -> Manifest | None:
    """Return the newest manifest; None where nothing was sealed.

    Raises:
        ChainBroken: it is missing or damaged.
    """
    found = newest_recorded(archive)
    return None if found is None else found.manifest


def newest_recorded(archive: Path) -> Chained | None:
    """Return the newest manifest with its digest; None where nothing was sealed.

    Raises:
        ChainBroken: it is missing or damaged.
    """
    index = _index(archive)
    number = index.upto if index is not None else max(manifest_numbers(archive), default=0)
    while manifest_file(archive, number + 1).exists():
        number += 1
    return read_manifest(archive, number) if number else None


def read_manifest(archive: Path, number: int) -> Chained:
    """Return one manifest.

    Raises:
        ChainBroken: it is missing or damaged.
    """
    file = manifest_file(archive, number)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ChainBroken(f"{file}: missing; restore it") from None
    try:
        manifest = _decode(data)
    except msgspec.MsgspecError:
        raise ChainBroken(f"{file}: is not a manifest; restore it") from None
    if manifest.format != FORMAT or manifest.number != number or _encode(manifest) != data:
        raise ChainBroken(f"{file}: is not manifest {number} in format {FORMAT}; restore it")
    return Chained(manifest, sha256(data).hexdigest())


def read_chain(archive: Path, *, after: Chained | None = None) -> Iterator[Chained]:
    """Yield the manifests in their order, from the first, or behind one.

    Raises:
        ChainBroken: one is missing, damaged, or does not follow the one before.
    """
    number, previous = (after.manifest.number, after.sha256) if after else (0, "")
    newest_number = max(manifest_numbers(archive), default=0)
    while number < newest_number:
        recorded = _following(archive, number, previous)
        number, previous = number + 1, recorded.sha256
        yield recorded


def append(archive: Path, manifest: Manifest, disk: Disk = DISK) -> Chained:
    """Write the next manifest, durably.

    Raises:
        ChainBroken: it is not the one that follows the newest.
        OSError: it could not be written; it may be there or not.
    """
    before = newest_recorded(archive)
    number, previous = (before.manifest.number, before.sha256) if before else (0, "")
    if manifest.number != number + 1 or manifest.previous != previous:
        raise ChainBroken(f"manifest {manifest.number} does not follow manifest {number}")
    file = manifest_file(archive, manifest.number)
    _make_folder(file.parent)
    data = _encode(manifest)
    write_new(file, data, disk=disk)
    return Chained(manifest, sha256(data).hexdigest())


def quarters(archive: Path) -> list[str]:
    """Return the quarters that have sealed files, in order.

    Raises:
        ChainBroken: see :func:`read_chain`.
    """
    index, later = index_and_later(archive)
    named = {quarter for quarter, _ in index.catalogs}
    return sorted(named | {file.quarter for each in later for file in each.manifest.added})


def catalog(archive: Path, quarter: str, kind: str) -> Catalog:
    """Return the files of a quarter and kind, as of the newest manifest or a later one.

    Raises:
        ChainBroken: see :func:`read_chain`.
    """
    upto, held = added_up(archive, lambda key: key == (quarter, kind))
    return catalog_of(upto, in_order(held.get((quarter, kind), {})))


def files(archive: Path, kind: str) -> list[SealedFile]:
    """Return the files of a kind of all quarters, as of the newest manifest or a later one."""
    _, held = added_up(archive, lambda key: key[1] == kind)
    return [file for key in sorted(held) for file in in_order(held[key])]


def carried(archive: Path) -> SealedFile | None:
    """Return the file of the entries carried over to the next step; None where there are none."""
    return max(files(archive, CARRY), key=lambda file: file.end_leaf, default=None)


def added_up(archive: Path, wanted: Wanted) -> tuple[int, Held]:
    """Return up to which manifest, and what the manifests up to it add up to.

    Raises:
        ChainBroken: see :func:`read_chain`.
    """
    index, later = index_and_later(archive)
    upto = later[-1].manifest.number if later else index.upto
    held: Held = {}
    for key in filter(wanted, index.catalogs):
        found = _read_catalog(archive, key)
        if found is None:
            later, held = list(read_chain(archive)), {}
            break
        # One that is ahead of the index takes what follows from there a second time: no harm.
        held[key] = {file.path: file for file in found.files}
        upto = max(upto, found.upto)
    for each in later:
        for file in each.manifest.added:
            if wanted((file.quarter, file.kind)):
                held.setdefault((file.quarter, file.kind), {})
        fold_in(held, each.manifest)
    return upto, held


def fold(archive: Path, disk: Disk = DISK) -> None:
    """Bring all catalogs up to the newest manifest; make them anew where one is missing.

    Raises:
        ChainBroken: see :func:`read_chain`.
        OSError: one could not be written. It may be tried again.
    """
    index, later = index_and_later(archive)
    held: Held = {}
    for key in index.catalogs:
        found = _read_catalog(archive, key)
        if found is None:
            later, held = list(read_chain(archive)), {}
            index = _Index(upto=0, catalogs=())
            break
        held[key] = {file.path: file for file in found.files}
    if not later:
        return
    for each in later:
        for file in each.manifest.added:
            held.setdefault((file.quarter, file.kind), {})
    changed = set[Key]()
    for each in later:
        changed |= fold_in(held, each.manifest)
    upto = later[-1].manifest.number
    _make_folder(archive / "catalog")
    for key in sorted(changed):
        catalog = catalog_of(upto, in_order(held[key]))
        write_over(catalog_file(archive, *key), _encode_catalog(catalog), disk=disk)
    index = _Index(upto=upto, catalogs=tuple(sorted(held)))
    write_over(index_file(archive), _encode_catalog(index), disk=disk)


def fold_in(held: Held, manifest: Manifest) -> set[Key]:
    """Apply a manifest to the catalogs given; return which of them it changed."""
    changed = set[Key]()
    for file in manifest.added:
        key = (file.quarter, file.kind)
        if key in held:
            held[key][file.path] = file
            changed.add(key)
    for path in manifest.removed:
        quarter, kind = key_of(path)
        for key, files in held.items():
            if key[1] == kind and quarter in ("", key[0]) and files.pop(path, None) is not None:
                changed.add(key)
    return changed


def in_order(files: dict[str, SealedFile]) -> tuple[SealedFile, ...]:
    """Return files as a catalog has them."""
    return tuple(sorted(files.values(), key=lambda file: (file.first_leaf, file.level, file.part)))


def index_and_later(archive: Path) -> tuple[_Index, list[Chained]]:
    """Return the index, and the manifests that it does not know."""
    if (index := _index(archive)) is None:
        return _Index(upto=0, catalogs=()), list(read_chain(archive))
    return index, list(followers(archive, read_manifest(archive, index.upto)))


def followers(archive: Path, after: Chained) -> Iterator[Chained]:
    """Yield the manifests behind one that is near the newest, in their order.

    Raises:
        ChainBroken: one is damaged, or does not follow the one before.
    """
    while manifest_file(archive, after.manifest.number + 1).exists():
        after = _following(archive, after.manifest.number, after.sha256)
        yield after


def _following(archive: Path, number: int, previous: str) -> Chained:
    recorded = read_manifest(archive, number + 1)
    if recorded.manifest.previous != previous:
        raise ChainBroken(f"manifest {number + 1} does not name the one before it; restore both")
    return recorded


def _index(archive: Path) -> _Index | None:
    """Return what is known of all catalogs; None where it is missing or no index."""
    try:
        return _decode_index(index_file(archive).read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _read_catalog(archive: Path, key: Key) -> Catalog | None:
    try:
        return _decode_catalog(catalog_file(archive, *key).read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
