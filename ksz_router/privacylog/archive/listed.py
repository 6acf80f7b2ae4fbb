"""Files as a catalog lists them, each made sense of only when it is looked at.

A quarter has thousands of parts, and a question reads one of them: to make all of them costs more
than to answer it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, overload

import msgspec

from ksz_router.privacylog.archive import chain
from ksz_router.privacylog.archive.ahead import announce
from ksz_router.privacylog.archive.chain import Held, Key, Wanted
from ksz_router.privacylog.archive.manifest import Manifest, SealedFile
from ksz_router.privacylog.archive.places import ChainBroken, catalog_file, key_of

_decode = msgspec.msgpack.Decoder(SealedFile).decode


class _Catalog(msgspec.Struct):
    files: list[msgspec.Raw]
    first_us: int | None = None
    end_us: int | None = None


_decode_catalog = msgspec.msgpack.Decoder(_Catalog).decode


class Listed(Sequence[SealedFile]):
    """The files of a catalog.

    Args:
        path: Of the catalog, for what is said where it is damaged.
        catalog: With its files as they are written there.

    Attributes:
        first_us: The earliest of the files.
        end_us: Beyond the latest.
    """

    def __init__(self, path: Path, catalog: _Catalog) -> None:
        self._path = path
        self._files: list[msgspec.Raw | SealedFile] = [*catalog.files]
        first_us, end_us = catalog.first_us, catalog.end_us
        if first_us is None or end_us is None:  # an older one
            first_us = min((file.first_us for file in self), default=0)
            end_us = max((file.end_us for file in self), default=0)
        self.first_us = first_us
        self.end_us = end_us

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, at: int) -> SealedFile: ...
    @overload
    def __getitem__(self, at: slice) -> list[SealedFile]: ...
    def __getitem__(self, at: int | slice) -> SealedFile | list[SealedFile]:
        """Return a file, or several.

        Raises:
            ChainBroken: the catalog is damaged there.
        """
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        held = self._files[at]
        if isinstance(held, SealedFile):
            return held
        try:
            file = _decode(held)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ChainBroken(
                f"{self._path}: is damaged; remove it, the sealer makes it anew"
            ) from None
        self._files[at] = file
        return file


Lists: TypeAlias = dict[Key, Sequence[SealedFile]]
"""Files in the order of a catalog."""


def listed(archive: Path, wanted: Wanted) -> Lists:
    """Return the files of some quarters and kinds, as of the newest manifest or a later one.

    Raises:
        ChainBroken: see :func:`chain.read_chain`.
    """
    index, later = chain.index_and_later(archive)
    lists: Lists = {}
    paths = {key: catalog_file(archive, *key) for key in filter(wanted, index.catalogs)}
    for path in paths.values():
        announce(path)
    for key, path in paths.items():
        try:
            lists[key] = Listed(path, _decode_catalog(path.read_bytes()))
        except (FileNotFoundError, msgspec.MsgspecError):
            _, held = chain.added_up(archive, wanted)
            return {key: chain.in_order(files) for key, files in held.items()}
    for each in later:
        for file in each.manifest.added:
            if wanted((file.quarter, file.kind)):
                lists.setdefault((file.quarter, file.kind), ())
        fold_in(lists, each.manifest)
    return lists


def fold_in(lists: Lists, manifest: Manifest) -> set[Key]:
    """Apply a manifest to the lists given; return which of them it changed."""
    named = {(file.quarter, file.kind) for file in manifest.added}
    gone = {key_of(path) for path in manifest.removed}
    held: Held = {
        key: {file.path: file for file in lists[key]}
        for key in lists
        if key in named or key in gone or ("", key[1]) in gone
    }
    changed = chain.fold_in(held, manifest)
    lists |= {key: chain.in_order(held[key]) for key in changed}
    return changed
