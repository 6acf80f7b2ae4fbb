"""What the router answers by itself, and when a retry may come to more."""

from collections.abc import Callable

from ksz_router.codes import Code
from ksz_router.daemon import answers
from ksz_router.daemon.on_behalf import OnBehalf
from ksz_router.daemon.opened import Exchange
from ksz_router.daemon.upstream import Upstream
from ksz_router.decision import Refusal
from ksz_router.ledger import NOT_SENT, UNKNOWN, Earlier
from ksz_router.messages import Answer
from ksz_router.model import Kind

_TEST = Kind.TEST  # once: an Enum has its members found in Python


class OwnAnswers:
    """The answers of one worker.

    Args:
        upstream: Knows when a source that failed is tried again.
        wall_ns: Unix time.
    """

    def __init__(self, upstream: Upstream, wall_ns: Callable[[], int]) -> None:
        self._upstream = upstream
        self._wall_ns = wall_ns

    def of(self, exchange: Exchange) -> Answer | None:
        """What the router answers without asking anybody; None where it is to be forwarded."""
        verdict = exchange.verdict
        if isinstance(verdict, Refusal):
            return answers.refusal(exchange, verdict)
        if verdict.service.kind is _TEST:
            session = exchange.session
            assert not isinstance(session, OnBehalf), "a change is no test"
            answer = answers.connection_test(exchange, session.link.describe())
            fits = session.takes(answer.payload)
            return answer if fits else answers.bare(exchange, Code.ANSWER_TOO_LARGE)
        if exchange.submission is None or exchange.granted is not None:
            return None
        held = exchange.submission.held
        if isinstance(held, Earlier):
            return answers.earlier(exchange, held, self.retry_at_ms)
        assert isinstance(held, Code), "what is granted was forwarded"
        return answers.bare(exchange, held, self.retry_at_ms)

    def retry_at_ms(self, exchange: Exchange) -> int:
        """The first moment at which a retry may come to more, by what is known of who lacks it."""
        now_ms = self._wall_ns() // 1_000_000
        moments = [
            now_ms + (self._upstream.retry_after_ms(errand.kbo) or answers.RETRY_AFTER_MS)
            for errand in exchange.errands
            if errand.code in NOT_SENT or errand.code in UNKNOWN
        ]
        moments += [
            max(outage.end_ms for outage in exchange.facts.outages if outage.kbo == kbo)
            for kbo in exchange.left_out
        ]
        return min(moments, default=self.soon_ms())

    def soon_ms(self) -> int:
        """When to come back where nothing better is known, Unix milliseconds."""
        return self._wall_ns() // 1_000_000 + answers.RETRY_AFTER_MS
