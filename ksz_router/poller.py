"""Which of many links are ready, as one batch: an epoll of its own, driven by one Trio task."""

import select

import trio

from ksz_router.limits import links_per_turn_max
from ksz_router.link import Link

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT


class Poller:
    """Which of many links are ready, as one batch. Owned by one task."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._links: dict[int, Link] = {}
        self._interest: dict[int, int] = {}

    def add(self, link: Link) -> None:
        """Watch a link for bytes to read."""
        self._links[link.fd] = link
        self._interest[link.fd] = _READ
        self._epoll.register(link.fd, _READ)

    def remove(self, link: Link) -> None:
        """Stop watching; before the link is closed."""
        if self._links.pop(link.fd, None) is not None:
            del self._interest[link.fd]
            self._epoll.unregister(link.fd)

    def watch(self, link: Link, *, read: bool, write: bool) -> None:
        """Say whether the link shall be read, and whether it shall be written.

        A link that holds more of what came than it gave is ready as soon as it can be answered.
        """
        interest = _READ if read else 0
        if write or (read and link.connection.has_more):
            interest |= _WRITE
        if self._interest.get(link.fd, interest) != interest:
            self._interest[link.fd] = interest
            self._epoll.modify(link.fd, interest)

    async def wait(self) -> None:
        """Wait until something is ready."""
        await trio.lowlevel.wait_readable(self._epoll.fileno())

    def ready(self) -> tuple[list[Link], list[Link]]:
        """Return the links to read and those to flush, at most ``links_per_turn_max`` of both."""
        readable, writable = [], []
        for fd, what in self._epoll.poll(0, links_per_turn_max):
            link = self._links[fd]
            if what == _READ:  # as nearly always
                readable.append(link)
                continue
            if what & ~_WRITE or (self._interest[fd] & _READ and link.connection.has_more):
                readable.append(link)
            if what & _WRITE:
                writable.append(link)
        return readable, writable

    def close(self) -> None:
        """Forget everything; links stay open and are their owners'."""
        self._epoll.close()
