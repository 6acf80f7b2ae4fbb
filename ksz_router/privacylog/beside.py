"""Flushes that need not be waited for, of a device that stands now and then (``io_submit(2)``).

A device that answers at once is waited for: nothing is quicker. One that stood a while ago will
stand again, so for a time its flushes are left to the kernel, whose own threads do them while their
caller does something else. It costs a wake-up more, which queues where processors are busy; a
thread of ours would cost two thirds of a commit besides.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Callable
from typing import NamedTuple, cast

from ksz_router.privacylog.durable import DISK, Disk


class _Numbers(NamedTuple):
    """Of the system calls; glibc has no functions for them."""

    setup: int
    destroy: int
    submit: int
    getevents: int


_GENERIC = _Numbers(0, 1, 2, 4)
_NUMBERS = {"x86_64": _Numbers(206, 207, 209, 208), "aarch64": _GENERIC, "riscv64": _GENERIC}

_FDSYNC = 3
"""``IOCB_CMD_FDSYNC``: what ``fdatasync(2)`` does."""

_STANDS_NS = 20_000_000
"""A flush that takes longer is one of a device that stands."""
_WARY_NS = 60_000_000_000
"""So long after that no flush is waited for: within a minute most devices that stood stand again,
and one that stands for half a second once a minute holds up less than a hundredth of the time."""


class _ControlBlock(ctypes.Structure):
    """``struct iocb`` of ``linux/aio_abi.h``, little endian."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_descriptor", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """``struct io_event``."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("block", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result_2", ctypes.c_int64),
    )


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class DiskBeside(Disk):
    """Begins flushes and tells when they are done, one at a time; for one thread.

    Args:
        clock_ns: Monotonic.

    Raises:
        OSError: the kernel has no such calls, forbids them, or has none to spare
            (``fs.aio-max-nr``).
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._begun_ns = self._wary_until_ns = 0
        self._is_beside = False
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        # Made once: the arguments of a call cost more than the call.
        self._submit, self._getevents = map(ctypes.c_long, (numbers.submit, numbers.getevents))
        self._destroy = ctypes.c_long(numbers.destroy)
        self._one = ctypes.c_long(1)
        self._block = _ControlBlock(opcode=_FDSYNC)
        self._blocks = ctypes.byref(ctypes.pointer(self._block))
        self._event, self._wait = _Event(), _TimeSpec()
        self._event_at, self._wait_at = ctypes.byref(self._event), ctypes.byref(self._wait)
        context = ctypes.c_ulong(0)
        if self._call(ctypes.c_long(numbers.setup), self._one, ctypes.byref(context)):
            raise _error()
        self._context: ctypes.c_ulong | None = context

    def begin_flush(self, descriptor: int) -> None:
        """Begin to flush, and wait for it where the device did not stand lately."""
        self._begun_ns = self._clock_ns()
        self._is_beside = self._begun_ns < self._wary_until_ns
        if not self._is_beside:
            self.flush(descriptor)
            self._note_end()
            return
        self._block.descriptor = descriptor
        if self._call(self._submit, self._context, self._one, self._blocks) != 1:
            raise _error()

    def is_flushed(self, wait_s: float) -> bool:
        """Say whether it is done; see :class:`Disk`."""
        if not self._is_beside:
            return True
        self._wait.nanoseconds = int(wait_s * 1e9)
        found = self._call(
            self._getevents, self._context, self._one, self._one, self._event_at, self._wait_at
        )
        if found != 1:
            if found < 0 and ctypes.get_errno() != errno.EINTR:
                raise _error()
            return False
        result = cast("int", self._event.result)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        self._note_end()
        return True

    def _note_end(self) -> None:
        now_ns = self._clock_ns()
        if now_ns - self._begun_ns > _STANDS_NS:
            self._wary_until_ns = now_ns + _WARY_NS

    def close(self) -> None:
        """Give the kernel its room back; waits for a flush that was begun."""
        context, self._context = self._context, None
        if context is not None:
            self._call(self._destroy, context)


def disk_beside(clock_ns: Callable[[], int]) -> Disk:
    """Return a disk that flushes beside its caller; where the kernel forbids it, one that blocks.

    The log is the same with either: while a device stands, a router with the latter does too.
    """
    try:
        return DiskBeside(clock_ns)
    except OSError:
        return DISK


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
