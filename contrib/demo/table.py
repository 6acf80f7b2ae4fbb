"""How the demonstration looks on a terminal: plain text, at most 100 columns. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from contrib.demo.cast import NAMES, Step
from ksz_router.codes import Code, Stage
from ksz_router.messages import Answer

_BRUSSELS = ZoneInfo("Europe/Brussels")
_ROW = "{:>3}  {:<22} {:<23}  {:<28} {:>12}"
_BELOW = "     {:<46}  {:<28} {:>12}"
_LOGGED = "   {:<8} {:<22} {:<23} {:<13} {}"
RULE = "-" * 94
_STAGES = {stage: stage.name.lower().replace("_", " ") for stage in Stage} | {
    Stage.RIGHT: "access right"
}


def head() -> Iterator[str]:
    """Yield the head of the table of exchanges."""
    yield _ROW.format("#", "who asks", "for what", "verdict", "router took")
    yield _BELOW.format("about whom", "code", "source took")
    yield RULE


def row(number: int, step: Step, answer: Answer | None, faults: Iterable[str]) -> Iterator[str]:
    """Yield the lines of one exchange."""
    who, service = NAMES[step.who], step.request.service
    if answer is None:
        yield _ROW.format(number, who, service, "NO ANSWER", "-")
        yield _BELOW.format(step.about, "", "").rstrip()
    else:
        took = f"{answer.router_us / 1000:.1f} ms"
        waited = f"{answer.source_us / 1000:.1f} ms" if answer.source_us else "-"
        yield _ROW.format(number, who, service, _verdict(step, answer), took)
        yield _BELOW.format(step.about, name_of(answer.code), waited)
    for fault in faults:
        yield f"     NOT AS EXPECTED: {fault}"


def is_refusal(answer: Answer) -> bool:
    """Say whether the control refused."""
    return Stage.LINK < answer.stage < Stage.ROUTING


def _verdict(step: Step, answer: Answer) -> str:
    if answer.stage == Stage.LINK:
        return "turned away before control"
    if is_refusal(answer):
        return f"refused: {_STAGES[Stage(answer.stage)]}"
    if answer.code == Code.TICKET_REUSED:
        return "not sent: used ticket"
    if step.told_again:
        return "told again, not sent"
    where = ", ".join(NAMES.get(r.kbo, r.kbo) for r in answer.recipients)
    return f"passed -> {where or 'the router'}"


def name_of(code: int) -> str:
    """Return the name of a code."""
    return Code(code).name if code in set(Code) else str(code)


def logged(rows: Sequence[Mapping[str, Any]], *, first: int, last: int) -> Iterator[str]:
    """Yield rows of the privacy log, as ``log query --json`` gives them; of many, both ends."""
    yield _LOGGED.format("time", "who", "service", "sent to", "what came of it")
    between = max(0, len(rows) - first - last)
    for number, found in enumerate(rows):
        if not first <= number < first + between:
            yield _LOGGED.format(*_cells(found)).rstrip()
        elif number == first:
            yield f"   ... {between} more ..."


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(found["at_us"] / 1e6, _BRUSSELS)
    time = f"{moment:%H:%M:%S}"
    if found["kind"] == "READING":
        return time, "a reader of the log", found["service"], "", "read"
    requester = found["requester"] or ""
    who = NAMES.get(requester.removeprefix("urn:kbo:"), requester)
    sent = ", ".join(NAMES.get(kbo, kbo) for kbo in found["destinations"])
    code = found["code"] or (found["outcomes"][0]["code"] if found["outcomes"] else 0)
    return time, who, found["service"], sent, name_of(code) if code else "open"
