"""A worker's hold on the submission ledger: what of a batch is sent, and what became of it.

The order is what makes it safe: claim, entry of the request, forward; note, entry of the outcome,
settle, answer. Whatever moment a process is killed at, the ledger and the log together say
whether the content may have left.
"""

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from ksz_router.codes import Code
from ksz_router.daemon.entries import EntryMaker, requester_of
from ksz_router.daemon.entry_parts import KEPT
from ksz_router.daemon.opened import Errand, Exchange, Submission
from ksz_router.decision import Forward
from ksz_router.identifiers import Kbo
from ksz_router.ledger import NO_DIGEST, Claim, Ledger, Noted
from ksz_router.messages import Reply, Request
from ksz_router.model import Kind
from ksz_router.privacylog.keys import Tokens


class Submissions:
    """The submissions of one worker.

    Args:
        ledger: Open in this process.
        slot: Index of the worker.
        entries: Has the tokens of the quarter, and the clock of entries.
        tokens_before: Gives the tokens of the quarter before, while its rows still count.
    """

    def __init__(
        self,
        ledger: Ledger,
        slot: int,
        entries: EntryMaker,
        tokens_before: Callable[[], Tokens | None],
    ) -> None:
        self._ledger = ledger
        self._slot = slot
        self._entries = entries
        self._tokens_before = tokens_before
        self._noted: list[Noted] = []
        self._whole: list[tuple[bytes, bytes]] = []
        self._in_log: list[tuple[bytes, bytes]] = []
        """Those whose outcome is in the group under way."""

    def claim(self, exchanges: Sequence[Exchange]) -> None:
        """Ask the ledger about those of a batch that reach a recipient once only."""
        kept = [
            (exchange, exchange.verdict)
            for exchange in exchanges
            if isinstance(exchange.verdict, Forward) and exchange.verdict.service.kind in KEPT
        ]
        if not kept:
            return
        claims = [self._claim(exchange, verdict) for exchange, verdict in kept]
        answers = self._ledger.claim(claims, self._entries.now_us())
        for (exchange, _), claim, held in zip(kept, claims, answers, strict=True):
            key, content = claim.names[0]
            exchange.hold(Submission(key, content, held))

    def _claim(self, exchange: Exchange, verdict: Forward) -> Claim:
        request, requester = exchange.request, Kbo(requester_of(exchange))
        content = content_of(request)
        before = self._tokens_before()
        return Claim(
            names=[
                (tokens.ticket(requester, request.ticket), tokens.content(content))
                for tokens in (self._entries.tokens, before)
                if tokens is not None
            ],
            exchange=exchange.id,
            slot=self._slot,
            candidates=tuple(destination.kbo for destination in verdict.destinations),
            is_to_all=verdict.service.kind is Kind.DISTRIBUTION,
            spared=verdict.in_outage,
            first=exchange.first,
        )

    def came(self, exchange: Exchange, errand: Errand, code: Code, reply: Reply | None) -> None:
        """Something came of a submission at one recipient; it is noted with this turn's group."""
        submission = exchange.submission
        assert submission is not None
        is_whole = not exchange.open_errands
        service = exchange.facts.service
        is_kept = reply is not None and service is not None and service.kind is Kind.SUBMISSION
        digest = hashlib.sha256(reply.payload).digest() if reply and is_kept else NO_DIGEST
        key = submission.key
        self._noted.append(Noted(key, exchange.id, {errand.kbo: code}, is_whole, digest))
        if is_whole:
            self._whole.append((key, exchange.id))

    def note(self) -> None:
        """Write down what came, before it is recorded."""
        if self._noted:
            self._ledger.note(self._noted)
            self._noted.clear()
        self._in_log, self._whole = self._whole, []

    def settle(self) -> None:
        """It is recorded: let retries see it."""
        if self._in_log:
            self._ledger.settle(self._in_log)
            self._in_log = []


_encode = msgspec.msgpack.Encoder().encode


def content_of(request: Request) -> bytes:
    """Everything that makes one submission another: all but who sends it, when, and how."""
    return _encode(
        (
            request.service, request.version, request.kbo, request.sector, request.type,
            request.capacity, request.legal_framework, request.member, request.final_client,
            request.person, request.enterprise, request.begin, request.end, request.source,
            request.payload,
        )
    )  # fmt: skip
