"""The sources of the demonstration: each is an SDK provider with the certificate of its own.

Six of them answer. One takes what is delivered and never answers; one does not run at all.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from contrib.demo.cast import (
    DISEASES,
    HANDICAP,
    NAMES,
    NIC,
    PENSIONS,
    POD_MI,
    REGISTER,
    RSZ,
    RVA,
)
from contrib.stand import ROUTER_URI
from ksz_router.sdk import Delivery, Identity, Outcome, Provider, Supply

SERVICES = {
    RVA: (("UnemploymentData", 3), ("MutationsSender", 1)),
    NIC: (("HealthCareInsurance", 1), ("MutationsSender", 1)),
    HANDICAP: (("Handi", 1),),
    RSZ: (("DmfaConsultationService", 1),),
    REGISTER: (("RetrieveTIGroups", 2),),
    POD_MI: (("A036", 1),),
    DISEASES: (("OccupationalDisease", 1),),
}
HANGS, DOWN = DISEASES, PENSIONS


class Sources:
    """All sources, and what was delivered to them.

    Attributes:
        delivered: INSZ asked for, by exchange id and KBO number of the source.
        times: How often each of these came.
    """

    def __init__(self) -> None:
        self.delivered: dict[tuple[bytes, str], str | None] = {}
        self.times = Counter[tuple[bytes, str]]()
        self._over = trio.Event()

    async def serve(
        self,
        identity: Callable[[str], Identity],
        ports: dict[str, int],
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Serve until :meth:`end`; the port of the source that is down stays closed."""
        async with trio.open_nursery() as nursery:
            providers = []
            for kbo, services in SERVICES.items():
                handler = self._handler(kbo)
                provider = Provider(
                    identity(kbo),
                    router_uris={ROUTER_URI},
                    services=dict.fromkeys(services, handler),
                )
                providers.append(provider)
                await nursery.start(_serve, provider, ports[kbo])
            task_status.started()
            try:
                await self._over.wait()
            finally:
                self.end()  # also when cancelled: what hangs is let go
            for provider in providers:
                provider.drain()

    def end(self) -> None:
        """Answer what is in flight, release what hangs, and stop."""
        self._over.set()

    def _handler(self, kbo: str) -> Callable[[Delivery], Awaitable[Supply]]:
        async def answer(delivery: Delivery) -> Supply:
            self.delivered[delivery.exchange, kbo] = delivery.person
            self.times[delivery.exchange, kbo] += 1
            if kbo == HANGS:
                # Shielded: the SDK would otherwise say FAILED when the deadline has passed.
                with trio.CancelScope(shield=True):
                    await self._over.wait()
            return Supply(Outcome.DATA, payload=payload(kbo, delivery.service))

        return answer


def payload(kbo: str, service: str) -> bytes:
    """Return what this source answers."""
    return f"{service} of {NAMES[kbo]}".encode()


async def _serve(provider: Provider, port: int, task_status: trio.TaskStatus[int]) -> None:
    await provider.serve(host="127.0.0.1", port=port, task_status=task_status)
