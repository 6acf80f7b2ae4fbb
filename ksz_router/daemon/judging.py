"""The one place where requests are decided on: those of the wire, and the lines of mailboxes."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ksz_router.daemon.opened import Exchange
from ksz_router.decision import Facts, Forward, decide
from ksz_router.identifiers import Kbo
from ksz_router.messages import Request
from ksz_router.model import Day

if TYPE_CHECKING:
    from ksz_router.daemon.on_behalf import OnBehalf
    from ksz_router.daemon.session import Session


class Judged(NamedTuple):
    """When, and by what."""

    today: Day
    """The Brussels day."""
    generation: str
    """The rulebook in force."""
    now_ns: int
    """Monotonic, for the deadline."""


def judge(
    batch: Sequence[tuple["Session | OnBehalf", Request]],
    looked_up: Sequence[Facts],
    ids: Iterable[bytes],
    judged: Judged,
) -> list[Exchange]:
    """Decide on requests, and open the exchange of each.

    Args:
        batch: Who asks, and what.
        looked_up: What the tables say of each.
        ids: Of the exchanges, one for each.
        judged: What is the same for all of them.
    """
    exchanges, now_ns = [], judged.now_ns
    for (session, request), facts, exchange_id in zip(batch, looked_up, ids, strict=True):
        verdict = decide(request, facts, judged.today)
        destinations: tuple[Kbo, ...] = ()
        allowed_ms = 0
        if isinstance(verdict, Forward):
            found, allowed_ms = verdict.destinations, verdict.service.deadline_ms
            if len(found) == 1:  # as nearly always
                destinations = (found[0].kbo,)
            elif found:
                destinations = tuple([one.kbo for one in verdict.put_to])
            if 0 < request.deadline_ms < allowed_ms:
                allowed_ms = request.deadline_ms
        exchanges.append(
            Exchange(
                exchange_id, session, request, now_ns, now_ns + allowed_ms * 1_000_000,
                facts, verdict, judged.generation, destinations,
            )
        )  # fmt: skip
    return exchanges
