"""What goes wrong at the connections of a worker, told to operations: logged, counted, summed."""

import structlog

from ksz_router.codes import Code
from ksz_router.daemon.admission import Admission
from ksz_router.daemon.loop import Peer
from ksz_router.daemon.metrics import Metrics
from ksz_router.daemon.session import Session
from ksz_router.daemon.source import Source
from ksz_router.daemon.tally import Tally
from ksz_router.link import HandshakeError
from ksz_router.model import Endpoint
from ksz_router.tls import CERTIFICATE_FAULTS, Refused
from ksz_router.wire import Ended


class Incidents:
    """Of one worker. What a peer can cause at will is logged once a second, with its count."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, metrics: Metrics, admission: Admission
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._admission = admission
        self._tally = Tally(log)

    def write(self) -> None:
        """Log what was counted."""
        self._tally.write()

    def ended(self, peer: Peer, ended: Ended) -> None:
        """A connection is over."""
        if isinstance(peer, Session):
            if ended.code is not Code.CLOSED_IN_PEACE:
                self.turned_away(peer.uri, ended.code)
            return
        self._log.info("source_ended", source=peer.source.kbo, code=ended.code.name)
        if ended.by_peer and not peer.is_open and ended.code in CERTIFICATE_FAULTS:
            self._metrics.source_handshakes_refused[Refused.BY_PEER] += 1

    def turned_away(self, uri: str, code: Code) -> None:
        """An institution's connection broke, or was one too many."""
        self._admission.count(uri, code)
        self._metrics.turned_away(code)
        self._tally.add("connection_ended", uri=uri, code=code.name)

    def refused(self, code: Code, reason: str, address: str) -> None:
        """Somebody did not get in."""
        self._tally.add("handshake_refused", code=code.name, reason=reason, address=address)

    def source_refused(self, endpoint: Endpoint, error: HandshakeError) -> None:
        """A source did not get through the handshake."""
        self._metrics.source_handshakes_refused[error.result] += 1
        self._log.info(
            "source_refused", uri=endpoint.uri, code=error.code.name, reason=error.reason
        )

    def breaker_turned(self, source: Source) -> None:
        """A source is left alone, or well again."""
        if source.breaker.open_until_ns:
            self._log.warning("source_left_alone", source=source.kbo)
        else:
            self._log.info("source_well_again", source=source.kbo)
