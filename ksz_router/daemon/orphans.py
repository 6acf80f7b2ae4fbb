"""Slots of the log whose worker exists no more: after a start with fewer workers."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from ksz_router.config import Config
from ksz_router.daemon import systemd
from ksz_router.daemon.control import stop_seconds
from ksz_router.daemon.journal import open_writer
from ksz_router.daemon.ledger_from_log import WORKER_SLOT, open_ledger
from ksz_router.privacylog.keys import KeyRing
from ksz_router.privacylog.recovery import open_exchanges
from ksz_router.privacylog.slots import slot_folders
from ksz_router.privacylog.taking import LogNotWritable, SlotTaken

_AGAIN_SECONDS = 1.0
_TELL_SECONDS = 5.0

T = TypeVar("T")


async def when_possible(
    settings: Config, log: structlog.typing.FilteringBoundLogger, work: Callable[[], T]
) -> T:
    """Do what writes the log before anybody is served, in a thread; return what it returns.

    As long as an earlier run drains, or there is no room, it is tried again.

    Raises:
        SlotTaken: an earlier run lives longer than a stop may take.
        Exception: anything else that the work raises, but for want of room.
    """
    told = ""
    ends_at = trio.current_time() + stop_seconds(settings)
    while True:
        try:
            return await _told_meanwhile(work)
        except SlotTaken:  # an earlier run that drains
            if trio.current_time() > ends_at:
                raise
            await trio.sleep(0.1)
        except LogNotWritable as error:
            if str(error) != told:
                told = str(error)
                log.critical("log_not_writable", reason=told)
            systemd.notify_starting(f"not ready: {told}")
            await trio.sleep(_AGAIN_SECONDS)


async def _told_meanwhile(work: Callable[[], T]) -> T:
    """Do it in a thread, and tell systemd that the start goes on: a day of log takes a while."""

    async def tell() -> None:
        while True:
            await trio.sleep(_TELL_SECONDS)
            systemd.notify_starting("not ready: reading the privacy log")

    found: list[T] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        try:
            found.append(await trio.to_thread.run_sync(work))
        except Exception as error:  # noqa: BLE001 - it comes out below as itself, and in no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return found[0]


def settle_orphans(config: Config, now_ns: int | None = None) -> list[str]:
    """Give an outcome to what a worker left open whose place exists no more; return the slots.

    A worker settles its own slot when it starts. After a start with fewer workers nobody would
    settle the others.

    Raises:
        PrivacyLogError: a slot cannot be read or written; the message says what to do.
        OSError: the log cannot be listed.
    """
    log, keys = Path(config.privacy_log.path), Path(config.privacy_log.keys)
    settled = []
    with closing(open_ledger(config)) as ledger:
        for folder in slot_folders(log) if log.is_dir() else ():
            found = WORKER_SLOT.fullmatch(folder.name)
            if found is None or int(found[1]) < config.node.workers:
                continue
            index = int(found[1])
            if ledger.has_open(index) or open_exchanges(folder, KeyRing(keys)).open:
                open_writer(config, index, now_ns or time.time_ns(), ledger).close()
                settled.append(folder.name)
    return settled
