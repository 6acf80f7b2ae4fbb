"""Take a slot: lock it against other processes, and see it as the disk has it.

What may go wrong here, or later in the writing, is a :class:`LogNotWritable`.
"""

import fcntl
import os
from pathlib import Path

from ksz_router.limits import clock_error_seconds_max
from ksz_router.privacylog import PrivacyLogError
from ksz_router.privacylog.durable import Disk, sync_folder
from ksz_router.privacylog.slots import file_numbers, file_of


class LogNotWritable(PrivacyLogError):
    """The log did not take an entry: nothing may be forwarded or released any more."""


class SlotTaken(LogNotWritable):
    """Another process writes this slot."""


class ClockBehindLog(LogNotWritable):
    """The log has entries of a time that the clock says is still to come."""


def take_slot(folder: Path, slot_folder: Path) -> int:
    """Lock a slot's folder itself: the lock ends with the process, and leaves no file.

    Raises:
        SlotTaken: another process has the slot.
        OSError: the folder cannot be made or opened.
    """
    for each in (folder, slot_folder):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)
            sync_folder(each.parent)
    lock = os.open(slot_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SlotTaken(f"{slot_folder}: another process writes this slot") from None
    return lock


def reread_newest(slot_folder: Path, disk: Disk) -> None:
    """See the newest file as the disk has it, before its end is read and named as good.

    Its last frame may be in memory only: not yet flushed when its process was killed, or never to
    reach the disk after a flush that failed. The first is made durable, the second forgotten.

    Raises:
        OSError: the disk refuses.
    """
    numbers = file_numbers(slot_folder)
    if not numbers:
        return
    descriptor = os.open(file_of(slot_folder, numbers[-1]), os.O_RDONLY | os.O_CLOEXEC)
    try:
        disk.reread(descriptor)
    finally:
        os.close(descriptor)


def not_before(latest_us: int, now_ns: int, slot_folder: Path) -> int:
    """Return the Unix nanoseconds to go on from: times in a slot never go back.

    Readers leave files out by the time of the next one, so that an entry out of its time would
    not be found.

    Raises:
        ClockBehindLog: the clock would have to come up for hours.
    """
    ahead_s = (latest_us - now_ns // 1000) / 1e6
    if ahead_s > clock_error_seconds_max:
        raise ClockBehindLog(
            f"{slot_folder}: the last entry is {ahead_s:.0f} s ahead of the clock: set it right"
        )
    return max(now_ns, (latest_us + 1) * 1000)
