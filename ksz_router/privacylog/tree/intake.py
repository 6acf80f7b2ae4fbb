"""What is new in the write-ahead files of all slots, each read on from where it was.

A frame counts as durable only when its file was flushed after it was read. So whoever takes frames
from here calls :meth:`Intake.flush` before he relies on them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ksz_router.privacylog.archive.manifest import Cursor
from ksz_router.privacylog.durable import Disk
from ksz_router.privacylog.keys import KeyRing, KeysError
from ksz_router.privacylog.recovery import LogCorrupt
from ksz_router.privacylog.slots import file_numbers
from ksz_router.privacylog.tree.order import Line
from ksz_router.privacylog.tree.places import check_present, standing_of
from ksz_router.privacylog.tree.slot_tail import Batch, SlotTail


class Intake:
    """Reads all slots of a log.

    Args:
        log: Its folder.
        last: The last line of each slot, as the order has them.
        sealed: Tells how far each slot is sealed.
        pause: Called after each frame that is read.
        disk: For fault tests.

    Raises:
        LogOlder: frames that were ordered are gone.
        OSError: the log cannot be read.
    """

    def __init__(
        self,
        log: Path,
        keys: KeyRing,
        last: Mapping[str, Line],
        sealed: Callable[[], Mapping[str, Cursor]],
        *,
        pause: Callable[[], None],
        disk: Disk,
    ) -> None:
        self._log = log
        self._keys = keys
        self._last = dict(last)
        self._sealed = sealed
        self._pause = pause
        self._disk = disk
        self._tails: dict[str, SlotTail] = {}
        self._turn = 0
        self.stalled: dict[str, str] = {}
        """Slots that are not read, and why; the others go on."""
        check_present(self._folders(), last, sealed())
        self._adopt(self._folders())

    def read(self, records_max: int, bytes_max: int) -> tuple[list[Batch], bool]:
        """Return what is new, and whether a bound was reached.

        Slots take turns in being the first, so that none waits for ever.

        Raises:
            LogOlder: frames that were ordered are gone.
            OSError: a file cannot be flushed; nothing may be relied on.
        """
        self.stalled = {}
        self._adopt(self._folders())
        names = sorted(self._tails)
        self._turn += 1
        batches = []
        for at in range(len(names)):
            name = names[(at + self._turn) % len(names)]
            try:
                for batch in self._tails[name].read(records_max, bytes_max):
                    batches.append(batch)
                    records_max -= len(batch.records)
                    bytes_max -= batch.end.offset - batch.begin.offset
            except (LogCorrupt, KeysError, PermissionError) as error:
                self.stalled[name] = str(error)
        return batches, records_max <= 0 or bytes_max <= 0

    def flush(self) -> None:
        """Return when all that was read will survive a power cut; OSError if it may not."""
        for tail in self._tails.values():
            tail.flush()

    def ordered(self, line: Line) -> None:
        """Take note of a line that was ordered."""
        self._last[line.slot] = line

    def close(self) -> None:
        """Close all files."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()

    def _folders(self) -> list[Path]:
        """The folders of slots; one that cannot be looked into may be root's for a moment."""
        found = []
        for folder in self._log.iterdir() if self._log.is_dir() else ():
            try:
                if folder.is_dir() and file_numbers(folder):
                    found.append(folder)
            except (PermissionError, FileNotFoundError) as error:
                self.stalled[folder.name] = str(error)
        return sorted(found)

    def _adopt(self, folders: list[Path]) -> None:
        """Begin to read slots that are new, or have another name now, and leave those gone."""
        for name in self._tails.keys() - {folder.name for folder in folders}:
            self._tails.pop(name).close()
        found = True
        while found:
            found = False
            for folder in folders:
                if folder.name in self._tails:
                    continue
                try:
                    standing, slot = standing_of(folder, folders, self._last, self._sealed())
                except PermissionError as error:
                    self.stalled[folder.name] = str(error)
                    continue
                if slot != folder.name and slot in self._tails:  # its folder was renamed
                    self._tails.pop(slot).close()
                    found = True
                self._tails[folder.name] = SlotTail(
                    folder, standing, self._keys, self._pause, self._disk
                )
