"""Parts of entries that are the same for many, encoded once: of all, and of one requester's."""

import hashlib

import msgspec

from ksz_router.codes import Code, Stage
from ksz_router.daemon.opened import Exchange, Submission
from ksz_router.daemon.well_formed import public
from ksz_router.decision import Forward
from ksz_router.ledger import NO_DIGEST, Earlier
from ksz_router.limits import means_chars_max
from ksz_router.messages import Reply, Request
from ksz_router.model import Grant, Kind
from ksz_router.privacylog.entry import Kind as EntryKind
from ksz_router.privacylog.entry import begin, run
from ksz_router.privacylog.keys import Hash, Tokens

REQUEST, OUTCOME, RECIPIENT = map(
    begin, (EntryKind.REQUEST, EntryKind.OUTCOME, EntryKind.RECIPIENT)
)

ENDED = {code: run(code, code.stage) for code in Code}
"""``code`` and ``stage`` of an outcome."""

# Fields of an entry that say nothing, by the field they stand in for.
PASSED = run(0, Stage.ANSWERED)  # code, stage
NO_PATH = run(None, None, None, None, None)  # final_client ... legal_framework
NO_MEANS = run("", 0, None)  # means, level, ticket
NOT_ASKED = run(None, None, None, None)  # asked, enterprise, begin, end
NOT_DECIDED = run(0, 0, "", "", None, (), 0)  # rights_version ... request_bytes
NOT_KEPT = run(0, None, 0, 0, (), "", "", 0, None, None)  # answer_bytes ... content
NO_MORE = run((), "", "", 0, None, None)  # counts ... content

KEPT = (Kind.SUBMISSION, Kind.DISTRIBUTION)
"""Kinds that reach a recipient once per ticket."""


class OfRequester(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What every request says again that agrees in all that the control settles once.

    Kept with its ``Standing``, and so for one rulebook, one day, one user and one service.
    """

    tokens: Tokens
    """Of the quarter; in another one the user has another token."""
    grant: Grant | None
    tickets: Hash
    """That of a ticket goes on from here."""
    who: msgspec.Raw
    """``service`` to ``acting``."""
    asking: msgspec.Raw
    """``sector`` to ``level``."""
    granted: msgspec.Raw
    """``grant`` and ``basis``."""
    is_kept: bool

    def __repr__(self) -> str:
        return "OfRequester()"

    @classmethod
    def of(cls, request: Request, passed: Forward, requester: str, tokens: Tokens) -> "OfRequester":
        """Encode what is fixed of a request that passed the control."""
        service, grant, user = passed.service, passed.grant, request.user
        acting = passed.acting if passed.acting != requester else None
        return cls(
            tokens=tokens,
            grant=grant,
            tickets=tokens.tickets_of(requester),
            who=run(service.name, service.version, requester, acting),
            asking=run(
                request.sector,
                request.type,
                request.capacity,
                request.legal_framework,
                tokens.user(user) if user is not None else None,
                request.application,
                public(request.means, means_chars_max),
                request.level,
            ),
            granted=run(grant.id, grant.basis) if grant is not None else run("", ""),
            is_kept=service.kind in KEPT,
        )


def kept(exchange: Exchange, *, is_kept: bool) -> msgspec.Raw:
    """``answer_bytes`` to ``content`` of the request for a submission.

    Of the last three, ``attempt``, ``first`` (the first one, where this is a later one) and
    ``content``, nothing is said where no ledger was asked.
    """
    digest = digest_of(exchange.request.payload) if is_kept else None
    submission, granted, first = exchange.submission, exchange.granted, None
    if submission is None:
        return run(0, digest, 0, 0, (), "", "", 0, None, None)
    if not isinstance(submission.held, Code) and submission.held.first != exchange.id:
        first = submission.held.first
    attempt = granted.attempt if granted is not None else 0
    return run(0, digest, 0, 0, (), "", "", attempt, first, submission.content)


def digest_answered(submission: Submission, reply: Reply | None) -> bytes | None:
    """What was answered to a submission, now or earlier."""
    if isinstance(submission.held, Earlier):
        return submission.held.digest if submission.held.digest != NO_DIGEST else None
    return digest_of(reply.payload) if reply is not None else None


def digest_of(payload: bytes) -> bytes:
    """Of what was submitted or answered."""
    return hashlib.sha256(payload).digest()
