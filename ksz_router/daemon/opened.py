"""An exchange while it is open: what is remembered between its request and its answer."""

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ksz_router.codes import Code
from ksz_router.decision import Facts, Forward, Refusal
from ksz_router.identifiers import Kbo
from ksz_router.ledger import Earlier, Granted
from ksz_router.messages import Answer, Reply, Request
from ksz_router.model import Kind

if TYPE_CHECKING:
    from ksz_router.daemon.session import Session
    from ksz_router.daemon.source import SourceLink


class Errand:
    """One exchange's way to one destination, from the record to what came of it."""

    __slots__ = (
        "answered_ns",
        "code",
        "exchange",
        "kbo",
        "link",
        "number",
        "sent_ns",
        "source_code",
    )

    def __init__(self, exchange: "Exchange", kbo: Kbo) -> None:
        self.exchange = exchange
        self.kbo = kbo
        self.link: SourceLink | None = None
        self.number = 0
        """The correlation id on ``link``, once it was sent."""
        self.sent_ns = 0
        self.answered_ns = 0
        self.code: Code | None = None
        """None while nothing came of it."""
        self.source_code = ""


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


class Exchange:
    """One request and everything that follows from it."""

    __slots__ = (
        "deadline_ns", "destinations", "errands", "facts", "forwarded_ns", "generation", "id",
        "open_errands", "received_ns", "reply", "request", "session", "submission", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: bytes,  # noqa: A002 - it is the exchange's id
        session: "Session",
        request: Request,
        received_ns: int,
        deadline_ns: int,
        facts: Facts,
        verdict: Forward | Refusal,
        generation: str,
    ) -> None:
        self.id = id
        self.session = session
        self.request = request
        self.received_ns = received_ns
        self.deadline_ns = deadline_ns
        self.facts = facts
        self.verdict = verdict
        self.generation = generation
        """The rulebook that decided; another may be in force when the answer comes."""
        self.destinations: tuple[str, ...] = (
            tuple([found.kbo for found in verdict.put_to]) if isinstance(verdict, Forward) else ()
        )
        """Where it goes."""
        self.submission: Submission | None = None
        """None where nothing is lost by sending it twice."""
        self.errands: list[Errand] = []
        self.open_errands = 0
        self.forwarded_ns = 0
        self.reply: Reply | None = None
        """What the asked source said; a distribution keeps no payload."""

    def hold(self, submission: Submission) -> None:
        """Go by what the ledger says."""
        self.submission = submission
        held = submission.held
        self.destinations = held.recipients if isinstance(held, Granted) else ()

    @property
    def granted(self) -> Granted | None:
        """The ledger's leave to send a submission."""
        if self.submission is None or not isinstance(self.submission.held, Granted):
            return None
        return self.submission.held

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

    @property
    def delivered_as(self) -> bytes:
        """The exchange id that recipients and requester know it by: of its first attempt."""
        granted = self.granted
        return granted.first if granted is not None else self.id


class Dispatch(msgspec.Struct, frozen=True):
    """The request is to be forwarded; its entry comes first."""

    exchange: Exchange


class Release(msgspec.Struct, frozen=True):
    """The answer is to be given; the entry of its outcome comes first."""

    exchange: Exchange
    answer: Answer
    replied_ns: int
    """When the outcome was known; what follows is the answer's way through the router."""
