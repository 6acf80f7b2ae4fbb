"""Check the chain of manifests and the catalogs that are made of it.

Shares with the sealer the format of manifests (``manifest``) and nothing else.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.manifest import Catalog, Manifest, SealedFile

_MANIFEST = re.compile(r"([0-9]{6,})\.json")
_PATH = re.compile(
    r"q=[0-9]{4}Q[1-4]/(t/[0-9]+-[0-9]+|[pukr]/[0-9]+-[0-9]+-[0-9]+-[0-9]+)\.parquet"
    r"|carry/[0-9]+\.msgpack"
)

_decode = msgspec.json.Decoder(Manifest).decode
_decode_catalog = msgspec.msgpack.Decoder(Catalog).decode


class _Index(msgspec.Struct, frozen=True):
    upto: int
    catalogs: tuple[tuple[str, str], ...]


_decode_index = msgspec.msgpack.Decoder(_Index).decode


class Link(NamedTuple):
    """A manifest that could be read."""

    path: Path
    sha256: str
    manifest: Manifest


class Chain:
    """The manifests of an archive, and the files they name.

    Attributes:
        links: The manifests that could be read, in their order.
        files: The files in force after the newest, by path.
        removed: Paths that a manifest removed; they may still be there for a while.
    """

    def __init__(self, archive: Path, findings: Findings) -> None:
        self.archive = archive
        self.links: list[Link] = []
        self.files: dict[str, SealedFile] = {}
        self.removed: set[str] = set()
        self._findings = findings
        self._read()

    @property
    def newest(self) -> Manifest | None:
        """The newest manifest."""
        return self.links[-1].manifest if self.links else None

    @property
    def truth(self) -> list[SealedFile]:
        """The ``t`` files in the order of their leaves."""
        return sorted(
            (file for file in self.files.values() if file.kind == "t"),
            key=lambda file: (file.first_leaf, file.end_leaf),
        )

    def path(self, file: SealedFile | str) -> Path:
        """Return where a file is."""
        return self.archive / "sealed" / (file if isinstance(file, str) else file.path)

    def _read(self) -> None:
        before: Link | None = None
        expected = 1
        for number, path in _numbered(self.archive / "manifest"):
            for missing in range(expected, min(number, expected + 3)):
                self._findings.fault(
                    path.with_name(f"{missing:06d}.json"), "this manifest is missing"
                )
                before = None
            expected = number + 1
            link = self._link(path, number, before)
            if link is not None:
                self._take(link)
                self.links.append(link)
            before = link
        self._findings.manifests = len(self.links)

    def _link(self, path: Path, number: int, before: Link | None) -> Link | None:
        try:
            data = path.read_bytes()
            manifest = _decode(data)
        except OSError as error:
            self._findings.fault(path, f"cannot be read: {error.strerror}")
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._findings.fault(path, "is no manifest")
            return None
        link = Link(path, hashlib.sha256(data).hexdigest(), manifest)
        if manifest.format != 1 or manifest.number != number:
            self._findings.fault(path, f"is not manifest {number} of format 1")
        if number == 1 and manifest.previous:
            self._findings.fault(path, "the first manifest names one before it")
        if before is not None:
            self._continue(before, link)
        return link

    def _continue(self, before: Link, link: Link) -> None:
        old, new = before.manifest, link.manifest
        if new.previous != before.sha256:
            # Which of the two was changed the entry of kind SEALED tells.
            self._findings.fault(before.path, "its SHA-256 is not what the next manifest names")
        if (new.origin, new.node) != (old.origin, old.node):
            self._findings.fault(link.path, "is of another origin or node than the one before")
        if new.sealed_leaves < old.sealed_leaves:
            self._findings.fault(link.path, "seals fewer leaves than the one before")
        for slot, cursor in old.slots.items():
            later = new.slots.get(slot)
            if later is None or later.next_record < cursor.next_record:
                self._findings.fault(link.path, f"slot {slot} goes back")

    def _take(self, link: Link) -> None:
        manifest, fault = link.manifest, self._findings.fault
        begin = self.links[-1].manifest.sealed_leaves if self.links else 0
        for name in manifest.removed:
            gone = self.files.pop(name, None)
            if gone is None:
                fault(link.path, f"removes {name}, which is not in force")
            elif gone.kind == "t":
                fault(link.path, f"removes {name}, a file of truth")
            self.removed.add(name)
        for file in manifest.added:
            if not _PATH.fullmatch(file.path):
                fault(link.path, "names a file that cannot be one of an archive")
                continue
            if file.path in self.files:
                fault(link.path, f"adds {file.path} a second time")
            self.files[file.path] = file
            self.removed.discard(file.path)
        for file in sorted(manifest.added, key=lambda file: file.first_leaf):
            if file.kind != "t":
                continue
            if file.first_leaf != begin:
                fault(link.path, f"{file.path} does not begin at leaf {begin}", leaf=begin)
            begin = file.end_leaf
        if begin != manifest.sealed_leaves:
            fault(link.path, f"its files do not end at leaf {manifest.sealed_leaves}", leaf=begin)

    def check_catalogs(self) -> None:
        """Compare the index, and each catalog, with what the manifests add up to.

        After a crash they may be behind the newest manifest, by what the index does not count yet:
        readers add that, and the sealer writes it at its next step.
        """
        folder = self.archive / "catalog"
        newest = self.links[-1].manifest.number if self.links else 0
        index = self._read_index(folder / "index.msgpack", newest)
        if index is None:
            return
        for quarter, kind in index.catalogs:
            path = folder / f"{quarter}-{kind}.msgpack"
            self._check_catalog(path, (quarter, kind), index.upto)

    def _read_index(self, path: Path, newest: int) -> "_Index | None":
        if not newest and not path.exists():
            return None
        self._findings.files += 1
        try:
            data = path.read_bytes()
            index = _decode_index(data)
        except OSError as error:
            self._findings.fault(path, f"cannot be read: {error.strerror}")
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._findings.fault(path, "is no index; remove it, the sealer makes it anew")
            return None
        keys = {
            (file.quarter, file.kind)
            for link in self.links
            if link.manifest.number <= index.upto
            for file in link.manifest.added
        }
        if msgspec.msgpack.encode(index) != data or index.catalogs != tuple(sorted(keys)):
            self._findings.fault(path, "is not what the manifests add up to")
        if index.upto > newest:
            self._findings.fault(path, f"is of manifest {index.upto}; the newest is {newest}")
        elif index.upto < newest:
            self._findings.note(f"{path}: is behind manifest {newest}; the sealer brings it up")
        return index

    def _check_catalog(self, path: Path, key: tuple[str, str], at_least: int) -> None:
        self._findings.files += 1
        try:
            data = path.read_bytes()
            catalog = _decode_catalog(data)
        except OSError as error:
            self._findings.fault(path, f"cannot be read: {error.strerror}")
            return
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._findings.fault(path, "is no catalog; remove it, the sealer makes it anew")
            return
        force: dict[str, SealedFile] = {}
        changed = missed = 0
        for link in self.links:
            number = link.manifest.number
            if number > max(catalog.upto, at_least):
                break
            gone = [name for name in link.manifest.removed if name in force]
            added = {f.path: f for f in link.manifest.added if (f.quarter, f.kind) == key}
            if not gone and not added:
                continue
            if number > catalog.upto:
                missed = number
                break
            changed = number
            for name in gone:
                del force[name]
            force |= added
        wanted = sorted(force.values(), key=lambda file: (file.first_leaf, file.level, file.part))
        if missed:
            self._findings.fault(path, f"leaves out manifest {missed}")
        elif catalog != _added_up(changed, wanted, says_times=catalog.first_us is not None):
            self._findings.fault(path, f"is not what the manifests up to {catalog.upto} add up to")
        elif msgspec.msgpack.encode(catalog) != data:
            self._findings.fault(path, "is not in its one form")


def _added_up(upto: int, files: Sequence[SealedFile], *, says_times: bool) -> Catalog:
    """Return the catalog of files; those of before it said from when to when they are did not."""
    times = [(file.first_us, file.end_us) for file in files] if says_times else []
    return Catalog(
        upto=upto,
        first_us=min(begin for begin, _ in times) if times else None,
        end_us=max(end for _, end in times) if times else None,
        files=tuple(files),
    )


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _MANIFEST.fullmatch(path.name)
        if match is not None:
            found.append((int(match[1]), path))
    yield from sorted(found)
