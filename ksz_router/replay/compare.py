"""What a record says was decided, beside what the control decides. Pure.

Nothing here shows a number of a person.
"""

from typing import NamedTuple

from ksz_router.codes import Code, Stage
from ksz_router.days import is_day
from ksz_router.decision import Forward, Verdict
from ksz_router.model import ANY_TYPE, OPEN, Line
from ksz_router.privacylog.entry import WITHHELD, Entry
from ksz_router.replay.persons import is_told_elsewhere


class Difference(NamedTuple):
    """A field of the record, and what the replay comes to."""

    field: str
    recorded: str
    decided: str


def differences(entry: Entry, verdict: Verdict) -> tuple[Difference, ...]:
    """Return the fields in which a verdict is not the recorded one."""
    recorded, decided = _said(entry), _decided(entry, verdict)
    return tuple(
        Difference(name, recorded[name], decided[name])
        for name in recorded
        if recorded[name] != decided[name]
    )


def problem(entry: Entry) -> Difference | None:
    """Return what no control could have decided, whatever the tables say."""
    if entry.code and entry.code not in set(Code):
        return Difference("code", str(entry.code), "no code of the control")
    if entry.code and not Stage.IDENTITY <= Code(entry.code).stage <= Stage.OUTAGE:
        return Difference("code", code_name(entry.code), "a code of the control")
    days = (entry.begin, entry.end, *((entry.line.begin, entry.line.end) if entry.line else ()))
    for day in days:
        if day not in (None, OPEN) and not is_day(day or 0):
            return Difference("period", str(day), "a day")
    return None


def insufficient(entry: Entry) -> str:
    """Return why an entry does not hold enough to decide again, or nothing."""
    if entry.rights_version:
        return f"access rights of version {entry.rights_version} are not in the archive"
    if entry.service == WITHHELD and entry.code not in (Code.SERVICE_UNKNOWN, Code.FIELD_MALFORMED):
        return "the name of the service was withheld"
    is_late = entry.code and Code(entry.code).stage >= Stage.GRANT
    if entry.legal_framework == WITHHELD and is_late:
        return "the legal framework was withheld"
    if entry.requester is None:
        return "the entry does not say who asked"
    return ""


def taken_from(entry: Entry, verdict: Verdict) -> tuple[str, ...]:
    """Return which facts the directory is taken to have said, because the record says so."""
    if entry.person is None:
        return ()
    if not isinstance(verdict, Forward):
        return _TAKEN.get(verdict.code.stage, ())
    taken = []
    if not verdict.service.any_number:
        taken.append(
            "the number was replaced" if entry.asked is not None else "the number was in use"
        )
    if verdict.line is not None:
        taken.append("the directory held the deciding line")
    taken += [
        f"{found.kbo} did not know the person"
        if found.violation
        else f"{found.kbo} knew the person"
        for found in verdict.put_to
        if found.violation or found.line is not None
    ]
    return tuple(taken)


_KNOWN_ENOUGH = "the requester knew the person as far as that was asked"
_TAKEN = {
    Stage.OWN_INTEGRATION: ("what the directory held for the requester",),
    Stage.PERSON: (_KNOWN_ENOUGH, "the state of the number"),
    Stage.SOURCE_INTEGRATION: (_KNOWN_ENOUGH, "which sources knew the person"),
    Stage.OUTAGE: (_KNOWN_ENOUGH, "that a source in the outage knew the person"),
}


def code_name(code: int) -> str:
    """Return a code by its name; 0 is a request that passed."""
    if not code:
        return "forward"
    return Code(code).name if code in set(Code) else str(code)


def line_text(line: Line | None) -> str:
    """Return a line of the directory in words."""
    if line is None:
        return "none"
    kind = "any" if line.type == ANY_TYPE else line.type
    period = f"{line.begin}-{'' if line.end == OPEN else line.end}"
    return f"{line.sector}/{kind} capacity {line.capacity} phase {line.phase} {period}"


def _said(entry: Entry) -> dict[str, str]:
    return {
        "code": code_name(entry.code),
        "stage": str(entry.stage),
        "grant": entry.grant,
        "basis": entry.basis,
        "line": line_text(entry.line),
        "violations": _listed(entry.violations),
        "destinations": _listed(entry.destinations),
        "acting": entry.acting or "",
        "period": _period(entry.begin, entry.end),
    }


def _decided(entry: Entry, verdict: Verdict) -> dict[str, str]:
    if not isinstance(verdict, Forward):
        # The period and who was acted for are input, and an entry of a refusal has no period.
        return {
            "code": code_name(verdict.code),
            "stage": str(int(verdict.code.stage)),
            "grant": verdict.grant,
            "basis": "",
            "line": line_text(None),
            "violations": "",
            "destinations": "",
            "acting": entry.acting or "",
            "period": _period(None, None),
        }
    grant = verdict.grant
    return {
        "code": code_name(0),
        "stage": str(int(Stage.ANSWERED)),
        "grant": grant.id if grant is not None else "",
        "basis": grant.basis if grant is not None else "",
        "line": line_text(verdict.line),
        "violations": _listed(verdict.violations),
        "destinations": _listed(_destinations(entry, verdict)),
        "acting": verdict.acting if verdict.acting != entry.requester else "",
        "period": _period(verdict.begin, verdict.end if verdict.end != OPEN else None),
    }


def _destinations(entry: Entry, verdict: Forward) -> tuple[str, ...]:
    """Those put to; of a retry what the ledger left of all that the control found."""
    if not is_told_elsewhere(entry):
        return tuple(found.kbo for found in verdict.put_to)
    found = tuple(found.kbo for found in verdict.destinations)
    if not entry.attempt:
        return ()
    return tuple(kbo for kbo in entry.destinations if kbo in found)


def _listed(names: tuple[str, ...]) -> str:
    """The recipients of a distribution stand in the order of the role in which each was found."""
    return " ".join(sorted(names))


def _period(begin: int | None, end: int | None) -> str:
    if begin is None:
        return "" if end is None else f"-{end}"
    return f"{begin}-{'' if end is None else end}"
