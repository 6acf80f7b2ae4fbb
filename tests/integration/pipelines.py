"""A requester that keeps a connection full and counts every answer by the number of its request.

The SDK hides what must be seen here: an answer that comes twice, a connection that ends with
something open, a refused dial. So this speaks the protocol with the engine alone.
"""

from collections import Counter

import msgspec
import trio

from contrib.stand import ROUTER_URI
from ksz_router import tls
from ksz_router.codes import Code
from ksz_router.dial import dial
from ksz_router.link import HandshakeError, Link
from ksz_router.sdk import Answer, Request
from ksz_router.wire import Connection, Drain, Ended, Side, Welcome
from tests.integration.stands import CENTRE, Town, request, until

RETRYABLE = frozenset({Code.ROUTER_DRAINING})
"""Not judged, and to be asked again."""


class Pipeline:
    """One institution's back-end: one connection at a time, and always ``width`` in flight.

    When the router drains, or hangs up, it dials again and asks anew what was refused.

    Attributes:
        asked: How many requests were sent for the first time.
        answers: What came, in order, refusals to be retried left out.
        last_number: Of the request sent last; they count up from 1.
        agents: What the router called itself, connection by connection.
        doubled: Answers to what was answered before, or never asked.
        unanswered: Requests that were in flight when the connection ended.
        refused_dials: Connections that the kernel refused.
        retried: Requests that were refused because the router drained, and asked again.
    """

    def __init__(self, stand: Town, kbo: str = CENTRE, *, width: int = 32) -> None:
        identity = stand.identity(kbo)
        self._context = tls.client_context(
            certificate=identity.certificate, key=identity.key, authorities=identity.authorities
        )
        self._stand = stand
        self._width = width
        self.last_number = 0
        self._open: dict[int, Request] = {}
        self._again: list[Request] = []
        self._is_stopping = False
        self.asked = 0
        self.answers: list[Answer] = []
        self.agents: list[str] = []
        self.doubled = self.unanswered = self.refused_dials = self.retried = self.dials = 0

    async def run(self) -> None:
        """Ask until told to stop, and return once everything is answered."""
        while not self._is_stopping or self._open or self._again:
            connection = Connection(Side.REQUESTER, agent="a test")
            self.dials += 1
            try:
                with trio.fail_after(20):
                    link = await dial(
                        "127.0.0.1", self._stand.port, self._context, connection, ROUTER_URI
                    )
            except ConnectionRefusedError:
                self.refused_dials += 1
                await trio.sleep(0.01)
                continue
            except HandshakeError:  # closed before anything was asked
                await trio.sleep(0.01)
                continue
            try:
                await self._talk(link)
            finally:
                link.close()

    def stop(self) -> None:
        """Ask nothing new."""
        self._is_stopping = True

    async def grown(self, by: int = 100, *, seconds: float = 20.0) -> None:
        """Wait until so many further answers came."""
        goal = len(self.answers) + by
        await until(lambda: len(self.answers) >= goal, seconds=seconds)

    @property
    def faults(self) -> dict[str, int]:
        """What must not happen: empty where each request was answered, once."""
        missing = self.asked - len(self.answers) - len(self._open) - len(self._again)
        found = {
            "doubled": self.doubled,
            "unanswered": self.unanswered,
            "missing": missing,
            "refused_dials": self.refused_dials,
        }
        return {name: count for name, count in found.items() if count}

    @property
    def codes(self) -> Counter[int]:
        """How often each code came."""
        return Counter(answer.code for answer in self.answers)

    async def _talk(self, link: Link) -> None:
        takes_more = is_told = False
        while not link.connection.is_ended:
            if takes_more:
                self._fill(link)
            elif is_told and not self._open:  # the router drains, or we are through
                link.connection.end()
            link.flush()
            if link.connection.is_ended:
                return
            await link.wait_readable()
            for event in link.receive():
                if isinstance(event, Answer):
                    self._take(event)
                elif isinstance(event, Welcome):
                    self.agents.append(link.connection.peer_agent)
                    takes_more = True
                elif isinstance(event, Drain):
                    takes_more, is_told = False, True
                elif isinstance(event, Ended):
                    self.unanswered += len(self._open)
                    self._open.clear()
            if takes_more and self._is_stopping and not self._again:
                takes_more, is_told = False, True

    def _fill(self, link: Link) -> None:
        while len(self._open) < self._width and (self._again or not self._is_stopping):
            self.last_number = number = self.last_number + 1
            if self._again:
                wish = self._again.pop()
            else:
                wish = request()
                self.asked += 1
            self._open[number] = wish
            link.send(msgspec.structs.replace(wish, id=number))

    def _take(self, answer: Answer) -> None:
        wish = self._open.pop(answer.id, None)
        if wish is None:
            self.doubled += 1
        elif answer.code in RETRYABLE:
            self.retried += 1
            self._again.append(wish)
        else:
            self.answers.append(answer)
