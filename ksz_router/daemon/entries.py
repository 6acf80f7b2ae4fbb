"""From an exchange to its privacy-log entries.

Field by field what the agreement asks for (article 7, 5° b) and what a replay of the decision
needs. What a peer sent malformed is not copied: it could be anything, and of any length.
"""

import hashlib
from collections.abc import Callable

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.daemon.opened import Errand, Exchange, Late, Submission
from ksz_router.daemon.well_formed import public, well_formed_part
from ksz_router.decision import Forward, Refusal
from ksz_router.identifiers import Kbo
from ksz_router.ledger import NO_DIGEST, Earlier
from ksz_router.limits import means_chars_max
from ksz_router.messages import Reply
from ksz_router.model import OPEN, Kind
from ksz_router.privacylog.entry import Entry, canonical
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
        verdict, tokens, service = exchange.verdict, self.tokens, exchange.facts.service
        requester, submission, granted = (
            requester_of(exchange),
            exchange.submission,
            exchange.granted,
        )
        request = exchange.request
        if isinstance(verdict, Refusal):
            request = well_formed_part(request)
        named = request.member or request.kbo
        passed = verdict if isinstance(verdict, Forward) else None
        person = request.person if passed is None else passed.person
        known = exchange.facts.person
        if isinstance(verdict, Refusal) and verdict.code.stage >= Stage.PERSON and known:
            person = known.current  # it was judged, and perhaps told: both numbers stand here
        asked = request.person if request.person != person else None
        grant = passed.grant if passed is not None else None
        return canonical(
            Entry(
                kind=EntryKind.REQUEST,
                at_us=self.now_us(),
                exchange=exchange.id,
                code=int(verdict.code) if isinstance(verdict, Refusal) else 0,
                stage=int(verdict.code.stage if isinstance(verdict, Refusal) else Stage.ANSWERED),
                service=request.service,
                service_version=request.version,
                requester=requester,
                acting=named if named != requester else None,
                final_client=request.final_client,
                sector=request.sector,
                type=request.type,
                capacity=request.capacity,
                legal_framework=request.legal_framework,
                user=tokens.user(request.user) if request.user is not None else None,
                application=request.application,
                means=public(request.means, means_chars_max),
                level=request.level,
                ticket=tokens.ticket(Kbo(requester), request.ticket),
                person=tokens.person(person) if person is not None else None,
                asked=tokens.person(asked) if asked is not None else None,
                enterprise=request.enterprise,
                begin=passed.begin if passed is not None else None,
                end=passed.end if passed is not None and passed.end != OPEN else None,
                destinations=exchange.destinations,
                generation=exchange.generation,
                rights_version=self.rights_version,
                directory_version=self.directory_version,
                grant=grant.id if grant is not None else _grant_of(verdict),
                basis=grant.basis if grant is not None else "",
                line=passed.line if passed is not None else None,
                violations=passed.violations if passed is not None else (),
                request_bytes=len(request.payload),
                digest=_digest(request.payload) if service and service.kind in KEPT else None,
                attempt=granted.attempt if granted is not None else 0,
                first=_first_of(submission, exchange.id),
                content=submission.content if submission is not None else None,
            )
        )

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
        entry = self._end(EntryKind.OUTCOME, exchange, code, errand, reply, router_us=router_us)
        left_out = self._left_out(exchange, entry)
        return [*left_out, canonical(entry), *self._further(exchange, entry, reply)]

    def recipient(
        self, exchange: Exchange, code: Code, errand: Errand, reply: Reply | None
    ) -> list[bytes]:
        """Return the entry of how one recipient of a distribution did, and the further persons."""
        entry = self._end(EntryKind.RECIPIENT, exchange, code, errand, reply)
        return [canonical(entry), *self._further(exchange, entry, reply)]

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
                service=late.service,
                service_version=late.service_version,
                requester=late.requester,
                acting=late.acting if late.acting != late.requester else None,
                person=self.tokens.person(late.person) if late.person is not None else None,
                destinations=(late.kbo,),
                generation=late.generation,
                source_us=source_ns // 1000,
                router_us=(now_ns - late.received_ns - source_ns) // 1000,
            )
        )

    def _end(
        self,
        kind: EntryKind,
        exchange: Exchange,
        code: Code,
        errand: Errand | None,
        reply: Reply | None,
        *,
        router_us: int = 0,
    ) -> Entry:
        request, verdict = exchange.request, exchange.verdict
        passed = verdict if isinstance(verdict, Forward) else None
        requester = requester_of(exchange)
        answered = errand is not None and errand.answered_ns
        return Entry(
            kind=kind,
            at_us=self.now_us(),
            exchange=exchange.id,
            code=int(code),
            stage=int(code.stage),
            service=request.service if passed is not None else "",
            service_version=request.version if passed is not None else 0,
            requester=requester,
            acting=passed.acting if passed is not None and passed.acting != requester else None,
            user=self._supplier(reply),
            application=reply.application if reply is not None else None,
            person=self.tokens.person(passed.person) if passed and passed.person else None,
            destinations=(errand.kbo,) if errand is not None else exchange.destinations,
            generation=exchange.generation,
            answer_bytes=len(reply.payload) if reply is not None else 0,
            digest=_digest_answered(exchange.submission, reply),
            source_us=(errand.answered_ns - errand.sent_ns) // 1000 if errand and answered else 0,
            router_us=max(0, router_us),
        )

    def _left_out(self, exchange: Exchange, outcome: Entry) -> list[bytes]:
        """One entry for each recipient of a distribution that was spared for its outage."""
        if not exchange.left_out:
            return []
        code = Code.ANNOUNCED_OUTAGE
        entry = msgspec.structs.replace(
            outcome, kind=EntryKind.RECIPIENT, code=int(code), stage=int(code.stage), router_us=0
        )
        return [
            canonical(msgspec.structs.replace(entry, destinations=(kbo,)))
            for kbo in exchange.left_out
        ]

    def _further(self, exchange: Exchange, entry: Entry, reply: Reply | None) -> list[bytes]:
        return [
            canonical(
                Entry(
                    kind=EntryKind.FURTHER,
                    at_us=entry.at_us,
                    exchange=exchange.id,
                    code=entry.code,
                    stage=entry.stage,
                    service=entry.service,
                    service_version=entry.service_version,
                    requester=entry.requester,
                    acting=entry.acting,
                    person=self.tokens.person(person),
                    destinations=entry.destinations,
                )
            )
            for person in dict.fromkeys(reply.persons if reply is not None else ())
        ]

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

    def _supplier(self, reply: Reply | None) -> bytes | None:
        if reply is None or reply.user is None:
            return None
        return self.tokens.user(reply.user)


KEPT = (Kind.SUBMISSION, Kind.DISTRIBUTION)
"""Kinds that reach a recipient once per ticket."""


def requester_of(exchange: Exchange) -> str:
    """The KBO number behind the certificate; its URI where it is nobody's."""
    caller = exchange.facts.caller
    return caller.kbo if caller is not None else exchange.session.uri[:255]


def _grant_of(verdict: Forward | Refusal) -> str:
    return verdict.grant if isinstance(verdict, Refusal) else ""


def _first_of(submission: Submission | None, own: bytes) -> bytes | None:
    """The exchange id of the first attempt, where this is a later one."""
    if submission is None or isinstance(submission.held, Code):
        return None
    return submission.held.first if submission.held.first != own else None


def _digest_answered(submission: Submission | None, reply: Reply | None) -> bytes | None:
    """What was answered to a submission, now or earlier."""
    if submission is None:
        return None
    if isinstance(submission.held, Earlier):
        return submission.held.digest if submission.held.digest != NO_DIGEST else None
    return _digest(reply.payload) if reply is not None else None


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()
