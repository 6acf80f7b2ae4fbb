"""Sectoral directories that are kept elsewhere: what is asked of their keepers, and what they said.

The answer is a fact like any other, and the control a function of it. Nobody is asked about a
person in vain: only where the primary directory lets the request through, and of several sources
that stand in for each other only as far as to the first that can be asked.
"""

from ksz_router.decision.case import Asking, Case, Destination, Question
from ksz_router.model import ANY_TYPE, Availability, Kind, Mode, Role


def knows_own(case: Case) -> bool | None:
    """Say whether the directory of the requester's network knows the person for it.

    Returns:
        None where that cannot be said.
    """
    standing, person = case.standing, case.facts.person
    keeper, own, grant = standing.acting.keeper, standing.own, standing.grant
    assert keeper is not None
    assert own is not None
    assert own.capacities is not None, "the own integration is never in any capacity"
    assert grant is not None
    if person is None:  # a number that does not exist is nobody's, and is told to nobody
        return False
    question = Question(
        keeper=keeper,
        institution=standing.acting.kbo,
        roles=tuple(sorted(Role(*file) for file in own.files if file[1] != ANY_TYPE)),
        capacities=tuple(sorted(own.capacities)),
        provisional=grant.provisional,
        phase=grant.phase,
        is_whole=True,
        person=person.current,
        begin=case.begin,
        end=case.end,
    )
    return _said(case, question)


def knows_for(row: Availability, case: Case) -> bool | None:
    """Say whether the directory of a source's network knows the person for it; None: unsaid."""
    person, grant = case.facts.person, case.standing.grant
    assert row.keeper is not None
    assert person is not None, "the primary directory knows the person"
    question = Question(
        keeper=row.keeper,
        institution=row.kbo,
        roles=(row.role,),
        capacities=tuple(sorted(row.capacities)),
        provisional=grant is not None and grant.provisional,
        phase=row.phase,
        is_whole=False,
        person=person.current,
        begin=case.begin,
        end=case.end,
    )
    return _said(case, question)


def _said(case: Case, question: Question) -> bool | None:
    answers = case.facts.answers
    if answers is not None and question in answers:
        return answers[question]
    if isinstance(case, Asking):
        case.unasked[question] = None
    return None


class Turns:
    """Whose turn it is, where a request is put to one of several sources, in their order.

    Args:
        case: Of which rows are tried one by one.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._out = frozenset(outage.kbo for outage in case.facts.outages)
        self._is_found = False
        self._goes_to_all = case.standing.service.kind is Kind.DISTRIBUTION

    def is_spared(self, row: Availability) -> bool:
        """Say whether the keeper of a row need not be asked, or not yet: one before it may do."""
        is_asked_for = row.keeper is not None and row.mode is not Mode.NONE
        if not is_asked_for or self._case.person is None or self._goes_to_all:
            return False
        return self._is_found or (isinstance(self._case, Asking) and bool(self._case.unasked))

    def tried(self, found: Destination) -> None:
        """Note a destination."""
        is_taker = bool(found.receive) or self._case.standing.service.kind is Kind.CONSULTATION
        self._is_found = self._is_found or (is_taker and found.kbo not in self._out)
