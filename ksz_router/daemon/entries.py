"""From an exchange to its privacy-log entries.

Field by field what the agreement asks for (article 7, 5° b) and what a replay of the decision
needs. What a peer sent malformed is not copied: it could be anything, and of any length.
"""

import hashlib
from collections.abc import Callable

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.daemon.beside import further, spared
from ksz_router.daemon.opened import Errand, Exchange, Late, Submission
from ksz_router.daemon.well_formed import public, well_formed_part
from ksz_router.decision import Forward, Refusal
from ksz_router.ledger import NO_DIGEST, Earlier
from ksz_router.limits import means_chars_max
from ksz_router.messages import Reply
from ksz_router.model import OPEN, Kind
from ksz_router.privacylog.entry import Entry, begin, canonical, canonical_parts, run
from ksz_router.privacylog.entry import Kind as EntryKind
from ksz_router.privacylog.keys import Tokens

_REQUEST, _OUTCOME, _RECIPIENT = map(
    begin, (EntryKind.REQUEST, EntryKind.OUTCOME, EntryKind.RECIPIENT)
)
# Fields of an entry that say nothing, by the field they stand in for.
_PASSED = run(0, Stage.ANSWERED)  # code, stage
_NOT_ENDED = run(0, 0, (), "", "")  # router_us, source_us, counts, reader, purpose
_NO_PATH = run(None, None, None, None, None)  # final_client ... legal_framework
_NO_MEANS = run("", 0, None)  # means, level, ticket
_NOT_ASKED = run(None, None, None, None)  # asked, enterprise, begin, end
_NOT_DECIDED = run(0, 0, "", "", None, (), 0)  # rights_version ... request_bytes
_NOT_SUBMITTED = run(0, None, None)  # attempt, first, content
_NO_MORE = run((), "", "", 0, None, None)  # counts ... content


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
        verdict = exchange.verdict
        if isinstance(verdict, Forward):
            return self._passed(exchange, verdict)
        return self._refused(exchange, verdict)

    def _passed(self, exchange: Exchange, passed: Forward) -> bytes:
        """Of a request that passed the control: all of it is well formed."""
        request, submission, grant = exchange.request, exchange.submission, passed.grant
        tokens, caller, service = self.tokens, exchange.facts.caller, passed.service
        person, asked, acting = passed.person, request.person, passed.acting
        user, payload, token = request.user, request.payload, None
        assert caller is not None, "who passed is known"
        requester = caller.kbo
        exchange.who = who = run(
            service.name, service.version, requester, acting if acting != requester else None
        )
        if person is not None:
            exchange.person_token = token = tokens.person(person)
            exchange.tokens = tokens
        return canonical_parts(
            (
                _REQUEST, self.now_us(), exchange.id, _PASSED,
                who,
                request.final_client,
                request.sector,
                request.type,
                request.capacity,
                request.legal_framework,
                tokens.user(user) if user is not None else None,
                request.application,
                public(request.means, means_chars_max),
                request.level,
                tokens.ticket(requester, request.ticket),
                token,
                tokens.person(asked) if asked is not None and asked != person else None,
                request.enterprise,
                passed.begin,
                passed.end if passed.end != OPEN else None,
                exchange.destinations,
                exchange.generation,
                self.rights_version,
                self.directory_version,
                grant.id if grant is not None else "",
                grant.basis if grant is not None else "",
                passed.line,
                () if passed.is_spotless else passed.violations,
                len(payload),
                0,
                _digest(payload) if service.kind in KEPT else None,
                _NOT_ENDED,
                _NOT_SUBMITTED if submission is None else _submitted(submission, exchange),
            )
        )  # fmt: skip

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
                digest=_digest(request.payload) if service and service.kind in KEPT else None,
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
        entry = self._end(_OUTCOME, exchange, code, errand, reply, router_us=router_us)
        left_out = exchange.left_out if errand is None else ()
        if not left_out and (reply is None or not reply.persons):
            return [entry]  # as most are
        return [*spared(entry, left_out), entry, *self._further(entry, reply)]

    def recipient(
        self, exchange: Exchange, code: Code, errand: Errand, reply: Reply | None
    ) -> list[bytes]:
        """Return the entry of how one recipient of a distribution did, and the further persons."""
        entry = self._end(_RECIPIENT, exchange, code, errand, reply)
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
        submission, token = exchange.submission, exchange.person_token
        if token is not None and exchange.tokens is not self.tokens:  # another quarter began
            person = exchange.verdict.person if isinstance(exchange.verdict, Forward) else None
            token = self.tokens.person(person) if person is not None else None
        user, application, answer_bytes, source_ns = None, None, 0, 0
        if reply is not None:
            user, application = reply.user, reply.application
            answer_bytes = len(reply.payload)
        if errand is not None and errand.answered_ns:
            source_ns = errand.answered_ns - errand.sent_ns
        return canonical_parts(
            (
                kind,
                self.now_us(),
                exchange.id,
                code,
                code.stage,
                exchange.who or _who_refused(exchange),
                _NO_PATH,
                self.tokens.user(user) if user is not None else None,
                application,
                _NO_MEANS,
                token,
                _NOT_ASKED,
                (errand.kbo,) if errand is not None else exchange.destinations,
                exchange.generation,
                _NOT_DECIDED,
                answer_bytes,
                _digest_answered(submission, reply) if submission is not None else None,
                max(0, router_us),
                source_ns // 1000,
                _NO_MORE,
            )
        )  # fmt: skip

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


KEPT = (Kind.SUBMISSION, Kind.DISTRIBUTION)
"""Kinds that reach a recipient once per ticket."""


def requester_of(exchange: Exchange) -> str:
    """The KBO number behind the certificate; its URI where it is nobody's."""
    caller = exchange.facts.caller
    return caller.kbo if caller is not None else exchange.session.uri[:255]


def _who_refused(exchange: Exchange) -> msgspec.Raw:
    """``service`` to ``acting`` of what was refused: who asked, and no word that nobody judged."""
    assert isinstance(exchange.verdict, Refusal), "the entry of a request comes first"
    return run("", 0, requester_of(exchange), None)


def _submitted(submission: Submission, exchange: Exchange) -> msgspec.Raw:
    """``attempt``, ``first`` (the first attempt, where this is a later one) and ``content``."""
    granted, first = exchange.granted, None
    if not isinstance(submission.held, Code) and submission.held.first != exchange.id:
        first = submission.held.first
    return run(granted.attempt if granted is not None else 0, first, submission.content)


def _digest_answered(submission: Submission, reply: Reply | None) -> bytes | None:
    """What was answered to a submission, now or earlier."""
    if isinstance(submission.held, Earlier):
        return submission.held.digest if submission.held.digest != NO_DIGEST else None
    return _digest(reply.payload) if reply is not None else None


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()
