"""What the programs beside the workers do alike: begin, wait for an earlier run, end."""

import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ksz_router import __version__
from ksz_router.config import Config
from ksz_router.daemon import oplog
from ksz_router.daemon.control import Channel, Stop, stop_seconds

FAILED = 3
"""Exit code: what the program needs cannot be used; the event before says why."""

_LOOK_AGAIN_SECONDS = 0.1

Opened = TypeVar("Opened")


def begin(name: str, run: Callable[[socket.socket], Awaitable[int]]) -> int:
    """Run a program to its end, and return its exit code.

    The command line holds the version of the supervisor and the descriptor of the channel to it.
    """
    version, control_fd = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the supervisor's to act on
    if version != __version__:  # the program was exchanged under a running router
        reason = f"this is version {__version__}, the supervisor {version}: restart the router"
        oplog.set_up(name).critical("cannot_start", reason=reason)
        return FAILED
    return trio.run(run, socket.socket(fileno=int(control_fd)))


async def opened_once_free(
    opened: Callable[[], Opened],
    taken: type[Exception],
    settings: Config,
    channel: Channel,
    waiting: Callable[[str], object],
) -> Opened | None:
    """Open something, in a thread, once an earlier run is gone; None when told to stop meanwhile.

    Args:
        opened: Does it.
        taken: Raised by it while somebody else has it; after a stop may be over, it is raised on.
        settings: Say how long a stop may take.
        channel: Orders that come meanwhile are looked at for a stop.
        waiting: Told why, once.
    """
    ends_at = trio.current_time() + stop_seconds(settings)
    is_told = False
    while True:
        try:
            return await trio.to_thread.run_sync(opened)
        except taken as error:
            if trio.current_time() > ends_at:
                raise
            if not is_told:
                waiting(str(error))
                is_told = True
        with trio.move_on_after(_LOOK_AGAIN_SECONDS):
            order = await channel.order()
            if order is None or isinstance(order, Stop):
                return None


def reason_of(failures: BaseExceptionGroup) -> str:
    """Return the first of what went wrong."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return str(failure)
