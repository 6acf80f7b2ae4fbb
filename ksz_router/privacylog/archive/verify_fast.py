"""Check an archive without reading its records: what it says of itself, up to the signed root.

Every file has the SHA-256 that a manifest names; each manifest names the one before; the SHA-256
of the newest manifests is in the log, as entries of kind SEALED; their leaves lead to the root that
the checkpoint signs, and the levels of the tree agree with each other. What is not covered: level 0
of the tree, and so whether each single record is the one of its leaf (:mod:`verify_full`).

Shares with what writes the archive its format and nothing else.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.canon import to_records
from ksz_router.privacylog.archive.commit_keys import CommitKeys
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.manifest import SealedFile
from ksz_router.privacylog.archive.verify_chain import Chain
from ksz_router.privacylog.archive.verify_order import Tail, checked_lines
from ksz_router.privacylog.archive.verify_tree import Tree
from ksz_router.privacylog.entry import Kind
from ksz_router.privacylog.tree.merkle import leaf_hash
from ksz_router.privacylog.tree.note import VerifierKey
from ksz_router.privacylog.tree.salts import Salts

READ_BYTES = 4 * 1024 * 1024

UNREADABLE = (
    OSError, pa.ArrowException, PrivacyLogError, ValueError, KeyError, IndexError, OverflowError,
    MemoryError,
)  # fmt: skip
"""What reading a Parquet file may raise that was damaged, or is another one."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is verified, and with what."""

    archive: Path
    vkeys: tuple[VerifierKey, ...]
    """Of the log, from a hand that is trusted."""
    anchor: Path | None = None
    """The file of the last checkpoint, which lies outside the archive."""
    commit_keys: Path | None = None
    """Folder of key files; of each quarter the ``commit`` key is enough."""
    log: Path | None = None
    """The write-ahead files; then the key files need their ``frames`` keys too."""


def verify_fast(place: Place, progress: Callable[[int], object] = lambda _: None) -> Findings:
    """Check it all; never stops at a fault. ``progress`` is called with bytes that were hashed.

    Raises:
        PrivacyLogError: there is no archive.
    """
    findings = Findings()
    archive = place.archive
    if not (archive / "tree").is_dir():
        raise PrivacyLogError(f"{archive}: no archive here: it has no folder tree")
    chain = Chain(archive, findings)
    chain.check_catalogs()
    check_files(chain, findings, progress)
    note_strangers(chain, findings)
    with Tree(archive, place.vkeys, place.anchor, findings) as tree:
        tree.check(whole=False)
        sealed = _recorded(chain, tree, place, findings)
        sealed |= check_tail(chain, tree, place, findings)
    check_recorded(chain, sealed, findings, tail_known=place.log is not None)
    return findings


def bytes_to_hash(archive: Path) -> int:
    """Return how many bytes :func:`verify_fast` will hash, for a progress bar."""
    return sum(file.bytes for file in Chain(archive, Findings()).files.values())


def check_files(
    chain: Chain, findings: Findings, progress: Callable[[int], object] = lambda _: None
) -> None:
    """Check size and SHA-256 of every file in force."""
    largest = max((file.bytes for file in chain.files.values()), default=0)
    buffer = bytearray(min(READ_BYTES, largest + 1))
    for file in chain.files.values():
        path = chain.path(file)
        try:
            size = path.stat().st_size
            digest = _sha256(path, buffer, progress)
        except OSError as error:
            findings.fault(path, f"cannot be read: {error.strerror}")
            continue
        findings.files += 1
        findings.bytes += size
        if size != file.bytes:
            findings.fault(path, f"has {size} bytes; its manifest says {file.bytes}")
        elif digest != file.sha256:
            findings.fault(path, "its SHA-256 is not the one in its manifest")


def note_strangers(chain: Chain, findings: Findings) -> None:
    """Name the files that no manifest names."""
    folder = chain.archive / "sealed"
    known = set(chain.files) | chain.removed
    strangers = [
        p for p in folder.rglob("*") if p.is_file() and str(p.relative_to(folder)) not in known
    ]
    for path in sorted(strangers):
        findings.note(f"{path}: no manifest names it: left by a step that was broken off")


def check_tail(chain: Chain, tree: Tree, place: Place, findings: Findings) -> dict[str, int]:
    """Check the order lines, and with the write-ahead files the records that are not sealed.

    Returns:
        Leaf by digest of the entries of kind SEALED among these.
    """
    newest = chain.newest
    sealed_leaves = findings.sealed_leaves = newest.sealed_leaves if newest else 0
    tail = None
    if place.log is not None and place.commit_keys is not None:
        tail = Tail(place.log, place.commit_keys, tree, findings)
    for line in checked_lines(place.archive, tree.size, findings):
        if tail is not None and line.end_leaf > sealed_leaves:
            tail.check(line, sealed_leaves)
    if sealed_leaves > tree.size:
        path = chain.links[-1].path
        findings.fault(path, f"seals leaves beyond the {tree.size} of the newest checkpoint")
    return tail.sealed if tail is not None else {}


def check_recorded(
    chain: Chain, sealed: dict[str, int], findings: Findings, *, tail_known: bool
) -> None:
    """Check that every manifest is an entry of the log.

    The newest may lack it: the sealer died before, and records it when it starts. Without the
    write-ahead files nothing can be said of those that are recorded in them.
    """
    links = chain.links
    unknown = sealed.keys() - {link.sha256 for link in links}
    if unknown:
        path = links[-1].path if links else chain.archive / "manifest" / "000001.json"
        leaf = min(sealed[digest] for digest in unknown)
        findings.fault(path, "the log names another SHA-256 than that of any manifest", leaf=leaf)
    missing = [link for link in links if link.sha256 not in sealed]
    newest_recorded = max(
        (link.manifest.number for link in links if link.sha256 in sealed), default=0
    )
    for link in missing:
        if link.manifest.number < newest_recorded or (tail_known and link is not links[-1]):
            findings.fault(link.path, "the log has no entry SEALED with its SHA-256")
        elif tail_known:
            findings.note(f"{link.path}: its entry SEALED is still to be written by the sealer")
        else:
            findings.note(
                f"{link.path}: its entry SEALED is not sealed itself yet; the write-ahead files "
                "are needed to check it"
            )


def _recorded(chain: Chain, tree: Tree, place: Place, findings: Findings) -> dict[str, int]:
    """Return leaf by digest of the SEALED entries in ``t`` files; the last one is proved."""
    found: dict[str, int] = {}
    last: tuple[SealedFile, int, int] | None = None
    for file in chain.truth:
        path = chain.path(file)
        try:
            for group, row, seq, digest in _sealed_rows(path):
                found[digest] = seq
                if any(link.sha256 == digest for link in chain.links):
                    last = file, group, row
        except UNREADABLE as error:
            findings.fault(path, f"cannot be read as Parquet: {type(error).__name__}")
    if last is None:
        return found
    if place.commit_keys is None:
        findings.note("without a commit key no entry SEALED was compared with its leaf")
        return found
    file, group, row = last
    path = chain.path(file)
    try:
        salts = Salts(CommitKeys(place.commit_keys).named(file.key_id))
        table = pq.ParquetFile(path).read_row_group(group).slice(row, 1)
        seq = table.column("seq")[0].as_py()
        leaf = leaf_hash(salts.run(seq, 1), to_records(table)[0])
    except UNREADABLE as error:
        what = f"its entry SEALED cannot be checked: {type(error).__name__}"
        findings.fault(path, what, row_group=group)
        return found
    if tree.is_right(seq, leaf):
        return found
    if tree.read_leaves(seq, seq + 1) == leaf:  # then another leaf of its tile is wrong
        where, offset = tree.place(seq)
        what = "its tile is not the one that the levels above it have"
        findings.fault(where, what, leaf=seq, offset=offset)
        return found
    what = "its entry SEALED is not the one of its leaf"
    findings.fault(path, what, leaf=seq, row_group=group)
    return found


def _sealed_rows(path: Path) -> Iterator[tuple[int, int, int, str]]:
    """Yield row group, row, leaf and digest of the entries of kind SEALED."""
    with pq.ParquetFile(path) as parquet:
        for group in range(parquet.num_row_groups):
            kinds = parquet.read_row_group(group, ["kind"]).column(0)
            rows = pc.indices_nonzero(pc.equal(kinds, Kind.SEALED))
            if not len(rows):
                continue
            table = parquet.read_row_group(group, ["seq", "digest"]).take(rows)
            columns = (table.column("seq").to_pylist(), table.column("digest").to_pylist())
            for row, seq, digest in zip(rows.to_pylist(), *columns, strict=True):
                if digest is not None:
                    yield group, row, seq, digest.hex()


def _sha256(path: Path, buffer: bytearray, progress: Callable[[int], object]) -> str:
    state = hashlib.sha256()
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(view[:count])
            progress(count)
    return state.hexdigest()
