"""The preventive control: whether a request may pass, and which institutions it is put to.

This package is pure: no files, no clock, no table handles, no logging. The caller looks the facts
up, ``decide`` judges them, the caller acts on the verdict. Nothing a peer can send raises here.

The order of the rules is part of the contract (agreement, article 7, 4° d). What concerns the
requester is judged before what concerns the person, so that who may not ask cannot learn from
the refusal whether the directory knows someone. ``decide`` and ``explain`` run the same table.
"""

from collections.abc import Callable
from typing import NamedTuple

from ksz_router.codes import Stage
from ksz_router.decision import person, requester, sectoral, seldom
from ksz_router.decision.case import (
    SECONDARY_NETWORK,
    Asking,
    Case,
    Destination,
    Facts,
    Forward,
    Question,
    Refusal,
    Standing,
    Verdict,
)
from ksz_router.decision.requester import stand, standing_key
from ksz_router.messages import Request
from ksz_router.model import Day

__all__ = [
    "RULES", "SECONDARY_NETWORK", "Destination", "Facts", "Forward", "Question", "Refusal", "Rule",
    "Standing", "Step", "Verdict", "decide", "explain", "stand", "standing_key", "unasked",
]  # fmt: skip


def decide(request: Request, facts: Facts, today: Day) -> Verdict:
    """Judge one request.

    Args:
        request: As decoded; its fields are not yet known to be well formed.
        facts: What the tables hold for it, under one read transaction.
        today: The Brussels day on which this runs.

    Returns:
        The refusal of the first rule that is broken, else where the request goes.
    """
    standing = facts.standing
    if standing is None or standing.today != today:
        standing = stand(request, facts, today)
    case = Case(request, facts, standing, today, today)
    for judge in _JUDGES_OF_MOST if standing.is_plain and not facts.outages else _JUDGES:
        refusal = judge(case)
        if refusal is not None:
            return refusal
    return _forward(case)


def unasked(request: Request, facts: Facts, today: Day) -> tuple[Question, ...]:
    """Say what keepers of sectoral directories are to be asked before a request is decided on.

    Args:
        request: As for :func:`decide`, and so the others.
        facts: With the answers to what was asked before.
        today: The Brussels day.

    Returns:
        Questions to which there is no answer yet, and on which the verdict turns; none where a rule
        before them is broken.
    """
    standing = facts.standing
    if standing is None or standing.today != today:
        standing = stand(request, facts, today)
    if not standing.asks:
        return ()
    case = Asking(request, facts, standing, today, today)
    for judge in _JUDGES:
        if judge(case) is not None:
            break
    return tuple(case.unasked)


class Step(NamedTuple):
    """One rule as :func:`explain` saw it; ``refusal`` is None where the rule holds."""

    stage: Stage
    question: str
    refusal: Refusal | None


def explain(request: Request, facts: Facts, today: Day) -> tuple[list[Step], Verdict]:
    """Judge as :func:`decide` does, and keep each rule that was tried, up to the broken one."""
    standing = facts.standing
    if standing is None or standing.today != today:
        standing = stand(request, facts, today)
    case = Case(request, facts, standing, today, today)
    steps = []
    for rule in RULES:
        refusal = rule.judge(case)
        steps.append(Step(rule.stage, rule.question, refusal))
        if refusal is not None:
            return steps, refusal
    return steps, _forward(case)


def _forward(case: Case) -> Forward:
    standing = case.standing
    return Forward(  # by position, in the order of its fields: thirteen names cost as much again
        standing.acting.kbo, standing.service, standing.role, case.begin, case.end,
        standing.grant, case.line, case.person, case.destinations, case.in_outage,
        case.own_violation, case.sectoral_violation, not case.is_spotted,
    )  # fmt: skip


def _syntax(case: Case) -> Refusal | None:
    return requester.syntax(case) or seldom.destination_named(case)


def _own_integration(case: Case) -> Refusal | None:
    """The primary directory, then that of the requester's secondary network."""
    return person.own_integration(case) or sectoral.own_integration(case)


class Rule(NamedTuple):
    """One row of the control: its stage, its question in plain words, and who answers it."""

    stage: Stage
    question: str
    judge: Callable[[Case], Refusal | None]


RULES = (
    Rule(
        Stage.IDENTITY,
        "Is this a registered, active institution in a role it holds?",
        requester.identity,
    ),
    Rule(Stage.SYNTAX, "Is the request well formed, for a service that exists?", _syntax),
    Rule(
        Stage.RIGHT,
        "May this user or application act here, for this service?",
        requester.access_right,
    ),
    Rule(
        Stage.GRANT, "Does a grant allow the service, on a deliberation in force?", requester.grant
    ),
    Rule(
        Stage.OWN_INTEGRATION,
        "Does the requester's role know the person enough?",
        _own_integration,
    ),
    Rule(Stage.PERSON, "Does the number exist, and is it the one to use?", person.person),
    Rule(
        Stage.SOURCE_INTEGRATION,
        "Who has the data and knows the person?",
        person.source_integration,
    ),
    Rule(Stage.OUTAGE, "Is one of them not in an announced outage?", person.outage),
)
"""The control, in its order."""

_JUDGES = tuple(rule.judge for rule in RULES)

_JUDGES_OF_MOST = (
    requester.syntax,
    person.own_integration,
    person.person,
    person.source_integration,
)
"""Those that have something to say of most requests: nothing about the requester stands in the
way, no directory but the primary one is asked, no row of the service is out of the ordinary, and no
outage is announced."""
