"""Where the files are that the order names: a slot's folder may have been renamed since.

An operator renames the folder of a damaged slot so that its worker can begin it anew. What was
ordered under the old name goes on under the new one, and nothing of it is ordered twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.frame import Frame, FrameCipher, Place, Read, frames, walk
from ksz_router.privacylog.header import PAGE, FileHeader, FrameDamaged, parse_file_header
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.slots import file_of, opened, slot_folders
from ksz_router.privacylog.tree.order import Line


class LogOlder(PrivacyLogError):
    """The write-ahead files lack frames that were ordered. The message says what to do."""


class Standing(NamedTuple):
    """How far the files of a folder are ordered."""

    file: int
    place: Place


@contextmanager
def opened_line(file: Path) -> Iterator[tuple[Read, FileHeader]]:
    """Give the reader of a write-ahead file and its header.

    Raises:
        FrameDamaged: the header is damaged.
        OSError: the file cannot be read.
    """
    with opened(file) as read:
        yield read, parse_file_header(read(0, PAGE))


def holds(folder: Path, line: Line) -> bool:
    """Say whether a slot's folder has the frames that a line names, by their checksums."""
    try:
        with opened_line(file_of(folder, line.file)) as (read, header):
            if (header.number, header.key_id) != (line.file, line.key_id):
                return False
            return walk(read, line.place, line.last_frame) == line.end_place
    except (FrameDamaged, FileNotFoundError):
        return False
    except PermissionError:
        if folder.name == line.slot:
            raise
        return False


def locate(folders: Iterable[Path], line: Line) -> Path | None:
    """Return the file with the frames that a line names, the folder of its own name first."""
    for folder in sorted(folders, key=lambda folder: folder.name != line.slot):
        if holds(folder, line):
            return file_of(folder, line.file)
    return None


def read_line(log: Path, keys: KeyRing, line: Line) -> tuple[FileHeader, list[Frame]]:
    """Return the frames that a line names, and the header of their file.

    Raises:
        LogOlder: they are not there.
        KeysError: the keys of their quarter are missing.
        OSError: the log cannot be read.
    """
    file = locate(slot_folders(log), line)
    if file is None:
        raise _older(log, line)
    found = []
    with opened_line(file) as (read, header):
        cipher = FrameCipher(keys.named(header.key_id, header.commitment).frames, header.salt)
        for frame in frames(read, header, cipher, line.place):
            found.append(frame)
            if frame.number == line.last_frame:
                break
    return header, found


def standing_of(
    folder: Path,
    folders: Iterable[Path],
    last: Mapping[str, Line],
    sealed: Mapping[str, Cursor],
) -> tuple[Standing | None, str]:
    """Say how far the files of a folder are ordered, and under the name of which slot.

    Args:
        folder: Of the slot.
        folders: All folders of the log.
        last: The last line of each slot.
        sealed: How far each slot is sealed; files up to there may be gone.

    Returns:
        None where they are not ordered at all.

    Raises:
        LogOlder: frames that were ordered under its name are gone.
    """
    own = last.get(folder.name)
    if own is not None and holds(folder, own):
        return Standing(own.file, own.end_place), own.slot
    moved = [line for line in last.values() if line is not own and holds(folder, line)]
    if moved:
        line = max(moved, key=lambda line: (line.file, line.last_frame))
        return Standing(line.file, line.end_place), line.slot
    if own is None or locate(folders, own) is not None:
        return None, folder.name
    if not file_of(folder, own.file).exists() and _is_sealed(own, sealed):
        return Standing(own.file, own.end_place), own.slot
    raise _older(folder, own)


def check_present(
    folders: Iterable[Path], last: Mapping[str, Line], sealed: Mapping[str, Cursor]
) -> None:
    """Check that the folder of each slot that was ordered is there, under whatever name.

    Raises:
        LogOlder: one is not.
    """
    folders = list(folders)
    names = {folder.name for folder in folders}
    for line in last.values():
        gone = line.slot not in names and locate(folders, line) is None
        if gone and not _is_sealed(line, sealed):
            raise _older(Path(line.slot), line)


def _is_sealed(line: Line, sealed: Mapping[str, Cursor]) -> bool:
    cursor = sealed.get(line.slot)
    return cursor is not None and (cursor.file, cursor.frame) >= (line.file, line.last_frame)


def _older(folder: Path, line: Line) -> LogOlder:
    return LogOlder(
        f"{folder}: slot {line.slot}, file {line.file}, frame {line.last_frame} was ordered and is "
        "not there, or is another: put back the newest copy of the privacy log"
    )
