"""The TLS contexts of one worker, and what their renewal means for connections that are open."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ksz_router import config
from ksz_router.credentials import Credentials, Identity

if TYPE_CHECKING:  # the supervisor, which checks certificates, starts without a worker's parts
    from ksz_router.daemon.loop import Loop
    from ksz_router.daemon.metrics import Gauges


class Contexts(Credentials):
    """The certificates, authorities and lists that the configuration names.

    Raises:
        TlsFilesError: a file is missing or does not do.
    """

    def __init__(self, settings: config.Tls, now_unix_s: Callable[[], float] = time.time) -> None:
        identity = Identity(
            certificate=Path(settings.certificate),
            key=Path(settings.key),
            authorities=Path(settings.authorities),
            revocations=Path(settings.revocations) if settings.revocations else None,
            revocations_grace_hours=settings.revocations_grace_hours,
        )
        super().__init__(identity, now_unix_s)

    def gauges(self) -> "Gauges":
        """What Prometheus is told of them."""
        return {
            "certificate_not_after_timestamp_seconds": (
                "When the router's own certificate ends.",
                lambda: self.standing.not_after_unix_s,
            ),
            "crl_next_update_timestamp_seconds": (
                "When the first of the revocation lists is out of date; 0 where there is none.",
                lambda: self.standing.accepted.next_update_unix_s,
            ),
            "crl_grace_seconds": (
                "How long a revocation list that is out of date still serves.",
                lambda: self.standing.accepted.grace_s,
            ),
        }

    def end_refused(self, loop: "Loop") -> int:
        """End each connection whose certificates are no longer accepted; return how many.

        In one go, so that nothing that such a peer sent is taken after it. What is open on a
        requester's connection has its outcome recorded; errands at a source are settled as lost.
        """
        ended = 0
        for peer in list(loop.peers.values()):
            fault = self.fault(peer.link.chain)
            if fault is not None:
                loop.end(peer, fault.code)
                ended += 1
        loop.finish()
        return ended
