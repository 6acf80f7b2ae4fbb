"""What systemd hands over and wants to hear: sockets, readiness, the watchdog (sd_notify(3))."""

import contextlib
import os
import socket

_FIRST_FD = 3
_EXTEND_USEC = 30_000_000


def inherited_listener() -> socket.socket | None:
    """Return the listening socket that systemd opened for this process, if there is one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if int(os.environ.get("LISTEN_FDS", "0")) < 1:
        return None
    return socket.socket(fileno=_FIRST_FD)


def notify(state: str) -> None:
    """Tell systemd, such as ``READY=1``; nothing happens where it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    # A manager that does not listen, or not now, must not hold the router up.
    with socket.socket(socket.AF_UNIX, kind) as sock, contextlib.suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(state.encode())


def notify_starting(status: str) -> None:
    """Say in words what the start waits for, and that it may take as long as that takes."""
    notify(f"EXTEND_TIMEOUT_USEC={_EXTEND_USEC}\nSTATUS={status}")


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to hear that all is well, or None."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() and int(text) else None
