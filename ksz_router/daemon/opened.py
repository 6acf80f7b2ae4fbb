"""An exchange while it is open: what is remembered between its request and its answer."""

from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from ksz_router.codes import Code
from ksz_router.decision import Facts, Forward, Refusal
from ksz_router.identifiers import Kbo
from ksz_router.ledger import Earlier, Granted
from ksz_router.messages import Answer, Request
from ksz_router.model import Kind

if TYPE_CHECKING:
    from ksz_router.daemon.entry_parts import OfRequester
    from ksz_router.daemon.on_behalf import OnBehalf
    from ksz_router.daemon.session import Session
    from ksz_router.daemon.source import SourceLink


class Errand(msgspec.Struct, eq=False):
    """One exchange's way to one destination, from the record to what came of it."""

    exchange: "Exchange"
    kbo: Kbo
    requester: Kbo
    """In whose share of the window it is."""
    link: "SourceLink | None" = None
    number: int = 0
    """The correlation id on ``link``, once it was sent."""
    sent_ns: int = 0
    answered_ns: int = 0
    code: Code | None = None
    """None while nothing came of it."""
    source_code: str = ""

    def __repr__(self) -> str:
        return f"Errand({self.kbo}, code={self.code!r})"


class Late(NamedTuple):
    """All that is kept of an errand that was given up: what the entry of a late answer says."""

    exchange: bytes
    kbo: Kbo
    service: str
    service_version: int
    requester: Kbo
    acting: Kbo
    person: str | None
    generation: str
    received_ns: int
    sent_ns: int

    @classmethod
    def of(cls, errand: Errand) -> "Late":
        """Keep this of an errand."""
        exchange = errand.exchange
        verdict, caller = exchange.verdict, exchange.facts.caller
        assert isinstance(verdict, Forward), "only what passed the control is sent"
        assert caller is not None
        return cls(
            exchange=exchange.id,
            kbo=errand.kbo,
            service=exchange.request.service,
            service_version=exchange.request.version,
            requester=caller.kbo,
            acting=verdict.acting,
            person=verdict.person,
            generation=exchange.generation,
            received_ns=exchange.received_ns,
            sent_ns=errand.sent_ns,
        )


class Submission(NamedTuple):
    """What the ledger says of a submission or distribution."""

    key: bytes
    """Of its row."""
    content: bytes
    held: Granted | Earlier | Code
    """It is to be sent, or what became of it, or why neither can be said."""


class Exchange(msgspec.Struct, eq=False):
    """One request and everything that follows from it."""

    id: bytes
    session: "Session | OnBehalf"
    """Who asks; a change that follows from a message has no connection."""
    request: Request
    received_ns: int
    deadline_ns: int
    facts: Facts
    verdict: Forward | Refusal
    generation: str
    """The rulebook that decided; another may be in force when the answer comes."""
    destinations: tuple[Kbo, ...]
    """Where it goes."""
    submission: Submission | None = None
    """None where nothing is lost by sending it twice."""
    errands: list[Errand] = []
    open_errands: int = 0
    forwarded_ns: int = 0
    person_token: bytes | None = None
    """The person's token in the entry of the request."""
    noted: "OfRequester | None" = None
    """What else its entries say of the requester; None before it passed, or where it did not."""
    first: bytes = b""
    """Under which exchange id it goes out, where that is settled from the first attempt on."""
    counted_for: Kbo | None = None
    """In whose share of a source's window it is, where that is not who asks."""

    def __repr__(self) -> str:
        return f"Exchange({self.verdict!r}, errands={len(self.errands)})"

    def hold(self, submission: Submission) -> None:
        """Go by what the ledger says."""
        self.submission = submission
        held = submission.held
        recipients = held.recipients if isinstance(held, Granted) else ()
        self.destinations = cast("tuple[Kbo, ...]", recipients)

    @property
    def is_made_again(self) -> bool:
        """It goes out under the id of an earlier attempt, of which the ledger may not know."""
        return bool(self.first) and self.first != self.id

    @property
    def granted(self) -> Granted | None:
        """The ledger's leave to send a submission."""
        submission = self.submission
        if submission is None or not isinstance(submission.held, Granted):
            return None
        return submission.held

    @property
    def left_out(self) -> tuple[str, ...]:
        """Recipients of a distribution that are spared for an announced outage.

        Not those of whom an earlier attempt says what became of it: that still holds.
        """
        verdict, submission = self.verdict, self.submission
        if not isinstance(verdict, Forward) or verdict.service.kind is not Kind.DISTRIBUTION:
            return ()
        if submission is None:
            return verdict.in_outage
        held = submission.held
        if isinstance(held, Code):
            return ()
        told = held.earlier if isinstance(held, Granted) else held.codes
        return tuple(kbo for kbo in verdict.in_outage if kbo not in told)


class Release(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The answer is to be given; the entry of its outcome comes first."""

    exchange: Exchange
    answer: Answer
    replied_ns: int
    """When the outcome was known; what follows is the answer's way through the router."""
