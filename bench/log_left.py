"""What is left of the changes to a disk when the power goes off, or when all programs die.

:func:`left_by_a_cut` draws one of the states that a disk may be found in:

- of what was written to a file and not flushed, any subset of its sectors of 512 bytes is there; a
  sector holds what it held after any one of these writes, or, where that is asked for and nothing
  in it was ever flushed, garbage: a disk writes a sector whole or not at all;
- a file that grew or shrank and was not flushed has any of the sizes it had since;
- of the names made, moved and removed in a folder that was not flushed, the first few are there;
- what was flushed is there.
"""

import os
from pathlib import Path
from random import Random

from bench.log_disk import NAMES, Change, Watch, apply, rename, replayed

SECTOR = 512


def left_by_a_cut(
    watch: Watch, behind: int, folder: Path, chance: Random, *, garbage: bool = False
) -> None:
    """Make in ``folder`` what may be there when the power goes off behind that many changes."""
    durable = {inode: bytearray(data) for inode, data in watch.files.items()}
    names, waiting = dict(watch.names), dict[str, list[Change]]()
    pending: dict[int, list[Change]] = {}
    for change in watch.changes[:behind]:
        if change.call in NAMES:
            waiting.setdefault(_parent(change.path), []).append(change)
        elif change.call == "sync":
            for done in waiting.pop(change.path, ()):
                rename(names, done)
        elif change.call == "flush":
            data = durable.setdefault(change.inode, bytearray())
            for done in pending.pop(change.inode, ()):
                apply(data, done)
        else:
            pending.setdefault(change.inode, []).append(change)
    for changes in waiting.values():
        for change in changes[: chance.randint(0, len(changes))]:
            rename(names, change)
    files: dict[int, bytes] = {inode: bytes(data) for inode, data in durable.items()}
    for inode, changes in pending.items():
        files[inode] = _torn(files.get(inode, b""), changes, chance, garbage)
    _make(folder, names, files)


def left_by_a_kill(watch: Watch, behind: int, folder: Path) -> None:
    """Make in ``folder`` what is there when all programs die behind so many changes."""
    files, names = replayed(watch, behind)
    _make(folder, names, {inode: bytes(data) for inode, data in files.items()})


def _torn(data: bytes, changes: list[Change], chance: Random, garbage: bool) -> bytes:  # noqa: FBT001
    """Draw what is there of a file: sector by sector, after some number of the changes to it."""
    versions = [bytearray(data)]
    for change in changes:
        versions.append(bytearray(versions[-1]))
        apply(versions[-1], change)
    size = len(chance.choice(versions))
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    result = bytearray()
    for at in range(0, size, SECTOR):
        sectors = [bytes(version[at : at + SECTOR]).ljust(SECTOR, b"\0") for version in versions]
        distinct = list(dict.fromkeys(sectors))
        sector = sectors[0]
        if len(distinct) > 1 and chance.random() < share:
            sector = distinct[-1] if chance.random() < 0.7 else chance.choice(distinct)
            if garbage and not any(sectors[0]) and chance.random() < 0.3:
                sector = chance.randbytes(SECTOR)
        result += sector
    return bytes(result[:size])


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _make(folder: Path, names: dict[str, int], files: dict[int, bytes]) -> None:
    made: dict[int, Path] = {}
    folder.mkdir()
    for name, inode in sorted(names.items()):
        path = folder / name
        if not path.parent.is_dir():
            continue  # its folder is not there
        if inode == 0:
            path.mkdir(exist_ok=True)
        elif inode in made:
            os.link(made[inode], path)
        else:
            path.write_bytes(files.get(inode, b""))
            path.chmod(0o600)
            made[inode] = path
