"""The rule about the directory that a secondary network keeps of its own, beside the primary one.

The primary directory knows the sector, that of a network which institution of it: both are asked,
the primary one first (domain: ``INSZ_UNKNOW_IN_LEGAL_CONTEXT_CBSS`` and ``..._PPSSI``). What holds
of one is judged of the other by the same rule, and refused under codes of its own. Of a directory
that is kept elsewhere its keeper says yes or no, and nothing of what is lacking.
"""

from ksz_router.codes import Code
from ksz_router.decision import asked, person
from ksz_router.decision.case import Case, Refusal
from ksz_router.model import Mode

_OWN_CODES = {
    Code.PERSON_NOT_INTEGRATED: Code.SECTORAL_NOT_INTEGRATED,
    Code.PHASE_TOO_LOW: Code.SECTORAL_PHASE_TOO_LOW,
    Code.PERIOD_NOT_COVERED: Code.SECTORAL_PERIOD_NOT_COVERED,
}


def own_integration(case: Case) -> Refusal | None:
    """The directory of the requester's own secondary network knows this person for it too.

    One that cannot be read, or whose keeper does not answer, is a source that is down (MSG00002),
    and not a person who is unknown. Its control mode is that of the own integration.
    """
    network, grant = case.standing.own_network, case.standing.grant
    if not network or grant is None or case.person is None:
        return None
    is_asked = case.standing.acting.keeper is not None
    code = _asked(case) if is_asked else _hosted(case, network)
    if code is None:
        return None
    if grant.own_mode is Mode.LOG:
        case.sectoral_violation = code
        case.is_spotted = True
        return None
    return Refusal(code, grant=grant.id)


def _hosted(case: Case, network: str) -> Code | None:
    lines = (case.facts.sectoral or {}).get(network)
    if lines is None:
        return Code.SECTORAL_DIRECTORY_DOWN
    there = person.in_directory(case, lines)
    refusal = person.own_integration(there)
    broken = refusal.code if refusal is not None else there.own_violation
    return _OWN_CODES[broken] if broken is not None else None


def _asked(case: Case) -> Code | None:
    is_known = asked.knows_own(case)
    if is_known is None:
        return Code.SECTORAL_DIRECTORY_DOWN
    return None if is_known else Code.SECTORAL_NOT_INTEGRATED
