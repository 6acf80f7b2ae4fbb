"""From an exchange to its privacy-log entries.

Field by field what the agreement asks for (article 7, 5° b) and what a replay of the decision
needs. What a peer sent malformed is not copied: it could be anything, and of any length.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.daemon.beside import further, spared
from ksz_router.daemon.entry_parts import (
    ENDED,
    KEPT,
    NO_MEANS,
    NO_MORE,
    NO_PATH,
    NOT_ASKED,
    NOT_DECIDED,
    NOT_KEPT,
    OUTCOME,
    PASSED,
    RECIPIENT,
    REQUEST,
    OfRequester,
    digest_answered,
    digest_of,
    kept,
)
from ksz_router.daemon.opened import Errand, Exchange, Late
from ksz_router.daemon.well_formed import well_formed_part
from ksz_router.decision import Forward, Refusal
from ksz_router.messages import Reply
from ksz_router.model import OPEN
from ksz_router.privacylog.entry import Entry, canonical, canonical_parts, run
from ksz_router.privacylog.entry import Kind as EntryKind
from ksz_router.privacylog.keys import Tokens


class EntryMaker:
    """Makes entries; holds what all of them share.

    Args:
        tokens: Of the quarter in which this runs; replaced when the quarter ends.
        now_us: Unix microseconds, never going back within a worker.
    """

    def __init__(self, tokens: Tokens, now_us: Callable[[], int]) -> None:
        self.tokens = tokens
        self.now_us = now_us
        self.generation = ""
        self.rights_version = 0
        self.directory_version = 0

    def request(self, exchange: Exchange) -> bytes:
        """Return the entry of a request with its verdict."""
        return next(self.requests((exchange,)))

    def requests(self, exchanges: Sequence[Exchange]) -> Iterator[bytes]:
        """Make the entry of each request of a batch, with its verdict, once it is asked for.

        So entries of outcomes may come between them.
        """
        persons = [
            exchange.verdict.person
            for exchange in exchanges
            if isinstance(exchange.verdict, Forward)
        ]
        named = self._persons(persons)
        for exchange in exchanges:
            verdict = exchange.verdict
            if isinstance(verdict, Forward):
                yield self._passed(exchange, verdict, next(named))
            else:
                yield self._refused(exchange, verdict)

    def _persons(self, persons: Sequence[str | None]) -> Iterator[bytes | None]:
        tokens = iter(self.tokens.persons([person for person in persons if person is not None]))
        if None not in persons:
            return tokens
        return (None if person is None else next(tokens) for person in persons)

    def _passed(self, exchange: Exchange, passed: Forward, person: bytes | None) -> bytes:
        """Of a request that passed the control: all of it is well formed."""
        request, submission = exchange.request, exchange.submission
        asked, payload, end = request.person, request.payload, passed.end
        standing = exchange.facts.standing
        noted: OfRequester | None = standing.noted if standing is not None else None
        # A standing of another day is none for the control, which may have found another grant.
        if noted is None or noted.tokens is not self.tokens or noted.grant is not passed.grant:
            noted = self._note(exchange, passed)
        exchange.noted, exchange.person_token = noted, person
        ticket = noted.tickets.copy()
        ticket.update(request.ticket.encode())
        if submission is None and not noted.is_kept:
            ending = NOT_KEPT
        else:
            ending = kept(exchange, is_kept=noted.is_kept)
        return canonical_parts(
            (
                REQUEST, self.now_us(), exchange.id, PASSED,
                noted.who,
                request.final_client,
                noted.asking,
                ticket.digest(),
                person,
                None if asked == passed.person else self._asked(asked),
                request.enterprise,
                passed.begin,
                end if end != OPEN else None,
                exchange.destinations,
                exchange.generation,
                self.rights_version,
                self.directory_version,
                noted.granted,
                passed.line,
                () if passed.is_spotless else passed.violations,
                len(payload),
                ending,
            )
        )  # fmt: skip

    def _note(self, exchange: Exchange, passed: Forward) -> OfRequester:
        """Encode what entries say of the requester, for as long as its standing is kept."""
        noted = OfRequester.of(exchange.request, passed, requester_of(exchange), self.tokens)
        if exchange.facts.standing is not None:
            exchange.facts.standing.noted = noted
        return noted

    def _asked(self, asked: str | None) -> bytes | None:
        return self.tokens.person(asked) if asked is not None else None

    def _refused(self, exchange: Exchange, refusal: Refusal) -> bytes:
        """Of a request that did not pass: not every field of it was judged."""
        request, tokens = well_formed_part(exchange.request), self.tokens
        requester, service = requester_of(exchange), exchange.facts.service
        named = request.member or request.kbo
        person, known = request.person, exchange.facts.person
        if refusal.code.stage >= Stage.PERSON and known:
            person = known.current  # it was judged, and perhaps told: both numbers stand here
        asked = request.person if request.person != person else None
        return canonical(
            Entry(
                kind=EntryKind.REQUEST,
                at_us=self.now_us(),
                exchange=exchange.id,
                code=int(refusal.code), stage=int(refusal.code.stage),
                service=request.service, service_version=request.version,
                requester=requester,
                acting=named if named != requester else None,
                final_client=request.final_client,
                sector=request.sector, type=request.type, capacity=request.capacity,
                legal_framework=request.legal_framework,
                user=tokens.user(request.user) if request.user is not None else None,
                application=request.application,
                means=request.means, level=request.level,
                ticket=tokens.ticket(requester, request.ticket),
                person=tokens.person(person) if person is not None else None,
                asked=tokens.person(asked) if asked is not None else None,
                enterprise=request.enterprise,
                generation=exchange.generation,
                rights_version=self.rights_version,
                directory_version=self.directory_version,
                grant=refusal.grant,
                request_bytes=len(request.payload),
                digest=digest_of(request.payload) if service and service.kind in KEPT else None,
            )
        )  # fmt: skip

    def outcome(
        self,
        exchange: Exchange,
        code: Code,
        *,
        router_us: int,
        errand: Errand | None = None,
        reply: Reply | None = None,
    ) -> list[bytes]:
        """Return the entry of how an exchange ended, and one for each further person.

        Args:
            exchange: Which it is.
            code: How it ended.
            router_us: Time inside the router so far.
            errand: The one destination that settled it; none for a refusal or a distribution.
            reply: What that destination said, where it is given to the requester.
        """
        entry = self._end(OUTCOME, exchange, code, errand, reply, router_us=router_us)
        left_out = exchange.left_out if errand is None else ()
        if not left_out and (reply is None or not reply.persons):
            return [entry]  # as most are
        return [*spared(entry, left_out), entry, *self._further(entry, reply)]

    def recipient(
        self, exchange: Exchange, code: Code, errand: Errand, reply: Reply | None
    ) -> list[bytes]:
        """Return the entry of how one recipient of a distribution did, and the further persons."""
        entry = self._end(RECIPIENT, exchange, code, errand, reply)
        return [entry, *self._further(entry, reply)]

    def _further(self, entry: bytes, reply: Reply | None) -> list[bytes]:
        persons = reply.persons if reply is not None else ()
        return further(entry, [self.tokens.person(person) for person in persons])

    def _end(
        self,
        kind: msgspec.Raw,
        exchange: Exchange,
        code: Code,
        errand: Errand | None,
        reply: Reply | None,
        *,
        router_us: int = 0,
    ) -> bytes:
        noted, submission = exchange.noted, exchange.submission
        token, user, application = exchange.person_token, None, None
        answer_bytes = source_ns = 0
        if noted is not None:
            who = noted.who
            if noted.tokens is not self.tokens:  # another quarter began
                token = self._person_anew(exchange)
        else:
            who = _who_refused(exchange)
        if reply is not None:
            user, application = reply.user, reply.application
            answer_bytes = len(reply.payload)
        if errand is not None and errand.answered_ns:
            source_ns = errand.answered_ns - errand.sent_ns
        return canonical_parts(
            (
                kind, self.now_us(), exchange.id, ENDED[code],
                who,
                NO_PATH,
                self.tokens.user(user) if user is not None else None,
                application,
                NO_MEANS,
                token,
                NOT_ASKED,
                (errand.kbo,) if errand is not None else exchange.destinations,
                exchange.generation,
                NOT_DECIDED,
                answer_bytes,
                digest_answered(submission, reply) if submission is not None else None,
                max(0, router_us),
                source_ns // 1000,
                NO_MORE,
            )
        )  # fmt: skip

    def _person_anew(self, exchange: Exchange) -> bytes | None:
        verdict = exchange.verdict
        return self._asked(verdict.person) if isinstance(verdict, Forward) else None

    def discarded(self, late: Late, now_ns: int) -> bytes:
        """Return the entry of an answer that came after its deadline, at this monotonic moment."""
        code, source_ns = Code.ANSWER_DISCARDED, now_ns - late.sent_ns
        return canonical(
            Entry(
                kind=EntryKind.OUTCOME,
                at_us=self.now_us(),
                exchange=late.exchange,
                code=int(code),
                stage=int(code.stage),
                service=late.service, service_version=late.service_version,
                requester=late.requester,
                acting=late.acting if late.acting != late.requester else None,
                person=self.tokens.person(late.person) if late.person is not None else None,
                destinations=(late.kbo,),
                generation=late.generation,
                source_us=source_ns // 1000,
                router_us=(now_ns - late.received_ns - source_ns) // 1000,
            )
        )  # fmt: skip

    def summary(self, requester: str, counts: dict[Code, int]) -> bytes:
        """Return the entry of the refusals before the control, of one institution and minute."""
        return canonical(
            Entry(
                kind=EntryKind.SUMMARY,
                at_us=self.now_us(),
                exchange=None,
                code=0,
                stage=int(Stage.LINK),
                requester=requester[:255],
                counts=tuple(sorted((int(code), n) for code, n in counts.items())),
            )
        )


def requester_of(exchange: Exchange) -> str:
    """The KBO number behind the certificate; its URI where it is nobody's."""
    caller = exchange.facts.caller
    return caller.kbo if caller is not None else exchange.session.uri[:255]


def _who_refused(exchange: Exchange) -> msgspec.Raw:
    """``service`` to ``acting`` of what was refused: who asked, and no word that nobody judged."""
    assert isinstance(exchange.verdict, Refusal), "the entry of a request comes first"
    return run("", 0, requester_of(exchange), None)
