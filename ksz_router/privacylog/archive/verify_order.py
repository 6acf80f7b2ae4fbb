"""Check the order lines, and the records that are ordered and not sealed yet."""

import re
from collections.abc import Iterator
from pathlib import Path

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.findings import Findings
from ksz_router.privacylog.archive.verify_tree import Tree
from ksz_router.privacylog.entry import EntryMalformed, Kind, parse, parse_head
from ksz_router.privacylog.frame import FrameCipher, frames
from ksz_router.privacylog.header import PAGE, FrameDamaged, parse_file_header
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.slots import file_of, opened, slot_folders
from ksz_router.privacylog.tree.merkle import HASH_BYTES, leaf_hashes
from ksz_router.privacylog.tree.order import LINE_BYTES, Line, parse_line
from ksz_router.privacylog.tree.places import locate
from ksz_router.privacylog.tree.salts import Salts

_FILE = re.compile(r"[0-9]{12,}")
_READ_BYTES = 4096 * LINE_BYTES


def checked_lines(
    archive: Path, size: int, findings: Findings, from_leaf: int = 0
) -> Iterator[Line]:
    """Yield the lines of the leaves before ``size`` in order, and report what is wrong with any.

    With ``from_leaf``, those of the files that hold it and what follows.

    A line that is not whole at the very end, behind the last leaf that is signed, was being
    written when the power went off.
    """
    folder = archive / "order"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    files = sorted(name for name in names if _FILE.fullmatch(name))
    while len(files) > 1 and int(files[1]) <= from_leaf:
        files.pop(0)
    leaf = int(files[0]) if files and from_leaf else 0
    chain = -1 if leaf else 0
    records: dict[str, int] = {}
    for name in files:
        findings.files += 1
        path = folder / name
        if int(name) != leaf:
            findings.fault(path, f"the lines before it end at leaf {leaf}", leaf=leaf)
            leaf, records = int(name), {}
        for offset, found in _lines(path):
            if found is None:
                if leaf < size or offset + LINE_BYTES < path.stat().st_size or name != files[-1]:
                    findings.fault(path, "a line is not right", offset=offset, leaf=leaf)
                chain = -1
                continue
            line, previous, crc = found
            if chain not in (-1, previous):
                findings.fault(path, "does not continue the line before", offset=offset, leaf=leaf)
            chain = crc
            if line.first_leaf != leaf:
                findings.fault(path, f"leaf {leaf} is missing or doubled", offset=offset, leaf=leaf)
            begins = (line.file, line.first_record) == (1, 0)  # its folder was renamed
            if not begins and line.first_record != records.get(line.slot, line.first_record):
                what = f"slot {line.slot}: records are missing or doubled"
                findings.fault(path, what, offset=offset, leaf=leaf)
            leaf = line.end_leaf
            records[line.slot] = line.first_record + line.records
            if line.records and line.first_leaf < size:
                yield line
    if leaf < size:
        last = folder / (files[-1] if files else f"{0:012d}")
        findings.fault(last, f"the lines end at leaf {leaf}, the tree at {size}", leaf=leaf)


def _lines(path: Path) -> Iterator[tuple[int, tuple[Line, int, int] | None]]:
    offset = 0
    with path.open("rb") as stream:
        while data := stream.read(_READ_BYTES):
            for at in range(0, len(data), LINE_BYTES):
                whole = len(data) - at >= LINE_BYTES
                yield offset + at, parse_line(data, at) if whole else None
            offset += len(data)


def records_of(log: Path, keys: KeyRing, line: Line) -> tuple[list[bytes], bytes]:
    """Return the records that a line names, of a write-ahead file, and the commit key over them.

    Raises:
        FrameDamaged: they are not there.
        KeysError: the keys of their quarter are missing.
        OSError: the file cannot be read.
    """
    records: list[bytes] = []
    with opened(_file_of(log, line)) as read:
        header = parse_file_header(read(0, PAGE))
        named = keys.named(header.key_id, header.commitment)
        if header.key_id != line.key_id:
            raise FrameDamaged(0, "is under another key than the order says")
        cipher = FrameCipher(named.frames, header.salt)
        for frame in frames(read, header, cipher, line.place):
            records += frame.records
            if frame.number == line.last_frame:
                if frame.crc != line.crc:
                    raise FrameDamaged(frame.offset, "is not the frame that was ordered")
                break
    return records, named.commit


def _file_of(log: Path, line: Line) -> Path:
    """Return the file that a line names; the folder of its slot may have another name now."""
    own = file_of(log / line.slot, line.file)
    return locate(slot_folders(log), line) or own


class Tail:
    """The records that are ordered and signed, and lie in write-ahead files only.

    Attributes:
        sealed: Leaf of the entry of kind SEALED, by the SHA-256 that it holds.
    """

    def __init__(self, log: Path, keys: Path, tree: Tree, findings: Findings) -> None:
        self.sealed: dict[str, int] = {}
        self._log = log
        self._keys = KeyRing(keys)
        self._tree = tree
        self._findings = findings

    def check(self, line: Line, from_leaf: int) -> None:
        """Compare the records of a line, from a leaf on, with their leaves."""
        path = file_of(self._log / line.slot, line.file)
        try:
            records, key = records_of(self._log, self._keys, line)
        except FrameDamaged as error:
            self._findings.fault(path, error.what, offset=error.offset, leaf=line.first_leaf)
            return
        except OSError as error:
            self._findings.fault(path, f"cannot be read: {error.strerror}", leaf=line.first_leaf)
            return
        except PrivacyLogError as error:
            self._findings.fault(path, str(error), leaf=line.first_leaf)
            return
        if len(records) != line.records:
            what = "does not hold the records that the order names"
            self._findings.fault(path, what, offset=line.begin, leaf=line.first_leaf)
            return
        skipped = max(from_leaf - line.first_leaf, 0)
        records, first = records[skipped:], line.first_leaf + skipped
        count = min(len(records), self._tree.size - first)
        records = records[: max(count, 0)]
        held = self._tree.read_leaves(first, first + len(records))
        if held is None:
            return
        made = leaf_hashes(Salts(key).run(first, len(records)), records)
        for at, leaf in enumerate(made):
            if leaf != held[at * HASH_BYTES : (at + 1) * HASH_BYTES]:
                what = "a record is not the one of its leaf"
                self._findings.fault(path, what, leaf=first + at, offset=line.begin)
            self._note_sealed(records[at], first + at)
        self._findings.leaves += len(records)

    def _note_sealed(self, record: bytes, leaf: int) -> None:
        try:
            if parse_head(record).kind == Kind.SEALED and (digest := parse(record).digest):
                self.sealed[digest.hex()] = leaf
        except EntryMalformed:
            return  # its leaf is right; whether it is an entry is judged where it lies
