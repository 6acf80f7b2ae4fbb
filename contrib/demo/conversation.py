"""The conversation of the demonstration: each request is sent, and its outcome judged.

What does not go as the step says is kept and shown; nothing is asked twice to make it go right.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import trio

from contrib.demo import table
from contrib.demo.cast import ASKING, BANK, NAMES, Chapter, Step
from contrib.demo.sources import DOWN, Sources, payload
from contrib.demo.story import chapters
from contrib.demo.terminal import bold, show
from contrib.stand import ROUTER_URI, Stand, StandError
from ksz_router.codes import Code
from ksz_router.messages import Answer
from ksz_router.sdk import Client, SdkError, open_client

UNSEEN = {DOWN, BANK}
"""What goes to these is seen by no source of the demonstration: one is not there, the other is the
router's own directory program."""

_TOLD_SECONDS_MAX = 10.0


class Told(msgspec.Struct):
    """What was seen so far."""

    answers: list[tuple[Step, Answer]] = []
    sent: int = 0
    logged: int = 0
    verified: bool = False
    proved: bool = False
    replayed: bool = False
    tamper_detected: bool = False
    faults: list[str] = []

    def summary(self) -> dict[str, object]:
        is_ok = not self.faults and self.verified and self.proved
        is_ok = is_ok and self.replayed and self.tamper_detected
        is_ok = is_ok and 0 < self.sent == len(self.answers) == self.logged
        return {
            "demo": "ok" if is_ok else "failed",
            "exchanges": self.sent,
            "refused": sum(table.is_refusal(answer) for _, answer in self.answers),
            "logged": self.logged,
            "verified": self.verified,
            "proved": self.proved,
            "replayed": self.replayed,
            "tamper_detected": self.tamper_detected,
        }


async def ask_all(stand: Stand, persons: Mapping[str, str], sources: Sources, told: Told) -> None:
    """Send every request of the story, one after the other, and print what came of each."""
    async with AsyncExitStack() as stack:
        clients = {}
        for kbo in ASKING:
            client = open_client(
                stand.identity(kbo), host="127.0.0.1", port=stand.port, uri=ROUTER_URI
            )
            clients[kbo] = await stack.enter_async_context(client)
        for line in table.head():
            show(line)
        for chapter in chapters(persons, _of_fund(stand.folder / "persons.csv")):
            await _ask_chapter(chapter, clients, sources, told)


async def _ask_chapter(
    chapter: Chapter, clients: Mapping[str, Client], sources: Sources, told: Told
) -> None:
    show(f"\n{bold(chapter.title)}\n{chapter.text}")
    if chapter.in_one_envelope:
        begun_at = trio.current_time()
        requests = [step.request for step in chapter.steps]
        results = await clients[chapter.steps[0].who].ask_together(requests, deadline_s=10)
        for step, result in zip(chapter.steps, results, strict=True):
            _tell(step, result, trio.current_time() - begun_at, sources, told)
        return
    for step in chapter.steps:
        begun_at = trio.current_time()
        try:
            found: Answer | Exception = await clients[step.who].ask(step.request, deadline_s=10)
        except SdkError as error:
            found = error
        _tell(step, found, trio.current_time() - begun_at, sources, told)
        if step.then_told:
            await _wait_until_told(step, sources, told)


async def _wait_until_told(step: Step, sources: Sources, told: Told) -> None:
    """See that the directory tells the institutions that a step names, once each."""
    number, names = step.request.person or "", ", ".join(NAMES[kbo] for kbo in step.then_told)
    with trio.move_on_after(_TOLD_SECONDS_MAX):
        await sources.all_told(number, step.then_told)
    counts = {kbo: times for (kbo, of), times in sources.notices.items() if of == number}
    if counts != dict.fromkeys(step.then_told, 1):
        told.faults.append(f"exchange {told.sent}: not everybody was told once: {names}")
    show(f"     and {NAMES[BANK]} tells who knows the person: {names}")


def _tell(
    step: Step, result: Answer | Exception, took_s: float, sources: Sources, told: Told
) -> None:
    """Judge what came of a step, and show it."""
    told.sent += 1
    answer = result if isinstance(result, Answer) else None
    if answer is None:
        faults = [f"{type(result).__name__}: {result}"]
    else:
        told.answers.append((step, answer))
        faults = list(faults_of(step, answer, took_s, sources))
    told.faults += [f"exchange {told.sent}: {fault}" for fault in faults]
    for line in table.row(told.sent, step, answer, faults):
        show(line)


def faults_of(step: Step, answer: Answer, took_s: float, sources: Sources) -> Iterator[str]:
    """Yield what is not as the step says."""
    if answer.code != step.expected:
        yield f"{table.name_of(answer.code)} instead of {step.expected.name}"
    asked = tuple(recipient.kbo for recipient in answer.recipients)
    if sorted(asked) != sorted(step.went_to):
        yield f"went to {asked or 'nobody'} instead of {step.went_to or 'nobody'}"
    reached = {kbo for exchange, kbo in sources.delivered if exchange == answer.exchange}
    if reached != set(step.went_to) - UNSEEN:
        yield f"reached {sorted(reached) or 'nobody'}"
    person = step.delivered or step.request.person
    if any(sources.delivered[answer.exchange, kbo] != person for kbo in reached):
        yield "a source was asked for another person"
    if any(sources.times[answer.exchange, kbo] != 1 for kbo in reached):
        yield "was delivered more than once"
    if step.told_again != ("retry" in answer.detail):
        yield "was not told again" if step.told_again else "was told again"
    if len(reached) == 1 and step.expected is Code.ANSWERED_WITH_DATA:
        (kbo,) = reached
        answered = payload(kbo, step.request.service)
        digest = hashlib.sha256(answered).hexdigest()
        if answer.payload != (b"" if step.told_again else answered):
            yield "the answer is not what the source answered"
        if step.told_again and answer.detail.get("payloadDigest") != digest:
            yield "the digest is not that of what the source answered"
    if not step.detail.items() <= answer.detail.items():
        yield f"the detail {' and '.join(step.detail)} is missing or another"
    if took_s > step.within_s:
        yield f"took {took_s:.1f} s, {step.within_s} s at most were expected"


def _of_fund(csv: Path) -> str:
    """Return an active person with an open line of sector 11 for every type, in capacity 1."""
    active = set()
    with csv.open(encoding="ascii") as lines:
        for line in lines:
            insz, status, _, _, sector, kind, capacity, _, _, end, _ = f"{line},,,,,,,,,,".split(
                ",", 11
            )[:11]
            if status == "active":
                active.add(insz)
            if insz in active and (sector, kind, capacity, end) == ("11", "", "1", ""):
                return insz
    raise StandError("no person has a line of sector 11")
