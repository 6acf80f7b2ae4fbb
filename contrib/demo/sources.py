"""The sources of the demonstration: each is an SDK provider with the certificate of its own.

Six of them answer. One takes what is delivered and never answers; one does not run at all.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

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
from ksz_router.sdk.directory import NUMBER, notice_of

SERVICES = {
    RVA: (("UnemploymentData", 3), ("MutationsSender", 1), ("LivingWageGranted", 1), (NUMBER, 1)),
    NIC: (("HealthCareInsurance", 1), ("MutationsSender", 1), (NUMBER, 1)),
    HANDICAP: (("Handi", 1),),
    RSZ: (("DmfaConsultationService", 1),),
    REGISTER: (("RetrieveTIGroups", 2),),
    POD_MI: (("A036", 1),),
    DISEASES: (("OccupationalDisease", 1),),
}
HANGS, DOWN = DISEASES, PENSIONS

_LOOK_SECONDS = 0.05


class Sources:
    """All sources, and what was delivered to them.

    Attributes:
        delivered: INSZ asked for, by exchange id and KBO number of the source.
        times: How often each of these came.
        notices: Who was told what became of which number.
    """

    def __init__(self) -> None:
        self.delivered: dict[tuple[bytes, str], str | None] = {}
        self.times = Counter[tuple[bytes, str]]()
        self.notices = Counter[tuple[str, str]]()
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

    async def all_told(self, number: str, institutions: Iterable[str]) -> None:
        """Wait until each of them was told what became of a number."""
        while not all(self.notices[kbo, number] for kbo in institutions):  # noqa: ASYNC110 - a count
            await trio.sleep(_LOOK_SECONDS)

    def end(self) -> None:
        """Answer what is in flight, release what hangs, and stop."""
        self._over.set()

    def _handler(self, kbo: str) -> Callable[[Delivery], Awaitable[Supply]]:
        async def answer(delivery: Delivery) -> Supply:
            if delivery.service == NUMBER:
                self.notices[kbo, notice_of(delivery).number] += 1
                return Supply(Outcome.NO_DATA)
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
